import { StorageError } from '../base/errors.ts';
import type { PoolRecord } from './ir.ts';
import type { MetadataReader } from './metadata-reader.ts';
import { type DeviceRoot, type PoolOverrides, type PoolRoots, readDevices } from './pool-roots.ts';
import { magicDamage, readSuperblockFields, type SuperblockFields } from './superblock-check.ts';
import { TimeCounts } from './time-counts.ts';
import { type DetailsTree, type DevicesTree, TreeScan } from './tree-scan.ts';

const VERSION = 2;

/** What a folder knows about its pool, for when the superblock is lost. */
export interface PoolKnowledge {
  transactionId: number;
  dataBlockSize: number;
  dataBlockCount: number;
}

export interface FindOptions extends PoolOverrides {
  known?: PoolKnowledge | undefined;
  progress?: (done: number, total: number) => void;
  /** Told what was found and chosen, a sentence each. */
  found?: (message: string) => void;
}

/** A mapping tree, and the details tree that belongs to it; null: there is none, the details have to be made from the mappings. */
interface Candidate {
  devices: DevicesTree;
  details: DetailsTree | null;
}

/**
 * Finds the roots of a pool in damaged metadata: those of the superblock when they are whole, else the newest trees of devices and of details
 * anywhere on the device that belong together, else the newest tree of devices with details made from it. The space maps are not looked at.
 *
 * Throws EILSEQ when nothing is whole, EINVAL when the data block size is lost and not given. Sets the reader's `blockCount`.
 */
export function findRoots(reader: MetadataReader, options: FindOptions = {}): PoolRoots {
  const { found = () => {}, progress = () => {} } = options;
  const action = `Cannot repair the metadata of "${reader.device.path}"`;
  const superblock = readReference(reader, found);
  if (superblock !== null) {
    const devices = readOrNull(() => readDevices(reader, superblock.mappingRoot, superblock.detailsRoot));
    // A pool without volumes has no tree that could be told from others.
    if (devices?.length === 0) return { pool: poolOf(superblock, null, options, action), devices };
  }
  const scan = new TreeScan(reader);
  scan.run(progress);
  const candidate = choose(scan, superblock, found);
  if (candidate === null) throw new StorageError('EILSEQ', `${action}: no tree of mappings is whole`);
  const pool = poolOf(superblock, candidate, options, action);
  return { pool, devices: devicesOf(reader, scan, candidate, pool) };
}

function readReference(reader: MetadataReader, found: (message: string) => void): SuperblockFields | null {
  const view = reader.acquire();
  const damage = reader.read(0, 'superblock', view) ?? magicDamage(view);
  const fields = readSuperblockFields(view);
  reader.release(view);
  if (damage === null) return fields;
  found(`The superblock is lost: ${damage}.`);
  return null;
}

function choose(
  scan: TreeScan,
  superblock: SuperblockFields | null,
  found: (message: string) => void,
): Candidate | null {
  const own = superblock === null ? undefined : scan.devices.get(superblock.mappingRoot);
  const ownDetails = superblock === null ? undefined : scan.details.get(superblock.detailsRoot);
  if (own !== undefined && ownDetails !== undefined && sameDevices(scan, own, ownDetails)) {
    found("The superblock's trees are whole.");
    return { devices: own, details: ownDetails };
  }
  // A superblock that is whole names the newest tree of mappings; there is nothing better than that one.
  const roots = own !== undefined ? [own] : [...scan.devices.values()].filter((tree) => !scan.isPart(tree));
  const details = [...scan.details.values()].filter((tree) => !scan.isPart(tree) || tree === ownDetails);
  const candidates = pairs(scan, roots, details);
  if (candidates.length === 0) for (const devices of roots) candidates.push({ devices, details: null });
  found(`Trees of mappings: ${roots.length}, of details: ${details.length}, pairs of them: ${count(candidates)}.`);
  const times = new TimeCounts(scan);
  const [best] = candidates.sort(
    (a, b) =>
      compareAges(a, b) ||
      times.compare(a.devices, b.devices) ||
      b.devices.deviceCount - a.devices.deviceCount ||
      b.devices.block - a.devices.block,
  );
  if (best === undefined) return null;
  const equal = candidates.filter((other) => compareAges(best, other) === 0).length - 1;
  if (equal > 0)
    found(`Of the same age: ${equal} more; the one with the most mappings is taken, which may undo discards.`);
  const withDetails =
    best.details === null ? 'without details: they are made anew' : `details in ${best.details.block}`;
  found(`Taken: mappings in block ${best.devices.block} (devices: ${best.devices.deviceCount}), ${withDetails}.`);
  return best;
}

