import { assert } from '../base/assert.ts';
import { errnoOf } from '../base/errors.ts';
import { MetadataSpaceError } from '../persistent-data/space-map.ts';
import type { IoDrain } from './io-drain.ts';
import type { IoQueue } from './io-queue.ts';
import type { PoolEngine } from './pool-engine.ts';
import type { SharedRange } from './range-sharing.ts';
import type { ThinDevice } from './thin-device.ts';
import { Phase, type ThinIo } from './thin-io.ts';

/** Mappings made in one go before other requests have their turn. */
const SHARE_BATCH = 2048;
/** Runs of mappings looked through in one go. */
const SEARCH_BATCH = 4096;
/** After so many vain attempts to read ahead the rest is read synchronously. */
const MAX_MISSES = 2;

/**
 * Copies whole blocks by reference. `RangeCopier` asks for it, a bounded range at a time.
 *
 * ```
 *   cells on both ranges -> (older cells there are gone) -> (device I/O that had started is over) -> share, in steps -> release the cells
 * ```
 * A write in place that was on its way to a block of the source would show up in the copy after that was answered: see `IoDrain`.
 */
export class RangeSharer {
  private readonly engine: PoolEngine;
  private readonly drain: IoDrain;
  private readonly resume = (io: ThinIo): void => this.engine.resume(io);

  constructor(engine: PoolEngine, drain: IoDrain) {
    this.engine = engine;
    this.drain = drain;
  }

  /** The target's range is inside of it. */
  begin(io: ThinIo): void {
    const { engine } = this;
    const { offset, length, sourceOffset } = io.request;
    const source = io.request.source as ThinDevice;
    if (source.closed) {
      engine.answer(io, 'ESHUTDOWN');
      return;
    }
    if (sourceOffset + length > source.sizeBytes) {
      engine.answer(io, 'ENXIO');
      return;
    }
    const size = engine.blockSizeBytes;
    assert(offset % size === 0 && sourceOffset % size === 0 && length % size === 0, 'whole blocks are shared');
    io.removeBegin = offset / size;
    io.removeEnd = (offset + length) / size;
    const sourceBegin = sourceOffset / size;
    io.source = source;
    source.inFlight++;
    // Both at one moment: see `BioPrison.hold`.
    io.cell = io.device.prison.hold(io.removeBegin, io.removeEnd);
    io.sourceCell = source.prison.hold(sourceBegin, sourceBegin + (io.removeEnd - io.removeBegin));
    io.phase = Phase.CLAIM;
    this.claim(io);
  }

  claim(io: ThinIo): void {
    const older = io.device.prison.findOlder(io.cell!) ?? io.source!.prison.findOlder(io.sourceCell!);
    if (older !== null) {
      older.waiting.push(io);
      return;
    }
    io.phase = Phase.SHARE;
    if (this.drain.enter(io)) this.share(io);
  }

  share(io: ThinIo): void {
    const { engine } = this;
    const { metadata, space, commits } = engine;
    if (space.mode === 'read-only' || space.mode === 'out-of-metadata-space') {
      engine.answer(io, space.mode === 'read-only' ? 'EROFS' : 'ENOSPC');
      return;
    }
    if (commits.busy) {
      commits.wait(io);
      return;
    }
    const range = rangeOf(io);
    const { source, sourceBegin, target, begin } = range;
    if (!this.targetIsKnown(io)) return;
    if (io.misses < MAX_MISSES) {
      const sourceCached = metadata.areLeavesCached(source, sourceBegin, SHARE_BATCH);
      if (!metadata.areLeavesCached(target, begin, SHARE_BATCH) || !sourceCached) {
        engine.waitForMetadata(io, Phase.SHARE);
        return;
      }
    }
    try {
      io.removeBegin = metadata.shareRange(range, SHARE_BATCH);
      engine.journal?.noteShare(source.id, sourceBegin, target.id, begin, io.removeBegin);
      io.triedCommit = false;
      io.misses = 0;
    } catch (error) {
      if (error instanceof MetadataSpaceError && space.retryAfterCommit(io)) return;
      if (errnoOf(error) === 'EEXIST' && target.sharedBlocks?.hit(target)) {
        metadata.forgetShared(target);
        engine.resume(io);
        return;
      }
      engine.answer(io, engine.changeFailed('Cannot share data blocks', error));
      return;
    }
    engine.rangeCopier.stats.sharedBlocks += io.removeBegin - begin;
    if (io.removeBegin >= io.removeEnd) {
      engine.answer(io, null);
      return;
    }
    if (metadata.freeMetadataBlocks === 0) commits.request();
    setImmediate(this.resume, io);
  }

  /** Whether it is known what the target shares already; otherwise `io` looks for it, a part at a time. */
  private targetIsKnown(io: ThinIo): boolean {
    const { metadata } = this.engine;
    const { thin } = io.device;
    const known = thin.sharedBlocks;
    if (known?.isOf(thin) && known.isComplete) return true;
    if (io.misses < MAX_MISSES && !metadata.areLeavesCached(thin, known?.next ?? 0, SEARCH_BATCH)) {
      this.engine.waitForMetadata(io, Phase.SHARE);
      return false;
    }
    io.misses = 0;
    if (metadata.learnShared(thin, SEARCH_BATCH)) return true;
    setImmediate(this.resume, io);
    return false;
  }

  /** `io` is about to be answered; its cell is released. */
  release(io: ThinIo, released: IoQueue): void {
    const source = io.source!;
    io.request.copied = io.removeBegin * this.engine.blockSizeBytes - io.request.offset;
    source.prison.release(io.sourceCell!, released);
    io.sourceCell = null;
    io.source = null;
    source.inFlight--;
    if (source.inFlight === source.aside.count) source.idle();
  }
}

/** What is still to be shared. */
function rangeOf(io: ThinIo): SharedRange {
  const { cell, sourceCell, removeBegin, removeEnd } = io;
  const source = io.source!;
  return {
    source: source.thin,
    sourceBegin: sourceCell!.begin + (removeBegin - cell!.begin),
    target: io.device.thin,
    begin: removeBegin,
    end: removeEnd,
    keepsSource: source.readOnly,
  };
}
