import { assert } from '../base/assert.ts';
import { type Errno, StorageError, wrapError } from '../base/errors.ts';
import { RunSet } from '../base/run-set.ts';
import type { BlockDevice, IoCompletion } from '../block/block-device.ts';
import { bitmapsFor } from '../persistent-data/bitmap.ts';
import { BLOCK_SIZE, checkBlock } from '../persistent-data/block.ts';
import { BlockManager, type BlockStats, DEFAULT_CACHE_BLOCKS } from '../persistent-data/block-manager.ts';
import { NO_KEY } from '../persistent-data/btree.ts';
import { MAX_METADATA_BLOCKS } from '../persistent-data/index-entry.ts';
import { type AllocationOrder, MetadataSpaceError } from '../persistent-data/space-map.ts';
import { TIME_LIMIT, writeBlockTime } from './block-time.ts';
import { DEVICE_ID_LIMIT, type DeviceDetails } from './device-details.ts';
import { PoolTrees, type WithheldRuns } from './pool-trees.ts';
import { lookupRun, type RunResult } from './run-lookup.ts';
import {
  dataBlockSizeDamage,
  decodeSuperblock,
  encodeSuperblock,
  MAX_DATA_BLOCKS,
  NEEDS_CHECK_FLAG,
  SUPERBLOCK_LOCATION,
  type Superblock,
  superblockDamage,
  superblockIdentity,
  superblockValidator,
  THIN_VERSION,
  unknownFeatures,
} from './superblock.ts';
import { NO_ROOT, ThinMetadata } from './thin-metadata.ts';

export interface FormatOptions {
  /** A multiple of 64 KiB, at most 1 GiB. */
  dataBlockSizeBytes: number;
  dataBlockCount: number;
  cacheBlocks?: number;
}

export interface OpenOptions {
  readOnly?: boolean;
  /** EINVAL when the metadata says otherwise. */
  expectedDataBlockSizeBytes?: number;
  /** Slots of the block cache, 4 KiB each. */
  cacheBlocks?: number;
}

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
  /** An abort failed: nothing goes on. */
  | 'dead';

/** The reserve that free counts hide, so that a pool which says that it is full can still delete and commit. */
const MAX_RESERVE_BLOCKS = 4096;
const RESERVE_DIVISOR = 10;
const MAX_LOW_THRESHOLD_BLOCKS = 1024;
const LOW_THRESHOLD_DIVISOR = 4;

/**
 * The metadata of a thin pool, in dm-thin's format: devices, their mappings, the reference counts of both devices'
 * blocks, and the transactions that change them.
 *
 * Every change belongs to the current transaction and becomes durable, all or nothing, with the commit. The pool sees to it
 * that data which a new mapping refers to is durable *before* `writeBlocks`.
 *
 * Everything is synchronous except the commit's two writing steps and `prefetch`. Failures are `StorageError`s. A call that
 * refuses (EEXIST, ENODATA, EINVAL, EBUSY, EPERM, most ENOSPC) has changed nothing. After one that failed half-way `mustAbort`
 * is true, and nothing but `abort` is accepted. ENOSPC of the metadata device is a `MetadataSpaceError`.
 */
export class PoolMetadata {
  /** Counters of the block cache. */
  readonly stats: BlockStats;
  /** Data blocks whose count has fallen to 0, if `recordFreed`. Not handed out until the caller takes them out, after the commit. */
  readonly freed: RunSet;
  /** Data blocks that the caller is discarding: not handed out. The caller adds and removes. */
  readonly discarding: RunSet;
  readonly #device: BlockDevice;
  readonly #blocks: BlockManager;
  readonly #withheld: WithheldRuns;
  #readOnly: boolean;
  #recordFreed = false;
  #allocationOrder: AllocationOrder = 'sweep';
  #trees: PoolTrees;
  /** As the next commit writes it, but for the roots. */
  #superblock: Superblock;
  /** As the last commit wrote it. */
  #committed: Superblock;
  #phase: Phase = 'open';
  #changed = false;
  readonly #open: Map<number, ThinMetadata> = new Map();
  readonly #changedThins: ThinMetadata[] = [];
  /** Devices that were created or changed while not open. */
  readonly #changedIds: Set<number> = new Set();
  readonly #value: Uint32Array = new Uint32Array(2);
  readonly #details: DeviceDetails = { mappedBlocks: 0, transactionId: 0, creationTime: 0, snapshottedTime: 0 };
  #stepCompletion: IoCompletion | null = null;

