import { StorageError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { isValidName } from '../base/names.ts';
import { formatSize, roundUp } from '../base/units.ts';
import { type DeletionRecord, MAX_VOLUMES, type VolumeRecord } from './catalogue.ts';
import { describeOrigin } from './external-origin.ts';
import { newNaa, type RandomBytes } from './identity.ts';
import type { PoolMetadata } from './pool-metadata.ts';
import { type VolumeSettings, withSettings } from './volume-settings.ts';

/** The largest volume: what a SCSI LBA and a double-precision byte offset both hold with room. */
export const MAX_VOLUME_SIZE: number = 2 ** 50;
const MAX_THIN_ID = 2 ** 24 - 1;

export interface VolumeOptions extends VolumeSettings {
  logicalBlockSize?: 512 | 4096 | undefined;
  /** A read-only image that the volume shows where it has no blocks of its own. */
  externalOrigin?: string | undefined;
}

/** What is asked for as a record has it. Without a size a volume is as large as its external origin. Throws EINVAL and what `describeOrigin` throws. */
export function wantedVolume(
  dir: string,
  name: string,
  sizeBytes: number | undefined,
  { logicalBlockSize = 512, externalOrigin, ...settings }: VolumeOptions,
): Omit<VolumeRecord, 'id' | 'lun' | 'serial' | 'naa'> {
  if (externalOrigin === undefined) {
    return withSettings({ name, sizeBytes: sizeBytes ?? 0, logicalBlockSize }, settings);
  }
  const origin = describeOrigin(dir, externalOrigin, logicalBlockSize);
  const size = sizeBytes ?? roundUp(origin.sizeBytes, logicalBlockSize);
  return withSettings({ name, sizeBytes: size, logicalBlockSize, externalOrigin: origin }, settings);
}

/** The record of a new volume, with the lowest free LUN and device id. Throws EINVAL for a bad name or size, EEXIST, ENOSPC. */
export function newVolumeRecord(
  volumes: readonly VolumeRecord[],
  wanted: Omit<VolumeRecord, 'id' | 'lun' | 'serial' | 'naa'>,
  random: RandomBytes,
  deleting: readonly DeletionRecord[] = [],
): VolumeRecord {
  checkNewName(volumes, wanted.name, 'create');
  const naa = newNaa(random);
  const lun = firstFree(volumes, 'lun', 0, MAX_VOLUMES - 1);
  const record: VolumeRecord = { ...wanted, id: freeDeviceId(volumes, deleting), lun, serial: naa, naa };
  checkVolumeSize(record);
  return record;
}

/** What a volume has in common with its snapshots. Throws EBUSY for one that has not been received whole. */
export function likeVolume(
  volume: VolumeRecord,
): Omit<VolumeRecord, 'readOnly' | 'contentId' | 'receiving' | 'temporary' | 'unit'> {
  const { readOnly: _, contentId: _contentId, receiving, temporary: _temporary, unit: _unit, ...like } = volume;
  if (receiving === undefined) return like;
  throw new StorageError('EBUSY', `Cannot use the volume "${volume.name}": it has not been received whole`);
}

export interface SnapshotOptions {
  readOnly?: boolean;
  /** The next open of the pool deletes it. */
  temporary?: boolean;
}

/** The record of a snapshot of `origin`: everything like it but the identity. Throws as `newVolumeRecord` does, EBUSY. */
export function newSnapshotRecord(
  volumes: readonly VolumeRecord[],
  origin: VolumeRecord,
  wanted: SnapshotOptions & { name: string },
  random: RandomBytes,
  deleting: readonly DeletionRecord[],
): VolumeRecord {
  const { name, readOnly = false, temporary = false } = wanted;
  const flags = { ...(readOnly ? { readOnly } : {}), ...(temporary ? { temporary } : {}) };
  return newVolumeRecord(volumes, { ...likeVolume(origin), ...flags, name, origin: origin.id }, random, deleting);
}

/** Throws EINVAL for a name that no volume can have, EEXIST for one that a volume has. */
export function checkNewName(volumes: readonly VolumeRecord[], name: string, action: string): void {
  if (!isValidName(name)) {
    throw new StorageError(
      'EINVAL',
      `Cannot name a volume "${name}": use letters, digits, ".", "_" and "-", at most 128`,
    );
  }
  if (volumes.some((volume) => volume.name === name)) {
    throw new StorageError('EEXIST', `Cannot ${action} the volume "${name}": it is there already`);
  }
}

/** The lowest device id that no volume has and no device that is still being deleted. ENOSPC. */
export function freeDeviceId(volumes: readonly VolumeRecord[], deleting: readonly DeletionRecord[]): number {
  return firstFree([...volumes, ...deleting], 'id', 1, MAX_THIN_ID);
}

/** A name for a device that was made without one. */
export function deviceName(volumes: readonly VolumeRecord[], id: number): string {
  const name = `thin-${id}`;
  const taken = new Set(volumes.map((volume) => volume.name));
  for (let candidate = name, count = 2; ; candidate = `${name}-${count++}`) {
    if (!taken.has(candidate)) return candidate;
  }
}

/** The volumes without one of them; its snapshots are its origin's then. */
export function withoutVolume(volumes: readonly VolumeRecord[], gone: VolumeRecord): VolumeRecord[] {
  return withOrigin(
    volumes.filter((volume) => volume !== gone),
    gone.id,
    gone.origin,
  );
}

/** Whether `volume` is a snapshot of device `origin`, or of a snapshot of it. */
export function descendsFrom(volumes: readonly VolumeRecord[], volume: VolumeRecord, origin: number): boolean {
  const byId = new Map(volumes.map((other) => [other.id, other]));
  let ancestor: VolumeRecord | undefined = volume;
  for (let left = volumes.length; ancestor?.origin !== undefined && left > 0; left--) {
    if (ancestor.origin === origin) return true;
    ancestor = byId.get(ancestor.origin);
  }
  return false;
}

/** Why a volume cannot have the content of another one; null when it can. */
export function rollbackProblem(volume: VolumeRecord, snapshot: VolumeRecord): string | null {
  if (volume === snapshot) return 'they are the same';
  if (volume.logicalBlockSize !== snapshot.logicalBlockSize) return 'their logical blocks have different sizes';
  if (volume.externalOrigin?.path !== snapshot.externalOrigin?.path) return 'they have different external origins';
  return null;
}

/** The volumes with another origin for the snapshots of device `from`. */
export function withOrigin(volumes: readonly VolumeRecord[], from: number, to: number | undefined): VolumeRecord[] {
  return volumes.map((volume) => {
    if (volume.origin !== from) return volume;
    const { origin: _, ...rest } = volume;
    return to === undefined ? rest : { ...rest, origin: to };
  });
}

/** Throws EINVAL for a size that no volume can have. */
export function checkVolumeSize({ name, sizeBytes, logicalBlockSize }: VolumeRecord): void {
  if (sizeBytes > 0 && sizeBytes <= MAX_VOLUME_SIZE && sizeBytes % logicalBlockSize === 0) return;
  throw new StorageError(
    'EINVAL',
    `Cannot make the volume "${name}" ${formatSize(sizeBytes)} large: it is a multiple of ${logicalBlockSize} bytes up to 1 PiB`,
  );
}

/**
 * The volumes as they are now: the metadata is the truth about which devices exist. Those that the kernel or another tool made meanwhile
 * get a name and the size of what is mapped, those that are gone lose their record; those that are being deleted have none. Null when nothing
 * differs.
 */
export function reconcile(
  volumes: readonly VolumeRecord[],
  deleting: readonly DeletionRecord[],
  metadata: PoolMetadata,
  random: RandomBytes,
  logger: Logger,
): VolumeRecord[] | null {
  const ids = new Set(metadata.thinIds());
  for (const { id } of deleting) ids.delete(id);
  let records = [...volumes];
  for (const { id, name } of volumes) {
    if (ids.delete(id)) continue;
    records = withoutVolume(records, records.find((volume) => volume.id === id)!);
    logger.warn({ id, volume: name }, 'a volume is gone from the metadata');
  }
  if (records.length === volumes.length && ids.size === 0) return null;
  for (const id of ids) {
    const thin = metadata.openThin(id);
    const sizeBytes = Math.max(1, metadata.highestMapped(thin) + 1) * metadata.dataBlockSizeBytes;
    metadata.closeThin(thin);
    const name = deviceName(records, id);
    const naa = newNaa(random);
    records.push({
      id,
      name,
      sizeBytes,
      lun: firstFree(records, 'lun', 0, MAX_VOLUMES - 1),
      serial: naa,
      naa,
      logicalBlockSize: 512,
    });
    logger.warn({ id, volume: name, sizeBytes }, 'the metadata holds a device that the catalogue does not know');
  }
  return records;
}

function firstFree<Key extends 'id' | 'lun'>(
  records: readonly Record<Key, number>[],
  key: Key,
  from: number,
  last: number,
): number {
  const taken = new Set(records.map((record) => record[key]));
  for (let candidate = from; candidate <= last; candidate++) {
    if (!taken.has(candidate)) return candidate;
  }
  throw new StorageError('ENOSPC', `Cannot create the volume: every ${key} up to ${last} is taken`);
}
