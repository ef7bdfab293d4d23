import { existsSync, mkdirSync, readdirSync, rmdirSync, rmSync, statSync, symlinkSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { StorageError, wrapError } from '../base/errors.ts';
import { formatSize, MIB, roundUp } from '../base/units.ts';
import { alignedMemory } from '../block/aligned-memory.ts';
import type { BlockDevice } from '../block/block-device.ts';
import { openBlockDevice } from '../block/file-device.ts';
import { BLOCK_SIZE } from '../persistent-data/block.ts';
import { syncFolder } from './replace-file.ts';

/** The two devices of a pool folder; each is a file, or a symbolic link to a file or block device. */
export type PoolFile = 'metadata' | 'data';

const METADATA_BYTES_PER_BLOCK = 48;
const MIN_METADATA_SIZE = 2 * MIB;
/** 4,161,600 blocks of 4 KiB: what the metadata's index block can address. */
export const MAX_METADATA_SIZE: number = 4_161_600 * BLOCK_SIZE;

/** The kernel documentation's rule of thumb, at least 2 MiB. */
export function defaultMetadataSize(dataSizeBytes: number, blockSizeBytes: number): number {
  const rule = METADATA_BYTES_PER_BLOCK * Math.ceil(dataSizeBytes / blockSizeBytes);
  return Math.min(MAX_METADATA_SIZE, Math.max(MIN_METADATA_SIZE, roundUp(rule, MIB)));
}

/** Opens a device of the pool; block devices exclusively, so that no kernel user has them at the same time. */
export function openPoolFile(dir: string, file: PoolFile, readOnly: boolean, direct: boolean): BlockDevice {
  return openBlockDevice(join(dir, file), { readOnly, direct, exclusive: !readOnly });
}

/** Whether it is a file, which we can make larger, and not a block device. */
export function isFile(path: string): boolean {
  return statSync(path).isFile();
}

/** Makes the folder of a new pool; what it made is undone by `undo` while the pool is not finished. */
export class PoolFolder {
  readonly dir: string;
  private readonly made: string[] = [];
  private readonly madeDir: boolean;

  /** Throws EEXIST where a pool is already. */
  constructor(dir: string) {
    this.dir = dir;
    if (existsSync(join(dir, 'pool.json')))
      throw new StorageError('EEXIST', `Cannot create the pool "${dir}": there is one already`);
    this.madeDir = !existsSync(dir);
    try {
      mkdirSync(dir, { recursive: true, mode: 0o700 });
    } catch (error) {
      throw wrapError(`Cannot create the pool "${dir}"`, error);
    }
  }

  /**
   * Makes `metadata` or `data`: a sparse file in the folder, or a link to `path`, which is a block device, an existing file or a
   * file to be made. Opens it. `sizeBytes` may be left out where `path` has a size. Throws EEXIST when it holds something.
   */
  async make(file: PoolFile, path: string | undefined, sizeBytes: number | undefined): Promise<BlockDevice> {
    const inFolder = join(this.dir, file);
    if (existsSync(inFolder)) throw new StorageError('EEXIST', `Cannot create "${inFolder}": it is there already`);
    const target = path === undefined ? inFolder : resolve(path);
    const exists = existsSync(target);
    if (!exists && sizeBytes === undefined) {
      throw new StorageError('EINVAL', `Cannot create "${target}": its size is not given`);
    }
    const device = openBlockDevice(target, {
      create: !exists,
      exclusive: true,
      direct: file === 'metadata',
      ...(exists || sizeBytes === undefined ? {} : { sizeBytes }),
    });
    if (!exists) this.made.push(target);
    try {
      if (exists) checkUsable(device, file, sizeBytes);
      if (target !== inFolder) {
        symlinkSync(target, inFolder);
        this.made.push(inFolder);
      }
      syncFolder(this.dir);
    } catch (error) {
      await device.close();
      throw error;
    }
    return device;
  }

  /** Removes what was made. */
  undo(): void {
    for (const path of this.made.reverse()) rmSync(path, { force: true });
    if (this.madeDir && readdirSync(this.dir).length === 0) rmdirSync(this.dir);
  }
}

/** Nothing of the device has been changed when it throws. */
function checkUsable(device: BlockDevice, file: PoolFile, sizeBytes: number | undefined): void {
  const { path } = device;
  const short = sizeBytes !== undefined && device.sizeBytes < sizeBytes;
  if (short && !isFile(path)) {
    throw new StorageError(
      'EINVAL',
      `Cannot use "${path}": it has ${formatSize(device.sizeBytes)}, asked for ${formatSize(sizeBytes)}`,
    );
  }
  if (file === 'metadata' && device.sizeBytes >= BLOCK_SIZE) {
    const first = alignedMemory(BLOCK_SIZE);
    device.readSync(0, first, 0, BLOCK_SIZE);
    if (first.some((byte) => byte !== 0)) {
      throw new StorageError(
        'EEXIST',
        `Cannot use "${path}" for metadata: its first block is not empty; clear it first if nothing there is needed`,
      );
    }
  }
  if (short) device.resize(sizeBytes);
}
