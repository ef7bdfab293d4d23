import { messageOf, StorageError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { Catalogue, VolumeRecord } from './catalogue.ts';
import type { Deletions } from './deletions.ts';
import type { ExternalOrigins } from './external-origin.ts';
import type { RandomBytes } from './identity.ts';
import type { PoolEngine } from './pool-engine.ts';
import type { PoolMetadata } from './pool-metadata.ts';
import { type NewSnapshot, snapDevices } from './snap-devices.ts';
import { ThinDevice, whileHeld } from './thin-device.ts';
import type { ThinMetadata } from './thin-metadata.ts';
import { clearBeyond, dropBeyond, mappedEnd } from './volume-end.ts';
import {
  checkNewName,
  checkVolumeSize,
  descendsFrom,
  freeDeviceId,
  likeVolume,
  newSnapshotRecord,
  newVolumeRecord,
  rollbackProblem,
  type SnapshotOptions,
  type VolumeOptions,
  wantedVolume,
  withOrigin,
  withoutVolume,
} from './volume-records.ts';

export interface VolumeInfo extends VolumeRecord {
  mappedBytes: number;
  /** The volume that this one is a snapshot of; null when it is none. */
  originName: string | null;
}

export interface SnapshotWish {
  /** A volume or a snapshot. */
  origin: string;
  name: string;
}

/**
 * The volumes of a pool, and what is done with them. The rest is `Pool`.
 *
 * Calls take turns; each is durable when its promise is fulfilled, and has changed nothing when it is rejected.
 */
export abstract class PoolVolumes {
  abstract readonly dir: string;
  protected abstract readonly catalogue: Catalogue;
  protected abstract readonly metadata: PoolMetadata;
  protected abstract readonly engine: PoolEngine;
  protected abstract readonly logger: Logger;
  protected abstract readonly random: RandomBytes;
  protected abstract readonly origins: ExternalOrigins;
  protected abstract readonly deletions: Deletions;
  /** Those that are open, by name. */
  protected readonly devices: Map<string, { device: ThinDevice; opens: number }> = new Map();
  protected turn: Promise<unknown> = Promise.resolve();
  protected closed = false;

  volumes(): VolumeInfo[] {
    const names = new Map(this.catalogue.volumes.map(({ id, name }) => [id, name]));
    // One that is just being deleted is still in the catalogue, until the commit has ended.
    const there = this.catalogue.volumes.filter(({ id }) => this.metadata.hasThin(id));
    return there.map((record) => ({
      ...record,
      mappedBytes: this.mappedBytes(record),
      originName: names.get(record.origin ?? -1) ?? null,
    }));
  }

  /** Throws ENOENT. */
  volume(name: string): VolumeInfo {
    return this.info(this.record(name));
  }

  /** Throws EINVAL for a bad name or size, EEXIST when the name is taken, ENODEV where the external origin is not there. */
  createVolume(name: string, sizeBytes: number | undefined, options: VolumeOptions = {}): Promise<VolumeInfo> {
    return this.exclusive(async () => {
      const { volumes } = this.catalogue;
      const wanted = wantedVolume(this.dir, name, sizeBytes, options);
      const record = newVolumeRecord(volumes, wanted, this.random, this.catalogue.deleting);
      await this.change([...volumes, record], (stamp) =>
        this.engine.mutate(() => {
          this.metadata.createThin(record.id);
          stamp();
        }),
      );
      return this.info(record);
    });
  }

  /** See `createSnapshots`. */
  async createSnapshot(origin: string, name: string, options: SnapshotOptions = {}): Promise<VolumeInfo> {
    const [made] = await this.createSnapshots([{ origin, name }], options);
    return made!;
  }

  /**
   * Takes snapshots of volumes or snapshots, all at one moment and in one commit: writes that were answered before the call are in, those
   * submitted after its end are not, those between are in or not as a whole; one that was submitted after another was answered is never in
   * without that one. Volumes that are open wait for it. Throws ENOENT, EEXIST, EINVAL for a bad name, ENOSPC; ERANGE when the pool has
   * taken as many snapshots as the format can count.
   */
  createSnapshots(wanted: readonly SnapshotWish[], options: SnapshotOptions = {}): Promise<VolumeInfo[]> {
    return this.exclusive(async () => {
      const { readOnly = false, temporary = false } = options;
      const volumes = [...this.catalogue.volumes];
      const made: NewSnapshot[] = [];
      for (const wish of wanted) {
        const origin = this.record(wish.origin);
        const { deleting } = this.catalogue;
        const record = newSnapshotRecord(
          volumes,
          origin,
          { name: wish.name, readOnly, temporary },
          this.random,
          deleting,
        );
        volumes.push(record);
        made.push({ record, origin });
      }
      await this.snapshot(volumes, made);
      return made.map(({ record }) => this.info(record));
    });
  }

  /** Throws ENOENT, EINVAL for a bad name, EEXIST when it is taken. */
  renameVolume(name: string, newName: string): Promise<VolumeInfo> {
    return this.exclusive(async () => {
      const record = this.record(name);
      const { volumes } = this.catalogue;
      this.engine.space.requireAlive();
      checkNewName(volumes, newName, `rename "${name}" to`);
      const next = { ...record, name: newName };
      this.catalogue.replace(volumes.map((volume) => (volume === record ? next : volume)));
      const open = this.devices.get(name);
      if (open !== undefined) {
        this.devices.delete(name);
        this.devices.set(newName, open);
      }
      return this.info(next);
    });
  }

  /** Whether a volume is a snapshot of another one, or of a snapshot of it. Throws ENOENT. */
  isSnapshotOf(name: string, originName: string): boolean {
    return descendsFrom(this.catalogue.volumes, this.record(name), this.record(originName).id);
  }

  /**
   * Makes content and size of a volume those of another one, in one commit; name, LUN and identity stay. The volume may be open:
   * what was submitted before is answered first, and initiators have to be told. Throws ENOENT; EINVAL when the two
   * cannot have the same content, or the volume is read-only; ENOSPC.
   */
  rollbackVolume(name: string, snapshotName: string): Promise<VolumeInfo> {
    return this.exclusive(async () => {
      const record = this.record(name);
      const snapshot = this.record(snapshotName);
      this.checkWritable(record, `roll back the volume "${name}"`);
      const reason = rollbackProblem(record, snapshot);
      if (reason !== null) {
        throw new StorageError('EINVAL', `Cannot roll back the volume "${name}" to "${snapshotName}": ${reason}`);
      }
      const { volumes } = this.catalogue;
      const like = likeVolume(snapshot);
      const { serial, naa, lun, origin, removable, physicalBlockSize, unit } = record;
      const id = freeDeviceId(volumes, this.catalogue.deleting);
      const next: VolumeRecord = { ...like, id, name, serial, naa, lun, origin, removable, physicalBlockSize, unit };
      const rolled = volumes.map((volume) => (volume === record ? next : volume));
      const wanted = withOrigin(rolled, record.id, id);
      await this.change(wanted, (stamp) => this.exchange(record, next, snapshot, stamp), { gone: record.id });
      return this.info(next);
    });
  }

  /**
   * The volume is gone at once; what it mapped is freed in the background if that takes long, also by the next open: see
   * `deletionsEnded`. Throws ENOENT when there is no such volume, EBUSY while it is open.
   */
  deleteVolume(name: string): Promise<void> {
    return this.exclusive(async () => {
      const record = this.record(name);
      if (this.devices.has(name)) throw new StorageError('EBUSY', `Cannot delete the volume "${name}": it is in use`);
      const rest = withoutVolume(this.catalogue.volumes, record);
      await this.change(rest, (stamp) => this.engine.mutate(stamp, true), { gone: record.id });
    });
  }

  /** Resolves when what deleted volumes had mapped is free, or cannot be freed for now. */
  deletionsEnded(): Promise<void> {
    return this.deletions.ended();
  }

  /** A smaller size drops what lies past the new end. Throws ENOENT; EINVAL, also for a read-only volume. */
  resizeVolume(name: string, sizeBytes: number): Promise<VolumeInfo> {
    return this.exclusive(() => this.resize(this.record(name), sizeBytes));
  }

  /** The volume as something to serve; every call is matched by `closeVolume`. Throws ENOENT; ENODEV without its external origin. */
  openVolume(name: string): ThinDevice {
    const { id, sizeBytes, logicalBlockSize, externalOrigin, readOnly } = this.record(name);
    let open = this.devices.get(name);
    if (open === undefined) {
      const origin = externalOrigin === undefined ? null : this.origins.acquire(name, externalOrigin, logicalBlockSize);
      open = { device: new ThinDevice(this.engine, this.metadata.openThin(id), sizeBytes, origin), opens: 0 };
      open.device.readOnly = readOnly ?? false;
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
      await device.close();
      this.metadata.closeThin(device.thin);
      this.devices.delete(name);
      if (device.origin !== null) await this.origins.release(device.origin);
    }
  }

  protected record(name: string): VolumeRecord {
    const record = this.catalogue.find(name);
    if (record === undefined) {
      throw new StorageError('ENOENT', `There is no volume "${name}" in the pool "${this.catalogue.name}"`);
    }
    return record;
  }

  protected info(record: VolumeRecord): VolumeInfo {
    const origin = this.catalogue.volumes.find((volume) => volume.id === record.origin);
    return { ...record, mappedBytes: this.mappedBytes(record), originName: origin?.name ?? null };
  }

  private mappedBytes({ id }: VolumeRecord): number {
    const thin = this.metadata.openThin(id);
    this.metadata.closeThin(thin);
    return thin.mappedBlocks * this.metadata.dataBlockSizeBytes;
  }

  /** Those of the volumes that are open: a write in flight to what becomes shared would be seen by both. */
  private openOf(volumes: readonly VolumeRecord[]): ThinDevice[] {
    const open = new Set<ThinDevice>();
    for (const { name } of volumes) {
      const device = this.devices.get(name)?.device;
      if (device !== undefined) open.add(device);
    }
    return [...open];
  }

  /** One administrative call at a time. */
  protected exclusive<T>(call: () => Promise<T>): Promise<T> {
    const result = this.turn
      .catch(() => {})
      .then(() => {
        if (this.closed) throw new StorageError('ESHUTDOWN', 'The pool is being closed');
        return call();
      });
    this.turn = result;
    return result;
  }

  /**
   * A change of catalogue and metadata that happens whole or not at all. `commit` changes the metadata, calls `stamp` in the same
   * transaction, and commits. Device `gone`, which nobody has open when `stamp` is called, goes with it, or in the background. The transaction
   * id may stay as it is only where devices are made or deleted.
   */
  protected async change(
    volumes: readonly VolumeRecord[],
    commit: (stamp: () => void) => Promise<void>,
    options: { gone?: number; transactionId?: number } = {},
  ): Promise<void> {
    const { catalogue, metadata, deletions } = this;
    const { gone, transactionId = catalogue.transactionId + 1 } = options;
    const before = catalogue.transactionId;
    const deletion = gone === undefined ? null : deletions.recordFor(gone);
    catalogue.begin(volumes, transactionId, deletion === null ? catalogue.deleting : [...catalogue.deleting, deletion]);
    try {
      await commit(() => {
        if (gone !== undefined && deletion === null) metadata.deleteThin(gone);
        if (transactionId !== before) metadata.setTransactionId(before, transactionId);
      });
    } catch (error) {
      this.settle(() => {
        // What a pool that has failed did last is seen when it is opened again.
        if (this.engine.space.mode !== 'fail') catalogue.settle(metadata.transactionId, (id) => metadata.hasThin(id));
      });
      throw error;
    }
    this.settle(() => catalogue.finish());
    deletions.kick();
  }

  /** If it fails, the next open does it: it finds the change pending, and the metadata on one side of it. */
  private settle(work: () => void): void {
    try {
      work();
    } catch (error) {
      this.logger.error({ error: messageOf(error) }, 'the catalogue could not be settled');
    }
  }

  /** Makes the devices of new snapshots at one moment. */
  protected async snapshot(
    volumes: readonly VolumeRecord[],
    made: readonly NewSnapshot[],
    options: { transactionId?: number } = {},
  ): Promise<void> {
    const commit = (stamp: () => void): Promise<void> =>
      whileHeld(this.openOf(made.map(({ origin }) => origin)), () =>
        this.engine.mutate(() => {
          snapDevices(this.metadata, made);
          stamp();
        }),
      );
    await this.change(volumes, commit, options);
  }

  /**
   * Puts another device in the place of a volume's, which is deleted; under the feet of who has the volume open. It is a snapshot of the
   * volume `of`; null: it is there already.
   */
  protected exchange(from: VolumeRecord, to: VolumeRecord, of: VolumeRecord | null, stamp: () => void): Promise<void> {
    const { metadata } = this;
    const device = this.devices.get(from.name)?.device;
    return whileHeld(this.openOf(of === null ? [from] : [from, of]), async () => {
      await device?.refuseAside();
      try {
        await this.engine.mutate(() => {
          if (of !== null) metadata.createSnap(to.id, of.id);
          if (device !== undefined) {
            metadata.closeThin(device.thin);
            device.thin = metadata.openThin(to.id);
          }
          stamp();
        });
        if (device !== undefined) device.sizeBytes = to.sizeBytes;
      } catch (error) {
        if (device !== undefined && device.thin.id !== from.id && this.engine.space.mode !== 'fail') {
          // A commit that could not be flushed may be what the device has now.
          if (metadata.hasThin(to.id)) device.sizeBytes = to.sizeBytes;
          else device.thin = metadata.openThin(from.id);
          device.thin.abortedWithChanges = true;
        }
        throw error;
      }
    });
  }

  private checkWritable(record: VolumeRecord, action: string): void {
    likeVolume(record);
    if (record.readOnly) throw new StorageError('EINVAL', `Cannot ${action}: it is read-only`);
  }

  protected async resize(record: VolumeRecord, sizeBytes: number): Promise<VolumeInfo> {
    const next = { ...record, sizeBytes };
    this.checkWritable(record, `resize the volume "${record.name}"`);
    checkVolumeSize(next);
    this.engine.space.requireAlive();
    if (sizeBytes < record.sizeBytes) this.engine.space.requireChangeable(true);
    const isOverlay = record.externalOrigin !== undefined;
    const device = this.openVolume(record.name);
    try {
      const isCut = sizeBytes < record.sizeBytes || mappedEnd(this.engine, device.thin) > record.sizeBytes;
      await whileHeld(isCut ? [device] : [], async () => {
        if (sizeBytes < record.sizeBytes) await device.refuseAside();
        if (sizeBytes > record.sizeBytes) await clearBeyond(this.engine, device.thin, record.sizeBytes, isOverlay);
        this.catalogue.replace(this.catalogue.volumes.map((volume) => (volume === record ? next : volume)));
        device.sizeBytes = sizeBytes;
        await this.drop(device.thin, next);
      });
    } finally {
      await this.closeVolume(device);
    }
    return this.info(next);
  }

  /** Nobody sees what is dropped: where it fails, the next open does it, or the next growth. */
  private async drop(thin: ThinMetadata, { name, sizeBytes }: VolumeRecord): Promise<void> {
    try {
      await dropBeyond(this.engine, thin, sizeBytes);
    } catch (error) {
      const reason = messageOf(error);
      this.logger.error({ volume: name, error: reason }, 'the blocks past the end of a volume could not be given back');
    }
  }

  protected async finishShrink(record: VolumeRecord): Promise<void> {
    const thin = this.metadata.openThin(record.id);
    await this.drop(thin, record);
    this.metadata.closeThin(thin);
  }
}
