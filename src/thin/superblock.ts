/**
 * The superblock: block 0 of the metadata device. Everything that changes lies in its first 512 bytes, which a device
 * writes whole or not at all.
 *
 *      0    4     8         16        32     40      44     48        56
 *     +----+-----+---------+---------+------+-------+------+---------+-----------+
 *     |csum|flags| blocknr | uuid    |magic |version| time | trans   | held root |
 *     |    |     |         |         |      |       |      | id      |           |
 *     +----+-----+---------+---------+------+-------+------+---------+-----------+
 *      64              192              320          328          336        340
 *     +---------------+----------------+------------+------------+----------+----------+
 *     | data space    | metadata space | mapping    | details    | data     | metadata |
 *     | map root, 128 | map root, 128  | root       | root       | block    | block    |
 *     |               |                |            |            | size     | size     |
 *     +---------------+----------------+------------+------------+----------+----------+
 *      344                  352         356            360          364
 *     +--------------------+-----------+--------------+------------+
 *     | metadata nr blocks | compat    | compat ro    | incompat   |
 *     +--------------------+-----------+--------------+------------+
 *
 * A space map root is nr blocks, nr allocated, bitmap root, ref count root (u64 each); the other 96 bytes of its slot mean nothing.
 * Sizes are in sectors of 512 bytes. `metadata nr blocks` is as at format: the metadata space map has the truth.
 * Source: dm-thin-metadata.c.
 */
import type { Errno } from '../base/errors.ts';
import { KIB, MIB, SECTOR_SIZE } from '../base/units.ts';
import { BLOCK_SIZE, type ReadonlyWords, readU64, type Validator, writeU64 } from '../persistent-data/block.ts';
import { MAX_METADATA_BLOCKS } from '../persistent-data/index-entry.ts';
import type { SpaceMapRoot } from '../persistent-data/space-map.ts';
import { TIME_LIMIT } from './block-time.ts';

export const SUPERBLOCK_LOCATION = 0;
export const THIN_MAGIC = 27022010;
/** What the kernel writes. thin_restore 0.9.0 writes 1, with the same layout. */
export const THIN_VERSION = 2;
export const NEEDS_CHECK_FLAG = 1;

export const MIN_DATA_BLOCK_SIZE: number = 64 * KIB;
export const MAX_DATA_BLOCK_SIZE: number = 1024 * MIB;
/** A data block's number has 40 bits in a mapping. */
export const MAX_DATA_BLOCKS: number = 2 ** 40;

const CACHE_MAGIC = 6142003;
const ERA_MAGIC = 2126579579;

const FLAGS = 1;
const BLOCKNR = 2;
const UUID = 4;
const UUID_WORDS = 4;
const MAGIC = 8;
const VERSION = 10;
const TIME = 11;
const TRANSACTION_ID = 12;
const HELD_ROOT = 14;
const DATA_SPACE_MAP = 16;
const METADATA_SPACE_MAP = 48;
const MAPPING_ROOT = 80;
const DETAILS_ROOT = 82;
const DATA_BLOCK_SIZE = 84;
const METADATA_BLOCK_SIZE = 85;
const METADATA_BLOCK_COUNT = 86;
const COMPAT = 88;
const COMPAT_RO = 89;
const INCOMPAT = 90;

export interface Superblock {
  flags: number;
  /** Four words, not used by anyone. */
  uuid: readonly number[];
  version: number;
  /** Counts snapshots. */
  time: number;
  transactionId: number;
  /** The block with the metadata snapshot's superblock; 0: none. */
  heldRoot: number;
  dataSpaceMap: SpaceMapRoot;
  metadataSpaceMap: SpaceMapRoot;
  mappingRoot: number;
  detailsRoot: number;
  dataBlockSizeBytes: number;
  metadataBlockCount: number;
  compatFlags: number;
  compatRoFlags: number;
  incompatFlags: number;
}

