import type { Command } from 'commander';
import { addOptionFlags, describeOptions, type OptionFlags, optionsOf } from './pool-option-flags.ts';
import { type RunContext, UsageError } from './run-context.ts';
import { withPool } from './with-pool.ts';

/** `thinlun pool set`, below the command `pool`. */
export function addPoolSetCommand(pool: Command, { output }: RunContext): void {
  addOptionFlags(
    pool.command('set').description('set features of a pool, online too').argument('<dir>', "the pool's folder"),
  )
    .option('--json', 'print the pool as JSON')
    .addHelpText(
      'after',
      `
What is not named stays as it is. In parentheses: what holds unless it is set.

Examples:
  thinlun pool set /srv/pool --error-if-no-space on
  thinlun pool set /srv/pool --low-water 5G --no-space-timeout 0
  thinlun pool set /srv/pool --auto-extend-limit 500G --auto-extend-step 20G`,
    )
    .action(async (dir: string, flags: OptionFlags & { json?: boolean }) => {
      const request = optionsOf(flags);
      if (Object.keys(request).length === 0) throw new UsageError('pool set: say what to set, as in --read-only on');
      const status = await withPool(dir, (open) => open.setOptions(request));
      if (flags.json) output.json(status);
      else output.line(`The pool "${status.name}" has: ${describeOptions(status) || 'the default features'}.`);
    });
}
