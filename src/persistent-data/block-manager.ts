import { assert } from '../base/assert.ts';
import { type Errno, StorageError, wrapError } from '../base/errors.ts';
import type { BlockDevice, IoCompletion } from '../block/block-device.ts';
import { BLOCK_SIZE, checkBlock, type ReadableBlock, stampBlock, type Validator, type WritableBlock } from './block.ts';
import { BlockCache, NOBODY, type Slot, type SlotOwner } from './block-cache.ts';
import { Prefetcher } from './prefetcher.ts';

/** Counts that tests compare: exact on any machine. They only grow. */
export interface BlockStats {
  /** Blocks found in the cache. */
  hits: number;
  /** Blocks not found, whether they were then read or left to `prefetch`. */
  misses: number;
  /** Blocks read while everything else waited. */
  blockingReads: number;
  /** Blocks read by `prefetch`. */
  prefetchedReads: number;
  /** Blocks handed out, for reading or writing. */
  locks: number;
  /** Dirty blocks written, by a commit or to make room. */
  writes: number;
  /** The part of `writes` done while everything else waited, because the cache was full of dirty blocks. */
  evictionWrites: number;
}

class Counters implements BlockStats {
  hits = 0;
  misses = 0;
  blockingReads = 0;
  locks = 0;
  writes = 0;
  evictionWrites = 0;
  readonly #prefetcher: Prefetcher;

  constructor(prefetcher: Prefetcher) {
    this.#prefetcher = prefetcher;
  }

  get prefetchedReads(): number {
    return this.#prefetcher.readCount;
  }
}

/**
 * Metadata blocks through a cache of a bounded number of slots, checked when read and stamped when written.
 *
 * A block that was handed out stays where it is until `release`: take a `mark()` before, `release(mark)` after. An operation
 * that throws leaves its pins behind; whoever starts the next one calls `release(0)`.
 *
 * A dirty block may be written and evicted at any time. This is safe because only blocks that the committed state does not
 * refer to are ever dirty: see transaction-manager.ts.
 *
 * Between `writeDirty` and its completion no block may be made dirty. Source: dm-block-manager.c.
 */
export class BlockManager implements SlotOwner {
  readonly device: BlockDevice;
  readonly stats: BlockStats;
  readonly #cache: BlockCache;
  readonly #prefetcher: Prefetcher;
  #writesRunning = 0;
  #writeError: Errno | null = null;
  #writeCompletion: IoCompletion | null = null;
  #insideCall = false;

