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
import { Deletions } from './deletions.ts';
import { ExternalOrigins } from './external-origin.ts';
import type { RandomBytes } from './identity.ts';
import { MappingJournal } from './mapping-journal.ts';
import { PoolEngine } from './pool-engine.ts';
import { isFile, openPoolFile } from './pool-files.ts';
import { PoolGrowth } from './pool-growth.ts';
import { PoolLock } from './pool-lock.ts';
import { PoolMetadata } from './pool-metadata.ts';
import type { PoolEvent, PoolMode } from './pool-mode.ts';
import { checkPoolOptions, engineSettingsOf, type PoolOptions } from './pool-options.ts';
import { type PoolStatus, type PoolStatusLines, statusLinesOf, statusOf } from './pool-status.ts';
import { PoolTransfers } from './pool-transfers.ts';
import type { VolumeInfo } from './pool-volumes.ts';
import { bootId, recover } from './recovery.ts';
import { whileHeld } from './thin-device.ts';
import { type TrimStep, trimStep } from './trim-free.ts';
import type { UnitRecord } from './unit-record.ts';
import { likeVolume, reconcile } from './volume-records.ts';
import { type VolumeSettings, withSettings } from './volume-settings.ts';

const COPY_BUFFERS = 16;

export interface PoolOpenOptions {
  logger?: Logger;
  clock?: Clock;
  /** Neither device is written to. */
  readOnly?: boolean;
  /** 4 KiB slots of cached metadata. */
  cacheBlocks?: number;
  /** See the metadata's `OpenOptions`. */
  exactSharing?: boolean;
  onEvent?: (event: PoolEvent) => void;
  /** The lock as another process has handed it over: see `PoolLock.inherit`. Left out: it is taken. */
  lockFd?: number;
  random?: RandomBytes;
  /** Opens what the pool stands on; a simulated machine brings its own, with the next. */
  openDevice?: typeof openPoolFile;
  bootId?: () => string;
}

/**
 * A pool of thin volumes in a folder: `pool.json`, `metadata`, `data`. One process has it open at a time.
 * Administrative calls take turns; each is durable when its promise is fulfilled, and has changed nothing when it is rejected.
 */
