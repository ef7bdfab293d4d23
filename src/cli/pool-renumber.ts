import type { Command } from 'commander';
import { openAlone } from '../daemon/pool-access.ts';
import type { RunContext } from './run-context.ts';
import { COMMAND_ACCESS } from './with-pool.ts';

/** `thinlun pool renumber`, below the command `pool`. */
export function addPoolRenumberCommand(pool: Command, { output }: RunContext): void {
  pool
    .command('renumber')
    .description("give back the times that a pool's snapshots have used up")
    .argument('<dir>', "the pool's folder")
    .addHelpText(
      'after',
      `
The format counts 16,777,215 snapshots; then no more can be taken. This sets all times back and the count to 1. No volume changes.
It is done while no server has the pool, and takes about a second for each million mapped blocks.

Examples:
  thinlun pool renumber /srv/pool`,
    )
    .action(async (dir: string) => {
      const open = await openAlone(dir, COMMAND_ACCESS);
      try {
        await open.renumberTimes();
        output.line(`The pool "${open.name}" counts its snapshots from 1 again.`);
      } finally {
        await open.close();
      }
    });
}
