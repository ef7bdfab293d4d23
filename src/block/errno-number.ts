import { constants } from 'node:os';
import { ERRNOS, type Errno } from '../base/errors.ts';

/** Linux's, where Node's table has none. */
const ALSO: Readonly<Partial<Record<Errno, number>>> = { ENOTBLK: 15, ESHUTDOWN: 108 };

const BY_NUMBER: ReadonlyMap<number, Errno> = new Map(
  ERRNOS.flatMap((name) => {
    const number = (constants.errno as Readonly<Record<string, number>>)[name] ?? ALSO[name];
    return number === undefined ? [] : [[number, name]];
  }),
);

/** The name of an errno as the kernel returns it, negative or positive; EIO for what has no name here. */
export function errnoFromNumber(number: number): Errno {
  return BY_NUMBER.get(Math.abs(number)) ?? 'EIO';
}
