import { describe, expect, it } from 'vitest';
import { bitmapCount, bitmapValidator, setBitmapCount } from '../../src/persistent-data/bitmap.ts';
import { blockChecksum, checkBlock, stampBlock, type Validator } from '../../src/persistent-data/block.ts';
import { initLeaf, maxEntriesFor, nodeValidator, setKey } from '../../src/persistent-data/btree-node.ts';
import { indexEntryAt, indexValidator, writeIndexEntry } from '../../src/persistent-data/index-entry.ts';
import { superblockValidator } from '../../src/thin/superblock.ts';

function emptyBlock(): { words: Uint32Array; bytes: Uint8Array } {
  const words = new Uint32Array(1024);
  return { words, bytes: new Uint8Array(words.buffer) };
}

function stamped(number: number, validator: Validator, fill: (words: Uint32Array) => void): number {
  const { words, bytes } = emptyBlock();
  fill(words);
  stampBlock(words, bytes, number, validator);
  return words[0]!;
}

describe('checksums, against blocks that the kernel wrote', () => {
  it('are those of 4096 zero bytes for each type', () => {
    const { bytes } = emptyBlock();
    expect(blockChecksum(bytes, superblockValidator)).toBe(1490015127);
    expect(blockChecksum(bytes, nodeValidator)).toBe(1489796738);
    expect(blockChecksum(bytes, bitmapValidator)).toBe(1489898266);
    expect(blockChecksum(bytes, indexValidator)).toBe(1490015567);
  });

  it('are those of empty leaves', () => {
    expect(stamped(6, nodeValidator, (words) => initLeaf(words, 8))).toBe(3409828405);
    expect(stamped(7, nodeValidator, (words) => initLeaf(words, 24))).toBe(2982679366);
  });

  it('are those of bitmaps', () => {
    expect(stamped(3, bitmapValidator, () => {})).toBe(3660306802);
    expect(
      stamped(3, bitmapValidator, (words) => {
        for (let i = 0; i < 8; i++) setBitmapCount(words, i, 1);
      }),
    ).toBe(2711577461);
    // 22 a8 aa: counts 1, 0, 1, 0, then 0, 1 and six more of 1.
    expect(
      stamped(9, bitmapValidator, (words) => {
        for (const entry of [0, 2, 5, 6, 7, 8, 9, 10, 11]) setBitmapCount(words, entry, 1);
      }),
    ).toBe(3821874887);
  });

  it('are those of an index block', () => {
    expect(stamped(1, indexValidator, (words) => writeIndexEntry(words, indexEntryAt(0), 3, 16312, 8))).toBe(417359370);
  });
});

describe('a bitmap entry', () => {
  it('has the high bit of its count below the low one', () => {
    const { words, bytes } = emptyBlock();
    for (let count = 0; count < 4; count++) setBitmapCount(words, count, count);
    // Upper and lower bit from the right: 00, 10, 01, 11.
    expect(bytes[16]).toBe(0b11_01_10_00);
    expect([0, 1, 2, 3].map((entry) => bitmapCount(words, entry))).toEqual([0, 1, 2, 3]);
  });
});

describe('a node', () => {
  it('has room for the entries that the format says', () => {
    expect([4, 8, 16, 24].map(maxEntriesFor)).toEqual([336, 252, 168, 126]);
  });

  const damaged = (change: (words: Uint32Array) => void): (() => void) => {
    const { words, bytes } = emptyBlock();
    initLeaf(words, 8);
    words[4] = 3;
    for (let i = 0; i < 3; i++) setKey(words, i, 10 * i);
    change(words);
    stampBlock(words, bytes, 5, nodeValidator);
    return () => checkBlock(words, bytes, 5, nodeValidator, 'dev');
  };

  it.each<[string, (words: Uint32Array) => void, string]>([
    ['flags 3', (words) => words.fill(3, 1, 2), 'its flags are 3, expected 1 or 2'],
    ['more entries than room', (words) => words.fill(253, 4, 5), 'it has 253 entries and room for 252'],
    ['another room', (words) => words.fill(249, 5, 6), 'it has room for 249 entries, expected 252'],
    ['a value size that is none', (words) => words.fill(6, 6, 7), 'its value size is 6'],
    ['an internal node with other values', (words) => words.fill(1, 1, 2).fill(16, 6, 7), 'expected 8'],
    ['an internal node without entries', (words) => words.fill(1, 1, 2).fill(0, 4, 5), 'has no entries'],
    ['keys that do not ascend', (words) => setKey(words, 2, 10), 'key 2 is not above the key before it'],
    ['a key of 2^53', (words) => words.fill(2 ** 21, 13, 14), 'key 2 is not below 2^53'],
  ])('is refused with %s', (_, change, reason) => {
    expect(damaged(change)).toThrow(reason);
    expect(damaged(change)).toThrow('Cannot read b-tree node at block 5 of "dev"');
  });

  it('is accepted as it should be, and refused with a wrong number or checksum', () => {
    expect(damaged(() => {})).not.toThrow();
    const { words, bytes } = emptyBlock();
    initLeaf(words, 8);
    stampBlock(words, bytes, 5, nodeValidator);
    expect(() => checkBlock(words, bytes, 6, nodeValidator, 'dev')).toThrow(
      expect.objectContaining({ code: 'ENOTBLK' }),
    );
    words[100] = 1;
    expect(() => checkBlock(words, bytes, 5, nodeValidator, 'dev')).toThrow(
      expect.objectContaining({ code: 'EILSEQ' }),
    );
  });
});
