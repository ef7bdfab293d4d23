import { InvalidArgumentError } from 'commander';
import { messageOf } from '../base/errors.ts';
import { KIB, parseSize } from '../base/units.ts';
import { LOG_LEVELS, type LogLevel } from '../daemon/log-level.ts';
import { type PortalAddress, parsePortal } from '../daemon/portal-address.ts';
import { isValidName } from '../thin/catalogue.ts';

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

export function portalArgument(text: string): PortalAddress {
  return parsed(() => parsePortal(text));
}

export function logLevelArgument(text: string): LogLevel {
  const level = LOG_LEVELS.find((known) => known === text);
  if (level === undefined) throw new InvalidArgumentError(`Choose from ${LOG_LEVELS.join(', ')}`);
  return level;
}
