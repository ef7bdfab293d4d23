import { assert } from '../base/assert.ts';
import { StorageError } from '../base/errors.ts';
import type { PoolTransaction } from './pool-transaction.ts';
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

/** Drops the metadata snapshot, and everything that only it refers to. */
export function releaseMetadataSnapshot(transaction: PoolTransaction): void {
  const { superblock, trees, blocks } = transaction;
  const { heldRoot } = superblock;
  const mark = blocks.mark();
  const held = decodeSuperblock(trees.transaction.read(heldRoot, superblockValidator).words);
  blocks.release(mark);
  transaction.change(() => {
    trees.deleteRoots(held.mappingRoot, held.detailsRoot);
    trees.transaction.decrement(heldRoot);
    superblock.heldRoot = 0;
  });
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
