import { assert } from '../base/assert.ts';
import type { Clock, Timer } from '../base/clock.ts';
import { type Errno, errnoOf, messageOf, StorageError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { BlockDevice, IoCompletion } from '../block/block-device.ts';
import { LunOp, type LunRequest } from '../block/lun-backend.ts';
import { type CommitOwner, Committer } from './committer.ts';
import { Copier } from './copier.ts';
import { DeferredSet } from './deferred-set.ts';
import { IoQueue } from './io-queue.ts';
import { type PoolMetadata, RunResult } from './pool-metadata.ts';
import type { PoolEvent, PoolMode } from './pool-mode.ts';
import { Reclaimer } from './reclaimer.ts';
import type { ThinDevice } from './thin-device.ts';
import { Phase, ThinIo, type ThinIoOwner } from './thin-io.ts';
import { extentOf, transferStep } from './thin-transfer.ts';

/** Mappings removed in one go before other requests have their turn. */
const REMOVE_BATCH = 2048;
/** After so many lookups of one request that found metadata not cached, it reads synchronously: a cache too small must not starve it. */
const MAX_MISSES = 8;
const COMMIT_PERIOD_MS = 1000;

/** What a change of the metadata throws before it has changed anything. */
const ARGUMENT_ERRORS: ReadonlySet<Errno> = new Set<Errno>(['EINVAL', 'EEXIST', 'ENODATA', 'ENOSPC', 'EBUSY']);

export interface EngineOptions {
  logger: Logger;
  clock: Clock;
  /** Free data blocks at which the administrator is told. */
  lowWaterBlocks: number;
  /** How long writes wait for data space before they fail; 0 is for ever. */
  noSpaceTimeoutMs: number;
  errorIfNoSpace: boolean;
  discardPassdown: boolean;
  /** New blocks are zeroed where the write does not cover them. */
  zeroNewBlocks: boolean;
  readOnly: boolean;
  /** Memory for copies, aligned as the data device asks. */
  copyMemory: Uint8Array;
  onEvent: (event: PoolEvent) => void;
}

/**
 * The pool's worker: takes what is queued, does all of it, and answers all of it.
 *
 * Requests queue in `submit`; one microtask at the end of the turn maps them all and submits their device I/O in one call. Metadata
 * changes are synchronous and so one at a time by construction; while a commit is being written, requests that would change
 * metadata wait in `afterCommit`.
 */
export class PoolEngine implements ThinIoOwner, CommitOwner {
  readonly metadata: PoolMetadata;
  readonly data: BlockDevice;
  readonly blockSizeBytes: number;
  readonly committer: Committer;
  readonly reclaimer: Reclaimer;
  readonly copier: Copier;
  mode: PoolMode = 'write';
  private readonly options: EngineOptions;
  private readonly logger: Logger;
  private readonly deferred: DeferredSet = new DeferredSet();
  private readonly run_: RunResult = new RunResult();

  private readonly queue: IoQueue = new IoQueue();
  private readonly afterCommit: IoQueue = new IoQueue();
  private readonly afterPrefetch: IoQueue = new IoQueue();
  private readonly afterReclaim: IoQueue = new IoQueue();
  private readonly noSpace: IoQueue = new IoQueue();
  private readonly answered: IoQueue = new IoQueue();
  private spare: ThinIo | null = null;

  private scheduled = false;
  private prefetching = false;
  private commitTimer: Timer | null = null;
  private noSpaceTimer: Timer | null = null;
  private erroring = false;
  private lowWaterTold = false;
  private stopped = false;
  /** Counts aborted transactions: a request that allocated before an abort must not insert after it. */
  private generation = 0;
  private inFlight = 0;
  private readonly idleWaiters: (() => void)[] = [];
  private readonly mutationWaiters: (() => void)[] = [];
  private readonly reclaimWaiters: (() => void)[] = [];

  private readonly runBound = (): void => this.run();
  private readonly prefetchDone: IoCompletion = {
    ioDone: (error) => {
      this.prefetching = false;
      if (error !== null) this.logger.warn({ error }, 'a metadata prefetch failed');
      this.queue.append(this.afterPrefetch);
      this.schedule();
    },
  };

  constructor(metadata: PoolMetadata, data: BlockDevice, options: EngineOptions) {
    this.metadata = metadata;
    this.data = data;
    this.options = options;
    this.logger = options.logger;
    this.blockSizeBytes = metadata.dataBlockSizeBytes;
    this.erroring = options.errorIfNoSpace;
    this.committer = new Committer(metadata, data, this);
    this.copier = new Copier(data, options.copyMemory, this.blockSizeBytes);
    metadata.recordFreed = true;
    this.reclaimer = new Reclaimer(
      data,
      this.blockSizeBytes,
      this.deferred,
      metadata.discarding,
      options.discardPassdown,
      () => this.spaceReleased(),
    );
    if (options.readOnly || metadata.readOnly) this.setMode('read-only', 'opened read-only');
    else if (metadata.needsCheck) this.setMode('read-only', 'the metadata is marked needs_check');
    this.checkSpace();
  }

  // ---- requests ------------------------------------------------------------------------------------------------

  submit(device: ThinDevice, request: LunRequest): void {
    const io = this.spare ?? new ThinIo(this);
    this.spare = io.next;
    io.next = null;
    io.reset(device, request);
    device.inFlight++;
    this.inFlight++;
    this.queue.push(io);
    this.schedule();
  }

  private schedule(): void {
    if (this.scheduled) return;
    this.scheduled = true;
    queueMicrotask(this.runBound);
  }

  private run(): void {
    try {
      for (let io = this.queue.shift(); io !== null; io = this.queue.shift()) this.step(io);
      this.data.submit();
      this.committer.kick();
      if (this.afterPrefetch.count > 0 && !this.prefetching) this.prefetch();
      this.armCommitTimer();
    } catch (error) {
      this.fail(error);
    }
    this.scheduled = false;
    if (this.queue.count > 0) this.schedule();
    this.answerAll();
  }

  /** Answers go out last and together, when the pool's own state is settled: owners submit again from within. */
  private answerAll(): void {
    for (let io = this.answered.shift(); io !== null; io = this.answered.shift()) {
      const { device, request, error } = io;
      device.inFlight--;
      this.inFlight--;
      io.next = this.spare;
      this.spare = io;
      request.owner.requestDone(request, error);
      if (device.inFlight === 0 && device.onIdle !== null) {
        const onIdle = device.onIdle;
        device.onIdle = null;
        onIdle();
      }
    }
    if (this.inFlight === 0) for (const wake of this.idleWaiters.splice(0)) wake();
  }

  private step(io: ThinIo): void {
    if (this.mode === 'fail') return this.endChange(io, 'EIO');
    try {
      switch (io.phase) {
        case Phase.MAP:
          return this.begin(io);
        case Phase.INSERT:
          return this.insertMappings(io);
        case Phase.UNDO:
          return this.undo(io);
        case Phase.REMOVE:
          return this.removeMappings(io);
        default:
          return this.stepDone(io);
      }
    } catch (error) {
      if (error instanceof StorageError) {
        // A lookup that failed: nothing has been changed for this request.
        this.logger.error({ device: io.device.thin.id, error: error.message }, 'metadata lookup failed');
      } else {
        this.fail(error);
      }
      this.endChange(io, 'EIO');
    }
  }

  private begin(io: ThinIo): void {
    const { device, request } = io;
    if (device.closed) return this.end(io, 'ESHUTDOWN');
    if (request.op === LunOp.FLUSH) {
      this.committer.waiting.push(io);
      return;
    }
    if (request.length < 0 || request.offset < 0 || request.offset + request.length > device.sizeBytes) {
      return this.end(io, 'ENXIO');
    }
    if (io.stepBegin === io.stepEnd && request.op !== LunOp.UNMAP) return this.end(io, null);
    switch (request.op) {
      case LunOp.READ:
        return this.read(io);
      case LunOp.EXTENT:
        if (!extentOf(this, io, MAX_MISSES, this.run_)) this.waitForMetadata(io);
        else this.end(io, null);
        return;
      default:
        break;
    }
    if (device.readOnly) return this.end(io, 'EROFS');
    if (request.op === LunOp.UNMAP) return this.beginUnmap(io);
    io.zero = request.op === LunOp.WRITE_ZEROES;
    this.write(io);
  }

  private read(io: ThinIo): void {
    if (!this.lookUp(io)) return;
    this.startTransfer(io, Phase.TRANSFER);
  }

  /** Fills in the runs of the step; false: they are not cached, `io` waits. */
  private lookUp(io: ThinIo): boolean {
    const size = this.blockSizeBytes;
    const run = this.run_;
    const end = Math.ceil(io.stepEnd / size);
    let at = Math.floor(io.stepBegin / size);
    let count = 0;
    while (at < end) {
      if (!this.metadata.lookupRun(io.device.thin, at, end, run, io.misses < MAX_MISSES)) {
        this.waitForMetadata(io);
        return false;
      }
      io.runEnd[count] = run.end;
      io.runData[count] = run.mapped ? run.dataBlock : -1;
      io.runShared[count] = run.mapped && run.shared;
      count++;
      at = run.end;
    }
    io.runCount = count;
    return true;
  }

  private waitForMetadata(io: ThinIo): void {
    io.misses++;
    this.afterPrefetch.push(io);
  }

  private prefetch(): void {
    this.prefetching = true;
    if (!this.metadata.prefetch(this.prefetchDone)) {
      this.prefetching = false;
      this.queue.append(this.afterPrefetch);
    }
  }

  /** A write, or zeroes, over `[stepBegin, stepEnd)`. */
  private write(io: ThinIo): void {
    const size = this.blockSizeBytes;
    const { prison } = io.device;
    if (prison.busy && io.cell === null) {
      const cell = prison.find(Math.floor(io.stepBegin / size), Math.ceil(io.stepEnd / size));
      if (cell !== null) {
        cell.waiting.push(io);
        return;
      }
    }
    if (!this.lookUp(io)) return;
    let wanted = 0;
    let first = -1;
    let last = 0;
    let at = Math.floor(io.stepBegin / size);
    for (let i = 0; i < io.runCount; i++) {
      const end = io.runEnd[i]!;
      if (io.runData[i]! < 0 ? !io.skipUnmapped : io.runShared[i]!) {
        wanted += end - at;
        if (first < 0) first = at;
        last = end;
      }
      at = end;
    }
    if (wanted === 0) {
      this.startTransfer(io, Phase.TRANSFER);
      return;
    }
    if (!this.mayAllocate(io)) return;
    if (this.committer.busy) {
      this.afterCommit.push(io);
      return;
    }
    if (!this.allocate(io)) return;
    if (io.cell === null) io.cell = prison.hold(first, last);
    this.startTransfer(io, io.newCount > 0 ? Phase.INSERT : Phase.TRANSFER);
  }

  /** Whether the mode lets `io` take new blocks; otherwise it has been answered or waits for space. */
  private mayAllocate(io: ThinIo): boolean {
    switch (this.mode) {
      case 'write':
        return true;
      case 'out-of-data-space':
        if (this.erroring) this.endChange(io, 'ENOSPC');
        else this.noSpace.push(io);
        return false;
      case 'out-of-metadata-space':
        this.endChange(io, 'ENOSPC');
        return false;
      default:
        this.endChange(io, 'EROFS');
        return false;
    }
  }

  /**
   * Allocates a data block for each virtual block of the step that needs one. Where there are too few the step is cut before the
   * first block that has none, so that space that is there is used. False: nothing can be done, `io` waits or is answered.
   */
  private allocate(io: ThinIo): boolean {
    io.newCount = 0;
    io.generation = this.generation;
    let at = Math.floor(io.stepBegin / this.blockSizeBytes);
    try {
      for (let i = 0; i < io.runCount; i++) {
        const end = io.runEnd[i]!;
        if (io.runData[i]! < 0 ? !io.skipUnmapped : io.runShared[i]!) {
          for (; at < end; at++) {
            io.newData[io.newCount] = this.metadata.allocateDataBlock();
            io.newVirtual[io.newCount] = at;
            io.newCount++;
          }
        }
        at = end;
      }
    } catch (error) {
      if (errnoOf(error) !== 'ENOSPC') {
        this.metadataFailed('Cannot allocate a data block', error);
        this.endChange(io, 'EIO');
        return false;
      }
      if (at * this.blockSizeBytes <= io.stepBegin) {
        this.outOfSpace(io);
        return false;
      }
      io.stepEnd = at * this.blockSizeBytes;
    }
    this.checkLowWater();
    if (this.metadata.freeMetadataBlocks === 0) this.committer.request();
    return true;
  }

  private checkLowWater(): void {
    const freeBlocks = this.metadata.freeDataBlocks;
    const { lowWaterBlocks } = this.options;
    if (freeBlocks > lowWaterBlocks || this.lowWaterTold) return;
    this.lowWaterTold = true;
    this.logger.warn({ freeBlocks, lowWaterBlocks }, 'the pool reached its low-water mark');
    this.options.onEvent({ kind: 'low-water', freeBlocks, lowWaterBlocks });
  }

  private freeNewBlocks(io: ThinIo): void {
    if (io.generation === this.generation) {
      try {
        for (let i = 0; i < io.newCount; i++) this.metadata.freeDataBlock(io.newData[i]!);
      } catch (error) {
        this.metadataFailed('Cannot give a data block back', error);
      }
    }
    io.newCount = 0;
  }

  /** Queues the device I/O of the step. */
  private startTransfer(io: ThinIo, phase: Phase): void {
    io.phase = phase;
    if (io.epoch < 0) io.epoch = this.deferred.enter();
    io.pending = 1;
    transferStep(this, io);
    if (--io.pending === 0) this.ioPhaseDone(io);
  }

  /** Zeroing of new blocks is on. */
  get zeroNewBlocks(): boolean {
    return this.options.zeroNewBlocks;
  }

  ioPhaseDone(io: ThinIo): void {
    if (io.epoch >= 0) {
      this.deferred.leave(io.epoch);
      io.epoch = -1;
      if (this.reclaimer.busy) this.reclaimer.run();
    }
    if (io.phase === Phase.INSERT && io.error !== null) io.phase = Phase.UNDO;
    this.queue.push(io);
    this.schedule();
  }

  // ---- changes of the mapping ----------------------------------------------------------------------------------

  /** The data of the new blocks is down. */
  private insertMappings(io: ThinIo): void {
    if (io.generation !== this.generation) return this.endChange(io, 'EIO');
    if (this.committer.busy) {
      this.afterCommit.push(io);
      return;
    }
    try {
      for (let i = 0; i < io.newCount; i++) {
        this.metadata.insert(io.device.thin, io.newVirtual[i]!, io.newData[i]!);
      }
    } catch (error) {
      this.metadataFailed('Cannot insert a mapping', error);
      return this.endChange(io, 'EIO');
    }
    io.newCount = 0;
    this.stepDone(io);
  }

  private undo(io: ThinIo): void {
    if (this.committer.busy && io.generation === this.generation) {
      this.afterCommit.push(io);
      return;
    }
    this.freeNewBlocks(io);
    this.endChange(io, io.error);
  }

  /** The step's bytes are where they belong: the next step of a discard, or the answer. */
  private stepDone(io: ThinIo): void {
    if (io.error !== null) return this.endChange(io, io.error);
    const { request } = io;
    if (request.op === LunOp.UNMAP) return this.nextUnmapStep(io);
    this.releaseCell(io);
    const end = request.offset + request.length;
    if (io.stepEnd < end) {
      io.stepBegin = io.stepEnd;
      io.stepEnd = end;
      return this.write(io);
    }
    if (request.fua && (request.op === LunOp.WRITE || request.op === LunOp.WRITE_ZEROES)) {
      this.committer.waiting.push(io);
      return;
    }
    this.end(io, null);
  }

  /** Ends a request that may hold a cell. */
  private endChange(io: ThinIo, error: Errno | null): void {
    this.releaseCell(io);
    this.end(io, error);
  }

  private releaseCell(io: ThinIo): void {
    if (io.cell === null) return;
    io.device.prison.release(io.cell, this.queue);
    io.cell = null;
    this.schedule();
  }

  private end(io: ThinIo, error: Errno | null): void {
    assert(io.cell === null, 'a request that ends holds no cell');
    io.error = error;
    this.answered.push(io);
    this.schedule();
  }

  // ---- discard -------------------------------------------------------------------------------------------------

  /**
   * Whole blocks are unmapped; what is left at the two ends is zeroed, so that a discarded range always reads as zeroes. The volume's
   * last block counts as whole when the range goes to the volume's end.
   */
  private beginUnmap(io: ThinIo): void {
    if (this.mode === 'read-only') return this.end(io, 'EROFS');
    const size = this.blockSizeBytes;
    const { offset, length } = io.request;
    const end = offset + length;
    if (length === 0) return this.end(io, null);
    const first = Math.floor(offset / size);
    const last = Math.ceil(end / size);
    const { prison } = io.device;
    const cell = prison.busy ? prison.find(first, last) : null;
    if (cell !== null) {
      cell.waiting.push(io);
      return;
    }
    io.removeBegin = Math.ceil(offset / size);
    io.removeEnd = end === io.device.sizeBytes ? last : Math.floor(end / size);
    io.cell = prison.hold(first, last);
    io.zero = true;
    io.skipUnmapped = true;
    io.stepBegin = offset;
    io.stepEnd = offset;
    this.nextUnmapStep(io);
  }

  /** Head, then tail, then the whole blocks between; `stepEnd` says how far it is. */
  private nextUnmapStep(io: ThinIo): void {
    const size = this.blockSizeBytes;
    const { offset, length } = io.request;
    const end = offset + length;
    const inside = io.removeBegin >= io.removeEnd;
    const headEnd = inside ? end : io.removeBegin * size;
    const tailBegin = inside ? end : Math.min(io.removeEnd * size, end);
    if (io.stepEnd < headEnd) {
      io.stepBegin = io.stepEnd;
      io.stepEnd = headEnd;
      return this.write(io);
    }
    if (io.stepEnd < end && tailBegin < end) {
      io.stepBegin = tailBegin;
      io.stepEnd = end;
      return this.write(io);
    }
    if (inside) return this.endChange(io, null);
    io.phase = Phase.REMOVE;
    this.removeMappings(io);
  }

  private removeMappings(io: ThinIo): void {
    if (this.committer.busy) {
      this.afterCommit.push(io);
      return;
    }
    try {
      io.removeBegin = this.metadata.removeRange(io.device.thin, io.removeBegin, io.removeEnd, REMOVE_BATCH);
    } catch (error) {
      this.metadataFailed('Cannot remove mappings', error);
      return this.endChange(io, 'EIO');
    }
    if (io.removeBegin >= io.removeEnd) return this.endChange(io, null);
    if (this.metadata.freeMetadataBlocks === 0) this.committer.request();
    setImmediate(this.resume, io);
  }

  /** Lets everything else that is queued have its turn before a long change goes on. */
  private readonly resume = (io: ThinIo): void => {
    this.queue.push(io);
    this.schedule();
  };

  // ---- space ---------------------------------------------------------------------------------------------------

  /** No free data block: try again after what is being freed has come back, else the pool is out of data space. */
  private outOfSpace(io: ThinIo): void {
    if (this.metadata.freed.count > 0) {
      this.committer.request();
      this.afterReclaim.push(io);
      return;
    }
    if (this.reclaimer.busy) {
      this.afterReclaim.push(io);
      return;
    }
    if (this.mode === 'write') {
      this.setMode('out-of-data-space', 'no free data block');
      if (!this.erroring && this.options.noSpaceTimeoutMs > 0) {
        this.noSpaceTimer = this.options.clock.setTimer(this.options.noSpaceTimeoutMs, () => this.noSpaceTimedOut());
      }
    }
    this.mayAllocate(io);
  }

  private noSpaceTimedOut(): void {
    this.noSpaceTimer = null;
    if (this.mode !== 'out-of-data-space') return;
    this.erroring = true;
    this.logger.error({ waiting: this.noSpace.count }, 'no data space came in time: writes that need it fail');
    for (let io = this.noSpace.shift(); io !== null; io = this.noSpace.shift()) this.endChange(io, 'ENOSPC');
  }

  /** Data blocks may have become free: whoever waited for some tries again. */
  private spaceReleased(): void {
    for (const wake of this.reclaimWaiters.splice(0)) wake();
    this.queue.append(this.afterReclaim);
    this.checkSpace();
    this.schedule();
  }

  /** Adjusts the mode to the free space; called after commits, growth and whenever blocks came back. */
  checkSpace(): void {
    const { metadata } = this;
    if (this.mode === 'read-only' || this.mode === 'fail') return;
    if (metadata.freeDataBlocks > this.options.lowWaterBlocks) this.lowWaterTold = false;
    if (metadata.freeMetadataBlocks === 0) {
      if (this.mode !== 'out-of-metadata-space') this.setMode('out-of-metadata-space', 'no free metadata block');
      for (let io = this.noSpace.shift(); io !== null; io = this.noSpace.shift()) this.endChange(io, 'ENOSPC');
      return;
    }
    const freed = metadata.freeDataBlocks > 0 && !this.reclaimer.busy;
    if (this.mode === 'out-of-metadata-space' || (this.mode === 'out-of-data-space' && freed)) {
      this.noSpaceTimer?.cancel();
      this.noSpaceTimer = null;
      this.erroring = this.options.errorIfNoSpace;
      this.setMode('write', 'space is free again');
      this.queue.append(this.noSpace);
      this.schedule();
    }
  }

  // ---- commits -------------------------------------------------------------------------------------------------

  private armCommitTimer(): void {
    if (this.commitTimer !== null || this.stopped || !this.metadata.changed || this.committer.busy) return;
    this.commitTimer = this.options.clock.setTimer(COMMIT_PERIOD_MS, () => {
      this.commitTimer = null;
      this.committer.request();
      this.schedule();
    });
  }

  commitStarted(): void {
    this.commitTimer?.cancel();
    this.commitTimer = null;
  }

  commitDone(flushed: IoQueue): void {
    if (this.mode === 'fail') return this.answerFlushed(flushed, 'EIO');
    this.reclaimer.take(this.metadata.freed);
    this.reclaimer.run();
    this.data.submit();
    this.answerFlushed(flushed, null);
    this.metadataIdle();
    this.checkSpace();
    if (!this.reclaimer.busy) this.queue.append(this.afterReclaim);
  }

  commitFailed(flushed: IoQueue, error: Errno, action: string): void {
    this.metadataFailed(action, new StorageError(error, error));
    this.answerFlushed(flushed, 'EIO');
    this.metadataIdle();
  }

  dataFlushed(flushed: IoQueue, error: Errno | null): void {
    if (error !== null) this.logger.error({ error }, 'the data device failed to flush');
    this.answerFlushed(flushed, error === null ? null : 'EIO');
    this.schedule();
  }

  private answerFlushed(flushed: IoQueue, error: Errno | null): void {
    for (let io = flushed.shift(); io !== null; io = flushed.shift()) {
      const { thin } = io.device;
      if (error === null && thin.abortedWithChanges) {
        // Acknowledged writes went with the aborted transaction; this answer is how the initiator learns of it.
        thin.abortedWithChanges = false;
        this.end(io, 'EIO');
      } else {
        this.end(io, error);
      }
    }
  }

  private metadataIdle(): void {
    this.queue.append(this.afterCommit);
    for (const wake of this.mutationWaiters.splice(0)) wake();
    this.schedule();
  }

  // ---- bad days ------------------------------------------------------------------------------------------------

  /** A change or a commit of the metadata failed: back to the last commit, read-only, needs_check. */
  private metadataFailed(action: string, error: unknown): void {
    const reason = `${action}: ${messageOf(error)}`;
    this.logger.error({ error: messageOf(error) }, action);
    this.generation++;
    try {
      this.metadata.abort();
      this.metadata.setNeedsCheck();
      this.setMode('read-only', reason);
    } catch (fatal) {
      this.fail(fatal);
    }
    this.queue.append(this.afterReclaim);
    this.queue.append(this.noSpace);
    this.queue.append(this.afterCommit);
    this.schedule();
  }

  /** The end of this pool, and of no other: everything is answered with EIO until it is closed. */
  private fail(error: unknown): void {
    this.logger.error({ error: messageOf(error), stack: (error as Error | null)?.stack }, 'the pool failed');
    this.generation++;
    this.setMode('fail', messageOf(error));
    for (const waiting of [this.afterCommit, this.afterPrefetch, this.afterReclaim, this.noSpace]) {
      this.queue.append(waiting);
    }
    this.queue.append(this.committer.waiting);
    for (const wake of this.mutationWaiters.splice(0)) wake();
    this.schedule();
  }

  private setMode(mode: PoolMode, reason: string): void {
    if (this.mode === mode || this.mode === 'fail') return;
    this.mode = mode;
    if (mode === 'write') this.logger.info({ mode, reason }, 'pool mode');
    else this.logger.warn({ mode, reason }, 'pool mode');
    this.options.onEvent({ kind: 'mode', mode, reason });
  }

  // ---- administration ------------------------------------------------------------------------------------------

  /**
   * Runs `change` on the metadata when no commit is being written, and commits it. Throws what `change` throws
   * (its own argument errors: nothing has changed then), or EIO when the commit failed. Callers take turns by themselves.
   */
  async mutate<T>(change: () => T): Promise<T> {
    while (this.committer.busy) await new Promise<void>((resolve) => this.mutationWaiters.push(resolve));
    if (this.mode === 'fail') throw new StorageError('EIO', 'Cannot change the pool: it has failed, see its log');
    if (this.mode === 'read-only') throw new StorageError('EROFS', 'Cannot change the pool: it is read-only');
    let result: T;
    try {
      result = change();
    } catch (error) {
      if (!(error instanceof StorageError)) this.fail(error);
      else if (!ARGUMENT_ERRORS.has(error.code)) this.metadataFailed('Cannot change the metadata', error);
      throw error;
    }
    await this.commit();
    return result;
  }

  /** Commits what has changed. Throws EIO when that failed. */
  async commit(): Promise<void> {
    const generation = this.generation;
    for (;;) {
      if (this.generation !== generation) {
        throw new StorageError('EIO', 'Cannot commit: the transaction was aborted, see the log');
      }
      if (!this.committer.busy) {
        if (!this.metadata.changed) return;
        this.committer.request();
        this.schedule();
      }
      await new Promise<void>((resolve) => this.mutationWaiters.push(resolve));
    }
  }

  /** Resolves when no request is unanswered. */
  async idle(): Promise<void> {
    while (this.inFlight > 0) await new Promise<void>((resolve) => this.idleWaiters.push(resolve));
  }

  /** Answers everything, commits, and waits until freed blocks have been passed down. No request may come any more. */
  async stop(): Promise<void> {
    this.stopped = true;
    this.noSpaceTimer?.cancel();
    if (this.noSpace.count > 0) this.noSpaceTimedOut();
    await this.idle();
    this.commitTimer?.cancel();
    this.commitTimer = null;
    if (this.mode !== 'fail' && this.mode !== 'read-only') await this.commit();
    while (this.reclaimer.busy) await new Promise<void>((resolve) => this.reclaimWaiters.push(resolve));
  }
}
