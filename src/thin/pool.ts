import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { type Clock, monotonicClock } from '../base/clock.ts';
import { messageOf, StorageError } from '../base/errors.ts';
import { type Logger, silentLogger } from '../base/log.ts';
import { formatSize, MIB } from '../base/units.ts';
import { alignedMemory } from '../block/aligned-memory.ts';
import type { BlockDevice } from '../block/block-device.ts';
import { Catalogue, type VolumeRecord } from './catalogue.ts';
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
import { type PoolStatus, statusOf } from './pool-status.ts';
import { bootId, recover } from './recovery.ts';
import { ThinDevice } from './thin-device.ts';
import { checkVolumeSize, newVolumeRecord, reconcile, type VolumeOptions, wantedVolume } from './volume-records.ts';

const COPY_BUFFERS = 16;

export interface PoolOpenOptions {
  logger?: Logger;
  clock?: Clock;
  /** Neither device is written to. */
  readOnly?: boolean;
  /** 4 KiB slots of cached metadata. */
  cacheBlocks?: number;
  onEvent?: (event: PoolEvent) => void;
  random?: RandomBytes;
}

export interface VolumeInfo extends VolumeRecord {
  mappedBytes: number;
}

/**
 * A pool of thin volumes in a folder: `pool.json`, `metadata`, `data`. One process has it open at a time.
 * Administrative calls take turns; each is durable when its promise is fulfilled, and has changed nothing when it is rejected.
 */
