import type { BlockDevice } from '../block/block-device.ts';
import type { Damage, DamageReport, Invariant, Severity } from './damage.ts';
import { MetadataReader } from './metadata-reader.ts';
import { NodeTable } from './node-table.ts';
import { OverflowCounts } from './overflow-counts.ts';
import { ReadAhead } from './read-ahead.ts';
import { ReferenceCounter } from './reference-counter.ts';
import {
  bitmapEntry,
  type CountDifference,
  SpaceMapCheck,
  type SpaceMapJudge,
  type SpaceMapName,
} from './space-map-check.ts';
import { type IndexEntry, IndexTreeVisitor, indexBlockEntries } from './space-map-fields.ts';
import { runInTurns, runToEnd, type StepOptions, type Steps } from './steps.ts';
import {
  checkHeldFields,
  checkSuperblockFields,
  magicDamage,
  readSuperblockFields,
  type SuperblockFields,
} from './superblock-check.ts';
import { DetailsVisitor, DeviceIdVisitor, isDeviceId, MappingVisitor } from './thin-visitors.ts';
import { TreeWalker, unregistered } from './tree-walker.ts';

const NEEDS_CHECK = 1;
const BITMAP_ENTRIES = 16320;

/** Trees whose nodes cannot be each other's. */
const Kind = { devices: 1, mappings: 2, details: 3, dataIndex: 4, dataCounts: 5, metadataCounts: 6 } as const;

export interface CheckOptions {
  /** Only the superblock. */
  superblockOnly?: boolean | undefined;
  /** Neither mappings nor what follows from them: reference counts, and how many blocks each device has. */
  skipMappings?: boolean | undefined;
  /** The devices and mappings of the metadata snapshot, and nothing else: the rest may be changing. */
  metadataSnapshot?: boolean | undefined;
  /** Instead of the superblock's. */
  mappingRoot?: number | undefined;
  /** Instead of the superblock's. */
  detailsRoot?: number | undefined;
  /** Told every count that is wrong, and how many blocks the bitmaps say are in use (if all could be read). */
  counts?: CountReport | undefined;
}

export interface CountReport {
  difference(name: SpaceMapName, difference: CountDifference): void;
  inUse(name: SpaceMapName, blockCount: number): void;
}

/** What a check has seen. */
export interface CheckSummary {
  errors: number;
  leaks: number;
  warnings: number;
  /** The pool asked for this check. */
  needsCheck: boolean;
  /** The superblock's; null when it cannot be read. */
  transactionId: number | null;
  /** By the superblock; null when it cannot be read. */
  freeMetadataBlocks: number | null;
  deviceCount: number;
  /** Of all devices, shared ones as often as they are shared. */
  mappingCount: number;
  /** Metadata blocks read. */
  blocksRead: number;
}

/**
 * Checks a pool's metadata against every rule of the format and reports everything that it finds.
 *
 * Reads the device by itself, synchronously; it must not be changing. Memory: two bits for each data block in use, some
 * bytes for each metadata block, 30 for each node that is shared.
 */
export function checkMetadata(device: BlockDevice, report: DamageReport, options: CheckOptions = {}): CheckSummary {
  return runToEnd(new Check(device, report, options).steps());
}

export interface SteppedCheckOptions extends CheckOptions, Pick<StepOptions, 'clock'> {
  /** Called now and then with the blocks that were read, and about how many there are. */
  onProgress?: ((done: number, total: number) => void) | undefined;
}

/** The same in turns of the event loop, with several reads at a time. */
export async function checkMetadataInTurns(
  device: BlockDevice,
  report: DamageReport,
  options: SteppedCheckOptions,
): Promise<CheckSummary> {
  const { clock, onProgress } = options;
  const check = new Check(device, report, options);
  const readAhead = new ReadAhead(device);
  check.reader.readAhead = readAhead;
  return runInTurns(check.steps(), {
    clock,
    between: () => readAhead.fetch(),
    onTurn: () => onProgress?.(Math.min(check.reader.readCount, check.expectedBlocks), check.expectedBlocks),
  });
}