export class Pool extends PoolTransfers {
  readonly dir: string;
  private readonly lock: PoolLock;
  protected readonly catalogue: Catalogue;
  protected readonly metadata: PoolMetadata;
  protected readonly metadataDevice: BlockDevice;
  private readonly data: BlockDevice;
  private readonly journal: MappingJournal | null;
  protected readonly engine: PoolEngine;
  protected readonly logger: Logger;
  private readonly growth: PoolGrowth;
  protected readonly origins: ExternalOrigins;
  protected readonly random: RandomBytes;
  protected readonly deletions: Deletions;

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
    this.origins = new ExternalOrigins(dir, this.logger);
    const { onEvent = () => {} } = options;
    this.engine = new PoolEngine(metadata, data, {
      ...engineSettingsOf(catalogue.options, metadata.dataBlockCount),
      logger: this.logger,
      clock: options.clock ?? monotonicClock,
      journal,
      copyMemory: alignedMemory(COPY_BUFFERS * Math.min(MIB, metadata.dataBlockSizeBytes)),
      onEvent: (event) => {
        this.growth?.kick();
        this.deletions?.kick();
        onEvent(event);
      },
    });
    this.growth = new PoolGrowth(this.engine, metadataDevice, data, {
      options: () => catalogue.options,
      logger: this.logger,
      onEvent,
    });
    this.deletions = new Deletions({
      catalogue,
      metadata,
      engine: this.engine,
      logger: this.logger,
      exclusive: (change) => this.exclusive(change),
    });
  }

  /** Opens the pool in `dir`. Throws EBUSY when another process has it, ENOENT when there is none, and what the metadata says. */
  static async open(dir: string, options: PoolOpenOptions = {}): Promise<Pool> {
    const { lockFd } = options;
    const lock = lockFd === undefined ? await PoolLock.take(dir) : PoolLock.inherit(dir, lockFd);
    const devices: BlockDevice[] = [];
    try {
      const catalogue = Catalogue.load(dir);
      const readOnly = options.readOnly ?? false;
      const openDevice = options.openDevice ?? openPoolFile;
      const metadataDevice = openDevice(dir, 'metadata', readOnly, true);
      devices.push(metadataDevice);
      const data = openDevice(dir, 'data', readOnly, false);
      devices.push(data);
      const metadata = PoolMetadata.open(metadataDevice, {
        readOnly,
        expectedDataBlockSizeBytes: catalogue.blockSizeBytes,
        cacheBlocks: options.cacheBlocks ?? Math.floor(catalogue.options.metadataCacheBytes / BLOCK_SIZE),
        ...(options.exactSharing === undefined ? {} : { exactSharing: options.exactSharing }),
      });
      const needed = metadata.dataBlockCount * metadata.dataBlockSizeBytes;
      if (data.sizeBytes < needed) {
        throw new StorageError(
          'EINVAL',
          `Cannot open the pool "${dir}": its data device has ${formatSize(data.sizeBytes)}, its metadata needs ${formatSize(needed)}`,
        );
      }
      catalogue.settle(metadata.transactionId, (id) => metadata.hasThin(id));
      const journal = metadata.readOnly
        ? null
        : MappingJournal.open(join(dir, 'journal'), (options.bootId ?? bootId)(), options.logger ?? silentLogger);
      const pool = new Pool(dir, lock, catalogue, metadata, metadataDevice, data, journal, options);
      if (journal !== null) await recover(pool.engine, journal, pool.logger);
      const deleting = pool.deletions.presentRecords();
      const volumes = reconcile(catalogue.volumes, deleting, metadata, pool.random, pool.logger);
      if (volumes !== null) catalogue.replace(volumes);
      if (deleting.length !== catalogue.deleting.length) catalogue.setDeleting(deleting);
      await pool.growth.useWholeMetadata();
      if (pool.mode === 'write') await pool.finishChanges();
      pool.growth.kick();
      pool.deletions.kick();
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
    return statusOf(this.catalogue, this.metadata, this.engine, this.deletions);
  }

  /** The kernel's status lines; commits before where that can be, as the kernel does. */
  async statusLines(): Promise<PoolStatusLines> {
    if (this.mode === 'write' || this.mode === 'out-of-data-space') await this.commit();
    return statusLinesOf(this.catalogue, this.metadata, this.engine, this.deletions);
  }

  /** Makes the data device larger (files) or takes the size that it has now (block devices). Throws EINVAL when that is not larger. */
  growData(sizeBytes?: number): Promise<void> {
    return this.exclusive(() => this.growth.growData(sizeBytes));
  }

  /** Makes the metadata device larger (files) or takes the size that it has now (block devices). Throws EINVAL when that is not larger. */
  growMetadata(sizeBytes?: number): Promise<void> {
    return this.exclusive(() => this.growth.growMetadata(sizeBytes));
  }

  /** Sets features, at once and for good. Throws EINVAL; EBUSY for `ignoreDiscard` while a volume is open: who uses it was told. */
  setOptions(changes: Partial<PoolOptions>): Promise<void> {
    return this.exclusive(async () => {
      const { metadata, data, catalogue } = this;
      const { dataBlockCount, dataBlockSizeBytes: blockSizeBytes } = metadata;
      const dataSizeBytes = dataBlockCount * blockSizeBytes;
      checkPoolOptions(changes, { blockSizeBytes, dataSizeBytes, dataIsFile: isFile(data.path) });
      const options = { ...catalogue.options, ...changes };
      if (this.mode === 'fail') throw new StorageError('EIO', 'Cannot set the options of the pool: it has failed');
      if (data.readOnly) throw new StorageError('EROFS', 'Cannot set the options of the pool: it is open read-only');
      if (options.ignoreDiscard !== catalogue.options.ignoreDiscard && this.devices.size > 0) {
        const reason = 'volumes are in use, and their initiators were told';
        throw new StorageError('EBUSY', `Cannot change whether the volumes take discards: ${reason}`);
      }
      catalogue.setOptions(options);
      this.engine.configure(engineSettingsOf(options, dataBlockCount));
      // What read-only finds changed is the last that changes.
      await this.engine.commits.commit();
      this.growth.kick();
    });
  }

  /**
   * Gives back the times that snapshots have used up, of which there are 2^24: see `Renumbering`. For a pool that nobody uses: it takes about a
   * second for a million mappings, and hardly anything else is done meanwhile. Throws EBUSY while a volume is open or a metadata snapshot held;
   * ENOSPC when the metadata has no room for a copy of the largest volume's: some volumes may have been renumbered then, which does no harm.
   */
  async renumberTimes(): Promise<void> {
    await this.deletionsEnded();
    await this.exclusive(async () => {
      const { metadata, engine } = this;
      const renumbering = await engine.mutate(() => metadata.renumberTimes());
      for (const id of metadata.thinIds()) await engine.mutate(() => renumbering.renumber(id));
      await engine.mutate(() => renumbering.finish());
    });
  }

  /**
   * Sets properties of a volume, which may be open: initiators have to be told. What was written before it became read-only is durable then. Throws
   * ENOENT; EINVAL; EBUSY for a volume that is to be writable while a stream relies on it, and for one that has not been received whole.
   */
  setVolume(name: string, settings: VolumeSettings): Promise<VolumeInfo> {
    return this.exclusive(async () => {
      const record = this.record(name);
      likeVolume(record);
      this.engine.space.requireAlive();
      const next = withSettings(record, settings);
      const readOnly = next.readOnly ?? false;
      if (!readOnly && [...this.sending.values()].some((ids) => ids.includes(record.id))) {
        throw new StorageError('EBUSY', `Cannot make the volume "${name}" writable: it is being sent`);
      }
      const device = this.devices.get(name)?.device;
      const freezes = readOnly && !record.readOnly;
      await whileHeld(freezes && device !== undefined ? [device] : [], async () => {
        if (freezes) await device?.refuseAside();
        if (freezes && this.mode !== 'read-only') await this.commit();
        this.replaceRecord(next);
        if (device !== undefined) device.readOnly = readOnly;
      });
      return this.info(next);
    });
  }

  /** Keeps what the logical unit of a volume has to know after a restart. It is found by what never changes: its serial number. Throws ENOENT, EIO. */
  keepUnit(serial: string, unit: UnitRecord): Promise<void> {
    return this.exclusive(async () => {
      const record = this.catalogue.volumes.find((volume) => volume.serial === serial);
      if (record === undefined) throw new StorageError('ENOENT', `There is no volume with the serial number ${serial}`);
      this.engine.space.requireAlive();
      this.replaceRecord({ ...record, unit });
    });
  }

  /** Ends what the end of the last process has left undone. */
  private async finishChanges(): Promise<void> {
    for (const { name, temporary } of this.catalogue.volumes) if (temporary) await this.deleteVolume(name);
    for (const record of this.catalogue.volumes) if (!record.readOnly) await this.finishShrink(record);
  }

  /** Discards free space, a part of it; the next part begins at `nextBlock`. Volumes stay in use. Throws EOPNOTSUPP, EROFS, EIO. */
  trimFree(fromBlock: number): Promise<TrimStep> {
    return trimStep(this.engine, fromBlock);
  }

  /** Makes everything durable that is done now: data, and what has changed in the metadata. Throws EIO when that failed. */
  commit(): Promise<void> {
    return this.engine.commits.flushAll();
  }

  /** See `PoolLock.share`. */
  shareLock(): number {
    return this.lock.share();
  }

  /** Answers what is in flight, makes everything durable, closes, and lets other processes have the pool. */
  async close(): Promise<void> {
    await this.endTransfers();
    if (this.closed) return;
    this.closed = true;
    await this.turn.catch(() => {});
    await this.growth.stop();
    await this.deletions.stop();
    for (const { device } of this.devices.values()) device.closed = true;
    try {
      await this.engine.stop();
    } finally {
      if (this.mode !== 'fail') this.journal?.remove();
      this.metadata.close();
      await this.origins.close();
      await this.data.close();
      await this.metadataDevice.close();
      this.lock.release();
    }
  }
}