export class Pool {
  readonly dir: string;
  private readonly lock: PoolLock;
  private readonly catalogue: Catalogue;
  private readonly metadata: PoolMetadata;
  private readonly metadataDevice: BlockDevice;
  private readonly data: BlockDevice;
  private readonly journal: MappingJournal | null;
  private readonly engine: PoolEngine;
  private readonly logger: Logger;
  private readonly growth: PoolGrowth;
  private readonly origins: ExternalOrigins;
  private readonly random: RandomBytes;
  private readonly devices: Map<string, { device: ThinDevice; opens: number }> = new Map();
  private turn: Promise<unknown> = Promise.resolve();
  private closed = false;

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
        onEvent(event);
      },
    });
    this.growth = new PoolGrowth(this.engine, metadataDevice, data, {
      options: () => catalogue.options,
      logger: this.logger,
      onEvent,
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
      if (pool.mode === 'write') for (const record of catalogue.volumes) await pool.finishShrink(record);
      pool.growth.kick();
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

  volumes(): VolumeInfo[] {
    return this.catalogue.volumes.map((record) => this.info(record));
  }

  volume(name: string): VolumeInfo {
    return this.info(this.record(name));
  }

  status(): PoolStatus {
    return statusOf(this.catalogue, this.metadata, this.engine);
  }

  /** Throws EINVAL for a bad name or size, EEXIST when the name is taken, ENODEV where the external origin is not there. */
  createVolume(name: string, sizeBytes: number | undefined, options: VolumeOptions = {}): Promise<VolumeInfo> {
    return this.exclusive(async () => {
      const { volumes } = this.catalogue;
      const wanted = wantedVolume(this.dir, name, sizeBytes, options);
      const record = newVolumeRecord(volumes, wanted, this.random);
      await this.change([...volumes, record], () => this.metadata.createThin(record.id));
      return this.info(record);
    });
  }

  /** Throws ENOENT when there is no such volume, EBUSY while it is open. */
  deleteVolume(name: string): Promise<void> {
    return this.exclusive(async () => {
      const record = this.record(name);
      if (this.devices.has(name)) throw new StorageError('EBUSY', `Cannot delete the volume "${name}": it is in use`);
      await this.change(
        this.catalogue.volumes.filter((volume) => volume !== record),
        () => this.metadata.deleteThin(record.id),
        true,
      );
    });
  }

  /** A smaller size drops what lies past the new end. Throws ENOENT, EINVAL. */
  resizeVolume(name: string, sizeBytes: number): Promise<VolumeInfo> {
    return this.exclusive(async () => {
      const record = this.record(name);
      const next = { ...record, sizeBytes };
      checkVolumeSize(next);
      this.catalogue.replace(this.catalogue.volumes.map((volume) => (volume === record ? next : volume)));
      const device = this.openVolume(name);
      try {
        if (sizeBytes >= record.sizeBytes) device.sizeBytes = sizeBytes;
        else await device.whileHeld(() => this.shrink(device, sizeBytes));
      } finally {
        await this.closeVolume(device);
      }
      return this.info(next);
    });
  }

  /** The volume as something to serve; every call is matched by `closeVolume`. Throws ENOENT; ENODEV without its external origin. */
  openVolume(name: string): ThinDevice {
    const { id, sizeBytes, externalOrigin } = this.record(name);
    let open = this.devices.get(name);
    if (open === undefined) {
      const origin = externalOrigin === undefined ? null : this.origins.acquire(name, externalOrigin);
      open = { device: new ThinDevice(this.engine, this.metadata.openThin(id), sizeBytes, origin), opens: 0 };
      this.devices.set(name, open);
    }
    open.opens++;
    return open.device;
  }

  /** Gives an open volume back; the last one waits until its requests are answered. */
  async closeVolume(device: ThinDevice): Promise<void> {
    for (const [name, open] of this.devices) {
      if (open.device !== device) continue;
      if (--open.opens > 0) return;
      device.closed = true;
      await device.drained();
      this.metadata.closeThin(device.thin);
      this.devices.delete(name);
      if (device.origin !== null) await this.origins.release(device.origin);
    }
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

  /** Commits what has changed. */
  commit(): Promise<void> {
    return this.engine.commits.commit();
  }

  /** Answers what is in flight, commits, closes, and lets other processes have the pool. */
  async close(): Promise<void> {
    if (this.closed) return;
    this.closed = true;
    await this.turn.catch(() => {});
    await this.growth.stop();
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

  private record(name: string): VolumeRecord {
    const record = this.catalogue.find(name);
    if (record === undefined)
      throw new StorageError('ENOENT', `There is no volume "${name}" in the pool "${this.name}"`);
    return record;
  }

  private info(record: VolumeRecord): VolumeInfo {
    const thin = this.metadata.openThin(record.id);
    const mappedBytes = thin.mappedBlocks * this.metadata.dataBlockSizeBytes;
    this.metadata.closeThin(thin);
    return { ...record, mappedBytes };
  }

  /** One administrative call at a time. */
  private exclusive<T>(call: () => Promise<T>): Promise<T> {
    const result = this.turn
      .catch(() => {})
      .then(() => {
        if (this.closed) throw new StorageError('ESHUTDOWN', 'The pool is being closed');
        return call();
      });
    this.turn = result;
    return result;
  }

  /** A change of catalogue and metadata that happens whole or not at all. */
  private async change(volumes: readonly VolumeRecord[], apply: () => void, inReserve = false): Promise<void> {
    const before = this.catalogue.transactionId;
    const next = this.catalogue.begin(volumes);
    try {
      await this.engine.mutate(() => {
        apply();
        this.metadata.setTransactionId(before, next);
      }, inReserve);
    } catch (error) {
      if (this.metadata.transactionId !== next) this.catalogue.cancel();
      throw error;
    }
    try {
      this.catalogue.finish();
    } catch (error) {
      // The change is durable all the same: the next open finds it pending, and the metadata beyond it.
      this.logger.error({ error: messageOf(error) }, 'the catalogue could not be settled');
    }
  }

  /**
   * Drops what lies past the new end of a device that is held. The catalogue has the new size already: after a crash the next open
   * finds what is left to be dropped.
   */
  private async shrink(device: ThinDevice, sizeBytes: number): Promise<void> {
    device.sizeBytes = sizeBytes;
    const mappedEnd = (this.metadata.highestMapped(device.thin) + 1) * this.metadata.dataBlockSizeBytes;
    if (mappedEnd <= sizeBytes) return;
    await new ThinDevice(this.engine, device.thin, mappedEnd).unmap(sizeBytes, mappedEnd);
    await this.engine.commits.commit();
  }

  private async finishShrink({ id, sizeBytes }: VolumeRecord): Promise<void> {
    const thin = this.metadata.openThin(id);
    await this.shrink(new ThinDevice(this.engine, thin, sizeBytes), sizeBytes);
    this.metadata.closeThin(thin);
  }
}
