import type { Command } from 'commander';
import type { RunContext } from '../run-context.ts';
import { numberArgument, toolAction } from './tool-command.ts';

export interface InspectFlags {
  live?: boolean;
  hex?: boolean;
}

export function addInspectCommand(program: Command, context: RunContext): void {
  program
    .command('inspect')
    .description('print a block of metadata so that people can read it, damaged or not')
    .argument('<path>', "a pool's folder, or metadata: a file or block device")
    .argument('<block>', 'its number; 0 is the superblock', numberArgument)
    .option('--live', 'also while a server or the kernel has the pool: what is printed may just be changing')
    .option('--hex', 'print the bytes, too')
    .addHelpText(
      'after',
      `
Says what type of block it is, whose (every device that shares it), and whether checksum, number and shape are right.

Examples:
  thinlun inspect /srv/pool 0
  thinlun inspect /srv/pool/metadata 87 --hex`,
    )
    .action(
      toolAction(context, async (path: string, block: number, flags: InspectFlags) =>
        (await import('./inspect.ts')).inspect(context, path, block, flags),
      ),
    );
}
