import { readU32LE, writeU32LE } from '../base/bytes.ts';
import { damagedPack, PackOp, SHIFT_BITS } from './pack-format.ts';

/** Reads blocks from instructions. Everything that it is given may be damaged: EILSEQ. */
export class BlockUnpacker {
  readonly #bytes: Uint8Array;
  #at = 0;
  #base = 0n;
  #out: Uint8Array = new Uint8Array(0);
  #filled = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  /** The next block's number, its contents in `block`; null at the end. */
  next(block: Uint8Array): number | null {
    if (this.#at === this.#bytes.length) return null;
    const number = Number(this.#operand(8));
    this.#base = 0n;
    this.#run(block);
    return number;
  }

  /** Runs instructions until `out` is full. */
  #run(out: Uint8Array): void {
    const outer = this.#out;
    const filledBefore = this.#filled;
    this.#out = out;
    this.#filled = 0;
    while (this.#filled < out.length) this.#instruction(1);
    this.#out = outer;
    this.#filled = filledBefore;
  }

  #instruction(times: number): void {
    const byte = this.#byte();
    const n = byte & 15;
    switch (byte >>> 4) {
      case PackOp.SET:
        this.#base = this.#operand(n);
        this.#step(0n, times);
        break;
      case PackOp.ADD:
        this.#step(BigInt(n), times);
        break;
      case PackOp.ADDW:
        this.#step(this.#operand(n), times);
        break;
      case PackOp.SUB:
        this.#step(-BigInt(n), times);
        break;
      case PackOp.SUBW:
        this.#step(-this.#operand(n), times);
        break;
      case PackOp.CONST:
        this.#step(0n, n);
        break;
      case PackOp.CONST8:
        this.#step(0n, 256 * n + this.#byte());
        break;
      case PackOp.COUNT:
        this.#counted(times, n);
        break;
      case PackOp.COUNT8:
        this.#counted(times, 256 * n + this.#byte());
        break;
      case PackOp.LIT:
        this.#literal(n);
        break;
      case PackOp.LITW:
        this.#literal(Number(this.#operand(n)));
        break;
      case PackOp.SHIFT:
        this.#shifted(256 * n + this.#byte());
        break;
      default:
        throw damagedPack(`an instruction of kind ${byte >>> 4}`);
    }
  }

  #counted(outer: number, times: number): void {
    if (outer !== 1) throw damagedPack('a count of a count');
    this.#instruction(times);
  }

  #step(delta: bigint, times: number): void {
    if (this.#filled + 8 * times > this.#out.length) throw damagedPack('a block of more than 4096 bytes');
    for (let i = 0; i < times; i++) {
      this.#base = BigInt.asUintN(64, this.#base + delta);
      this.#emit(Number(this.#base & 0xffffffffn), Number(this.#base >> 32n));
    }
  }

  #emit(low: number, high: number): void {
    writeU32LE(this.#out, this.#filled, low);
    writeU32LE(this.#out, this.#filled + 4, high);
    this.#filled += 8;
  }

  #literal(length: number): void {
    if (this.#filled + length > this.#out.length) throw damagedPack('a block of more than 4096 bytes');
    this.#out.set(this.#take(length), this.#filled);
    this.#filled += length;
  }

  #shifted(count: number): void {
    if (this.#filled + 8 * count > this.#out.length) throw damagedPack('a block of more than 4096 bytes');
    const upper = new Uint8Array(8 * count);
    const lower = new Uint8Array(8 * count);
    this.#run(upper);
    this.#run(lower);
    for (let i = 0; i < count; i++) {
      const high = readU32LE(upper, 8 * i);
      const low = readU32LE(lower, 8 * i) % 2 ** SHIFT_BITS;
      const above = readU32LE(upper, 8 * i + 4);
      this.#emit(((high << SHIFT_BITS) | low) >>> 0, ((above << SHIFT_BITS) | (high >>> (32 - SHIFT_BITS))) >>> 0);
    }
  }

  #byte(): number {
    return this.#take(1)[0]!;
  }

  #operand(width: number): bigint {
    if (width !== 1 && width !== 2 && width !== 4 && width !== 8) throw damagedPack(`a number of ${width} bytes`);
    const bytes = this.#take(width);
    let value = 0n;
    for (let i = width - 1; i >= 0; i--) value = (value << 8n) | BigInt(bytes[i]!);
    return value;
  }

  #take(length: number): Uint8Array {
    if (this.#at + length > this.#bytes.length) throw damagedPack('it ends in the middle of a block');
    this.#at += length;
    return this.#bytes.subarray(this.#at - length, this.#at);
  }
}
