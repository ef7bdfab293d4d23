import { availableParallelism } from 'node:os';
import { KIB } from '../base/units.ts';

/** From here on the copy out of the page cache takes longer than handing it to another thread: 8 us for 64 KiB. */
export const LONG_READ_SIZE: number = 64 * KIB;

/**
 * Which long reads of a batch a thread of the kernel does aside, while the event loop itself does the others: the first half, as long as they are a matter of copying. One
 * that the page cache does not have waits in the ring without a thread, so none is done aside after a batch with such a one; nor where there is one processor.
 */
export class LongReads {
  readonly #parallel: boolean;
  /** 1 for the slots of those that this batch does itself. */
  readonly #own: Uint8Array;
  readonly #slots: Int32Array;
  #count = 0;
  /** All of the last batch that had any were done when the call returned. */
  #cached = false;

  constructor(slotCount: number, parallel: boolean = availableParallelism() > 1) {
    this.#parallel = parallel;
    this.#own = new Uint8Array(slotCount);
    this.#slots = new Int32Array(slotCount);
  }

  /** Of so many requests, in their order: how many may be done aside. */
  aside(requestCount: number): number {
    return this.#cached && this.#parallel ? requestCount >> 1 : 0;
  }

  /** One that is not done aside is in the batch. */
  begin(slot: number): void {
    this.#own[slot] = 1;
    this.#slots[this.#count++] = slot;
  }

  /** The batch was started; `results` has `pairs` pairs (slot, result) of what is done. */
  settle(results: Int32Array, pairs: number): void {
    if (this.#count === 0) return;
    let done = 0;
    for (let i = 0; i < pairs; i++) done += this.#own[results[2 * i]!]!;
    this.#cached = done === this.#count;
    for (let i = 0; i < this.#count; i++) this.#own[this.#slots[i]!] = 0;
    this.#count = 0;
  }
}
