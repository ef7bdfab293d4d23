import type { Clock, Timer } from '../base/clock.ts';
import { type Errno, StorageError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { MIB } from '../base/units.ts';
import { Waiters } from '../base/waiters.ts';
import { MetadataSpaceError } from '../persistent-data/space-map.ts';
import { type CommitOwner, Committer } from './committer.ts';
import { IoQueue } from './io-queue.ts';
import type { PoolEngine } from './pool-engine.ts';
import type { ThinIo } from './thin-io.ts';

const COMMIT_PERIOD_MS = 1000;
const FAILURE_LOG_PERIOD_MS = 60_000;
/** So much data of new blocks is flushed ahead of the commit that maps them. Less takes the device a moment. */
const MUCH_NEW_DATA = 32 * MIB;
/** What is freed waits in memory for the commit, which comes before it is more than some megabytes. */
const MAX_FREED_RUNS = 262_144;

/**
 * When the pool commits, and who is told: flushes and writes with FUA that wait for it, requests that must not change the metadata
 * while it is written, administrators. A commit comes one second after a change, when somebody asks for a flush, when the cache fills with
 * changed blocks, and when one may free space.
 */
export class PoolCommits implements CommitOwner {
  private readonly engine: PoolEngine;
  private readonly clock: Clock;
  private readonly logger: Logger;
  private readonly committer: Committer;
  private readonly afterCommit: IoQueue = new IoQueue();
  private readonly waiters: Waiters = new Waiters();
  private readonly flushWaiters: Waiters = new Waiters();
  private readonly changes: (() => void)[] = [];
  /** Data blocks that the next commit maps, well counted. */
  private newBlocks = 0;
  private timer: Timer | null = null;
  private stopped = false;
  /** The data device has failed to flush. */
  private lostData = false;
  /** Who flushes all the time hears of each failure; the log does not. */
  private sayAgainMs = 0;

  constructor(engine: PoolEngine, clock: Clock, logger: Logger) {
    this.engine = engine;
    this.clock = clock;
    this.logger = logger;
    this.committer = new Committer(engine.metadata, engine.data, this);
  }

  /** The metadata is being written and must not change, or is about to be and should not. */
  get busy(): boolean {
    return this.committer.busy || (this.committer.flushingAhead && this.mustCommit);
  }

  /** New data blocks have been written and mapped. */
  blocksAdded(count: number): void {
    this.newBlocks += count;
  }

  /** Memory or the journal does not take many more changes. */
  private get mustCommit(): boolean {
    const { metadata, journal } = this.engine;
    return (
      metadata.dirtyBlocks * 2 > metadata.cacheBlocks ||
      metadata.runsUntilCommit > MAX_FREED_RUNS ||
      journal?.filling === true
    );
  }

  get stats(): Readonly<Committer['stats']> {
    return this.committer.stats;
  }

  /** `io` is answered when everything that is done now is durable. */
  flush(io: ThinIo): void {
    this.committer.waiting.push(io);
  }

  /** `io` begins again when the commit that is being written has ended. */
  wait(io: ThinIo): void {
    this.afterCommit.push(io);
  }

  /** Asks for a commit at the end of this turn. */
  request(): void {
    this.committer.request();
    this.engine.schedule();
  }

  /** The end of a turn: starts what is asked for, and sees to it that a change is not left alone. */
  kick(): void {
    const { metadata, blockSizeBytes } = this.engine;
    const { mustCommit } = this;
    if (mustCommit) this.committer.request();
    this.committer.kick(!mustCommit && this.newBlocks * blockSizeBytes >= MUCH_NEW_DATA);
    if (this.timer !== null || this.stopped || !metadata.changed || this.committer.busy) return;
    this.timer = this.clock.setTimer(COMMIT_PERIOD_MS, () => {
      this.timer = null;
      this.request();
    });
  }

  /** Resolves when the next commit has ended, well or not. */
  ended(): Promise<void> {
    return this.waiters.wait();
  }

  /** Commits what has changed, in the transactions of `generation`. Throws EIO when that failed. */
  async commit(generation: number = this.engine.generation): Promise<void> {
    const { engine } = this;
    if (engine.generation === generation) {
      // Nothing changes while a commit is being written: all that there is now is in that one, or else in the next. No commit after
      // it is waited for, as others may change something without end.
      if (!this.committer.busy) {
        if (!engine.metadata.changed) return;
        this.request();
      }
      await this.ended();
    }
    if (engine.generation !== generation) {
      throw new StorageError('EIO', 'Cannot commit: the transaction was aborted, see the log');
    }
  }

  /** Makes everything durable that is done now: data, and what has changed in the metadata. Throws EIO when that failed. */
  async flushAll(): Promise<void> {
    const { engine, committer } = this;
    const { generation } = engine;
    // One that has begun may not cover what was done since.
    const covering = committer.begun + 1;
    this.request();
    while (committer.ended < covering && engine.generation === generation) await this.flushWaiters.wait();
    if (engine.generation !== generation || committer.failed >= covering) {
      throw new StorageError('EIO', 'Cannot flush the pool: see the log');
    }
  }

  /** See `PoolEngine.mutate`. */
  async mutate<T>(change: () => T, inReserve: boolean, afterCommit: boolean): Promise<T> {
    const { engine } = this;
    let generation = 0;
    const result = await new Promise<T>((resolve, reject) => {
      const turn = (): void => {
        if (afterCommit && engine.metadata.changed && engine.space.mode !== 'fail') {
          this.changes.push(turn);
          this.request();
          return;
        }
        try {
          engine.space.requireChangeable(inReserve);
          resolve(this.tryChange(change));
          generation = engine.generation;
        } catch (error) {
          reject(error);
        }
      };
      this.whenQuiet(turn);
    });
    await this.commit(generation);
    return result;
  }

  /**
   * Runs `step`, which frees space, until it returns true, and whatever else is to be done between two of them; then commits. Throws what a
   * step throws; what the steps before have done stays.
   */
  async changeInSteps(step: () => boolean): Promise<void> {
    const { engine } = this;
    const takeStep = (): Promise<boolean> =>
      new Promise((resolve, reject) => {
        this.whenQuiet(() => {
          try {
            engine.space.requireChangeable(true);
            resolve(this.tryChange(step));
          } catch (error) {
            reject(error);
          }
        });
      });
    for (let done = false; !done; ) {
      try {
        done = await takeStep();
      } catch (error) {
        // What earlier steps have freed can be used after a commit.
        if (!(error instanceof MetadataSpaceError) || engine.metadata.mustAbort || !engine.metadata.changed)
          throw error;
        await this.commit();
      }
      engine.schedule();
      await new Promise<void>((resolve) => setImmediate(resolve));
    }
    await this.commit();
  }

  private tryChange<T>(change: () => T): T {
    try {
      return change();
    } catch (error) {
      // What is refused is for the caller alone to know.
      const isRefused = error instanceof StorageError && !(error instanceof MetadataSpaceError);
      if (!isRefused || this.engine.metadata.mustAbort) this.engine.changeFailed('Cannot change the metadata', error);
      throw error;
    }
  }

  /**
   * Runs `change`, which must not throw, when no commit is being written: now, or before the next one begins. A promise would come too late
   * where flushes queue up for the next commit.
   */
  whenQuiet(change: () => void): void {
    if (this.committer.busy) this.changes.push(change);
    else change();
  }

  /** Everybody who waits for a commit begins again. */
  wakeAll(): void {
    // First: a change that follows may wait for the commit that comes next.
    this.waiters.wake();
    this.flushWaiters.wake();
    for (const change of this.changes.splice(0)) change();
    this.engine.requeue(this.afterCommit);
  }

  /** No commit comes any more of its own accord; who waits for one begins again. */
  stop(): void {
    this.stopped = true;
    this.stopTimer();
    this.engine.requeue(this.committer.waiting);
    this.wakeAll();
  }

  private stopTimer(): void {
    this.timer?.cancel();
    this.timer = null;
  }

  commitStarted(): void {
    this.newBlocks = 0;
    this.stopTimer();
  }

  commitDone(flushed: IoQueue): void {
    const { engine } = this;
    engine.journal?.begin(engine.metadata.committedIdentity);
    engine.reclaimer.take(engine.metadata.freed);
    engine.reclaimer.run();
    engine.data.submit();
    this.answer(flushed, null);
    this.wakeAll();
    engine.space.check();
    engine.schedule();
  }

  commitFailed(flushed: IoQueue, error: Errno, action: string): void {
    this.engine.metadataFailed(action, error);
    this.answer(flushed, 'EIO');
  }

  dataFlushed(flushed: IoQueue, error: Errno | null): void {
    if (error !== null && this.clock.nowMs() >= this.sayAgainMs) {
      this.sayAgainMs = this.clock.nowMs() + FAILURE_LOG_PERIOD_MS;
      this.logger.error({ error }, 'the data device failed to flush');
    }
    this.answer(flushed, error === null ? null : 'EIO');
    this.flushWaiters.wake();
    this.engine.schedule();
  }

  dataLost(): void {
    // The next flush will go well: the system reports a failed write-back once, to whoever asks first, and forgets the data.
    this.lostData = true;
    this.engine.metadata.dataLost();
  }

  private answer(flushed: IoQueue, error: Errno | null): void {
    for (let io = flushed.shift(); io !== null; io = flushed.shift()) {
      const { thin } = io.device;
      // Acknowledged writes went with an aborted transaction or a failed flush: this answer is how the initiator learns of it.
      // Several may share a volume, and who asks first may not be who has lost something: where data was lost no flush goes well until the pool is opened again.
      const lost = error === null && thin.abortedWithChanges;
      if (lost && !this.lostData && this.engine.space.mode === 'write') thin.abortedWithChanges = false;
      this.engine.answer(io, lost ? 'EIO' : error);
    }
  }
}
