/**
 * A node of a b-tree.
 *
 *      0        4        8                16       20       24       28       32
 *     +--------+--------+----------------+--------+--------+--------+--------+- - -
 *     | csum   | flags  | blocknr        | nr     | max    | value  | 0      |
 *     |        |        |                | entries| entries| size   |        |
 *     +--------+--------+----------------+--------+--------+--------+--------+- - -
 *      32                                32 + 8 * max
 *     +---------+- - -+-----------------+----------------+- - -+-------------------+
 *     | key[0]  |     | key[max - 1]    | value[0]       |     | value[max - 1]    |
 *     +---------+- - -+-----------------+----------------+- - -+-------------------+
 *
 * flags: 1 = internal, 2 = leaf. Keys are u64, strictly ascending; the first `nr entries` keys and values are valid, the rest is
 * whatever was there before. A value of an internal node is the u64 number of the child that holds the keys from
 * key[i] up to key[i + 1]; key[0] may be below the smallest key of its child. Source: dm-btree-internal.h.
 *
 * All indexes here are of 32-bit words.
 */
import { BLOCK_SIZE, HIGH_WORD_LIMIT, type ReadonlyWords, type Validator } from './block.ts';

/** Of this module, so that compiled code has it: that of another would be loaded for each key. */
const TWO_32 = 2 ** 32;

const FLAGS = 1;
const ENTRY_COUNT = 4;
const MAX_ENTRIES = 5;
const VALUE_SIZE = 6;
const KEYS = 8;
const HEADER_SIZE = KEYS * 4;
const KEY_SIZE = 8;

const INTERNAL = 1;
const LEAF = 2;

/** Entries in a node with values of this size: a multiple of three, as deletion deals in thirds. */
export function maxEntriesFor(valueSizeBytes: number): number {
  return 3 * Math.floor(Math.floor((BLOCK_SIZE - HEADER_SIZE) / (KEY_SIZE + valueSizeBytes)) / 3);
}

const CHILD_SIZE = 8;
const CHILD_MAX_ENTRIES = maxEntriesFor(CHILD_SIZE);
const CHILDREN = KEYS + 2 * CHILD_MAX_ENTRIES;

export function isLeaf(words: ReadonlyWords): boolean {
  return words[FLAGS] === LEAF;
}

export function entryCount(words: ReadonlyWords): number {
  return words[ENTRY_COUNT]!;
}

export function setEntryCount(words: Uint32Array, count: number): void {
  words[ENTRY_COUNT] = count;
}

export function maxEntries(words: ReadonlyWords): number {
  return words[MAX_ENTRIES]!;
}

export function valueSizeBytes(words: ReadonlyWords): number {
  return words[VALUE_SIZE]!;
}

/** Where value `index` begins. */
export function valueAt(words: ReadonlyWords, index: number): number {
  return KEYS + 2 * words[MAX_ENTRIES]! + (index * words[VALUE_SIZE]!) / 4;
}

export function keyAt(words: ReadonlyWords, index: number): number {
  return words[KEYS + 2 * index]! + words[KEYS + 2 * index + 1]! * TWO_32;
}

export function setKey(words: Uint32Array, index: number, key: number): void {
  words[KEYS + 2 * index] = key % TWO_32;
  words[KEYS + 2 * index + 1] = Math.floor(key / TWO_32);
}

/** Only of internal nodes. */
export function childAt(words: ReadonlyWords, index: number): number {
  return words[CHILDREN + 2 * index]! + words[CHILDREN + 2 * index + 1]! * TWO_32;
}

/** Only of internal nodes. */
export function setChild(words: Uint32Array, index: number, child: number): void {
  words[CHILDREN + 2 * index] = child % TWO_32;
  words[CHILDREN + 2 * index + 1] = Math.floor(child / TWO_32);
}

/**
 * The index of the greatest key at or below `key`; -1 when all are above it.
 *
 * Keys of a volume come in runs: where a node has all keys from its first to its last, the index follows from the key. Otherwise the search begins where the key would
 * be if they were evenly spread, and widens: two or three keys are looked at instead of eight, each of them a miss of the processor's cache in a large tree.
 */
export function lowerBound(words: ReadonlyWords, key: number): number {
  const count = words[ENTRY_COUNT]!;
  if (count === 0) return -1;
  const first = keyAt(words, 0);
  if (key < first) return -1;
  const last = keyAt(words, count - 1);
  if (key >= last) return count - 1;
  const distance = key - first;
  const span = last - first;
  if (span === count - 1) return distance;
  return searchFrom(words, key, Math.min(Math.floor((distance * (count - 1)) / span), count - 2));
}

/** The same where it is known to be neither -1 nor the last one, and supposed to be near `guess`. */
function searchFrom(words: ReadonlyWords, key: number, guess: number): number {
  let low = 0;
  let high = words[ENTRY_COUNT]! - 1;
  if (keyAt(words, guess) <= key) {
    low = guess;
    for (let step = 1; low + step < high; step *= 2) {
      if (keyAt(words, low + step) > key) high = low + step;
      else low += step;
    }
  } else {
    high = guess;
    for (let step = 1; high - step > low; step *= 2) {
      if (keyAt(words, high - step) > key) high -= step;
      else low = high - step;
    }
  }
  while (high - low > 1) {
    const middle = (low + high) >>> 1;
    if (keyAt(words, middle) > key) high = middle;
    else low = middle;
  }
  return low;
}

