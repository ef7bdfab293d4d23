/** The superblock's fields, read and judged by themselves. See thin/superblock.ts for the layout. */
import type { DamageReport } from './damage.ts';
import type { BlockView } from './metadata-reader.ts';
import { readSpaceMapFields, type SpaceMapFields } from './space-map-fields.ts';

const MAGIC = 27022010;
const MAX_VERSION = 2;
const METADATA_BLOCK_SECTORS = 8;
const MAX_METADATA_BLOCKS = 255 * 16320;
const MAX_DATA_BLOCKS = 2 ** 40;
const TIME_LIMIT = 2 ** 24;

export interface SuperblockFields {
  flags: number;
  version: number;
  time: number;
  transactionId: number;
  heldRoot: number;
  dataSpaceMap: SpaceMapFields;
  metadataSpaceMap: SpaceMapFields;
  mappingRoot: number;
  detailsRoot: number;
  /** 512-byte sectors. */
  dataBlockSize: number;
  metadataBlockSize: number;
  metadataBlockCount: number;
  compatRoFlags: number;
  incompatFlags: number;
}

export function readSuperblockFields(view: BlockView): SuperblockFields {
  return {
    flags: view.u32(4),
    version: view.u32(40),
    time: view.u32(44),
    transactionId: view.u64(48),
    heldRoot: view.u64(56),
    dataSpaceMap: readSpaceMapFields(view, 64),
    metadataSpaceMap: readSpaceMapFields(view, 192),
    mappingRoot: view.u64(320),
    detailsRoot: view.u64(328),
    dataBlockSize: view.u32(336),
    metadataBlockSize: view.u32(340),
    metadataBlockCount: view.u64(344),
    compatRoFlags: view.u32(356),
    incompatFlags: view.u32(360),
  };
}

/** What is wrong with the magic number, or null: without it nothing else means anything. */
export function magicDamage(view: BlockView): string | null {
  const magic = view.u64(32);
  return magic === MAGIC ? null : `magic is ${magic}, expected ${MAGIC}`;
}

/** Judges the fields; `deviceBlocks` is what the device has room for. Returns whether the trees can be walked. */
export function checkSuperblockFields(
  fields: SuperblockFields,
  deviceBlocks: number,
  path: string,
  report: DamageReport,
): boolean {
  const wrong = (message: string): void =>
    report({ invariant: 'superblock', severity: 'error', path, begin: null, end: null, message });
  const { dataBlockSize, metadataSpaceMap, dataSpaceMap } = fields;
  if (fields.version < 1 || fields.version > MAX_VERSION) wrong(`version is ${fields.version}`);
  if (fields.incompatFlags !== 0) wrong(`unknown incompat features ${fields.incompatFlags}`);
  if (fields.compatRoFlags !== 0) wrong(`unknown compat_ro features ${fields.compatRoFlags}`);
  if (fields.time >= TIME_LIMIT) wrong(`time is ${fields.time}, expected below ${TIME_LIMIT}`);
  if (!Number.isSafeInteger(fields.transactionId)) wrong('the transaction id is not below 2^53');
  if (dataBlockSize < 128 || dataBlockSize > 2 ** 21 || dataBlockSize % 128 !== 0) {
    wrong(`data block size is ${dataBlockSize} sectors, expected a multiple of 128 up to 2097152`);
  }
  if (fields.metadataBlockSize !== METADATA_BLOCK_SECTORS) {
    wrong(`metadata block size is ${fields.metadataBlockSize} sectors, expected ${METADATA_BLOCK_SECTORS}`);
  }
  // As at format: not changed when the device grows.
  if (fields.metadataBlockCount > metadataSpaceMap.blockCount) {
    wrong(
      `it was formatted with ${fields.metadataBlockCount} blocks, its space map counts ${metadataSpaceMap.blockCount}`,
    );
  }
  const limit = Math.min(deviceBlocks, MAX_METADATA_BLOCKS);
  const walkable = metadataSpaceMap.blockCount <= limit && dataSpaceMap.blockCount <= MAX_DATA_BLOCKS;
  if (!walkable) {
    wrong(
      `its space maps count ${metadataSpaceMap.blockCount} metadata and ${dataSpaceMap.blockCount} data blocks; ` +
        `the device has room for ${limit}, the format for ${MAX_DATA_BLOCKS}`,
    );
  }
  return walkable;
}

/** What is wrong with the metadata snapshot's copy of a superblock, as far as the copy by itself does not tell. */
export function checkHeldFields(
  held: SuperblockFields,
  live: SuperblockFields,
  path: string,
  report: DamageReport,
): void {
  const wrong = (message: string): void =>
    report({ invariant: 'superblock', severity: 'error', path, begin: null, end: null, message });
  if (held.heldRoot !== 0) wrong(`it holds a metadata snapshot itself (${held.heldRoot})`);
  for (const field of ['version', 'dataBlockSize', 'metadataBlockSize', 'compatRoFlags', 'incompatFlags'] as const) {
    if (held[field] !== live[field]) wrong(`${FIELD_NAMES[field]} is ${held[field]}, in the superblock ${live[field]}`);
  }
  // Not the transaction id: it is the user's, who may set it back.
  if (!Number.isSafeInteger(held.transactionId)) wrong('the transaction id is not below 2^53');
  for (const field of ['time', 'metadataBlockCount'] as const) {
    if (held[field] > live[field]) wrong(`${FIELD_NAMES[field]} is ${held[field]}, in the superblock ${live[field]}`);
  }
  for (const map of [held.dataSpaceMap, held.metadataSpaceMap]) {
    if (Object.values(map).some((value) => value !== 0)) wrong('it has a space map, expected none');
  }
}

const FIELD_NAMES = {
  version: 'version',
  dataBlockSize: 'data block size',
  metadataBlockSize: 'metadata block size',
  compatRoFlags: 'compat_ro flags',
  incompatFlags: 'incompat flags',
  time: 'time',
  metadataBlockCount: 'number of metadata blocks at format',
} as const;
