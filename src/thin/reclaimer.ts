import type { Errno } from '../base/errors.ts';
import { RunSet } from '../base/run-set.ts';
import type { BlockDevice, IoCompletion } from '../block/block-device.ts';
import type { DeferredSet } from './deferred-set.ts';

/** Discards under way at a time. */
const MAX_DISCARDS = 32;

/** A commit that freed no more than so many runs may leave them to the batch of an earlier one. */
const FEW_RUNS = 2048;

/** What one commit freed, or a few of them, on its way back to the allocator. */
class Batch {
  epoch: number;
  /** Discarded even if freed blocks are not. */
  readonly isTrim: boolean;
  /** What is not back yet. A set of its own, which a commit that freed hundreds of thousands of runs hands over at no cost. */
  readonly runs: RunSet = new RunSet();
  /** Where the next discard is looked for; infinite when all have begun. */
  next = 0;
  pending = 0;
  failed = 0;
  ended = false;

  constructor(epoch: number, isTrim: boolean) {
    this.epoch = epoch;
    this.isTrim = isTrim;
  }
}

/** Free blocks that are being discarded. */
export interface Trim {
  readonly ended: boolean;
  /** Discards that failed. */
  readonly failed: number;
}

class DiscardSlot implements IoCompletion {
  active = false;
  begin = 0;
  end = 0;
  private readonly reclaimer: Reclaimer;

  constructor(reclaimer: Reclaimer) {
    this.reclaimer = reclaimer;
  }

  ioDone(error: Errno | null): void {
    this.reclaimer.discardDone(this, error);
  }
}

/**
 * Takes freed data blocks from the commit that freed them to the allocator. On the way they are in quarantine (a set among `withheld`, which the
 * allocator leaves alone) until two things have happened: every I/O that had started before the commit has ended, because a late read or
 * write of the old owner may still be on its way to them; and the range has been passed down as a discard, because a discard must not
 * meet the data of the next owner. The discard comes after the commit: a crash before it brings the mapping back, so the data
 * must still be there.
 */
export class Reclaimer {
  private readonly device: BlockDevice;
  private readonly blockSizeBytes: number;
  private readonly deferred: DeferredSet;
  private readonly withheld: RunSet[];
  private readonly onReleased: () => void;
  private readonly batches: Batch[] = [];
  private readonly slots: DiscardSlot[] = [];
  private readonly freeSlots: DiscardSlot[] = [];
  #passdown = false;
  readonly stats: { discards: number; discardedBlocks: number; failedDiscards: number } = {
    discards: 0,
    discardedBlocks: 0,
    failedDiscards: 0,
  };

  /** `withheld` are the sets that the allocator leaves alone; `onReleased` is told whenever something came back. */
  constructor(
    device: BlockDevice,
    blockSizeBytes: number,
    deferred: DeferredSet,
    withheld: RunSet[],
    passdown: boolean,
    onReleased: () => void,
  ) {
    this.device = device;
    this.blockSizeBytes = blockSizeBytes;
    this.deferred = deferred;
    this.withheld = withheld;
    this.onReleased = onReleased;
    this.setPassdown(passdown);
    for (let i = 0; i < MAX_DISCARDS; i++) this.slots.push(new DiscardSlot(this));
    this.freeSlots.push(...this.slots);
  }

  /** False: the blocks are only unmapped, because it was not asked for or because the device cannot discard whole blocks. */
  get passdown(): boolean {
    return this.#passdown;
  }

  setPassdown(passdown: boolean): void {
    this.#passdown = passdown && this.canDiscard;
  }

  /** The device can discard whole blocks. */
  get canDiscard(): boolean {
    const { discardGranularityBytes } = this.device;
    return discardGranularityBytes > 0 && this.blockSizeBytes % discardGranularityBytes === 0;
  }

  /** Blocks are on their way back. */
  get busy(): boolean {
    return this.batches.length !== 0;
  }

  /** Takes the runs that the commit just made free, and empties `freed`. */
  take(freed: RunSet): void {
    if (freed.count === 0) return;
    const epoch = this.deferred.close();
    const last = this.batches.at(-1);
    // Not that of the first, which may begin: under a stream of commits it never would.
    if (freed.runCount <= FEW_RUNS && this.batches.length > 1 && !last!.isTrim) last!.epoch = epoch;
    else this.begin(new Batch(epoch, false));
    this.batches.at(-1)!.runs.takeAll(freed);
  }

  /** Takes free blocks away from the allocator and discards them; `run` comes next. */
  trim(runs: readonly { begin: number; end: number }[]): Trim {
    const batch = this.begin(new Batch(this.deferred.close(), true));
    for (const { begin, end } of runs) batch.runs.add(begin, end);
    return batch;
  }

  private begin(batch: Batch): Batch {
    this.batches.push(batch);
    this.withheld.push(batch.runs);
    return batch;
  }

  /** Goes on with what can go on; the caller submits the device. */
  run(): void {
    let released = false;
    for (;;) {
      const batch = this.batches[0];
      if (batch === undefined || !this.deferred.drained(batch.epoch)) break;
      if (this.#passdown || batch.isTrim) {
        while (this.freeSlots.length > 0 && this.discard(batch)) {}
      } else if (batch.next < Infinity) {
        // Those stay for which a discard is under way from before.
        batch.runs.clear();
        for (const { active, begin, end } of this.slots) if (active) batch.runs.add(begin, end);
        batch.next = Infinity;
        released = true;
      }
      if (batch.pending > 0 || batch.next < Infinity) break;
      batch.ended = true;
      this.batches.shift();
      this.withheld.splice(this.withheld.indexOf(batch.runs), 1);
    }
    if (released) this.onReleased();
  }

  /** Begins the next discard of the batch; false when there is none left. */
  private discard(batch: Batch): boolean {
    const begin = batch.runs.nextInside(batch.next);
    batch.next = begin;
    if (begin === Infinity) return false;
    const slot = this.freeSlots.pop()!;
    slot.active = true;
    slot.begin = begin;
    slot.end = batch.runs.nextOutside(begin);
    batch.next = slot.end;
    batch.pending++;
    this.stats.discards++;
    this.stats.discardedBlocks += slot.end - slot.begin;
    this.device.discard(slot.begin * this.blockSizeBytes, (slot.end - slot.begin) * this.blockSizeBytes, slot);
    return true;
  }

  /** For `DiscardSlot` only. A discard is a favour: that it failed is counted, and the blocks are free all the same. */
  discardDone(slot: DiscardSlot, error: Errno | null): void {
    const batch = this.batches[0]!;
    if (error !== null) {
      this.stats.failedDiscards++;
      batch.failed++;
    }
    batch.runs.remove(slot.begin, slot.end);
    slot.active = false;
    this.freeSlots.push(slot);
    batch.pending--;
    this.run();
    this.device.submit();
    this.onReleased();
  }
}
