import type { BlockDevice } from '../block/block-device.ts';
import type { Damage, DamageReport, Invariant, Severity } from './damage.ts';
import { MetadataReader } from './metadata-reader.ts';
import { ReferenceCounter } from './reference-counter.ts';
import {
  bitmapEntry,
  type IndexEntry,
  IndexTreeVisitor,
  indexBlockEntries,
  OverflowVisitor,
  SpaceMapCheck,
} from './space-map-check.ts';
import { checkSuperblockFields, magicDamage, readSuperblockFields, type SuperblockFields } from './superblock-check.ts';
import { DetailsVisitor, DeviceIdVisitor, isDeviceId, MappingVisitor } from './thin-visitors.ts';
import { type Subtree, TreeWalker, unregistered } from './tree-walker.ts';

const NEEDS_CHECK = 1;

/** What a check has seen. */
export interface CheckSummary {
  errors: number;
  leaks: number;
  warnings: number;
  /** The pool asked for this check. */
  needsCheck: boolean;
  deviceCount: number;
  /** Of all devices, shared ones as often as they are shared. */
  mappingCount: number;
  /** Metadata blocks read. */
  blocksRead: number;
}

/**
 * Checks a pool's metadata against every rule of the format and reports everything that it finds.
 *
 * Reads the device by itself, synchronously; it must not be changing. Memory: a byte for each metadata block and for
 * each data block in use, and the overflow trees.
 */
export function checkMetadata(device: BlockDevice, report: DamageReport): CheckSummary {
  return new Check(device, report).run();
}