class Check {
  readonly reader: MetadataReader;
  /** About as many will be read. */
  expectedBlocks = 1;
  readonly #summary: CheckSummary = {
    errors: 0,
    leaks: 0,
    warnings: 0,
    needsCheck: false,
    transactionId: null,
    freeMetadataBlocks: null,
    deviceCount: 0,
    mappingCount: 0,
    blocksRead: 0,
  };
  readonly #report: DamageReport;
  readonly #options: CheckOptions;
  readonly #metadataReferences: ReferenceCounter = new ReferenceCounter();
  readonly #dataReferences: ReferenceCounter = new ReferenceCounter();
  readonly #nodes: NodeTable = new NodeTable(this.#metadataReferences);
  readonly #walker: TreeWalker;
  #maxTime = 0;
  #dataBlockCount = 0;

  constructor(device: BlockDevice, report: DamageReport, options: CheckOptions) {
    this.reader = new MetadataReader(device);
    this.#options = options;
    this.#report = (damage) => this.#add(damage, report);
    this.#walker = new TreeWalker(this.reader, this.#nodes, this.#report);
  }

  *steps(): Steps<CheckSummary> {
    const superblock = this.#superblock(0, 'superblock');
    if (superblock !== null) {
      this.#summary.needsCheck = (superblock.flags & NEEDS_CHECK) !== 0;
      this.#summary.transactionId = superblock.transactionId;
      const { blockCount, allocatedCount } = superblock.metadataSpaceMap;
      this.#summary.freeMetadataBlocks = blockCount - allocatedCount;
      if (
        checkSuperblockFields(superblock, this.reader.blockCount, 'superblock', this.#report) &&
        !this.#options.superblockOnly
      ) {
        this.expectedBlocks = Math.max(1, Math.min(allocatedCount, blockCount));
        this.reader.blockCount = blockCount;
        this.#nodes.resize(blockCount);
        this.#maxTime = superblock.time;
        this.#dataBlockCount = superblock.dataSpaceMap.blockCount;
        yield* this.#trees(superblock);
      }
    }
    this.#summary.blocksRead = this.reader.readCount;
    return this.#summary;
  }

  #add(damage: Damage, report: DamageReport): void {
    if (damage.severity === 'error') this.#summary.errors++;
    else if (damage.severity === 'leak') this.#summary.leaks++;
    else this.#summary.warnings++;
    report(damage);
  }

  #damage(invariant: Invariant, severity: Severity, path: string, message: string, key: number | null = null): void {
    const end = key === null ? null : key + 1;
    this.#report({ invariant, severity, path, begin: key, end, message });
  }

  #superblock(number: number, path: string): SuperblockFields | null {
    const view = this.reader.acquire();
    const unreadable = this.reader.read(number, 'superblock', view);
    const magic = unreadable === null ? magicDamage(view) : null;
    const fields = readSuperblockFields(view);
    this.reader.release(view);
    if (unreadable !== null) this.#damage('block', 'error', path, unreadable);
    else if (magic !== null) this.#damage('superblock', 'error', path, magic);
    return unreadable === null && magic === null ? fields : null;
  }

  *#trees(superblock: SuperblockFields): Steps<void> {
    const { heldRoot } = superblock;
    if (this.#options.metadataSnapshot) {
      if (heldRoot === 0) this.#damage('superblock', 'error', 'metadata snapshot', 'there is none');
      else yield* this.#metadataSnapshot(superblock, true);
      return;
    }
    this.#metadataReferences.add(0);
    const metadataIndex = yield* this.#metadataIndex(superblock);
    const { metadataSpaceMap, dataSpaceMap } = superblock;
    const metadataCounts = new OverflowCounts(Kind.metadataCounts);
    yield* this.#walker.steps(metadataSpaceMap.refCountRoot, metadataCounts, 'superblock > metadata space map');
    const dataIndex = new IndexTreeVisitor(Kind.dataIndex);
    const dataPath = 'superblock > data space map';
    yield* this.#walker.steps(dataSpaceMap.bitmapRoot, dataIndex, dataPath);
    for (const entry of dataIndex.entries) this.#metadataReferences.add(entry.block);
    const { mappingRoot = superblock.mappingRoot, detailsRoot = superblock.detailsRoot } = this.#options;
    yield* this.#devices({ ...superblock, mappingRoot, detailsRoot }, 'superblock', true);
    if (heldRoot !== 0) yield* this.#metadataSnapshot(superblock, false);

    const dataCounts = new OverflowCounts(Kind.dataCounts);
    dataCounts.source = this.#walker.steps(dataSpaceMap.refCountRoot, dataCounts, dataPath);
    yield* this.#spaceMap(
      'data',
      new SpaceMapCheck(this.#judge('data'), 'data', dataSpaceMap, dataCounts),
      dataIndex.entries,
    );
    const metadata = new SpaceMapCheck(this.#judge('metadata'), 'metadata', metadataSpaceMap, metadataCounts);
    yield* this.#spaceMap('metadata', metadata, metadataIndex);
  }

  #judge(name: SpaceMapName): SpaceMapJudge {
    const references = name === 'data' ? this.#dataReferences : this.#metadataReferences;
    return {
      reader: this.reader,
      report: this.#report,
      references: this.#options.skipMappings ? null : references,
      onDifference: (which, difference) => this.#options.counts?.difference(which, difference),
    };
  }

  *#spaceMap(name: SpaceMapName, check: SpaceMapCheck, entries: readonly IndexEntry[]): Steps<void> {
    yield* check.check(entries);
    if (check.complete) this.#options.counts?.inUse(name, check.allocatedCount);
  }

  *#metadataIndex(superblock: SuperblockFields): Steps<IndexEntry[]> {
    const { bitmapRoot, blockCount } = superblock.metadataSpaceMap;
    const view = this.reader.acquire();
    this.#metadataReferences.add(bitmapRoot);
    const unreadable = this.reader.read(bitmapRoot, 'index', view);
    if (unreadable !== null) {
      this.#damage('block', 'error', 'superblock > metadata space map > index', unreadable);
      this.reader.release(view);
      return [];
    }
    const entries = indexBlockEntries(view, Math.ceil(blockCount / BITMAP_ENTRIES));
    for (const entry of entries) {
      yield;
      this.#metadataReferences.add(entry.block);
      // What cannot be read here is reported when it is compared.
      if (this.reader.read(entry.block, 'bitmap', view) !== null) continue;
      const first = entry.ordinal * BITMAP_ENTRIES;
      for (let i = 0; i < BITMAP_ENTRIES; i++) if (bitmapEntry(view, i) > 1) this.#nodes.expectAgain(first + i);
    }
    this.reader.release(view);
    return entries;
  }

  /** Mappings and details under one superblock; `count` adds the devices to the summary. */
  *#devices(superblock: SuperblockFields, path: string, count: boolean): Steps<void> {
    const details = new DetailsVisitor();
    const quiet = new TreeWalker(this.reader, unregistered, () => {});
    // Once for the references and once for the entries, as a leaf that is shared is visited only once.
    yield* this.#walker.steps(superblock.detailsRoot, new DetailsVisitor(Kind.details), path);
    const detailsTree = yield* quiet.steps(superblock.detailsRoot, details, path);

    const found: { id: number; root: number; path: string }[] = [];
    const devices = new DeviceIdVisitor((id, root, leafPath) => found.push({ id, root, path: leafPath }), Kind.devices);
    yield* this.#walker.steps(superblock.mappingRoot, devices, path);
    const mappings = new MappingVisitor(this.#dataReferences, this.#dataBlockCount, this.#maxTime, this.#report);
    mappings.kind = Kind.mappings;
    if (!this.#options.skipMappings) yield* this.#mappings(found, mappings);
    const roots = new Map<number, number>();
    const devicesTree = yield* quiet.steps(
      superblock.mappingRoot,
      new DeviceIdVisitor((id, root) => roots.set(id, root)),
      path,
    );
    this.#compareDevices(roots, details, path, count, {
      details: detailsTree?.complete === true,
      devices: devicesTree?.complete === true,
    });
  }

  *#mappings(devices: readonly { id: number; root: number; path: string }[], mappings: MappingVisitor): Steps<void> {
    const { readAhead, blockCount } = this.reader;
    const AHEAD = 64;
    for (let from = 0; from < devices.length; from += AHEAD) {
      const some = devices.slice(from, from + AHEAD);
      const roots = some.map(({ root }) => root).filter((root) => root < blockCount && !this.#nodes.isMet(root));
      const ahead = readAhead === null ? null : readAhead.want(roots);
      if (ahead !== null) yield;
      for (const { id, root, path } of some) {
        mappings.name = `device ${id}`;
        yield* this.#walker.steps(root, mappings, path);
      }
      if (ahead !== null) readAhead!.drop(ahead);
    }
  }

  /** `complete`: which of the two trees could be read as a whole; of the other one nothing is missed. */
  #compareDevices(
    roots: ReadonlyMap<number, number>,
    details: DetailsVisitor,
    path: string,
    count: boolean,
    complete: { details: boolean; devices: boolean },
  ): void {
    for (const [id, root] of roots) {
      const tree = this.#nodes.find(root);
      const device = details.devices.get(id);
      const mapped = tree?.entryCount ?? 0;
      if (count) {
        this.#summary.deviceCount++;
        this.#summary.mappingCount += mapped;
      }
      if (!isDeviceId(id)) this.#damage('devices', 'error', `${path} > mappings`, 'not a device id', id);
      if (device === undefined) {
        if (complete.details) {
          this.#damage('devices', 'error', `${path} > details`, 'a device has mappings and no details', id);
        }
        continue;
      }
      if (tree?.complete && device.mappedBlocks !== mapped) {
        const message = `its details say that ${device.mappedBlocks} blocks are mapped, there are ${mapped}`;
        this.#damage('mapped-blocks', 'error', `${path} > device ${id}`, message);
      }
      if (device.creationTime > this.#maxTime || device.snapshottedTime > this.#maxTime) {
        const message = `created at ${device.creationTime}, snapshotted at ${device.snapshottedTime}, now is ${this.#maxTime}`;
        this.#damage('time', 'error', `${path} > device ${id}`, message);
      }
    }
    for (const id of details.devices.keys()) {
      if (complete.devices && !roots.has(id))
        this.#damage('devices', 'error', `${path} > details`, 'a device has details and no mappings', id);
    }
  }

  *#metadataSnapshot(live: SuperblockFields, count: boolean): Steps<void> {
    const block = live.heldRoot;
    const path = `metadata snapshot > block ${block}`;
    this.#metadataReferences.add(block);
    const held = this.#superblock(block, path);
    if (held === null) return;
    checkHeldFields(held, live, path, this.#report);
    const { mappingRoot = held.mappingRoot, detailsRoot = held.detailsRoot } = count ? this.#options : {};
    yield* this.#devices({ ...held, mappingRoot, detailsRoot }, path, count);
  }
}
