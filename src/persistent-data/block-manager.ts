import { assert } from '../base/assert.ts';
import { type Errno, StorageError, wrapError } from '../base/errors.ts';
import type { BlockDevice, IoCompletion } from '../block/block-device.ts';
import {
  BLOCK_SIZE,
  BLOCK_WORDS,
  checkBlock,
  type ReadableBlock,
  stampBlock,
  type Validator,
  type WritableBlock,
} from './block.ts';

/** Fewer slots could not hold what one operation pins. */
export const MIN_CACHE_BLOCKS = 128;
export const DEFAULT_CACHE_BLOCKS = 4096;

/** Blocks that one operation holds at a time: a few per level of each tree it is in. More is a leak. */
const MAX_PINS = 112;
/** Block numbers that wait for `prefetch`; a lookup that misses when it is full is simply tried again later. */
const MAX_MISSING = 128;
/** How many dirty slots the clock passes over in search of a clean one, which costs no write. */
const DIRTY_PASSED_OVER = 64;

const NOBODY = -1;

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

/** One slot of the cache. Its memory and views stay the same for life; which block it holds changes. */
class Slot implements WritableBlock, IoCompletion {
  /** The block whose contents are valid here; `NOBODY` when free or while a prefetch is under way. */
  number: number = NOBODY;
  readonly words: Uint32Array;
  readonly bytes: Uint8Array;
  readonly index: number;
  validator: Validator | null = null;
  dirty = false;
  /** A device transfer is under way: neither evicted nor changed. */
  busy = false;
  /** The block that a prefetch is reading into this slot. */
  reading: number = NOBODY;
  pins = 0;
  /** Touched since the clock's hand last passed. */
  used = false;
  readonly #manager: BlockManager;

  constructor(manager: BlockManager, slab: ArrayBuffer, index: number) {
    this.#manager = manager;
    this.index = index;
    this.words = new Uint32Array(slab, index * BLOCK_SIZE, BLOCK_WORDS);
    this.bytes = new Uint8Array(slab, index * BLOCK_SIZE, BLOCK_SIZE);
  }

  ioDone(error: Errno | null): void {
    this.#manager.transferDone(this, error);
  }
}

/**
 * The cache of metadata blocks: a bounded number of slots in one slab, filled on demand, evicted by the clock algorithm.
 *
 * A block that was handed out stays where it is until `release`: take a `mark()` before, `release(mark)` after. An operation
 * that throws leaves its pins behind; whoever starts the next one calls `release(0)`.
 *
 * A dirty block may be written and evicted at any time. This is safe because only blocks that the committed state does not
 * refer to are ever dirty: see transaction-manager.ts.
 *
 * Between `writeDirty` and its completion no block may be made dirty.
 */
export class BlockManager {
  readonly device: BlockDevice;
  readonly stats: BlockStats = {
    hits: 0,
    misses: 0,
    blockingReads: 0,
    prefetchedReads: 0,
    locks: 0,
    writes: 0,
    evictionWrites: 0,
  };
  readonly #capacity: number;
  readonly #slab: ArrayBuffer;
  readonly #slabBytes: Uint8Array;
  readonly #slots: Slot[] = [];
  /** Slot index + 1 for each block number: untouched pages of it cost no memory. */
  #slotOf: Uint32Array;
  #blockCount: number;
  #hand = 0;
  #dirtyCount = 0;
  readonly #pinned: Slot[] = [];
  #pinCount = 0;

  readonly #missing: number[] = [];
  readonly #missingValidators: Validator[] = [];
  #prefetchesRunning = 0;
  #prefetchCompletions: IoCompletion[] = [];
  #prefetchNext: IoCompletion[] = [];
  /** The reads ended inside the call that started them; their completions come from the event loop. */
  #prefetchLate = false;
  #insideCall = false;

  #writesRunning = 0;
  #writeError: Errno | null = null;
  #writeCompletion: IoCompletion | null = null;

