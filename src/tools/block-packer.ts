import { readU32LE, readU64LE, writeU64LE } from '../base/bytes.ts';
import { PACK_BLOCK_SIZE, PackOp, SHIFT_BITS } from './pack-format.ts';

const NODE_HEADER_SIZE = 32;
const LEAF = 2;
const MAX_COUNT = 4095;
/** Longest form of a block: it is stored as it is where instructions would be longer. */
export const MAX_PACKED_BLOCK: number = PACK_BLOCK_SIZE + 16;

/** Writes blocks as instructions. */
export class BlockPacker {
  /** What has been packed: `bytes[0, length)`. */
  readonly bytes: Uint8Array;
  length = 0;
  readonly #values: Float64Array = new Float64Array(PACK_BLOCK_SIZE / 8);
  readonly #parts: Float64Array = new Float64Array(PACK_BLOCK_SIZE / 8);

  /** Has room for `blocks` blocks. */
  constructor(blocks: number) {
    // A value takes at most 9 bytes and its count 2 more.
    this.bytes = new Uint8Array(blocks * (8 + MAX_PACKED_BLOCK) + 4 * PACK_BLOCK_SIZE);
  }

  /** Appends a block's number and its instructions. `isNode`: it has the checksum of a b-tree node. */
  add(number: number, block: Uint8Array, isNode: boolean): void {
    writeU64LE(this.bytes, this.length, number);
    this.length += 8;
    const begin = this.length;
    if (isNode && this.#addNode(block) && this.length - begin <= MAX_PACKED_BLOCK) return;
    this.length = begin;
    this.#literal(block, 0, PACK_BLOCK_SIZE);
  }

  /** False when it has values that are not kept exactly. */
  #addNode(block: Uint8Array): boolean {
    const isLeaf = readU32LE(block, 4) === LEAF;
    const max = readU32LE(block, 20);
    const hasWords = !isLeaf || readU32LE(block, 24) === 8;
    const valuesAt = NODE_HEADER_SIZE + 8 * max;
    if (max === 0 || valuesAt + (hasWords ? 8 * max : 0) > PACK_BLOCK_SIZE) return false;
    this.#literal(block, 0, NODE_HEADER_SIZE);
    if (!this.#words(block, NODE_HEADER_SIZE, max)) return false;
    if (!hasWords) {
      this.#literal(block, valuesAt, PACK_BLOCK_SIZE);
      return true;
    }
    if (isLeaf) this.#shifted(block, valuesAt, max);
    else if (!this.#words(block, valuesAt, max)) return false;
    this.#literal(block, valuesAt + 8 * max, PACK_BLOCK_SIZE);
    return true;
  }

  #words(block: Uint8Array, at: number, count: number): boolean {
    for (let i = 0; i < count; i++) {
      if (readU32LE(block, at + 8 * i + 4) >= 2 ** 21) return false;
      this.#values[i] = readU64LE(block, at + 8 * i);
    }
    this.#series(this.#values, count);
    return true;
  }

  #shifted(block: Uint8Array, at: number, count: number): void {
    this.#put((PackOp.SHIFT << 4) | (count >>> 8));
    this.#put(count & 255);
    for (let i = 0; i < count; i++) {
      const low = readU32LE(block, at + 8 * i);
      this.#values[i] = readU32LE(block, at + 8 * i + 4) * 2 ** (32 - SHIFT_BITS) + (low >>> SHIFT_BITS);
      this.#parts[i] = low & (2 ** SHIFT_BITS - 1);
    }
    this.#series(this.#values, count);
    this.#series(this.#parts, count);
  }

  /** Numbers below 2^53, as their differences. */
  #series(values: Float64Array, count: number): void {
    let base = values[0]!;
    this.#operand(PackOp.SET, base);
    for (let i = 1; i < count; ) {
      const step = values[i]! - base;
      let times = 1;
      while (i + times < count && times < MAX_COUNT && values[i + times]! - values[i + times - 1]! === step) times++;
      if (step === 0) {
        this.#counted(PackOp.CONST, PackOp.CONST8, times);
      } else {
        if (times > 1) this.#counted(PackOp.COUNT, PackOp.COUNT8, times);
        const size = Math.abs(step);
        if (size < 16) this.#put(((step > 0 ? PackOp.ADD : PackOp.SUB) << 4) | size);
        else this.#operand(step > 0 ? PackOp.ADDW : PackOp.SUBW, size);
      }
      base = values[i + times - 1]!;
      i += times;
    }
  }

  #counted(short: number, long: number, count: number): void {
    if (count < 16) {
      this.#put((short << 4) | count);
    } else {
      this.#put((long << 4) | (count >>> 8));
      this.#put(count & 255);
    }
  }

  #operand(op: number, value: number): void {
    const width = value < 2 ** 8 ? 1 : value < 2 ** 16 ? 2 : value < 2 ** 32 ? 4 : 8;
    this.#put((op << 4) | width);
    if (width === 8) {
      writeU64LE(this.bytes, this.length, value);
    } else {
      for (let i = 0; i < width; i++) this.bytes[this.length + i] = (value >>> (8 * i)) & 255;
    }
    this.length += width;
  }

  #literal(block: Uint8Array, begin: number, end: number): void {
    if (begin === end) return;
    if (end - begin < 16) this.#put((PackOp.LIT << 4) | (end - begin));
    else this.#operand(PackOp.LITW, end - begin);
    this.bytes.set(block.subarray(begin, end), this.length);
    this.length += end - begin;
  }

  #put(byte: number): void {
    this.bytes[this.length++] = byte;
  }
}
