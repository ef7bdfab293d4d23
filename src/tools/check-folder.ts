import { messageOf } from '../base/errors.ts';
import { formatSize, SECTOR_SIZE } from '../base/units.ts';
import { Catalogue } from '../thin/catalogue.ts';
import { openPoolFile } from '../thin/pool-files.ts';
import type { Severity } from './damage.ts';
import type { SuperblockFields } from './superblock-check.ts';

/** `path` is the file of the folder that is concerned. */
export type FolderReport = (severity: Severity, path: string, message: string) => void;

/** Whether a pool's catalogue and data device belong to its metadata, which is good and has the devices `ids`. */
export async function checkFolder(
  dir: string,
  superblock: SuperblockFields,
  ids: ReadonlySet<number>,
  report: FolderReport,
): Promise<void> {
  const blockSizeBytes = superblock.dataBlockSize * SECTOR_SIZE;
  await checkData(dir, superblock.dataSpaceMap.blockCount * blockSizeBytes, report);
  const wrong = (message: string): void => report('error', 'pool.json', message);
  let catalogue: Catalogue;
  try {
    catalogue = Catalogue.load(dir);
  } catch (error) {
    wrong(messageOf(error));
    return;
  }
  if (catalogue.blockSizeBytes !== blockSizeBytes) {
    wrong(
      `it says that blocks have ${formatSize(catalogue.blockSizeBytes)}, the metadata ${formatSize(blockSizeBytes)}`,
    );
  }
  const { transactionId } = superblock;
  const hasDevice = (id: number): boolean => ids.has(id);
  const volumes = catalogue.volumesAt(transactionId, hasDevice);
  if (volumes === null) {
    wrong(`it belongs to another transaction than the metadata, which is at ${transactionId}`);
    return;
  }
  for (const { name, id } of volumes) {
    if (!ids.has(id)) wrong(`the metadata has no device ${id}, which is the volume "${name}"`);
  }
  const known = new Set([...volumes, ...catalogue.deletingAt(transactionId, hasDevice)].map(({ id }) => id));
  for (const id of ids) {
    if (!known.has(id)) {
      report('warning', 'pool.json', `device ${id} of the metadata has no name; it gets one when the pool is opened`);
    }
  }
}

async function checkData(dir: string, neededBytes: number, report: FolderReport): Promise<void> {
  try {
    const data = openPoolFile(dir, 'data', true, false);
    const { sizeBytes } = data;
    await data.close();
    if (sizeBytes >= neededBytes) return;
    report('error', 'data', `it has ${formatSize(sizeBytes)}, the metadata is for ${formatSize(neededBytes)}`);
  } catch (error) {
    report('error', 'data', messageOf(error));
  }
}
