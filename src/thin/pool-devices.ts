import { StorageError } from '../base/errors.ts';
import type { VolumeRecord } from './catalogue.ts';
import { DEVICE_ID_LIMIT } from './device-id.ts';
import { PoolVolumes, type VolumeInfo } from './pool-volumes.ts';
import { checkVolumeSize, deviceName, newSnapshotRecord, newVolumeRecord, withoutVolume } from './volume-records.ts';

/** As with deletions. */
const RELEASE_STEP_LEAVES = 24;

/**
 * What dm-thin's messages do: by device id, and with a transaction id that is the user's, which only `setTransactionId` changes. Each
 * device has its volume all the same. Refused with EOPNOTSUPP where the metadata is not to change, as in the kernel, but for what frees metadata:
 * that works within the reserve; otherwise the kernel's errors.
 */
export abstract class PoolDevices extends PoolVolumes {
  /** Throws EOPNOTSUPP where no message at all is taken. */
  requireMessages(): void {
    this.checkMessage(true);
  }

  /** The name of a device's volume. Throws ENODATA. */
  nameOfThin(id: number): string {
    return this.deviceRecord(id).name;
  }

  /** EEXIST; EINVAL for an id of more than 24 bits; ENOSPC. Without a size it gets that of the pool's data: dm-thin has none. */
  createThin(id: number, sizeBytes: number | null): Promise<VolumeInfo> {
    return this.exclusive(async () => {
      this.checkMessage(false);
      const { metadata } = this;
      const size = sizeBytes ?? metadata.dataBlockCount * metadata.dataBlockSizeBytes;
      const wanted = { name: this.newDeviceName(id), sizeBytes: size, logicalBlockSize: 512 } as const;
      const { volumes, transactionId } = this.catalogue;
      const record = { ...newVolumeRecord(volumes, wanted, this.random, this.catalogue.deleting), id };
      const commit = (): Promise<void> => this.engine.mutate(() => metadata.createThin(id));
      await this.change([...volumes, record], commit, { transactionId });
      return this.info(record);
    });
  }

  /** EEXIST; ENODATA for an unknown origin; EINVAL for an id of more than 24 bits; ENOSPC; ERANGE. */
  createSnap(id: number, originId: number): Promise<VolumeInfo> {
    return this.exclusive(async () => {
      this.checkMessage(false);
      const name = this.newDeviceName(id);
      const origin = this.deviceRecord(originId);
      const { volumes, deleting, transactionId } = this.catalogue;
      const record = { ...newSnapshotRecord(volumes, origin, { name, readOnly: false }, this.random, deleting), id };
      await this.snapshot([...volumes, record], [{ record, origin }], { transactionId });
      return this.info(record);
    });
  }

  /** ENODATA; EBUSY while its volume is open. What it mapped is free afterwards, or cannot be freed for now. */
  async deleteThin(id: number): Promise<void> {
    await this.exclusive(async () => {
      this.checkMessage(true);
      const record = this.deviceRecord(id);
      if (this.devices.has(record.name)) {
        throw new StorageError('EBUSY', `Cannot delete thin device ${id}: its volume "${record.name}" is in use`);
      }
      const { volumes, transactionId } = this.catalogue;
      const rest = withoutVolume(volumes, record);
      await this.change(rest, (stamp) => this.engine.mutate(stamp, true), { gone: id, transactionId });
    });
    await this.deletionsEnded();
  }

  /** Makes a device smaller. ENODATA, EINVAL for a larger size. */
  trimThin(id: number, sizeBytes: number): Promise<VolumeInfo> {
    return this.exclusive(async () => {
      this.checkMessage(false);
      const record = this.deviceRecord(id);
      checkVolumeSize({ ...record, sizeBytes });
      if (sizeBytes > record.sizeBytes) {
        throw new StorageError(
          'EINVAL',
          `Cannot trim thin device ${id} to ${sizeBytes} bytes: it has ${record.sizeBytes}`,
        );
      }
      return this.resize(record, sizeBytes);
    });
  }

  /** EINVAL when the id is not `expected`. */
  setTransactionId(expected: number, next: number): Promise<void> {
    return this.exclusive(async () => {
      this.checkMessage(false);
      const { metadata, catalogue } = this;
      if (expected !== metadata.transactionId) {
        const reason = `it is ${metadata.transactionId}, expected ${expected}`;
        throw new StorageError('EINVAL', `Cannot set the transaction id: ${reason}`);
      }
      await this.change(catalogue.volumes, (stamp) => this.engine.mutate(stamp), { transactionId: next });
    });
  }

  /** Keeps the mappings of this moment for programs that read the metadata meanwhile. EBUSY when they are kept already; ENOSPC. */
  reserveMetadataSnapshot(): Promise<void> {
    return this.exclusive(async () => {
      this.checkMessage(false);
      await this.engine.mutate(() => this.metadata.reserveSnapshot(), false, true);
    });
  }

  /** EINVAL when there is none. */
  releaseMetadataSnapshot(): Promise<void> {
    return this.exclusive(async () => {
      this.checkMessage(true);
      await this.engine.commits.changeInSteps(() => this.metadata.releaseSnapshotStep(RELEASE_STEP_LEAVES));
    });
  }

  private deviceRecord(id: number): VolumeRecord {
    const record = this.catalogue.volumes.find((volume) => volume.id === id);
    if (record === undefined) throw new StorageError('ENODATA', `There is no thin device ${id}`);
    return record;
  }

  private newDeviceName(id: number): string {
    const { volumes } = this.catalogue;
    if (!Number.isInteger(id) || id < 0 || id >= DEVICE_ID_LIMIT) {
      throw new StorageError(
        'EINVAL',
        `Cannot create thin device ${id}: ids are whole numbers below ${DEVICE_ID_LIMIT}`,
      );
    }
    if (this.metadata.hasThin(id)) throw new StorageError('EEXIST', `There is a thin device ${id} already`);
    return deviceName(volumes, id);
  }

  private checkMessage(inReserve: boolean): void {
    const { mode } = this.engine.space;
    if (mode === 'write' || mode === 'out-of-data-space' || (inReserve && mode === 'out-of-metadata-space')) return;
    throw new StorageError('EOPNOTSUPP', `Cannot change the pool: its mode is ${mode}`);
  }
}