class Check {
  readonly #summary: CheckSummary = {
    errors: 0,
    leaks: 0,
    warnings: 0,
    needsCheck: false,
    deviceCount: 0,
    mappingCount: 0,
    blocksRead: 0,
  };
  readonly #reader: MetadataReader;
  readonly #report: DamageReport;
  readonly #metadataReferences: ReferenceCounter = new ReferenceCounter();
  readonly #dataReferences: ReferenceCounter = new ReferenceCounter();
  /** Those of `#metadataReferences` that are to nodes of trees. */
  readonly #nodes: ReferenceCounter = new ReferenceCounter();
  /** Metadata blocks whose bitmap entry is above 1: nodes that will be met again. */
  readonly #shared: Set<number> = new Set();
  readonly #walker: TreeWalker;
  /** What is under the root of each device's tree. */
  readonly #deviceTrees: Map<number, Subtree | null> = new Map();
  #maxTime = 0;
  #dataBlockCount = 0;

  constructor(device: BlockDevice, report: DamageReport) {
    this.#reader = new MetadataReader(device);
    this.#report = (damage) => this.#add(damage, report);
    const registry = {
      reference: (block: number) => {
        this.#metadataReferences.add(block);
        return this.#nodes.add(block);
      },
      remembers: (block: number, isRoot: boolean) => isRoot || this.#shared.has(block),
    };
    this.#walker = new TreeWalker(this.#reader, registry, this.#report);
  }

  run(): CheckSummary {
    const superblock = this.#superblock(0, 'superblock');
    if (superblock !== null && checkSuperblockFields(superblock, this.#reader.blockCount, 'superblock', this.#report)) {
      this.#summary.needsCheck = (superblock.flags & NEEDS_CHECK) !== 0;
      this.#reader.blockCount = superblock.metadataSpaceMap.blockCount;
      this.#maxTime = superblock.time;
      this.#dataBlockCount = superblock.dataSpaceMap.blockCount;
      this.#everything(superblock);
    }
    this.#summary.blocksRead = this.#reader.readCount;
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
    const view = this.#reader.acquire();
    const unreadable = this.#reader.read(number, 'superblock', view);
    const magic = unreadable === null ? magicDamage(view) : null;
    const fields = readSuperblockFields(view);
    this.#reader.release(view);
    if (unreadable !== null) this.#damage('block', 'error', path, unreadable);
    else if (magic !== null) this.#damage('superblock', 'error', path, magic);
    return unreadable === null && magic === null ? fields : null;
  }

  #everything(superblock: SuperblockFields): void {
    this.#metadataReferences.add(0);
    const metadataIndex = this.#metadataIndex(superblock);
    const metadataOverflow = new OverflowVisitor();
    this.#walker.walk(superblock.metadataSpaceMap.refCountRoot, metadataOverflow, 'superblock > metadata space map');
    const dataIndex = new IndexTreeVisitor();
    const dataOverflow = new OverflowVisitor();
    const dataPath = 'superblock > data space map';
    this.#walker.walk(superblock.dataSpaceMap.bitmapRoot, dataIndex, dataPath);
    this.#walker.walk(superblock.dataSpaceMap.refCountRoot, dataOverflow, dataPath);
    for (const entry of dataIndex.entries) this.#metadataReferences.add(entry.block);
    this.#devices(superblock, 'superblock', true);
    if (superblock.heldRoot !== 0) this.#metadataSnapshot(superblock.heldRoot);

    const { metadataSpaceMap, dataSpaceMap } = superblock;
    const common = [this.#reader, this.#report] as const;
    const metadata = this.#metadataReferences;
    new SpaceMapCheck(...common, 'metadata', metadataSpaceMap, metadataOverflow.counts, metadata).check(metadataIndex);
    const data = this.#dataReferences;
    new SpaceMapCheck(...common, 'data', dataSpaceMap, dataOverflow.counts, data).check(dataIndex.entries);
  }

  #metadataIndex(superblock: SuperblockFields): IndexEntry[] {
    const { bitmapRoot, blockCount } = superblock.metadataSpaceMap;
    const view = this.#reader.acquire();
    this.#metadataReferences.add(bitmapRoot);
    const unreadable = this.#reader.read(bitmapRoot, 'index', view);
    if (unreadable !== null) {
      this.#damage('block', 'error', 'superblock > metadata space map > index', unreadable);
      this.#reader.release(view);
      return [];
    }
    const entries = indexBlockEntries(view, Math.ceil(blockCount / 16320));
    for (const entry of entries) {
      this.#metadataReferences.add(entry.block);
      // What cannot be read here is reported when it is compared.
      if (this.#reader.read(entry.block, 'bitmap', view) !== null) continue;
      for (let i = 0; i < 16320; i++) if (bitmapEntry(view, i) > 1) this.#shared.add(entry.ordinal * 16320 + i);
    }
    this.#reader.release(view);
    return entries;
  }

  /** Mappings and details under one superblock; `count` adds the devices to the summary. */
  #devices(superblock: SuperblockFields, path: string, count: boolean): void {
    const details = new DetailsVisitor();
    const quiet = new TreeWalker(this.#reader, unregistered, () => {});
    // Once for the references and once for the entries, as a leaf that is shared is visited only once.
    this.#walker.walk(superblock.detailsRoot, new DetailsVisitor(), path);
    quiet.walk(superblock.detailsRoot, details, path);

    const mappings = new MappingVisitor(this.#dataReferences, this.#dataBlockCount, this.#maxTime, this.#report);
    const devices = new DeviceIdVisitor((id, root, leafPath) => {
      mappings.name = `device ${id}`;
      const tree = this.#walker.walk(root, mappings, leafPath);
      if (!this.#deviceTrees.has(root)) this.#deviceTrees.set(root, tree);
    });
    this.#walker.walk(superblock.mappingRoot, devices, path);
    const roots = new Map<number, number>();
    quiet.walk(superblock.mappingRoot, new DeviceIdVisitor((id, root) => roots.set(id, root)), path);
    this.#compareDevices(roots, details, path, count);
  }

  #compareDevices(roots: ReadonlyMap<number, number>, details: DetailsVisitor, path: string, count: boolean): void {
    for (const [id, root] of roots) {
      const tree = this.#deviceTrees.get(root) ?? null;
      const device = details.devices.get(id);
      const mapped = tree?.entryCount ?? 0;
      if (count) {
        this.#summary.deviceCount++;
        this.#summary.mappingCount += mapped;
      }
      if (!isDeviceId(id)) this.#damage('devices', 'error', `${path} > mappings`, 'not a device id', id);
      if (device === undefined) {
        this.#damage('devices', 'error', `${path} > details`, 'a device has mappings and no details', id);
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
      if (!roots.has(id))
        this.#damage('devices', 'error', `${path} > details`, 'a device has details and no mappings', id);
    }
  }

  #metadataSnapshot(block: number): void {
    const path = `metadata snapshot > block ${block}`;
    this.#metadataReferences.add(block);
    const held = this.#superblock(block, path);
    if (held === null) return;
    if (held.heldRoot !== 0)
      this.#damage('superblock', 'error', path, `it holds a metadata snapshot itself (${held.heldRoot})`);
    this.#devices(held, path, false);
  }
}
