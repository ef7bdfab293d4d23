import type { Command } from 'commander';
import { hexLines, type InspectLine, inspectBlock } from '../../tools/inspect.ts';
import type { RunContext } from '../run-context.ts';
import { numberArgument, toolAction } from './tool-command.ts';
import { useMetadata } from './use-metadata.ts';

interface InspectFlags {
  live?: boolean;
  hex?: boolean;
}

export function addInspectCommand(program: Command, context: RunContext): void {
  const { output } = context;
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
      toolAction(context, (path: string, block: number, flags: InspectFlags) =>
        useMetadata(path, { metadataSnapshot: flags.live ?? false }, ({ device }) => {
          const lines = inspectBlock(device, block);
          const hex = flags.hex ? hexLines(device, block) : [];
          for (const line of alignNames(lines)) output.line(line);
          if (flags.hex) output.line();
          for (const line of hex) output.line(line);
        }),
      ),
    );
}

/** Names of one width in each part; parts end where a line goes over the whole width. */
function* alignNames(lines: readonly InspectLine[]): Iterable<string> {
  let width = 0;
  for (const [i, line] of lines.entries()) {
    if (typeof line === 'string') {
      width = 0;
      yield line;
      continue;
    }
    if (width === 0) {
      for (let j = i; j < lines.length && typeof lines[j] !== 'string'; j++)
        width = Math.max(width, lines[j]![0].length);
    }
    yield `${line[0].padEnd(width)}  ${line[1]}`;
  }
}