  /**
   * `blockCount` is the number of blocks of the device that may be used; `slab` the memory of the cache, a multiple of 4096
   * bytes and aligned as the device needs it.
   */
  constructor(device: BlockDevice, blockCount: number, slab: ArrayBuffer) {
    this.device = device;
    this.#blockCount = blockCount;
    this.#slab = slab;
    this.#slabBytes = new Uint8Array(slab);
    this.#capacity = Math.floor(slab.byteLength / BLOCK_SIZE);
    this.#slotOf = new Uint32Array(blockCount);
    assert(this.#capacity >= MIN_CACHE_BLOCKS, 'The metadata cache is too small');
  }

  get blockCount(): number {
    return this.#blockCount;
  }

  /** Slots. */
  get capacityBlocks(): number {
    return this.#capacity;
  }

  /** Blocks that a commit would have to write now. */
  get dirtyBlocks(): number {
    return this.#dirtyCount;
  }

  /** The device has grown. */
  extend(blockCount: number): void {
    assert(blockCount >= this.#blockCount, 'A metadata device does not shrink');
    const slotOf = new Uint32Array(blockCount);
    slotOf.set(this.#slotOf);
    this.#slotOf = slotOf;
    this.#blockCount = blockCount;
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
    this.#makeDirty(slot);
    return slot;
  }

  /** The block, zeroed, dirty and pinned; nothing is read. Only for blocks of this transaction. */
  create(number: number, validator: Validator): WritableBlock {
    this.#checkNumber(number, validator);
    this.stats.locks++;
    let slot = this.#cached(number);
    if (slot === null) {
      slot = this.#takeSlot();
      this.#adopt(slot, number);
    }
    slot.validator = validator;
    slot.words.fill(0);
    this.#pin(slot);
    this.#makeDirty(slot);
    return slot;
  }

  /**
   * The block if it is in the cache, else null, and `prefetch` will read it. Not pinned: valid until the next call that
   * may read or create a block.
   */
  tryRead(number: number, validator: Validator): ReadableBlock | null {
    if (number < this.#blockCount) {
      const index = this.#slotOf[number]!;
      if (index !== 0) {
        const slot = this.#slots[index - 1]!;
        if (slot.number === number && slot.validator === validator) {
          slot.used = true;
          this.stats.hits++;
          this.stats.locks++;
          return slot;
        }
      }
    }
    this.#checkNumber(number, validator);
    this.stats.misses++;
    if (this.#missing.length < MAX_MISSING && !this.#missing.includes(number)) {
      this.#missing.push(number);
      this.#missingValidators.push(validator);
    }
    return null;
  }

  /** Forgets changes to a block that nothing refers to any more, so that they are not written. */
  forget(number: number): void {
    const slot = this.#cached(number);
    if (slot === null || !slot.dirty || slot.busy) return;
    slot.dirty = false;
    this.#dirtyCount--;
    if (slot.pins === 0) this.#drop(slot);
  }

  /** How many blocks are pinned: pass it to `release` when done with what is read from now on. */
  mark(): number {
    return this.#pinCount;
  }

  release(mark: number): void {
    while (this.#pinCount > mark) this.#pinned[--this.#pinCount]!.pins--;
  }

  /**
   * Reads what `tryRead` missed and calls `completion` later; with null even when a block could not be read: the next
   * `read` of it says why. Returns false when there is nothing to wait for: what was missed is there by now, or no slot is
   * free to read ahead into, so go on with `read`.
   */
  prefetch(completion: IoCompletion): boolean {
    this.#insideCall = true;
    if (this.#prefetchesRunning === 0 && !this.#prefetchLate) this.#startPrefetch();
    this.#insideCall = false;
    if (this.#prefetchesRunning === 0 && !this.#prefetchLate) return false;
    // What was missed while others were being read is read after them.
    if (this.#missing.length > 0) this.#prefetchNext.push(completion);
    else this.#prefetchCompletions.push(completion);
    return true;
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
    const dirty = this.#dirtySlots();
    this.#writesRunning = dirty.length + 1;
    for (const slot of dirty) {
      slot.busy = true;
      stampBlock(slot.words, slot.bytes, slot.number, slot.validator!);
      this.device.write(slot.number * BLOCK_SIZE, this.#slabBytes, slot.index * BLOCK_SIZE, BLOCK_SIZE, slot);
    }
    this.device.submit();
    this.#writeEnded(null);
    this.#insideCall = false;
  }

  /** The same, waiting. Throws the device's error. Does not flush. */
  writeDirtySync(): void {
    for (const slot of this.#dirtySlots()) this.#writeSlot(slot);
  }

  /** Forgets every block, clean and dirty, and every pin. Not while `writeDirty` runs. */
  reset(): void {
    assert(this.#writeCompletion === null, 'A commit is writing');
    this.release(0);
    for (const slot of this.#slots) {
      if (slot.number !== NOBODY) this.#slotOf[slot.number] = 0;
      if (slot.reading !== NOBODY) this.#slotOf[slot.reading] = 0;
      slot.number = NOBODY;
      slot.reading = NOBODY;
      slot.dirty = false;
      slot.used = false;
    }
    this.#dirtyCount = 0;
    this.#missing.length = 0;
    this.#missingValidators.length = 0;
  }

  /** A slot's transfer has ended. Called by the slot. */
  transferDone(slot: Slot, error: Errno | null): void {
    slot.busy = false;
    if (slot.dirty) {
      if (error === null) {
        slot.dirty = false;
        this.#dirtyCount--;
        this.stats.writes++;
      }
      this.#writeEnded(error);
      return;
    }
    // A prefetch whose block has meanwhile been asked for otherwise has no number left: the slot is just free again.
    if (slot.reading !== NOBODY) this.#prefetched(slot, error);
    this.#prefetchEnded();
  }

  #checkNumber(number: number, validator: Validator): void {
    if (number >= this.#blockCount) {
      throw new StorageError(
        'EINVAL',
        `Cannot read ${validator.name} at block ${number} of "${this.device.path}": it has ${this.#blockCount} blocks`,
      );
    }
  }

  #cached(number: number): Slot | null {
    const index = this.#slotOf[number]!;
    if (index === 0) return null;
    const slot = this.#slots[index - 1]!;
    return slot.number === number ? slot : null;
  }

  #get(number: number, validator: Validator): Slot {
    this.#checkNumber(number, validator);
    this.stats.locks++;
    let slot = this.#cached(number);
    if (slot === null) {
      this.stats.misses++;
      this.stats.blockingReads++;
      slot = this.#takeSlot();
      const { path } = this.device;
      try {
        this.device.readSync(number * BLOCK_SIZE, this.#slabBytes, slot.index * BLOCK_SIZE, BLOCK_SIZE);
      } catch (error) {
        throw wrapError(`Cannot read ${validator.name} at block ${number} of "${path}"`, error);
      }
      checkBlock(slot.words, slot.bytes, number, validator, path);
      this.#adopt(slot, number);
      slot.validator = validator;
    } else {
      this.stats.hits++;
      if (slot.validator !== validator) {
        throw new StorageError(
          'EILSEQ',
          `Cannot read ${validator.name} at block ${number} of "${this.device.path}": it is in use as ${slot.validator!.name}`,
        );
      }
    }
    this.#pin(slot);
    return slot;
  }

  #pin(slot: Slot): void {
    assert(this.#pinCount < MAX_PINS, 'An operation holds too many metadata blocks');
    slot.pins++;
    slot.used = true;
    this.#pinned[this.#pinCount++] = slot;
  }

  #makeDirty(slot: Slot): void {
    if (slot.dirty) return;
    assert(!slot.busy && this.#writeCompletion === null, 'A block changes while a commit writes');
    slot.dirty = true;
    this.#dirtyCount++;
    // A commit's writes hold their slots: a quarter of the cache always stays free for lookups meanwhile.
    if (this.#dirtyCount > (this.#capacity * 3) / 4) this.#writeOne();
  }

  /** Gives a slot to a block. A prefetch of the same block that is under way is left without effect. */
  #adopt(slot: Slot, number: number): void {
    const index = this.#slotOf[number]!;
    if (index !== 0) this.#slots[index - 1]!.reading = NOBODY;
    slot.number = number;
    this.#slotOf[number] = slot.index + 1;
  }

  #drop(slot: Slot): void {
    this.#slotOf[slot.number] = 0;
    slot.number = NOBODY;
    slot.validator = null;
  }

  /** A slot without a block. Throws the device's error when a dirty block had to be written and could not. */
  #takeSlot(): Slot {
    const slot = this.#findSlot(false);
    assert(slot !== null, 'Every slot of the metadata cache is pinned');
    return slot;
  }

  #findSlot(cleanOnly: boolean): Slot | null {
    if (this.#slots.length < this.#capacity) {
      const slot = new Slot(this, this.#slab, this.#slots.length);
      this.#slots.push(slot);
      return slot;
    }
    let passedOver = 0;
    for (let step = 0; step < 3 * this.#capacity; step++) {
      const slot = this.#slots[this.#hand]!;
      this.#hand = (this.#hand + 1) % this.#capacity;
      if (slot.busy || slot.pins > 0) continue;
      if (slot.number === NOBODY) return slot;
      if (slot.used) {
        slot.used = false;
      } else if (!slot.dirty) {
        this.#drop(slot);
        return slot;
      } else if (cleanOnly) {
      } else if (++passedOver > DIRTY_PASSED_OVER || step > 2 * this.#capacity) {
        this.stats.evictionWrites++;
        this.#writeSlot(slot);
        this.#drop(slot);
        return slot;
      }
    }
    return null;
  }

  /** Makes one dirty block clean. */
  #writeOne(): void {
    for (let step = 0; step < 2 * this.#capacity; step++) {
      const slot = this.#slots[this.#hand % this.#slots.length]!;
      this.#hand = (this.#hand + 1) % this.#capacity;
      if (!slot.dirty || slot.pins > 0) continue;
      if (slot.used && step < this.#capacity) {
        slot.used = false;
        continue;
      }
      this.stats.evictionWrites++;
      this.#writeSlot(slot);
      return;
    }
  }

  #writeSlot(slot: Slot): void {
    stampBlock(slot.words, slot.bytes, slot.number, slot.validator!);
    try {
      this.device.writeSync(slot.number * BLOCK_SIZE, this.#slabBytes, slot.index * BLOCK_SIZE, BLOCK_SIZE);
    } catch (error) {
      throw wrapError(`Cannot write metadata block ${slot.number} of "${this.device.path}"`, error);
    }
    slot.dirty = false;
    this.#dirtyCount--;
    this.stats.writes++;
  }

  /** In the order of their place on the device. */
  #dirtySlots(): Slot[] {
    return this.#slots.filter((slot) => slot.dirty).sort((a, b) => a.number - b.number);
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

  #startPrefetch(): void {
    // One is held until all are queued, as completions may come during submit().
    this.#prefetchesRunning = 1;
    for (let i = 0; i < this.#missing.length; i++) {
      const number = this.#missing[i]!;
      if (this.#slotOf[number] !== 0) continue;
      const slot = this.#findSlot(true);
      if (slot === null) break;
      slot.reading = number;
      slot.validator = this.#missingValidators[i]!;
      slot.busy = true;
      this.#slotOf[number] = slot.index + 1;
      this.#prefetchesRunning++;
      this.device.read(number * BLOCK_SIZE, this.#slabBytes, slot.index * BLOCK_SIZE, BLOCK_SIZE, slot);
    }
    this.#missing.length = 0;
    this.#missingValidators.length = 0;
    if (this.#prefetchesRunning > 1) this.device.submit();
    else this.#prefetchesRunning = 0;
    if (this.#prefetchesRunning > 0) this.#prefetchEnded();
  }

  #prefetched(slot: Slot, error: Errno | null): void {
    const number = slot.reading;
    slot.reading = NOBODY;
    this.#slotOf[number] = 0;
    if (error !== null) return;
    try {
      checkBlock(slot.words, slot.bytes, number, slot.validator!, this.device.path);
    } catch {
      return;
    }
    this.stats.prefetchedReads++;
    slot.used = true;
    this.#adopt(slot, number);
  }

  #prefetchEnded(): void {
    if (--this.#prefetchesRunning > 0) return;
    if (this.#insideCall) {
      this.#prefetchLate = true;
      setImmediate(() => this.#prefetchDone());
    } else {
      this.#prefetchDone();
    }
  }

  #prefetchDone(): void {
    this.#prefetchLate = false;
    const completions = this.#prefetchCompletions;
    this.#prefetchCompletions = this.#prefetchNext;
    this.#prefetchNext = [];
    if (this.#prefetchCompletions.length > 0) {
      this.#startPrefetch();
      // Nothing was left to read for them.
      if (this.#prefetchesRunning === 0) completions.push(...this.#prefetchCompletions.splice(0));
    }
    for (const completion of completions) completion.ioDone(null);
  }
}