  private constructor(blocks: BlockManager, trees: PoolTrees, superblock: Superblock, withheld: WithheldRuns) {
    this.#device = blocks.device;
    this.#blocks = blocks;
    this.stats = blocks.stats;
    this.#trees = trees;
    this.#superblock = superblock;
    this.#committed = { ...superblock };
    this.#readOnly = false;
    this.#withheld = withheld;
    this.freed = withheld.freed;
    this.discarding = withheld.discarding;
  }

  /**
   * Makes the device a pool's metadata, whatever it held, and opens it. EINVAL for a wrong block size or count, ENOSPC when
   * the device is too small to count so many data blocks.
   */
  static format(device: BlockDevice, options: FormatOptions): PoolMetadata {
    const { dataBlockSizeBytes, dataBlockCount } = options;
    const action = `Cannot format pool metadata "${device.path}"`;
    const damage = dataBlockSizeDamage(dataBlockSizeBytes);
    if (damage !== null) throw new StorageError('EINVAL', `${action}: ${damage}`);
    if (!Number.isSafeInteger(dataBlockCount) || dataBlockCount < 1 || dataBlockCount > MAX_DATA_BLOCKS) {
      throw new StorageError('EINVAL', `${action}: ${dataBlockCount} data blocks, expected 1 to ${MAX_DATA_BLOCKS}`);
    }
    const blockCount = usableBlocks(device);
    // Root blocks and the copies that the first commits make of them; then the bitmaps.
    const needed = 16 + 2 * bitmapsFor(blockCount) + Math.ceil(bitmapsFor(dataBlockCount) * 1.05);
    if (blockCount < needed) {
      throw new StorageError('ENOSPC', `${action}: it has ${blockCount} blocks of 4 KiB and needs at least ${needed}`);
    }
    const withheld = { freed: new RunSet(), discarding: new RunSet() };
    const blocks = newBlockManager(device, blockCount, options.cacheBlocks);
    // What was there before is not to be taken for a pool if this is interrupted.
    blocks.create(SUPERBLOCK_LOCATION, superblockValidator);
    blocks.writeDirtySync();
    device.flushSync();
    blocks.reset();
    const trees = PoolTrees.format(blocks, withheld);
    const pool = new PoolMetadata(blocks, trees, newSuperblock(dataBlockSizeBytes, blockCount), withheld);
    pool.#changed = true;
    pool.commitSync();
    // In a commit of its own, as the kernel does it.
    pool.resizeData(dataBlockCount);
    pool.commitSync();
    return pool;
  }

  /**
   * ENODATA when the device was never formatted; EILSEQ, ENOTBLK for damage or another kind of metadata; EINVAL for another data
   * block size, unknown features or a device that has become too small. With `needsCheck` set it opens read-only.
   */
  static open(device: BlockDevice, options: OpenOptions = {}): PoolMetadata {
    const readOnly = options.readOnly === true || device.readOnly;
    const superblock = readSuperblock(device, readOnly);
    const expected = options.expectedDataBlockSizeBytes;
    if (expected !== undefined && superblock.dataBlockSizeBytes !== expected) {
      throw new StorageError(
        'EINVAL',
        `Cannot open pool metadata "${device.path}": data block size is ${superblock.dataBlockSizeBytes}, expected ${expected}`,
      );
    }
    const blocks = newBlockManager(device, superblock.metadataSpaceMap.blockCount, options.cacheBlocks);
    const withheld = { freed: new RunSet(), discarding: new RunSet() };
    const trees = PoolTrees.open(blocks, superblock, withheld);
    const pool = new PoolMetadata(blocks, trees, superblock, withheld);
    pool.#readOnly = readOnly;
    return pool;
  }

  get dataBlockSizeBytes(): number {
    return this.#superblock.dataBlockSizeBytes;
  }

  /** For the pool's owner: dm-thin only stores it. */
  get transactionId(): number {
    return this.#superblock.transactionId;
  }

  /** Counts snapshots. */
  get time(): number {
    return this.#superblock.time;
  }