function count(candidates: readonly Candidate[]): number {
  return candidates.filter(({ details }) => details !== null).length;
}

/** What belongs together: the same devices, with as many mappings as the details say. */
function pairs(scan: TreeScan, roots: readonly DevicesTree[], details: readonly DetailsTree[]): Candidate[] {
  const byMappings = new Map<number, DetailsTree[]>();
  for (const tree of details) {
    const alike = byMappings.get(tree.mappedBlocks);
    if (alike === undefined) byMappings.set(tree.mappedBlocks, [tree]);
    else alike.push(tree);
  }
  return roots.flatMap((devices) =>
    (byMappings.get(devices.mappingCount) ?? [])
      .filter((tree) => sameDevices(scan, devices, tree))
      .map((tree) => ({ devices, details: tree })),
  );
}

/**
 * The newer first. Ages only grow while devices are not deleted, and so do transaction ids; the number of mappings, which is looked at after
 * them, falls with discards.
 */
function compareAges(a: Candidate, b: Candidate): number {
  const age = b.devices.age - a.devices.age;
  if (age !== 0 || a.details === null || b.details === null) return age;
  return b.details.maxTransactionId - a.details.maxTransactionId || b.details.age - a.details.age;
}

function sameDevices(scan: TreeScan, devices: DevicesTree, details: DetailsTree): boolean {
  if (devices.deviceCount !== details.deviceCount || devices.firstId !== details.firstId) return false;
  const ids = new Set(keysOf(scan, devices));
  return keysOf(scan, details).every((id) => ids.has(id));
}

function keysOf(scan: TreeScan, tree: DevicesTree | DetailsTree): number[] {
  const keys: number[] = [];
  const visit = (block: number, height: number): void =>
    scan.entries(block, (node) => {
      for (let i = 0; i < node.count; i++) {
        if (height === 1) keys.push(node.key(i));
        else visit(node.value64(i), height - 1);
      }
    });
  visit(tree.block, tree.height);
  return keys;
}

function poolOf(
  superblock: SuperblockFields | null,
  candidate: Candidate | null,
  options: FindOptions,
  action: string,
): PoolRecord {
  const { known } = options;
  const dataBlockSize = options.dataBlockSize ?? superblock?.dataBlockSize ?? known?.dataBlockSize;
  if (dataBlockSize === undefined) {
    throw new StorageError(
      'EINVAL',
      `${action}: the data block size is lost with the superblock; give --data-block-size`,
    );
  }
  const time = Math.max(candidate?.devices.age ?? 0, candidate?.details?.age ?? 0);
  // A device is made before the transaction that it belongs to is over.
  const after = superblock === null && known === undefined ? 1 : 0;
  return {
    // Blocks may be shared or not; without details all have to pass for shared.
    time: Math.max(superblock?.time ?? 0, candidate?.details === null ? time + 1 : time),
    transactionId: Math.max(
      options.transactionId ?? 0,
      superblock?.transactionId ?? known?.transactionId ?? 0,
      (candidate?.details?.maxTransactionId ?? 0) + after,
    ),
    flags: 0,
    version: VERSION,
    dataBlockSize,
    dataBlockCount: Math.max(
      options.dataBlockCount ?? 0,
      superblock?.dataSpaceMap.blockCount ?? known?.dataBlockCount ?? 0,
      (candidate?.devices.highestDataBlock ?? -1) + 1,
    ),
    metadataSnapshot: 0,
  };
}

function devicesOf(
  reader: MetadataReader,
  scan: TreeScan,
  { devices, details }: Candidate,
  pool: PoolRecord,
): DeviceRoot[] {
  if (details !== null) return readDevices(reader, devices.block, details.block);
  const made: DeviceRoot[] = [];
  const visit = (block: number, height: number): void =>
    scan.entries(block, (node) => {
      for (let i = 0; i < node.count; i++) {
        const child = node.value64(i);
        if (height > 1) visit(child, height - 1);
        else made.push({ id: node.key(i), root: child, ...newDetails(scan.mappingCount(child), devices.age, pool) });
      }
    });
  visit(devices.block, devices.height);
  return made;
}

/** Details of a device of which nothing but its mappings is known: every mapping passes for shared. */
function newDetails(mappedBlocks: number, age: number, pool: PoolRecord): Omit<DeviceRoot, 'id' | 'root'> {
  const time = age + 1;
  return {
    mappedBlocks,
    transactionId: Math.max(0, pool.transactionId - 1),
    creationTime: time,
    snapshottedTime: time,
  };
}

function readOrNull<T>(read: () => T[]): T[] | null {
  try {
    return read();
  } catch (error) {
    if (error instanceof StorageError && error.code === 'EILSEQ') return null;
    throw error;
  }
}
