import type { Command } from 'commander';
import type { RunContext } from '../run-context.ts';
import { addOverrideOptions, type OverrideFlags } from './override-options.ts';
import { addQuietOption, addTool, toolAction } from './tool-command.ts';

export interface RestoreFlags extends OverrideFlags {
  input: string;
  output: string;
  quiet?: boolean;
}

export function addRestoreCommand(program: Command, context: RunContext): void {
  const command = addTool(program, 'restore')
    .description("make a pool's metadata from the XML that dump or thin_dump wrote, as thin_restore does")
    .requiredOption('-i, --input <file>', 'the XML; - is standard input')
    .requiredOption(
      '-o, --output <path>',
      "a metadata file or device that is there, or a pool's folder; what it holds is lost",
    );
  addQuietOption(addOverrideOptions(command), context)
    .addHelpText(
      'after',
      `
The superblock is written last: when it fails or is interrupted, the output is no pool. The metadata that is restored to a pool's folder has to
fit the pool's data; volumes that the folder has no name for get one when the pool is opened.

Examples:
  thinlun restore -i pool.xml -o /srv/pool
  truncate -s 64M metadata && thinlun restore -i pool.xml -o metadata
  thinlun dump /dev/vg0/small | thinlun restore -i - -o /dev/vg0/large`,
    )
    .action(toolAction(context, async (flags: RestoreFlags) => (await import('./restore.ts')).restore(flags)));
}
