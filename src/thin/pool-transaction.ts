import { assert } from '../base/assert.ts';
import { type Errno, StorageError, wrapError } from '../base/errors.ts';
import type { BlockDevice, IoCompletion } from '../block/block-device.ts';
import type { BlockManager } from '../persistent-data/block-manager.ts';
import { MetadataSpaceError } from '../persistent-data/space-map.ts';
import { commitBlocks } from './metadata-room.ts';
import { PoolTrees, type WithheldRuns } from './pool-trees.ts';
import {
  encodeSuperblock,
  NEEDS_CHECK_FLAG,
  SUPERBLOCK_LOCATION,
  type Superblock,
  superblockValidator,
} from './superblock.ts';
import { readSuperblock } from './superblock-io.ts';

/** Where a transaction stands. */
type Phase =
  /** Changes are allowed. */
  | 'open'
  | 'prepared'
  | 'writing blocks'
  | 'blocks written'
  | 'writing superblock'
  /** A change or a step of the commit failed half-way: only `abort` goes on. */
  | 'failed'
  /** Closed, or an abort failed: nothing goes on. */
  | 'dead';

/** What is done with what the transaction leaves in memory, when it ends. */
export interface TransactionListener {
  transactionCommitted(): void;
  transactionAborted(): void;
}

/**
 * The life of a pool's transactions: what state changes are allowed in, the commit in steps, and the way back.
 *
 * A commit makes everything durable, or nothing: all changed blocks are written to places that the last commit does not use,
 * flushed, and then one sector is written that leads to them. See `PoolMetadata` for the steps as callers see them.
 */
export class PoolTransaction {
  readonly device: BlockDevice;
  readonly blocks: BlockManager;
  trees: PoolTrees;
  /** As the next commit writes it, but for the roots. */
  superblock: Superblock;
  /** Something was changed since the last commit. */
  changed = false;
  readonly #openReadOnly: boolean;
  readonly #withheld: WithheldRuns;
  readonly #listener: TransactionListener;
  /** As the last commit wrote it. */
  #committed: Superblock;
  #phase: Phase = 'open';
  #stepCompletion: IoCompletion | null = null;

  constructor(
    blocks: BlockManager,
    trees: PoolTrees,
    superblock: Superblock,
    readOnly: boolean,
    withheld: WithheldRuns,
    listener: TransactionListener,
  ) {
    this.device = blocks.device;
    this.blocks = blocks;
    this.trees = trees;
    this.superblock = superblock;
    this.#committed = { ...superblock };
    this.#openReadOnly = readOnly;
    this.#withheld = withheld;
    this.#listener = listener;
  }

