import type { Clock, Timer } from '../base/clock.ts';
import type { Errno } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { IoQueue } from './io-queue.ts';
import type { PoolEvent, PoolMode } from './pool-mode.ts';
import type { ThinDevice } from './thin-device.ts';
import type { ThinIo } from './thin-io.ts';

export interface SpaceOptions {
  logger: Logger;
  clock: Clock;
  /** Free data blocks at which the administrator is told. */
  lowWaterBlocks: number;
  /** How long writes wait for data space before they fail; 0 is for ever. */
  noSpaceTimeoutMs: number;
  errorIfNoSpace: boolean;
  onEvent: (event: PoolEvent) => void;
}

/** What the pool's worker does for its space keeper. */
export interface SpaceOwner {
  readonly metadata: {
    readonly freeDataBlocks: number;
    readonly freeMetadataBlocks: number;
    readonly changed: boolean;
    readonly freed: { readonly count: number };
  };
  readonly reclaimer: { readonly busy: boolean };
  readonly commits: { request(): void };
  answer(io: ThinIo, error: Errno | null): void;
  /** Puts `io` into `waiting`, where it stays until there is space. */
  park(io: ThinIo, waiting: IoQueue): void;
  /** Begins with all of `waiting` again. */
  requeue(waiting: IoQueue): void;
}

/**
 * The pool's mode, and the requests that wait for space.
 *
 * ```
 *   write -- no free data block --> out-of-data-space -- blocks freed, pool grown --> write
 *         -- no free metadata block --> out-of-metadata-space -- metadata grown --> write
 *   any   -- a change of the metadata failed --> read-only;  -- and could not be undone --> fail
 * ```
 * Out of data space, writes that need a new block wait for `noSpaceTimeoutMs` and then fail; everything else goes on.
 */
export class PoolSpace {
  mode: PoolMode = 'write';
  /** Blocks are on their way back to the allocator: try again when they are there. */
  private readonly afterReclaim: IoQueue = new IoQueue();
  private readonly noSpace: IoQueue = new IoQueue();
  private readonly owner: SpaceOwner;
  private readonly options: SpaceOptions;
  private timer: Timer | null = null;
  private erroring: boolean;
  private lowWaterTold = false;

  constructor(owner: SpaceOwner, options: SpaceOptions) {
    this.owner = owner;
    this.options = options;
    this.erroring = options.errorIfNoSpace;
  }

  setMode(mode: PoolMode, reason: string): void {
    if (this.mode === mode || this.mode === 'fail') return;
    this.mode = mode;
    const { logger, onEvent } = this.options;
    if (mode === 'write') logger.info({ mode, reason }, 'pool mode');
    else logger.warn({ mode, reason }, 'pool mode');
    onEvent({ kind: 'mode', mode, reason });
  }

  /** Whether the mode lets `io` take new blocks; otherwise it has been answered or waits. */
  mayAllocate(io: ThinIo): boolean {
    switch (this.mode) {
      case 'write':
        return true;
      case 'out-of-data-space':
        if (this.erroring) this.owner.answer(io, 'ENOSPC');
        else this.owner.park(io, this.noSpace);
        return false;
      case 'out-of-metadata-space':
        this.owner.answer(io, 'ENOSPC');
        return false;
      default:
        this.owner.answer(io, 'EROFS');
        return false;
    }
  }

  /** There was no data block for `io`: it waits for what is being freed, or the pool is out of data space. */
  dataExhausted(io: ThinIo): void {
    const { metadata, reclaimer, commits } = this.owner;
    if (metadata.freed.count > 0) commits.request();
    if (metadata.freed.count > 0 || reclaimer.busy) {
      this.afterReclaim.push(io);
      return;
    }
    if (this.mode === 'write') {
      this.setMode('out-of-data-space', 'no free data block');
      const { clock, noSpaceTimeoutMs } = this.options;
      if (!this.erroring && noSpaceTimeoutMs > 0) this.timer = clock.setTimer(noSpaceTimeoutMs, () => this.timedOut());
    }
    this.mayAllocate(io);
  }

  /** There was no metadata block for `io`: a commit may give some back; if it does not, the pool is out of metadata space. */
  metadataExhausted(io: ThinIo): void {
    if (this.owner.metadata.changed && !io.triedCommit) {
      io.triedCommit = true;
      this.owner.commits.request();
      this.afterReclaim.push(io);
      return;
    }
    this.setMode('out-of-metadata-space', 'no free metadata block');
    this.mayAllocate(io);
  }

  /** Tells the administrator once, until there is more again. */
  checkLowWater(): void {
    const freeBlocks = this.owner.metadata.freeDataBlocks;
    const { lowWaterBlocks, logger, onEvent } = this.options;
    if (freeBlocks > lowWaterBlocks || this.lowWaterTold) return;
    this.lowWaterTold = true;
    logger.warn({ freeBlocks, lowWaterBlocks }, 'the pool reached its low-water mark');
    onEvent({ kind: 'low-water', freeBlocks, lowWaterBlocks });
  }

  /** Brings the mode in step with the free space: after commits, growth, and whenever blocks came back. */
  check(): void {
    const { metadata, reclaimer } = this.owner;
    if (!reclaimer.busy) this.owner.requeue(this.afterReclaim);
    if (this.mode === 'read-only' || this.mode === 'fail') return;
    if (metadata.freeDataBlocks > this.options.lowWaterBlocks) this.lowWaterTold = false;
    if (metadata.freeMetadataBlocks === 0) {
      this.setMode('out-of-metadata-space', 'no free metadata block');
      this.failWaiting();
      return;
    }
    const dataFreed = metadata.freeDataBlocks > 0 && !reclaimer.busy;
    if (this.mode === 'out-of-metadata-space' || (this.mode === 'out-of-data-space' && dataFreed)) {
      this.timer?.cancel();
      this.timer = null;
      this.erroring = this.options.errorIfNoSpace;
      this.setMode('write', 'space is free again');
      this.owner.requeue(this.noSpace);
    }
  }

  /** Some blocks came back, though not all that are on their way. */
  blocksReturned(): void {
    this.owner.requeue(this.afterReclaim);
    this.check();
  }

  /** Moves the requests for `device` that wait for space to `others`. */
  withdraw(device: ThinDevice, others: IoQueue): void {
    for (let left = this.noSpace.count; left > 0; left--) {
      const io = this.noSpace.shift()!;
      (io.device === device ? others : this.noSpace).push(io);
    }
  }

  /** Nobody waits for space any more: the pool stops or has become read-only. */
  wakeAll(): void {
    this.owner.requeue(this.afterReclaim);
    this.owner.requeue(this.noSpace);
  }

  /** From now on a request that finds no space is answered at once. */
  stop(): void {
    this.timer?.cancel();
    this.timer = null;
    this.erroring = true;
    this.failWaiting();
  }

  private timedOut(): void {
    this.timer = null;
    if (this.mode !== 'out-of-data-space') return;
    this.options.logger.error({ waiting: this.noSpace.count }, 'no data space came in time: writes that need it fail');
    this.erroring = true;
    this.failWaiting();
  }

  private failWaiting(): void {
    for (let io = this.noSpace.shift(); io !== null; io = this.noSpace.shift()) this.owner.answer(io, 'ENOSPC');
  }
}
