import { beforeEach, describe, expect, it } from 'vitest';
import { crc32cRaw } from '../../src/base/crc32c.ts';
import { PoolMetadata } from '../../src/thin/pool-metadata.ts';
import { checkMetadata } from '../../src/tools/check.ts';
import type { Invariant, Severity } from '../../src/tools/damage.ts';
import { BlockType } from '../../src/tools/metadata-reader.ts';
import { damageOf, expectClean, goldenImage } from '../support/metadata-judges.ts';
import { TestDevice } from '../support/test-device.ts';

/** Five snapshots of device 1, whose one leaf they share: counts in the overflow tree. */
const NAME = 'a11-five-snaps-broke-one-overflow-tree';

let device: TestDevice;
beforeEach(() => {
  device = goldenImage(NAME);
});

function words(block: number): Uint32Array {
  return new Uint32Array(device.memory.buffer, device.memory.byteOffset + block * 4096, 1024);
}

/** Makes a changed block's checksum right again. */
function stamp(block: number, type: BlockType): void {
  const bytes = device.memory.subarray(block * 4096, block * 4096 + 4096);
  words(block)[0] = crc32cRaw(bytes, 4, 4096) ^ BlockType[type];
}

function change(block: number, type: BlockType, work: (block: Uint32Array) => void): void {
  work(words(block));
  stamp(block, type);
}

// Words of the superblock.
const TIME = 11;
const HELD_ROOT = 14;
const DATA_MAP = 16;
const METADATA_MAP = 48;
const MAPPING_ROOT = 80;
const DETAILS_ROOT = 82;

const superblock = (word: number): number => words(0)[word]!;
/** Of a metadata bitmap or data bitmap: the first index entry's block. */
const dataIndexLeaf = (): number => superblock(DATA_MAP + 4);
const dataBitmap = (): number => words(dataIndexLeaf())[8 + 2 * 168]!;
const dataOverflow = (): number => superblock(DATA_MAP + 6);
const metadataIndex = (): number => superblock(METADATA_MAP + 4);
const metadataBitmap = (): number => words(metadataIndex())[4]!;
const metadataOverflow = (): number => superblock(METADATA_MAP + 6);
const topLeaf = (): number => superblock(MAPPING_ROOT);
const detailsLeaf = (): number => superblock(DETAILS_ROOT);
/** The shared leaf: root of device 50, the third in the top-level leaf. */
const sharedLeaf = (): number => words(topLeaf())[512 + 2 * 2]!;

function setBits(bitmap: Uint32Array, entry: number, bits: number): void {
  const shift = 2 * (entry % 16);
  const at = 4 + Math.floor(entry / 16);
  bitmap[at] = (bitmap[at]! & ~(3 << shift)) | (bits << shift);
}

function found(): string[] {
  return damageOf(device).map((damage) => `${damage.invariant} ${damage.severity}`);
}

/** That one rule is broken, that all else that is reported follows from it, and that the message says where and what. */
function expectDamage(invariant: Invariant, severity: Severity, ...texts: string[]): void {
  const all = damageOf(device);
  const first = all.filter((damage) => damage.invariant === invariant && damage.severity === severity);
  expect(first.length, JSON.stringify(all)).toBeGreaterThan(0);
  const text = first.map((damage) => `${damage.path} ${damage.begin} ${damage.end} ${damage.message}`).join('\n');
  for (const expected of texts) expect(text).toContain(expected);
}

