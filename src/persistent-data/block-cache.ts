import { assert } from '../base/assert.ts';
import type { Errno } from '../base/errors.ts';
import type { IoCompletion } from '../block/block-device.ts';
import { BLOCK_SIZE, BLOCK_WORDS, type Validator, type WritableBlock } from './block.ts';

/** Blocks that one operation holds at a time: a few per level of each tree that it is in, 15 in practice. More is a leak. */
const MAX_PINS = 64;
/** Fewer slots could not hold what one operation pins. */
export const MIN_CACHE_BLOCKS = 128;
/** 192 MiB, of which only what is used takes memory: the nodes of 10 million mappings, and room for those of their changes. */
export const DEFAULT_CACHE_BLOCKS = 49_152;
/** How many dirty slots the clock passes over in search of a clean one, which costs no write. */
const DIRTY_PASSED_OVER = 64;

/** No block's number. */
export const NOBODY = -1;

/** Starts a slot's device transfers and is told when they have ended. */
export interface SlotOwner {
  transferDone(slot: Slot, error: Errno | null): void;
}

/** One slot of the cache. Its memory and views stay the same for life; which block it holds changes. */
export class Slot implements WritableBlock, IoCompletion {
  /** The block whose contents are valid here; `NOBODY` when free or while a prefetch is under way. */
  number: number = NOBODY;
  readonly words: Uint32Array;
  readonly bytes: Uint8Array;
  /** Where the slot is in the cache's memory. */
  readonly offset: number;
  readonly index: number;
  validator: Validator | null = null;
  judgedAs: object | null = null;
  dirty = false;
  /** A device transfer is under way, by `owner`: neither evicted nor changed. */
  busy = false;
  owner: SlotOwner | null = null;
  /** The block that a prefetch is reading into this slot. */
  reading: number = NOBODY;
  pins = 0;
  /** Touched since the clock's hand last passed. */
  used = false;

  constructor(memory: Uint8Array, index: number) {
    this.index = index;
    this.offset = index * BLOCK_SIZE;
    this.words = new Uint32Array(memory.buffer, memory.byteOffset + this.offset, BLOCK_WORDS);
    this.bytes = new Uint8Array(memory.buffer, memory.byteOffset + this.offset, BLOCK_SIZE);
  }

  ioDone(error: Errno | null): void {
    this.busy = false;
    this.owner!.transferDone(this, error);
  }
}

/** Which block is in which slot, which slots are pinned, and which is given up next (the clock algorithm). No I/O. */
export class BlockCache {
  /** The memory of all slots. */
  readonly memory: Uint8Array;
  readonly capacity: number;
  readonly #slots: Slot[] = [];
  /** Slot index + 1 for each block number: untouched pages of it cost no memory. */
  #slotOf: Uint32Array;
  #hand = 0;
  #dirtyCount = 0;
  readonly #pinned: Slot[] = [];
  #pinCount = 0;

  /** `memory` is a multiple of 4096 bytes, aligned as the device needs it. */
  constructor(memory: Uint8Array, blockCount: number) {
    this.memory = memory;
    this.capacity = Math.floor(memory.length / BLOCK_SIZE);
    assert(this.capacity >= MIN_CACHE_BLOCKS, 'The metadata cache is too small');
    this.#slotOf = new Uint32Array(blockCount);
  }

  get blockCount(): number {
    return this.#slotOf.length;
  }

  get dirtyCount(): number {
    return this.#dirtyCount;
  }

  extend(blockCount: number): void {
    assert(blockCount >= this.#slotOf.length, 'A metadata device does not shrink');
    const slotOf = new Uint32Array(blockCount);
    slotOf.set(this.#slotOf);
    this.#slotOf = slotOf;
  }

  /** The slot with the block's contents; null when they are not here. */
  find(number: number): Slot | null {
    const index = this.#slotOf[number]!;
    if (index === 0) return null;
    const slot = this.#slots[index - 1]!;
    return slot.number === number ? slot : null;
  }

  /** The block is here or is being prefetched. */
  isExpected(number: number): boolean {
    return this.#slotOf[number] !== 0;
  }

  /** Gives a free slot to a block. A prefetch of the same block that is under way is left without effect. */
  adopt(slot: Slot, number: number): void {
    const index = this.#slotOf[number]!;
    if (index !== 0) this.#slots[index - 1]!.reading = NOBODY;
    slot.reading = NOBODY;
    slot.number = number;
    this.#slotOf[number] = slot.index + 1;
  }

  /** The slot will have the block when its transfer is done. */
  expect(slot: Slot, number: number): void {
    slot.reading = number;
    this.#slotOf[number] = slot.index + 1;
  }

  /** Makes a slot free. */
  drop(slot: Slot): void {
    const number = slot.reading === NOBODY ? slot.number : slot.reading;
    this.#slotOf[number] = 0;
    slot.number = NOBODY;
    slot.reading = NOBODY;
    slot.validator = null;
    slot.judgedAs = null;
  }

  setDirty(slot: Slot, dirty: boolean): void {
    if (slot.dirty === dirty) return;
    slot.dirty = dirty;
    this.#dirtyCount += dirty ? 1 : -1;
  }

  pin(slot: Slot): void {
    assert(this.#pinCount < MAX_PINS, 'An operation holds too many metadata blocks');
    slot.pins++;
    slot.used = true;
    this.#pinned[this.#pinCount++] = slot;
  }

  mark(): number {
    return this.#pinCount;
  }

  release(mark: number): void {
    while (this.#pinCount > mark) this.#pinned[--this.#pinCount]!.pins--;
  }

  /**
   * A slot to be given to a block: free, or one that was not used for long, which may be dirty and then must be written before
   * `drop`. With `cleanOnly` never a dirty one. Null when there is none.
   */
  victim(cleanOnly: boolean): Slot | null {
    if (this.#slots.length < this.capacity) {
      const slot = new Slot(this.memory, this.#slots.length);
      this.#slots.push(slot);
      return slot;
    }
    let passedOver = 0;
    for (let step = 0; step < 3 * this.capacity; step++) {
      const slot = this.#slots[this.#hand]!;
      this.#hand = (this.#hand + 1) % this.capacity;
      if (slot.busy || slot.pins > 0) continue;
      if (slot.used) slot.used = false;
      else if (!slot.dirty) return slot;
      else if (!cleanOnly && (++passedOver > DIRTY_PASSED_OVER || step > 2 * this.capacity)) return slot;
    }
    return null;
  }

  /** A dirty slot that was not used for long; null when every one is pinned. */
  dirtyVictim(): Slot | null {
    const count = this.#slots.length;
    for (let step = 0; step < 2 * count; step++) {
      const slot = this.#slots[this.#hand % count]!;
      this.#hand = (this.#hand + 1) % this.capacity;
      if (!slot.dirty || slot.busy || slot.pins > 0) continue;
      if (!slot.used || step >= count) return slot;
      slot.used = false;
    }
    return null;
  }

  /** In the order of their place on the device. */
  dirtySlots(): Slot[] {
    return this.#slots.filter((slot) => slot.dirty).sort((a, b) => a.number - b.number);
  }

  /** Forgets every block, and every pin. Slots whose prefetch is under way are free when it has ended. */
  clear(): void {
    this.release(0);
    for (const slot of this.#slots) {
      if (slot.number !== NOBODY || slot.reading !== NOBODY) this.drop(slot);
      slot.dirty = false;
      slot.used = false;
    }
    this.#dirtyCount = 0;
  }
}
