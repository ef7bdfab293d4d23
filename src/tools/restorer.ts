import { StorageError } from '../base/errors.ts';
import type { BlockDevice } from '../block/block-device.ts';
import type { DeviceRecord, MappingRun, PoolRecord, SharingVisitor } from './ir.ts';
import { dropUnused, MappingTreeBuilder, type SharedLeaf, SharedLeavesBuilder } from './mapping-tree-builder.ts';
import { type BlockDraft, MetadataWriter } from './metadata-writer.ts';
import type { PoolOverrides } from './pool-roots.ts';
import { PAGE_BLOCKS, ReferenceCounter } from './reference-counter.ts';
import { writeDataSpaceMap, writeMetadataSpaceMap, writeSpaceMapFields } from './space-map-writer.ts';
import { TreeBuilder } from './tree-builder.ts';

const MAGIC = 27022010;
const VERSION = 2;
const METADATA_BLOCK_SECTORS = 8;
const DEVICE_ID_LIMIT = 2 ** 24;
const TIME_LIMIT = 2 ** 24;
const U32_LIMIT = 2 ** 32;
const MAX_DATA_BLOCKS = 2 ** 40;
const DETAILS_SIZE = 24;
const ROOT_SIZE = 8;

interface Definition {
  leaves: readonly SharedLeaf[];
  mappingCount: number;
  firstKey: number;
  lastKey: number;
}

interface RestoredDevice extends DeviceRecord {
  root: number;
}

/** What is being filled: the mappings of a device or of a definition. */
interface Section {
  title: string;
  builder: MappingTreeBuilder | SharedLeavesBuilder;
  firstKey: number;
  lastKey: number;
  mappingCount: number;
}

/** Whose the new metadata will be. Either call may refuse it with EINVAL. */
export interface RestoreTarget {
  /** Before anything is written: the pool as it will be. */
  begin(pool: PoolRecord): void;
  /** Everything is on the device and durable; only the superblock is missing. */
  beforeSuperblock(pool: PoolRecord): void;
}

export interface RestorerOptions extends PoolOverrides {
  target?: RestoreTarget | undefined;
  /** Takes the number of mappings that there are, whatever the devices say of it. Default: it has to be what they say. */
  countMappings?: boolean;
}

/**
 * Builds new metadata on a device from what it is told. Each call checks what it gets: EINVAL, `reason` alone, when that cannot be a pool;
 * ENOSPC when the device is too small. Nothing is a pool before `finish`. Memory: a byte for each data block in use, and what is kept of
 * each device and shared leaf.
 */
export class Restorer implements SharingVisitor {
  readonly #writer: MetadataWriter;
  readonly #options: RestorerOptions;
  readonly #dataCounts: ReferenceCounter = new ReferenceCounter();
  readonly #definitions: Map<string, Definition> = new Map();
  readonly #devices: Map<number, RestoredDevice> = new Map();
  #pool: PoolRecord | null = null;
  #device: DeviceRecord | null = null;
  #definition = '';
  #section: Section | null = null;
  #complete = false;

  constructor(device: BlockDevice, options: RestorerOptions = {}) {
    this.#writer = new MetadataWriter(device);
    this.#options = options;
  }

  pool(pool: PoolRecord): void {
    const { transactionId = 0, dataBlockSize = pool.dataBlockSize, dataBlockCount = 0 } = this.#options;
    const restored = {
      ...pool,
      transactionId: Math.max(transactionId, pool.transactionId),
      dataBlockSize,
      dataBlockCount: Math.max(dataBlockCount, pool.dataBlockCount),
    };
    if (dataBlockSize < 128 || dataBlockSize > 2 ** 21 || dataBlockSize % 128 !== 0) {
      refuse(`data block size is ${dataBlockSize} sectors, expected a multiple of 128 up to 2097152`);
    }
    if (restored.dataBlockCount > MAX_DATA_BLOCKS) {
      refuse(`${restored.dataBlockCount} data blocks, expected at most ${MAX_DATA_BLOCKS}`);
    }
    const bitmaps = Math.ceil(restored.dataBlockCount / PAGE_BLOCKS);
    if (bitmaps >= this.#writer.blockCount) {
      const message = `${this.#writer.blockCount} metadata blocks are too few to count ${restored.dataBlockCount} data blocks`;
      throw new StorageError('ENOSPC', message);
    }
    if (pool.time >= TIME_LIMIT) refuse(`time is ${pool.time}, expected below ${TIME_LIMIT}`);
    this.#options.target?.begin(restored);
    this.#pool = restored;
  }

