import { existsSync } from 'node:fs';
import type { Command } from 'commander';
import { StorageError } from '../base/errors.ts';
import { formatSize } from '../base/units.ts';
import { until } from '../base/until.ts';
import type { PoolControl } from '../daemon/pool-control.ts';
import { StreamScanner } from '../thin/stream-scanner.ts';
import { nameArgument } from './arguments.ts';
import { ByteOutput, byteInput } from './byte-streams.ts';
import { interruptible } from './interruption.ts';
import { createProgress, type Progress } from './progress.ts';
import { type RunContext, UsageError } from './run-context.ts';
import { withPool } from './with-pool.ts';

interface SendFlags {
  from?: string;
  keep?: string;
  resume?: string;
  output?: string;
  quiet?: boolean;
}

interface ReceiveFlags {
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
    .action((dir: string, volume: string, flags: SendFlags) =>
      interruptible(context, (stopped) => send(context, dir, volume, flags, stopped)),
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
    .action((dir: string, name: string, flags: ReceiveFlags) => {
      if (flags.resumeToken) return printToken(context, dir, name, flags);
      return interruptible(context, (stopped) => receive(context, dir, name, flags, stopped));
    });
}

async function send(
  context: RunContext,
  dir: string,
  volume: string,
  flags: SendFlags,
  stopped: Promise<never>,
): Promise<void> {
  const { from, keep, resume, quiet } = flags;
  if (keep !== undefined && resume !== undefined) {
    throw new UsageError('--keep cannot be used with --resume: what is resumed is a snapshot that was kept');
  }
  const output = new ByteOutput(flags.output ?? null, 'A stream');
  let written = false;
  try {
    const bytes = await withPool(dir, (pool) =>
      sendTo(output, pool, volume, { from, keep, resume }, { quiet, stopped }),
    );
    await output.end();
    written = true;
    if (flags.output !== undefined && !quiet) context.output.line(`Wrote ${formatSize(bytes)} to ${flags.output}.`);
  } finally {
    if (!written) output.abandon();
  }
}

async function sendTo(
  output: ByteOutput,
  pool: PoolControl,
  volume: string,
  request: Parameters<PoolControl['send']>[1],
  { quiet, stopped }: { quiet: boolean | undefined; stopped: Promise<never> },
): Promise<number> {
  const stream = await pool.send(volume, request);
  const progress = createProgress('Sending', { quiet });
  const scanner = new StreamScanner();
  // A reader that stands still keeps nobody from stopping.
  stopped.catch(() => output.abandon());
  try {
    for await (const chunk of until(stream.chunks, stopped)) {
      await output.write(chunk);
      show(progress, scanner, chunk);
    }
  } finally {
    progress.end();
    await stream.close();
  }
  if (!scanner.ended) throw new StorageError('EIO', `Cannot send the volume "${volume}": the stream ended too early`);
  return scanner.position;
}

async function receive(
  { output }: RunContext,
  dir: string,
  name: string,
  flags: ReceiveFlags,
  stopped: Promise<never>,
): Promise<void> {
  const { input = null, quiet, json } = flags;
  if (input !== null && !existsSync(input))
    throw new StorageError('ENOENT', `Cannot read "${input}": there is no such file`);
  const progress = createProgress('Receiving', { quiet });
  try {
    // The pool is not taken before there is something to receive: what makes the stream may need it for a moment.
    const bytes = await begun(watched(until(byteInput(input, 'A stream'), stopped), progress));
    const volume = await withPool(dir, (pool) => pool.receive(name, bytes));
    progress.end();
    if (json) output.json(volume);
    else if (!quiet) output.line(`Received the volume "${volume.name}": ${formatSize(volume.sizeBytes)}, read-only.`);
  } finally {
    progress.end();
  }
}

/** The same, when its first piece is there. */
async function begun<T>(input: AsyncIterable<T>): Promise<AsyncIterable<T>> {
  const iterator = input[Symbol.asyncIterator]();
  const first = await iterator.next();
  return (async function* () {
    if (first.done) return;
    yield first.value;
    yield* { [Symbol.asyncIterator]: () => iterator };
  })();
}

async function* watched(input: AsyncIterable<Uint8Array>, progress: Progress): AsyncIterable<Uint8Array> {
  const scanner = new StreamScanner();
  for await (const chunk of input) {
    yield chunk;
    show(progress, scanner, chunk);
  }
}

function show(progress: Progress, scanner: StreamScanner, chunk: Uint8Array): void {
  scanner.push(chunk);
  if (scanner.header !== null)
    progress.update(scanner.position, Math.max(scanner.header.expectedBytes, scanner.position));
}

async function printToken({ output }: RunContext, dir: string, name: string, { json }: ReceiveFlags): Promise<void> {
  const answer = await withPool(dir, (pool) => pool.resumeToken(name));
  if (json) output.json(answer);
  else output.line(answer.token);
}
