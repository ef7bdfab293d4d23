import { InvalidArgumentError } from 'commander';
import { messageOf } from '../base/errors.ts';
import { isValidName } from '../base/names.ts';
import { KIB, parseSize } from '../base/units.ts';
import { LOG_LEVELS, type LogLevel } from '../daemon/log-level.ts';
import { formatPortal, parseServedPortal, type ServedPortal } from '../daemon/portal-address.ts';

/** More than any machine has networks to initiators. */
const MAX_PORTALS = 64;

/** Values as people type them. Each throws what the command line's parser turns into one line and exit status 2. */

function parsed<T>(parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    throw new InvalidArgumentError(messageOf(error));
  }
}

export function sizeArgument(text: string): number {
  const bytes = parsed(() => parseSize(text));
  if (bytes === 0) throw new InvalidArgumentError('A size is more than nothing');
  return bytes;
}

export function logicalBlockSizeArgument(text: string): 512 | 4096 {
  const bytes = text.toLowerCase() === '4k' ? 4 * KIB : Number(text);
  if (bytes !== 512 && bytes !== 4096) throw new InvalidArgumentError('A logical block has 512 or 4096 bytes');
  return bytes;
}

export function physicalBlockSizeArgument(text: string): number {
  const bytes = sizeArgument(text);
  if (!Number.isInteger(Math.log2(bytes)))
    throw new InvalidArgumentError('A physical block has a power of two of bytes');
  return bytes;
}

export function onOffArgument(text: string): boolean {
  const value = { on: true, off: false }[text.toLowerCase()];
  if (value === undefined) throw new InvalidArgumentError('It is on or off');
  return value;
}

export function nameArgument(text: string): string {
  if (!isValidName(text)) {
    throw new InvalidArgumentError(
      'A name has letters, digits, ".", "_" and "-", begins with a letter or digit, and is at most 128 long',
    );
  }
  return text;
}

/** One more portal; `earlier` are those of the options before it, `false` after --no-portal. */
export function portalArgument(text: string, earlier: readonly ServedPortal[] | false | undefined): ServedPortal[] {
  const portal = parsed(() => parseServedPortal(text));
  const before = earlier || [];
  const isTwice = portal.port !== 0 && before.some(({ host, port }) => host === portal.host && port === portal.port);
  if (isTwice) throw new InvalidArgumentError(`${formatPortal(portal)} is given twice`);
  const portals = [...before, portal];
  if (portals.length > MAX_PORTALS) throw new InvalidArgumentError(`There can be ${MAX_PORTALS} portals`);
  return portals;
}

export function logLevelArgument(text: string): LogLevel {
  const level = LOG_LEVELS.find((known) => known === text);
  if (level === undefined) throw new InvalidArgumentError(`Choose from ${LOG_LEVELS.join(', ')}`);
  return level;
}
