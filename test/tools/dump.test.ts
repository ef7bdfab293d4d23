import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type DumpOptions, dumpMetadata } from '../../src/tools/dump.ts';
import { LeafRuns } from '../../src/tools/leaf-runs.ts';
import { contentsOf, goldenImage } from '../support/metadata-judges.ts';
import { TestDevice } from '../support/test-device.ts';
import { requireTool } from '../support/tools.ts';

const GOLDEN = join(import.meta.dirname, '..', 'golden');
const NAMES = readdirSync(GOLDEN)
  .filter((name) => name.endsWith('.md.xz'))
  .map((name) => name.slice(0, -6));

function dump(device: TestDevice, options: DumpOptions = {}): string {
  const pieces: string[] = [];
  dumpMetadata(device, (text) => pieces.push(text), options);
  return pieces.join('');
}

function unpacked(name: string): Buffer {
  const path = join(import.meta.dirname, 'samples', name);
  return execFileSync(requireTool('xz'), ['-dc', path], { maxBuffer: 1 << 26 });
}

/** What thin_dump 1.1.0 finds: runs, and whether they are shared, of the sequences; written down from its definition. */
function naiveRuns(sequences: readonly number[][]): { run: number[]; shared: boolean }[] {
  const before = new Map<number, Set<number>>();
  const after = new Map<number, Set<number>>();
  for (const sequence of sequences) {
    sequence.forEach((leaf, i) => {
      before.set(leaf, (before.get(leaf) ?? new Set()).add(sequence[i - 1] ?? 0));
      after.set(leaf, (after.get(leaf) ?? new Set()).add(sequence[i + 1] ?? 0));
    });
  }
  const single = (leaves: Set<number>): number => (leaves.size === 1 ? [...leaves][0]! : 0);
  const isHead = (leaf: number): boolean => {
    const previous = single(before.get(leaf)!);
    return previous === 0 || single(after.get(previous)!) !== leaf;
  };
  return [...before.keys()]
    .filter(isHead)
    .sort((a, b) => a - b)
    .map((head) => {
      const run = [head];
      for (let leaf = single(after.get(head)!); leaf !== 0 && !isHead(leaf); leaf = single(after.get(leaf)!))
        run.push(leaf);
      return { run, shared: sequences.filter((sequence) => sequence.includes(head)).length > 1 };
    });
}

