/**
 * How many metadata blocks are kept back, and how many a change may take: it is refused beforehand rather than run out
 * half-way. Upper bounds, so that a small device is called full a little early; on all but the smallest they are
 * below the reserve.
 */
import { bitmapsFor } from '../persistent-data/bitmap.ts';

const MAX_RESERVE_BLOCKS = 4096;
const RESERVE_DIVISOR = 10;
const MAX_LOW_THRESHOLD_BLOCKS = 1024;
const LOW_THRESHOLD_DIVISOR = 4;
/** Nodes other than the root are at least a third full. */
const MIN_CHILDREN = 84;
const MAX_LEAF_ENTRIES = 252;

/** Hidden from the free count, so that a pool which says that it is full can still delete and commit. */
export function metadataReserve(blockCount: number): number {
  return Math.min(MAX_RESERVE_BLOCKS, Math.floor(blockCount / RESERVE_DIVISOR));
}

/** Free blocks, the reserve included, below which the device should be grown. */
export function metadataLowThreshold(blockCount: number): number {
  return Math.min(MAX_LOW_THRESHOLD_BLOCKS, Math.floor(blockCount / LOW_THRESHOLD_DIVISOR));
}

/** No tree on a device of so many blocks has more levels. */
function maxDepth(blockCount: number): number {
  return 1 + Math.ceil(Math.log(blockCount) / Math.log(MIN_CHILDREN));
}

/**
 * For a change of one entry in each of `treeCount` trees: each level is copied once and split once, and the bitmaps of what is
 * allocated and freed meanwhile move as well.
 */
export function pathBlocks(blockCount: number, treeCount: number): number {
  return treeCount * (2 * maxDepth(blockCount) + 1) + bitmapsFor(blockCount);
}

/**
 * For changes in a leaf that may be shared: its copy is one more reference to all that it maps, in as many data bitmaps, and the
 * mappings dropped from it count down in others.
 */
export function leafChangeBlocks(blockCount: number, dataBitmapCount: number): number {
  return pathBlocks(blockCount, 4) + Math.min(dataBitmapCount, 2 * MAX_LEAF_ENTRIES);
}

/**
 * For a mapping that becomes shared: a leaf of each of two devices, both devices' roots, and the overflow tree for one count up and one down. Either leaf
 * may be shared, as above.
 */
export function shareChangeBlocks(blockCount: number, dataBitmapCount: number): number {
  return pathBlocks(blockCount, 6) + Math.min(dataBitmapCount, 4 * MAX_LEAF_ENTRIES);
}

/**
 * How many of `maxMappings` can be removed with `room` new blocks, at least one: each leaf on the way may have to be copied, and each
 * mapping that is dropped or copied may be counted in a data bitmap of its own.
 */
export function removableMappings(room: number, dataBitmapCount: number, maxMappings: number): number {
  const blocksFor = (mappings: number): number => {
    const leaves = Math.ceil(mappings / MIN_CHILDREN) + 1;
    return 2 * leaves + Math.min(dataBitmapCount, mappings + leaves * MAX_LEAF_ENTRIES);
  };
  let mappings = maxMappings;
  while (mappings > 1 && blocksFor(mappings) > room) mappings = Math.floor(mappings / 2);
  return mappings;
}

/**
 * How many of `maxMappings` can be made shared with `room` new blocks beyond those for the paths to them, at least one: leaves of both devices are
 * copied and those of one split, and each count may be in a bitmap and in a leaf of the overflow tree of its own, up and down.
 */
export function shareableMappings(room: number, dataBitmapCount: number, maxMappings: number): number {
  const blocksFor = (mappings: number): number => {
    const leaves = Math.ceil(mappings / MIN_CHILDREN) + 1;
    return 4 * leaves + 2 * mappings + Math.min(dataBitmapCount, 2 * mappings + 2 * leaves * MAX_LEAF_ENTRIES);
  };
  let mappings = maxMappings;
  while (mappings > 1 && blocksFor(mappings) > room) mappings = Math.floor(mappings / 2);
  return mappings;
}

/**
 * How many of `maxLeaves` can be dropped with `room` new blocks beyond those for the path to them, at least one: nothing of them is copied,
 * but each of their mappings may be counted down in a data bitmap of its own.
 */
export function deletableLeaves(room: number, dataBitmapCount: number, maxLeaves: number): number {
  if (room >= dataBitmapCount) return maxLeaves;
  return Math.max(1, Math.min(maxLeaves, Math.floor(room / MAX_LEAF_ENTRIES)));
}

/** For bitmaps that are new, with their index entries. */
export function dataBitmapBlocks(blockCount: number, bitmapCount: number): number {
  return bitmapCount + Math.ceil(bitmapCount / MIN_CHILDREN) + pathBlocks(blockCount, 1);
}

/** For the commit that follows: details, index entries of the data bitmaps, the index block. */
export function commitBlocks(blockCount: number, dataBitmapCount: number, changedDevices: number): number {
  const detailsBlocks = Math.min(changedDevices + 1, 8) * (maxDepth(blockCount) - 1) + changedDevices;
  return detailsBlocks + Math.ceil(dataBitmapCount / MIN_CHILDREN) + 2;
}
