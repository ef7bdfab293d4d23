import type { Command } from 'commander';
import { formatSize } from '../base/units.ts';
import { nameArgument } from './arguments.ts';
import { type RunContext, UsageError } from './run-context.ts';
import { withPool } from './with-pool.ts';

/** `thinlun volume snapshot`, `rename` and `rollback`, below the command `volume`. */
export function addSnapshotCommands(volume: Command, { output }: RunContext): void {
  volume
    .command('snapshot')
    .description('take snapshots of volumes or snapshots, all at one moment; online, and served at once')
    .argument('<dir>', "the pool's folder")
    .argument('<origin name...>', 'a volume and the name of its snapshot; more such pairs for more at the same moment')
    .option('--read-only', 'a snapshot that stays as it is; initiators see a write-protected disk')
    .option('--json', 'print the snapshots as JSON')
    .addHelpText(
      'after',
      `
What an initiator had flushed or seen answered is in; what it holds in its own caches is not: freeze the file system (fsfreeze) for
more than what a power failure would leave. A snapshot takes no space until it or its origin is written.

Examples:
  thinlun volume snapshot /srv/pool web web-monday
  thinlun volume snapshot /srv/pool db-data db-data.1 db-log db-log.1 --read-only`,
    )
    .action(async (dir: string, words: string[], flags: SnapshotFlags) => {
      const snapshots = pairs(words);
      const request = { snapshots, readOnly: flags.readOnly };
      const made = await withPool(dir, (pool) => pool.createSnapshots(request));
      if (flags.json) {
        output.json(made);
        return;
      }
      for (const { name, origin, lun } of made) {
        output.line(`Took the snapshot "${name}" of "${origin}": LUN ${lun}${flags.readOnly ? ', read-only' : ''}.`);
      }
    });

  volume
    .command('rename')
    .description('give a volume another name; LUN and identity stay')
    .argument('<dir>', "the pool's folder")
    .argument('<name>', "the volume's name")
    .argument('<new name>', 'its new one', nameArgument)
    .option('--json', 'print the volume as JSON')
    .addHelpText(
      'after',
      `
Examples:
  thinlun volume rename /srv/pool web web-old`,
    )
    .action(async (dir: string, name: string, newName: string, flags: { json?: boolean }) => {
      const renamed = await withPool(dir, (pool) => pool.renameVolume(name, { name: newName }));
      if (flags.json) output.json(renamed);
      else output.line(`The volume "${name}" is named "${renamed.name}" now.`);
    });

  volume
    .command('rollback')
    .description('give a volume content and size of one of its snapshots; what it held is lost')
    .argument('<dir>', "the pool's folder")
    .argument('<name>', "the volume's name")
    .argument('<snapshot>', 'the snapshot, which stays as it is')
    .option('--force', 'though initiators use the volume, or though the snapshot is none of it')
    .option('--json', 'print the volume as JSON')
    .addHelpText(
      'after',
      `
Name, LUN and identity of the volume stay. To keep what it holds, take a snapshot of it before.

Examples:
  thinlun volume rollback /srv/pool web web-monday`,
    )
    .action(async (dir: string, name: string, snapshot: string, flags: { force?: boolean; json?: boolean }) => {
      const rolled = await withPool(dir, (pool) => pool.rollbackVolume(name, { snapshot, force: flags.force }));
      if (flags.json) output.json(rolled);
      else output.line(`The volume "${name}" is what "${snapshot}" is now: ${formatSize(rolled.sizeBytes)}.`);
    });
}

interface SnapshotFlags {
  readOnly?: boolean;
  json?: boolean;
}

function pairs(words: readonly string[]): { origin: string; name: string }[] {
  if (words.length % 2 !== 0) {
    throw new UsageError('volume snapshot: each volume is followed by the name of its snapshot (see --help)');
  }
  const wanted: { origin: string; name: string }[] = [];
  for (let i = 0; i < words.length; i += 2) wanted.push({ origin: words[i]!, name: nameArgument(words[i + 1]!) });
  return wanted;
}
