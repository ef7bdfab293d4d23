import { StorageError } from './errors.ts';
import { native } from './native.ts';

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
