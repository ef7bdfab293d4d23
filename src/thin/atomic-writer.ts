import { errnoOf } from '../base/errors.ts';
import { MIB } from '../base/units.ts';
import { MetadataSpaceError } from '../persistent-data/space-map.ts';
import type { IoDrain } from './io-drain.ts';
import type { PoolEngine } from './pool-engine.ts';
import { Phase, type ThinIo } from './thin-io.ts';
import { lookUpStep } from './thin-lookup.ts';

/** The longest atomic write, and the largest block of a pool that offers them: what a write does not cover of its blocks is copied. */
const MAX_LENGTH = MIB;

/** Bytes that a write can be atomic over, in a pool of such blocks; 0: none. */
export function atomicWriteBytes(blockSizeBytes: number): number {
  return blockSizeBytes <= MAX_LENGTH ? MAX_LENGTH : 0;
}

/**
 * Writes of which, whatever fails, all is there or nothing.
 *
 * ```
 *   cell -> (older cells there are gone) -> (device I/O that had started is over) -> lookup -> new blocks for all of it -> data, and copies around it
 *     -> (all down) insert the mappings, in one transaction and as one group of the journal -> release the cell
 * ```
 * So a write in place is made one to new blocks, as if a snapshot shared the old ones; these are freed.
 */
export class AtomicWriter {
  private readonly engine: PoolEngine;
  private readonly drain: IoDrain;

  constructor(engine: PoolEngine, drain: IoDrain) {
    this.engine = engine;
    this.drain = drain;
  }

  /** `io` is an atomic write at its begin; or again, with its cell, when it may go on. */
  begin(io: ThinIo): void {
    if (io.cell !== null) {
      this.write(io);
      return;
    }
    const { blockSizeBytes: size } = this.engine;
    io.cell = io.device.prison.hold(Math.floor(io.stepBegin / size), Math.ceil(io.stepEnd / size));
    io.phase = Phase.CLAIM;
    this.claim(io);
  }

  claim(io: ThinIo): void {
    const older = io.device.prison.findOlder(io.cell!);
    if (older !== null) {
      older.waiting.push(io);
      return;
    }
    io.phase = Phase.MAP;
    if (this.drain.enter(io)) this.write(io);
  }

  private write(io: ThinIo): void {
    const { engine } = this;
    if (!lookUpStep(engine, io, true)) return;
    for (let i = 0; i < io.runCount; i++) io.runShared[i] = io.runData[i]! >= 0;
    if (engine.space.mode !== 'write') {
      // It waits without its cell, if it waits.
      engine.releaseCell(io);
      engine.space.mayAllocate(io);
    } else if (this.allocate(io)) engine.startTransfer(io, Phase.INSERT);
  }

  /** A data block for each virtual block, or none at all: false, `io` waits or is answered. */
  private allocate(io: ThinIo): boolean {
    const { engine } = this;
    const { metadata, space, blockSizeBytes: size } = engine;
    const end = Math.ceil(io.stepEnd / size);
    io.newCount = 0;
    try {
      for (let at = Math.floor(io.stepBegin / size); at < end; at++) {
        io.newData[io.newCount] = metadata.allocateDataBlock();
        io.newVirtual[io.newCount] = at;
        io.newCount++;
      }
    } catch (error) {
      for (let i = 0; i < io.newCount; i++) metadata.freeDataBlock(io.newData[i]!);
      engine.releaseCell(io);
      if (errnoOf(error) !== 'ENOSPC' || metadata.mustAbort) {
        engine.answer(io, engine.changeFailed('Cannot allocate a data block', error));
      } else if (error instanceof MetadataSpaceError) space.metadataExhausted(io);
      else if (metadata.freeDataBlocks === 0) space.dataExhausted(io);
      // Some are free: the pool is not full, though there is no room for this.
      else if (!space.comesBack(io)) engine.answer(io, 'ENOSPC');
      return false;
    }
    space.checkLowWater();
    if (metadata.freeMetadataBlocks === 0) engine.commits.request();
    return true;
  }
}