export const superblockValidator: Validator = {
  name: 'superblock',
  checksumConstant: 160774,
  damage: () => null,
};

/** The fields, none of them checked: see `checkSuperblock`. */
export function decodeSuperblock(words: ReadonlyWords): Superblock {
  const uuid: number[] = [];
  for (let i = 0; i < UUID_WORDS; i++) uuid.push(words[UUID + i]!);
  return {
    flags: words[FLAGS]!,
    uuid,
    version: words[VERSION]!,
    time: words[TIME]!,
    transactionId: readU64(words, TRANSACTION_ID),
    heldRoot: readU64(words, HELD_ROOT),
    dataSpaceMap: decodeSpaceMapRoot(words, DATA_SPACE_MAP),
    metadataSpaceMap: decodeSpaceMapRoot(words, METADATA_SPACE_MAP),
    mappingRoot: readU64(words, MAPPING_ROOT),
    detailsRoot: readU64(words, DETAILS_ROOT),
    dataBlockSizeBytes: words[DATA_BLOCK_SIZE]! * SECTOR_SIZE,
    metadataBlockCount: readU64(words, METADATA_BLOCK_COUNT),
    compatFlags: words[COMPAT]!,
    compatRoFlags: words[COMPAT_RO]!,
    incompatFlags: words[INCOMPAT]!,
  };
}

/** Fills zeroed words; checksum and block number are stamped when the block is written. */
export function encodeSuperblock(superblock: Superblock, words: Uint32Array): void {
  words[FLAGS] = superblock.flags;
  for (let i = 0; i < UUID_WORDS; i++) words[UUID + i] = superblock.uuid[i]!;
  writeU64(words, MAGIC, THIN_MAGIC);
  words[VERSION] = superblock.version;
  words[TIME] = superblock.time;
  writeU64(words, TRANSACTION_ID, superblock.transactionId);
  writeU64(words, HELD_ROOT, superblock.heldRoot);
  encodeSpaceMapRoot(superblock.dataSpaceMap, words, DATA_SPACE_MAP);
  encodeSpaceMapRoot(superblock.metadataSpaceMap, words, METADATA_SPACE_MAP);
  writeU64(words, MAPPING_ROOT, superblock.mappingRoot);
  writeU64(words, DETAILS_ROOT, superblock.detailsRoot);
  words[DATA_BLOCK_SIZE] = superblock.dataBlockSizeBytes / SECTOR_SIZE;
  words[METADATA_BLOCK_SIZE] = BLOCK_SIZE / SECTOR_SIZE;
  writeU64(words, METADATA_BLOCK_COUNT, superblock.metadataBlockCount);
  words[COMPAT] = superblock.compatFlags;
  words[COMPAT_RO] = superblock.compatRoFlags;
  words[INCOMPAT] = superblock.incompatFlags;
}

/** What is wrong with a block that ought to be a superblock, before its checksum is looked at; null when nothing is. */
export function superblockIdentity(words: ReadonlyWords, location: number): { code: Errno; reason: string } | null {
  // An interrupted format leaves nothing but a checksum.
  let blank = true;
  for (let i = 1; i < words.length && blank; i++) blank = words[i] === 0;
  if (blank) return { code: 'ENODATA', reason: 'it is not formatted (its superblock is all zero)' };
  const magic = readU64(words, MAGIC);
  if (magic === CACHE_MAGIC)
    return { code: 'EILSEQ', reason: 'it holds the metadata of a dm-cache, not of a thin pool' };
  if (magic === ERA_MAGIC) return { code: 'EILSEQ', reason: 'it holds the metadata of dm-era, not of a thin pool' };
  if (magic !== THIN_MAGIC) return { code: 'EILSEQ', reason: `magic is ${magic}, expected ${THIN_MAGIC}` };
  const blocknr = readU64(words, BLOCKNR);
  if (blocknr !== location) {
    return { code: 'ENOTBLK', reason: `the superblock says that it is block ${blocknr}, expected ${location}` };
  }
  return null;
}

