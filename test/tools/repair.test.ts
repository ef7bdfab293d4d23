import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { crc32cRaw } from '../../src/base/crc32c.ts';
import { dumpDamaged } from '../../src/tools/dump.ts';
import { type RepairOptions, repairMetadata } from '../../src/tools/repair.ts';
import { restoreMetadata } from '../../src/tools/restore.ts';
import { contentsOf, expectClean, expectThinCheck, goldenImage } from '../support/metadata-judges.ts';
import { TestDevice } from '../support/test-device.ts';
import type { PoolContents } from '../support/thin-xml.ts';

const NAMES = readdirSync(join(import.meta.dirname, '..', 'golden'))
  .filter((name) => name.endsWith('.md.xz'))
  .map((name) => name.slice(0, -6));
const BLOCK_SIZE = 4096;
const NODE_CONSTANT = 121107;

/** Fields of the superblock that name a block. */
const Root = { dataBitmaps: 80, dataCounts: 88, metadataIndex: 208, metadataCounts: 216, mappings: 320, details: 328 };

function viewOf(image: TestDevice): DataView {
  return new DataView(image.memory.buffer, image.memory.byteOffset);
}

function rootOf(image: TestDevice, field: keyof typeof Root): number {
  return Number(viewOf(image).getBigUint64(Root[field], true));
}

function destroy(image: TestDevice, block: number): void {
  image.memory.fill(0x5a, block * BLOCK_SIZE, (block + 1) * BLOCK_SIZE);
}

/** One in seven is also judged by thin_check, which takes longer than all the rest. */
let repairs = 0;
const images = new Map<string, Uint8Array>();

/** An image for the test alone; unpacked once. */
function golden(name: string): TestDevice {
  const memory = images.get(name) ?? goldenImage(name).memory;
  images.set(name, memory);
  return new TestDevice(memory.slice());
}

function repaired(image: TestDevice, options: RepairOptions = {}): PoolContents {
  const before = image.memory.slice();
  const output = new TestDevice(new Uint8Array(image.sizeBytes).fill(0xa5));
  repairMetadata(image, output, options);
  expect(Buffer.compare(image.memory, before)).toBe(0);
  expectClean(output);
  if (++repairs % 7 === 0) expectThinCheck(output);
  return contentsOf(output);
}

function mappingsOf(contents: PoolContents): unknown {
  return [...contents.devices].map(([id, { mappings }]) => [id, mappings]);
}

describe.each(NAMES)('a repair of the golden image %s', (name) => {
  it('changes nothing where nothing is damaged', () => {
    const image = golden(name);
    expect(repaired(image)).toEqual(contentsOf(image));
  });

  it('makes the space maps anew', () => {
    const image = golden(name);
    const expected = contentsOf(image);
    for (const field of ['dataBitmaps', 'dataCounts', 'metadataIndex', 'metadataCounts'] as const) {
      destroy(image, rootOf(image, field));
    }
    expect(repaired(image)).toEqual(expected);
  });

  it('makes the details from the mappings when they are lost, and keeps all mappings', () => {
    const image = golden(name);
    const expected = contentsOf(image);
    destroy(image, rootOf(image, 'details'));
    if (expected.devices.size === 0) {
      expect(() => repaired(image)).toThrow(/no tree of mappings is whole$/);
      return;
    }
    const found = repaired(image);
    expect(mappingsOf(found)).toEqual(mappingsOf(expected));
    expect(found).toMatchObject({ transactionId: expected.transactionId, dataBlockCount: expected.dataBlockCount });
    // Nothing may pass for exclusive that is shared.
    const ages = [...found.devices.values()].map(({ mappings, snapshottedTime }) =>
      [...mappings.values()].every(({ time }) => time < snapshottedTime || time <= expected.time),
    );
    expect(ages.every(Boolean)).toBe(true);
  });

  it('finds the roots when the superblock is lost', () => {
    const image = golden(name);
    const expected = contentsOf(image);
    destroy(image, 0);
    if (expected.devices.size === 0) {
      expect(() => repaired(image, { dataBlockSize: 128 })).toThrow(/no tree of mappings is whole$/);
      return;
    }
    expect(() => repaired(image)).toThrow(/the data block size is lost with the superblock; give --data-block-size$/);
    const found = repaired(image, { dataBlockSize: 128, dataBlockCount: 1024, transactionId: 40 });
    expect(found).toMatchObject({ dataBlockSize: 128, dataBlockCount: 1024, transactionId: 40 });
    // Discards and deletions leave nothing that would tell the newer state.
    const grewOnly = ['a01', 'a02', 'a03', 'a04', 'a05', 'a06', 'a07', 'a11', 'a12', 'a13', 'c00', 'c01', 'c02', 'c03'];
    if (grewOnly.some((prefix) => name.startsWith(prefix))) expect(mappingsOf(found)).toEqual(mappingsOf(expected));
  });

  it('goes back to a state that was there when the mapping root is lost', () => {
    const image = golden(name);
    destroy(image, rootOf(image, 'mappings'));
    try {
      const found = repaired(image);
      expect(found.devices.size).toBeGreaterThan(0);
    } catch (error) {
      expect(error).toMatchObject({ code: 'EILSEQ', message: expect.stringMatching(/no tree of mappings is whole$/) });
    }
  });
});

