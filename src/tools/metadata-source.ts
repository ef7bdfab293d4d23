import { existsSync, statSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { wrapError } from '../base/errors.ts';
import type { BlockDevice } from '../block/block-device.ts';
import { openBlockDevice } from '../block/file-device.ts';
import { PoolLock } from '../thin/pool-lock.ts';

export interface MetadataSourceOptions {
  /** To be changed. Default: only read. */
  write?: boolean;
  /**
   * Only the metadata snapshot is read, which nothing changes while it is held: no lock is taken, so that a server or the kernel may go
   * on with the pool. Not together with `write`.
   */
  metadataSnapshot?: boolean;
}

/** Metadata for a tool, and its pool's folder when it is in one. */
export interface MetadataSource {
  /** Reads come from the device itself and not from what the page cache remembers of it. */
  readonly device: BlockDevice;
  /** The pool's folder; null for metadata that is a file or device by itself. */
  readonly dir: string | null;
  /** Closes the device and gives the lock back. */
  close(): Promise<void>;
}

/** The folder of the pool that `path` is or is the metadata of; null when it belongs to none. */
export function poolFolderOf(path: string): string | null {
  const dir = isFolder(path) ? path : dirname(path);
  if (dir !== path && basename(path) !== 'metadata') return null;
  return dir === path || existsSync(join(dir, 'pool.json')) ? dir : null;
}

/**
 * Opens metadata for a tool. `path` is a metadata file, a block device (then exclusively: EBUSY while the kernel or a server has it), or a
 * pool's folder (its `metadata`, with the pool locked: EBUSY while another process has it). Throws `StorageError`.
 */
export async function openMetadata(path: string, options: MetadataSourceOptions = {}): Promise<MetadataSource> {
  const { write = false, metadataSnapshot = false } = options;
  const dir = poolFolderOf(path);
  const lock = dir === null || metadataSnapshot ? null : await PoolLock.take(dir);
  try {
    const file = dir === null ? path : join(dir, 'metadata');
    const device = openBlockDevice(file, { readOnly: !write, exclusive: !metadataSnapshot, direct: true });
    return {
      device,
      dir,
      close: async () => {
        await device.close();
        lock?.release();
      },
    };
  } catch (error) {
    lock?.release();
    throw error;
  }
}

function isFolder(path: string): boolean {
  try {
    return statSync(path).isDirectory();
  } catch (error) {
    throw wrapError(`Cannot open "${path}"`, error);
  }
}
