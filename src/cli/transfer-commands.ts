import type { Command } from 'commander';
import { nameArgument } from './arguments.ts';
import type { RunContext } from './run-context.ts';

export interface SendFlags {
  from?: string;
  keep?: string;
  resume?: string;
  output?: string;
  quiet?: boolean;
}

export interface ReceiveFlags {
  input?: string;
  resumeToken?: boolean;
  quiet?: boolean;
  json?: boolean;
}

export function addTransferCommands(program: Command, context: RunContext): void {
  program
    .command('send')
    .description('write a volume, as it is at one moment, as a stream for "receive"')
    .argument('<dir>', "the pool's folder")
    .argument('<volume>', 'a read-only snapshot; of a volume that can be written a snapshot is taken')
    .option('--from <snapshot>', 'only what differs from this read-only snapshot, which the receiver has')
    .option('--keep <name>', 'keep the snapshot that is taken, under this name, to send from it later', nameArgument)
    .option('--resume <token>', 'go on where "receive --resume-token" says that the stream was cut off')
    .option('-o, --output <file>', 'write to a file instead of standard output')
    .option('-q, --quiet', 'show no progress')
    .addHelpText(
      'after',
      `
Reads only what is mapped, and with --from only what differs. Works while the volume is in use.

Examples:
  thinlun send /srv/pool web --keep web-monday | ssh backup thinlun receive /srv/backup web
  thinlun send /srv/pool web --from web-monday --keep web-tuesday | ssh backup thinlun receive /srv/backup web
  thinlun send /srv/pool web-monday -o web.stream
  thinlun send /srv/pool web-monday --resume thinlun-... | ssh backup thinlun receive /srv/backup web`,
    )
    .action(async (dir: string, volume: string, flags: SendFlags) =>
      (await import('./transfer.ts')).send(context, dir, volume, flags),
    );

  program
    .command('receive')
    .description('make a volume of a stream that "send" wrote, or bring it to a later moment')
    .argument('<dir>', "the pool's folder")
    .argument('<name>', "the volume's name", nameArgument)
    .option('-i, --input <file>', 'read a file instead of standard input')
    .option(
      '--resume-token',
      'print where the stream of a volume that was received in part has to go on, and read nothing',
    )
    .option('-q, --quiet', 'show no progress')
    .option('--json', 'print the volume, or the token, as JSON')
    .addHelpText(
      'after',
      `
The volume is read-only, so that the next increment fits; take a snapshot of it to write. What a stream that is cut off has brought is
kept apart, unseen, until another one goes on with it.

Examples:
  thinlun send /srv/pool web | thinlun receive /srv/backup web
  thinlun receive /srv/backup web -i web.stream
  thinlun receive /srv/backup web --resume-token`,
    )
    .action(async (dir: string, name: string, flags: ReceiveFlags) =>
      (await import('./transfer.ts')).receive(context, dir, name, flags),
    );
}