describe('a repair', () => {
  it('uses what a folder knows of the pool', () => {
    const image = golden('a04-snap2-wrote-block0-too');
    const expected = contentsOf(image);
    destroy(image, 0);
    const known = { transactionId: 0, dataBlockSize: 128, dataBlockCount: 1024 };
    expect(repaired(image, { known })).toEqual(expected);
  });

  it('finds trees of more than one level, and says what it takes', async () => {
    const devices = Array.from({ length: 300 }, (_, id) => {
      const mapped = id === 7 ? 2000 : 1;
      const range = `<range_mapping origin_begin="5" data_begin="${id * 3 + 1}" length="${mapped}" time="1"/>`;
      return `<device dev_id="${id}" mapped_blocks="${mapped}" transaction="4" creation_time="0" snap_time="0">${range}</device>`;
    });
    const head = '<superblock uuid="" time="1" transaction="5" data_block_size="128" nr_data_blocks="5000">';
    const image = new TestDevice(4 << 20);
    async function* xml(): AsyncIterable<string> {
      yield `${head}${devices.join('')}</superblock>`;
    }
    await restoreMetadata(image, xml(), { inputName: 'pool.xml' });
    const expected = contentsOf(image);
    destroy(image, 0);
    const said: string[] = [];
    const found = repaired(image, { dataBlockSize: 128, dataBlockCount: 5000, found: (message) => said.push(message) });
    expect(found).toEqual(expected);
    expect(said).toEqual([
      expect.stringMatching(/^The superblock is lost: block 0 has checksum \d+, expected \d+\.$/),
      'Trees of mappings: 1, of details: 1, pairs of them: 1.',
      expect.stringMatching(/^Taken: mappings in block \d+ \(devices: 300\), details in \d+\.$/),
    ]);
  });

  it('does not believe a node whose checksum is right and whose children are not', () => {
    const image = golden('a12-filled-900');
    const view = viewOf(image);
    // The root of device 40, the biggest: swap two children.
    let swapped = 0;
    for (let block = 1; block < image.sizeBytes / BLOCK_SIZE; block++) {
      const at = block * BLOCK_SIZE;
      if (view.getUint32(at + 4, true) !== 1 || view.getUint32(at + 16, true) < 2) continue;
      const first = view.getBigUint64(at + 2048, true);
      view.setBigUint64(at + 2048, view.getBigUint64(at + 2056, true), true);
      view.setBigUint64(at + 2056, first, true);
      const sum = crc32cRaw(image.memory, at + 4, at + BLOCK_SIZE);
      view.setUint32(at, (sum ^ NODE_CONSTANT) >>> 0, true);
      swapped++;
    }
    expect(swapped).toBeGreaterThan(0);
    const found = repaired(image);
    for (const { mappings, mappedBlocks } of found.devices.values()) expect(mappings.size).toBe(mappedBlocks);
  });

  it('of what is no metadata says so', () => {
    const noise = new TestDevice(new Uint8Array(1 << 20).fill(0x11));
    expect(() => repaired(noise, { dataBlockSize: 128 })).toThrow(
      /^Cannot repair the metadata of "test-device": no tree of mappings is whole$/,
    );
  });

  it('leaves the output alone when it finds nothing, and no pool when the output is too small', () => {
    const image = golden('a12-filled-900');
    const small = new TestDevice(golden('a02-thin1-wrote-5-plus-1').memory.slice(0, 8 * BLOCK_SIZE));
    expect(() => repairMetadata(image, small)).toThrow(expect.objectContaining({ code: 'ENOSPC' }));
    destroy(image, 0);
    const before = small.memory.slice();
    expect(() => repairMetadata(image, small)).toThrow(expect.objectContaining({ code: 'EINVAL' }));
    expect(Buffer.compare(small.memory, before)).toBe(0);
  });

  it('can be a dump, too', () => {
    const image = golden('a04-snap2-wrote-block0-too');
    destroy(image, rootOf(image, 'details'));
    const texts: string[] = [];
    dumpDamaged(image, (text) => texts.push(text), { search: {} });
    expect(texts.join('')).toContain('<single_mapping origin_block="100" data_block="5" time="0"/>');
  });
});
