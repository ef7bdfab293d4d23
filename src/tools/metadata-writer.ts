import { assert } from '../base/assert.ts';
import { crc32cRaw } from '../base/crc32c.ts';
import { StorageError } from '../base/errors.ts';
import { alignedMemory } from '../block/aligned-memory.ts';
import type { BlockDevice } from '../block/block-device.ts';
import { BlockType } from './metadata-reader.ts';

const BLOCK_SIZE = 4096;
const MAX_METADATA_BLOCKS = 255 * 16320;
const BATCH_BLOCKS = 256;
const BLOCKNR_OFFSET = 8;

/** A zeroed block being filled in; checksum and block number come by themselves. Valid during the call that gets it. */
export class BlockDraft {
  readonly view: DataView;

  constructor(memory: Uint8Array, offset: number) {
    this.view = new DataView(memory.buffer, memory.byteOffset + offset, BLOCK_SIZE);
  }

  setU32(offset: number, value: number): void {
    this.view.setUint32(offset, value, true);
  }

  /** A whole number below 2^53. */
  setU64(offset: number, value: number): void {
    this.view.setUint32(offset, value % 2 ** 32, true);
    this.view.setUint32(offset + 4, Math.floor(value / 2 ** 32), true);
  }
}

/**
 * Writes new metadata, block after block from the second one of the device, the superblock last.
 *
 * The first thing that is written is an empty superblock, durably: what is interrupted or fails after that is not a pool any more, and not
 * half of an old one either. Until `BATCH_BLOCKS` are filled nothing is touched.
 */
export class MetadataWriter {
  readonly device: BlockDevice;
  /** Blocks that the metadata will have. */
  readonly blockCount: number;
  readonly #batch: Uint8Array = alignedMemory(BATCH_BLOCKS * BLOCK_SIZE);
  readonly #drafts: BlockDraft[] = [];
  /** The first block in the batch. */
  #batchBegin = 1;
  #next = 1;
  #begun = false;

  constructor(device: BlockDevice) {
    this.device = device;
    this.blockCount = Math.min(Math.floor(device.sizeBytes / BLOCK_SIZE), MAX_METADATA_BLOCKS);
    for (let i = 0; i < BATCH_BLOCKS; i++) this.#drafts.push(new BlockDraft(this.#batch, i * BLOCK_SIZE));
  }

  /** The number that the next block gets. */
  get next(): number {
    return this.#next;
  }

  /** Appends a block and returns its number. Throws ENOSPC, and what the device throws. */
  append(type: keyof typeof BlockType, fill: (draft: BlockDraft) => void): number {
    const number = this.#next;
    if (number >= this.blockCount) {
      const message = `Cannot write metadata to "${this.device.path}": its ${this.blockCount} blocks of 4 KiB are too few`;
      throw new StorageError('ENOSPC', message);
    }
    if (number - this.#batchBegin === BATCH_BLOCKS) this.#writeBatch();
    const slot = number - this.#batchBegin;
    const offset = slot * BLOCK_SIZE;
    this.#batch.fill(0, offset, offset + BLOCK_SIZE);
    this.#stamp(offset, number, type, fill);
    this.#next++;
    return number;
  }

  /** Reads a block that was appended. */
  read(number: number, memory: Uint8Array): void {
    assert(number > 0 && number < this.#next, 'a block is read that was not written');
    const slot = number - this.#batchBegin;
    if (slot < 0) this.device.readSync(number * BLOCK_SIZE, memory, 0, BLOCK_SIZE);
    else memory.set(this.#batch.subarray(slot * BLOCK_SIZE, (slot + 1) * BLOCK_SIZE));
  }

  /** Makes durable what was appended. */
  flush(): void {
    this.#writeBatch();
    this.device.flushSync();
  }

  /** After `flush`: writes the superblock, which makes a pool of it all. */
  finish(fill: (draft: BlockDraft) => void): void {
    assert(this.#batchBegin === this.#next, 'a superblock is written before what it leads to');
    this.#batch.fill(0, 0, BLOCK_SIZE);
    this.#stamp(0, 0, 'superblock', fill);
    this.device.writeSync(0, this.#batch, 0, BLOCK_SIZE);
    this.device.flushSync();
  }

  #stamp(offset: number, number: number, type: keyof typeof BlockType, fill: (draft: BlockDraft) => void): void {
    const draft = this.#drafts[offset / BLOCK_SIZE]!;
    fill(draft);
    draft.setU64(BLOCKNR_OFFSET, number);
    const sum = crc32cRaw(this.#batch, offset + 4, offset + BLOCK_SIZE);
    draft.setU32(0, (sum ^ BlockType[type]) >>> 0);
  }

  #writeBatch(): void {
    if (!this.#begun) {
      this.device.writeSync(0, alignedMemory(BLOCK_SIZE), 0, BLOCK_SIZE);
      this.device.flushSync();
      this.#begun = true;
    }
    const length = (this.#next - this.#batchBegin) * BLOCK_SIZE;
    if (length > 0) this.device.writeSync(this.#batchBegin * BLOCK_SIZE, this.#batch, 0, length);
    this.#batchBegin = this.#next;
  }
}
