/**
 * Fields of wire structures (SCSI and iSCSI are big-endian, netlink and on-disk structures little-endian) in a plain
 * `Uint8Array`. Positions are not checked here: the caller has checked the length of what it decodes.
 */

const TWO_32 = 2 ** 32;

export function readU16BE(bytes: Uint8Array, at: number): number {
  return (bytes[at]! << 8) | bytes[at + 1]!;
}

export function readU24BE(bytes: Uint8Array, at: number): number {
  return (bytes[at]! << 16) | (bytes[at + 1]! << 8) | bytes[at + 2]!;
}

export function readU32BE(bytes: Uint8Array, at: number): number {
  return ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0;
}

/** A u64 as a number. From 2^53 up it is rounded, which keeps it above every size that exists here. */
export function readU64BE(bytes: Uint8Array, at: number): number {
  return readU32BE(bytes, at) * TWO_32 + readU32BE(bytes, at + 4);
}

export function writeU16BE(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 8;
  bytes[at + 1] = value;
}

export function writeU24BE(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 16;
  bytes[at + 1] = value >>> 8;
  bytes[at + 2] = value;
}

export function writeU32BE(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 24;
  bytes[at + 1] = value >>> 16;
  bytes[at + 2] = value >>> 8;
  bytes[at + 3] = value;
}

/** `value` is a whole number below 2^53. */
export function writeU64BE(bytes: Uint8Array, at: number, value: number): void {
  writeU32BE(bytes, at, Math.floor(value / TWO_32));
  writeU32BE(bytes, at + 4, value % TWO_32);
}

export function readU16LE(bytes: Uint8Array, at: number): number {
  return bytes[at]! | (bytes[at + 1]! << 8);
}

export function readU32LE(bytes: Uint8Array, at: number): number {
  return (bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)) >>> 0;
}

/** A u64 as a number. From 2^53 up it is rounded, which keeps it above every size that exists here. */
export function readU64LE(bytes: Uint8Array, at: number): number {
  return readU32LE(bytes, at) + readU32LE(bytes, at + 4) * TWO_32;
}

export function writeU16LE(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value;
  bytes[at + 1] = value >>> 8;
}

export function writeU32LE(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value;
  bytes[at + 1] = value >>> 8;
  bytes[at + 2] = value >>> 16;
  bytes[at + 3] = value >>> 24;
}

/** `value` is a whole number below 2^53. */
export function writeU64LE(bytes: Uint8Array, at: number, value: number): void {
  writeU32LE(bytes, at, value % TWO_32);
  writeU32LE(bytes, at + 4, Math.floor(value / TWO_32));
}

export function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}