describe('the checker finds', () => {
  it('nothing in a good image, and counts what there is', () => {
    const summary = expectClean(device);
    expect(summary).toMatchObject({
      errors: 0,
      leaks: 0,
      warnings: 0,
      deviceCount: 7,
      mappingCount: 7 + 5 * 6,
      needsCheck: false,
    });
  });

  it('a wrong checksum, with the keys that are lost', () => {
    device.memory[sharedLeaf() * 4096 + 2000]! ^= 1;
    expectDamage('block', 'error', 'superblock > mappings', '> device 50', `block ${sharedLeaf()} has checksum`);
  });

  it('a wrong block number', () => {
    change(sharedLeaf(), 'node', (block) => block.fill(5, 2, 3));
    expectDamage('block', 'error', `block ${sharedLeaf()} says that it is block 5`);
  });

  it('a block of another type', () => {
    words(0)[MAPPING_ROOT] = metadataBitmap();
    stamp(0, 'superblock');
    expectDamage('block', 'error', `block ${metadataBitmap()} is a bitmap, expected a node`);
  });

  it.each<[string, (leaf: Uint32Array) => void, string]>([
    ['flags 3', (leaf) => leaf.fill(3, 1, 2), 'flags are 3, expected 1 or 2'],
    [
      'max entries that are not a multiple of three',
      (leaf) => leaf.fill(251, 5, 6),
      'max entries is 251, expected 252',
    ],
    ['too many entries', (leaf) => leaf.fill(253, 4, 5), 'it has 253 entries and room for 252'],
    ['keys out of order', (leaf) => leaf.fill(3, 10, 11).fill(0, 11, 12), 'not above the one before it'],
    ['values of another size', (leaf) => leaf.fill(4, 6, 7), 'the value size is 4, expected 8'],
  ])('a node with %s', (_, work, message) => {
    change(sharedLeaf(), 'node', work);
    expectDamage('node', 'error', message);
  });

  it.each([
    ['too high: a leak', 0, 'leak', 'a reference count of 1, expected 0'],
    ['too low', 1, 'error', 'a reference count of 0, expected 1'],
  ] as const)('a metadata count %s', (_, used, severity, message) => {
    const bitmap = words(metadataBitmap());
    let entry = 0;
    const bits = (at: number): number => (bitmap[4 + Math.floor(at / 16)]! >>> (2 * (at % 16))) & 3;
    while (bits(entry) !== (used === 1 ? 0b10 : 0)) entry++;
    change(metadataBitmap(), 'bitmap', (block) => setBits(block, entry, used === 1 ? 0 : 0b10));
    expectDamage('metadata-count', severity, 'superblock > metadata space map', `${entry} ${entry + 1}`, message);
    expectDamage('allocated', 'error', 'metadata space map');
  });

  it.each([
    ['too high: a leak', 900, 0b10, 'leak', 'a reference count of 1, expected 0'],
    ['too low', 9, 0, 'error', 'a reference count of 0, expected 1'],
    ['of two for a block that only one leaf has', 9, 0b01, 'leak', 'a reference count of 2, expected 1'],
  ] as const)('a data count %s', (_, entry, bits, severity, message) => {
    change(dataBitmap(), 'bitmap', (block) => setBits(block, entry, bits));
    expectDamage('data-count', severity, 'superblock > data space map', `${entry} ${entry + 1}`, message);
  });

  it('a bitmap that says 3 where the overflow tree says nothing', () => {
    change(dataBitmap(), 'bitmap', (block) => setBits(block, 9, 0b11));
    expectDamage('overflow', 'error', 'data space map', 'the bitmap says 3 or more, the overflow tree nothing');
  });

  it('an overflow entry where the bitmap says less', () => {
    expect(words(metadataOverflow())[4]).toBeGreaterThan(0);
    change(metadataBitmap(), 'bitmap', (block) => setBits(block, sharedLeaf(), 0b01));
    expectDamage(
      'overflow',
      'error',
      'metadata space map',
      'the overflow tree has a count of 5, and the bitmap says less than 3',
    );
  });

  it('a count in the overflow tree that is too small, wrong, or past the end', () => {
    const leaf = metadataOverflow();
    change(leaf, 'node', (block) => block.fill(2, 8 + 2 * 336, 9 + 2 * 336));
    expectDamage('overflow', 'error', 'a count of 2, expected 3 or more');
    device = goldenImage(NAME);
    change(metadataOverflow(), 'node', (block) => block.fill(6, 8 + 2 * 336, 9 + 2 * 336));
    expectDamage('metadata-count', 'leak', 'a reference count of 6, expected 5');
    device = goldenImage(NAME);
    change(dataOverflow(), 'node', (block) => {
      block[4] = 1;
      block[8] = 5000;
      block[8 + 2 * 336] = 7;
    });
    expectDamage('overflow', 'error', 'for a block past the end');
  });

  it('a wrong number of blocks in use in a space map root', () => {
    change(0, 'superblock', (block) => {
      block[DATA_MAP + 2]! += 1;
      block[METADATA_MAP + 2]! -= 1;
    });
    expect(found()).toEqual(['allocated error', 'allocated error']);
  });

  it('wrong hints in the index, as a warning', () => {
    change(metadataIndex(), 'index', (block) => block.fill(1000, 6, 7));
    expect(found()).toEqual(['index warning']);
    device = goldenImage(NAME);
    change(dataIndexLeaf(), 'node', (block) => block.fill(16320, 8 + 2 * 168 + 3, 8 + 2 * 168 + 4));
    expect(found()).toEqual(['index warning']);
  });

  it('a bitmap without an index entry', () => {
    change(dataIndexLeaf(), 'node', (block) => block.fill(0, 4, 5));
    expectDamage('index', 'error', 'bitmaps without an index entry', '0 1');
  });

  it('counts behind the end', () => {
    change(dataBitmap(), 'bitmap', (block) => setBits(block, 1024, 0b10));
    expectDamage('tail', 'error', 'data space map', '1 blocks past the end have a count');
    device = goldenImage(NAME);
    change(metadataBitmap(), 'bitmap', (block) => setBits(block, 16319, 0b10));
    expectDamage('tail', 'error', 'metadata space map');
  });

  it('devices that are in one tree only', () => {
    change(detailsLeaf(), 'node', (block) => block.fill(55, 8 + 2 * 6, 9 + 2 * 6));
    expectDamage('devices', 'error', 'a device has mappings and no details', '54 55');
    expectDamage('devices', 'error', 'a device has details and no mappings', '55 56');
  });

  it('a wrong number of mapped blocks', () => {
    change(detailsLeaf(), 'node', (block) => block.fill(70, 8 + 2 * 126, 9 + 2 * 126));
    expectDamage('mapped-blocks', 'error', 'device 1 ', 'its details say that 70 blocks are mapped, there are 7');
  });

  it.each([
    ['magic', 8, 1, 'magic is 1'],
    ['version', 10, 9, 'version is 9'],
    ['incompat flags', 90, 1, 'unknown incompat features 1'],
    ['compat_ro flags', 89, 2, 'unknown compat_ro features 2'],
    ['data block size', 84, 127, 'data block size is 127 sectors'],
    ['metadata block size', 85, 1, 'metadata block size is 1 sectors'],
    ['number of metadata blocks at format', 86, 2049, 'it was formatted with 2049 blocks'],
    ['number of metadata blocks', METADATA_MAP, 100_000, 'the device has room for 2048'],
  ])('a wrong %s in the superblock', (_, word, value, message) => {
    change(0, 'superblock', (block) => block.fill(value, word, word + 1));
    expectDamage('superblock', 'error', message);
  });

  it('times that have not come yet', () => {
    change(0, 'superblock', (block) => block.fill(3, TIME, TIME + 1));
    expectDamage('time', 'error', 'device 1 ', 'mapped at time 6, now is 3');
    expectDamage('time', 'error', 'created at 4, snapshotted at 4, now is 3');
  });

  it('mappings to data blocks that do not exist, as a run of keys', () => {
    // Entries 1 to 3 of the shared leaf: virtual blocks 2, 3 and 4.
    change(sharedLeaf(), 'node', (block) => {
      for (const i of [1, 2, 3]) block[512 + 2 * i + 1] = 99;
    });
    expectDamage('data-block', 'error', '> device 50', '2 5', 'mapped to data block');
    expectDamage('data-count', 'leak');
  });

  it('a node other than a root that is less than a third full, as a warning', () => {
    const { pool, root } = twoLeaves();
    pool.close();
    const left = words(root)[512]!;
    const count = words(left)[4]!;
    change(left, 'node', (block) => block.fill(50, 4, 5));
    expectDamage('node-fill', 'warning', `block ${left}`, 'it has 50 entries, fewer than a third of 252');
    expectDamage('mapped-blocks', 'error', `there are ${400 - count + 50}`);
  });

  it('keys that are not under the node where they belong', () => {
    const { root } = twoLeaves();
    change(root, 'node', (block) => block.fill(250, 10, 11));
    expectDamage('node', 'error', 'expected 250 to');
    device = new TestDevice(device.memory);
    change(root, 'node', (block) => block.fill(3, 8, 9));
    expectDamage('node', 'error', 'it has keys 0 to', 'expected 3 to');
  });

  it('a tree that leads back into itself', () => {
    const { root } = twoLeaves();
    change(root, 'node', (block) => block.fill(root, 512, 513));
    expectDamage('node', 'error', 'the tree leads back into itself');
  });

  it('the same data block twice in one leaf, whose count must then be two', () => {
    const leaf = words(topLeaf())[512]!;
    change(leaf, 'node', (block) => {
      block[512 + 2] = block[512]!;
      block[512 + 3] = block[512 + 1]!;
    });
    expectDamage('data-count', 'error', 'a reference count of 2, expected 3');
  });

  it('a lost or damaged metadata snapshot', () => {
    device = goldenImage('a05-metadata-snap-reserved');
    const held = superblock(HELD_ROOT);
    expect(held).toBeGreaterThan(0);
    change(0, 'superblock', (block) => block.fill(0, HELD_ROOT, HELD_ROOT + 1));
    expectDamage('metadata-count', 'leak', `${held} ${held + 1}`, 'a reference count of 1, expected 0');
    device = goldenImage('a05-metadata-snap-reserved');
    device.memory[held * 4096 + 100]! ^= 1;
    expectDamage('block', 'error', `metadata snapshot > block ${held}`);
  });

  it('an image that is no pool at all', () => {
    device = new TestDevice(new Uint8Array(8192));
    expectDamage('block', 'error', 'superblock', 'checksum');
    const summary = checkMetadata(new TestDevice(new Uint8Array(0)), () => {});
    expect(summary.errors).toBe(1);
  });
});

