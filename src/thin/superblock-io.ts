import { StorageError, wrapError } from '../base/errors.ts';
import { alignedMemory } from '../block/aligned-memory.ts';
import type { BlockDevice } from '../block/block-device.ts';
import { BLOCK_SIZE, checkBlock } from '../persistent-data/block.ts';
import { MAX_METADATA_BLOCKS } from '../persistent-data/index-entry.ts';
import {
  decodeSuperblock,
  SUPERBLOCK_LOCATION,
  type Superblock,
  superblockDamage,
  superblockIdentity,
  superblockValidator,
  THIN_VERSION,
  useForbidden,
} from './superblock.ts';

/** The blocks of a metadata device that can be used: beyond 15.875 GiB the format does not reach. */
export function usableBlocks(device: BlockDevice): number {
  return Math.min(Math.floor(device.sizeBytes / BLOCK_SIZE), MAX_METADATA_BLOCKS);
}

/** Of an empty pool; the roots come with the first commit. */
export function newSuperblock(dataBlockSizeBytes: number, metadataBlockCount: number): Superblock {
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

/**
 * Reads the superblock and checks everything about it that can be checked alone. ENODATA for a device that was never formatted;
 * ENOTBLK, EILSEQ for damage or other metadata; EINVAL for fields that make no sense or features that are not known.
 */
export function readSuperblock(device: BlockDevice, readOnly: boolean): Superblock {
  const action = `Cannot open pool metadata "${device.path}"`;
  if (device.sizeBytes < BLOCK_SIZE) {
    throw new StorageError('EINVAL', `${action}: it has ${device.sizeBytes} bytes, too few for a superblock`);
  }
  const bytes = alignedMemory(BLOCK_SIZE);
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, BLOCK_SIZE / 4);
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
  const forbidden = useForbidden(superblock, readOnly);
  if (forbidden !== null) throw new StorageError('EINVAL', `${action}: ${forbidden}`);
  return superblock;
}
