import { StorageError } from './errors.ts';
import { native } from './native.ts';

/** Passes a descriptor on and returns its number for who gets it. It is the callee's from here on. */
export type GiveFd = (fd: number) => number;
/** The descriptor behind a number that `GiveFd` has returned; the caller's from here on. */
export type TakeFd = (index: number) => number;

/**
 * A descriptor of what a socket or a server of Node has open; it is the caller's, and stays when the object is destroyed. Throws EOPNOTSUPP without the
 * addon, EBADF when it is closed.
 */
export function shareHandle(object: object): number {
  if (native === null) throw new StorageError('EOPNOTSUPP', 'Cannot share a socket: no native addon');
  const fd = (object as { _handle?: { fd?: unknown } | null })._handle?.fd;
  if (typeof fd !== 'number' || fd < 0) throw new StorageError('EBADF', 'Cannot share a socket: it is closed');
  return native.duplicateFd(fd);
}
