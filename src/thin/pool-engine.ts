import { type Errno, messageOf, StorageError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { Waiters } from '../base/waiters.ts';
import type { BlockDevice, IoCompletion } from '../block/block-device.ts';
import { LunOp, type LunRequest } from '../block/lun-backend.ts';
import { MetadataSpaceError } from '../persistent-data/space-map.ts';
import { AtomicWriter } from './atomic-writer.ts';
import { Copier } from './copier.ts';
import { DeferredSet } from './deferred-set.ts';
import { Discarder } from './discarder.ts';
import type { EngineOptions, EngineSettings } from './engine-options.ts';
import { OriginReads } from './external-origin.ts';
import { IoDrain } from './io-drain.ts';
import { IoQueue } from './io-queue.ts';
import type { MappingJournal } from './mapping-journal.ts';
import { PoolCommits } from './pool-commits.ts';
import type { PoolMetadata } from './pool-metadata.ts';
import { PoolSpace, type SpaceOwner } from './pool-space.ts';
import { Provisioner } from './provisioner.ts';
import { RangeCopier } from './range-copier.ts';
import { RangeSharer } from './range-sharer.ts';
import { Reclaimer } from './reclaimer.ts';
import { RunResult } from './run-lookup.ts';
import type { ThinDevice } from './thin-device.ts';
import { Phase, ThinIo, type ThinIoOwner } from './thin-io.ts';
import { lookUpStep, MAX_MISSES } from './thin-lookup.ts';
import { extentOf, transferStep } from './thin-transfer.ts';

/**
 * The pool's worker: takes what is queued, does all of it, and answers all of it.
 *
 * Requests queue in `submit`; one microtask at the end of the turn maps them all and submits their device I/O in one call. Changes of the
 * metadata are synchronous and so one at a time by construction; while a commit is being written, requests that would change
 * metadata wait for its end.
 */
export class PoolEngine implements ThinIoOwner, SpaceOwner {
  readonly metadata: PoolMetadata;
  readonly data: BlockDevice;
  readonly blockSizeBytes: number;
  ignoreDiscard: boolean;
  zeroNewBlocks: boolean;
  readonly journal: MappingJournal | null;
  readonly commits: PoolCommits;
  readonly reclaimer: Reclaimer;
  readonly copier: Copier;
  readonly originReads: OriginReads = new OriginReads();
  readonly space: PoolSpace;
  readonly provisioner: Provisioner = new Provisioner(this);
  readonly rangeCopier: RangeCopier = new RangeCopier(this);
  /** Counts aborted transactions: a request that allocated before an abort must not insert after it. */
  generation = 0;
  private readonly discarder: Discarder = new Discarder(this);
  private readonly logger: Logger;
  private readonly deferred: DeferredSet = new DeferredSet();
  private readonly drain: IoDrain = new IoDrain(this.deferred, (io) => this.resume(io));
  private readonly sharer: RangeSharer = new RangeSharer(this, this.drain);
  private readonly atomicWriter: AtomicWriter = new AtomicWriter(this, this.drain);
  readonly runResult: RunResult = new RunResult();

  private readonly queue: IoQueue = new IoQueue();
  private readonly afterPrefetch: IoQueue = new IoQueue();
  private readonly answered: IoQueue = new IoQueue();
  private spare: ThinIo | null = null;
  private inFlight = 0;
  private scheduled = false;
  private prefetching = false;
  private readonly idleWaiters: Waiters = new Waiters();
  readonly reclaimWaiters: Waiters = new Waiters();

  private readonly runBound = (): void => this.run();
  private readonly prefetchDone: IoCompletion = {
    ioDone: () => {
      this.prefetching = false;
      this.requeue(this.afterPrefetch);
    },
  };

  constructor(metadata: PoolMetadata, data: BlockDevice, options: EngineOptions) {
    this.metadata = metadata;
    this.data = data;
    this.logger = options.logger;
    this.blockSizeBytes = metadata.dataBlockSizeBytes;
    this.ignoreDiscard = options.ignoreDiscard;
    this.zeroNewBlocks = options.zeroNewBlocks;
    this.journal = options.journal;
    this.commits = new PoolCommits(this, options.clock, options.logger);
    this.copier = new Copier(data, options.copyMemory, this.blockSizeBytes);
    this.space = new PoolSpace(this, options);
    metadata.recordFreed = true;
    this.reclaimer = new Reclaimer(
      data,
      this.blockSizeBytes,
      this.deferred,
      metadata.withheld,
      options.discardPassdown,
      () => this.blocksReturned(),
    );
    this.space.configure(options);
  }

  /** The kernel's reload of the pool's table. Whoever makes the pool read-only commits after it. */
  configure(settings: EngineSettings): void {
    this.zeroNewBlocks = settings.zeroNewBlocks;
    this.ignoreDiscard = settings.ignoreDiscard;
    this.reclaimer.setPassdown(settings.discardPassdown);
    this.space.configure(settings);
    this.schedule();
  }

  // ---- the worker ----------------------------------------------------------------------------------------------

  submit(device: ThinDevice, request: LunRequest): void {
    const io = this.spare ?? new ThinIo(this);
    this.spare = io.next;
    io.reset(device, request);
    device.inFlight++;
    this.inFlight++;
    this.queue.push(io);
    this.schedule();
  }

  requeue(waiting: IoQueue): void {
    if (waiting.count === 0) return;
    this.queue.append(waiting);
    this.schedule();
  }

  /** Goes on with a request that gave others a turn. */
  resume(io: ThinIo): void {
    this.queue.push(io);
    this.schedule();
  }

  /** Something is to be done at the end of this turn. */
  schedule(): void {
    if (this.scheduled) return;
    this.scheduled = true;
    queueMicrotask(this.runBound);
  }

  private run(): void {
    try {
      for (let io = this.queue.shift(); io !== null; io = this.queue.shift()) this.step(io);
      this.data.submit();
      if (this.originReads.queued) this.originReads.submit();
      this.commits.kick();
      if (this.afterPrefetch.count > 0 && !this.prefetching) this.prefetch();
    } catch (error) {
      this.fail(error);
    }
    this.scheduled = false;
    if (this.queue.count > 0) this.schedule();
    this.answerAll();
  }

  private step(io: ThinIo): void {
    if (this.space.mode === 'fail') {
      this.answer(io, 'EIO');
      return;
    }
    try {
      switch (io.phase) {
        case Phase.MAP:
          this.begin(io);
          break;
        case Phase.INSERT:
          this.provisioner.insert(io);
          break;
        case Phase.REMOVE:
          this.discarder.remove(io);
          break;
        case Phase.CLAIM:
          if (io.source === null) this.atomicWriter.claim(io);
          else this.sharer.claim(io);
          break;
        case Phase.SHARE:
          this.sharer.share(io);
          break;
        default:
          this.stepDone(io);
      }
    } catch (error) {
      if (error instanceof StorageError) {
        // A lookup that failed: nothing has been changed for this request.
        this.logger.error({ device: io.device.thin.id, error: error.message }, 'metadata lookup failed');
      } else {
        this.fail(error);
      }
      this.answer(io, 'EIO');
    }
  }

  private begin(io: ThinIo): void {
    const { device, request } = io;
    const { op, offset, length } = request;
    if (device.closed) {
      this.answer(io, 'ESHUTDOWN');
    } else if (op === LunOp.FLUSH) {
      this.commits.flush(io);
    } else if (length < 0 || offset < 0 || offset + length > device.sizeBytes) {
      this.answer(io, 'ENXIO');
    } else if (length === 0) {
      this.answer(io, null);
    } else if (op === LunOp.READ) {
      if (lookUpStep(this, io, false)) this.startTransfer(io, Phase.TRANSFER);
    } else if (op === LunOp.EXTENT) {
      if (extentOf(this, io, MAX_MISSES, this.runResult)) this.answer(io, null);
      else this.waitForMetadata(io);
    } else if (device.readOnly) {
      this.answer(io, 'EROFS');
    } else if (op === LunOp.COPY) {
      this.sharer.begin(io);
    } else if (op === LunOp.WRITE && request.atomic) {
      this.atomicWriter.begin(io);
    } else if (op === LunOp.UNMAP && io.cell === null) {
      this.discarder.begin(io);
    } else {
      if (op === LunOp.WRITE_ZEROES) io.zero = true;
      this.provisioner.write(io);
    }
  }

  waitForMetadata(io: ThinIo, phase: Phase = Phase.MAP): void {
    io.misses++;
    io.phase = phase;
    this.afterPrefetch.push(io);
  }

  private prefetch(): void {
    this.prefetching = this.metadata.prefetch(this.prefetchDone);
    if (!this.prefetching) this.requeue(this.afterPrefetch);
  }

  /** Queues the device I/O of the step; `phase` comes when all of it has ended. */
  startTransfer(io: ThinIo, phase: Phase): void {
    io.phase = phase;
    io.epoch = this.deferred.enter();
    io.pending = 1;
    transferStep(this, io);
    if (--io.pending === 0) this.ioPhaseDone(io);
  }

  ioPhaseDone(io: ThinIo): void {
    this.deferred.leave(io.epoch);
    if (this.reclaimer.busy) this.reclaimer.run();
    if (this.drain.waiting) this.drain.ioEnded();
    this.resume(io);
  }

  /** The step's bytes are where they belong: the next step, or the answer. */
  stepDone(io: ThinIo): void {
    const { request } = io;
    if (io.error !== null) {
      this.answer(io, io.error);
      return;
    }
    io.phase = Phase.MAP;
    if (request.op === LunOp.UNMAP) {
      this.discarder.next(io);
      return;
    }
    this.releaseCell(io);
    const end = request.offset + request.length;
    if (io.stepEnd < end) {
      io.stepBegin = io.stepEnd;
      io.stepEnd = end;
      this.provisioner.write(io);
    } else if (request.fua && request.op !== LunOp.READ) {
      this.commits.flush(io);
    } else {
      this.answer(io, null);
    }
  }

  /** Lets others have the range that `io` had locked, if it had one. */
  releaseCell(io: ThinIo): void {
    if (io.cell === null) return;
    io.device.prison.release(io.cell, this.queue);
    io.cell = null;
    if (io.source !== null) this.sharer.release(io, this.queue);
    this.schedule();
  }

  /** `io`, a write without a cell, waits for space, perhaps for long: its device can be held meanwhile. */
  park(io: ThinIo, waiting: IoQueue): void {
    const { device } = io;
    (device.held ? device.aside : waiting).push(io);
    if (device.inFlight === device.aside.count) device.idle();
  }

  answer(io: ThinIo, error: Errno | null): void {
    this.releaseCell(io);
    io.error = error;
    this.answered.push(io);
    this.schedule();
  }

  /** Answers go out last and together, when the pool's own state is settled: owners submit again from within. */
  private answerAll(): void {
    const noted = this.journal === null || this.journal.append();
    for (let io = this.answered.shift(); io !== null; io = this.answered.shift()) {
      if (!noted && io.error === null && changes(io.request)) {
        this.commits.flush(io);
        this.schedule();
        continue;
      }
      const { device, request, error } = io;
      device.inFlight--;
      this.inFlight--;
      io.next = this.spare;
      this.spare = io;
      request.owner.requestDone(request, error);
      if (device.inFlight === device.aside.count) device.idle();
    }
    if (this.inFlight === 0) this.idleWaiters.wake();
  }

  private blocksReturned(): void {
    this.space.blocksReturned();
    this.reclaimWaiters.wake();
  }

  // ---- bad days ------------------------------------------------------------------------------------------------

  /** A change of the metadata threw: refused, with nothing changed, or failed half-way. Returns what the request is answered. */
  changeFailed(action: string, error: unknown): Errno {
    if (!(error instanceof StorageError)) {
      this.fail(error);
      return 'EIO';
    }
    if (this.metadata.mustAbort) {
      this.metadataFailed(action, error.message);
      return 'EIO';
    }
    // Whoever asked is told.
    this.logger.debug({ error: error.message }, action);
    if (error instanceof MetadataSpaceError) this.commits.request();
    return error.code;
  }

  /** Back to the last commit, read-only, needs_check. */
  metadataFailed(action: string, reason: string): void {
    this.logger.error({ error: reason }, action);
    this.generation++;
    try {
      this.metadata.abort();
      this.metadata.setNeedsCheck();
      this.journal?.begin(this.metadata.committedIdentity);
      this.space.setMode('read-only', `${action}: ${reason}`);
    } catch (fatal) {
      this.fail(fatal);
    }
    this.space.wakeAll();
    this.commits.wakeAll();
  }

  /** The end of this pool, and of no other: everything is answered with EIO until it is closed. */
  private fail(error: unknown): void {
    this.logger.error({ error: messageOf(error), stack: (error as Error | null)?.stack }, 'the pool failed');
    this.generation++;
    this.space.setMode('fail', messageOf(error));
    this.space.wakeAll();
    this.requeue(this.afterPrefetch);
    this.commits.stop();
    this.reclaimWaiters.wake();
    this.schedule();
  }

  // ---- administration ------------------------------------------------------------------------------------------

  /**
   * Runs `change` on the metadata when no commit is being written, and commits it. Throws what `change` throws,
   * or EIO when the commit failed; nothing has changed then. Callers take turns by themselves. `inReserve`: it frees space or adds some, and
   * so is done out of metadata space, too. `afterCommit`: it begins a transaction, right after a commit.
   */
  mutate<T>(change: () => T, inReserve: boolean = false, afterCommit: boolean = false): Promise<T> {
    return this.commits.mutate(change, inReserve, afterCommit);
  }

  /** Answers everything, makes it durable, and waits until freed blocks have been passed down. No request may come any more. */
  async stop(): Promise<void> {
    this.space.stop();
    while (this.inFlight > 0) await this.idleWaiters.wait();
    if (this.space.mode !== 'fail' && !this.data.readOnly) await this.commits.flushAll();
    this.commits.stop();
    while (this.space.mode !== 'fail' && this.reclaimer.busy) await this.reclaimWaiters.wait();
  }
}

function changes({ op }: LunRequest): boolean {
  return op === LunOp.WRITE || op === LunOp.WRITE_ZEROES || op === LunOp.UNMAP || op === LunOp.COPY;
}
