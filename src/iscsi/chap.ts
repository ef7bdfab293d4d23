/** The Challenge Handshake Authentication Protocol (RFC 1994) as iSCSI has it (RFC 7143 12.1.3). */
import { createHash, getHashes, timingSafeEqual } from 'node:crypto';
import { parseNumber } from './text.ts';

/** What a response is made with. */
export interface ChapAlgorithm {
  /** Value of CHAP_A. */
  readonly number: number;
  readonly name: string;
  /** Bytes of a response. */
  readonly responseSize: number;
  readonly hash: string;
}

const available = new Set(getHashes());

/** IANA's registry of PPP authentication algorithms; what this machine's policy (FIPS) does not have is left out. */
export const CHAP_ALGORITHMS: readonly ChapAlgorithm[] = [
  { number: 8, name: 'SHA3-256', responseSize: 32, hash: 'sha3-256' },
  { number: 7, name: 'SHA-256', responseSize: 32, hash: 'sha256' },
  { number: 6, name: 'SHA1', responseSize: 20, hash: 'sha1' },
  { number: 5, name: 'MD5', responseSize: 16, hash: 'md5' },
].filter(({ hash }) => available.has(hash));

/** Bytes of a challenge that an initiator may send (RFC 7143 12.1.3). */
export const MAX_CHALLENGE_SIZE = 1024;
/** Bytes of the challenges that we send. */
export const CHALLENGE_SIZE = 32;
/** Entries of CHAP_A that are looked at. */
const MAX_OFFERED = 32;

/**
 * The algorithm to use of the value of CHAP_A, or null when there is none: the first that we have, as the initiator lists them in the order of its
 * preference (libiscsi computes with its first one whatever is chosen).
 */
export function chooseAlgorithm(offered: string): ChapAlgorithm | null {
  for (const text of offered.split(',', MAX_OFFERED)) {
    const number = parseNumber(text);
    const found = CHAP_ALGORITHMS.find((algorithm) => algorithm.number === number);
    if (found !== undefined) return found;
  }
  return null;
}

/** The response to a challenge (RFC 1994 4.1). */
export function chapResponse(
  { hash }: ChapAlgorithm,
  identifier: number,
  secret: Uint8Array,
  challenge: Uint8Array,
): Uint8Array {
  return createHash(hash)
    .update(Uint8Array.of(identifier & 0xff))
    .update(secret)
    .update(challenge)
    .digest();
}

/** Compares in a time that does not depend on the contents. */
export function equalInConstantTime(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && timingSafeEqual(a, b);
}

/**
 * The bytes of a binary value (RFC 7143 6.1): `0x` and hexadecimal digits, or `0b` and base64. Null when it is neither, or not of `minSize` to
 * `maxSize` bytes; the length is checked before anything is decoded.
 */
export function decodeBinary(text: string, minSize: number, maxSize: number): Uint8Array | null {
  const prefix = text.slice(0, 2).toLowerCase();
  const digits = text.slice(2);
  let bytes: Uint8Array;
  if (prefix === '0x') {
    if (digits.length % 2 !== 0 || digits.length > 2 * maxSize || !/^[0-9a-fA-F]*$/.test(digits)) return null;
    bytes = Buffer.from(digits, 'hex');
  } else if (prefix === '0b') {
    if (digits.length % 4 !== 0 || digits.length > 4 * Math.ceil(maxSize / 3)) return null;
    if (!/^[0-9a-zA-Z+/]*={0,2}$/.test(digits)) return null;
    bytes = Buffer.from(digits, 'base64');
    // Bits that no byte needs are zero: each value has one spelling.
    if (Buffer.from(bytes).toString('base64') !== digits) return null;
  } else return null;
  return bytes.length >= minSize && bytes.length <= maxSize ? bytes : null;
}

export function encodeBinary(bytes: Uint8Array): string {
  return `0x${Buffer.from(bytes).toString('hex')}`;
}
