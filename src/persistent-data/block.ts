/**
 * A metadata block: 4096 bytes, little-endian, addressed by its number on the metadata device.
 *
 *      0        4        8                16
 *     +--------+--------+----------------+------------------ - - --+
 *     | csum   | (type) | blocknr, u64   | depends on the type     |
 *     +--------+--------+----------------+------------------ - - --+
 *
 * csum = CRC-32C of bytes 4..4095 (register starts all ones, not inverted at the end) xor a constant of the block's type.
 * Checksum and blocknr are stamped when a block is written to the device and checked when it is read from it; in between
 * they are stale. Source: dm-block-manager.c.
 */
import { assert } from '../base/assert.ts';
import { crc32cRaw } from '../base/crc32c.ts';
import { type Errno, StorageError } from '../base/errors.ts';

export const BLOCK_SIZE = 4096;
export const BLOCK_WORDS: number = BLOCK_SIZE / 4;
export const TWO_32: number = 2 ** 32;

/** Numbers in u64 fields stay below 2^53: the upper word stays below this. */
export const HIGH_WORD_LIMIT: number = 2 ** 21;

// Fields are read as words of the machine.
assert(new Uint8Array(Uint32Array.of(1).buffer)[0] === 1, 'Metadata needs a little-endian machine');

/** The words of a block that must not be changed: it may belong to the committed state. */
export interface ReadonlyWords {
  readonly length: number;
  readonly [index: number]: number;
}

/** A block for reading. */
export interface ReadableBlock {
  readonly number: number;
  readonly words: ReadonlyWords;
  /** The kind of values that the block was judged by since it was read, as the block's user notes it; null at first. */
  judgedAs: object | null;
}

/** A block of this transaction: comes from `TransactionManager.create` or `.shadow` and from nowhere else. */
export interface WritableBlock extends ReadableBlock {
  readonly words: Uint32Array;
}

/** What the blocks of one type have in common. Validators are compared by identity. */
export interface Validator {
  /** For messages: `b-tree node`. */
  readonly name: string;
  /** Xored into the checksum, so that a block's type can be told from it. */
  readonly checksumConstant: number;
  /** What is wrong with the shape of a block whose checksum is right; null when nothing is. */
  damage(words: ReadonlyWords): string | null;
}

const BLOCKNR = 2;

/** A u64 as a number. From 2^53 up it is rounded: callers compare with a limit below that. */
export function readU64(words: ReadonlyWords, at: number): number {
  return words[at]! + words[at + 1]! * TWO_32;
}

export function writeU64(words: Uint32Array, at: number, value: number): void {
  words[at] = value % TWO_32;
  words[at + 1] = Math.floor(value / TWO_32);
}

/** The checksum that a block of this type must carry. */
export function blockChecksum(bytes: Uint8Array, validator: Validator): number {
  return (crc32cRaw(bytes, 4, BLOCK_SIZE) ^ validator.checksumConstant) >>> 0;
}

/** Makes a block ready to be written at `number`. */
export function stampBlock(words: Uint32Array, bytes: Uint8Array, number: number, validator: Validator): void {
  writeU64(words, BLOCKNR, number);
  words[0] = blockChecksum(bytes, validator);
}

/** Throws ENOTBLK for a wrong address, EILSEQ for a wrong checksum or shape. `path` is the device's. */
export function checkBlock(
  words: ReadonlyWords,
  bytes: Uint8Array,
  number: number,
  validator: Validator,
  path: string,
): void {
  let code: Errno = 'EILSEQ';
  let reason: string | null;
  const blocknr = readU64(words, BLOCKNR);
  const checksum = blockChecksum(bytes, validator);
  if (words[0] !== checksum) {
    reason = `checksum is ${words[0]}, expected ${checksum}`;
  } else if (blocknr !== number) {
    code = 'ENOTBLK';
    reason = `it says that it is block ${blocknr}`;
  } else {
    reason = validator.damage(words);
  }
  if (reason !== null) {
    throw new StorageError(code, `Cannot read ${validator.name} at block ${number} of "${path}": ${reason}`);
  }
}
