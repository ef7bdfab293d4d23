import { readU16BE, readU24BE, readU32BE, readU64BE } from '../base/bytes.ts';
import type { Command } from './command.ts';
import { MAX_CSCD_DESCRIPTORS, MAX_DESCRIPTOR_LIST_LENGTH, MAX_SEGMENT_DESCRIPTORS } from './copy-limits.ts';
import { CSCD_IDENTIFICATION } from './rod-token.ts';
import {
  fieldPointer,
  INLINE_DATA_LENGTH_EXCEEDED,
  INVALID_FIELD_IN_PARAMETER_LIST,
  NO_SKS,
  PARAMETER_LIST_LENGTH_ERROR,
  type Sense,
  TOO_MANY_SEGMENT_DESCRIPTORS,
  TOO_MANY_TARGET_DESCRIPTORS,
  UNSUPPORTED_SEGMENT_DESCRIPTOR_TYPE_CODE,
  UNSUPPORTED_TARGET_DESCRIPTOR_TYPE_CODE,
} from './sense.ts';

/**
 * The parameter list of EXTENDED COPY (SPC-4 6.4.3).
 *
 *     LID1  0 LIST IDENTIFIER  1 STR(5) LIST ID USAGE(4-3) PRIORITY  2 CSCD DESCRIPTOR LIST LENGTH(2)
 *           8 SEGMENT DESCRIPTOR LIST LENGTH(4)  12 INLINE DATA LENGTH(4)  16 descriptors
 *     LID4  0 PARAMETER LIST FORMAT 01h  1 as LID1  2 HEADER CSCD DESCRIPTOR LIST LENGTH(2)  15 G_SENSE(1) IMMED(0)
 *           16 HEADER CSCD DESCRIPTOR TYPE CODE  20 LIST IDENTIFIER(4)  42 CSCD DESCRIPTOR LIST LENGTH(2)
 *           44 SEGMENT DESCRIPTOR LIST LENGTH(2)  46 INLINE DATA LENGTH(2)  48 descriptors
 *     E4h   0 E4h  1 peripheral device type(4-0)  4 code set  5 association(5-4) designator type(3-0)  7 length  8 designator(20)
 *           29 DISK BLOCK LENGTH(3)
 *     02h   0 02h  1 DC(1) CAT(0)  2 0018h  4 source  6 destination  10 NUMBER OF BLOCKS(2)  12 source LBA(8)  20 destination LBA(8)
 *     0Ah   0 0Ah  1 CAT(0)  2 001Ch  4 source  6 destination  8 NUMBER OF BYTES(4)  12 source LBA(8)  20 destination LBA(8)
 *           28 source byte offset(2)  30 destination byte offset(2)
 *     07h   0 07h  2 0008h  4 source  8 TUR(0)
 */
export interface ListFormat {
  readonly headerLength: number;
  readonly isLid4: boolean;
}

export const LID1: ListFormat = { headerLength: 16, isLid4: false };
export const LID4: ListFormat = { headerLength: 48, isLid4: true };

export const ListIdUsage = { HOLD_DATA: 0, RESERVED: 1, HOLD_STATUS: 2, NONE: 3 } as const;

export const CSCD_LENGTH = 32;

/** Segment descriptor type codes, ascending. */
export const SegmentType = { BLOCK_TO_BLOCK: 0x02, VERIFY: 0x07, BLOCK_TO_BLOCK_OFFSET: 0x0a } as const;
/** Bytes of a segment descriptor that its type does not count. */
const SEGMENT_HEADER = 4;

const SEGMENT_LENGTHS: ReadonlyMap<number, number> = new Map([
  [SegmentType.BLOCK_TO_BLOCK, 0x18],
  [SegmentType.VERIFY, 0x08],
  [SegmentType.BLOCK_TO_BLOCK_OFFSET, 0x1c],
]);

/** What is implemented, as initiators are told it: segment types, then CSCD types. */
export const DESCRIPTOR_TYPES: readonly number[] = [...SEGMENT_LENGTHS.keys(), CSCD_IDENTIFICATION];

/** The longest parameter list. */
export function maxListLength(format: ListFormat): number {
  return format.headerLength + MAX_DESCRIPTOR_LIST_LENGTH;
}

/** A designator (SPC-4 7.8.6.1) as it stands in an identification descriptor. */
export interface Designator {
  readonly codeSet: number;
  readonly type: number;
  readonly association: number;
  readonly bytes: Uint8Array;
}

/** A parameter list whose form is right: what it names may not be there. */
export class CopyList {
  readonly bytes: Uint8Array;
  readonly listId: number;
  readonly usage: number;
  readonly cscdAt: number;
  readonly cscdCount: number;
  /** Where each segment descriptor begins. */
  readonly segments: readonly number[];

  constructor(
    bytes: Uint8Array,
    listId: number,
    usage: number,
    cscdAt: number,
    cscdCount: number,
    segments: readonly number[],
  ) {
    this.bytes = bytes;
    this.listId = listId;
    this.usage = usage;
    this.cscdAt = cscdAt;
    this.cscdCount = cscdCount;
    this.segments = segments;
  }

  /** Of the CSCD descriptor at `index`. */
  peripheralType(index: number): number {
    return this.bytes[this.cscdAt + index * CSCD_LENGTH + 1]! & 0x1f;
  }

  designator(index: number): Designator {
    const { bytes } = this;
    const at = this.cscdAt + index * CSCD_LENGTH;
    return {
      codeSet: bytes[at + 4]! & 0xf,
      type: bytes[at + 5]! & 0xf,
      association: (bytes[at + 5]! >>> 4) & 3,
      bytes: bytes.subarray(at + 8, at + 8 + Math.min(bytes[at + 7]!, 20)),
    };
  }

