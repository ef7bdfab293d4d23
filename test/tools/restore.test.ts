import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { dumpMetadata } from '../../src/tools/dump.ts';
import { type RestoreOptions, restoreMetadata } from '../../src/tools/restore.ts';
import {
  contentsOf,
  expectClean,
  expectThinCheck,
  goldenImage,
  thinDump,
  withImage,
} from '../support/metadata-judges.ts';
import { TestDevice } from '../support/test-device.ts';
import { parseThinXml } from '../support/thin-xml.ts';
import { requireTool } from '../support/tools.ts';

const GOLDEN = join(import.meta.dirname, '..', 'golden');
const NAMES = readdirSync(GOLDEN)
  .filter((name) => name.endsWith('.md.xz'))
  .map((name) => name.slice(0, -6));
const BLOCK_SIZE = 4096;
const HEAD = '<superblock uuid="" time="9" transaction="3" version="2" data_block_size="128" nr_data_blocks="100000">';

/** A device full of noise, so that nothing is right by chance. */
function noise(sizeBytes: number): TestDevice {
  return new TestDevice(new Uint8Array(sizeBytes).fill(0xa5));
}

async function* pieces(text: string, length: number): AsyncIterable<string> {
  for (let at = 0; at < text.length; at += length) yield text.slice(at, at + length);
}

function restore(device: TestDevice, xml: string, options: Partial<RestoreOptions> = {}): Promise<void> {
  return restoreMetadata(device, pieces(xml, 777), { inputName: 'pool.xml', ...options });
}

async function restored(xml: string, sizeBytes: number = 8 << 20): Promise<TestDevice> {
  const device = noise(sizeBytes);
  await restore(device, xml);
  return device;
}

function dump(device: TestDevice): string {
  const texts: string[] = [];
  dumpMetadata(device, (text) => texts.push(text));
  return texts.join('');
}

/** Names are blocks, which a restore chooses anew. */
function withoutNames(xml: string): string {
  return xml.replaceAll(/ name="\d+"/g, '');
}

function singles(begin: number, count: number, dataBegin: number, time = 0): string {
  const each = Array.from(
    { length: count },
    (_, i) => `<single_mapping origin_block="${begin + 2 * i}" data_block="${dataBegin + i}" time="${time}"/>`,
  );
  return each.join('\n');
}

function device(id: number, mappedBlocks: number, body: string): string {
  return `<device dev_id="${id}" mapped_blocks="${mappedBlocks}" transaction="1" creation_time="0" snap_time="2">${body}</device>`;
}

