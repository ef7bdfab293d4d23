import { RunSet } from '../base/run-set.ts';
import type { IoCompletion } from '../block/block-device.ts';
import type { BlockManager, BlockStats } from '../persistent-data/block-manager.ts';
import type { AllocationOrder } from '../persistent-data/space-map.ts';
import { metadataLowThreshold, metadataReserve } from './metadata-room.ts';
import { PoolTransaction } from './pool-transaction.ts';
import type { PoolTrees, WithheldRuns } from './pool-trees.ts';
import type { Superblock } from './superblock.ts';
import { ThinDevices } from './thin-devices.ts';

/** What a pool's metadata says about itself, and how its transactions end. The rest is `PoolMetadata`. */
export class PoolState {
  /** Counters of the block cache. */
  readonly stats: BlockStats;
  /** Data blocks whose count has fallen to 0, if `recordFreed`. Not handed out until the caller takes them out, after the commit. */
  readonly freed: RunSet;
  /** Data blocks that are not handed out. The caller adds and removes sets of its own: what it is discarding. */
  readonly withheld: RunSet[];
  protected readonly reserved: RunSet;
  /** Data blocks that copies have shared in this transaction: see `RangeSharing`. */
  protected readonly sharedNow: RunSet = new RunSet();
  protected readonly transaction: PoolTransaction;
  protected readonly devices: ThinDevices;
  #recordFreed = false;
  #allocationOrder: AllocationOrder = 'sweep';

  protected constructor(
    blocks: BlockManager,
    trees: PoolTrees,
    superblock: Superblock,
    readOnly: boolean,
    withheld: WithheldRuns,
  ) {
    this.stats = blocks.stats;
    this.freed = withheld.freed;
    this.withheld = withheld.all;
    this.reserved = withheld.reserved;
    this.transaction = new PoolTransaction(blocks, trees, superblock, readOnly, withheld, {
      transactionCommitted: () => {
        this.sharedNow.clear();
        this.devices.committed();
      },
      transactionAborted: () => {
        this.sharedNow.clear();
        this.freed.clear();
        this.#applySettings();
        this.devices.aborted();
      },
    });
    this.devices = new ThinDevices(this.transaction);
  }

  get dataBlockSizeBytes(): number {
    return this.transaction.superblock.dataBlockSizeBytes;
  }

  /** For the pool's owner: dm-thin only stores it. */
  get transactionId(): number {
    return this.transaction.superblock.transactionId;
  }

  /** Counts snapshots. */
  get time(): number {
    return this.transaction.superblock.time;
  }

  /** The metadata snapshot's block; 0 when there is none. */
  get heldRoot(): number {
    return this.transaction.superblock.heldRoot;
  }

  /** An earlier transaction was aborted: changes are refused until the metadata has been checked. */
  get needsCheck(): boolean {
    return this.transaction.needsCheck;
  }

  /** Changes are refused with EPERM. */
  get readOnly(): boolean {
    return this.transaction.readOnly;
  }

  /** Differs whenever what was last committed differs. */
  get committedIdentity(): string {
    return this.transaction.committedIdentity;
  }

  get dataBlockCount(): number {
    return this.transaction.trees.dataMap.blockCount;
  }

  /** Without a reference and not set aside. Those freed in this transaction cannot be allocated before the commit. */
  get freeDataBlocks(): number {
    return this.transaction.trees.dataMap.freeCount - this.reserved.count;
  }

  /** The next free data blocks at or behind `from`, at most `limit`; null when there are none. Those set aside or just freed are not free. */
  freeDataRun(from: number, limit: number): { begin: number; end: number } | null {
    return this.transaction.trees.dataMap.freeRun(from, limit);
  }

  get metadataBlockCount(): number {
    return this.transaction.trees.metadataMap.blockCount;
  }

  /** What this transaction can still allocate, less the reserve; not below 0. */
  get freeMetadataBlocks(): number {
    return Math.max(0, this.transaction.trees.metadataMap.allocatableCount - this.metadataReserveBlocks);
  }

