import { RunSet } from '../base/run-set.ts';
import { readU64 } from '../persistent-data/block.ts';
import type { BlockManager } from '../persistent-data/block-manager.ts';
import { BTree, NO_KEY, type PathSharing } from '../persistent-data/btree.ts';
import type { SpaceMap } from '../persistent-data/space-map.ts';
import { CheckedMetadataBlocks, CheckedSpaceMap } from '../persistent-data/space-map-checked.ts';
import { DiskSpaceMap } from '../persistent-data/space-map-disk.ts';
import { MetadataSpaceMap } from '../persistent-data/space-map-metadata.ts';
import { type MetadataBlocks, TransactionManager } from '../persistent-data/transaction-manager.ts';
import { plainValues } from '../persistent-data/value-type.ts';
import {
  DEVICE_DETAILS_SIZE,
  DEVICE_DETAILS_WORDS,
  type DeviceDetails,
  decodeDetails,
  encodeDetails,
} from './device-details.ts';
import { MappingValues, RootValues } from './mapping-values.ts';
import type { Superblock } from './superblock.ts';

/** Every test runs with it; see `CheckedSpaceMap`. */
const VERIFY = process.env['THINLUN_VERIFY'] === '1';

/** Runs of data blocks that are free and may not be handed out: see `PoolMetadata.freed` and `.withheld`. */
export interface WithheldRuns {
  readonly freed: RunSet;
  /** Set aside for mappings that have not been inserted yet. */
  readonly reserved: RunSet;
  /** These two, and those that the caller adds. */
  readonly all: RunSet[];
}

export function noWithheldRuns(): WithheldRuns {
  const [freed, reserved] = [new RunSet(), new RunSet()];
  return { freed, reserved, all: [reserved, freed] };
}

/**
 * Everything that a superblock leads to, as the current transaction has it: both space maps and the trees. An abort throws it
 * away and opens it again.
 */
export class PoolTrees {
  readonly transaction: TransactionManager;
  readonly metadataMap: MetadataSpaceMap;
  readonly dataMap: DiskSpaceMap;
  /** `dataMap` for counting and allocating. */
  readonly dataBlocks: SpaceMap;
  /** `metadataMap` for counting. */
  readonly metadataBlocks: MetadataBlocks;
  /** Device trees: virtual block to data block and time. */
  readonly mappings: BTree;
  mappingRoot = 0;
  detailsRoot = 0;
  /** Device id to root of the device's tree. */
  readonly #devices: BTree;
  readonly #details: BTree;
  readonly #rootValue: Uint32Array = new Uint32Array(2);
  readonly #detailsValue: Uint32Array = new Uint32Array(DEVICE_DETAILS_WORDS);

  private constructor(
    transaction: TransactionManager,
    metadataMap: MetadataSpaceMap,
    dataMap: DiskSpaceMap,
    superblock: { readonly time: number },
  ) {
    this.transaction = transaction;
    this.metadataMap = metadataMap;
    this.dataMap = dataMap;
    this.dataBlocks = VERIFY ? new CheckedSpaceMap(dataMap) : dataMap;
    this.metadataBlocks = VERIFY ? new CheckedMetadataBlocks(metadataMap) : metadataMap;
    transaction.setSpaceMap(this.metadataBlocks);
    this.mappings = new BTree(transaction, new MappingValues(this.dataBlocks, superblock));
    this.#devices = new BTree(transaction, new RootValues(transaction, (root) => this.mappings.delete(root)));
    this.#details = new BTree(transaction, plainValues('device details tree', DEVICE_DETAILS_SIZE));
  }

