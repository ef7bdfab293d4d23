import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { messageOf, wrapError } from '../base/errors.ts';
import type { BlockDevice } from '../block/block-device.ts';
import { Catalogue } from '../thin/catalogue.ts';
import { openPoolFile } from '../thin/pool-files.ts';
import { type CheckSummary, checkMetadata } from './check.ts';
import type { Damage, Severity } from './damage.ts';
import { type BlockView, MetadataReader } from './metadata-reader.ts';
import { readSuperblockFields } from './superblock-check.ts';
import { DetailsVisitor } from './thin-visitors.ts';
import { TreeWalker, unregistered } from './tree-walker.ts';

export interface PoolCheck extends CheckSummary {
  /** The superblock's. */
  transactionId: number;
  /** The first of what was found; the counts are of all. */
  damages: Damage[];
}

/** Damages that are kept: a broken tree can have millions. */
const MAX_DAMAGES = 1000;
const SUPERBLOCK = 0;

/**
 * Checks a pool's folder: its metadata by every rule of the format, and whether catalogue and metadata belong together. Changes nothing.
 *
 * The pool may be in use. What a committed superblock leads to is not overwritten before the commit after it, so the pool has to be
 * quiet for as long as the check takes: null when it was not, and the check is to be tried again. Throws `StorageError` when the
 * metadata device cannot be opened.
 */
export async function checkPool(dir: string): Promise<PoolCheck | null> {
  const device = openPoolFile(dir, 'metadata', true, true);
  try {
    const reader = new MetadataReader(device);
    const before = reader.acquire();
    // What is wrong with it comes from the check itself.
    reader.read(SUPERBLOCK, 'superblock', before);
    const catalogue = readCatalogue(dir);
    const damages: Damage[] = [];
    const keep = (damage: Damage): void => {
      if (damages.length < MAX_DAMAGES) damages.push(damage);
    };
    const summary = checkMetadata(device, keep);
    const { transactionId } = readSuperblockFields(before);
    if (summary.errors === 0) {
      compareCatalogue(dir, transactionId, deviceIds(device, before), (severity, message) => {
        if (severity === 'error') summary.errors++;
        else summary.warnings++;
        keep({ invariant: 'catalogue', severity, path: 'pool.json', begin: null, end: null, message });
      });
    }
    const after = reader.acquire();
    reader.read(SUPERBLOCK, 'superblock', after);
    const quiet = Buffer.compare(before.bytes, after.bytes) === 0 && readCatalogue(dir) === catalogue;
    return quiet ? { ...summary, transactionId, damages } : null;
  } finally {
    await device.close();
  }
}

function readCatalogue(dir: string): string {
  try {
    return readFileSync(join(dir, 'pool.json'), 'utf8');
  } catch (error) {
    throw wrapError(`Cannot read the catalogue of the pool "${dir}"`, error);
  }
}

function compareCatalogue(
  dir: string,
  transactionId: number,
  ids: ReadonlySet<number>,
  found: (severity: Severity, message: string) => void,
): void {
  let catalogue: Catalogue;
  try {
    catalogue = Catalogue.load(dir);
  } catch (error) {
    found('error', messageOf(error));
    return;
  }
  const volumes = catalogue.volumesAt(transactionId, (id) => ids.has(id));
  if (volumes === null) {
    found('error', `it belongs to another transaction than the metadata, which is at ${transactionId}`);
    return;
  }
  for (const { name, id } of volumes) {
    if (!ids.has(id)) found('error', `the metadata has no device ${id}, which is the volume "${name}"`);
  }
  const known = new Set(volumes.map(({ id }) => id));
  for (const id of ids) {
    if (!known.has(id))
      found('warning', `device ${id} of the metadata has no name; it gets one when the pool is opened`);
  }
}

function deviceIds(device: BlockDevice, superblock: BlockView): ReadonlySet<number> {
  const details = new DetailsVisitor();
  const walker = new TreeWalker(new MetadataReader(device), unregistered, () => {});
  walker.walk(readSuperblockFields(superblock).detailsRoot, details, 'superblock');
  return new Set(details.devices.keys());
}
