import { resolve } from 'node:path';
import { formatSize } from '../base/units.ts';
import { poolOptions } from '../daemon/pool-messages.ts';
import { createPool, DEFAULT_BLOCK_SIZE, type PoolCreateOptions } from '../thin/pool-create.ts';
import type { CreateFlags } from './pool-commands.ts';
import { optionsOf } from './pool-option-flags.ts';
import { type RunContext, UsageError } from './run-context.ts';
import { withPool } from './with-pool.ts';

/** `thinlun pool create`. */
export async function create(context: RunContext, dir: string, flags: CreateFlags): Promise<void> {
  if (flags.dataSize === undefined && flags.data === undefined) {
    throw new UsageError(
      'Say how much data the pool is for, with --data-size 10G, or where to put it, with --data PATH',
    );
  }
  const options: PoolCreateOptions = {
    ...(flags.dataSize !== undefined && { dataSizeBytes: flags.dataSize }),
    ...(flags.blockSize !== undefined && { blockSizeBytes: flags.blockSize }),
    ...(flags.metadataSize !== undefined && { metadataSizeBytes: flags.metadataSize }),
    ...(flags.data !== undefined && { dataPath: flags.data }),
    ...(flags.metadata !== undefined && { metadataPath: flags.metadata }),
    ...(flags.name !== undefined && { name: flags.name }),
    options: poolOptions(optionsOf(flags), flags.blockSize ?? DEFAULT_BLOCK_SIZE),
  };
  await createPool(dir, options);
  const status = await withPool(dir, (open) => open.status());
  const { output } = context;
  if (flags.json) {
    output.json(status);
    return;
  }
  output.line(
    `Created the pool "${status.name}" in ${resolve(dir)}: ${formatSize(status.dataSizeBytes)} of data in blocks of ` +
      `${formatSize(status.blockSizeBytes)}, ${formatSize(status.metadataSizeBytes)} of metadata.`,
  );
  output.line(`Next: thinlun volume create ${dir} NAME --size 1G`);
}
