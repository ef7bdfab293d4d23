import type { RunSet } from '../base/run-set.ts';
import type { DiskSpaceMap } from '../persistent-data/space-map-disk.ts';
import type { PoolTrees } from './pool-trees.ts';
import type { RunResult } from './run-lookup.ts';
import type { ThinMetadata } from './thin-metadata.ts';

/**
 * Whether blocks that time says are shared really are. Time never misses sharing, but goes on believing in it when the other side has copied
 * the block or is gone; then the write may stay in place, which the format cannot tell from a block that was never shared.
 *
 * A block is the device's alone if nothing else refers to it, *now and in the last commit*: a crash brings that commit back, and a block that
 * was shared there must still hold what the other device had written. So
 *
 * - the block's count is one, now and in the last commit;
 * - no node on the way to it has a count above one: top-level tree, whose nodes the metadata snapshot may share, and device tree;
 * - no node on the way had one at the last commit. What a node that is new in this transaction was copied from is not known any more, so as
 *   soon as one shared node of the device's tree was copied, new nodes count as shared until the commit.
 *
 * A block that a copy has shared in this transaction is not the device's alone before the commit: the one reference that the last commit
 * has may be another one. See `RangeSharing`; `sharedNow` are those blocks.
 *
 * Devices that this transaction has made or snapshotted are not asked about: the last commit does not know them, or not as they are.
 * Everything changes in a commit at once, so the answer holds while one is being written, too.
 */
export function refineSharing(
  trees: PoolTrees,
  sharedNow: RunSet,
  thin: ThinMetadata,
  begin: number,
  run: RunResult,
  nonBlocking: boolean,
): boolean {
  const { mappings, dataMap } = trees;
  const top = trees.deviceSharing(thin.id, nonBlocking);
  if (top === 'unknown') return false;
  if (top === 'shared') return true;
  const path = mappings.pathSharing(thin.root, begin, thin.copiedShared, nonBlocking);
  if (path === 'unknown') return false;
  // Other leaves are reached by other nodes.
  run.end = Math.min(run.end, mappings.leafEnd);
  if (path === 'shared') return true;
  const exclusive = isAlone(dataMap, sharedNow, run.dataBlock, nonBlocking);
  if (exclusive === null) return false;
  let count = 1;
  while (begin + count < run.end && isAlone(dataMap, sharedNow, run.dataBlock + count, nonBlocking) === exclusive) {
    count++;
  }
  run.end = begin + count;
  run.shared = !exclusive;
  return true;
}

/** Null where it is not known without reading the device. */
function isAlone(dataMap: DiskSpaceMap, sharedNow: RunSet, block: number, nonBlocking: boolean): boolean | null {
  return sharedNow.count > 0 && sharedNow.has(block) ? false : dataMap.isExclusive(block, nonBlocking);
}
