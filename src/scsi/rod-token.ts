import { assert } from '../base/assert.ts';
import { readU16BE, readU32BE, writeU16BE, writeU24BE, writeU32BE, writeU64BE } from '../base/bytes.ts';
import type { UnitState } from './unit-state.ts';

/**
 * ROD tokens (SPC-4 6.4.5.2, SBC-3 for the device type specific data).
 *
 *     0  ROD TYPE(4)    6  ROD TOKEN LENGTH(2) 01F8h    8  COPY MANAGER ROD TOKEN IDENTIFIER(8)
 *     16  CREATOR LOGICAL UNIT DESCRIPTOR(32): E4h, designator as in VPD page 83h
 *     48  NUMBER OF BYTES REPRESENTED(16)
 *     96  LOGICAL BLOCK LENGTH(4) LBPPBE(1 at 101) LBPME, LBPRZ(1 at 102)
 *     128 target device descriptor, then what nobody can guess, up to 512
 */
export const TOKEN_SIZE = 512;
/** Bytes of a token that REPORT ALL ROD TOKENS tells; what is secret comes after them. */
export const MANAGEMENT_TOKEN_SIZE = 96;
export const TOKEN_LENGTH_FIELD = 0x01f8;

export const RodType = {
  /** Point in time copy, change vulnerable: the token ends when what it represents is changed. */
  CHANGE_VULNERABLE: 0x00800001,
  /** Point in time copy of any kind; only to ask with. */
  ANY_POINT_IN_TIME: 0x0080ffff,
  /** The well-known token of zeroes. */
  BLOCK_DEVICE_ZERO: 0xffff0001,
} as const;

/** CSCD descriptor type code of an identification descriptor (SPC-4 6.4.4.2). */
export const CSCD_IDENTIFICATION = 0xe4;

const IDENTIFIER_AT = 8;
const CREATOR_AT = 16;
const DESIGNATOR_AT = CREATOR_AT + 4;
const BYTES_AT = 48;
const DEVICE_DATA_AT = 96;
const TARGET_AT = 128;
const TARGET_SIZE = 128;
const SECRET_AT = TARGET_AT + TARGET_SIZE;

/**
 * Makes the token of `lengthBytes` of `unit` that `targetPort` (of the nexus that asked) belongs to. `identifier` is below 2^53.
 */
export function makeToken(
  unit: UnitState,
  targetPort: string,
  type: number,
  lengthBytes: number,
  identifier: number,
  random: (bytes: Uint8Array) => void,
): Uint8Array {
  const token = new Uint8Array(TOKEN_SIZE);
  writeU32BE(token, 0, type);
  writeU16BE(token, 6, TOKEN_LENGTH_FIELD);
  writeU64BE(token, IDENTIFIER_AT, identifier);
  token[CREATOR_AT] = CSCD_IDENTIFICATION;
  token[DESIGNATOR_AT] = 1;
  token[DESIGNATOR_AT + 1] = 3;
  token[DESIGNATOR_AT + 3] = unit.naa.length;
  token.set(unit.naa, DESIGNATOR_AT + 4);
  writeU24BE(token, CREATOR_AT + 29, unit.blockSize);
  writeU64BE(token, BYTES_AT + 8, lengthBytes);
  writeU32BE(token, DEVICE_DATA_AT, unit.blockSize);
  token[DEVICE_DATA_AT + 5] = unit.physicalBlockExponent;
  if (unit.unmaps) token[DEVICE_DATA_AT + 6] = unit.backend.unmappedReadsZeroes ? 0xc0 : 0x80;
  writeTarget(token, targetPort);
  random(token.subarray(SECRET_AT));
  assert(token.length === TOKEN_SIZE, 'a token has its size');
  return token;
}

/** The SCSI name string of the target device, as in VPD page 83h; cut to what there is room for. */
function writeTarget(token: Uint8Array, targetPort: string): void {
  const comma = targetPort.indexOf(',');
  const name = Buffer.from(comma < 0 ? targetPort : targetPort.slice(0, comma), 'utf8').subarray(0, TARGET_SIZE - 8);
  const length = Math.ceil((name.length + 1) / 4) * 4;
  token[TARGET_AT] = 0x53;
  token[TARGET_AT + 1] = 0xa8;
  token[TARGET_AT + 3] = length;
  token.set(name, TARGET_AT + 4);
}

export function tokenType(token: Uint8Array): number {
  return readU32BE(token, 0);
}

export function hasTokenLength(token: Uint8Array): boolean {
  return readU16BE(token, 6) === TOKEN_LENGTH_FIELD;
}

/** The NAA designator of the logical unit that made the token; null when there is none in it. */
export function creatorOf(token: Uint8Array): Uint8Array | null {
  const length = token[DESIGNATOR_AT + 3]!;
  if (token[CREATOR_AT] !== CSCD_IDENTIFICATION || token[DESIGNATOR_AT + 1] !== 3 || length > 20) return null;
  return token.subarray(DESIGNATOR_AT + 4, DESIGNATOR_AT + 4 + length);
}
