import { closeSync, openSync, writeSync } from 'node:fs';
import { wrapError } from '../base/errors.ts';

const PIECE_LENGTH = 64 * 1024;
const STANDARD_OUTPUT = 1;
const RETRY_MS = 2;

/** Whoever read the output has gone away (`| head`): nobody needs the rest. */
export class OutputClosedError extends Error {
  override readonly name = 'OutputClosedError';
}

/** Text for a file or standard output, written in large pieces and at once, so that memory stays bounded however slow the reader is. */
export class TextOutput {
  readonly #name: string;
  readonly #fd: number;
  #text = '';

  /** A path makes or empties that file; null is standard output. Throws `StorageError`. */
  constructor(path: string | null) {
    this.#name = path ?? 'standard output';
    try {
      this.#fd = path === null ? STANDARD_OUTPUT : openSync(path, 'w', 0o600);
    } catch (error) {
      throw wrapError(`Cannot write "${path}"`, error);
    }
  }

  /** Throws `OutputClosedError`, `StorageError`. */
  readonly write = (text: string): void => {
    this.#text += text;
    if (this.#text.length >= PIECE_LENGTH) this.#flush();
  };

  /** Writes what is left. */
  end(): void {
    this.#flush();
  }

  close(): void {
    if (this.#fd !== STANDARD_OUTPUT) closeSync(this.#fd);
  }

  #flush(): void {
    const bytes = Buffer.from(this.#text);
    this.#text = '';
    for (let done = 0; done < bytes.length; ) done += this.#writeSome(bytes, done);
  }

  #writeSome(bytes: Buffer, offset: number): number {
    try {
      return writeSync(this.#fd, bytes, offset);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === 'EPIPE') throw new OutputClosedError();
      if (code !== 'EAGAIN') throw wrapError(`Cannot write ${this.#name}`, error);
      // A pipe that somebody else has made non-blocking, and its reader is slow.
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, RETRY_MS);
      return 0;
    }
  }
}
