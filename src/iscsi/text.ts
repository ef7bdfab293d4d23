/**
 * Text of login and text PDUs (RFC 7143 6.1): pairs `key=value`, each followed by a null byte, one text continued over several PDUs with the
 * C bit.
 */

import { MAX_KEY_NAME_SIZE } from './spec.ts';

/** Reserved values (RFC 7143 6.2). */
export const NOT_UNDERSTOOD = 'NotUnderstood';
export const IRRELEVANT = 'Irrelevant';
export const REJECT = 'Reject';
export const NONE = 'None';

export interface TextPair {
  readonly key: string;
  readonly value: string;
}

/** Values other than these have a bound of their own in the RFC, which also covers them (RFC 7143 6.1). */
const MAX_VALUE_SIZE = 255;
const LONG_VALUES: ReadonlySet<string> = new Set(['SendTargets', 'TargetAddress']);
/** Binary and list values: 8,192 characters and "exceptions". */
const MAX_LONG_VALUE_SIZE = 8192;
const MAX_PAIRS = 128;

const KEY_NAME = /^[A-Za-z][A-Za-z0-9.\-+@_]*$/;
const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** The pairs of a whole text, or a string that says what is wrong with it. */
export function parseText(bytes: Uint8Array): TextPair[] | string {
  if (bytes.length === 0) return [];
  if (bytes[bytes.length - 1] !== 0) return 'the last pair has no null byte after it';
  let text: string;
  try {
    text = decoder.decode(bytes);
  } catch {
    return 'not UTF-8';
  }
  const pairs: TextPair[] = [];
  for (const part of text.split('\0')) {
    // What lies between two null bytes is empty where an initiator counts its padding as text.
    if (part === '') continue;
    if (pairs.length === MAX_PAIRS) return 'too many pairs';
    const equals = part.indexOf('=');
    if (equals < 0) return 'a pair without "="';
    if (equals > MAX_KEY_NAME_SIZE) return 'a key of more than 63 characters';
    const key = part.slice(0, equals);
    if (!KEY_NAME.test(key)) return 'a key with characters that a key cannot have';
    const value = part.slice(equals + 1);
    const longest = LONG_VALUES.has(key) || key.startsWith('CHAP_') ? MAX_LONG_VALUE_SIZE : MAX_VALUE_SIZE;
    if (value.length > longest && !isList(value)) return 'a value that is too long';
    if (value.length > MAX_LONG_VALUE_SIZE) return 'a value that is too long';
    pairs.push({ key, value });
  }
  return pairs;
}

function isList(value: string): boolean {
  return value.includes(',');
}

/** The bytes of pairs, each with its null byte. */
export function formatText(pairs: readonly TextPair[]): Uint8Array {
  return Buffer.from(pairs.map((pair) => `${pair.key}=${pair.value}\0`).join(''), 'utf8');
}

/** A decimal or hexadecimal constant (RFC 7143 6.1), at most 2^53; -1 when it is not one. */
export function parseNumber(value: string): number {
  if (!/^(?:0[xX][0-9a-fA-F]{1,13}|[0-9]{1,15})$/.test(value)) return -1;
  return Number(value);
}

/** Collects a text that comes in several PDUs, up to a bound. */
export class TextCollector {
  private readonly maxBytes: number;
  private parts: Uint8Array[] = [];
  private lengthBytes = 0;

  constructor(maxBytes: number) {
    this.maxBytes = maxBytes;
  }

  get isEmpty(): boolean {
    return this.lengthBytes === 0;
  }

  /** Keeps `bytes`, which it then owns. False: the text would be longer than the bound, and nothing is kept. */
  add(bytes: Uint8Array): boolean {
    if (this.lengthBytes + bytes.length > this.maxBytes) return false;
    if (bytes.length > 0) this.parts.push(bytes);
    this.lengthBytes += bytes.length;
    return true;
  }

  /** The whole text; the collector is empty afterwards. */
  take(): Uint8Array {
    const whole = this.parts.length === 1 ? this.parts[0]! : Buffer.concat(this.parts);
    this.parts = [];
    this.lengthBytes = 0;
    return whole;
  }
}
