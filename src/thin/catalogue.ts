import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import * as v from 'valibot';
import { messageOf, StorageError, wrapError } from '../base/errors.ts';
import { NAME_PATTERN } from '../base/names.ts';
import { describeIssues, finiteNumber, integer, type Schema, safeParse, strictObject, uuid } from '../base/schema.ts';
import { DEVICE_ID_LIMIT } from './device-id.ts';
import { DEFAULT_POOL_OPTIONS, POOL_OPTIONS, type PoolOptions } from './pool-options.ts';
import { replaceFile } from './replace-file.ts';
import { UNIT_RECORD, type UnitRecord } from './unit-record.ts';

/**
 * `pool.json`: what dm-thin's metadata has no room for (names, sizes, LUN numbers, serials), kept in step with it by the
 * superblock's transaction id.
 *
 * ```
 *   begin(next)     pool.json = { transactionId: T, volumes: old, pending: { transactionId: T + 1, volumes: next } }
 *   (the pool commits the metadata with transaction id T + 1)
 *   finish()        pool.json = { transactionId: T + 1, volumes: next }
 * ```
 * A crash leaves the metadata at T or at T + 1; `settle` rolls the catalogue to that side. dm-thin's messages make and delete devices without
 * a new transaction id, which is the user's: then the device itself tells on which side the metadata is. Every write is a temporary file, fsync, rename,
 * fsync of the folder.
 */

const FILE = 'pool.json';
const FORMAT = 1;
export const MAX_VOLUMES = 16384;

/** The read-only image that a volume shows where it has no blocks of its own. */
export interface ExternalOriginRecord {
  /** Absolute. */
  path: string;
  /** As it was when the volume was made: an image that has changed since does not fit what is mapped. */
  sizeBytes: number;
  /** Of a file; null for a block device. */
  modifiedMs: number | null;
}

/** A volume as the catalogue knows it. */
export interface VolumeRecord {
  /** dm-thin's device id. */
  id: number;
  name: string;
  sizeBytes: number;
  lun: number;
  /** VPD page 80h. */
  serial: string;
  /** VPD page 83h: 16 hexadecimal digits. */
  naa: string;
  logicalBlockSize: 512 | 4096;
  /** Device id of the volume that this one is a snapshot of; where that one was deleted, of the one before it. */
  origin?: number | undefined;
  /** It stays as it is. */
  readOnly?: boolean | undefined;
  /** Initiators may eject it. */
  removable?: boolean | undefined;
  /** Bytes that initiators are told to align to; left out: 4096. */
  physicalBlockSize?: number | undefined;
  externalOrigin?: ExternalOriginRecord | undefined;
  /** What its logical unit keeps. */
  unit?: UnitRecord | undefined;
  /** Names what a read-only volume holds: a UUID that whoever sends it gave it, and that copies of it share. */
  contentId?: string | undefined;
  /** It is being received, and is nobody's to use before that has ended. */
  receiving?: ReceivingRecord | undefined;
  /** It serves one command only: the next open deletes it. */
  temporary?: boolean | undefined;
}

/** How far a volume has been received. */
export interface ReceivingRecord {
  /** What it is going to hold. */
  contentId: string;
  /** What the stream differs from; null: nothing. */
  baseContentId: string | null;
  /** Device id of the volume that gets the content in the end; null: this one. */
  targetId: number | null;
  /** Everything before is there, and durable. */
  positionBytes: number;
}

/** A device whose volume was deleted, and which is being taken away. */
export interface DeletionRecord {
  id: number;
  /** The pool's transaction id when the device was made: another device of the same id has another one. */
  transactionId: number;
}

interface CatalogueFile {
  format: 1;
  uuid: string;
  name: string;
  blockSizeBytes: number;
  options: PoolOptions;
  transactionId: number;
  volumes: VolumeRecord[];
  deleting: DeletionRecord[];
  pending?: Pending | undefined;
}

interface Pending {
  transactionId: number;
  volumes: VolumeRecord[];
  deleting: DeletionRecord[];
}

/** Whether the metadata has a device. */
export type HasDevice = (id: number) => boolean;

const NAME = v.pipe(v.string(), v.regex(NAME_PATTERN));
const COUNT = integer(0);
const DEVICE_ID = integer(0, DEVICE_ID_LIMIT - 1);

