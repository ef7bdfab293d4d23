import { writeU16BE, writeU32BE, writeU64BE } from '../base/bytes.ts';
import { roundUp } from '../base/units.ts';
import {
  COPY_STEP_BYTES,
  DEFAULT_TOKEN_TIMEOUT,
  MAX_COPY_RECORDS,
  MAX_CSCD_DESCRIPTORS,
  MAX_DESCRIPTOR_LIST_LENGTH,
  MAX_SEGMENT_DESCRIPTORS,
  MAX_SEGMENT_LENGTH,
  MAX_TOKEN_BYTES,
  MAX_TOKEN_RANGES,
  MAX_TOKEN_TIMEOUT,
  OPTIMAL_TOKEN_BYTES,
} from './copy-limits.ts';
import { DESCRIPTOR_TYPES } from './copy-list.ts';
import { RodType } from './rod-token.ts';
import { CopyIn, CopyOut, Opcode } from './spec.ts';
import type { UnitState } from './unit-state.ts';

/** VPD page 8Fh (SPC-4 7.8.17, SBC-3 6.6.6): third-party copy descriptors, each a type(2), a length(2) and the rest, to a multiple of four. */

const Descriptor = {
  BLOCK_DEVICE_ROD_TOKEN_LIMITS: 0x0000,
  SUPPORTED_COMMANDS: 0x0001,
  PARAMETER_DATA: 0x0004,
  SUPPORTED_DESCRIPTORS: 0x0008,
  SUPPORTED_CSCD_IDS: 0x000c,
  ROD_TOKEN_FEATURES: 0x0106,
  SUPPORTED_ROD_TYPES: 0x0108,
  GENERAL_COPY_OPERATIONS: 0x8001,
} as const;

/** Writes the descriptors from byte 4 of `out`, which is zero; returns PAGE LENGTH. */
export function writeThirdPartyCopy(unit: UnitState, out: Uint8Array): number {
  let at = 4;
  at = writeTokenLimits(unit, out, at);
  at = writeCommands(out, at);
  at = writeParameterData(out, at);
  at = writeList(out, at, Descriptor.SUPPORTED_DESCRIPTORS, DESCRIPTOR_TYPES);
  at = writeCscdIds(out, at);
  at = writeTokenFeatures(out, at);
  at = writeRodTypes(out, at);
  at = writeGeneral(out, at);
  return at - 4;
}

/** Header of the descriptor at `at` that ends before `end`; returns where the next one begins. */
function finish(out: Uint8Array, at: number, type: number, end: number): number {
  const next = at + roundUp(end - at, 4);
  writeU16BE(out, at, type);
  writeU16BE(out, at + 2, next - at - 4);
  return next;
}

/** What Windows looks for. The sizes are logical blocks. */
function writeTokenLimits(unit: UnitState, out: Uint8Array, at: number): number {
  writeU16BE(out, at + 10, MAX_TOKEN_RANGES);
  writeU32BE(out, at + 12, MAX_TOKEN_TIMEOUT);
  writeU32BE(out, at + 16, DEFAULT_TOKEN_TIMEOUT);
  writeU64BE(out, at + 20, Math.floor(MAX_TOKEN_BYTES / unit.blockSize));
  writeU64BE(out, at + 28, Math.floor(OPTIMAL_TOKEN_BYTES / unit.blockSize));
  return finish(out, at, Descriptor.BLOCK_DEVICE_ROD_TOKEN_LIMITS, at + 36);
}

const COMMANDS: readonly (readonly [number, readonly number[]])[] = [
  [Opcode.THIRD_PARTY_COPY_OUT, Object.values(CopyOut)],
  [Opcode.THIRD_PARTY_COPY_IN, Object.values(CopyIn)],
];

function writeCommands(out: Uint8Array, at: number): number {
  let end = at + 5;
  for (const [opcode, actions] of COMMANDS) {
    out[end] = opcode;
    out[end + 1] = actions.length;
    out.set(actions, end + 2);
    end += 2 + actions.length;
  }
  out[at + 4] = end - at - 5;
  return finish(out, at, Descriptor.SUPPORTED_COMMANDS, end);
}

function writeParameterData(out: Uint8Array, at: number): number {
  writeU16BE(out, at + 8, MAX_CSCD_DESCRIPTORS);
  writeU16BE(out, at + 10, MAX_SEGMENT_DESCRIPTORS);
  writeU32BE(out, at + 12, MAX_DESCRIPTOR_LIST_LENGTH);
  return finish(out, at, Descriptor.PARAMETER_DATA, at + 32);
}

function writeList(out: Uint8Array, at: number, type: number, codes: readonly number[]): number {
  out[at + 4] = codes.length;
  out.set(codes, at + 5);
  return finish(out, at, type, at + 5 + codes.length);
}

/** FFFFh: the unit that the command comes to. */
function writeCscdIds(out: Uint8Array, at: number): number {
  writeU16BE(out, at + 4, 2);
  writeU16BE(out, at + 6, 0xffff);
  return finish(out, at, Descriptor.SUPPORTED_CSCD_IDS, at + 8);
}

/** Without remote tokens. */
function writeTokenFeatures(out: Uint8Array, at: number): number {
  writeU32BE(out, at + 16, 1);
  writeU32BE(out, at + 20, 0xffffffff);
  writeU32BE(out, at + 24, MAX_TOKEN_TIMEOUT);
  // Block ROD device type specific features
  const block = at + 48;
  writeU16BE(out, at + 46, 48);
  writeU16BE(out, block + 2, 44);
  writeU64BE(out, block + 8, MAX_TOKEN_BYTES);
  writeU64BE(out, block + 16, OPTIMAL_TOKEN_BYTES);
  writeU64BE(out, block + 24, OPTIMAL_TOKEN_BYTES);
  writeU64BE(out, block + 32, COPY_STEP_BYTES);
  return finish(out, at, Descriptor.ROD_TOKEN_FEATURES, block + 48);
}

/** TOKEN IN, and where POPULATE TOKEN makes them TOKEN OUT. */
const ROD_TYPES: readonly (readonly [number, number])[] = [
  [RodType.CHANGE_VULNERABLE, 0x03],
  [RodType.BLOCK_DEVICE_ZERO, 0x02],
];
const ROD_TYPE_LENGTH = 64;

function writeRodTypes(out: Uint8Array, at: number): number {
  writeU16BE(out, at + 6, ROD_TYPES.length * ROD_TYPE_LENGTH);
  let end = at + 8;
  for (const [type, flags] of ROD_TYPES) {
    writeU32BE(out, end, type);
    out[end + 4] = flags;
    end += ROD_TYPE_LENGTH;
  }
  return finish(out, at, Descriptor.SUPPORTED_ROD_TYPES, end);
}

function writeGeneral(out: Uint8Array, at: number): number {
  writeU32BE(out, at + 4, MAX_COPY_RECORDS);
  writeU32BE(out, at + 8, MAX_COPY_RECORDS);
  writeU32BE(out, at + 12, MAX_SEGMENT_LENGTH);
  // DATA SEGMENT GRANULARITY: 2^9
  out[at + 16] = 9;
  return finish(out, at, Descriptor.GENERAL_COPY_OPERATIONS, at + 36);
}