/** What is wrong with a superblock's fields; null when nothing is. `deviceBlocks` is what the device has room for. */
export function superblockDamage(words: ReadonlyWords, deviceBlocks: number): string | null {
  const superblock = decodeSuperblock(words);
  const { version, dataBlockSizeBytes, dataSpaceMap, metadataSpaceMap } = superblock;
  if (version < 1 || version > THIN_VERSION) return `version is ${version}, expected at most ${THIN_VERSION}`;
  const blockSize = dataBlockSizeDamage(dataBlockSizeBytes);
  if (blockSize !== null) return blockSize;
  if (words[METADATA_BLOCK_SIZE] !== BLOCK_SIZE / SECTOR_SIZE) {
    return `metadata block size is ${words[METADATA_BLOCK_SIZE]} sectors, expected ${BLOCK_SIZE / SECTOR_SIZE}`;
  }
  if (!Number.isSafeInteger(superblock.transactionId)) return 'the transaction id is not below 2^53';
  if (metadataSpaceMap.blockCount > deviceBlocks) {
    return `it counts ${metadataSpaceMap.blockCount} metadata blocks, the device has ${deviceBlocks}`;
  }
  if (metadataSpaceMap.blockCount > MAX_METADATA_BLOCKS || metadataSpaceMap.blockCount === 0) {
    return `it counts ${metadataSpaceMap.blockCount} metadata blocks, expected 1 to ${MAX_METADATA_BLOCKS}`;
  }
  if (dataSpaceMap.blockCount > MAX_DATA_BLOCKS) {
    return `it counts ${dataSpaceMap.blockCount} data blocks, expected at most ${MAX_DATA_BLOCKS}`;
  }
  if (dataSpaceMap.allocatedCount > dataSpaceMap.blockCount) {
    return `${dataSpaceMap.allocatedCount} of ${dataSpaceMap.blockCount} data blocks are in use`;
  }
  return null;
}

/** What is wrong with a data block size; null when nothing is. */
export function dataBlockSizeDamage(sizeBytes: number): string | null {
  if (sizeBytes >= MIN_DATA_BLOCK_SIZE && sizeBytes <= MAX_DATA_BLOCK_SIZE && sizeBytes % MIN_DATA_BLOCK_SIZE === 0) {
    return null;
  }
  return `data block size is ${sizeBytes} bytes, expected a multiple of 64 KiB up to 1 GiB`;
}

/** What forbids to use the metadata: feature flags, of which none is known to us, or times past their end; null when nothing does. */
export function useForbidden(superblock: Superblock, readOnly: boolean): string | null {
  const { incompatFlags, compatRoFlags, time } = superblock;
  if (incompatFlags !== 0) return `it uses features that are not supported (incompat flags ${incompatFlags})`;
  if (compatRoFlags !== 0 && !readOnly) {
    return `it uses features that are only supported for reading (compat ro flags ${compatRoFlags})`;
  }
  // The kernel would let such times run into the block numbers of new mappings.
  if (time >= TIME_LIMIT && !readOnly) return `its time is ${time}, expected below ${TIME_LIMIT}`;
  return null;
}

function decodeSpaceMapRoot(words: ReadonlyWords, at: number): SpaceMapRoot {
  return {
    blockCount: readU64(words, at),
    allocatedCount: readU64(words, at + 2),
    bitmapRoot: readU64(words, at + 4),
    refCountRoot: readU64(words, at + 6),
  };
}

function encodeSpaceMapRoot(root: SpaceMapRoot, words: Uint32Array, at: number): void {
  writeU64(words, at, root.blockCount);
  writeU64(words, at + 2, root.allocatedCount);
  writeU64(words, at + 4, root.bitmapRoot);
  writeU64(words, at + 6, root.refCountRoot);
}
