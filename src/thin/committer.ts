import type { Errno } from '../base/errors.ts';
import { errnoOf } from '../base/errors.ts';
import type { BlockDevice, IoCompletion } from '../block/block-device.ts';
import { IoQueue } from './io-queue.ts';
import type { PoolMetadata } from './pool-metadata.ts';

/** What the pool does around a commit. */
export interface CommitOwner {
  /** The metadata is about to be written; after this call nothing changes it until one of the two calls below. */
  commitStarted(): void;
  /** The transaction is durable; `flushed` are those who asked for it. */
  commitDone(flushed: IoQueue): void;
  /** It is not: the owner aborts the transaction. `flushed` are those who asked for it. */
  commitFailed(flushed: IoQueue, error: Errno, action: string): void;
  /** Nothing had changed; the data device was flushed, or failed to. */
  dataFlushed(flushed: IoQueue, error: Errno | null): void;
  /** The data device has failed to flush: what any thin device has written since the flush before may be gone. One of the calls above follows. */
  dataLost(): void;
}

const Step = { IDLE: 0, AHEAD: 1, DATA_ONLY: 2, BLOCKS: 3, SUPERBLOCK: 4 } as const;
type Step = (typeof Step)[keyof typeof Step];

const DATA_FAILED = 'Cannot flush the data device';

/**
 * Group commit: everyone who asks for a flush while one is under way shares the next one.
 *
 * ```
 *   much new data: data flush ---- data flush      --------\
 *                                                           >--- superblock, flush --- done
 *                                  metadata blocks, flush -/
 *   metadata may change            and may not
 * ```
 * New data may be more than the device takes in a moment, and who needs a new block would wait for it. So it is flushed once ahead, and the flush that counts
 * finds only what has come since.
 *
 * The superblock is written only when both the data that new mappings point to and the blocks it refers to are durable.
 */
export class Committer implements IoCompletion {
  private readonly metadata: PoolMetadata;
  private readonly data: BlockDevice;
  private readonly owner: CommitOwner;
  /** Those who wait for the next flush: everything that is done when they are pushed is durable when they are answered. */
  readonly waiting: IoQueue = new IoQueue();
  private readonly current: IoQueue = new IoQueue();
  private step: Step = Step.IDLE;
  private pending = 0;
  private error: Errno | null = null;
  private dataError: Errno | null = null;
  /** Its end of a flush, told from that of the metadata's writes. */
  private readonly dataFlush: IoCompletion = {
    ioDone: (error) => {
      this.dataError = error;
      this.ioDone(error);
    },
  };
  private readonly aheadFlush: IoCompletion = { ioDone: (error) => this.flushedAhead(error) };
  private wanted = false;
  /** Flushes that were started, and those of them that have ended, well or not: both with a commit or without one. */
  begun = 0;
  ended = 0;
  /** The last of them that failed. */
  failed = 0;
  /** Commits and flushes done, for status and tests. */
  readonly stats: { commits: number; flushes: number } = { commits: 0, flushes: 0 };

  constructor(metadata: PoolMetadata, data: BlockDevice, owner: CommitOwner) {
    this.metadata = metadata;
    this.data = data;
    this.owner = owner;
  }

  /** The metadata is being written and must not change. */
  get busy(): boolean {
    return this.step === Step.BLOCKS || this.step === Step.SUPERBLOCK;
  }

  /** A commit is about to begin, and changes of the metadata will be in it. */
  get flushingAhead(): boolean {
    return this.step === Step.AHEAD;
  }

  get idle(): boolean {
    return this.step === Step.IDLE && this.waiting.count === 0 && !this.wanted;
  }

  /** Asks for a commit though nobody waits for it. */
  request(): void {
    this.wanted = true;
  }

  /** Starts the next flush where one is asked for and none is under way. `ahead`: a commit flushes the data once before. */
  kick(ahead: boolean): void {
    if (this.step !== Step.IDLE || (this.waiting.count === 0 && !this.wanted)) return;
    if (ahead && this.metadata.changed) {
      this.step = Step.AHEAD;
      this.data.flush(this.aheadFlush);
      this.data.submit();
    } else this.start();
  }

  private flushedAhead(error: Errno | null): void {
    this.step = Step.IDLE;
    if (error === null) {
      this.start();
      return;
    }
    this.take();
    this.error = error;
    this.owner.dataLost();
    if (this.metadata.changed) this.fail(DATA_FAILED);
    else this.endDataOnly();
  }

  /** Everybody who waits now is told of the flush that begins. */
  private take(): void {
    this.wanted = false;
    this.begun++;
    this.current.append(this.waiting);
    this.error = null;
    this.dataError = null;
  }

  private start(): void {
    this.take();
    if (!this.metadata.changed) {
      this.step = Step.DATA_ONLY;
      this.pending = 1;
      this.data.flush(this.dataFlush);
      this.data.submit();
      return;
    }
    this.owner.commitStarted();
    try {
      this.metadata.prepareCommit();
    } catch (error) {
      this.hasEnded(errnoOf(error));
      this.owner.commitFailed(this.current, errnoOf(error), 'Cannot prepare the commit');
      return;
    }
    this.step = Step.BLOCKS;
    this.pending = 2;
    this.data.flush(this.dataFlush);
    this.data.submit();
    this.metadata.writeBlocks(this);
  }

  ioDone(error: Errno | null): void {
    if (error !== null && this.error === null) this.error = error;
    if (--this.pending > 0) return;
    if (this.dataError !== null) this.owner.dataLost();
    switch (this.step) {
      case Step.DATA_ONLY:
        this.endDataOnly();
        break;
      case Step.BLOCKS:
        if (this.error !== null) {
          this.fail(this.dataError === null ? 'Cannot write the metadata' : DATA_FAILED);
          break;
        }
        this.step = Step.SUPERBLOCK;
        this.pending = 1;
        this.metadata.writeSuperblock(this);
        break;
      default:
        if (this.error !== null) {
          this.fail('Cannot write the superblock');
          break;
        }
        this.hasEnded(null);
        this.stats.commits++;
        this.owner.commitDone(this.current);
    }
  }

  private endDataOnly(): void {
    this.hasEnded(this.error);
    this.stats.flushes++;
    this.owner.dataFlushed(this.current, this.error);
  }

  private hasEnded(error: Errno | null): void {
    this.step = Step.IDLE;
    this.ended++;
    if (error !== null) this.failed = this.ended;
  }

  private fail(action: string): void {
    this.hasEnded(this.error);
    this.owner.commitFailed(this.current, this.error!, action);
  }
}
