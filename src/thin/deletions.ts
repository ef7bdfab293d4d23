import { messageOf, StorageError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { Waiters } from '../base/waiters.ts';
import type { IoCompletion } from '../block/block-device.ts';
import { MetadataSpaceError } from '../persistent-data/space-map.ts';
import type { Catalogue, DeletionRecord } from './catalogue.ts';
import type { PoolEngine } from './pool-engine.ts';
import type { PoolMetadata } from './pool-metadata.ts';

/**
 * Leaves of at most 252 mappings that are dropped in one go before other requests have their turn: a millisecond, and a few where their data
 * blocks are strewn over the device and others compete for the processor.
 */
const STEP_LEAVES = 8;
/** So many are read at once. */
const READ_AHEAD_LEAVES = 24;
/** Once for each level of a large tree. Then they are read synchronously: it may be that nothing can be read ahead. */
const MAX_READ_AHEADS = 4;

export interface DeletionsOwner {
  readonly catalogue: Catalogue;
  readonly metadata: PoolMetadata;
  readonly engine: PoolEngine;
  readonly logger: Logger;
  /** Runs a change of the catalogue when no other is under way. Rejects when the pool is being closed. */
  exclusive(change: () => Promise<void>): Promise<void>;
}

/**
 * Devices whose volumes are deleted already, taken away in the background: a step, then whatever else is to be done, then the next
 * step. The catalogue remembers them, so the next open goes on where the last commit was. Their ids are taken until they are gone.
 */
export class Deletions {
  private readonly owner: DeletionsOwner;
  private running = false;
  private stopped = false;
  private readonly waiters: Waiters = new Waiters();
  private readonly next = (): void => this.owner.engine.commits.whenQuiet(this.stepBound);
  private readonly stepBound = (): void => this.step();
  /** How often the leaves of the next step, or the nodes above them, were read ahead. */
  private readAheads = 0;
  private readonly prefetched: IoCompletion = { ioDone: () => this.next() };

  constructor(owner: DeletionsOwner) {
    this.owner = owner;
  }

  /** Blocks that the devices still map. */
  get mappedBlocks(): number {
    const { metadata, catalogue } = this.owner;
    let mapped = 0;
    for (const { id } of catalogue.deleting) {
      if (!metadata.hasThin(id)) continue;
      const thin = metadata.openThin(id);
      mapped += thin.mappedBlocks;
      metadata.closeThin(thin);
    }
    return mapped;
  }

  /** What deleting the device writes down in the catalogue; null when it is so quick that it can be done at once. */
  recordFor(id: number): DeletionRecord | null {
    const { metadata } = this.owner;
    if (metadata.isQuickToDelete(id, STEP_LEAVES)) return null;
    const thin = metadata.openThin(id);
    const { transactionId } = thin;
    metadata.closeThin(thin);
    return { id, transactionId };
  }

  /** Of the catalogue's records, those whose device is there; another program may have made another one of the same id. */
  presentRecords(): DeletionRecord[] {
    const { catalogue, metadata } = this.owner;
    return catalogue.deleting.filter(({ id, transactionId }) => {
      if (!metadata.hasThin(id)) return false;
      const thin = metadata.openThin(id);
      metadata.closeThin(thin);
      return thin.transactionId === transactionId;
    });
  }

  /** Goes on if there is something to be done: after a deletion, at open, and when there may be room again. */
  kick(): void {
    if (this.running || this.stopped || this.owner.catalogue.deleting.length === 0) return;
    this.running = true;
    setImmediate(this.next);
  }

  /** Resolves when all is done, or nothing more can be done for now. */
  async ended(): Promise<void> {
    while (this.running) await this.waiters.wait();
  }

  /** No step begins any more. */
  async stop(): Promise<void> {
    this.stopped = true;
    await this.ended();
  }

  private rest(): void {
    this.running = false;
    this.waiters.wake();
  }

  private step(): void {
    const { engine, metadata, catalogue, logger } = this.owner;
    const id = catalogue.deleting[0]?.id;
    if (this.stopped || id === undefined || engine.space.mode === 'fail' || metadata.readOnly) {
      this.rest();
      return;
    }
    try {
      const mayReadAhead = this.readAheads < MAX_READ_AHEADS && metadata.hasThin(id);
      if (mayReadAhead && !metadata.isDeletionCached(id, STEP_LEAVES)) {
        this.readAheads++;
        metadata.isDeletionCached(id, READ_AHEAD_LEAVES);
        if (metadata.prefetch(this.prefetched)) return;
      }
      this.readAheads = 0;
      if (!metadata.hasThin(id) || metadata.deleteThinStep(id, STEP_LEAVES)) {
        void this.finish(id);
        return;
      }
    } catch (error) {
      if (error instanceof MetadataSpaceError && !metadata.mustAbort && metadata.changed) {
        // What earlier steps have freed can be used after a commit.
        void this.commitThenGoOn();
        return;
      }
      logger.warn({ device: id, error: messageOf(error) }, 'the deletion of a volume has to wait');
      if (metadata.mustAbort || !(error instanceof StorageError)) engine.changeFailed('Cannot delete a device', error);
      this.rest();
      return;
    }
    if (engine.space.mode !== 'write') engine.commits.request();
    engine.schedule();
    setImmediate(this.next);
  }

  private async commitThenGoOn(): Promise<void> {
    try {
      await this.owner.engine.commits.commit();
      setImmediate(this.next);
    } catch {
      this.rest();
    }
  }

  /** The device is gone with the next commit; only then may the catalogue forget it. */
  private async finish(id: number): Promise<void> {
    const { catalogue, engine, logger } = this.owner;
    try {
      await engine.commits.commit();
      await this.owner.exclusive(async () => catalogue.setDeleting(catalogue.deleting.filter((one) => one.id !== id)));
      logger.info({ device: id }, 'a deleted volume is gone');
      setImmediate(this.next);
    } catch {
      // The next open finds that the device is gone, or that the commit has failed.
      this.rest();
    }
  }
}
