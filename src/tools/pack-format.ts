/**
 * A pack file: the metadata blocks of a device that are blocks of metadata, compressed. What `thin_metadata_pack` writes and
 * `thin_metadata_unpack` reads, version 3.
 *
 *      0        8         16           24          32
 *     +--------+---------+------------+-----------+-----------------------+ - -
 *     | magic  | version | block size | nr blocks | chunk                 |
 *     +--------+---------+------------+-----------+-----------------------+ - -
 *
 * A chunk is a u64 with the number of bytes that follow: a zlib stream of at most 1024 blocks, in any order: each is its number (u64)
 * and instructions that make its 4096 bytes. An instruction's first byte has its kind in the upper and an operand `n` in the lower four
 * bits; `b` is a running u64, which "put" appends to the block:
 *
 *     0  SET      b = the next n bytes (1, 2, 4 or 8), put      6  CONST8  put (256 n + next byte) times
 *     1  ADD      b += n, put                                   7  COUNT   the next instruction n times
 *     2  ADDW     b += the next n bytes, put                    8  COUNT8  the next instruction (256 n + next byte) times
 *     3  SUB      b -= n, put                                   9  LIT     the next n bytes as they are
 *     4  SUBW     b -= the next n bytes, put                   10  LITW    a length in the next n bytes, then so many bytes as they are
 *     5  CONST    put n times                                  11  SHIFT   256 n + next byte values: first the upper parts (40 bits) of
 *                                                                          all, then the lower (24 bits), made by instructions
 * All integers are little-endian; b starts at 0 for each block.
 */
import { StorageError } from '../base/errors.ts';
import { BlockType } from './metadata-reader.ts';

export const PACK_MAGIC = 0xa537a0aa6309ef77n;
export const PACK_VERSION = 3;
export const PACK_HEADER_SIZE = 32;
export const PACK_BLOCK_SIZE = 4096;
/** Blocks of a chunk. */
export const CHUNK_BLOCKS = 1024;

/** Kinds of instructions. */
export const PackOp = {
  SET: 0,
  ADD: 1,
  ADDW: 2,
  SUB: 3,
  SUBW: 4,
  CONST: 5,
  CONST8: 6,
  COUNT: 7,
  COUNT8: 8,
  LIT: 9,
  LITW: 10,
  SHIFT: 11,
} as const;

/** Lower bits of a mapping, which are packed apart from the rest. */
export const SHIFT_BITS = 24;

/** What blocks of metadata have their checksums xored with: ours, and those of dm-cache and dm-era, which pack files may hold as well. */
const FOREIGN_TYPES: readonly number[] = [595846735, 9031977, 146538381];
const KNOWN_TYPES: ReadonlySet<number> = new Set([...Object.values(BlockType), ...FOREIGN_TYPES]);

/** By the checksum constant, which is `crc32cRaw` of the block xored with its first word. */
export function isKnownType(constant: number): boolean {
  return KNOWN_TYPES.has(constant);
}

export function damagedPack(what: string): StorageError {
  return new StorageError('EILSEQ', `the pack file is damaged: ${what}`);
}
