import { assert } from '../base/assert.ts';
import type { IoCompletion } from '../block/block-device.ts';
import type { ReadableBlock, Validator, WritableBlock } from './block.ts';
import type { BlockManager } from './block-manager.ts';
import type { SpaceMap } from './space-map.ts';

/** The space map of the metadata device, as the transaction manager needs it. */
export interface MetadataBlocks extends SpaceMap {
  /**
   * Whether a block in use was free at the last commit. These are exactly the blocks created or shadowed in this
   * transaction, the only ones that may change in place.
   */
  isNew(block: number): boolean;
  /** Whether the count was above one at the last commit. */
  wasShared(block: number): boolean;
}

/**
 * The one door to metadata blocks. A block to write to comes from `create` or `shadow` and from nowhere else, so nothing
 * that the last commit refers to is ever changed on the device. Shadowing twice costs nothing: no caller asks
 * whether it has copied already.
 *
 * The kernel keeps a set of this transaction's shadows; here the space map knows (`isNew`), so the set cannot be wrong.
 * Source: dm-transaction-manager.c.
 */
export class TransactionManager {
  readonly blocks: BlockManager;
  #counts: MetadataBlocks | null = null;
  /**
   * Set by `shadow`: the block was copied and the original stays in use elsewhere, so the caller must count one more
   * reference for everything that the copy points to.
   */
  copiedShared = false;

  constructor(blocks: BlockManager) {
    this.blocks = blocks;
  }

  /** The space map keeps its own overflow tree through this manager, so it comes second. */
  setSpaceMap(counts: MetadataBlocks): void {
    this.#counts = counts;
  }

  get #spaceMap(): MetadataBlocks {
    assert(this.#counts !== null, 'A transaction manager without its space map');
    return this.#counts;
  }

  /** See `BlockManager.read`. */
  read(number: number, validator: Validator): ReadableBlock {
    return this.blocks.read(number, validator);
  }

  /** See `BlockManager.tryRead`. */
  tryRead(number: number, validator: Validator): ReadableBlock | null {
    return this.blocks.tryRead(number, validator);
  }

  /** See `BlockManager.prefetch`. */
  prefetch(completion: IoCompletion): boolean {
    return this.blocks.prefetch(completion);
  }

  /** A new block with count 1: zeroed and pinned. ENOSPC. */
  create(validator: Validator): WritableBlock {
    return this.blocks.create(this.#spaceMap.allocate(), validator);
  }

  /**
   * The block itself if it is this transaction's and nobody else's, else a copy with a new number: the one reference that
   * the caller stands for moves from the original to the copy. Pinned. Sets `copiedShared`.
   */
  shadow(number: number, validator: Validator): WritableBlock {
    const counts = this.#spaceMap;
    const shared = counts.isShared(number);
    this.copiedShared = false;
    if (!shared && counts.isNew(number)) return this.blocks.write(number, validator);
    const original = this.blocks.read(number, validator);
    const copy = this.create(validator);
    copy.words.set(original.words as Uint32Array);
    this.decrement(number);
    this.copiedShared = shared;
    return copy;
  }

  increment(number: number): void {
    this.#spaceMap.increment(number, number + 1);
  }

  /** The block's own pointers are not followed. */
  decrement(number: number): void {
    const counts = this.#spaceMap;
    counts.decrement(number, number + 1);
    if (counts.isNew(number) && counts.count(number) === 0) this.blocks.forget(number);
  }

  isShared(number: number): boolean {
    return this.#spaceMap.isShared(number);
  }

  isNew(number: number): boolean {
    return this.#spaceMap.isNew(number);
  }

  /** See `MetadataBlocks.wasShared`. */
  wasShared(number: number): boolean {
    return this.#spaceMap.wasShared(number);
  }

  count(number: number): number {
    return this.#spaceMap.count(number);
  }
}
