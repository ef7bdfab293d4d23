import { StorageError } from '../base/errors.ts';

/** Data blocks `[begin, end)`. */
export interface Region {
  begin: number;
  end: number;
}

/** A region as thin_rmap is given one: `BEGIN..END`, half-open. Throws EINVAL. */
export function parseRegion(text: string): Region {
  const match = /^(\d+)\.\.(\d+)$/.exec(text);
  if (!match) throw new StorageError('EINVAL', `Cannot read the region "${text}": expected BEGIN..END, as in 0..1024`);
  // As many bits as the number has in the metadata.
  if (BigInt(match[2]!) >= 2n ** 64n)
    throw new StorageError('EINVAL', `Cannot read the region "${text}": it ends past 2^64`);
  const begin = Number(match[1]);
  // More than any device has, in a script that means "to the end".
  const end = Math.min(Number(match[2]), Number.MAX_SAFE_INTEGER);
  if (begin >= end)
    throw new StorageError('EINVAL', `Cannot read the region "${text}": its end is not behind its beginning`);
  return { begin, end };
}
