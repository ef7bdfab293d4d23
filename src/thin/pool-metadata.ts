import { assert } from '../base/assert.ts';
import { StorageError } from '../base/errors.ts';
import { alignedMemory } from '../block/aligned-memory.ts';
import type { BlockDevice } from '../block/block-device.ts';
import { bitmapsFor } from '../persistent-data/bitmap.ts';
import { BLOCK_SIZE } from '../persistent-data/block.ts';
import { DEFAULT_CACHE_BLOCKS } from '../persistent-data/block-cache.ts';
import { BlockManager } from '../persistent-data/block-manager.ts';
import { NO_KEY } from '../persistent-data/btree.ts';
import { MetadataSpaceError } from '../persistent-data/space-map.ts';
import { TIME_LIMIT, writeBlockTime } from './block-time.ts';
import { DEVICE_ID_LIMIT } from './device-id.ts';
import {
  dataBitmapBlocks,
  deletableLeaves,
  leafChangeBlocks,
  pathBlocks,
  removableMappings,
  shareableMappings,
  shareChangeBlocks,
} from './metadata-room.ts';
import {
  checkMetadataSnapshot,
  checkNoMetadataSnapshot,
  releaseStep,
  reserveMetadataSnapshot,
} from './metadata-snapshot.ts';
import { noWithheldRuns, PoolTrees } from './pool-trees.ts';
import { PoolView } from './pool-view.ts';
import { RangeSharing, type SharedRange } from './range-sharing.ts';
import { Renumbering } from './renumbering.ts';
import { dataBlockSizeDamage, MAX_DATA_BLOCKS, SUPERBLOCK_LOCATION, superblockValidator } from './superblock.ts';
import { newSuperblock, readSuperblock, usableBlocks } from './superblock-io.ts';
import type { ThinMetadata } from './thin-metadata.ts';

export interface FormatOptions {
  /** A multiple of 64 KiB, at most 1 GiB. */
  dataBlockSizeBytes: number;
  dataBlockCount: number;
  /** Slots of the block cache, 4 KiB each. */
  cacheBlocks?: number;
}

