import { assert } from '../base/assert.ts';
import { StorageError } from '../base/errors.ts';
import type { RunSet } from '../base/run-set.ts';
import { BLOCK_TIME_WORDS, TIME_LIMIT, writeBlockTime, writeTime } from './block-time.ts';
import type { PoolTransaction } from './pool-transaction.ts';
import { lookupRun, RunResult } from './run-lookup.ts';
import { SharedBlocks } from './shared-blocks.ts';
import type { ThinDevices } from './thin-devices.ts';
import type { ThinMetadata } from './thin-metadata.ts';

/** As many mappings as go into a leaf. */
const CHUNK = 252;

/** `[begin, end)` of `target` is to be mapped as the range at `sourceBegin` of `source`, another device. */
export interface SharedRange {
  source: ThinMetadata;
  sourceBegin: number;
  target: ThinMetadata;
  begin: number;
  end: number;
  /** The source's tree stays as it is: somebody reads it past the cache. Costs the pool one of its times, where the source has mappings since its last snapshot. */
  keepsSource: boolean;
  /** Blocks that the target has already are not looked for: it was done when this was done first. */
  isReplay?: boolean;
}

/**
 * Maps blocks of one device to the data blocks of another one, as a copy that moves no data.
 *
 * Whether a block is shared is read from times, by the kernel from nothing else: it is if its mapping is older than the last snapshot of its
 * device. So of both mappings that is made true, without a snapshot: a mapping may always be older than it is. It is what every mapping of the
 * source gets that is younger, and what the new mappings have from the beginning. Only a device that was never snapshotted and is as old as
 * the pool has no time before its last snapshot: time 1 becomes that of its last snapshot. No other block is taken for a shared one by this.
 *
 * No device maps a data block twice: see `SharedBlocks`.
 *
 * What is shared in a transaction counts as shared until its commit, whatever the reference counts say (`RunSet` of data blocks): the last commit had
 * the one reference elsewhere, and a process that is killed comes back to any moment between.
 */
export class RangeSharing {
  readonly #transaction: PoolTransaction;
  readonly #devices: ThinDevices;
  readonly #shared: RunSet;
  readonly #run: RunResult = new RunResult();
  readonly #there: RunResult = new RunResult();
  readonly #values: Uint32Array = new Uint32Array(BLOCK_TIME_WORDS * CHUNK);
  #olderTime = 0;
  readonly #makeOlder = (words: Uint32Array, at: number): void => writeTime(words, at, this.#olderTime);

  constructor(transaction: PoolTransaction, devices: ThinDevices, shared: RunSet) {
    this.#transaction = transaction;
    this.#devices = devices;
    this.#shared = shared;
  }

