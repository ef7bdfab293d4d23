import type { Command } from 'commander';
import { StorageError } from '../base/errors.ts';
import { MESSAGE_FORMS } from '../thin/thin-message.ts';
import type { RunContext } from './run-context.ts';
import { withPool } from './with-pool.ts';

export function addMessageCommand(program: Command, { output }: RunContext): void {
  program
    .command('message')
    .description("send one of dm-thin's messages to a pool, as dmsetup message does")
    .argument('<dir>', "the pool's folder")
    .argument('<message...>', 'the message, in one word or several')
    .option('--json', 'print the transaction id as JSON; otherwise success prints nothing')
    .addHelpText(
      'after',
      `
Messages:
${MESSAGE_FORMS.map((form) => `  ${form}`).join('\n')}

Devices have numbers here; each has a volume, with a name and a LUN (thinlun volume list). A device that is made without a size gets
that of the pool's data. Only set_transaction_id changes the transaction id.

Examples:
  thinlun message /srv/pool 'create_thin 7'
  thinlun message /srv/pool 'create_snap 8 7'
  thinlun message /srv/pool reserve_metadata_snap`,
    )
    .action(async (dir: string, words: string[], flags: { json?: boolean }) => {
      const message = words.join(' ');
      const transactionId = await withPool(dir, (pool) => pool.message({ message })).catch((error: unknown) => {
        if (!(error instanceof StorageError)) throw error;
        throw new StorageError(error.code, `Message "${message}" failed with ${error.code}: ${error.message}`);
      });
      if (flags.json) output.json({ transactionId });
    });
}
