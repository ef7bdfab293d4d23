import type { Errno } from '../base/errors.ts';
import type { BlockDevice, IoCompletion } from '../block/block-device.ts';
import { BLOCK_SIZE, checkBlock, type Validator } from './block.ts';
import { type BlockCache, NOBODY, type Slot, type SlotOwner } from './block-cache.ts';

/** Block numbers that wait to be read; what is missed when it is full will be missed again. */
const MAX_MISSING = 128;

/** A commit may hold three quarters of the slots; a batch takes so much of the rest that blocking reads still find one. */
const BATCH_SHARE = 8;

/** Reads blocks into the cache that lookups have missed: one batch at a time, in one submission. */
export class Prefetcher implements SlotOwner {
  /** Blocks read. */
  readCount = 0;
  readonly #device: BlockDevice;
  readonly #cache: BlockCache;
  readonly #missing: number[] = [];
  readonly #missingValidators: Validator[] = [];
  #running = 0;
  #completions: IoCompletion[] = [];
  #nextCompletions: IoCompletion[] = [];
  #insideCall = false;
  /** The reads ended inside the call that started them: their completions are on their way from the event loop. */
  #late = false;

  constructor(device: BlockDevice, cache: BlockCache) {
    this.#device = device;
    this.#cache = cache;
  }

  /** The next batch reads this block. */
  miss(number: number, validator: Validator): void {
    if (this.#missing.length >= MAX_MISSING || this.#missing.includes(number)) return;
    this.#missing.push(number);
    this.#missingValidators.push(validator);
  }

  /** See `BlockManager.prefetch`. */
  start(completion: IoCompletion): boolean {
    this.#insideCall = true;
    if (this.#running === 0 && !this.#late) this.#startBatch();
    this.#insideCall = false;
    if (this.#running === 0 && !this.#late) return false;
    // What was missed while others were being read is read after them.
    if (this.#missing.length > 0) this.#nextCompletions.push(completion);
    else this.#completions.push(completion);
    return true;
  }

  /** Forgets what was missed; a batch under way still completes. */
  clear(): void {
    this.#missing.length = 0;
    this.#missingValidators.length = 0;
  }

  transferDone(slot: Slot, error: Errno | null): void {
    // A slot whose block has meanwhile been asked for otherwise has no number left: it is just free again.
    if (slot.reading !== NOBODY) this.#take(slot, error);
    this.#readEnded();
  }

  #startBatch(): void {
    // One is held until all are queued, as completions may come during submit().
    this.#running = 1;
    const most = this.#cache.capacity / BATCH_SHARE;
    for (let i = 0; i < this.#missing.length && this.#running <= most; i++) {
      const number = this.#missing[i]!;
      if (this.#cache.isExpected(number)) continue;
      const slot = this.#cache.victim(true);
      if (slot === null) break;
      if (slot.number !== NOBODY) this.#cache.drop(slot);
      this.#cache.expect(slot, number);
      slot.validator = this.#missingValidators[i]!;
      slot.judgedAs = null;
      slot.busy = true;
      slot.owner = this;
      this.#running++;
      this.#device.read(number * BLOCK_SIZE, this.#cache.memory, slot.offset, BLOCK_SIZE, slot);
    }
    this.clear();
    if (this.#running === 1) {
      this.#running = 0;
      return;
    }
    this.#device.submit();
    this.#readEnded();
  }

  #take(slot: Slot, error: Errno | null): void {
    const number = slot.reading;
    if (error === null) {
      try {
        checkBlock(slot.words, slot.bytes, number, slot.validator!, this.#device.path);
        slot.used = true;
        this.readCount++;
        this.#cache.adopt(slot, number);
        return;
      } catch {
        // Whoever needs the block will read it again and say what is wrong.
      }
    }
    this.#cache.drop(slot);
  }

  #readEnded(): void {
    if (--this.#running > 0) return;
    if (this.#insideCall) {
      this.#late = true;
      setImmediate(() => this.#batchDone());
    } else {
      this.#batchDone();
    }
  }

  #batchDone(): void {
    this.#late = false;
    const done = this.#completions;
    this.#completions = this.#nextCompletions;
    this.#nextCompletions = [];
    if (this.#completions.length > 0) {
      this.#startBatch();
      // Nothing was left to read for them.
      if (this.#running === 0) done.push(...this.#completions.splice(0));
    }
    for (const completion of done) completion.ioDone(null);
  }
}