describe('a restore', () => {
  it.each(NAMES)('of the golden XML %s is clean for both judges and dumps the same again', async (name) => {
    const xml = readFileSync(join(GOLDEN, `${name}.xml`), 'utf8');
    const image = await restored(xml);
    expectClean(image);
    expectThinCheck(image);
    const expected = xml.replace(' flags="1"', '').replace('version="1"', 'version="2"');
    expect(withoutNames(dump(image))).toBe(withoutNames(expected));
  });

  it('accepts what thin_dump 0.9.0 writes, which knows no sharing', async () => {
    const golden = goldenImage('a11-five-snaps-broke-one-overflow-tree');
    const xml = withImage(golden, (path) => execFileSync(requireTool('thin_dump'), [path], { encoding: 'utf8' }));
    expect(xml).toContain('flags="0"');
    const image = await restored(xml);
    expectClean(image);
    expect(contentsOf(image)).toEqual(contentsOf(golden));
  });

  it('keeps what devices share, whatever its size and place, in leaves that are full enough', async () => {
    const part = fc.record({ shared: fc.boolean(), count: fc.oneof(fc.integer({ min: 0, max: 90 }), fc.nat(900)) });
    await fc.assert(
      fc.asyncProperty(fc.array(part, { maxLength: 6 }), fc.integer({ min: 1, max: 3 }), async (parts, devices) => {
        let key = 0;
        const bodies = parts.map(({ shared, count }, i) => {
          const mappings = singles(key, count, key);
          key += 2 * count + 1;
          return { mappings, count, name: shared ? `part-${i}` : null };
        });
        const total = bodies.reduce((sum, { count }) => sum + count, 0);
        const definitions = bodies.map(({ name, mappings }) =>
          name === null ? '' : `<def name="${name}">${mappings}</def>`,
        );
        const body = bodies.map(({ name, mappings }) => (name === null ? mappings : `<ref name="${name}"/>`)).join('');
        const xml = [
          HEAD,
          ...definitions,
          ...Array.from({ length: devices }, (_, i) => device(i, total, body)),
          '</superblock>',
        ].join('\n');
        const image = await restored(xml);
        expectClean(image);
        expectThinCheck(image);
        expect(contentsOf(image)).toEqual(parseThinXml(xml));
      }),
      { numRuns: 15 },
    );
  });

  it('shares the leaves of a definition and counts their data once', async () => {
    const xml = `${HEAD}<def name="x">${singles(0, 600, 0)}</def>${[1, 2, 3, 4].map((id) => device(id, 600, '<ref name="x"/>'))}</superblock>`;
    const image = await restored(xml.replaceAll(',', ''));
    expectClean(image);
    const again = dump(image);
    expect(again.match(/<def /g)).toHaveLength(1);
    expect(again.match(/<ref /g)).toHaveLength(4);
  });

  it('gives back what nobody refers to', async () => {
    const xml = `${HEAD}<def name="unused">${singles(0, 300, 0)}</def>${device(1, 1, singles(0, 1, 299))}</superblock>`;
    const image = await restored(xml);
    expectClean(image);
    expectThinCheck(image);
  });

  it('takes devices in any order, and any number of them', async () => {
    const ids = Array.from({ length: 400 }, (_, i) => (i * 173) % 401);
    const image = await restored(`${HEAD}${ids.map((id) => device(id, 1, singles(id, 1, id))).join('')}</superblock>`);
    expectClean(image);
    expectThinCheck(image);
    expect([...contentsOf(image).devices.keys()]).toEqual([...ids].sort((a, b) => a - b));
  });

  it('counts past 255 references to a block', async () => {
    const ids = Array.from({ length: 300 }, (_, i) => i);
    const xml = `${HEAD}<def name="x">${singles(0, 3, 7)}</def>${ids
      .map((id) => device(id, 4, `<ref name="x"/>${singles(100, 1, 7)}`))
      .join('')}</superblock>`;
    const image = await restored(xml);
    expectClean(image);
    expect(thinDump(image).devices.size).toBe(300);
  });

  it('uses what its caller knows better', async () => {
    const image = noise(8 << 20);
    const xml = `${HEAD.replace('nr_data_blocks="100000"', 'nr_data_blocks="0"')}${device(1, 1, singles(0, 1, 50))}</superblock>`;
    await restore(image, xml, { transactionId: 12, dataBlockSize: 1024, dataBlockCount: 99 });
    expect(contentsOf(image)).toMatchObject({ transactionId: 12, dataBlockSize: 1024, dataBlockCount: 99 });
    expectClean(image);
  });

  it.each([
    ['<superblock', 'line 1: '],
    ['<pool/>', 'line 1: unknown element <pool>'],
    ['<!DOCTYPE a><a/>', 'line 1: a document type is not allowed'],
    [`${HEAD}\n</superblock>\n<superblock/>`, 'line 3: '],
    [`${HEAD}</superblock> and more`, 'line 1: '],
    [`${HEAD}\ntext</superblock>`, 'line 2: text is not allowed: "text"'],
    [HEAD.replace(' uuid=""', ''), 'line 1: <superblock> has no attribute "uuid"'],
    [HEAD.replace('uuid=""', 'uuid="" colour="red"'), 'line 1: <superblock> has an unknown attribute "colour"'],
    [HEAD.replace('time="9"', 'time="9" time="8"'), 'line 1: duplicate attribute: time.'],
    [HEAD.replace('"9"', '"-1"'), 'line 1: time="-1": a whole number below 4294967296 is expected'],
    [HEAD.replace('"3"', '"9007199254740992"'), 'line 1: transaction="9007199254740992": a whole number below'],
    [
      HEAD.replace('"128"', '"100"'),
      'line 1: data block size is 100 sectors, expected a multiple of 128 up to 2097152',
    ],
    [HEAD.replace('"100000"', '"1099511627777"'), 'line 1: 1099511627777 data blocks, expected at most 1099511627776'],
    [`${HEAD}\n<single_mapping/>`, 'line 2: <single_mapping> is not allowed in <superblock>'],
    [`${HEAD}\n<def name="x">\n<ref name="x"/>`, 'line 3: <ref> is not allowed in <def>'],
    [`${HEAD}\n<def name="x"/>\n<def name="x"/>`, 'line 3: "x" is defined twice'],
    [`${HEAD}\n${device(16777216, 0, '')}`, 'line 2: device id 16777216, expected below 16777216'],
    [`${HEAD}\n${device(1, 0, '')}\n${device(1, 0, '')}`, 'line 3: device 1 is there twice'],
    [`${HEAD}\n${device(1, 2, singles(0, 1, 0))}`, 'line 2: device 1 says that 2 blocks are mapped, there are 1'],
    [`${HEAD}\n${device(1, 1, '<ref name="y"/>')}`, 'line 2: "y" is not defined before it is used'],
    [
      `${HEAD}${device(1, 2, `${singles(5, 1, 0)}\n${singles(5, 1, 1)}`)}`,
      'line 2: device 1 maps block 5 after block 5',
    ],
    [
      `${HEAD}<def name="x">${singles(5, 1, 0)}</def>${device(1, 2, `${singles(6, 1, 0)}\n<ref name="x"/>`)}`,
      'line 2: device 1 maps block 5 after block 6',
    ],
    [
      `${HEAD}${device(1, 2, '<range_mapping origin_begin="0" data_begin="99999" length="2" time="0"/>')}`,
      'line 1: data block 100000 is past the end (100000 data blocks)',
    ],
    [`${HEAD}${device(1, 1, singles(0, 1, 0, 10))}`, "line 1: mapped at time 10, the pool's time is 9"],
    [
      `${HEAD}${device(1, 0, '<range_mapping origin_begin="0" data_begin="0" length="0" time="0"/>')}`,
      'line 1: a mapping of no blocks',
    ],
    [`${HEAD}${device(1, 0, '')}`, 'line 1: '],
    ['', 'line 1: '],
  ])('refuses %j', async (xml, message) => {
    const image = noise(1 << 20);
    await expect(restore(image, xml)).rejects.toMatchObject({
      code: 'EINVAL',
      message: expect.stringContaining(`Cannot restore "pool.xml" to "test-device": ${message}`),
    });
    expect(image.memory.every((byte) => byte === 0xa5)).toBe(true);
  });

  it('refuses a device that is too small, and leaves no pool', async () => {
    const many = `${HEAD}${device(1, 20_000, singles(0, 20_000, 0))}</superblock>`;
    const image = goldenImage('a02-thin1-wrote-5-plus-1');
    image.memory = image.memory.slice(0, 64 * BLOCK_SIZE);
    await expect(restore(image, many)).rejects.toMatchObject({ code: 'ENOSPC', message: /its 64 blocks .* too few/ });
    const counted = HEAD.replace('"100000"', '"10000000"');
    await expect(restore(image, counted)).rejects.toMatchObject({
      code: 'ENOSPC',
      message: /too few to count 10000000/,
    });
  });

  it('leaves no pool wherever it is interrupted: neither the old one nor half of the new one', async () => {
    const xml = `${HEAD}${device(1, 70_000, singles(0, 70_000, 0))}</superblock>`;
    const old = goldenImage('a02-thin1-wrote-5-plus-1').memory;
    let writes = Number.POSITIVE_INFINITY;
    for (let failing = 0; failing < writes; failing++) {
      const image = new TestDevice(old.slice());
      let seen = 0;
      image.hook = ({ kind }) => (kind !== 'read' && seen++ === failing ? 'EIO' : null);
      const error = await restore(image, xml).then(
        () => null,
        (e: unknown) => e,
      );
      if (error === null) {
        writes = seen;
        break;
      }
      expect(error).toMatchObject({ code: 'EIO' });
      const superblock = image.memory.subarray(0, BLOCK_SIZE);
      // The last request is the flush after the superblock.
      const untouched = Buffer.compare(image.memory, old) === 0;
      if (!untouched) expect(superblock.every((byte) => byte === 0) || contentsOf(image).devices.size === 1).toBe(true);
    }
    expect(writes).toBeGreaterThan(6);
  });

  it('comes out of any way to cut the document into pieces', async () => {
    const xml = readFileSync(join(GOLDEN, 'a11-five-snaps-broke-one-overflow-tree.xml'), 'utf8');
    const whole = await restored(xml);
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 1, max: 60 }), async (length) => {
        const image = noise(8 << 20);
        await restoreMetadata(image, pieces(xml, length), { inputName: 'pool.xml' });
        expect(Buffer.compare(image.memory, whole.memory)).toBe(0);
      }),
      { numRuns: 5 },
    );
  });
});
