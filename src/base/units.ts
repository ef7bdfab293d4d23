import { StorageError } from './errors.ts';

export const SECTOR_SIZE = 512;
export const KIB = 1024;
export const MIB: number = 1024 * KIB;
export const GIB: number = 1024 * MIB;
export const TIB: number = 1024 * GIB;

const SUFFIX_BYTES: Readonly<Record<string, number>> = { '': 1, k: KIB, m: MIB, g: GIB, t: TIB, p: 1024 * TIB };

/**
 * Bytes of a size as people write it: `1G`, `512MiB`, `64k`, `1.5T`, `4096`, `128s` (sectors of 512 bytes).
 * Suffixes are powers of 1024. Throws EINVAL when the text is not a size or not a whole number of bytes below 2^53.
 */
export function parseSize(text: string): number {
  const match = /^\s*(\d+(?:\.\d+)?)\s*(?:([kmgtp]?)(?:i?b)?|(s))\s*$/i.exec(text);
  if (!match)
    throw new StorageError('EINVAL', `Cannot read size "${text}": expected a number with K, M, G or T, as in 10G`);
  const unit = match[3] ? SECTOR_SIZE : SUFFIX_BYTES[(match[2] ?? '').toLowerCase()];
  const bytes = Number(match[1]) * unit!;
  if (!Number.isSafeInteger(bytes))
    throw new StorageError('EINVAL', `Cannot read size "${text}": not a whole number of bytes`);
  return bytes;
}

/** A size for people, exact where a unit divides it: `10 GiB`, `1.5 TiB`, `640 KiB`, `512 B`. */
export function formatSize(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${Number.isInteger(value) ? value : value.toFixed(2)} ${units[unit]}`;
}

/** `value` rounded up to a multiple of `step`; both below 2^53, exact. */
export function roundUp(value: number, step: number): number {
  return Math.ceil(value / step) * step;
}

/** `value` rounded down to a multiple of `step`; both below 2^53, exact. */
export function roundDown(value: number, step: number): number {
  return Math.floor(value / step) * step;
}