/** Makes zeroed words an empty leaf. */
export function initLeaf(words: Uint32Array, valueSize: number): void {
  words[FLAGS] = LEAF;
  words[ENTRY_COUNT] = 0;
  words[MAX_ENTRIES] = maxEntriesFor(valueSize);
  words[VALUE_SIZE] = valueSize;
}

/** Makes words an internal node without children. */
export function initInternal(words: Uint32Array): void {
  words[FLAGS] = INTERNAL;
  words[ENTRY_COUNT] = 0;
  words[MAX_ENTRIES] = CHILD_MAX_ENTRIES;
  words[VALUE_SIZE] = CHILD_SIZE;
}

/** Makes zeroed words an empty node of the same kind as `like`. */
export function initLike(words: Uint32Array, like: ReadonlyWords): void {
  words[FLAGS] = like[FLAGS]!;
  words[ENTRY_COUNT] = 0;
  words[MAX_ENTRIES] = like[MAX_ENTRIES]!;
  words[VALUE_SIZE] = like[VALUE_SIZE]!;
}

/** Both are leaves or both internal, with values of one size: entries may be moved between them. */
export function isLike(a: ReadonlyWords, b: ReadonlyWords): boolean {
  return a[FLAGS] === b[FLAGS] && a[VALUE_SIZE] === b[VALUE_SIZE];
}

/** Makes room for `count` entries at `index` and counts them; their contents are the caller's to fill. */
export function openGap(words: Uint32Array, index: number, count: number): void {
  const total = entryCount(words);
  words.copyWithin(KEYS + 2 * (index + count), KEYS + 2 * index, KEYS + 2 * total);
  words.copyWithin(valueAt(words, index + count), valueAt(words, index), valueAt(words, total));
  setEntryCount(words, total + count);
}

/** Drops entries `[index, index + count)`. */
export function closeGap(words: Uint32Array, index: number, count: number): void {
  const total = entryCount(words);
  words.copyWithin(KEYS + 2 * index, KEYS + 2 * (index + count), KEYS + 2 * total);
  words.copyWithin(valueAt(words, index), valueAt(words, index + count), valueAt(words, total));
  setEntryCount(words, total - count);
}

/** Copies `count` entries over those at `toIndex`; the counts are not changed. The nodes are alike and not the same. */
export function copyEntries(
  from: ReadonlyWords,
  fromIndex: number,
  to: Uint32Array,
  toIndex: number,
  count: number,
): void {
  let source = KEYS + 2 * fromIndex;
  let target = KEYS + 2 * toIndex;
  for (let i = 0; i < 2 * count; i++) to[target + i] = from[source + i]!;
  source = valueAt(from, fromIndex);
  target = valueAt(to, toIndex);
  const words = (count * valueSizeBytes(from)) / 4;
  for (let i = 0; i < words; i++) to[target + i] = from[source + i]!;
}

/** Moves the last `count` entries of `left` in front of those of `right`. */
export function shiftRight(left: Uint32Array, right: Uint32Array, count: number): void {
  if (count === 0) return;
  const leftCount = entryCount(left);
  openGap(right, 0, count);
  copyEntries(left, leftCount - count, right, 0, count);
  setEntryCount(left, leftCount - count);
}

/** Moves the first `count` entries of `right` behind those of `left`. */
export function shiftLeft(left: Uint32Array, right: Uint32Array, count: number): void {
  if (count === 0) return;
  const leftCount = entryCount(left);
  copyEntries(right, 0, left, leftCount, count);
  setEntryCount(left, leftCount + count);
  closeGap(right, 0, count);
}

/** Puts `key` and `child` at `index` of an internal node that has room. */
export function insertChild(words: Uint32Array, index: number, key: number, child: number): void {
  openGap(words, index, 1);
  setKey(words, index, key);
  setChild(words, index, child);
}

function shapeDamage(words: ReadonlyWords): string | null {
  const flags = words[FLAGS]!;
  const size = words[VALUE_SIZE]!;
  const max = words[MAX_ENTRIES]!;
  const count = words[ENTRY_COUNT]!;
  if (flags !== INTERNAL && flags !== LEAF) return `its flags are ${flags}, expected 1 or 2`;
  if (size === 0 || size % 4 !== 0 || size > BLOCK_SIZE) return `its value size is ${size}`;
  if (flags === INTERNAL && size !== CHILD_SIZE) return `it is internal and its value size is ${size}, expected 8`;
  if (max === 0 || max !== maxEntriesFor(size))
    return `it has room for ${max} entries, expected ${maxEntriesFor(size)}`;
  if (count > max) return `it has ${count} entries and room for ${max}`;
  if (flags === INTERNAL && count === 0) return 'it is internal and has no entries';
  return null;
}

function keyDamage(words: ReadonlyWords): string | null {
  const count = entryCount(words);
  for (let i = 0; i < count; i++) {
    const at = KEYS + 2 * i;
    const high = words[at + 1]!;
    if (high >= HIGH_WORD_LIMIT) return `key ${i} is not below 2^53`;
    if (i === 0) continue;
    const before = words[at - 1]!;
    if (high < before || (high === before && words[at]! <= words[at - 2]!)) {
      return `key ${i} is not above the key before it`;
    }
  }
  return null;
}

export const nodeValidator: Validator = {
  name: 'b-tree node',
  checksumConstant: 121107,
  damage: (words) => shapeDamage(words) ?? keyDamage(words),
};
