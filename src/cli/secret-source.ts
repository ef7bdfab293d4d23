import { closeSync, openSync, readSync } from 'node:fs';
import { StorageError, wrapError } from '../base/errors.ts';
import { checkSecret } from '../daemon/secret.ts';

/** More than any secret has. */
const MAX_FILE_SIZE = 4096;
const STANDARD_INPUT = 0;

/**
 * The secret in a file; `-` is standard input. One line, whose end does not count. On no account on the command line: everybody on the machine can
 * read that. Throws `StorageError`, which does not show the secret.
 */
export function readSecret(path: string, whose: string): string {
  const bytes = Buffer.alloc(MAX_FILE_SIZE + 1);
  let length = 0;
  let fd = STANDARD_INPUT;
  try {
    if (path !== '-') fd = openSync(path, 'r');
    for (let read = -1; read !== 0 && length < bytes.length; length += read) {
      read = readSync(fd, bytes, length, bytes.length - length, null);
    }
  } catch (error) {
    throw wrapError(`Cannot read ${whose} from "${path}"`, error);
  } finally {
    if (fd !== STANDARD_INPUT) closeSync(fd);
  }
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes.subarray(0, length));
  } catch {
    throw new StorageError('EINVAL', `Cannot use ${whose} from "${path}": it is not UTF-8`);
  } finally {
    bytes.fill(0);
  }
  const secret = text.replace(/\r?\n$/, '');
  checkSecret(secret, whose);
  return secret;
}
