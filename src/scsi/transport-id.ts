import { readU16BE, writeU16BE } from '../base/bytes.ts';
import { foldName } from '../base/names.ts';

/**
 * TransportIDs of iSCSI initiator ports (SPC-4 7.6.4.6).
 *
 *     0  TPID FORMAT(2) 00b PROTOCOL IDENTIFIER(4, 5h)  1 reserved  2 ADDITIONAL LENGTH(2)
 *     4  00b: iSCSI name, NUL | 01b: iSCSI name `,i,0x` ISID, NUL; filled with NULs to a multiple of four, at least 20
 */

const PROTOCOL_ISCSI = 0x05;
const FORMAT_NAME = 0x00;
const FORMAT_PORT = 0x40;
const HEADER = 4;
const MIN_TEXT = 20;
/** Bytes of an iSCSI name of 223, `,i,0x`, 12 digits and a NUL. */
const MAX_TEXT = 244;
const PORT = /^(.+),i,0x([0-9a-f]{1,12})$/s;

/** Bytes of the longest TransportID that is written. */
export const MAX_TRANSPORT_ID: number = HEADER + MAX_TEXT;

export interface TransportId {
  /** The initiator port as `Nexus` names it, or with `wildcard` the name that all its ports begin with. */
  readonly name: string;
  /** TPID FORMAT 00b: every port of that name. */
  readonly wildcard: boolean;
  /** Where the next one begins. */
  readonly end: number;
}

/** Reads the TransportID at `at`, all of it before `end`; otherwise the byte of the field that is wrong. */
export function readTransportId(bytes: Uint8Array, at: number, end: number): TransportId | number {
  if (end - at < HEADER + MIN_TEXT) return at;
  const format = bytes[at]! & 0xc0;
  if ((bytes[at]! & 0x0f) !== PROTOCOL_ISCSI) return at;
  if (format !== FORMAT_NAME && format !== FORMAT_PORT) return at;
  const length = readU16BE(bytes, at + 2);
  const textAt = at + HEADER;
  if (length < MIN_TEXT || length % 4 !== 0 || length > end - textAt) return at + 2;
  const text = bytes.subarray(textAt, textAt + length);
  const nul = text.indexOf(0);
  if (nul <= 0 || nul >= MAX_TEXT || text.subarray(nul).some((byte) => byte !== 0)) return textAt;
  let name: string;
  try {
    name = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(text.subarray(0, nul));
  } catch {
    return textAt;
  }
  name = foldName(name);
  // One character may become several, and it is written as it is compared.
  if (Buffer.byteLength(name) >= MAX_TEXT) return textAt;
  if (format === FORMAT_NAME) return { name, wildcard: true, end: textAt + length };
  const port = PORT.exec(name);
  if (port === null) return textAt;
  return { name: `${port[1]},i,0x${port[2]!.padStart(12, '0')}`, wildcard: false, end: textAt + length };
}

/** Writes the TransportID of an initiator port at `at` of `out`, which has room for the longest; returns its end. */
export function writeTransportId(initiatorPort: string, out: Uint8Array, at: number): number {
  const text = Buffer.from(initiatorPort, 'utf8').subarray(0, MAX_TEXT - 1);
  const length = Math.max(MIN_TEXT, Math.ceil((text.length + 1) / 4) * 4);
  out.fill(0, at, at + HEADER + length);
  out[at] = FORMAT_PORT | PROTOCOL_ISCSI;
  writeU16BE(out, at + 2, length);
  out.set(text, at + HEADER);
  return at + HEADER + length;
}

/** Whether an initiator port belongs to the initiator of that name. */
export function isPortOf(initiatorPort: string, initiatorName: string): boolean {
  return initiatorPort.startsWith(`${initiatorName},i,0x`);
}
