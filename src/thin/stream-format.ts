/**
 * The stream that `send` writes and `receive` reads: one volume at one moment, whole or as what differs from an earlier moment.
 *
 *      0             12       16
 *     +-------------+--------+ - - one record after the other
 *     | "THINLUN-SEND" | u32 version
 *     +-------------+--------+
 *
 * A record, little-endian:
 *
 *      0        4        8                16               24               32
 *     +--------+--------+----------------+----------------+----------------+- - -
 *     | crc32c | type   | sequence, u64  | offset, u64    | length, u64    | payload
 *     +--------+--------+----------------+----------------+----------------+- - -
 *
 * crc32c is of everything behind it, the payload included. Sequences count records from 0. Types:
 *
 *     1 begin     the first; payload: JSON, see `StreamHeader`
 *     2 data      `length` bytes of the volume at `offset`, which are the payload
 *     3 unmapped  the volume reads as zeroes from `offset` on for `length` bytes; no payload
 *     4 end       the last; payload: JSON, see `StreamTotals`
 *     5 failed    the last, when the sender could not go on; payload: why, UTF-8
 *
 * Records of type 2 and 3 ascend and do not overlap. See docs/stream-format.md.
 */
import * as v from 'valibot';
import { CRC32C_INITIAL, crc32c, crc32cFinish, crc32cUpdate } from '../base/crc32c.ts';
import { StorageError } from '../base/errors.ts';
import { integer, object, parse, type Schema, strictObject, uuid } from '../base/schema.ts';
import { MIB } from '../base/units.ts';

export const PREFACE = 'THINLUN-SEND';
export const STREAM_VERSION = 1;
export const PREFACE_SIZE = 16;
export const RECORD_HEADER_SIZE = 32;
/** Of a record of data. */
export const MAX_DATA_LENGTH: number = MIB;
/** Of any other payload. */
export const MAX_TEXT_LENGTH: number = 64 * 1024;

export const RecordType = { begin: 1, data: 2, unmapped: 3, end: 4, failed: 5 } as const;
export type RecordType = (typeof RecordType)[keyof typeof RecordType];

export interface StreamHeader {
  /** Name of the volume where it was sent; for people. */
  volume: string;
  /** Names what the volume holds at that moment. */
  contentId: string;
  /** What the receiver has to hold already; null: nothing, the stream is whole. */
  baseContentId: string | null;
  sizeBytes: number;
  logicalBlockSize: 512 | 4096;
  /** The sender's unit of allocation. */
  blockSizeBytes: number;
  /** What lies before has been received already, by a stream that was cut off. */
  beginBytes: number;
  /** An upper limit of the data that comes. */
  expectedBytes: number;
}

export interface StreamTotals {
  /** Records before the end. */
  records: number;
  dataBytes: number;
  unmappedBytes: number;
}

const COUNT = integer(0);

export const STREAM_HEADER: Schema<StreamHeader> = object({
  volume: v.pipe(v.string(), v.maxLength(255)),
  contentId: uuid,
  baseContentId: v.nullable(uuid),
  sizeBytes: integer(1),
  logicalBlockSize: v.picklist([512, 4096]),
  blockSizeBytes: integer(1),
  beginBytes: COUNT,
  expectedBytes: COUNT,
});

export const STREAM_TOTALS: Schema<StreamTotals> = object({
  records: COUNT,
  dataBytes: COUNT,
  unmappedBytes: COUNT,
});

/** What every stream begins with. */
export function encodePreface(): Uint8Array {
  const bytes = Buffer.alloc(PREFACE_SIZE);
  bytes.write(PREFACE, 'latin1');
  bytes.writeUInt32LE(STREAM_VERSION, PREFACE.length);
  return bytes;
}

/** A record's header, for a payload that follows it. */
export function encodeRecordHeader(
  type: RecordType,
  sequence: number,
  offset: number,
  length: number,
  payload: Uint8Array | null,
): Uint8Array {
  const bytes = Buffer.alloc(RECORD_HEADER_SIZE);
  bytes.writeUInt32LE(type, 4);
  bytes.writeBigUInt64LE(BigInt(sequence), 8);
  bytes.writeBigUInt64LE(BigInt(offset), 16);
  bytes.writeBigUInt64LE(BigInt(length), 24);
  bytes.writeUInt32LE(recordChecksum(bytes, payload), 0);
  return bytes;
}

/** Of a record's header without its first field, and its payload. */
export function recordChecksum(header: Uint8Array, payload: Uint8Array | null): number {
  const register = crc32cUpdate(CRC32C_INITIAL, header, 4, RECORD_HEADER_SIZE);
  return crc32cFinish(payload === null ? register : crc32cUpdate(register, payload, 0, payload.length));
}

/** Where a stream that was cut off is to go on. */
export interface ResumePoint {
  contentId: string;
  baseContentId: string | null;
  positionBytes: number;
}

const RESUME_POINT: Schema<ResumePoint> = strictObject({
  contentId: uuid,
  baseContentId: v.nullable(uuid),
  positionBytes: COUNT,
});

const TOKEN_PREFIX = 'thinlun-';
const TOKEN_CHECKSUM_SIZE = 4;

/** A `ResumePoint` as one word, for a command line. */
export function encodeToken(point: ResumePoint): string {
  const text = Buffer.from(JSON.stringify(point));
  const checksum = Buffer.alloc(TOKEN_CHECKSUM_SIZE);
  checksum.writeUInt32LE(crc32c(text, 0, text.length));
  return `${TOKEN_PREFIX}${Buffer.concat([checksum, text]).toString('base64url')}`;
}

/** Throws EINVAL for anything that `encodeToken` has not made. */
export function parseToken(token: string): ResumePoint {
  const bytes = Buffer.from(token.startsWith(TOKEN_PREFIX) ? token.slice(TOKEN_PREFIX.length) : '', 'base64url');
  const text = bytes.subarray(TOKEN_CHECKSUM_SIZE);
  if (text.length > 0 && bytes.readUInt32LE(0) === crc32c(text, 0, text.length)) {
    try {
      return parse(RESUME_POINT, JSON.parse(text.toString()));
    } catch {
      // Of another version, or nobody's.
    }
  }
  throw new StorageError(
    'EINVAL',
    'Cannot read the token: it is not one that "thinlun receive --resume-token" printed',
  );
}
