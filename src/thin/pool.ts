import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { type Clock, monotonicClock } from '../base/clock.ts';
import { StorageError } from '../base/errors.ts';
import { type Logger, silentLogger } from '../base/log.ts';
import { formatSize, MIB } from '../base/units.ts';
import { alignedMemory } from '../block/aligned-memory.ts';
import type { BlockDevice } from '../block/block-device.ts';
import { BLOCK_SIZE } from '../persistent-data/block.ts';
import { Catalogue } from './catalogue.ts';
import type { RandomBytes } from './identity.ts';
import { MappingJournal } from './mapping-journal.ts';
import { PoolEngine } from './pool-engine.ts';
import { openPoolFile } from './pool-files.ts';
import { PoolLock } from './pool-lock.ts';
import { PoolMetadata } from './pool-metadata.ts';
import type { PoolEvent, PoolMode } from './pool-mode.ts';
import { PoolVolumes } from './pool-volumes.ts';
import { bootId, recover } from './recovery.ts';
import { reconcile } from './volume-records.ts';

const COPY_BUFFERS = 16;
const NO_SPACE_TIMEOUT_MS = 60_000;
/** Warned at when a sixteenth of the pool is left, unless told otherwise. */
const LOW_WATER_FRACTION = 16;

export interface PoolOpenOptions {
  logger?: Logger;
  clock?: Clock;
  readOnly?: boolean;
  lowWaterBlocks?: number;
  /** 0 waits for ever. */
  noSpaceTimeoutMs?: number;
  errorIfNoSpace?: boolean;
  discardPassdown?: boolean;
  /** 4 KiB slots of cached metadata. */
  cacheBlocks?: number;
  onEvent?: (event: PoolEvent) => void;
  random?: RandomBytes;
}

export interface PoolStatus {
  name: string;
  uuid: string;
  mode: PoolMode;
  needsCheck: boolean;
  transactionId: number;
  blockSizeBytes: number;
  dataBlocks: number;
  usedDataBlocks: number;
  metadataBlocks: number;
  usedMetadataBlocks: number;
  lowWaterBlocks: number;
  volumes: number;
}

/**
 * A pool of thin volumes in a folder: `pool.json`, `metadata`, `data`. One process has it open at a time.
 * Administrative calls take turns; each is durable when its promise is fulfilled, and has changed nothing when it is rejected.
 */
export class Pool extends PoolVolumes {
  readonly dir: string;
  private readonly lock: PoolLock;
  protected readonly catalogue: Catalogue;
  protected readonly metadata: PoolMetadata;
  private readonly metadataDevice: BlockDevice;
  private readonly data: BlockDevice;
  private readonly journal: MappingJournal | null;
  protected readonly engine: PoolEngine;
  protected readonly logger: Logger;
  private readonly lowWaterBlocks: number;
  protected readonly random: RandomBytes;

  private constructor(
    dir: string,
    lock: PoolLock,
    catalogue: Catalogue,
    metadata: PoolMetadata,
    metadataDevice: BlockDevice,
    data: BlockDevice,
    journal: MappingJournal | null,
    options: PoolOpenOptions,
  ) {
    super();
    this.dir = dir;
    this.lock = lock;
    this.catalogue = catalogue;
    this.metadata = metadata;
    this.metadataDevice = metadataDevice;
    this.data = data;
    this.journal = journal;
    this.logger = options.logger ?? silentLogger;
    this.random = options.random ?? randomBytes;
    this.lowWaterBlocks = options.lowWaterBlocks ?? Math.floor(metadata.dataBlockCount / LOW_WATER_FRACTION);
    this.engine = new PoolEngine(metadata, data, {
      logger: this.logger,
      clock: options.clock ?? monotonicClock,
      lowWaterBlocks: this.lowWaterBlocks,
      noSpaceTimeoutMs: options.noSpaceTimeoutMs ?? NO_SPACE_TIMEOUT_MS,
      errorIfNoSpace: options.errorIfNoSpace ?? false,
      discardPassdown: options.discardPassdown ?? true,
      zeroNewBlocks: true,
      journal,
      copyMemory: alignedMemory(COPY_BUFFERS * Math.min(MIB, metadata.dataBlockSizeBytes)),
      onEvent: options.onEvent ?? (() => {}),
    });
  }

