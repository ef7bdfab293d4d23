import { closeSync, constants, openSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { wrapError } from '../base/errors.ts';

/** Bytes that fit in `sun_path` with its NUL. libuv does not refuse a longer path: it silently cuts it off. */
const MAX_SOCKET_PATH_SIZE = 107;

/**
 * A name for `DIR/control.sock` that fits in a socket address, however long DIR is: a long one goes through an open
 * descriptor of the folder. Good for `bind`, `connect` and `unlink` until `close()`.
 */
export class ControlSocketName {
  readonly path: string;
  #folder = -1;

  /** Throws `StorageError` when the folder cannot be opened. */
  constructor(dir: string) {
    const path = join(resolve(dir), 'control.sock');
    if (Buffer.byteLength(path) <= MAX_SOCKET_PATH_SIZE) {
      this.path = path;
      return;
    }
    try {
      this.#folder = openSync(dir, constants.O_RDONLY | constants.O_DIRECTORY);
    } catch (error) {
      throw wrapError(`Cannot open pool folder "${dir}"`, error);
    }
    this.path = `/proc/self/fd/${this.#folder}/control.sock`;
  }

  close(): void {
    if (this.#folder >= 0) closeSync(this.#folder);
    this.#folder = -1;
  }
}
