/**
 * Where a space map's bitmaps are. An index entry is 16 bytes:
 *
 *      0                8        12       16
 *     +----------------+--------+--------+
 *     | blocknr        | nr     | none   |
 *     |                | free   | free   |
 *     |                |        | before |
 *     +----------------+--------+--------+
 *
 * nr free counts the zero entries among all 16320, those past the end of the device too. Every entry below none free before
 * is in use; it need not be the first that is free.
 *
 * A data space map has its index entries in a b-tree (key: ordinal of the bitmap). The metadata space map has them in
 * one block:
 *
 *      0        4        8                16
 *     +--------+--------+----------------+----------------+ - - +----------------+
 *     | csum   | 0      | blocknr        | entry 0        |     | entry 254      |
 *     +--------+--------+----------------+----------------+ - - +----------------+
 *
 * Entries past the last bitmap are left as older kernels left them: they mean nothing. Source: dm-space-map-common.h.
 */
import { BITMAP_ENTRIES } from './bitmap.ts';
import { type ReadonlyWords, readU64, type Validator, writeU64 } from './block.ts';

export const INDEX_ENTRY_SIZE = 16;
export const INDEX_ENTRY_WORDS = 4;
export const MAX_METADATA_BITMAPS = 255;
/** 15.875 GiB: what the index block reaches. */
export const MAX_METADATA_BLOCKS: number = MAX_METADATA_BITMAPS * BITMAP_ENTRIES;

const INDEX_ENTRIES = 4;

export const indexValidator: Validator = {
  name: 'space map index',
  checksumConstant: 160478,
  damage: () => null,
};

/** Where entry `ordinal` of an index block begins. */
export function indexEntryAt(ordinal: number): number {
  return INDEX_ENTRIES + INDEX_ENTRY_WORDS * ordinal;
}

export function entryBlock(words: ReadonlyWords, at: number): number {
  return readU64(words, at);
}

export function entryFreeCount(words: ReadonlyWords, at: number): number {
  return words[at + 2]!;
}

export function entryNoneFreeBefore(words: ReadonlyWords, at: number): number {
  return words[at + 3]!;
}

export function writeIndexEntry(
  words: Uint32Array,
  at: number,
  block: number,
  freeCount: number,
  noneFreeBefore: number,
): void {
  writeU64(words, at, block);
  words[at + 2] = freeCount;
  words[at + 3] = noneFreeBefore;
}