  /** An earlier transaction was aborted: changes are refused until the metadata has been checked. */
  get needsCheck(): boolean {
    return (this.#committed.flags & NEEDS_CHECK_FLAG) !== 0;
  }

  /** Changes are refused with EPERM. */
  get readOnly(): boolean {
    return this.#readOnly || this.needsCheck;
  }

  get dataBlockCount(): number {
    return this.#trees.dataMap.blockCount;
  }

  /** Without a reference now. Those freed in this transaction cannot be allocated before the commit. */
  get freeDataBlocks(): number {
    return this.#trees.dataMap.freeCount;
  }

  get metadataBlockCount(): number {
    return this.#trees.metadataMap.blockCount;
  }

  /** What this transaction can still allocate, less the reserve; not below 0. */
  get freeMetadataBlocks(): number {
    return Math.max(0, this.#trees.metadataMap.allocatableCount - this.metadataReserveBlocks);
  }

  /** Kept back so that a full pool can still delete and commit. */
  get metadataReserveBlocks(): number {
    return Math.min(MAX_RESERVE_BLOCKS, Math.floor(this.metadataBlockCount / RESERVE_DIVISOR));
  }

  /** Free blocks, the reserve included, below which the metadata device should be grown. */
  get metadataLowThresholdBlocks(): number {
    return Math.min(MAX_LOW_THRESHOLD_BLOCKS, Math.floor(this.metadataBlockCount / LOW_THRESHOLD_DIVISOR));
  }

  /** The metadata snapshot's block; 0 when there is none. */
  get heldRoot(): number {
    return this.#superblock.heldRoot;
  }

  /** This transaction has changed something. */
  get changed(): boolean {
    return this.#changed;
  }

  /** A call failed half-way: the transaction can only be aborted. */
  get mustAbort(): boolean {
    return this.#phase === 'failed';
  }

  /** Blocks that a commit would write now. Past half of `cacheBlocks` a commit is due: the cache makes room by blocking writes. */
  get dirtyBlocks(): number {
    return this.#blocks.dirtyBlocks;
  }

  get cacheBlocks(): number {
    return this.#blocks.capacityBlocks;
  }

  /** Whether `freed` is filled. Off, freed blocks are just free after the commit. */
  get recordFreed(): boolean {
    return this.#recordFreed;
  }

  set recordFreed(record: boolean) {
    this.#recordFreed = record;
    this.#applySettings();
  }

  get allocationOrder(): AllocationOrder {
    return this.#allocationOrder;
  }

  set allocationOrder(order: AllocationOrder) {
    this.#allocationOrder = order;
    this.#applySettings();
  }

  /** EINVAL when the id is not `expectedOld` any more. */
  setTransactionId(expectedOld: number, next: number): void {
    this.#checkChangeable('set the transaction id');
    if (expectedOld !== this.transactionId) {
      throw new StorageError(
        'EINVAL',
        `Cannot set the transaction id: it is ${this.transactionId}, expected ${expectedOld}`,
      );
    }
    if (!Number.isSafeInteger(next) || next < 0) {
      throw new StorageError('EINVAL', `Cannot set the transaction id: ${next} is not a whole number below 2^53`);
    }
    this.#superblock.transactionId = next;
    this.#changed = true;
  }

  /** EEXIST, EINVAL for an id of more than 24 bits, ENOSPC. */
  createThin(id: number): void {
    const action = `create thin device ${id}`;
    this.#checkNewDevice(id, action);
    this.#change(() => {
      const trees = this.#trees;
      trees.setDeviceRoot(id, trees.mappings.empty());
      const { time, transactionId } = this.#superblock;
      trees.writeDetails(id, { mappedBlocks: 0, transactionId, creationTime: time, snapshottedTime: time });
      this.#changedIds.add(id);
    });
  }

