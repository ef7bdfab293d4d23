import type { Clock, Timer } from '../base/clock.ts';
import { type Errno, StorageError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { LunOp, type LunRequest } from '../block/lun-backend.ts';
import { IoQueue } from './io-queue.ts';
import type { PoolEvent, PoolMode } from './pool-mode.ts';
import type { ThinDevice } from './thin-device.ts';
import type { ThinIo } from './thin-io.ts';

/** What may be set anew while the pool is in use. */
export interface SpaceSettings {
  /** Free data blocks at which the administrator is told. */
  lowWaterBlocks: number;
  /** How long writes wait for data space before they fail; 0 is for ever. */
  noSpaceTimeoutMs: number;
  errorIfNoSpace: boolean;
  /** The metadata is not to change. */
  readOnly: boolean;
}

export interface SpaceOptions extends SpaceSettings {
  logger: Logger;
  clock: Clock;
  onEvent: (event: PoolEvent) => void;
}

/** What the pool's worker does for its space keeper. */
export interface SpaceOwner {
  readonly metadata: {
    readonly freeDataBlocks: number;
    readonly freeMetadataBlocks: number;
    readonly freeMetadataBlocksWithReserve: number;
    readonly metadataLowThresholdBlocks: number;
    readonly changed: boolean;
    readonly needsCheck: boolean;
    readonly readOnly: boolean;
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
 *   write -- no free data block --> out-of-data-space -- blocks freed, pool grown, options set --> write
 *         -- no free metadata block --> out-of-metadata-space -- metadata freed or grown --> write
 *         -- asked for --> read-only -- taken back --> write
 *   any   -- a change of the metadata failed --> read-only, until the metadata has been checked
 *         -- and could not be undone --> fail, for ever
 * ```
 * Out of data space, writes that need a new block wait for `noSpaceTimeoutMs` and then fail; everything else goes on. Out of metadata space
 * they fail at once; what frees space goes on, within the reserve.
 */
export class PoolSpace {
  mode: PoolMode = 'write';
  /** Writes that find no space are answered at once: because they are to be, or because nothing came in time. */
  failsWhenFull: boolean;
  /** Blocks are on their way back to the allocator: try again when they are there. */
  private readonly afterReclaim: IoQueue = new IoQueue();
  private readonly noSpace: IoQueue = new IoQueue();
  private readonly owner: SpaceOwner;
  private readonly logger: Logger;
  private readonly clock: Clock;
  private readonly onEvent: (event: PoolEvent) => void;
  private settings: SpaceSettings;
  private timer: Timer | null = null;
  private stopped = false;
  private lowWaterTold = false;
  private metadataLowTold = false;

  constructor(owner: SpaceOwner, options: SpaceOptions) {
    this.owner = owner;
    this.logger = options.logger;
    this.clock = options.clock;
    this.onEvent = options.onEvent;
    this.settings = options;
    this.failsWhenFull = options.errorIfNoSpace;
  }

  get lowWaterBlocks(): number {
    return this.settings.lowWaterBlocks;
  }

  /** Free data blocks are at the low-water mark or below. */
  get dataIsLow(): boolean {
    return this.owner.metadata.freeDataBlocks <= this.settings.lowWaterBlocks;
  }

  /** Free metadata blocks are at the threshold or below. */
  get metadataIsLow(): boolean {
    const { metadata } = this.owner;
    return metadata.freeMetadataBlocksWithReserve <= metadata.metadataLowThresholdBlocks;
  }

  /**
   * New settings, or a pool that has grown: what the kernel does when a table is loaded and resumed. A pool that was out of space is one that
   * can be written until the next allocation finds that it is not.
   */
  configure(settings: SpaceSettings): void {
    this.settings = settings;
    this.lowWaterTold = false;
    this.metadataLowTold = false;
    this.failsWhenFull = settings.errorIfNoSpace || this.stopped;
    if (this.mode === 'fail') return;
    const { needsCheck, readOnly } = this.owner.metadata;
    if (needsCheck) this.setMode('read-only', 'the metadata is marked needs_check');
    else if (readOnly) this.setMode('read-only', 'opened read-only');
    else if (settings.readOnly) this.setMode('read-only', 'set read-only');
    else this.setMode('write', 'the pool was set up anew');
    this.wakeAll();
    this.check();
  }

  /** A device of the pool has become larger. */
  grown(lowWaterBlocks: number): void {
    this.settings = { ...this.settings, lowWaterBlocks };
    this.lowWaterTold = false;
    this.metadataLowTold = false;
    this.check();
  }

  setMode(mode: PoolMode, reason: string): void {
    if (this.mode === mode || this.mode === 'fail') return;
    this.mode = mode;
    this.stopTimer();
    const wanted = mode === 'write' || (mode === 'read-only' && this.settings.readOnly);
    if (wanted) this.logger.info({ mode, reason }, 'pool mode');
    else this.logger.warn({ mode, reason }, 'pool mode');
    this.onEvent({ kind: 'mode', mode, reason });
  }

  /** Throws EIO when the pool has failed. */
  requireAlive(): void {
    if (this.mode === 'fail') {
      throw new StorageError('EIO', 'Cannot change the pool: it has failed, see its log');
    }
  }

  /** Throws when the mode lets nobody change the metadata; out of metadata space, what frees or adds some is let through. */
  requireChangeable(inReserve: boolean): void {
    this.requireAlive();
    switch (this.mode) {
      case 'read-only': {
        const reason = this.owner.metadata.needsCheck ? 'its metadata needs a check' : 'it is read-only';
        throw new StorageError('EROFS', `Cannot change the pool: ${reason}`);
      }
      case 'out-of-metadata-space':
        if (inReserve) break;
        throw new StorageError('ENOSPC', 'Cannot change the pool: it has no metadata space left but its reserve');
      default:
    }
  }

  /** Whether the mode lets `io` take new blocks; otherwise it has been answered or waits. */
  mayAllocate(io: ThinIo): boolean {
    switch (this.mode) {
      case 'write':
        return true;
      case 'out-of-data-space':
        if (this.comesBack(io)) return false;
        // A discard that waited could not give back what others wait for.
        if (this.failsWhenFull || io.request.op === LunOp.UNMAP || io.request.givenUp) this.owner.answer(io, 'ENOSPC');
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
    if (this.comesBack(io)) return;
    if (this.mode === 'write') {
      this.setMode('out-of-data-space', 'no free data block');
      const { noSpaceTimeoutMs } = this.settings;
      if (!this.failsWhenFull && noSpaceTimeoutMs > 0) {
        this.timer = this.clock.setTimer(noSpaceTimeoutMs, () => this.timedOut());
      }
    }
    this.mayAllocate(io);
  }

  /** Whether data blocks are on their way back to the allocator, for which `io` then waits. */
  comesBack(io: ThinIo): boolean {
    const { metadata, reclaimer, commits } = this.owner;
    if (metadata.freed.count > 0) commits.request();
    else if (!reclaimer.busy) return false;
    this.afterReclaim.push(io);
    return true;
  }

  /** There was no metadata block for `io`: a commit may give some back; if it does not, the pool is out of metadata space. */
  metadataExhausted(io: ThinIo): void {
    if (this.retryAfterCommit(io)) return;
    this.setMode('out-of-metadata-space', 'no free metadata block');
    this.failWaiting();
    this.mayAllocate(io);
  }

  /** Whether a commit may free metadata blocks for `io`, which then waits for it; once for each request. */
  retryAfterCommit(io: ThinIo): boolean {
    if (!this.owner.metadata.changed || io.triedCommit) return false;
    io.triedCommit = true;
    this.owner.commits.request();
    this.afterReclaim.push(io);
    return true;
  }

  /** After an allocation: tells the administrator once that space has become short, until there is more again. */
  checkLowWater(): void {
    if (this.dataIsLow && !this.lowWaterTold) {
      this.lowWaterTold = true;
      const freeBlocks = this.owner.metadata.freeDataBlocks;
      const { lowWaterBlocks } = this.settings;
      this.logger.warn({ freeBlocks, lowWaterBlocks }, 'the pool reached its low-water mark');
      this.onEvent({ kind: 'low-water', freeBlocks, lowWaterBlocks });
    }
    this.checkMetadataLow();
  }

  private checkMetadataLow(): void {
    if (!this.metadataIsLow) this.metadataLowTold = false;
    else if (!this.metadataLowTold) {
      this.metadataLowTold = true;
      const { freeMetadataBlocksWithReserve: freeBlocks, metadataLowThresholdBlocks: thresholdBlocks } =
        this.owner.metadata;
      this.logger.warn({ freeBlocks, thresholdBlocks }, 'the metadata is running out of space');
      this.onEvent({ kind: 'metadata-low', freeBlocks, thresholdBlocks });
    }
  }

  /** Brings the mode in step with the free space: after commits, growth, and whenever blocks came back. */
  check(): void {
    const { metadata, reclaimer } = this.owner;
    if (!reclaimer.busy) this.owner.requeue(this.afterReclaim);
    if (this.mode === 'read-only' || this.mode === 'fail') return;
    if (!this.dataIsLow) this.lowWaterTold = false;
    this.checkMetadataLow();
    if (metadata.freeMetadataBlocks === 0) {
      this.setMode('out-of-metadata-space', 'no free metadata block');
      this.failWaiting();
      return;
    }
    const dataFreed = metadata.freeDataBlocks > 0 && !reclaimer.busy;
    if (this.mode === 'out-of-metadata-space' || (this.mode === 'out-of-data-space' && dataFreed)) {
      this.failsWhenFull = this.settings.errorIfNoSpace || this.stopped;
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

  /** `request` has been given up: it does not wait for space any more. */
  giveUp(request: LunRequest): void {
    for (let left = this.noSpace.count; left > 0; left--) {
      const io = this.noSpace.shift()!;
      if (io.request === request) this.owner.answer(io, 'ENOSPC');
      else this.noSpace.push(io);
    }
  }

  /** Whoever waits for space begins again: it may have come, or never comes. */
  wakeAll(): void {
    this.owner.requeue(this.afterReclaim);
    this.owner.requeue(this.noSpace);
  }

  /** From now on a request that finds no space is answered at once. */
  stop(): void {
    this.stopped = true;
    this.stopTimer();
    this.failsWhenFull = true;
    this.failWaiting();
  }

  private stopTimer(): void {
    this.timer?.cancel();
    this.timer = null;
  }

  private timedOut(): void {
    this.timer = null;
    const waiting = this.noSpace.count;
    this.logger.error({ waiting }, 'no data space came in time: writes that need it fail');
    this.failsWhenFull = true;
    this.failWaiting();
    this.onEvent({ kind: 'no-space-timeout', waiting });
  }

  private failWaiting(): void {
    for (let io = this.noSpace.shift(); io !== null; io = this.noSpace.shift()) this.owner.answer(io, 'ENOSPC');
  }
}