  /**
   * Does at most `limit` mappings of the range; there is room. `unmap` drops at most so many mappings of a part of the target and returns where to
   * go on. Returns where to go on, `end` when all is done. What it throws at the first mapping has changed nothing.
   */
  share(range: SharedRange, limit: number, unmap: (begin: number, end: number, limit: number) => number): number {
    const { source, sourceBegin, target, begin, end } = range;
    const run = this.#run;
    const { mappings } = this.#transaction.trees;
    let at = begin;
    for (let left = limit; at < end && left > 0; ) {
      try {
        const from = sourceBegin + (at - begin);
        lookupRun(mappings, source, from, from + (end - at), run, false);
        if (run.mapped && !run.shared && this.#makeRoomForTime(range)) continue;
        let length = Math.min(run.end - from, run.mapped ? left : Number.POSITIVE_INFINITY);
        const same = run.mapped ? this.#sameLength(target, at, length) : 0;
        if (same > 0) {
          at += same;
          left--;
        } else if (run.mapped) {
          if (range.isReplay !== true) length = this.#newLength(target, length);
          this.#transaction.change(() => this.#shareRun(range, from, at, length));
          at += length;
          left -= length;
        } else {
          const { mappedBlocks } = target;
          at = unmap(at, at + length, left);
          left -= Math.max(1, mappedBlocks - target.mappedBlocks);
        }
      } catch (error) {
        // What is done is whole, and is noted by who asked for it.
        if (this.#transaction.mustAbort || at === begin) throw error;
        break;
      }
    }
    return at;
  }

  /** How many of `length` blocks from `at` on the target has where they are to be. */
  #sameLength(target: ThinMetadata, at: number, length: number): number {
    const there = this.#there;
    lookupRun(this.#transaction.trees.mappings, target, at, at + length, there, false);
    return there.mapped && there.dataBlock === this.#run.dataBlock ? there.end - at : 0;
  }

  /** How many of `length` blocks the target has nowhere. EEXIST: not the first one. */
  #newLength(target: ThinMetadata, length: number): number {
    const { dataBlock } = this.#run;
    const known = target.sharedBlocks;
    assert(known?.isComplete === true, 'what the target shares is known');
    const taken = known.isTooMuch ? dataBlock : known.blocks.nextInside(dataBlock);
    if (taken > dataBlock) return Math.min(length, taken - dataBlock);
    throw new StorageError(
      'EEXIST',
      `Cannot share data block ${dataBlock}: thin device ${target.id} may have it already`,
    );
  }

  /** Looks through a part of what a device shares: `runs` runs of mappings. Returns whether all of it is known then. */
  learnShared(target: ThinMetadata, runs: number): boolean {
    const { mappings } = this.#transaction.trees;
    if (target.snapshottedTime === 0) this.#snapshotted(target, 1);
    if (target.sharedBlocks === null || !target.sharedBlocks.isOf(target))
      target.sharedBlocks = new SharedBlocks(target);
    const known = target.sharedBlocks;
    if (!known.isComplete) known.search(mappings, target, mappings.highestKey(target.root) + 1, runs, this.#run);
    return known.isComplete;
  }

  /** Sees to it that a mapping of each device can be older than its last snapshot. True: what is known of the source may not be so any more. */
  #makeRoomForTime({ source, keepsSource }: SharedRange): boolean {
    if (keepsSource) {
      const time = this.#transaction.superblock.time + 1;
      if (time >= TIME_LIMIT) {
        throw new StorageError(
          'ERANGE',
          `Cannot share blocks of thin device ${source.id}: the pool's times are used up`,
        );
      }
      this.#snapshotted(source, time);
      return true;
    }
    if (source.snapshottedTime > 0) return false;
    this.#snapshotted(source, 1);
    return true;
  }

  #snapshotted(thin: ThinMetadata, time: number): void {
    const { superblock } = this.#transaction;
    superblock.time = Math.max(superblock.time, time);
    thin.snapshottedTime = time;
    this.#devices.markChanged(thin);
  }

  /** `[from, +length)` of the source is mapped to consecutive data blocks. */
  #shareRun({ source, target }: SharedRange, from: number, at: number, length: number): void {
    const { mappings } = this.#transaction.trees;
    const { dataBlock, shared } = this.#run;
    if (!shared) {
      this.#olderTime = source.snapshottedTime - 1;
      this.#devices.beginTreeChange(source, from, from + length);
      this.#devices.endTreeChange(source, mappings.update(source.root, from, from + length, this.#makeOlder));
      source.sharedBlocks?.add(dataBlock, dataBlock + length);
    }
    if (target.snapshottedTime === 0) this.#snapshotted(target, 1);
    const time = target.snapshottedTime - 1;
    for (let done = 0; done < length; ) {
      const count = Math.min(length - done, CHUNK);
      for (let i = 0; i < count; i++) writeBlockTime(this.#values, BLOCK_TIME_WORDS * i, dataBlock + done + i, time);
      this.#devices.beginTreeChange(target, at + done, at + done + count);
      this.#devices.endTreeChange(target, mappings.insertRun(target.root, at + done, this.#values, count));
      target.mappedBlocks += mappings.insertedCount;
      if (mappings.insertedCount < mappings.setCount) target.mappingsDropped();
      done += mappings.setCount;
    }
    target.sharedBlocks?.add(dataBlock, dataBlock + length);
    this.#shared.add(dataBlock, dataBlock + length);
  }
}
