import type { Command } from 'commander';
import type { RunContext } from '../run-context.ts';
import { addQuietOption, addTool, toolAction } from './tool-command.ts';

export interface TrimFlags {
  metadataDev?: string;
  dataDev?: string;
  quiet?: boolean;
}

export function addTrimCommand(program: Command, context: RunContext): void {
  const command = addTool(program, 'trim')
    .description('discard the free space of a pool on its data device')
    .argument('[dir]', "the pool's folder; also while a server has it open")
    .option('--metadata-dev <path>', 'the metadata of a pool without a folder that nothing has open; with --data-dev')
    .option('--data-dev <path>', 'the data of that pool: a block device or file');
  addQuietOption(command, context)
    .addHelpText(
      'after',
      `
Gives back what discards have left behind that failed, or that the end of a process cut off. With --metadata-dev the metadata is checked
first, as thin_trim does it.

Examples:
  thinlun trim /srv/pool
  thinlun trim --metadata-dev /dev/vg0/metadata --data-dev /dev/vg0/data`,
    )
    .action(
      toolAction(context, async (dir: string | undefined, flags: TrimFlags) =>
        (await import('./trim.ts')).trim(context, dir, flags),
      ),
    );
}