/** A device with 400 mappings in two leaves. */
function twoLeaves(): { pool: PoolMetadata; root: number } {
  device = new TestDevice(1 << 20);
  const pool = PoolMetadata.format(device, { dataBlockSizeBytes: 65536, dataBlockCount: 1000 });
  pool.createThin(1);
  const thin = pool.openThin(1);
  for (let i = 0; i < 400; i++) pool.insert(thin, i, pool.allocateDataBlock());
  pool.commitSync();
  expectClean(device);
  return { pool, root: words(superblock(MAPPING_ROOT))[512]! };
}

describe('the checker survives', () => {
  it('any single damaged byte: it finds it, and does not throw', () => {
    const image = goldenImage('a12-filled-900').memory;
    const reachable = new Set<number>();
    const reader = new TestDevice(image.slice());
    reader.hook = (event) => {
      reachable.add(event.offset / 4096);
      return null;
    };
    checkMetadata(reader, () => {});
    let random = 99;
    for (const block of reachable) {
      for (let i = 0; i < 3; i++) {
        random = (random * 48271) % 2147483647;
        const at = block * 4096 + (random % 4096);
        device = new TestDevice(image.slice());
        device.memory[at]! ^= 1 << (random % 8);
        expect(found().length, `byte ${at}`).toBeGreaterThan(0);
      }
    }
  });

  it('random contents with right checksums', () => {
    const image = goldenImage('a12-filled-900').memory;
    let random = 7;
    for (let round = 0; round < 60; round++) {
      device = new TestDevice(image.slice());
      for (const [block, type] of [
        [superblock(MAPPING_ROOT), 'node'],
        [superblock(DETAILS_ROOT), 'node'],
        [dataIndexLeaf(), 'node'],
        [metadataIndex(), 'index'],
      ] as const) {
        change(block, type, (content) => {
          for (let i = 0; i < 3; i++) {
            random = (random * 48271) % 2147483647;
            content[4 + (random % 1000)] = random;
          }
        });
      }
      expect(() => found()).not.toThrow();
    }
  });
});
