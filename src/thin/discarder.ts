import { MetadataSpaceError } from '../persistent-data/space-map.ts';
import type { PoolEngine } from './pool-engine.ts';
import { Phase, type ThinIo } from './thin-io.ts';

/** Mappings removed in one go before other requests have their turn. */
const REMOVE_BATCH = 2048;
/** After so many vain attempts to read ahead the rest is read synchronously. */
const MAX_MISSES = 2;

/**
 * Discards: whole blocks are unmapped; what is left at the two ends is zeroed, so that a discarded range always reads as zeroes. The
 * volume's last block counts as whole when the range goes to the volume's end. What was unmapped goes back to the data device after
 * the commit: see reclaimer.ts.
 *
 * ```
 *   |....zzzz|  unmapped  |  unmapped  |zz......|        z: zeroed in place, if mapped at all
 *      head                               tail
 * ```
 */
export class Discarder {
  private readonly engine: PoolEngine;
  /** Lets everything else that is queued have its turn before a long removal goes on. */
  private readonly resume = (io: ThinIo): void => this.engine.resume(io);

  constructor(engine: PoolEngine) {
    this.engine = engine;
  }

  begin(io: ThinIo): void {
    const { engine } = this;
    if (engine.space.mode === 'read-only') {
      engine.answer(io, 'EROFS');
      return;
    }
    const size = engine.blockSizeBytes;
    const { offset, length } = io.request;
    const end = offset + length;
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
    if (io.removeBegin >= io.removeEnd) {
      this.next(io);
    } else {
      io.phase = Phase.REMOVE;
      this.remove(io);
    }
  }

  /**
   * The whole blocks are unmapped: head, then tail; `stepEnd` says how far it is. They come last, as to zero a part of a shared block takes a
   * new one, which the whole blocks may have brought.
   */
  next(io: ThinIo): void {
    const { engine } = this;
    const size = engine.blockSizeBytes;
    const { offset, length } = io.request;
    const end = offset + length;
    const firstWhole = Math.ceil(offset / size);
    const noWholeBlock = firstWhole >= io.removeEnd;
    const headEnd = noWholeBlock ? end : firstWhole * size;
    const tailBegin = noWholeBlock ? end : Math.min(io.removeEnd * size, end);
    if (io.stepEnd < headEnd) {
      io.stepBegin = io.stepEnd;
      io.stepEnd = headEnd;
      engine.provisioner.write(io);
    } else if (io.stepEnd < end && tailBegin < end) {
      io.stepBegin = tailBegin;
      io.stepEnd = end;
      engine.provisioner.write(io);
    } else {
      engine.answer(io, null);
    }
  }

  remove(io: ThinIo): void {
    const { engine } = this;
    if (engine.commits.busy) {
      engine.commits.wait(io);
      return;
    }
    if (io.misses < MAX_MISSES && !engine.metadata.areLeavesCached(io.device.thin, io.removeBegin, REMOVE_BATCH)) {
      engine.waitForMetadata(io, Phase.REMOVE);
      return;
    }
    try {
      const begin = io.removeBegin;
      io.removeBegin = engine.metadata.removeRange(io.device.thin, begin, io.removeEnd, REMOVE_BATCH);
      engine.journal?.noteRemove(io.device.thin.id, begin, io.removeBegin);
      io.triedCommit = false;
      io.misses = 0;
    } catch (error) {
      if (error instanceof MetadataSpaceError && engine.space.retryAfterCommit(io)) return;
      engine.answer(io, engine.changeFailed('Cannot remove mappings', error));
      return;
    }
    if (io.removeBegin >= io.removeEnd) {
      io.phase = Phase.MAP;
      this.next(io);
      return;
    }
    if (engine.metadata.freeMetadataBlocks === 0) engine.commits.request();
    setImmediate(this.resume, io);
  }
}
