import type { Errno } from '../base/errors.ts';
import type { RunSet } from '../base/run-set.ts';
import type { BlockDevice, IoCompletion } from '../block/block-device.ts';
import type { DeferredSet } from './deferred-set.ts';

/** Discards under way at a time. */
const MAX_DISCARDS = 32;

/** The runs that one commit freed, on their way back to the allocator. */
class Batch {
  readonly epoch: number;
  readonly begins: number[] = [];
  readonly ends: number[] = [];
  /** Discarded even if freed blocks are not. */
  readonly isTrim: boolean;
  nextRun = 0;
  done = 0;
  failed = 0;

  constructor(epoch: number, isTrim: boolean) {
    this.epoch = epoch;
    this.isTrim = isTrim;
  }
}

/** Free blocks that are being discarded. */
export interface Trim {
  readonly begins: readonly number[];
  /** Of the runs: equal to their count when it has ended. */
  readonly done: number;
  readonly failed: number;
}

class DiscardSlot implements IoCompletion {
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
 * Takes freed data blocks from the commit that freed them to the allocator. On the way they are in quarantine (`discarding`, which the
 * allocator leaves alone) until two things have happened: every I/O that had started before the commit has ended, because a late read or
 * write of the old owner may still be on its way to them; and the range has been passed down as a discard, because a discard must not
 * meet the data of the next owner. The discard comes after the commit: a crash before it brings the mapping back, so the data
 * must still be there.
 */
export class Reclaimer {
  private readonly device: BlockDevice;
  private readonly blockSizeBytes: number;
  private readonly deferred: DeferredSet;
  private readonly quarantine: RunSet;
  private readonly onReleased: () => void;
  private readonly batches: Batch[] = [];
  private readonly slots: DiscardSlot[] = [];
  #passdown = false;
  readonly stats: { discards: number; discardedBlocks: number; failedDiscards: number } = {
    discards: 0,
    discardedBlocks: 0,
    failedDiscards: 0,
  };

  /** `quarantine` is the set that the allocator leaves alone; `onReleased` is told whenever it became smaller. */
  constructor(
    device: BlockDevice,
    blockSizeBytes: number,
    deferred: DeferredSet,
    quarantine: RunSet,
    passdown: boolean,
    onReleased: () => void,
  ) {
    this.device = device;
    this.blockSizeBytes = blockSizeBytes;
    this.deferred = deferred;
    this.quarantine = quarantine;
    this.onReleased = onReleased;
    this.setPassdown(passdown);
    for (let i = 0; i < MAX_DISCARDS; i++) this.slots.push(new DiscardSlot(this));
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
    const batch = new Batch(this.deferred.close(), false);
    freed.forEach((begin, end) => {
      batch.begins.push(begin);
      batch.ends.push(end);
    });
    this.quarantine.takeAll(freed);
    this.batches.push(batch);
  }

  /** Takes free blocks away from the allocator and discards them; `run` comes next. */
  trim(runs: readonly { begin: number; end: number }[]): Trim {
    const batch = new Batch(this.deferred.close(), true);
    for (const { begin, end } of runs) {
      batch.begins.push(begin);
      batch.ends.push(end);
      this.quarantine.add(begin, end);
    }
    this.batches.push(batch);
    return batch;
  }

  /** Goes on with what can go on; the caller submits the device. */
  run(): void {
    let released = false;
    for (;;) {
      const batch = this.batches[0];
      if (batch === undefined || !this.deferred.drained(batch.epoch)) break;
      if (this.#passdown || batch.isTrim) {
        while (batch.nextRun < batch.begins.length && this.slots.length > 0) this.discard(batch);
      } else {
        while (batch.nextRun < batch.begins.length) {
          this.quarantine.remove(batch.begins[batch.nextRun]!, batch.ends[batch.nextRun]!);
          batch.nextRun++;
          batch.done++;
          released = true;
        }
      }
      if (batch.done < batch.begins.length) break;
      this.batches.shift();
    }
    if (released) this.onReleased();
  }

  private discard(batch: Batch): void {
    const slot = this.slots.pop()!;
    slot.begin = batch.begins[batch.nextRun]!;
    slot.end = batch.ends[batch.nextRun]!;
    batch.nextRun++;
    this.stats.discards++;
    this.stats.discardedBlocks += slot.end - slot.begin;
    this.device.discard(slot.begin * this.blockSizeBytes, (slot.end - slot.begin) * this.blockSizeBytes, slot);
  }

  /** For `DiscardSlot` only. A discard is a favour: that it failed is counted, and the blocks are free all the same. */
  discardDone(slot: DiscardSlot, error: Errno | null): void {
    if (error !== null) {
      this.stats.failedDiscards++;
      this.batches[0]!.failed++;
    }
    this.quarantine.remove(slot.begin, slot.end);
    this.slots.push(slot);
    this.batches[0]!.done++;
    this.run();
    this.device.submit();
    this.onReleased();
  }
}
