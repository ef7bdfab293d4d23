import type { Command } from 'commander';
import type { RunContext } from '../run-context.ts';
import { addTool, toolAction } from './tool-command.ts';

export interface PackFlags {
  input: string;
  output: string;
  force?: boolean;
  quiet?: boolean;
}

export function addPackCommands(program: Command, context: RunContext): void {
  addTool(program, 'pack')
    .description('write the blocks of metadata, and nothing else, to a small compressed file')
    .requiredOption('-i, --input <path>', "metadata: a pool's folder, a file or block device")
    .requiredOption('-o, --output <file>', 'the pack file; replaced if it is there')
    .option('-f, --force', 'as for thin_metadata_pack; changes nothing here')
    .option('-q, --quiet', 'show no progress')
    .addHelpText(
      'after',
      `
Damaged metadata, too: blocks are taken as they are. The format is that of thin_metadata_pack.

Examples:
  thinlun pack -i /srv/pool -o pool.pack
  thinlun pack -i /dev/vg0/metadata -o pool.pack`,
    )
    .action(toolAction(context, async (flags: PackFlags) => (await import('./pack.ts')).pack(flags)));

  addTool(program, 'unpack')
    .description('make metadata from a file that "pack" or thin_metadata_pack wrote')
    .requiredOption('-i, --input <file>', 'the pack file')
    .requiredOption(
      '-o, --output <path>',
      'where the metadata goes: a file, made if it is not there, or a block device',
    )
    .option('-f, --force', 'overwrite other metadata')
    .option('-q, --quiet', 'show no progress')
    .addHelpText(
      'after',
      `
Examples:
  thinlun unpack -i pool.pack -o metadata
  thinlun unpack -f -i pool.pack -o /dev/vg0/metadata`,
    )
    .action(toolAction(context, async (flags: PackFlags) => (await import('./pack.ts')).unpack(flags)));
}