export interface OpenOptions {
  readOnly?: boolean;
  /** EINVAL when the metadata says otherwise. */
  expectedDataBlockSizeBytes?: number;
  /** Slots of the block cache, 4 KiB each. */
  cacheBlocks?: number;
  /** Writes stay in place where reference counts say that a block is not shared any more. True; the kernel goes by time alone. */
  exactSharing?: boolean;
}

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
export class PoolMetadata extends PoolView {
  readonly #value: Uint32Array = new Uint32Array(2);
  readonly #sharing: RangeSharing = new RangeSharing(this.transaction, this.devices, this.sharedNow);

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
    // The roots, and the bitmaps twice as the first commits move those of the metadata.
    const needed = 8 + 2 * bitmapsFor(blockCount) + dataBitmapBlocks(blockCount, bitmapsFor(dataBlockCount));
    if (blockCount < needed) {
      throw new MetadataSpaceError(`${action}: it has ${blockCount} blocks of 4 KiB and needs at least ${needed}`);
    }
    const withheld = noWithheldRuns();
    const blocks = newBlockManager(device, blockCount, options.cacheBlocks);
    // What was there before is not to be taken for a pool if this is interrupted.
    blocks.create(SUPERBLOCK_LOCATION, superblockValidator);
    blocks.writeDirtySync();
    device.flushSync();
    blocks.reset();
    const superblock = newSuperblock(dataBlockSizeBytes, blockCount);
    const trees = PoolTrees.format(blocks, superblock, withheld);
    const pool = new PoolMetadata(blocks, trees, superblock, false, withheld);
    pool.transaction.changed = true;
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
    const withheld = noWithheldRuns();
    const trees = PoolTrees.open(blocks, superblock, withheld);
    const pool = new PoolMetadata(blocks, trees, superblock, readOnly, withheld);
    pool.exactSharing = options.exactSharing ?? true;
    return pool;
  }

  /** EINVAL when the id is not `expectedOld` any more. */
  setTransactionId(expectedOld: number, next: number): void {
    this.transaction.checkChangeable('set the transaction id');
    if (expectedOld !== this.transactionId) {
      const reason = `it is ${this.transactionId}, expected ${expectedOld}`;
      throw new StorageError('EINVAL', `Cannot set the transaction id: ${reason}`);
    }
    if (!Number.isSafeInteger(next) || next < 0) {
      throw new StorageError('EINVAL', `Cannot set the transaction id: ${next} is not a whole number below 2^53`);
    }
    this.transaction.superblock.transactionId = next;
    this.transaction.changed = true;
  }

  /**
   * Holds the last commit as the metadata snapshot, for programs that read it while the pool is in use; nothing has changed since. It is
   * there with the next commit. It keeps mappings, not data. EBUSY when there is one, ENOSPC.
   */
  reserveSnapshot(): void {
    const action = 'reserve a metadata snapshot';
    this.transaction.checkChangeable(action);
    checkNoMetadataSnapshot(this.transaction, action);
    this.#checkRoom(pathBlocks(this.metadataBlockCount, 2), action);
    reserveMetadataSnapshot(this.transaction);
  }

  /** Gives the metadata snapshot up: what only it kept is free after the next commit. EINVAL when there is none; ENOSPC as below. */
  releaseSnapshot(): void {
    while (!this.releaseSnapshotStep(Number.POSITIVE_INFINITY)) {}
  }

  /** The same in steps, as `deleteThinStep`. */
  releaseSnapshotStep(maxLeaves: number): boolean {
    const action = 'release the metadata snapshot';
    this.transaction.checkChangeable(action);
    checkMetadataSnapshot(this.transaction, action);
    const room = this.#checkRoom(this.#leafChangeBlocks(), action);
    return releaseStep(this.transaction, deletableLeaves(room, this.transaction.trees.dataMap.bitmapCount, maxLeaves));
  }

  /** Gives the pool back the times that its snapshots have used up. EBUSY while a device is open or there is a metadata snapshot. */
  renumberTimes(): Renumbering {
    const action = 'renumber the times';
    this.transaction.checkChangeable(action);
    checkNoMetadataSnapshot(this.transaction, action);
    const open = this.devices.openId;
    if (open !== NO_KEY) throw new StorageError('EBUSY', `Cannot ${action}: thin device ${open} is in use`);
    return new Renumbering(this.transaction, this.devices);
  }

  /** EEXIST, EINVAL for an id of more than 24 bits, ENOSPC. */
  createThin(id: number): void {
    this.#checkNewDevice(id, `create thin device ${id}`);
    this.transaction.change(() => this.devices.create(id));
  }

  /**
   * Makes device `id` a snapshot of `origin`; costs the same for any size. The caller has stopped writes to the origin and waited for
   * those in flight. EEXIST, ENODATA, EINVAL, ENOSPC; ERANGE when the 24 bits of time are used up.
   */
  createSnap(id: number, origin: number): void {
    const action = `create snapshot ${id} of thin device ${origin}`;
    this.#checkNewDevice(id, action);
    if (!this.hasThin(origin)) throw new StorageError('ENODATA', `Cannot ${action}: no such thin device`);
    const time = this.time + 1;
    if (time >= TIME_LIMIT) {
      throw new StorageError('ERANGE', `Cannot ${action}: the pool's times are used up, after ${time - 1} snapshots`);
    }
    this.transaction.change(() => {
      this.transaction.superblock.time = time;
      this.devices.snapshot(id, origin, time);
    });
  }

  /** Deletes the device and drops its mappings, however long that takes. ENODATA, EBUSY, ENOSPC: see `deleteThinStep`. */
  deleteThin(id: number): void {
    while (!this.deleteThinStep(id, Number.POSITIVE_INFINITY)) {}
  }

  /** Whether `deleteThin` drops no more than about `maxLeaves` leaves. ENODATA. */
  isQuickToDelete(id: number, maxLeaves: number): boolean {
    const thin = this.openThin(id);
    const cost = this.transaction.trees.mappings.deletionCost(thin.root, maxLeaves);
    this.closeThin(thin);
    return cost <= maxLeaves;
  }

  /**
   * Deletes part of the device, about `maxLeaves` leaves of 252 mappings at most; returns whether it is gone. What others share costs next to
   * nothing. Between the steps the metadata is consistent and the device has fewer mappings. ENODATA, EBUSY when open. Works within
   * the reserve; ENOSPC when that is used up: commit, which frees what earlier steps have freed, and go on.
   */
  deleteThinStep(id: number, maxLeaves: number): boolean {
    const action = `delete thin device ${id}`;
    this.transaction.checkChangeable(action);
    if (!this.hasThin(id)) throw new StorageError('ENODATA', `Cannot ${action}: no such thin device`);
    if (this.devices.isOpen(id)) throw new StorageError('EBUSY', `Cannot ${action}: it is in use`);
    const room = this.#checkRoom(this.#leafChangeBlocks(), action);
    const leaves = deletableLeaves(room, this.transaction.trees.dataMap.bitmapCount, maxLeaves);
    let gone = false;
    this.transaction.change(() => {
      gone = this.devices.deleteStep(id, leaves);
    });
    return gone;
  }

  /**
   * Sets a free data block aside for a mapping that `insert` will make, or `freeDataBlock` gives up. Only memory knows of it:
   * a crash before the insertion leaves nothing behind, and it may be called while a commit is being written. ENOSPC when
   * there is none: as blocks freed in this transaction are not handed out, and none in `freed` or `discarding`, commit, finish the
   * discards, and try once more before believing it.
   */
  allocateDataBlock(): number {
    this.transaction.checkWritable('allocate a data block');
    this.#checkRoom(this.#leafChangeBlocks(), 'allocate a data block');
    const block = this.transaction.trees.dataMap.find();
    this.reserved.add(block, block + 1);
    return block;
  }

  /** Allocates this block and no other. EINVAL when it is not free. */
  claimDataBlock(block: number): void {
    this.transaction.checkWritable('claim a data block');
    if (this.reserved.has(block) || this.dataBlockReferences(block) !== 0) {
      throw new StorageError('EINVAL', `Cannot claim data block ${block}: it is in use`);
    }
    this.reserved.add(block, block + 1);
  }

  /** Gives an allocated block up that was not inserted, as when writing to it failed. */
  freeDataBlock(block: number): void {
    assert(this.reserved.has(block), 'freeDataBlock: not an allocated block');
    this.reserved.remove(block, block + 1);
    this.transaction.trees.dataMap.giveBack(block);
  }

  /** Maps a virtual block to an allocated data block, which is then the mapping's. One that was mapped there before is dropped. ENOSPC. */
  insert(thin: ThinMetadata, virtualBlock: number, dataBlock: number): void {
    this.transaction.checkChangeable('insert a mapping');
    this.checkThin(thin);
    assert(virtualBlock >= 0 && Number.isSafeInteger(virtualBlock), 'insert: not a block number');
    assert(this.reserved.has(dataBlock), 'insert: not an allocated data block');
    this.#checkRoom(this.#leafChangeBlocks(), 'insert a mapping');
    try {
      const { mappings, dataBlocks } = this.transaction.trees;
      dataBlocks.increment(dataBlock, dataBlock + 1);
      this.devices.beginTreeChange(thin, virtualBlock, virtualBlock + 1);
      writeBlockTime(this.#value, 0, dataBlock, this.time);
      this.devices.endTreeChange(thin, mappings.insert(thin.root, virtualBlock, this.#value));
      thin.mappedBlocks += mappings.insertedCount;
      if (mappings.insertedCount === 0) thin.mappingsDropped();
      this.reserved.remove(dataBlock, dataBlock + 1);
      this.devices.recent.add(thin.recentOwner, virtualBlock, dataBlock, this.time);
    } catch (error) {
      this.transaction.fail();
      throw error;
    }
  }

  /**
   * Drops at most `maxMappings` mappings of `[begin, end)`, from the lowest up; fewer when metadata blocks are short. Returns where to
   * go on, `end` when nothing is left. The metadata is consistent between calls. ENOSPC: commit, which frees what removals have
   * freed, and try once more.
   */
  removeRange(thin: ThinMetadata, begin: number, end: number, maxMappings: number): number {
    this.transaction.checkChangeable('remove mappings');
    this.checkThin(thin);
    assert(begin >= 0 && begin <= end && Number.isSafeInteger(end), 'removeRange: not a range');
    const { mappings } = this.transaction.trees;
    if (!mappings.lookupNext(thin.root, begin, this.#value) || mappings.foundKey >= end) return end;
    const room = this.#checkRoom(this.#leafChangeBlocks(), 'remove mappings');
    const limit = removableMappings(room, this.transaction.trees.dataMap.bitmapCount, maxMappings);
    try {
      this.devices.beginTreeChange(thin, mappings.foundKey, end);
      this.devices.endTreeChange(thin, mappings.removeRange(thin.root, mappings.foundKey, end, limit));
      thin.countRemoved(mappings.removedCount);
      thin.mappingsDropped();
      return mappings.nextKey;
    } catch (error) {
      this.transaction.fail();
      throw error;
    }
  }

  /**
   * Makes the target map what the source maps, at most `maxMappings` of it, from the lowest up; fewer when metadata blocks are short. What the
   * target had mapped there is dropped. Returns where to go on, `range.end` when all is done. The metadata is consistent between calls. Nothing
   * may be on its way to the data blocks of either range. ENOSPC as `removeRange`; ERANGE where `keepsSource` needs a time and there is none;
   * EEXIST where the target may have the first block already, somewhere else. `learnShared` comes first.
   */
  shareRange(range: SharedRange, maxMappings: number): number {
    const { source, target, begin, end } = range;
    this.transaction.checkChangeable('share data blocks');
    this.checkThin(source);
    this.checkThin(target);
    assert(begin >= 0 && begin <= end && Number.isSafeInteger(end), 'shareRange: not a range');
    assert(source !== target, 'a device does not share with itself');
    const { bitmapCount } = this.transaction.trees.dataMap;
    const least = shareChangeBlocks(this.metadataBlockCount, bitmapCount);
    const room = this.#checkRoom(least, 'share data blocks') - this.metadataReserveBlocks;
    const limit = shareableMappings(room, bitmapCount, maxMappings);
    return this.#sharing.share(range, limit, (from, to, most) => this.removeRange(target, from, to, most));
  }

  /** Finds out which data blocks a device shares, `runs` runs of mappings at a time; whether it is known. It stays known while the device is open. */
  learnShared(thin: ThinMetadata, runs: number): boolean {
    this.transaction.checkChangeable('look for shared blocks');
    this.checkThin(thin);
    return this.#sharing.learnShared(thin, runs);
  }

  /** Forgets it. */
  forgetShared(thin: ThinMetadata): void {
    thin.sharedBlocks = null;
  }

  /** Grows only: EINVAL. ENOSPC when the metadata device has no room for the bitmaps. Commit right after. */
  resizeData(blockCount: number): void {
    const action = `resize the data device to ${blockCount} blocks`;
    this.transaction.checkChangeable(action);
    const { dataMap } = this.transaction.trees;
    const oldCount = dataMap.blockCount;
    if (!Number.isSafeInteger(blockCount) || blockCount < oldCount || blockCount > MAX_DATA_BLOCKS) {
      throw new StorageError(
        'EINVAL',
        `Cannot ${action}: it has ${oldCount}, never fewer, and at most ${MAX_DATA_BLOCKS}`,
      );
    }
    if (blockCount === oldCount) return;
    const bitmaps = bitmapsFor(blockCount) - bitmapsFor(oldCount);
    this.#checkRoom(dataBitmapBlocks(this.metadataBlockCount, bitmaps), action);
    this.transaction.change(() => dataMap.extend(blockCount));
  }

  /** Takes the metadata device's present size into use. Grows only: EINVAL. Commit right after. */
  resizeMetadata(): void {
    const { device, blocks, trees } = this.transaction;
    this.transaction.checkChangeable('resize the metadata device');
    device.refreshSize();
    const blockCount = usableBlocks(device);
    if (blockCount < this.metadataBlockCount) {
      const reason = `it has room for ${blockCount} blocks, ${this.metadataBlockCount} are counted`;
      throw new StorageError('EINVAL', `Cannot resize the metadata device: ${reason}`);
    }
    if (blockCount === this.metadataBlockCount) return;
    this.transaction.change(() => {
      blocks.extend(blockCount);
      trees.metadataMap.extend(blockCount);
    });
  }

  #checkNewDevice(id: number, action: string): void {
    this.transaction.checkChangeable(action);
    if (!Number.isInteger(id) || id < 0 || id >= DEVICE_ID_LIMIT) {
      throw new StorageError('EINVAL', `Cannot ${action}: device ids are whole numbers below ${DEVICE_ID_LIMIT}`);
    }
    if (this.hasThin(id)) throw new StorageError('EEXIST', `Cannot ${action}: there is a thin device ${id}`);
    this.#checkRoom(pathBlocks(this.metadataBlockCount, 3), action);
  }

  #checkRoom(blocks: number, action: string): number {
    return this.transaction.checkRoom(blocks, this.devices.changedCount, action);
  }

  #leafChangeBlocks(): number {
    return leafChangeBlocks(this.metadataBlockCount, this.transaction.trees.dataMap.bitmapCount);
  }
}

function newBlockManager(device: BlockDevice, blockCount: number, cacheBlocks = DEFAULT_CACHE_BLOCKS): BlockManager {
  return new BlockManager(device, blockCount, alignedMemory(cacheBlocks * BLOCK_SIZE));
}
