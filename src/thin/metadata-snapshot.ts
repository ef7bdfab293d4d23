import { assert } from '../base/assert.ts';
import { StorageError } from '../base/errors.ts';
import type { PoolTransaction } from './pool-transaction.ts';
import type { PoolTrees } from './pool-trees.ts';
import { decodeSuperblock, encodeSuperblock, SUPERBLOCK_LOCATION, superblockValidator } from './superblock.ts';

const NO_SPACE_MAP = { blockCount: 0, allocatedCount: 0, bitmapRoot: 0, refCountRoot: 0 } as const;

/**
 * Makes the last commit the metadata snapshot: a copy of its superblock, without space maps, which keeps both trees alive. It is published
 * by the next commit. Blocks are taken in the kernel's order. Source: dm-thin-metadata.c, reserve_metadata_snap.
 */
export function reserveMetadataSnapshot(transaction: PoolTransaction): void {
  const { superblock, trees, blocks } = transaction;
  assert(!transaction.changed, 'The metadata snapshot is of a commit: commit before');
  assert(superblock.heldRoot === 0, 'There is one metadata snapshot at most');
  transaction.change(() => {
    const { transaction: nodes } = trees;
    const mark = blocks.mark();
    nodes.increment(SUPERBLOCK_LOCATION);
    const copy = nodes.create(superblockValidator);
    encodeSuperblock({ ...superblock, dataSpaceMap: NO_SPACE_MAP, metadataSpaceMap: NO_SPACE_MAP }, copy.words);
    nodes.decrement(SUPERBLOCK_LOCATION);
    nodes.increment(superblock.mappingRoot);
    nodes.increment(superblock.detailsRoot);
    superblock.heldRoot = copy.number;
    blocks.release(mark);
  });
}

/**
 * Drops part of the metadata snapshot, about `maxLeaves` leaves that only it has; returns whether it is gone. Between the steps it has fewer
 * devices and mappings, and everything is consistent.
 */
export function releaseStep(transaction: PoolTransaction, maxLeaves: number): boolean {
  const { superblock, trees, blocks } = transaction;
  const mark = blocks.mark();
  const held = decodeSuperblock(trees.transaction.read(superblock.heldRoot, superblockValidator).words);
  blocks.release(mark);
  const gone = trees.rootsCost(held.mappingRoot, maxLeaves) <= maxLeaves;
  transaction.change(() => {
    if (gone) {
      trees.deleteRoots(held.mappingRoot, held.detailsRoot);
      trees.transaction.decrement(superblock.heldRoot);
      superblock.heldRoot = 0;
      return;
    }
    const { mappingRoot, detailsRoot } = trees;
    trees.mappingRoot = held.mappingRoot;
    trees.detailsRoot = held.detailsRoot;
    shrinkFirstDevice(trees, maxLeaves);
    const roots = { mappingRoot: trees.mappingRoot, detailsRoot: trees.detailsRoot };
    trees.mappingRoot = mappingRoot;
    trees.detailsRoot = detailsRoot;
    const copy = trees.transaction.shadow(superblock.heldRoot, superblockValidator);
    copy.words.fill(0);
    encodeSuperblock({ ...held, ...roots }, copy.words);
    superblock.heldRoot = copy.number;
    blocks.release(mark);
  });
  return gone;
}

function shrinkFirstDevice(trees: PoolTrees, maxLeaves: number): void {
  const { mappings, metadataBlocks } = trees;
  const id = trees.nextDevice(0);
  const root = trees.deviceRoot(id);
  if (mappings.deletionCost(root, maxLeaves) > maxLeaves) {
    // As in `ThinDevices.beginTreeChange`: what is shared further up shows at the root after that.
    trees.setDeviceRoot(id, root);
    if (!metadataBlocks.isShared(root)) {
      trees.setDeviceRoot(id, mappings.deleteSome(root, maxLeaves));
      const details = { mappedBlocks: 0, transactionId: 0, creationTime: 0, snapshottedTime: 0 };
      trees.readDetails(id, details);
      details.mappedBlocks -= mappings.removedCount;
      trees.writeDetails(id, details);
      return;
    }
  }
  trees.removeDetails(id);
  trees.removeDeviceRoot(id);
}

/** EBUSY. */
export function checkNoMetadataSnapshot(transaction: PoolTransaction, action: string): void {
  const { heldRoot } = transaction.superblock;
  if (heldRoot === 0) return;
  throw new StorageError('EBUSY', `Cannot ${action}: there is a metadata snapshot, at block ${heldRoot}`);
}

/** EINVAL. */
export function checkMetadataSnapshot(transaction: PoolTransaction, action: string): void {
  if (transaction.superblock.heldRoot === 0) {
    throw new StorageError('EINVAL', `Cannot ${action}: there is no metadata snapshot`);
  }
}