const VOLUME: Schema<VolumeRecord> = strictObject({
  id: DEVICE_ID,
  name: NAME,
  sizeBytes: COUNT,
  lun: integer(0, MAX_VOLUMES - 1),
  serial: v.pipe(v.string(), v.minLength(1), v.maxLength(64)),
  naa: v.pipe(v.string(), v.regex(/^[0-9a-f]{16}$/)),
  logicalBlockSize: v.picklist([512, 4096]),
  origin: v.optional(DEVICE_ID),
  readOnly: v.optional(v.boolean()),
  removable: v.optional(v.boolean()),
  physicalBlockSize: v.optional(COUNT),
  externalOrigin: v.optional(
    strictObject({
      path: v.pipe(v.string(), v.startsWith('/')),
      sizeBytes: COUNT,
      modifiedMs: v.nullable(finiteNumber),
    }),
  ),
  unit: v.optional(UNIT_RECORD),
  contentId: v.optional(uuid),
  receiving: v.optional(
    strictObject({
      contentId: uuid,
      baseContentId: v.nullable(uuid),
      targetId: v.nullable(DEVICE_ID),
      positionBytes: COUNT,
    }),
  ),
  temporary: v.optional(v.boolean()),
});

const DELETING = v.optional(v.array(strictObject({ id: DEVICE_ID, transactionId: COUNT })), []);

const CATALOGUE: Schema<CatalogueFile> = strictObject({
  format: v.literal(FORMAT),
  uuid,
  name: NAME,
  blockSizeBytes: COUNT,
  options: v.optional(POOL_OPTIONS, { ...DEFAULT_POOL_OPTIONS }),
  transactionId: COUNT,
  volumes: v.pipe(v.array(VOLUME), v.maxLength(MAX_VOLUMES)),
  deleting: DELETING,
  pending: v.optional(
    strictObject({
      transactionId: COUNT,
      volumes: v.pipe(v.array(VOLUME), v.maxLength(MAX_VOLUMES)),
      deleting: DELETING,
    }),
  ),
});

/** `pool.json` cannot be understood, or belongs to other metadata: EINVAL. The metadata may be good. */
export class CatalogueError extends StorageError {
  constructor(message: string) {
    super('EINVAL', message);
  }
}

export class Catalogue {
  private readonly dir: string;
  private file: CatalogueFile;

  private constructor(dir: string, file: CatalogueFile) {
    this.dir = dir;
    this.file = file;
  }

  static create(
    dir: string,
    identity: { uuid: string; name: string; blockSizeBytes: number; options: PoolOptions },
  ): Catalogue {
    const catalogue = new Catalogue(dir, { format: FORMAT, ...identity, transactionId: 0, volumes: [], deleting: [] });
    catalogue.save(catalogue.file);
    return catalogue;
  }

  /** Throws ENOENT when there is none, EINVAL when it cannot be understood. */
  static load(dir: string): Catalogue {
    const path = join(dir, FILE);
    let text: string;
    try {
      text = readFileSync(path, 'utf8');
    } catch (error) {
      throw wrapError(`Cannot read the pool's catalogue "${path}"`, error);
    }
    let json: unknown;
    try {
      json = JSON.parse(text);
    } catch (error) {
      throw new CatalogueError(`Cannot read the pool's catalogue "${path}": ${messageOf(error)}`);
    }
    const parsed = safeParse(CATALOGUE, json);
    if (!parsed.success) {
      const reason = describeIssues(parsed.issues.slice(0, 1), 'the document');
      throw new CatalogueError(`Cannot read the pool's catalogue "${path}": ${reason}`);
    }
    const catalogue = new Catalogue(dir, parsed.output);
    catalogue.checkUnique(parsed.output.volumes);
    if (parsed.output.pending) catalogue.checkUnique(parsed.output.pending.volumes);
    return catalogue;
  }

  get uuid(): string {
    return this.file.uuid;
  }

  get name(): string {
    return this.file.name;
  }

  get blockSizeBytes(): number {
    return this.file.blockSizeBytes;
  }

  get options(): Readonly<PoolOptions> {
    return this.file.options;
  }

  get transactionId(): number {
    return this.file.transactionId;
  }

  get volumes(): readonly VolumeRecord[] {
    return this.file.volumes;
  }

  /** Devices without a volume that are to be deleted. Their ids are taken. */
  get deleting(): readonly DeletionRecord[] {
    return this.file.deleting;
  }

  /** The volumes that belong to metadata with that transaction id and those devices; null when it and this catalogue do not belong together. */
  volumesAt(metadataTransactionId: number, hasDevice: HasDevice): readonly VolumeRecord[] | null {
    const { pending, transactionId, volumes } = this.file;
    if (pending !== undefined && this.isCommitted(pending, metadataTransactionId, hasDevice)) return pending.volumes;
    return transactionId === metadataTransactionId ? volumes : null;
  }

