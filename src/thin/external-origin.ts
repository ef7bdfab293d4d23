import { realpathSync, type Stats, statSync } from 'node:fs';
import { dirname, join, resolve, sep } from 'node:path';
import { errnoOf, messageOf, StorageError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { formatSize } from '../base/units.ts';
import type { BlockDevice } from '../block/block-device.ts';
import { openBlockDevice } from '../block/file-device.ts';
import type { ExternalOriginRecord } from './catalogue.ts';

/**
 * External origins: read-only images, files or devices outside the pool, that volumes show where they have no blocks of their own. What is past
 * the end of an image reads as zeroes. An image must not change while a volume stands on it.
 */

/** An image that is open, shared by all volumes that stand on it. */
export interface ExternalOrigin {
  readonly device: BlockDevice;
  /** As it was when the image was opened. */
  readonly sizeBytes: number;
  /** Has reads that are queued and not submitted. For `OriginReads`. */
  queued: boolean;
}

/** Which origins are to be submitted at the end of the turn. */
export class OriginReads {
  readonly #origins: ExternalOrigin[] = [];

  get queued(): boolean {
    return this.#origins.length !== 0;
  }

  /** Reads of `origin` were queued. */
  add(origin: ExternalOrigin): void {
    if (origin.queued) return;
    origin.queued = true;
    this.#origins.push(origin);
  }

  submit(): void {
    for (const origin of this.#origins) {
      origin.queued = false;
      origin.device.submit();
    }
    this.#origins.length = 0;
  }
}

/**
 * What the catalogue keeps of the image at `path`. Throws ENODEV (it is not there), EACCES, ENOTBLK, EINVAL (empty, part of the pool in `dir`, a
 * device whose sectors are larger than the volume's logical blocks).
 */
export function describeOrigin(dir: string, path: string, logicalBlockSize: number): ExternalOriginRecord {
  const device = openOrigin(dir, resolve(path), logicalBlockSize);
  const { sizeBytes } = device;
  void device.close();
  if (sizeBytes === 0) throw new StorageError('EINVAL', `Cannot use "${path}" as an external origin: it is empty`);
  const stats = statSync(path);
  return { path: resolve(path), sizeBytes, modifiedMs: stats.isFile() ? Math.floor(stats.mtimeMs) : null };
}

/** What is wrong with an image since its volume was made, in words; null when nothing is. */
export function originProblem({ path, sizeBytes, modifiedMs }: ExternalOriginRecord): string | null {
  let stats: Stats;
  try {
    stats = statSync(path);
  } catch (error) {
    return `it cannot be read: ${messageOf(error)}`;
  }
  if (!stats.isFile()) return null;
  if (stats.size !== sizeBytes) return `it had ${formatSize(sizeBytes)} and has ${formatSize(stats.size)} now`;
  if (modifiedMs === null || Math.floor(stats.mtimeMs) === modifiedMs) return null;
  return 'it was modified after the volume was made from it';
}

/** The images that the open volumes of a pool stand on. */
export class ExternalOrigins {
  readonly #dir: string;
  readonly #logger: Logger;
  readonly #open: Map<string, { origin: ExternalOrigin; users: number }> = new Map();

  constructor(dir: string, logger: Logger) {
    this.#dir = dir;
    this.#logger = logger;
  }

  /** Opens the image of a volume. Throws when it is not there or cannot be read; that it has changed is only logged. */
  acquire(volume: string, record: ExternalOriginRecord, logicalBlockSize: number): ExternalOrigin {
    const { path } = record;
    let entry = this.#open.get(path);
    if (entry === undefined) {
      const device = openOrigin(this.#dir, path, logicalBlockSize);
      entry = { origin: { device, sizeBytes: device.sizeBytes, queued: false }, users: 0 };
      this.#open.set(path, entry);
    }
    entry.users++;
    const { sizeBytes } = entry.origin;
    const reason =
      originProblem(record) ??
      (sizeBytes === record.sizeBytes
        ? null
        : `it had ${formatSize(record.sizeBytes)} and has ${formatSize(sizeBytes)} now`);
    if (reason !== null) {
      this.#logger.warn({ volume, origin: path, reason }, 'the external origin of a volume is not what it was');
    }
    return entry.origin;
  }

  async release(origin: ExternalOrigin): Promise<void> {
    for (const [path, entry] of this.#open) {
      if (entry.origin !== origin || --entry.users > 0) continue;
      this.#open.delete(path);
      await origin.device.close();
    }
  }

  /** Closes what is still open. */
  async close(): Promise<void> {
    const all = [...this.#open.values()];
    this.#open.clear();
    for (const { origin } of all) await origin.device.close();
  }
}

function openOrigin(dir: string, path: string, logicalBlockSize: number): BlockDevice {
  try {
    if (isOfPool(dir, path)) throw new StorageError('EINVAL', 'it belongs to the pool itself');
    const device = openBlockDevice(path, { readOnly: true });
    const { alignmentBytes } = device;
    if (logicalBlockSize % alignmentBytes === 0) return device;
    void device.close();
    throw new StorageError('EINVAL', `its sectors have ${alignmentBytes} bytes, logical blocks ${logicalBlockSize}`);
  } catch (error) {
    // ENOENT is what a volume that is not there gives.
    const code = errnoOf(error) === 'ENOENT' ? 'ENODEV' : errnoOf(error);
    throw new StorageError(code, `Cannot use "${path}" as an external origin: ${messageOf(error)}`, { cause: error });
  }
}

/** Whether `path` is the pool's data or metadata, under whatever name, or lies in its folder. Throws when it is not there. */
function isOfPool(dir: string, path: string): boolean {
  const real = realpathSync(path);
  const folder = realpathSync(dir);
  for (let parent = dirname(real); ; parent = dirname(parent)) {
    if (parent === folder) return true;
    if (parent === sep) break;
  }
  const stats = statSync(real);
  return ['data', 'metadata'].some((name) => {
    const own = statSync(join(dir, name));
    return stats.isBlockDevice() && own.isBlockDevice()
      ? stats.rdev === own.rdev
      : stats.dev === own.dev && stats.ino === own.ino;
  });
}