  get committedIdentity(): string {
    return JSON.stringify(this.#committed);
  }

  get needsCheck(): boolean {
    return (this.#committed.flags & NEEDS_CHECK_FLAG) !== 0;
  }

  get readOnly(): boolean {
    return this.#openReadOnly || this.needsCheck;
  }

  get mustAbort(): boolean {
    return this.#phase === 'failed';
  }

  /** Comes before everything that reads. EIO when dead. */
  checkAlive(): void {
    if (this.#phase === 'dead') {
      throw new StorageError('EIO', 'Cannot use the pool metadata: it was closed or an abort failed');
    }
    // A lookup that threw has left its blocks pinned.
    this.blocks.release(0);
  }

  /** Comes before everything that changes. EPERM when read-only, EIO when the transaction must be aborted. */
  checkChangeable(action: string): void {
    this.checkWritable(action);
    assert(this.#phase === 'open', 'The metadata is changed during a commit');
  }

  /** Comes before what only prepares a change, as may be done during a commit. EPERM, EIO. */
  checkWritable(action: string): void {
    this.checkAlive();
    if (this.readOnly) {
      const reason = this.needsCheck ? 'the metadata needs a check' : 'the metadata is open read-only';
      throw new StorageError('EPERM', `Cannot ${action}: ${reason}`);
    }
    if (this.#phase === 'failed') {
      throw new StorageError('EIO', `Cannot ${action}: the transaction has failed and must be aborted`);
    }
  }

  /**
   * Refuses what could run out of metadata blocks half-way: it may take `blocks` new ones, and then there is the commit. Returns
   * how many are left beyond that.
   */
  checkRoom(blocks: number, changedDevices: number, action: string): number {
    const { metadataMap, dataMap } = this.trees;
    const needed = blocks + commitBlocks(metadataMap.blockCount, dataMap.bitmapCount, changedDevices);
    if (metadataMap.allocatableCount >= needed) return metadataMap.allocatableCount - needed;
    throw new MetadataSpaceError(
      `Cannot ${action}: the metadata device has ${metadataMap.allocatableCount} free blocks and may need ${needed}`,
    );
  }

  /** Runs a change that has been found possible: whatever it throws now has left something half done. */
  change(work: () => void): void {
    this.changed = true;
    try {
      work();
    } catch (error) {
      this.fail();
      throw error;
    }
  }

  /** Something was left half done. */
  fail(): void {
    if (this.#phase !== 'dead') this.#phase = 'failed';
    this.blocks.release(0);
  }

  prepareCommit(writeDetails: () => void): void {
    this.checkChangeable('commit');
    try {
      writeDetails();
      this.trees.dataBlocks.prepareCommit();
      this.trees.metadataBlocks.prepareCommit();
    } catch (error) {
      this.fail();
      throw error;
    }
    this.#phase = 'prepared';
  }

  writeBlocks(completion: IoCompletion): void {
    assert(this.#phase === 'prepared', 'writeBlocks comes after prepareCommit');
    this.#phase = 'writing blocks';
    this.#stepCompletion = completion;
    this.blocks.writeDirty(this.#step);
  }

  writeSuperblock(completion: IoCompletion): void {
    assert(this.#phase === 'blocks written', 'writeSuperblock comes after writeBlocks');
    this.#phase = 'writing superblock';
    this.#stepCompletion = completion;
    this.#fillSuperblock();
    this.blocks.writeDirty(this.#step);
  }

  /** `prepareCommit` has been done. */
  writeSync(): void {
    assert(this.#phase === 'prepared', 'writeSync comes after prepareCommit');
    try {
      this.blocks.writeDirtySync();
      this.#flushSync();
      this.#fillSuperblock();
      this.blocks.writeDirtySync();
      this.#flushSync();
    } catch (error) {
      this.fail();
      throw error;
    }
    this.#committedNow();
  }

  abort(): void {
    assert(this.#phase !== 'writing blocks' && this.#phase !== 'writing superblock', 'abort while a commit writes');
    // Until everything has been read again.
    this.#phase = 'dead';
    this.blocks.reset();
    this.superblock = readSuperblock(this.device, this.#openReadOnly);
    this.#committed = { ...this.superblock };
    this.trees = PoolTrees.open(this.blocks, this.superblock, this.#withheld);
    this.#phase = 'open';
    this.changed = false;
    try {
      this.#listener.transactionAborted();
    } catch (error) {
      this.#phase = 'dead';
      throw error;
    }
  }

  /** Writes the flags alone, on top of the last commit, and flushes. */
  writeNeedsCheck(needsCheck: boolean): void {
    this.checkAlive();
    assert(this.#phase === 'open' && !this.changed, 'The needs-check flag is written between transactions');
    if (this.#openReadOnly) {
      throw new StorageError('EPERM', 'Cannot write the needs-check flag: the metadata is open read-only');
    }
    const { flags } = this.#committed;
    this.superblock.flags = needsCheck ? flags | NEEDS_CHECK_FLAG : flags & ~NEEDS_CHECK_FLAG;
    this.#encode(this.superblock);
    try {
      this.blocks.writeDirtySync();
      this.#flushSync();
    } catch (error) {
      this.#phase = 'dead';
      throw error;
    }
    this.#committed = { ...this.superblock };
  }

  close(): void {
    this.#phase = 'dead';
    this.blocks.reset();
  }

  readonly #step: IoCompletion = { ioDone: (error) => this.#stepDone(error) };

  #stepDone(error: Errno | null): void {
    const completion = this.#stepCompletion!;
    this.#stepCompletion = null;
    if (error !== null) this.#phase = 'failed';
    else if (this.#phase === 'writing blocks') this.#phase = 'blocks written';
    else this.#committedNow();
    completion.ioDone(error);
  }

  #committedNow(): void {
    this.trees.committed();
    this.#committed = { ...this.superblock };
    this.changed = false;
    this.#phase = 'open';
    this.#listener.transactionCommitted();
  }

  #fillSuperblock(): void {
    const { superblock, trees } = this;
    superblock.mappingRoot = trees.mappingRoot;
    superblock.detailsRoot = trees.detailsRoot;
    superblock.dataSpaceMap = trees.dataMap.root;
    superblock.metadataSpaceMap = trees.metadataMap.root;
    this.#encode(superblock);
  }

  #encode(superblock: Superblock): void {
    const mark = this.blocks.mark();
    encodeSuperblock(superblock, this.blocks.create(SUPERBLOCK_LOCATION, superblockValidator).words);
    this.blocks.release(mark);
  }

  #flushSync(): void {
    try {
      this.device.flushSync();
    } catch (error) {
      throw wrapError(`Cannot flush "${this.device.path}"`, error);
    }
  }
}
