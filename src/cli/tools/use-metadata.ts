import { monotonicClock } from '../../base/clock.ts';
import { StorageError } from '../../base/errors.ts';
import { AdvisedError } from '../../daemon/advised-error.ts';
import { requirePool, servedBy, untilFree } from '../../daemon/pool-access.ts';
import {
  type MetadataSource,
  type MetadataSourceOptions,
  openMetadata,
  poolFolderOf,
} from '../../tools/metadata-source.ts';

/**
 * Runs `work` on the metadata at `path` (a file, a block device or a pool's folder) and closes it whatever happens. Throws EBUSY with
 * advice while a server or the kernel has it, ENOENT for a folder that is no pool.
 */
export async function useMetadata<T>(
  path: string,
  options: MetadataSourceOptions,
  work: (source: MetadataSource) => T | Promise<T>,
): Promise<T> {
  const source = await open(path, options);
  try {
    return await work(source);
  } finally {
    await source.close();
  }
}

async function open(path: string, options: MetadataSourceOptions): Promise<MetadataSource> {
  const dir = poolFolderOf(path);
  if (dir === null) return openDevice(path, options);
  if (options.metadataSnapshot) {
    requirePool(dir);
    return openMetadata(path, options);
  }
  return untilFree(dir, monotonicClock, async () => {
    const server = await servedBy(dir);
    if (server === null) return openDevice(path, options);
    const { pid } = server;
    const snapshot = `, or take a metadata snapshot with "thinlun message ${dir} reserve_metadata_snap" and read that (-m)`;
    const advice = options.write ? '' : snapshot;
    throw new AdvisedError(
      'EBUSY',
      `Cannot open the metadata of the pool "${dir}": process ${pid} serves it`,
      `End it with "kill ${pid}"${advice}.`,
    );
  });
}

async function openDevice(path: string, options: MetadataSourceOptions): Promise<MetadataSource> {
  try {
    return await openMetadata(path, options);
  } catch (error) {
    if (!(error instanceof StorageError) || error.code !== 'EBUSY' || poolFolderOf(path) !== null) throw error;
    const advice = 'The kernel or another program has it open ("dmsetup ls --tree" shows who): stop that first.';
    throw new AdvisedError('EBUSY', error.message, advice, { cause: error });
  }
}