  /** Opens the pool in `dir`. Throws EBUSY when another process has it, ENOENT when there is none, and what the metadata says. */
  static async open(dir: string, options: PoolOpenOptions = {}): Promise<Pool> {
    const lock = await PoolLock.take(dir);
    const devices: BlockDevice[] = [];
    try {
      const catalogue = Catalogue.load(dir);
      const readOnly = options.readOnly ?? false;
      const metadataDevice = openPoolFile(dir, 'metadata', readOnly, true);
      devices.push(metadataDevice);
      const data = openPoolFile(dir, 'data', readOnly, false);
      devices.push(data);
      const metadata = PoolMetadata.open(metadataDevice, {
        readOnly,
        expectedDataBlockSizeBytes: catalogue.blockSizeBytes,
        ...(options.cacheBlocks === undefined ? {} : { cacheBlocks: options.cacheBlocks }),
      });
      const needed = metadata.dataBlockCount * metadata.dataBlockSizeBytes;
      if (data.sizeBytes < needed) {
        throw new StorageError(
          'EINVAL',
          `Cannot open the pool "${dir}": its data device has ${formatSize(data.sizeBytes)}, its metadata needs ${formatSize(needed)}`,
        );
      }
      catalogue.settle(metadata.transactionId);
      const journal = metadata.readOnly
        ? null
        : MappingJournal.open(join(dir, 'journal'), bootId(), options.logger ?? silentLogger);
      const pool = new Pool(dir, lock, catalogue, metadata, metadataDevice, data, journal, options);
      if (journal !== null) await recover(pool.engine, journal, pool.logger);
      const volumes = reconcile(catalogue.volumes, metadata, pool.random, pool.logger);
      if (volumes !== null) catalogue.replace(volumes);
      if (pool.mode === 'write') for (const { name } of catalogue.volumes) await pool.finishShrink(name);
      return pool;
    } catch (error) {
      for (const device of devices) await device.close();
      lock.release();
      throw error;
    }
  }

  get name(): string {
    return this.catalogue.name;
  }

  get uuid(): string {
    return this.catalogue.uuid;
  }

  get mode(): PoolMode {
    return this.engine.space.mode;
  }

  status(): PoolStatus {
    const { metadata } = this;
    return {
      name: this.name,
      uuid: this.uuid,
      mode: this.engine.space.mode,
      needsCheck: metadata.needsCheck,
      transactionId: metadata.transactionId,
      blockSizeBytes: metadata.dataBlockSizeBytes,
      dataBlocks: metadata.dataBlockCount,
      usedDataBlocks: metadata.dataBlockCount - metadata.freeDataBlocks,
      metadataBlocks: metadata.metadataBlockCount,
      usedMetadataBlocks: metadata.metadataBlockCount - metadata.freeMetadataBlocks,
      lowWaterBlocks: this.lowWaterBlocks,
      volumes: this.catalogue.volumes.length,
    };
  }

  /** Makes the data device larger (files) or takes the size that it has now (block devices). Throws EINVAL when that is not larger. */
  growData(sizeBytes?: number): Promise<void> {
    return this.exclusive(async () => {
      const size = this.grow(this.data, sizeBytes);
      const blocks = Math.floor(size / this.metadata.dataBlockSizeBytes);
      if (blocks <= this.metadata.dataBlockCount) {
        throw new StorageError(
          'EINVAL',
          `Cannot grow the data to ${formatSize(size)}: it has ${formatSize(this.metadata.dataBlockCount * this.metadata.dataBlockSizeBytes)} already`,
        );
      }
      await this.engine.mutate(() => this.metadata.resizeData(blocks));
      this.engine.space.check();
    });
  }

  /** Makes the metadata device larger (files) or takes the size that it has now (block devices). Throws EINVAL when that is not larger. */
  growMetadata(sizeBytes?: number): Promise<void> {
    return this.exclusive(async () => {
      const size = this.grow(this.metadataDevice, sizeBytes);
      const blocks = Math.floor(size / BLOCK_SIZE);
      if (blocks <= this.metadata.metadataBlockCount) {
        const has = formatSize(this.metadata.metadataBlockCount * BLOCK_SIZE);
        throw new StorageError('EINVAL', `Cannot grow the metadata to ${formatSize(size)}: it has ${has} already`);
      }
      await this.engine.mutate(() => this.metadata.resizeMetadata());
      this.engine.space.check();
    });
  }

  /** Commits what has changed. */
  commit(): Promise<void> {
    return this.engine.commits.commit();
  }

  /** Answers what is in flight, commits, closes, and lets other processes have the pool. */
  async close(): Promise<void> {
    if (this.closed) return;
    this.closed = true;
    await this.turn.catch(() => {});
    for (const { device } of this.devices.values()) device.closed = true;
    try {
      await this.engine.stop();
    } finally {
      if (this.mode !== 'fail') this.journal?.remove();
      this.metadata.close();
      await this.data.close();
      await this.metadataDevice.close();
      this.lock.release();
    }
  }

  private grow(device: BlockDevice, sizeBytes: number | undefined): number {
    const now = device.refreshSize();
    if (sizeBytes === undefined) return now;
    if (sizeBytes > now) device.resize(sizeBytes);
    return sizeBytes;
  }
}