describe('a dump', () => {
  it.each(NAMES)('of the golden image %s is the XML of thin_dump 1.1.0, byte for byte', (name) => {
    expect(dump(goldenImage(name))).toBe(readFileSync(join(GOLDEN, `${name}.xml`), 'utf8'));
  });

  it('of devices that share parts of large trees is the XML of thin_dump 1.1.0, byte for byte', () => {
    const image = new TestDevice(new Uint8Array(unpacked('shared-runs.md.xz')));
    const xml = unpacked('shared-runs.xml.xz').toString();
    expect(xml.match(/<def /g)).toHaveLength(6);
    expect(dump(image)).toBe(xml);
  });

  it('for people is that of thin_dump 1.1.0', () => {
    const image = goldenImage('a11-five-snaps-broke-one-overflow-tree');
    const text = dump(image, { format: 'human_readable', deviceIds: [1, 50, 51] });
    expect(text).toBe(
      [
        'begin superblock: "", 6, 6, 0, 2, 128, 1024',
        'def: 87',
        '    (0..0) -> (6..6), 1',
        '    (2..4) -> (2..4), 0',
        '    (7..7) -> (8..8), 1',
        '    (100..100) -> (5..5), 0',
        '',
        'device: 1',
        'mapped_blocks: 7',
        'transaction: 0',
        'creation time: 0',
        'snap time: 6',
        '    (0..0) -> (6..6), 1',
        '    (1..1) -> (9..9), 6',
        '    (2..4) -> (2..4), 0',
        '    (7..7) -> (8..8), 1',
        '    (100..100) -> (5..5), 0',
        '',
        ...[50, 51].flatMap((id) => [
          `device: ${id}`,
          'mapped_blocks: 6',
          'transaction: 6',
          `creation time: ${id - 48}`,
          `snap time: ${id - 48}`,
          '    ref: 87',
          '',
        ]),
        'end superblock',
        '',
      ].join('\n'),
    );
  });

  it('as JSON has every mapping of every device', () => {
    const image = goldenImage('a11-five-snaps-broke-one-overflow-tree');
    const json = JSON.parse(dump(image, { format: 'json' }));
    expect(json).toMatchObject({
      time: 6,
      transactionId: 6,
      needsCheck: false,
      version: 2,
      dataBlockSizeSectors: 128,
      dataBlockCount: 1024,
    });
    const found = json.devices.map(({ id, mappings }: { id: number; mappings: Record<string, number>[] }) => {
      const each = mappings.flatMap(({ virtualBegin, dataBegin, length, time }) =>
        Array.from({ length: length! }, (_, i) => [virtualBegin! + i, { dataBlock: dataBegin! + i, time }]),
      );
      return [id, each];
    });
    const { devices } = contentsOf(image);
    expect(found).toEqual([...devices].map(([id, { mappings }]) => [id, [...mappings]]));
  });

  it('of a metadata snapshot is of what it holds, and has no data blocks', () => {
    const image = goldenImage('a06-reserved-then-more-writes');
    const xml = dump(image, { metadataSnapshot: true });
    const [head] = xml.split('\n');
    expect(head).toBe(
      '<superblock uuid="" time="1" transaction="0" version="2" data_block_size="128" nr_data_blocks="0">',
    );
    const reserved = dump(goldenImage('a05-metadata-snap-reserved'));
    expect(xml.split('\n').slice(1)).toEqual(reserved.split('\n').slice(1));
    expect(() => dump(image, { metadataSnapshot: 5 })).toThrow(/it is in block \d+, not 5$/);
    expect(() => dump(goldenImage('a02-thin1-wrote-5-plus-1'), { metadataSnapshot: true })).toThrow(/there is none$/);
  });

  it('can be of some devices, without mappings, and with what the caller knows better', () => {
    const image = goldenImage('a04-snap2-wrote-block0-too');
    expect(
      dump(image, { deviceIds: [2, 9], skipMappings: true, transactionId: 7, dataBlockSize: 256, dataBlockCount: 9 }),
    ).toBe(
      [
        '<superblock uuid="" time="1" transaction="7" version="2" data_block_size="256" nr_data_blocks="1024">',
        '  <device dev_id="2" mapped_blocks="6" transaction="0" creation_time="1" snap_time="1">',
        '  </device>',
        '</superblock>',
      ].join('\n'),
    );
  });

  it.each([
    ['its superblock', 0, /block 0 has checksum/],
    ['a leaf', 87, /device 50 > block 87: block 87 has checksum|shared mappings > block 87: block 87 has checksum/],
  ])('ends at damage to %s', (_, block, message) => {
    const image = goldenImage('a11-five-snaps-broke-one-overflow-tree');
    image.memory[block * 4096 + 100]! ^= 1;
    expect(() => dump(image)).toThrow(message);
  });
});

describe('the runs of leaves that devices share', () => {
  it('are those of the definition, for any sequences', () => {
    const sequence = fc.uniqueArray(fc.integer({ min: 1, max: 12 }), { maxLength: 8 });
    fc.assert(
      fc.property(fc.array(sequence, { maxLength: 6 }), (sequences) => {
        const runs = new LeafRuns(16);
        for (const leaves of sequences) {
          for (const leaf of leaves) runs.add(leaf);
          runs.endSequence();
        }
        runs.finish();
        const found = [];
        for (let head = 0; head < 16; head++) {
          if (!runs.isHead(head)) continue;
          const run = [];
          for (let leaf = head; leaf !== 0; leaf = runs.next(leaf)) run.push(leaf);
          found.push({ run, shared: runs.isShared(head) });
        }
        expect(found).toEqual(naiveRuns(sequences));
        expect([...runs.sharedHeads()]).toEqual(found.filter(({ shared }) => shared).map(({ run }) => run[0]));
        expect(runs.leafCount).toBe(new Set(sequences.flat()).size);
      }),
    );
  });
});