  /** DISK BLOCK LENGTH; 0 where it was left out. */
  diskBlockLength(index: number): number {
    return readU24BE(this.bytes, this.cscdAt + index * CSCD_LENGTH + 29);
  }

  /** A field of the segment descriptor at `index`. */
  segmentU16(index: number, field: number): number {
    return readU16BE(this.bytes, this.segments[index]! + field);
  }

  segmentU32(index: number, field: number): number {
    return readU32BE(this.bytes, this.segments[index]! + field);
  }

  segmentU64(index: number, field: number): number {
    return readU64BE(this.bytes, this.segments[index]! + field);
  }

  segmentByte(index: number, field: number): number {
    return this.bytes[this.segments[index]! + field]!;
  }
}

/** Why a parameter list is refused. */
export class ListRefusal {
  readonly sense: Sense;
  readonly sks: number;

  constructor(sense: Sense, sks: number = NO_SKS) {
    this.sense = sense;
    this.sks = sks;
  }

  static field(byte: number, bit: number = -1): ListRefusal {
    return new ListRefusal(INVALID_FIELD_IN_PARAMETER_LIST, fieldPointer(false, byte, bit));
  }
}

/** The parameter list in Data-Out, of at least the header's length. */
export function readCopyList(command: Command, format: ListFormat): CopyList | ListRefusal {
  const { task } = command;
  const bytes = new Uint8Array(task.dataOutLength);
  task.dataOut.copyTo(bytes, 0, 0, bytes.length);
  return parseCopyList(bytes, format);
}

/** `bytes` has at least the header's length. Looks at the form of everything before anything is done. */
export function parseCopyList(bytes: Uint8Array, format: ListFormat): CopyList | ListRefusal {
  const { isLid4, headerLength } = format;
  if (isLid4) {
    if (bytes[0] !== 1) return ListRefusal.field(0);
    if (readU16BE(bytes, 2) !== 0x20) return ListRefusal.field(2);
    // G_SENSE asks for sense data with GOOD; a transport may have no way to send that. IMMED is allowed to be slow.
    if ((bytes[15]! & 0xfe) !== 0) return ListRefusal.field(15, 31 - Math.clz32(bytes[15]! & 0xfe));
    if (bytes[16] !== 0xff) return ListRefusal.field(16);
  }
  const listId = isLid4 ? readU32BE(bytes, 20) : bytes[0]!;
  const usage = (bytes[1]! >>> 3) & 3;
  if (usage === ListIdUsage.RESERVED) return ListRefusal.field(1, 4);
  if (usage === ListIdUsage.NONE && listId !== 0) return ListRefusal.field(isLid4 ? 20 : 0);

  const cscdLengthAt = isLid4 ? 42 : 2;
  const cscdLength = readU16BE(bytes, cscdLengthAt);
  const segmentsLength = isLid4 ? readU16BE(bytes, 44) : readU32BE(bytes, 8);
  const inlineLength = isLid4 ? readU16BE(bytes, 46) : readU32BE(bytes, 12);
  const descriptorsLength = cscdLength + segmentsLength;
  if (descriptorsLength > MAX_DESCRIPTOR_LIST_LENGTH) return new ListRefusal(PARAMETER_LIST_LENGTH_ERROR);
  if (cscdLength % CSCD_LENGTH !== 0) return ListRefusal.field(cscdLengthAt);
  if (cscdLength > MAX_CSCD_DESCRIPTORS * CSCD_LENGTH) return new ListRefusal(TOO_MANY_TARGET_DESCRIPTORS);
  if (inlineLength > 0) return new ListRefusal(INLINE_DATA_LENGTH_EXCEEDED);
  if (headerLength + descriptorsLength > bytes.length) return new ListRefusal(PARAMETER_LIST_LENGTH_ERROR);

  for (let at = headerLength; at < headerLength + cscdLength; at += CSCD_LENGTH) {
    if (bytes[at] !== CSCD_IDENTIFICATION) {
      return new ListRefusal(UNSUPPORTED_TARGET_DESCRIPTOR_TYPE_CODE, fieldPointer(false, at, -1));
    }
    if (bytes[at + 7]! > 20) return ListRefusal.field(at + 7);
  }
  const segments: number[] = [];
  const end = headerLength + descriptorsLength;
  const sense = findSegments(bytes, headerLength + cscdLength, end, segments);
  return sense ?? new CopyList(bytes, listId, usage, headerLength, cscdLength / CSCD_LENGTH, segments);
}

/** Puts the begin of each segment descriptor of `[begin, end)` into `segments`. */
function findSegments(bytes: Uint8Array, begin: number, end: number, segments: number[]): ListRefusal | null {
  for (let at = begin; at < end; ) {
    if (segments.length === MAX_SEGMENT_DESCRIPTORS) return new ListRefusal(TOO_MANY_SEGMENT_DESCRIPTORS);
    const length = SEGMENT_LENGTHS.get(bytes[at]!);
    if (length === undefined) {
      return new ListRefusal(UNSUPPORTED_SEGMENT_DESCRIPTOR_TYPE_CODE, fieldPointer(false, at, -1));
    }
    if (at + SEGMENT_HEADER + length > end) return new ListRefusal(PARAMETER_LIST_LENGTH_ERROR);
    if (readU16BE(bytes, at + 2) !== length) return ListRefusal.field(at + 2);
    segments.push(at);
    at += SEGMENT_HEADER + length;
  }
  return null;
}
