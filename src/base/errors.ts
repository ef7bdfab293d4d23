/**
 * The kernel's errno names that a failure of the world can have here. The set is closed: a table over it
 * (see scsi/sense.ts) does not compile until a new name has its row.
 */
export const ERRNOS = [
  'EACCES',
  'EAGAIN',
  'EBADF',
  'EBUSY',
  'EDEADLK',
  'EEXIST',
  'EFAULT',
  'EFBIG',
  'EILSEQ',
  'EINVAL',
  'EIO',
  'EMFILE',
  'ENODATA',
  'ENODEV',
  'ENOENT',
  'ENOMEM',
  'ENOSPC',
  'ENOTBLK',
  'ENOTDIR',
  'ENXIO',
  'EOPNOTSUPP',
  'EPERM',
  'ERANGE',
  'EROFS',
  'ESHUTDOWN',
] as const;

export type Errno = (typeof ERRNOS)[number];

const KNOWN: ReadonlySet<string> = new Set(ERRNOS);

/** A failure of the world: a device, a file, a wrong request, a full pool. `code` is for programs, `message` for people. */
export class StorageError extends Error {
  override readonly name = 'StorageError';
  readonly code: Errno;

  constructor(code: Errno, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** The errno of anything thrown: its `code` where that is one of ours, else EIO. */
export function errnoOf(error: unknown): Errno {
  const code = (error as { code?: unknown } | null)?.code;
  return typeof code === 'string' && KNOWN.has(code) ? (code as Errno) : 'EIO';
}

/** The message of anything thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Rethrows a failed system call as a `StorageError` that begins with what was being done: `action: reason`. */
export function wrapError(action: string, error: unknown): StorageError {
  return new StorageError(errnoOf(error), `${action}: ${messageOf(error)}`, { cause: error });
}
