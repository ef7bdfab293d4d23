import { existsSync } from 'node:fs';
import { StorageError } from '../base/errors.ts';
import { formatSize } from '../base/units.ts';
import { until } from '../base/until.ts';
import type { PoolControl } from '../daemon/pool-control.ts';
import { StreamScanner } from '../thin/stream-scanner.ts';
import { ByteOutput, byteInput } from './byte-streams.ts';
import { interruptible } from './interruption.ts';
import { createProgress, type Progress } from './progress.ts';
import { type RunContext, UsageError } from './run-context.ts';
import type { ReceiveFlags, SendFlags } from './transfer-commands.ts';
import { withPool } from './with-pool.ts';

/** `thinlun send`. */
export function send(context: RunContext, dir: string, volume: string, flags: SendFlags): Promise<void> {
  return interruptible(context, (stopped) => sendUntil(context, dir, volume, flags, stopped));
}

/** `thinlun receive`. */
export function receive(context: RunContext, dir: string, name: string, flags: ReceiveFlags): Promise<void> {
  if (flags.resumeToken) return printToken(context, dir, name, flags);
  return interruptible(context, (stopped) => receiveUntil(context, dir, name, flags, stopped));
}

async function sendUntil(
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

async function receiveUntil(
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
