import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Clock, monotonicClock } from '../base/clock.ts';
import { wrapError } from '../base/errors.ts';
import type { BlockDevice } from '../block/block-device.ts';
import { openPoolFile } from '../thin/pool-files.ts';
import { type CheckOptions, type CheckSummary, checkMetadataInTurns } from './check.ts';
import { checkFolder } from './check-folder.ts';
import type { Damage } from './damage.ts';
import { CountFaults, clearNeedsCheck } from './fix-counts.ts';
import { type BlockView, MetadataReader } from './metadata-reader.ts';
import { runInTurns } from './steps.ts';
import { readSuperblockFields } from './superblock-check.ts';
import { DetailsVisitor } from './thin-visitors.ts';
import { TreeWalker, unregistered } from './tree-walker.ts';

export interface PoolCheck extends CheckSummary {
  /** The first of what was found; the counts are of all. */
  damages: Damage[];
  /** Something was written: counts that were wrong, the needs-check flag, or both. */
  repaired: boolean;
}

export interface PoolCheckOptions extends Omit<CheckOptions, 'counts'> {
  clock?: Clock;
  /** Called now and then with the blocks that were read, and about how many there are. */
  onProgress?: ((done: number, total: number) => void) | undefined;
  /**
   * Clears the needs-check flag of metadata without errors, after reference counts that are too high, and totals that are wrong, have been
   * set right. The device is open for writing, and nobody else has it.
   */
  repair?: boolean | undefined;
}

/** Damages that are kept: a broken tree can have millions. */
const MAX_DAMAGES = 1000;
const SUPERBLOCK = 0;
/** Of setting counts right: a round may leave less than it found, see `CountFaults.mend`. */
const MAX_ROUNDS = 4;

/**
 * Checks a pool's folder: its metadata by every rule of the format, and whether catalogue and metadata belong together. Changes nothing.
 *
 * The pool may be in use. What a committed superblock leads to is not overwritten before the commit after it, so the pool has to be
 * quiet for as long as the check takes: null when it was not, and the check is to be tried again. Throws `StorageError` when the
 * metadata device cannot be opened.
 */
export async function checkPool(dir: string, options: PoolCheckOptions = {}): Promise<PoolCheck | null> {
  const device = openPoolFile(dir, 'metadata', true, true);
  try {
    return await checkDevice(device, dir, options);
  } finally {
    await device.close();
  }
}

/** The same for metadata that is open; `dir` is its pool's folder, null when it has none. Changes nothing unless `repair` is set. */
export async function checkDevice(
  device: BlockDevice,
  dir: string | null,
  options: PoolCheckOptions = {},
): Promise<PoolCheck | null> {
  let check = await checkOnce(device, dir, options);
  if (!options.repair) return check?.result ?? null;
  let repaired = false;
  const isPartial = options.superblockOnly || options.skipMappings;
  for (let round = 0; round < MAX_ROUNDS && check?.faults.mendable && !isPartial; round++) {
    await runInTurns(check.faults.mend(device), { clock: options.clock ?? monotonicClock });
    repaired = true;
    check = await checkOnce(device, dir, options);
  }
  if (check === null) return null;
  const { result, faults } = check;
  if (result.needsCheck && faults.otherErrors === 0 && result.leaks === 0) {
    clearNeedsCheck(device);
    repaired = true;
    result.needsCheck = false;
  }
  return { ...result, repaired };
}

async function checkOnce(
  device: BlockDevice,
  dir: string | null,
  options: PoolCheckOptions,
): Promise<{ result: PoolCheck; faults: CountFaults } | null> {
  const { clock = monotonicClock, onProgress, repair, ...rules } = options;
  const reader = new MetadataReader(device);
  const before = reader.acquire();
  // What is wrong with it comes from the check itself.
  reader.read(SUPERBLOCK, 'superblock', before);
  const catalogue = dir === null ? '' : readCatalogue(dir);
  const damages: Damage[] = [];
  const faults = new CountFaults();
  const keep = (damage: Damage): void => {
    if (damages.length < MAX_DAMAGES) damages.push(damage);
    faults.damage(damage);
  };
  const summary = await checkMetadataInTurns(device, keep, { ...rules, clock, onProgress, counts: faults });
  if (dir !== null && summary.errors === 0 && !rules.superblockOnly && !rules.metadataSnapshot) {
    await checkFolder(dir, readSuperblockFields(before), deviceIds(device, before), (severity, path, message) => {
      if (severity === 'error') summary.errors++;
      else summary.warnings++;
      keep({ invariant: 'catalogue', severity, path, begin: null, end: null, message });
    });
  }
  const after = reader.acquire();
  reader.read(SUPERBLOCK, 'superblock', after);
  // A metadata snapshot stays as it is whatever the pool does.
  const quiet =
    rules.metadataSnapshot ||
    (Buffer.compare(before.bytes, after.bytes) === 0 && (dir === null || readCatalogue(dir) === catalogue));
  return quiet ? { result: { ...summary, damages, repaired: false }, faults } : null;
}
function readCatalogue(dir: string): string {
  try {
    return readFileSync(join(dir, 'pool.json'), 'utf8');
  } catch (error) {
    throw wrapError(`Cannot read the catalogue of the pool "${dir}"`, error);
  }
}

function deviceIds(device: BlockDevice, superblock: BlockView): ReadonlySet<number> {
  const details = new DetailsVisitor();
  const walker = new TreeWalker(new MetadataReader(device), unregistered, () => {});
  walker.walk(readSuperblockFields(superblock).detailsRoot, details, 'superblock');
  return new Set(details.devices.keys());
}
