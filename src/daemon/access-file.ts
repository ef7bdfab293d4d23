import { closeSync, constants, fstatSync, openSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import * as v from 'valibot';
import { errnoOf, messageOf, StorageError, wrapError } from '../base/errors.ts';
import { describeIssues, type Schema, safeParse, strictObject } from '../base/schema.ts';
import { MIB } from '../base/units.ts';
import { replaceFile } from '../thin/replace-file.ts';
import { type AccessEntry, AccessList } from './access-list.ts';
import { AdvisedError } from './advised-error.ts';

/** What `access.json` says. */
export interface AccessSettings {
  /** The list does not count: whoever reaches a portal may have every volume. */
  readonly open: boolean;
  readonly list: AccessList;
}

/** Of a pool without the file. */
export const OPEN_TO_ALL: AccessSettings = { open: true, list: new AccessList([]) };

const FILE = 'access.json';
const MAX_FILE_SIZE = 4 * MIB;
/** Rights of anybody but the owner. */
const OTHERS = 0o077;

const chapSchema = strictObject({
  user: v.string(),
  secret: v.string(),
  mutual: v.optional(strictObject({ user: v.string(), secret: v.string() })),
});

const fileSchema: Schema<{ format: 1; open?: boolean | undefined; entries: AccessEntry[] }> = strictObject({
  format: v.literal(1),
  open: v.optional(v.boolean()),
  entries: v.array(
    strictObject({
      initiator: v.string(),
      denied: v.optional(v.literal(true)),
      volumes: v.optional(v.array(v.string())),
      readOnly: v.optional(v.literal(true)),
      chap: v.optional(chapSchema),
    }),
  ),
});

/**
 * Who may have the volumes of the pool in `dir`. Throws, instead of letting anybody in: EPERM for a file that others than its owner may read or write,
 * or that is another user's, EINVAL for one that does not say what it should.
 */
export function readAccessFile(dir: string): AccessSettings {
  const path = join(dir, FILE);
  const text = readPrivately(dir, path);
  if (text === null) return OPEN_TO_ALL;
  try {
    return parse(text);
  } catch (error) {
    const hint = `Put it right, or move it away and allow the initiators again with "thinlun access allow ${dir} INITIATOR".`;
    throw new AdvisedError('EINVAL', `Cannot use "${path}": ${messageOf(error)}`, hint);
  }
}

/** Replaces the file, durably, and in one step. */
export function writeAccessFile(dir: string, { open, list }: AccessSettings): void {
  const path = join(dir, FILE);
  const file = { format: 1, ...(open ? { open } : {}), entries: list.entries };
  try {
    replaceFile(path, `${JSON.stringify(file, null, 2)}\n`);
  } catch (error) {
    throw wrapError(`Cannot write "${path}"`, error);
  }
}

/** Null when there is no file. */
function readPrivately(dir: string, path: string): string | null {
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return null;
    if (code === 'ELOOP') throw new StorageError('EINVAL', `Cannot use "${path}": it is a symbolic link`);
    throw wrapError(`Cannot read "${path}"`, error);
  }
  try {
    const { mode, uid, size } = fstatSync(fd);
    const isFile = (mode & constants.S_IFMT) === constants.S_IFREG;
    if (!isFile || size > MAX_FILE_SIZE) {
      throw new StorageError('EINVAL', `Cannot use "${path}": it is ${isFile ? 'too large' : 'no file'}`);
    }
    if ((mode & OTHERS) !== 0) {
      throw new AdvisedError(
        'EPERM',
        `Cannot use "${path}": others than its owner may read or write it (mode ${(mode & 0o777).toString(8)})`,
        `Take that back with "chmod 600 ${path}", and give the users new secrets if others may have seen them.`,
      );
    }
    if (uid !== 0 && uid !== process.geteuid?.() && uid !== statSync(dir).uid) {
      throw new AdvisedError(
        'EPERM',
        `Cannot use "${path}": it belongs to user ${uid}`,
        'Make it your own with chown.',
      );
    }
    return readFileSync(fd, 'utf8');
  } catch (error) {
    throw error instanceof StorageError
      ? error
      : new StorageError(errnoOf(error), `Cannot read "${path}": ${messageOf(error)}`);
  } finally {
    closeSync(fd);
  }
}

function parse(text: string): AccessSettings {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    // What the parser says shows a piece of the text, and that may be a secret.
    throw new StorageError('EINVAL', 'it is no JSON');
  }
  const parsed = safeParse(fileSchema, json);
  if (!parsed.success) throw new StorageError('EINVAL', describeIssues(parsed.issues, 'the document'));
  const { open = false, entries } = parsed.output;
  return { open, list: new AccessList(entries) };
}