  /**
   * `blockCount` is the number of blocks of the device that may be used; `memory` holds the slots: a multiple of 4096 bytes,
   * aligned as the device needs it.
   */
  constructor(device: BlockDevice, blockCount: number, memory: Uint8Array) {
    this.device = device;
    this.#cache = new BlockCache(memory, blockCount);
    this.#prefetcher = new Prefetcher(device, this.#cache);
    this.stats = new Counters(this.#prefetcher);
  }

  get blockCount(): number {
    return this.#cache.blockCount;
  }

  /** Slots. */
  get capacityBlocks(): number {
    return this.#cache.capacity;
  }

  /** Blocks that a commit would have to write now. */
  get dirtyBlocks(): number {
    return this.#cache.dirtyCount;
  }

  /** The device has grown. */
  extend(blockCount: number): void {
    this.#cache.extend(blockCount);
  }

  /**
   * The block, read from the device if need be; pinned. Throws EINVAL for a number past the end, ENOTBLK or EILSEQ for
   * a damaged block or one of another type, or the device's error.
   */
  read(number: number, validator: Validator): ReadableBlock {
    return this.#get(number, validator);
  }

  /** The same, for changing it: it becomes dirty. Only for blocks of this transaction. */
  write(number: number, validator: Validator): WritableBlock {
    const slot = this.#get(number, validator);
    if (!slot.dirty) this.#makeDirty(slot);
    return slot;
  }

  /** The block, zeroed, dirty and pinned; nothing is read. Only for blocks of this transaction. */
  create(number: number, validator: Validator): WritableBlock {
    this.#checkNumber(number, validator);
    this.stats.locks++;
    let slot = this.#cache.find(number);
    if (slot === null) {
      slot = this.#takeSlot();
      this.#cache.adopt(slot, number);
    }
    slot.validator = validator;
    slot.judgedAs = null;
    slot.words.fill(0);
    this.#cache.pin(slot);
    this.#makeDirty(slot);
    return slot;
  }

  /**
   * The block if it is in the cache, else null, and `prefetch` will read it. Not pinned: valid until the next call that
   * may read or create a block.
   */
  tryRead(number: number, validator: Validator): ReadableBlock | null {
    this.#checkNumber(number, validator);
    const slot = this.#cache.find(number);
    if (slot === null) {
      this.stats.misses++;
      this.#prefetcher.miss(number, validator);
      return null;
    }
    if (slot.validator !== validator) throw this.#otherType(slot, validator);
    slot.used = true;
    this.stats.hits++;
    this.stats.locks++;
    return slot;
  }

  /** Forgets changes to a block that nothing refers to any more, so that they are not written. */
  forget(number: number): void {
    const slot = this.#cache.find(number);
    if (slot === null || !slot.dirty || slot.busy) return;
    this.#cache.setDirty(slot, false);
    if (slot.pins === 0) this.#cache.drop(slot);
  }

  /** How many blocks are pinned: pass it to `release` when done with what is read from now on. */
  mark(): number {
    return this.#cache.mark();
  }

  release(mark: number): void {
    this.#cache.release(mark);
  }

  /**
   * Reads what `tryRead` missed and calls `completion` later; with null even when a block could not be read: the next
   * `read` of it says why. Returns false when there is nothing to wait for: what was missed is there by now, or no slot is
   * free to read ahead into, so go on with `read`.
   */
  prefetch(completion: IoCompletion): boolean {
    return this.#prefetcher.start(completion);
  }

  /**
   * Starts the write of every dirty block, then the flush of the device. `completion` is called once, later, with the first
   * error if there was one; nothing is flushed after a failed write.
   */
  writeDirty(completion: IoCompletion): void {
    assert(this.#writeCompletion === null, 'A commit is already writing');
    this.#writeCompletion = completion;
    this.#writeError = null;
    this.#insideCall = true;
    const dirty = this.#cache.dirtySlots();
    // One is held until all are queued, as completions may come during submit().
    this.#writesRunning = dirty.length + 1;
    for (const slot of dirty) {
      slot.busy = true;
      slot.owner = this;
      stampBlock(slot.words, slot.bytes, slot.number, slot.validator!);
      this.device.write(slot.number * BLOCK_SIZE, this.#cache.memory, slot.offset, BLOCK_SIZE, slot);
    }
    this.device.submit();
    this.#writeEnded(null);
    this.#insideCall = false;
  }

  /** The same, waiting. Throws the device's error. Does not flush. */
  writeDirtySync(): void {
    for (const slot of this.#cache.dirtySlots()) this.#writeSlot(slot);
  }

  /** Forgets every block, clean and dirty, and every pin. Not while `writeDirty` runs. */
  reset(): void {
    assert(this.#writeCompletion === null, 'A commit is writing');
    this.#cache.clear();
    this.#prefetcher.clear();
  }

  /** A slot's write has ended. Called by the slot. */
  transferDone(slot: Slot, error: Errno | null): void {
    if (error === null) {
      this.#cache.setDirty(slot, false);
      this.stats.writes++;
    }
    this.#writeEnded(error);
  }

  #checkNumber(number: number, validator: Validator): void {
    if (number < this.#cache.blockCount) return;
    throw new StorageError(
      'EINVAL',
      `Cannot use ${validator.name} at block ${number} of "${this.device.path}": it has ${this.blockCount} blocks`,
    );
  }

  #otherType(slot: Slot, validator: Validator): StorageError {
    return new StorageError(
      'EILSEQ',
      `Cannot read ${validator.name} at block ${slot.number} of "${this.device.path}": it is in use as ${slot.validator!.name}`,
    );
  }

  #get(number: number, validator: Validator): Slot {
    this.#checkNumber(number, validator);
    this.stats.locks++;
    let slot = this.#cache.find(number);
    if (slot !== null) {
      this.stats.hits++;
      if (slot.validator !== validator) throw this.#otherType(slot, validator);
    } else {
      this.stats.misses++;
      slot = this.#readNow(number, validator);
    }
    this.#cache.pin(slot);
    return slot;
  }

  #readNow(number: number, validator: Validator): Slot {
    this.stats.blockingReads++;
    const slot = this.#takeSlot();
    try {
      this.device.readSync(number * BLOCK_SIZE, this.#cache.memory, slot.offset, BLOCK_SIZE);
    } catch (error) {
      throw wrapError(`Cannot read ${validator.name} at block ${number} of "${this.device.path}"`, error);
    }
    checkBlock(slot.words, slot.bytes, number, validator, this.device.path);
    this.#cache.adopt(slot, number);
    slot.validator = validator;
    slot.judgedAs = null;
    return slot;
  }

  #makeDirty(slot: Slot): void {
    assert(!slot.busy && this.#writeCompletion === null, 'A block changes while a commit writes');
    this.#cache.setDirty(slot, true);
    // A commit's writes hold their slots: a quarter of the cache always stays free for lookups meanwhile.
    if (this.#cache.dirtyCount <= (this.#cache.capacity * 3) / 4) return;
    const victim = this.#cache.dirtyVictim();
    if (victim === null) return;
    this.stats.evictionWrites++;
    this.#writeSlot(victim);
  }

  /** A slot without a block. Throws the device's error when a dirty block had to be written and could not. */
  #takeSlot(): Slot {
    const slot = this.#cache.victim(false);
    assert(slot !== null, 'Every slot of the metadata cache is pinned');
    if (slot.dirty) {
      this.stats.evictionWrites++;
      this.#writeSlot(slot);
    }
    if (slot.number !== NOBODY) this.#cache.drop(slot);
    return slot;
  }

  #writeSlot(slot: Slot): void {
    stampBlock(slot.words, slot.bytes, slot.number, slot.validator!);
    try {
      this.device.writeSync(slot.number * BLOCK_SIZE, this.#cache.memory, slot.offset, BLOCK_SIZE);
    } catch (error) {
      throw wrapError(`Cannot write metadata block ${slot.number} of "${this.device.path}"`, error);
    }
    this.#cache.setDirty(slot, false);
    this.stats.writes++;
  }

  #writeEnded(error: Errno | null): void {
    if (error !== null) this.#writeError ??= error;
    if (--this.#writesRunning > 0) return;
    if (this.#writeError === null) {
      this.device.flush(this.#flushed);
      this.device.submit();
    } else {
      this.#flushed.ioDone(this.#writeError);
    }
  }

  readonly #flushed: IoCompletion = {
    ioDone: (error) => {
      const completion = this.#writeCompletion!;
      this.#writeCompletion = null;
      if (this.#insideCall) setImmediate(() => completion.ioDone(error));
      else completion.ioDone(error);
    },
  };
}
