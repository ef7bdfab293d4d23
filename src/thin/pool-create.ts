import { randomBytes } from 'node:crypto';
import { basename, resolve } from 'node:path';
import { StorageError } from '../base/errors.ts';
import { isValidName } from '../base/names.ts';
import { formatSize, GIB, KIB, roundUp } from '../base/units.ts';
import type { BlockDevice } from '../block/block-device.ts';
import { BLOCK_SIZE } from '../persistent-data/block.ts';
import { Catalogue } from './catalogue.ts';
import { newUuid, type RandomBytes } from './identity.ts';
import { defaultMetadataSize, isFile, MAX_METADATA_SIZE, PoolFolder } from './pool-files.ts';
import { PoolLock } from './pool-lock.ts';
import { PoolMetadata } from './pool-metadata.ts';
import { checkPoolOptions, DEFAULT_POOL_OPTIONS, type PoolOptions } from './pool-options.ts';

export const DEFAULT_BLOCK_SIZE: number = 64 * KIB;
const MAX_BLOCK_SIZE = GIB;

export interface PoolCreateOptions {
  dataSizeBytes?: number;
  blockSizeBytes?: number;
  metadataSizeBytes?: number;
  /** A block device or file to be used instead of a file in the pool's folder. */
  dataPath?: string;
  metadataPath?: string;
  /** The folder's name, unless given. */
  name?: string;
  /** Features; those left out have their defaults. */
  options?: Partial<PoolOptions>;
  random?: RandomBytes;
}

/** Makes a pool in `dir`. Throws EEXIST when one is there or a device holds metadata already, EINVAL for impossible sizes. */
export async function createPool(dir: string, options: PoolCreateOptions): Promise<void> {
  const blockSizeBytes = options.blockSizeBytes ?? DEFAULT_BLOCK_SIZE;
  const name = options.name ?? basename(resolve(dir));
  if (!isValidName(name)) {
    throw new StorageError(
      'EINVAL',
      `Cannot name a pool "${name}": use letters, digits, ".", "_" and "-", at most 128`,
    );
  }
  if (
    blockSizeBytes < DEFAULT_BLOCK_SIZE ||
    blockSizeBytes > MAX_BLOCK_SIZE ||
    blockSizeBytes % DEFAULT_BLOCK_SIZE !== 0
  ) {
    throw new StorageError(
      'EINVAL',
      `Cannot use a block size of ${formatSize(blockSizeBytes)}: it is a multiple of 64 KiB, at most 1 GiB`,
    );
  }
  if (options.dataSizeBytes !== undefined && options.dataSizeBytes < blockSizeBytes) {
    throw new StorageError(
      'EINVAL',
      `Cannot make a pool of ${formatSize(options.dataSizeBytes)}: a block has ${formatSize(blockSizeBytes)}`,
    );
  }
  const folder = new PoolFolder(dir);
  const lock = await PoolLock.take(dir);
  const devices: BlockDevice[] = [];
  try {
    const data = await folder.make('data', options.dataPath, options.dataSizeBytes);
    devices.push(data);
    const dataBlockCount = Math.floor((options.dataSizeBytes ?? data.sizeBytes) / blockSizeBytes);
    const features = { ...DEFAULT_POOL_OPTIONS, ...options.options };
    const dataSizeBytes = dataBlockCount * blockSizeBytes;
    checkPoolOptions(features, { blockSizeBytes, dataSizeBytes, dataIsFile: isFile(data.path) });
    const metadataSize = roundUp(
      options.metadataSizeBytes ?? defaultMetadataSize(dataSizeBytes, blockSizeBytes),
      BLOCK_SIZE,
    );
    if (metadataSize > MAX_METADATA_SIZE) {
      throw new StorageError(
        'EINVAL',
        `Cannot use ${formatSize(metadataSize)} of metadata: the format ends at 15.88 GiB`,
      );
    }
    const metadataDevice = await folder.make('metadata', options.metadataPath, metadataSize);
    devices.push(metadataDevice);
    PoolMetadata.format(metadataDevice, { dataBlockSizeBytes: blockSizeBytes, dataBlockCount }).close();
    Catalogue.create(dir, { uuid: newUuid(options.random ?? randomBytes), name, blockSizeBytes, options: features });
  } catch (error) {
    for (const device of devices.splice(0)) await device.close();
    folder.undo();
    throw error;
  } finally {
    for (const device of devices) await device.close();
    lock.release();
  }
}
