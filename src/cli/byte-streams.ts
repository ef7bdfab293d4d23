import { createReadStream, createWriteStream, fstatSync, lstatSync, rmSync } from 'node:fs';
import { Socket } from 'node:net';
import type { Readable, Writable } from 'node:stream';
import { StorageError, wrapError } from '../base/errors.ts';
import { MIB } from '../base/units.ts';
import { UsageError } from './run-context.ts';

const STANDARD_INPUT = 0;
const STANDARD_OUTPUT = 1;

/** Where a command writes bytes to: a file, or standard output. */
export class ByteOutput {
  readonly #path: string | null;
  readonly #stream: Writable;
  #error: Error | null = null;

  /** A path makes or empties that file; null is standard output, which must not be a terminal: `UsageError`. */
  constructor(path: string | null, what: string) {
    this.#path = path;
    if (path === null && process.stdout.isTTY) {
      throw new UsageError(`${what} is nothing for a terminal: write it to a file with -o, or to another program`);
    }
    this.#stream = path === null ? standardOutput() : createWriteStream(path, { mode: 0o600 });
    this.#stream.on('error', (error) => {
      this.#error = error;
    });
  }

  /** Waits until the reader has caught up. Throws `StorageError`, EIO also when the reader has gone away. */
  async write(bytes: Uint8Array): Promise<void> {
    this.#check();
    if (this.#stream.write(bytes)) return;
    await new Promise<void>((resolve) => {
      const events = ['drain', 'error', 'close'];
      const done = (): void => {
        for (const event of events) this.#stream.off(event, done);
        resolve();
      };
      for (const event of events) this.#stream.on(event, done);
    });
    this.#check();
  }

  /** Everything is written. */
  async end(): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#stream.once('error', () => resolve());
      this.#stream.end(() => resolve());
    });
    this.#check();
  }

  /** What was written so far is of no use: a file is removed, and nothing else that has a path. */
  abandon(): void {
    this.#stream.destroy();
    if (this.#path !== null && lstatSync(this.#path, { throwIfNoEntry: false })?.isFile()) rmSync(this.#path);
  }

  #check(): void {
    const error = this.#error as NodeJS.ErrnoException | null;
    if (error === null) return;
    if (error.code === 'EPIPE') throw new StorageError('EIO', 'Cannot write the output: its reader has gone away');
    throw wrapError(`Cannot write ${this.#path === null ? 'the output' : `"${this.#path}"`}`, error);
  }
}

/** Not `process.stdout`: that stops the whole process while a pipe is full. */
function standardOutput(): Writable {
  const stats = fstatSync(STANDARD_OUTPUT);
  if (stats.isFIFO() || stats.isSocket()) return new Socket({ fd: STANDARD_OUTPUT, readable: false });
  return createWriteStream('', { fd: STANDARD_OUTPUT, autoClose: false });
}

/** Bytes from a file, or from standard input, which must not be a terminal: `UsageError`. Reading throws `StorageError`. */
export async function* byteInput(path: string | null, what: string): AsyncIterable<Uint8Array> {
  if (path === null && process.stdin.isTTY) {
    throw new UsageError(`${what} is expected on standard input or in a file (-i), and not from a terminal`);
  }
  const stream: Readable = path === null ? standardInput() : createReadStream(path, { highWaterMark: MIB });
  try {
    yield* stream as AsyncIterable<Uint8Array>;
  } catch (error) {
    throw wrapError(`Cannot read ${path === null ? 'standard input' : `"${path}"`}`, error);
  }
}

function standardInput(): Readable {
  const stats = fstatSync(STANDARD_INPUT);
  return stats.isFile() ? createReadStream('', { fd: STANDARD_INPUT, highWaterMark: MIB }) : process.stdin;
}
