/**
 * A mapping's value: where a virtual block is, and since when.
 *
 *      63                               24 23              0
 *     +-----------------------------------+-----------------+
 *     | data block                        | time            |
 *     +-----------------------------------+-----------------+
 *
 * time is the superblock's when the mapping was made; a device whose last snapshot is younger shares the block. The kernel does
 * not mask it: times of 2^24 and more would run into the block number, so they are refused here.
 * Source: dm-thin-metadata.c.
 */
import type { ReadonlyWords } from '../persistent-data/block.ts';

export const BLOCK_TIME_SIZE = 8;
export const BLOCK_TIME_WORDS = 2;
export const TIME_LIMIT: number = 2 ** 24;
const TIME_MASK = 0xffffff;

export function dataBlockAt(words: ReadonlyWords, at: number): number {
  return words[at + 1]! * 256 + (words[at]! >>> 24);
}

export function timeAt(words: ReadonlyWords, at: number): number {
  return words[at]! & TIME_MASK;
}

export function writeBlockTime(words: Uint32Array, at: number, dataBlock: number, time: number): void {
  words[at] = (dataBlock % 256) * TIME_LIMIT + time;
  words[at + 1] = Math.floor(dataBlock / 256);
}

/** Of a mapping that stays where it is. */
export function writeTime(words: Uint32Array, at: number, time: number): void {
  words[at] = (words[at]! >>> 24) * TIME_LIMIT + time;
}