  /** Empty trees and a data space map of no blocks, on a device whose contents do not matter. `superblock` has the time of now. ENOSPC. */
  static format(blocks: BlockManager, superblock: Superblock, withheld: WithheldRuns): PoolTrees {
    const transaction = new TransactionManager(blocks);
    const metadataMap = MetadataSpaceMap.format(transaction, blocks.blockCount);
    const dataMap = DiskSpaceMap.format(transaction, withheld.all);
    const trees = new PoolTrees(transaction, metadataMap, dataMap, superblock);
    trees.mappingRoot = trees.#devices.empty();
    trees.detailsRoot = trees.#details.empty();
    return trees;
  }

  /** What `superblock` leads to. It stays the transaction's, and has the time of now. */
  static open(blocks: BlockManager, superblock: Superblock, withheld: WithheldRuns): PoolTrees {
    const transaction = new TransactionManager(blocks);
    const metadataMap = MetadataSpaceMap.open(transaction, superblock.metadataSpaceMap);
    const dataMap = DiskSpaceMap.open(transaction, superblock.dataSpaceMap, withheld.all);
    const trees = new PoolTrees(transaction, metadataMap, dataMap, superblock);
    trees.mappingRoot = superblock.mappingRoot;
    trees.detailsRoot = superblock.detailsRoot;
    return trees;
  }

  /** The root of a device's tree; `NO_KEY` when there is no such device. */
  deviceRoot(id: number): number {
    return this.#devices.lookup(this.mappingRoot, id, this.#rootValue) ? readU64(this.#rootValue, 0) : NO_KEY;
  }

  /** Whether one of the nodes of the top-level tree on the way to a device may be shared, now or in the last commit. */
  deviceSharing(id: number, nonBlocking: boolean): PathSharing {
    return this.#devices.pathSharing(this.mappingRoot, id, this.#devices.nodes.copiedShared, nonBlocking);
  }

  /** The transaction is durable. */
  committed(): void {
    this.metadataBlocks.committed();
    this.dataBlocks.committed();
    this.#devices.nodes.copiedShared = false;
  }

  /** Adds a device, or puts down where its tree has moved to. */
  setDeviceRoot(id: number, root: number): void {
    this.#rootValue[0] = root;
    this.#rootValue[1] = 0;
    this.mappingRoot = this.#devices.insert(this.mappingRoot, id, this.#rootValue);
  }

  /** Drops the device's tree. */
  removeDeviceRoot(id: number): void {
    this.mappingRoot = this.#devices.remove(this.mappingRoot, id);
  }

  /** At most what it costs to drop a reference to a top-level tree, in leaves of its devices; not exact above `limit`. */
  rootsCost(mappingRoot: number, limit: number): number {
    if (this.metadataBlocks.isShared(mappingRoot)) return 0;
    let cost = 0;
    for (let id = 0; cost <= limit; id = this.#devices.foundKey + 1) {
      if (!this.#devices.lookupNext(mappingRoot, id, this.#rootValue)) break;
      cost += this.mappings.deletionCost(readU64(this.#rootValue, 0), limit - cost);
    }
    return cost;
  }

  /** Drops one reference to a top-level tree and to a details tree: those of a metadata snapshot. */
  deleteRoots(mappingRoot: number, detailsRoot: number): void {
    this.#devices.delete(mappingRoot);
    this.#details.delete(detailsRoot);
  }

  /** False when there is no such device. */
  readDetails(id: number, details: DeviceDetails): boolean {
    if (!this.#details.lookup(this.detailsRoot, id, this.#detailsValue)) return false;
    decodeDetails(this.#detailsValue, 0, details);
    return true;
  }

  writeDetails(id: number, details: DeviceDetails): void {
    encodeDetails(details, this.#detailsValue);
    this.detailsRoot = this.#details.insert(this.detailsRoot, id, this.#detailsValue);
  }

  removeDetails(id: number): void {
    this.detailsRoot = this.#details.remove(this.detailsRoot, id);
  }

  /** The device with the smallest id at or above `id`; `NO_KEY` when there is none. */
  nextDevice(id: number): number {
    this.#details.lookupNext(this.detailsRoot, id, this.#detailsValue);
    return this.#details.foundKey;
  }
}
