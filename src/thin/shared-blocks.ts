import { RunSet } from '../base/run-set.ts';
import type { BTree } from '../persistent-data/btree.ts';
import { lookupRun, type RunResult } from './run-lookup.ts';
import type { ThinMetadata } from './thin-metadata.ts';

/** Mappings of a device, and runs of data blocks, beyond which it is not looked through: seconds, and 16 MiB. */
const MAX_MAPPINGS = 4 * 1024 * 1024;
const MAX_RUNS = 1024 * 1024;
/** Mappings are looked at in the time that it takes to move what is moved instead of being shared. */
const SEARCH_WORTH = 16_000;

/**
 * The data blocks that a device shares with others, as far as time tells: all of them, and perhaps some that it does not map any more.
 *
 * A device must not map a data block twice: when the kernel breaks sharing, whatever of the *device* waits for that block goes to the one new block, wherever in the device
 * it was to go. Every block that another device maps, too, is older than the last snapshot of this one. So who looks through those mappings once, and
 * adds what is shared later, knows which blocks it must not get again. A snapshot makes all mappings older, and this void.
 */
export class SharedBlocks {
  readonly blocks: RunSet = new RunSet();
  /** Mappings have been dropped since: not all of them may be there any more. */
  isStale = false;
  readonly #snapshottedTime: number;
  /** Where the search goes on; infinite when it has ended. */
  #next = 0;
  #isTooMuch: boolean;
  #hits = 0;

  constructor(thin: ThinMetadata) {
    this.#snapshottedTime = thin.snapshottedTime;
    this.#isTooMuch = thin.mappedBlocks > MAX_MAPPINGS;
  }

  isOf(thin: ThinMetadata): boolean {
    return this.#snapshottedTime === thin.snapshottedTime;
  }

  get isComplete(): boolean {
    return this.#isTooMuch || this.#next === Number.POSITIVE_INFINITY;
  }

  /** Too much to be known: every block may be one. */
  get isTooMuch(): boolean {
    return this.#isTooMuch;
  }

  /** The virtual block from which on mappings have not been looked at. */
  get next(): number {
    return this.#next;
  }

  /** A block could not be shared. True when it is worth another search: when that may find less, and costs less than to move what was found. */
  hit(thin: ThinMetadata): boolean {
    this.#hits++;
    return this.isStale && !this.#isTooMuch && this.#hits * SEARCH_WORTH > thin.mappedBlocks;
  }

  add(begin: number, end: number): void {
    this.blocks.add(begin, end);
    this.#checkSize();
  }

  /** Looks through as many runs of mappings. */
  search(mappings: BTree, thin: ThinMetadata, end: number, runs: number, run: RunResult): void {
    for (let i = 0; i < runs && this.#next < end; i++) {
      lookupRun(mappings, thin, this.#next, end, run, false);
      if (run.mapped && run.shared) this.blocks.add(run.dataBlock, run.dataBlock + run.end - this.#next);
      this.#next = run.end;
    }
    if (this.#next >= end) this.#next = Number.POSITIVE_INFINITY;
    this.#checkSize();
  }

  #checkSize(): void {
    if (this.blocks.runCount <= MAX_RUNS) return;
    this.#isTooMuch = true;
    this.blocks.clear();
  }
}