  /**
   * Makes device `id` a snapshot of `origin`; costs the same for any size. The caller has stopped writes to the origin and waited for
   * those in flight. EEXIST, ENODATA, EINVAL, ENOSPC; ERANGE when the 24 bits of time are used up.
   */
  createSnap(id: number, origin: number): void {
    const action = `create snapshot ${id} of thin device ${origin}`;
    this.#checkNewDevice(id, action);
    const root = this.#trees.deviceRoot(origin);
    if (root === NO_KEY) throw new StorageError('ENODATA', `Cannot ${action}: no such thin device`);
    const time = this.#superblock.time + 1;
    if (time >= TIME_LIMIT) {
      throw new StorageError(
        'ERANGE',
        `Cannot ${action}: the pool has had ${TIME_LIMIT - 1} snapshots, its times are used up`,
      );
    }
    this.#change(() => {
      const trees = this.#trees;
      trees.mappings.share(root);
      trees.setDeviceRoot(id, root);
      this.#superblock.time = time;
      const details = this.#detailsOf(origin);
      details.snapshottedTime = time;
      const { mappedBlocks } = details;
      const thin = this.#open.get(origin);
      if (thin !== undefined) this.#thinChanged(thin);
      else trees.writeDetails(origin, details);
      this.#changedIds.add(origin).add(id);
      const { transactionId } = this.#superblock;
      trees.writeDetails(id, { mappedBlocks, transactionId, creationTime: time, snapshottedTime: time });
    });
  }

  /**
   * Deletes the device and drops its mappings: reads every leaf that is not shared, so for a big device take its
   * mappings away in steps first (`removeRange`). ENODATA, EBUSY when open. Works within the reserve.
   */
  deleteThin(id: number): void {
    this.#checkChangeable(`delete thin device ${id}`);
    if (!this.hasThin(id)) throw new StorageError('ENODATA', `Cannot delete thin device ${id}: no such thin device`);
    const thin = this.#open.get(id);
    if (thin !== undefined && thin.openCount > 0) {
      throw new StorageError('EBUSY', `Cannot delete thin device ${id}: it is in use`);
    }
    this.#change(() => {
      if (thin !== undefined) this.#forget(thin);
      this.#changedIds.delete(id);
      this.#trees.removeDetails(id);
      this.#trees.removeDeviceRoot(id);
    });
  }

  hasThin(id: number): boolean {
    this.#checkAlive();
    return this.#trees.deviceRoot(id) !== NO_KEY;
  }

  /** Ascending. */
  thinIds(): number[] {
    this.#checkAlive();
    const ids: number[] = [];
    for (let id = this.#trees.nextDevice(0); id !== NO_KEY; id = this.#trees.nextDevice(id + 1)) ids.push(id);
    return ids;
  }

  /** ENODATA. The same object for everybody who has the device open; `closeThin` once for each call. */
  openThin(id: number): ThinMetadata {
    this.#checkAlive();
    let thin = this.#open.get(id);
    if (thin === undefined) {
      thin = new ThinMetadata(id);
      if (!this.#load(thin)) throw new StorageError('ENODATA', `Cannot open thin device ${id}: no such thin device`);
      this.#open.set(id, thin);
      // Created in this transaction: a flush of it has something to commit.
      if (this.#changedIds.has(id)) this.#thinChanged(thin);
    }
    thin.openCount++;
    return thin;
  }

  closeThin(thin: ThinMetadata): void {
    assert(thin.openCount > 0, 'A thin device is closed more often than opened');
    thin.openCount--;
    if (thin.openCount === 0 && !thin.changed) this.#open.delete(thin.id);
  }

  /**
   * How the map goes on at `begin`: as one run, mapped to consecutive data blocks (all of them shared, or none) or not mapped,
   * to `result.end`, at most to `end`. With `nonBlocking` it returns false if that is not known without reading the
   * device (see `prefetch`), and a run may end early where a leaf does.
   */
  lookupRun(thin: ThinMetadata, begin: number, end: number, result: RunResult, nonBlocking: boolean): boolean {
    assert(begin >= 0 && begin < end, 'lookupRun: an empty range');
    this.#checkAlive();
    if (thin.root === NO_ROOT) throw gone(thin);
    return lookupRun(this.#trees.mappings, thin, begin, end, result, nonBlocking);
  }

  /**
   * Reads what lookups have missed; `completion` is called later, always without an error, as the next lookup reports it. Returns
   * false when there is nothing to wait for: look up again, and not `nonBlocking` if that has just missed.
   */
  prefetch(completion: IoCompletion): boolean {
    return this.#blocks.prefetch(completion);
  }

  /** The highest virtual block with a mapping; -1 when there is none. */
  highestMapped(thin: ThinMetadata): number {
    this.#checkAlive();
    if (thin.root === NO_ROOT) throw gone(thin);
    return this.#trees.mappings.highestKey(thin.root);
  }

  /** How many leaves refer to a data block. EINVAL past the end. */
  dataBlockReferences(block: number): number {
    this.#checkAlive();
    return this.#trees.dataMap.count(block);
  }

  /**
   * A free data block; its count becomes 1. ENOSPC when there is none: as blocks freed in this transaction are not
   * handed out, and none in `freed` or `discarding`, commit, finish the discards, and try once more before believing it.
   */
  allocateDataBlock(): number {
    this.#checkChangeable('allocate a data block');
    this.#checkRoom(this.#pathBlocks(2), 'allocate a data block');
    try {
      const block = this.#trees.dataMap.allocate();
      this.#changed = true;
      return block;
    } catch (error) {
      // Without a free block nothing has been touched.
      if (!(error instanceof StorageError) || error.code !== 'ENOSPC' || error instanceof MetadataSpaceError)
        this.#fail();
      throw error;
    }
  }

  /** Takes an allocation back that was not inserted, as when writing to the block failed. */
  freeDataBlock(block: number): void {
    this.#checkChangeable('free a data block');
    this.#change(() => this.#trees.dataMap.decrement(block, block + 1));
  }

  /** Maps a virtual block to an allocated data block, which is then the mapping's. One that was mapped there before is dropped. ENOSPC. */
  insert(thin: ThinMetadata, virtualBlock: number, dataBlock: number): void {
    this.#checkChangeable('insert a mapping');
    if (thin.root === NO_ROOT) throw gone(thin);
    assert(virtualBlock >= 0 && Number.isSafeInteger(virtualBlock), 'insert: not a block number');
    assert(dataBlock >= 0 && dataBlock < this.dataBlockCount, 'insert: a data block past the end');
    this.#checkRoom(this.#leafChangeBlocks(), 'insert a mapping');
    try {
      const { mappings } = this.#trees;
      this.#beginTreeChange(thin);
      writeBlockTime(this.#value, 0, dataBlock, this.#superblock.time);
      this.#endTreeChange(thin, mappings.insert(thin.root, virtualBlock, this.#value));
      if (mappings.inserted) thin.mappedBlocks++;
    } catch (error) {
      this.#fail();
      throw error;
    }
  }

  /**
   * Drops at most `maxMappings` mappings of `[begin, end)`, from the lowest up. Returns where to go on, `end` when nothing is left.
   * The metadata is consistent between calls. ENOSPC.
   */
  removeRange(thin: ThinMetadata, begin: number, end: number, maxMappings: number): number {
    this.#checkChangeable('remove mappings');
    if (thin.root === NO_ROOT) throw gone(thin);
    assert(begin >= 0 && begin <= end && Number.isSafeInteger(begin), 'removeRange: not a range');
    const { mappings } = this.#trees;
    if (!mappings.lookupNext(thin.root, begin, this.#value) || mappings.foundKey >= end) return end;
    this.#checkRoom(this.#leafChangeBlocks(), 'remove mappings');
    try {
      this.#beginTreeChange(thin);
      this.#endTreeChange(thin, mappings.removeRange(thin.root, mappings.foundKey, end, maxMappings));
      thin.mappedBlocks -= mappings.removedCount;
      return mappings.nextKey;
    } catch (error) {
      this.#fail();
      throw error;
    }
  }

  /** Grows only: EINVAL. ENOSPC when the metadata device has no room for the bitmaps. Commit right after. */
  resizeData(blockCount: number): void {
    const action = `resize the data device to ${blockCount} blocks`;
    this.#checkChangeable(action);
    const { dataMap } = this.#trees;
    if (!Number.isSafeInteger(blockCount) || blockCount > MAX_DATA_BLOCKS || blockCount < dataMap.blockCount) {
      throw new StorageError(
        'EINVAL',
        `Cannot ${action}: it has ${dataMap.blockCount} and can have up to ${MAX_DATA_BLOCKS}, not fewer than now`,
      );
    }
    if (blockCount === dataMap.blockCount) return;
    const bitmaps = bitmapsFor(blockCount) - bitmapsFor(dataMap.blockCount);
    this.#checkRoom(Math.ceil(bitmaps * 1.05) + this.#pathBlocks(1), action);
    this.#change(() => dataMap.extend(blockCount));
  }

  /** Takes the metadata device's present size into use. Grows only: EINVAL. Commit right after. */
  resizeMetadata(): void {
    this.#checkChangeable('resize the metadata device');
    this.#device.refreshSize();
    const blockCount = usableBlocks(this.#device);
    const { metadataMap } = this.#trees;
    if (blockCount < metadataMap.blockCount) {
      throw new StorageError(
        'EINVAL',
        `Cannot resize the metadata device: it has room for ${blockCount} blocks, ${metadataMap.blockCount} are counted`,
      );
    }
    if (blockCount === metadataMap.blockCount) return;
    this.#change(() => {
      this.#blocks.extend(blockCount);
      metadataMap.extend(blockCount);
    });
  }

  /**
   * First step of a commit: everything that the transaction has changed is brought into blocks. From here to the end of
   * `writeSuperblock` lookups go on, changes are an assertion. When it throws, abort.
   */
  prepareCommit(): void {
    this.#checkChangeable('commit');
    try {
      for (const thin of this.#changedThins) this.#trees.writeDetails(thin.id, thin);
      this.#trees.dataMap.prepareCommit();
      this.#trees.metadataMap.prepareCommit();
    } catch (error) {
      this.#fail();
      throw error;
    } finally {
      this.#blocks.release(0);
    }
    this.#phase = 'prepared';
  }

  /** Second step: writes every changed block, then flushes the device. On an error, abort. */
  writeBlocks(completion: IoCompletion): void {
    assert(this.#phase === 'prepared', 'writeBlocks comes after prepareCommit');
    this.#phase = 'writing blocks';
    this.#stepCompletion = completion;
    this.#blocks.writeDirty(this.#step);
  }

  /** Last step: writes the superblock, then flushes the device: that is the commit. On success the next transaction has begun. On an error, abort. */
  writeSuperblock(completion: IoCompletion): void {
    assert(this.#phase === 'blocks written', 'writeSuperblock comes after writeBlocks');
    this.#phase = 'writing superblock';
    this.#stepCompletion = completion;
    this.#fillSuperblock();
    this.#blocks.writeDirty(this.#step);
  }

  /** All of it, waiting; nothing when nothing has changed. When it throws, abort. */
  commitSync(): void {
    if (!this.#changed && this.#phase === 'open') return;
    this.prepareCommit();
    try {
      this.#blocks.writeDirtySync();
      this.#flushSync();
      this.#fillSuperblock();
      this.#blocks.writeDirtySync();
      this.#flushSync();
    } catch (error) {
      this.#fail();
      throw error;
    }
    this.#beginTransaction();
  }

  /**
   * Back to the last commit that reached the device. Devices stay open, with their details read again; those that had changes have
   * `abortedWithChanges` set. Not while a step of a commit is running. When it throws, nothing can be done with the pool any more.
   */
  abort(): void {
    assert(this.#phase !== 'writing blocks' && this.#phase !== 'writing superblock', 'abort while a commit writes');
    this.#phase = 'dead';
    this.#blocks.reset();
    this.freed.clear();
    this.#superblock = readSuperblock(this.#device, this.#readOnly);
    this.#committed = { ...this.#superblock };
    this.#trees = PoolTrees.open(this.#blocks, this.#superblock, this.#withheld);
    this.#phase = 'open';
    this.#changed = false;
    this.#changedIds.clear();
    this.#changedThins.length = 0;
    this.#applySettings();
    for (const thin of this.#open.values()) {
      thin.abortedWithChanges ||= thin.changed;
      thin.changed = false;
      if (!this.#load(thin)) thin.root = NO_ROOT;
      if (thin.openCount === 0) this.#open.delete(thin.id);
    }
  }

  /** Sets the flag on the device, flushed, on top of the last commit; from then on changes are refused. Throws the device's error. */
  setNeedsCheck(): void {
    this.#writeFlags(this.#committed.flags | NEEDS_CHECK_FLAG);
  }

  /** For who has checked the metadata. */
  clearNeedsCheck(): void {
    this.#writeFlags(this.#committed.flags & ~NEEDS_CHECK_FLAG);
  }

  /** Does not commit, and leaves the device open. */
  close(): void {
    this.#phase = 'dead';
    this.#blocks.reset();
    this.#open.clear();
  }

  readonly #step: IoCompletion = { ioDone: (error) => this.#stepDone(error) };

  #stepDone(error: Errno | null): void {
    const completion = this.#stepCompletion!;
    this.#stepCompletion = null;
    if (this.#phase === 'dead') return;
    if (error !== null) this.#phase = 'failed';
    else if (this.#phase === 'writing blocks') this.#phase = 'blocks written';
    else this.#beginTransaction();
    completion.ioDone(error);
  }

  #beginTransaction(): void {
    const trees = this.#trees;
    trees.metadataMap.committed();
    trees.dataMap.committed();
    this.#committed = { ...this.#superblock };
    for (const thin of this.#changedThins) {
      thin.changed = false;
      if (thin.openCount === 0) this.#open.delete(thin.id);
    }
    this.#changedThins.length = 0;
    this.#changedIds.clear();
    this.#changed = false;
    this.#phase = 'open';
  }

  #fillSuperblock(): void {
    const superblock = this.#superblock;
    superblock.mappingRoot = this.#trees.mappingRoot;
    superblock.detailsRoot = this.#trees.detailsRoot;
    superblock.dataSpaceMap = this.#trees.dataMap.root;
    superblock.metadataSpaceMap = this.#trees.metadataMap.root;
    this.#encode(superblock);
  }

  #encode(superblock: Superblock): void {
    const mark = this.#blocks.mark();
    encodeSuperblock(superblock, this.#blocks.create(SUPERBLOCK_LOCATION, superblockValidator).words);
    this.#blocks.release(mark);
  }

  #writeFlags(flags: number): void {
    assert(this.#phase === 'open' && !this.#changed, 'The needs-check flag is written between transactions');
    if (this.#readOnly)
      throw new StorageError('EPERM', 'Cannot write the needs-check flag: the metadata is open read-only');
    const superblock = { ...this.#committed, flags };
    this.#encode(superblock);
    try {
      this.#blocks.writeDirtySync();
      this.#flushSync();
    } catch (error) {
      this.#phase = 'dead';
      throw error;
    }
    this.#committed = superblock;
    this.#superblock.flags = flags;
  }

  #flushSync(): void {
    try {
      this.#device.flushSync();
    } catch (error) {
      throw wrapError(`Cannot flush "${this.#device.path}"`, error);
    }
  }

  #applySettings(): void {
    this.#trees.dataMap.freed = this.#recordFreed ? this.freed : null;
    this.#trees.dataMap.order = this.#allocationOrder;
  }

  /** Runs a change that has been found possible: whatever it throws now has left something half done. */
  #change(work: () => void): void {
    this.#changed = true;
    try {
      work();
    } catch (error) {
      this.#fail();
      throw error;
    }
  }

  #fail(): void {
    if (this.#phase !== 'dead') this.#phase = 'failed';
    this.#blocks.release(0);
  }

  #checkAlive(): void {
    if (this.#phase === 'dead')
      throw new StorageError('EIO', 'Cannot use the pool metadata: it was closed or an abort failed');
    // A lookup that threw has left its blocks pinned.
    this.#blocks.release(0);
  }

  #checkChangeable(action: string): void {
    this.#checkAlive();
    if (this.readOnly) {
      const reason = this.needsCheck ? 'the metadata needs a check' : 'the metadata is open read-only';
      throw new StorageError('EPERM', `Cannot ${action}: ${reason}`);
    }
    if (this.#phase === 'failed') {
      throw new StorageError('EIO', `Cannot ${action}: the transaction has failed and must be aborted`);
    }
    assert(this.#phase === 'open', 'The metadata is changed during a commit');
  }

  #checkNewDevice(id: number, action: string): void {
    this.#checkChangeable(action);
    if (!Number.isInteger(id) || id < 0 || id >= DEVICE_ID_LIMIT) {
      throw new StorageError('EINVAL', `Cannot ${action}: device ids are whole numbers below ${DEVICE_ID_LIMIT}`);
    }
    if (this.hasThin(id)) throw new StorageError('EEXIST', `Cannot ${action}: there is a thin device ${id}`);
    this.#checkRoom(this.#pathBlocks(3), action);
  }

  /** Refuses what could run out of metadata blocks half-way. Deleting may: there the whole of what is left is tried. */
  #checkRoom(blocks: number, action: string): void {
    const { allocatableCount } = this.#trees.metadataMap;
    const needed = blocks + this.#commitBlocks();
    if (allocatableCount >= needed) return;
    throw new MetadataSpaceError(
      `Cannot ${action}: the metadata device has ${allocatableCount} free blocks and may need ${needed}`,
    );
  }

  /** At most so many new blocks are needed to change one entry in each of `count` trees. */
  #pathBlocks(count: number): number {
    // Nodes are at least a third full: 84 children. Each level is copied once and split once; the bitmaps of what is
    // allocated and freed meanwhile move as well.
    const depth = 2 + Math.ceil(Math.log(this.metadataBlockCount) / Math.log(84));
    return count * (2 * depth + 1) + bitmapsFor(this.metadataBlockCount);
  }

  /** The same for a change in a leaf that may be shared: its copy counts up to 252 more references in as many bitmaps. */
  #leafChangeBlocks(): number {
    return this.#pathBlocks(4) + Math.min(this.#trees.dataMap.bitmapCount, 2 * 252);
  }

  #commitBlocks(): number {
    const depth = 2;
    return depth * (1 + this.#changedThins.length) + Math.ceil(this.#trees.dataMap.bitmapCount / 84) + 2;
  }

  #thinChanged(thin: ThinMetadata): void {
    this.#changed = true;
    if (thin.changed) return;
    thin.changed = true;
    this.#changedThins.push(thin);
  }

  #forget(thin: ThinMetadata): void {
    this.#open.delete(thin.id);
    const index = this.#changedThins.indexOf(thin);
    if (index >= 0) this.#changedThins.splice(index, 1);
  }

  /**
   * The leaf of the top-level tree comes first: if it is shared with the metadata snapshot, copying it is what makes the device's root
   * shared.
   */
  #beginTreeChange(thin: ThinMetadata): void {
    this.#thinChanged(thin);
    thin.leaf = null;
    const { metadataMap } = this.#trees;
    if (!metadataMap.isNew(thin.root) || metadataMap.isShared(thin.root)) this.#trees.setDeviceRoot(thin.id, thin.root);
  }

  #endTreeChange(thin: ThinMetadata, root: number): void {
    if (root === thin.root) return;
    thin.root = root;
    this.#trees.setDeviceRoot(thin.id, root);
  }

  #detailsOf(id: number): DeviceDetails {
    const thin = this.#open.get(id);
    if (thin !== undefined) return thin;
    if (this.#trees.readDetails(id, this.#details)) return this.#details;
    throw new StorageError('EILSEQ', `Cannot use thin device ${id}: it has mappings and no details`);
  }

  /** False when there is no such device. */
  #load(thin: ThinMetadata): boolean {
    thin.leaf = null;
    const root = this.#trees.deviceRoot(thin.id);
    if (root === NO_KEY) return false;
    if (!this.#trees.readDetails(thin.id, thin)) {
      throw new StorageError('EILSEQ', `Cannot open thin device ${thin.id}: it has mappings and no details`);
    }
    thin.root = root;
    return true;
  }
}

