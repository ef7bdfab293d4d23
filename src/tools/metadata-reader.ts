/**
 * Reads metadata for the tools, independently of src/persistent-data: a mistake there must not hide itself from the checker.
 * Only the checksum and the numbers that the format fixes are shared.
 */
import { crc32cRaw } from '../base/crc32c.ts';
import { messageOf } from '../base/errors.ts';
import { alignedMemory } from '../block/aligned-memory.ts';
import type { BlockDevice } from '../block/block-device.ts';
import type { ReadAhead } from './read-ahead.ts';

const BLOCK_SIZE = 4096;
const BLOCKNR_OFFSET = 8;

/** The constants that checksums are xored with. */
export const BlockType = {
  superblock: 160774,
  node: 121107,
  bitmap: 240779,
  index: 160478,
} as const;
export type BlockType = keyof typeof BlockType;

/** A block's bytes, for reading fields. */
export class BlockView {
  readonly bytes: Uint8Array = alignedMemory(BLOCK_SIZE);
  /** Little-endian, as the machine is (see persistent-data/block.ts). */
  readonly words: Uint32Array = new Uint32Array(this.bytes.buffer, this.bytes.byteOffset, BLOCK_SIZE / 4);

  /** `offset` is a multiple of 4. */
  u32(offset: number): number {
    return this.words[offset >>> 2]!;
  }

  /** From 2^53 up it is rounded. */
  u64(offset: number): number {
    const at = offset >>> 2;
    return this.words[at]! + this.words[at + 1]! * 2 ** 32;
  }
}

export class MetadataReader {
  readonly device: BlockDevice;
  /** Blocks that the metadata has; at first what the device has room for. */
  blockCount: number;
  /** Blocks read. */
  readCount = 0;
  /** Where blocks may be already; null: nowhere. */
  readAhead: ReadAhead | null = null;
  readonly #spare: BlockView[] = [];

  constructor(device: BlockDevice) {
    this.device = device;
    this.blockCount = Math.floor(device.sizeBytes / BLOCK_SIZE);
  }

  /** Memory for a block; give it back with `release`. */
  acquire(): BlockView {
    return this.#spare.pop() ?? new BlockView();
  }

  release(view: BlockView): void {
    this.#spare.push(view);
  }

  /** Reads a block; returns what is wrong with it, or null. */
  read(number: number, type: BlockType, view: BlockView): string | null {
    if (number >= this.blockCount) return `block ${number} is past the end (${this.blockCount} blocks)`;
    const there = this.readAhead === null ? null : this.readAhead.find(number);
    if (there !== null) {
      view.bytes.set(there);
    } else {
      try {
        this.device.readSync(number * BLOCK_SIZE, view.bytes, 0, BLOCK_SIZE);
      } catch (error) {
        return `block ${number} cannot be read: ${messageOf(error)}`;
      }
    }
    this.readCount++;
    const sum = crc32cRaw(view.bytes, 4, BLOCK_SIZE);
    const expected = (sum ^ BlockType[type]) >>> 0;
    if (view.u32(0) !== expected) {
      const constant = (sum ^ view.u32(0)) >>> 0;
      const other = Object.entries(BlockType).find((entry) => entry[1] === constant);
      if (other) return `block ${number} is a ${other[0]}, expected a ${type}`;
      return `block ${number} has checksum ${view.u32(0)}, expected ${expected}`;
    }
    const blocknr = view.u64(BLOCKNR_OFFSET);
    return blocknr === number ? null : `block ${number} says that it is block ${blocknr}`;
  }
}
