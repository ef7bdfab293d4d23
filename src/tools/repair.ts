import { StorageError, wrapError } from '../base/errors.ts';
import type { BlockDevice } from '../block/block-device.ts';
import { type FindOptions, findRoots } from './find-roots.ts';
import { type ProgressReport, visitSharedMappings } from './mappings.ts';
import { MetadataReader } from './metadata-reader.ts';
import { Restorer, type RestoreTarget } from './restorer.ts';

export interface RepairOptions extends FindOptions {
  target?: RestoreTarget | undefined;
  copyProgress?: ProgressReport;
}

/**
 * Makes new metadata on `output` from what is whole in the damaged metadata on `input`, which is only read. See `findRoots` and `Restorer`:
 * until the superblock is written, last, `output` is no pool. Throws EILSEQ, EINVAL, ENOSPC, and what the devices throw.
 */
export function repairMetadata(input: BlockDevice, output: BlockDevice, options: RepairOptions = {}): void {
  const reader = new MetadataReader(input);
  const roots = findRoots(reader, options);
  const restorer = new Restorer(output, { target: options.target, countMappings: true });
  try {
    visitSharedMappings(reader, roots, restorer, options.copyProgress);
    restorer.finish();
  } catch (error) {
    if (!(error instanceof StorageError) || error.code !== 'EINVAL') throw error;
    throw wrapError(`Cannot write repaired metadata to "${output.path}"`, error);
  }
}
