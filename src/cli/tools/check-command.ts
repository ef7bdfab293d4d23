import { type Command, Option } from 'commander';
import type { RunContext } from '../run-context.ts';
import { addQuietOption, addTool, numberArgument, toolAction } from './tool-command.ts';

export interface CheckFlags {
  quiet?: boolean;
  metadataSnap?: boolean;
  superBlockOnly?: boolean;
  skipMappings?: boolean;
  ignoreNonFatalErrors?: boolean;
  clearNeedsCheckFlag?: boolean;
  autoRepair?: boolean;
  overrideMappingRoot?: number;
  overrideDetailsRoot?: number;
  json?: boolean;
}

export function addCheckCommand(program: Command, context: RunContext): void {
  const repairs = ['autoRepair', 'clearNeedsCheckFlag'];
  const command = addTool(program, 'check')
    .description('verify metadata by every rule of its format; exit status 64 when something is wrong with it')
    .argument('<path>', "a pool's folder, or metadata: a file or block device");
  addQuietOption(command, context)
    .addOption(
      new Option('-m, --metadata-snap', 'only the metadata snapshot, of a pool that may be in use').conflicts(repairs),
    )
    .option('--super-block-only', 'only the superblock')
    .option('--skip-mappings', 'neither mappings nor reference counts')
    .option('--ignore-non-fatal-errors', 'exit status 0 when there are leaks and no other errors')
    .option(
      '--clear-needs-check-flag',
      'when there are no errors: set leaked counts right, and let the pool be written again',
    )
    .addOption(
      new Option('--auto-repair', 'the same').conflicts([
        'ignoreNonFatalErrors',
        'skipMappings',
        'superBlockOnly',
        'overrideMappingRoot',
        'overrideDetailsRoot',
      ]),
    )
    .addOption(rootOption('mapping', repairs))
    .addOption(rootOption('details', repairs))
    .addOption(new Option('--json', 'print as JSON').conflicts('quiet'))
    .addHelpText(
      'after',
      `
Changes nothing without --auto-repair or --clear-needs-check-flag. Works while a server has the pool open: it is checked as of its
last commit, and again when it has changed meanwhile.

Examples:
  thinlun check /srv/pool
  thinlun check --auto-repair /srv/pool
  thinlun check -m /dev/vg0/metadata
  thinlun check --json /srv/pool | jq .damages`,
    )
    .action(
      toolAction(context, async (path: string, flags: CheckFlags) =>
        (await import('./check.ts')).check(context, path, flags),
      ),
    );
}

function rootOption(tree: string, conflicts: string[]): Option {
  const option = new Option(`--override-${tree}-root <block>`, `walk the ${tree} tree from this block`);
  return option.argParser(numberArgument).conflicts(conflicts);
}
