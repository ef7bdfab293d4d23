import type { Command } from 'commander';
import type { PoolOverrides } from '../../tools/pool-roots.ts';
import { numberArgument } from './tool-command.ts';

export interface OverrideFlags {
  transactionId?: number;
  dataBlockSize?: number;
  nrDataBlocks?: number;
}

/** What the user knows better than the metadata: the same three options for dump, restore and repair. */
export function addOverrideOptions(command: Command): Command {
  return command
    .option('--transaction-id <number>', 'use this transaction id when it is above the one found', numberArgument)
    .option('--data-block-size <sectors>', 'use this data block size, in sectors of 512 bytes', numberArgument)
    .option(
      '--nr-data-blocks <number>',
      'use this number of data blocks when it is above the one found',
      numberArgument,
    );
}

export function overridesOf(flags: OverrideFlags): PoolOverrides {
  const { transactionId, dataBlockSize, nrDataBlocks: dataBlockCount } = flags;
  return { transactionId, dataBlockSize, dataBlockCount };
}