  /** The same, the reserve included. */
  get freeMetadataBlocksWithReserve(): number {
    return this.transaction.trees.metadataMap.allocatableCount;
  }

  get metadataReserveBlocks(): number {
    return metadataReserve(this.metadataBlockCount);
  }

  /** Free blocks, the reserve included, at which the metadata device should be grown. */
  get metadataLowThresholdBlocks(): number {
    return metadataLowThreshold(this.metadataBlockCount);
  }

  /** This transaction has changed something. */
  get changed(): boolean {
    return this.transaction.changed;
  }

  /** A call failed half-way: the transaction can only be aborted. */
  get mustAbort(): boolean {
    return this.transaction.mustAbort;
  }

  /** Blocks that a commit would write now. Past half of `cacheBlocks` a commit is due: the cache makes room by blocking writes. */
  get dirtyBlocks(): number {
    return this.transaction.blocks.dirtyBlocks;
  }

  get cacheBlocks(): number {
    return this.transaction.blocks.capacityBlocks;
  }

  /** Runs of data blocks that only a commit makes cheap to remember. */
  get runsUntilCommit(): number {
    return Math.max(this.freed.runCount, this.sharedNow.runCount);
  }

  /** Whether `freed` is filled. Off, freed blocks are just free after the commit. */
  get recordFreed(): boolean {
    return this.#recordFreed;
  }

  set recordFreed(record: boolean) {
    this.#recordFreed = record;
    this.#applySettings();
  }

  /** Of data blocks. */
  get allocationOrder(): AllocationOrder {
    return this.#allocationOrder;
  }

  set allocationOrder(order: AllocationOrder) {
    this.#allocationOrder = order;
    this.#applySettings();
  }

  /**
   * Reads what lookups have missed; `completion` is called later, always without an error, as the next lookup reports it. Returns
   * false when there is nothing to wait for: look up again, and not `nonBlocking` if that has just missed.
   */
  prefetch(completion: IoCompletion): boolean {
    return this.transaction.blocks.prefetch(completion);
  }

  /**
   * First step of a commit: everything that the transaction has changed is brought into blocks. From here to the end of
   * `writeSuperblock` lookups go on, changes are an assertion. When it throws, abort.
   */
  prepareCommit(): void {
    this.transaction.prepareCommit(() => this.devices.writeDetails());
  }

  /** Second step: writes every changed block, then flushes the device. On an error, abort. */
  writeBlocks(completion: IoCompletion): void {
    this.transaction.writeBlocks(completion);
  }

  /** Last step: writes the superblock, then flushes the device: that is the commit. On success the next transaction has begun. On an error, abort. */
  writeSuperblock(completion: IoCompletion): void {
    this.transaction.writeSuperblock(completion);
  }

  /** All of it, waiting; nothing when nothing has changed. When it throws, abort. */
  commitSync(): void {
    if (!this.changed) return;
    this.prepareCommit();
    this.transaction.writeSync();
  }

  /**
   * Back to the last commit that reached the device. Devices stay open, with their details read again; those that had changes have
   * `abortedWithChanges` set. Not while a step of a commit is running. When it throws, nothing can be done with the pool any more.
   */
  abort(): void {
    this.transaction.abort();
  }

  /** What open devices have written and not flushed may be gone: they have `abortedWithChanges` set. */
  dataLost(): void {
    this.devices.dataLost();
  }

  /** Sets the flag on the device, flushed, on top of the last commit; from then on changes are refused. Throws the device's error. */
  setNeedsCheck(): void {
    this.transaction.writeNeedsCheck(true);
  }

  /** For who has checked the metadata. */
  clearNeedsCheck(): void {
    this.transaction.writeNeedsCheck(false);
  }

  /** Does not commit, and leaves the device open. */
  close(): void {
    this.transaction.close();
    this.devices.closeAll();
  }

  #applySettings(): void {
    const { dataMap } = this.transaction.trees;
    dataMap.freed = this.#recordFreed ? this.freed : null;
    dataMap.order = this.#allocationOrder;
  }
}
