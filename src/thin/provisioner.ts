import { errnoOf } from '../base/errors.ts';
import { MetadataSpaceError } from '../persistent-data/space-map.ts';
import type { PoolEngine } from './pool-engine.ts';
import { Phase, type ThinIo } from './thin-io.ts';
import { lookUpStep } from './thin-lookup.ts';

/** Metadata blocks that a group of insertions changes at most, well counted: paths, splits and space maps; and each mapping of it. */
const METADATA_FOR_GROUP = 64;
const METADATA_PER_MAPPING = 8;

/**
 * Writes that may need new blocks: the first write to a block, and a write to a block that a snapshot shares.
 *
 * ```
 *   cell, lookup -> allocate -> data, and zeroes or copies around it -> (all down) insert the mappings -> release the cell
 * ```
 * A write to blocks that are mapped and not shared goes straight to its place.
 */
export class Provisioner {
  private readonly engine: PoolEngine;

  constructor(engine: PoolEngine) {
    this.engine = engine;
  }

  /** A write, or zeroes, over the step of `io`. */
  write(io: ThinIo): void {
    const { engine } = this;
    const size = engine.blockSizeBytes;
    const { prison } = io.device;
    if (prison.busy && io.cell === null) {
      const cell = prison.find(Math.floor(io.stepBegin / size), Math.ceil(io.stepEnd / size));
      if (cell !== null) {
        cell.waiting.push(io);
        return;
      }
    }
    if (!lookUpStep(engine, io, true)) return;
    let first = -1;
    let last = 0;
    let at = Math.floor(io.stepBegin / size);
    for (let i = 0; i < io.runCount; i++) {
      if (needsBlocks(io, i)) {
        if (first < 0) first = at;
        last = io.runEnd[i]!;
      }
      at = io.runEnd[i]!;
    }
    if (first < 0) {
      engine.startTransfer(io, Phase.TRANSFER);
      return;
    }
    if (!engine.space.mayAllocate(io) || !this.allocate(io)) return;
    if (io.cell === null) io.cell = prison.hold(first, last);
    engine.startTransfer(io, io.newCount > 0 ? Phase.INSERT : Phase.TRANSFER);
  }

  /**
   * Allocates a data block for each virtual block of the step that needs one. Where there are too few the step is cut before the
   * first block that has none, so that space that is there is used. False: nothing can be done, `io` waits or is answered.
   */
  private allocate(io: ThinIo): boolean {
    const { engine } = this;
    const { metadata, space, blockSizeBytes } = engine;
    io.newCount = 0;
    let at = Math.floor(io.stepBegin / blockSizeBytes);
    try {
      for (let i = 0; i < io.runCount; i++) {
        const end = io.runEnd[i]!;
        if (needsBlocks(io, i)) {
          for (; at < end; at++) {
            io.newData[io.newCount] = metadata.allocateDataBlock();
            io.newVirtual[io.newCount] = at;
            io.newCount++;
          }
        }
        at = end;
      }
    } catch (error) {
      if (errnoOf(error) !== 'ENOSPC' || metadata.mustAbort) {
        engine.answer(io, engine.changeFailed('Cannot allocate a data block', error));
        return false;
      }
      if (at * blockSizeBytes <= io.stepBegin) {
        if (error instanceof MetadataSpaceError) space.metadataExhausted(io);
        else space.dataExhausted(io);
        return false;
      }
      io.stepEnd = at * blockSizeBytes;
    }
    space.checkLowWater();
    if (metadata.freeMetadataBlocks === 0) engine.commits.request();
    return true;
  }

  /** The data of the new blocks is down, or could not be written: then they go back. */
  insert(io: ThinIo): void {
    const { engine } = this;
    if (io.error !== null) {
      this.giveBack(io, 0);
      engine.answer(io, io.error);
      return;
    }
    if (engine.commits.busy) {
      engine.commits.wait(io);
      return;
    }
    let inserted = 0;
    if (io.request.atomic && !this.beginGroup(io)) return;
    try {
      for (; inserted < io.newCount; inserted++) {
        engine.metadata.insert(io.device.thin, io.newVirtual[inserted]!, io.newData[inserted]!);
        engine.journal?.noteInsert(io.device.thin.id, io.newVirtual[inserted]!, io.newData[inserted]!);
      }
    } catch (error) {
      this.giveBack(io, inserted);
      const code = engine.changeFailed('Cannot insert a mapping', error);
      engine.answer(io, code);
      return;
    }
    engine.commits.blocksAdded(inserted);
    engine.stepDone(io);
  }

  /** What is inserted now is there as a whole or not at all. False: there is no room for that, `io` is answered. */
  private beginGroup(io: ThinIo): boolean {
    const { engine } = this;
    if (engine.metadata.freeMetadataBlocks < METADATA_FOR_GROUP + METADATA_PER_MAPPING * io.newCount) {
      this.giveBack(io, 0);
      engine.answer(io, 'ENOSPC');
      return false;
    }
    engine.journal?.beginGroup(io.newCount);
    return true;
  }

  /** Gives the new blocks from entry `from` on up. */
  private giveBack(io: ThinIo, from: number): void {
    for (let i = from; i < io.newCount; i++) this.engine.metadata.freeDataBlock(io.newData[i]!);
  }
}

/** Whether run `i` of the step is to be mapped to new blocks. */
function needsBlocks(io: ThinIo, i: number): boolean {
  return io.runData[i]! < 0 ? !io.skipUnmapped : io.runShared[i]!;
}
