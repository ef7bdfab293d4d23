import { StorageError } from '../base/errors.ts';
import { describeDamage } from './damage.ts';
import type { DeviceRecord, PoolRecord } from './ir.ts';
import type { MetadataReader } from './metadata-reader.ts';
import { checkSuperblockFields, magicDamage, readSuperblockFields, type SuperblockFields } from './superblock-check.ts';
import { DetailsVisitor, DeviceIdVisitor } from './thin-visitors.ts';
import { TreeWalker, unregistered } from './tree-walker.ts';

const ATTEMPTS = 5;

export interface DeviceRoot extends DeviceRecord {
  /** Of its tree of mappings. */
  root: number;
}

/** Where everything in a pool's metadata begins. */
export interface PoolRoots {
  pool: PoolRecord;
  /** By ascending id. */
  devices: readonly DeviceRoot[];
}

export interface RootOptions {
  /** The metadata snapshot instead of the live metadata; a number says in which block it has to be. ENODATA when there is none. */
  metadataSnapshot?: boolean | number | undefined;
}

/** What a caller knows better than the superblock. */
export interface PoolOverrides {
  /** Taken when it is above what was found. */
  transactionId?: number | undefined;
  /** 512-byte sectors. */
  dataBlockSize?: number | undefined;
  /** Taken when it is above what was found. */
  dataBlockCount?: number | undefined;
}

/** The metadata cannot be read. `action: reason`. */
export function metadataError(reader: MetadataReader, reason: string): StorageError {
  return new StorageError('EILSEQ', `Cannot read the metadata of "${reader.device.path}": ${reason}`);
}

/** Reads superblock, details and roots, and sets the reader's `blockCount`. EILSEQ at the first damage. */
export function readPoolRoots(reader: MetadataReader, options: RootOptions = {}): PoolRoots {
  const live = options.metadataSnapshot ? readBusy(reader) : readSuperblock(reader, 0);
  const superblock = options.metadataSnapshot ? readHeld(reader, live.heldRoot, options.metadataSnapshot) : live;
  reader.blockCount = live.metadataSpaceMap.blockCount;
  const pool = {
    time: superblock.time,
    transactionId: superblock.transactionId,
    flags: superblock.flags,
    version: superblock.version,
    dataBlockSize: superblock.dataBlockSize,
    dataBlockCount: superblock.dataSpaceMap.blockCount,
    metadataSnapshot: superblock.heldRoot,
  };
  return { pool, devices: readDevices(reader, superblock.mappingRoot, superblock.detailsRoot) };
}

/** The devices of a mapping tree and a details tree that belong together. EILSEQ where they do not, and at the first damage. */
export function readDevices(reader: MetadataReader, mappingRoot: number, detailsRoot: number): DeviceRoot[] {
  const walker = new TreeWalker(reader, unregistered, (damage) => {
    if (damage.severity === 'error') throw metadataError(reader, describeDamage(damage));
  });
  const details = new DetailsVisitor();
  walker.walk(detailsRoot, details, 'superblock');
  const devices: DeviceRoot[] = [];
  const collect = new DeviceIdVisitor((id, root) => {
    const device = details.devices.get(id);
    if (device === undefined) throw metadataError(reader, `device ${id} has mappings and no details`);
    details.devices.delete(id);
    devices.push({ id, root, ...device });
  });
  walker.walk(mappingRoot, collect, 'superblock');
  for (const id of details.devices.keys()) throw metadataError(reader, `device ${id} has details and no mappings`);
  return devices;
}

/** The superblock of a pool that may be in use: a read beside a write may get some of both. */
function readBusy(reader: MetadataReader): SuperblockFields {
  for (let attempt = 1; attempt < ATTEMPTS; attempt++) {
    try {
      return readSuperblock(reader, 0);
    } catch (error) {
      if (!(error instanceof StorageError) || error.code !== 'EILSEQ') throw error;
    }
  }
  return readSuperblock(reader, 0);
}

function readHeld(reader: MetadataReader, heldRoot: number, asked: true | number): SuperblockFields {
  const action = `Cannot read the metadata snapshot of "${reader.device.path}"`;
  if (heldRoot === 0) throw new StorageError('ENODATA', `${action}: there is none`);
  if (asked !== true && asked !== heldRoot) {
    throw new StorageError('EINVAL', `${action}: it is in block ${heldRoot}, not ${asked}`);
  }
  return readSuperblock(reader, heldRoot);
}

function readSuperblock(reader: MetadataReader, number: number): SuperblockFields {
  const view = reader.acquire();
  const unreadable = reader.read(number, 'superblock', view) ?? magicDamage(view);
  const fields = readSuperblockFields(view);
  reader.release(view);
  if (unreadable !== null) throw metadataError(reader, unreadable);
  if (number === 0) {
    checkSuperblockFields(fields, reader.blockCount, 'superblock', (damage) => {
      throw metadataError(reader, describeDamage(damage));
    });
  }
  return fields;
}

/** `roots` with what the caller knows better. */
export function overridden(roots: PoolRoots, overrides: PoolOverrides): PoolRoots {
  const { pool } = roots;
  return {
    pool: {
      ...pool,
      transactionId: Math.max(overrides.transactionId ?? 0, pool.transactionId),
      dataBlockSize: overrides.dataBlockSize ?? pool.dataBlockSize,
      dataBlockCount: Math.max(overrides.dataBlockCount ?? 0, pool.dataBlockCount),
    },
    devices: roots.devices,
  };
}
