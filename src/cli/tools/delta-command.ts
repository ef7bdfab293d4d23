import { type Command, Option } from 'commander';
import type { RunContext } from '../run-context.ts';
import { addTool, numberArgument, toolAction } from './tool-command.ts';

export interface DeltaFlags {
  thin1?: number;
  snap1?: number;
  root1?: number;
  thin2?: number;
  snap2?: number;
  root2?: number;
  metadataSnap?: boolean;
  verbose?: boolean;
  /** false with --no-same. */
  same: boolean;
  quiet?: boolean;
}

export function addDeltaCommand(program: Command, context: RunContext): void {
  const command = addTool(program, 'delta')
    .description('print how the mappings of two devices differ, as the XML of thin_delta')
    .argument('<path>', "a pool's folder, or metadata: a file or block device");
  for (const side of ['1', '2']) {
    const which = side === '1' ? 'first' : 'second';
    command
      .addOption(numberOption(`--thin${side} <id>`, `the ${which} device`).conflicts([`snap${side}`, `root${side}`]))
      .addOption(numberOption(`--snap${side} <id>`, `the same as --thin${side}`).conflicts(`root${side}`))
      .addOption(numberOption(`--root${side} <block>`, `the root of the ${which} mapping tree, instead of a device`));
  }
  command
    .option('-m, --metadata-snap', 'read the metadata snapshot: also while a server or the kernel has the pool')
    .option('--verbose', 'print the data blocks, too')
    .option('--no-same', 'leave out what is the same: then it costs no more than what differs')
    .option('-q, --quiet', 'show no progress')
    .addHelpText(
      'after',
      `
Examples:
  thinlun delta /srv/pool --thin1 1 --thin2 2
  thinlun delta /srv/pool --snap1 1 --snap2 2 --verbose --no-same`,
    )
    .action(
      toolAction(context, async (path: string, flags: DeltaFlags) => (await import('./delta.ts')).delta(path, flags)),
    );
}

function numberOption(flags: string, description: string): Option {
  return new Option(flags, description).argParser(numberArgument);
}