function gone(thin: ThinMetadata): StorageError {
  return new StorageError('ENODATA', `Cannot use thin device ${thin.id}: its creation was aborted`);
}

function usableBlocks(device: BlockDevice): number {
  return Math.min(Math.floor(device.sizeBytes / BLOCK_SIZE), MAX_METADATA_BLOCKS);
}

function newBlockManager(device: BlockDevice, blockCount: number, cacheBlocks: number | undefined): BlockManager {
  const slab = new ArrayBuffer((cacheBlocks ?? DEFAULT_CACHE_BLOCKS) * BLOCK_SIZE);
  return new BlockManager(device, blockCount, slab);
}

function newSuperblock(dataBlockSizeBytes: number, metadataBlockCount: number): Superblock {
  const empty = { blockCount: 0, allocatedCount: 0, bitmapRoot: 0, refCountRoot: 0 };
  return {
    flags: 0,
    uuid: [0, 0, 0, 0],
    version: THIN_VERSION,
    time: 0,
    transactionId: 0,
    heldRoot: 0,
    dataSpaceMap: empty,
    metadataSpaceMap: empty,
    mappingRoot: 0,
    detailsRoot: 0,
    dataBlockSizeBytes,
    metadataBlockCount,
    compatFlags: 0,
    compatRoFlags: 0,
    incompatFlags: 0,
  };
}

function readSuperblock(device: BlockDevice, readOnly: boolean): Superblock {
  const action = `Cannot open pool metadata "${device.path}"`;
  if (device.sizeBytes < BLOCK_SIZE) {
    throw new StorageError('EINVAL', `${action}: it has ${device.sizeBytes} bytes, too few for a superblock`);
  }
  const bytes = new Uint8Array(BLOCK_SIZE);
  const words = new Uint32Array(bytes.buffer);
  try {
    device.readSync(SUPERBLOCK_LOCATION, bytes, 0, BLOCK_SIZE);
  } catch (error) {
    throw wrapError(action, error);
  }
  const identity = superblockIdentity(words, SUPERBLOCK_LOCATION);
  if (identity !== null) throw new StorageError(identity.code, `${action}: ${identity.reason}`);
  checkBlock(words, bytes, SUPERBLOCK_LOCATION, superblockValidator, device.path);
  const damage = superblockDamage(words, usableBlocks(device));
  if (damage !== null) throw new StorageError('EINVAL', `${action}: ${damage}`);
  const superblock = decodeSuperblock(words);
  const features = unknownFeatures(superblock, readOnly);
  if (features !== null) throw new StorageError('EINVAL', `${action}: ${features}`);
  return superblock;
}
