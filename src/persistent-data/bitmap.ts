/**
 * A bitmap block: reference counts of 16320 consecutive blocks, two bits each.
 *
 *      0        4        8                16
 *     +--------+--------+----------------+------------------------------+
 *     | csum   | 0      | blocknr        | 1020 words of 16 entries     |
 *     +--------+--------+----------------+------------------------------+
 *
 * Entry e is in bits 2 * (e % 16) and up of word e / 16. The lower bit is the high bit of the count:
 *
 *     count  bits (upper, lower)
 *     0      0 0
 *     1      1 0
 *     2      0 1
 *     3      1 1     three or more: the overflow tree has the count
 *
 * Entries past the end of the device are 0. Source: dm-space-map-common.h.
 */
import type { ReadonlyWords, Validator } from './block.ts';

export const BITMAP_ENTRIES = 16320;
/** The count in a bitmap that stands for all from here up. */
export const OVERFLOW_COUNT = 3;

const ENTRIES = 4;
const ENTRIES_PER_WORD = 16;
const LOWER_BITS = 0x55555555;

export const bitmapValidator: Validator = {
  name: 'space map bitmap',
  checksumConstant: 240779,
  damage: () => null,
};

/** 0 to 3. */
export function bitmapCount(words: ReadonlyWords, entry: number): number {
  const bits = words[ENTRIES + (entry >>> 4)]! >>> (2 * (entry & 15));
  return ((bits & 1) << 1) | ((bits >>> 1) & 1);
}

export function setBitmapCount(words: Uint32Array, entry: number, count: number): void {
  const at = ENTRIES + (entry >>> 4);
  const shift = 2 * (entry & 15);
  const bits = ((count & 1) << 1) | (count >>> 1);
  words[at] = (words[at]! & ~(3 << shift)) | (bits << shift);
}

/**
 * The first entry of `[begin, end)` that is free in `words` and, where it is given, in `committed`; -1 when there is none.
 */
export function findFreeEntry(
  words: ReadonlyWords,
  committed: ReadonlyWords | null,
  begin: number,
  end: number,
): number {
  let from = begin;
  while (from < end) {
    const word = ENTRIES + (from >>> 4);
    let bits = words[word]!;
    if (committed !== null) bits |= committed[word]!;
    const free = ~(bits | (bits >>> 1)) & LOWER_BITS & (-1 << (2 * (from & 15)));
    if (free !== 0) {
      const entry = (from & ~15) + ((31 - Math.clz32(free & -free)) >>> 1);
      return entry < end ? entry : -1;
    }
    from = (from & ~15) + ENTRIES_PER_WORD;
  }
  return -1;
}

/** Entries with count 0, all 16320 considered. */
export function countFreeEntries(words: ReadonlyWords): number {
  let free = 0;
  for (let word = ENTRIES; word < ENTRIES + BITMAP_ENTRIES / ENTRIES_PER_WORD; word++) {
    const bits = words[word]!;
    let zero = ~(bits | (bits >>> 1)) & LOWER_BITS;
    if (zero === 0) continue;
    if (zero === LOWER_BITS) {
      free += ENTRIES_PER_WORD;
      continue;
    }
    zero = (zero & 0x11111111) + ((zero >>> 2) & 0x11111111);
    free += (Math.imul((zero & 0x0f0f0f0f) + ((zero >>> 4) & 0x0f0f0f0f), 0x01010101) >>> 24) & 0xff;
  }
  return free;
}

/** How many bitmaps it takes to count so many blocks. */
export function bitmapsFor(blockCount: number): number {
  return Math.ceil(blockCount / BITMAP_ENTRIES);
}