  /** The devices that are being deleted according to `volumesAt`. */
  deletingAt(metadataTransactionId: number, hasDevice: HasDevice): readonly DeletionRecord[] {
    const { pending, deleting } = this.file;
    if (pending === undefined || !this.isCommitted(pending, metadataTransactionId, hasDevice)) return deleting;
    return pending.deleting;
  }

  find(name: string): VolumeRecord | undefined {
    return this.file.volumes.find((volume) => volume.name === name);
  }

  /** Rolls an unfinished change forward or back, to where the metadata is. Throws EINVAL when the two do not belong together. */
  settle(metadataTransactionId: number, hasDevice: HasDevice): void {
    const { pending, ...settled } = this.file;
    if (pending !== undefined && this.isCommitted(pending, metadataTransactionId, hasDevice)) {
      this.save({ ...settled, ...pending });
    } else if (metadataTransactionId === settled.transactionId) {
      if (pending !== undefined) this.save(settled);
    } else {
      throw new CatalogueError(
        `Cannot use the pool "${this.dir}": its metadata is at transaction ${metadataTransactionId}, its catalogue at ` +
          `${settled.transactionId}${pending ? ` or ${pending.transactionId}` : ''}: one of the two was replaced`,
      );
    }
  }

  private isCommitted(pending: Pending, metadataTransactionId: number, hasDevice: HasDevice): boolean {
    const { transactionId, volumes } = this.file;
    if (pending.transactionId !== metadataTransactionId) return false;
    if (pending.transactionId !== transactionId) return true;
    const ids = (records: readonly VolumeRecord[]): Set<number> => new Set(records.map(({ id }) => id));
    const [before, after] = [ids(volumes), ids(pending.volumes)];
    const made = [...after].filter((id) => !before.has(id));
    const gone = [...before].filter((id) => !after.has(id));
    return made.every(hasDevice) && !gone.some(hasDevice);
  }

  /** Writes down the volumes, and the devices to be deleted, as they will be when the metadata has been committed with that transaction id. */
  begin(
    volumes: readonly VolumeRecord[],
    transactionId: number,
    deleting: readonly DeletionRecord[] = this.file.deleting,
  ): void {
    const pending = { transactionId, volumes: [...volumes], deleting: [...deleting] };
    this.change(volumes, { ...this.file, pending });
  }

  /** The metadata has been committed: what was begun is so. */
  finish(): void {
    const { pending, ...settled } = this.file;
    this.save({ ...settled, ...pending });
  }

  /**
   * The metadata is being replaced by one at that transaction id. The volumes stay as they are, until the pool is opened and compares. No
   * deletion goes on: the device may be there again because somebody wants it back.
   */
  follow(metadataTransactionId: number): void {
    const { pending: _, ...settled } = this.file;
    const volumes = this.volumesAt(metadataTransactionId, () => false) ?? settled.volumes;
    this.change(volumes, { ...settled, volumes: [...volumes], deleting: [], transactionId: metadataTransactionId });
  }

  /** Replaces the volumes in one step: for changes that the metadata has no part in. */
  replace(volumes: readonly VolumeRecord[]): void {
    this.change(volumes, { ...this.file, volumes: [...volumes] });
  }

  setDeleting(deleting: readonly DeletionRecord[]): void {
    this.change(this.file.volumes, { ...this.file, deleting: [...deleting] });
  }

  setOptions(options: PoolOptions): void {
    this.change(this.file.volumes, { ...this.file, options });
  }

  /** A change that did not reach the disk is not remembered either. */
  private change(volumes: readonly VolumeRecord[], file: CatalogueFile): void {
    this.checkUnique(volumes);
    const before = this.file;
    try {
      this.save(file);
    } catch (error) {
      this.file = before;
      throw error;
    }
  }

  private checkUnique(volumes: readonly VolumeRecord[]): void {
    for (const key of ['id', 'name', 'lun', 'serial'] as const) {
      const seen = new Set(volumes.map((volume) => volume[key]));
      if (seen.size !== volumes.length) {
        throw new CatalogueError(
          `Cannot use the catalogue "${join(this.dir, FILE)}": two volumes have the same ${key}`,
        );
      }
    }
  }

  private save(file: CatalogueFile): void {
    this.file = file;
    const path = join(this.dir, FILE);
    try {
      replaceFile(path, `${JSON.stringify(file, null, 2)}\n`);
    } catch (error) {
      throw wrapError(`Cannot write the pool's catalogue "${path}"`, error);
    }
  }
}
