import type { Command } from 'commander';
import type { RunContext } from '../run-context.ts';
import { addOverrideOptions, type OverrideFlags } from './override-options.ts';
import { addQuietOption, addTool, toolAction } from './tool-command.ts';

export interface RepairFlags extends OverrideFlags {
  input: string;
  output: string;
  quiet?: boolean;
}

export function addRepairCommand(program: Command, context: RunContext): void {
  const command = addTool(program, 'repair')
    .description('make new metadata from what is whole in damaged metadata, as thin_repair does')
    .requiredOption('-i, --input <path>', "the damaged metadata, a file or device or a pool's folder; only read")
    .requiredOption(
      '-o, --output <path>',
      "a metadata file or device that is there, or a pool's folder; what it holds is lost",
    );
  addQuietOption(addOverrideOptions(command), context)
    .addHelpText(
      'after',
      `
It takes the superblock's trees when they are whole, else the newest ones on the device that belong together; space maps are made anew. When
the superblock is lost, the block size has to be given, unless a pool's folder tells it.

Examples:
  thinlun repair -i damaged -o /srv/pool                after: cp /srv/pool/metadata damaged
  thinlun repair -i /dev/vg0/damaged -o /dev/vg0/metadata --data-block-size 128
  thinlun dump --repair damaged | less                  look first`,
    )
    .action(toolAction(context, async (flags: RepairFlags) => (await import('./repair.ts')).repair(flags)));
}