  defBegin(name: string): void {
    if (this.#definitions.has(name)) refuse(`"${name}" is defined twice`);
    this.#definition = name;
    this.#begin(`definition "${name}"`, new SharedLeavesBuilder(this.#writer, this.#dataCounts));
  }

  defEnd(): void {
    const { builder, mappingCount, firstKey, lastKey } = this.#end();
    const leaves = (builder as SharedLeavesBuilder).end();
    this.#definitions.set(this.#definition, { leaves, mappingCount, firstKey, lastKey });
  }

  deviceBegin(device: DeviceRecord): void {
    const { id, creationTime, snapshottedTime } = device;
    if (id >= DEVICE_ID_LIMIT) refuse(`device id ${id}, expected below ${DEVICE_ID_LIMIT}`);
    if (this.#devices.has(id)) refuse(`device ${id} is there twice`);
    const { time } = this.#pool!;
    if (creationTime > time || snapshottedTime > time) {
      refuse(
        `device ${id} was created at ${creationTime} and snapshotted at ${snapshottedTime}, the pool's time is ${time}`,
      );
    }
    this.#device = { ...device };
    this.#begin(`device ${id}`, new MappingTreeBuilder(this.#writer, this.#dataCounts));
  }

  run(run: MappingRun): void {
    const section = this.#section!;
    const { virtualBegin, dataBegin, length, time } = run;
    const { dataBlockCount, time: poolTime } = this.#pool!;
    if (length < 1) refuse('a mapping of no blocks');
    this.#follow(section, virtualBegin);
    if (virtualBegin + length > Number.MAX_SAFE_INTEGER) refuse(`virtual block ${virtualBegin} is not below 2^53`);
    if (dataBegin + length > dataBlockCount) {
      refuse(`data block ${dataBegin + length - 1} is past the end (${dataBlockCount} data blocks)`);
    }
    if (time > poolTime) refuse(`mapped at time ${time}, the pool's time is ${poolTime}`);
    for (let i = 0; i < length; i++) section.builder.push(virtualBegin + i, dataBegin + i, time);
    section.lastKey = virtualBegin + length - 1;
    section.mappingCount += length;
  }

  ref(name: string): void {
    const section = this.#section!;
    const definition = this.#definitions.get(name);
    if (definition === undefined) refuse(`"${name}" is not defined before it is used`);
    if (definition.mappingCount > 0) this.#follow(section, definition.firstKey);
    for (const leaf of definition.leaves) (section.builder as MappingTreeBuilder).pushLeaf(leaf);
    if (definition.mappingCount > 0) section.lastKey = definition.lastKey;
    section.mappingCount += definition.mappingCount;
  }

  deviceEnd(): void {
    const { builder, mappingCount } = this.#end();
    const device = this.#device!;
    if (this.#options.countMappings) device.mappedBlocks = mappingCount;
    if (device.mappedBlocks !== mappingCount) {
      refuse(`device ${device.id} says that ${device.mappedBlocks} blocks are mapped, there are ${mappingCount}`);
    }
    this.#devices.set(device.id, { ...device, root: (builder as MappingTreeBuilder).end() });
  }

  poolEnd(): void {
    this.#complete = true;
  }

  /** Writes the rest, the superblock last. EINVAL when not all calls of a pool have come. */
  finish(): void {
    const pool = this.#pool;
    if (pool === null || !this.#complete) refuse('it ends before the pool does');
    const writer = this.#writer;
    const leaves = [...this.#definitions.values()].flatMap((definition) => definition.leaves);
    dropUnused(writer, this.#dataCounts, leaves);
    const mappings = new TreeBuilder(writer, ROOT_SIZE);
    const details = new TreeBuilder(writer, DETAILS_SIZE);
    for (const device of [...this.#devices.values()].sort((a, b) => a.id - b.id)) {
      mappings.push(device.id, device.root, 0);
      const words = [...words64(device.mappedBlocks), ...words64(device.transactionId)];
      details.push(device.id, ...words, device.creationTime, device.snapshottedTime);
    }
    const mappingRoot = mappings.end();
    const detailsRoot = details.end();
    const dataSpaceMap = writeDataSpaceMap(writer, pool.dataBlockCount, this.#dataCounts);
    const uses = new Map(leaves.map((leaf) => [leaf.block, leaf.uses]));
    const metadataSpaceMap = writeMetadataSpaceMap(writer, (block) => uses.get(block) ?? 1);
    writer.flush();
    this.#options.target?.beforeSuperblock(pool);
    writer.finish((draft: BlockDraft) => {
      draft.setU64(32, MAGIC);
      draft.setU32(40, VERSION);
      draft.setU32(44, pool.time);
      draft.setU64(48, pool.transactionId);
      writeSpaceMapFields(draft, 64, dataSpaceMap);
      writeSpaceMapFields(draft, 192, metadataSpaceMap);
      draft.setU64(320, mappingRoot);
      draft.setU64(328, detailsRoot);
      draft.setU32(336, pool.dataBlockSize);
      draft.setU32(340, METADATA_BLOCK_SECTORS);
      draft.setU64(344, writer.blockCount);
    });
  }

  #begin(title: string, builder: MappingTreeBuilder | SharedLeavesBuilder): void {
    this.#section = { title, builder, firstKey: 0, lastKey: -1, mappingCount: 0 };
  }

  #end(): Section {
    const section = this.#section!;
    this.#section = null;
    return section;
  }

  /** `key` is the next to be mapped. */
  #follow(section: Section, key: number): void {
    if (section.mappingCount === 0) section.firstKey = key;
    else if (key <= section.lastKey) refuse(`${section.title} maps block ${key} after block ${section.lastKey}`);
  }
}

function words64(value: number): readonly [number, number] {
  return [value % U32_LIMIT, Math.floor(value / U32_LIMIT)];
}

function refuse(reason: string): never {
  throw new StorageError('EINVAL', reason);
}
