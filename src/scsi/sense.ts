import { writeU32BE, writeU64BE } from '../base/bytes.ts';
import type { Errno } from '../base/errors.ts';

/**
 * Sense data (SPC-4 4.5).
 *
 *     fixed       0 70h|VALID  2 key  3 INFORMATION(4)  7 0Ah  8 command specific(4)  12 ASC  13 ASCQ  15 SKS(3)
 *     descriptor  0 72h  1 key  2 ASC  3 ASCQ  7 length  8 descriptors: 00 0A 80 00 INFORMATION(8) | 02 06 00 00 SKS(3) 00
 */

/** Sense key, additional sense code and its qualifier as one number: `key << 16 | asc << 8 | ascq`. */
export type Sense = number;

export const NO_SENSE: Sense = 0x000000;
export const NOT_READY_CAUSE_NOT_REPORTABLE: Sense = 0x020400;
export const NOT_READY_BECOMING_READY: Sense = 0x020401;
export const FORMAT_IN_PROGRESS: Sense = 0x020404;
export const SANITIZE_IN_PROGRESS: Sense = 0x02041b;
export const MEDIUM_NOT_PRESENT: Sense = 0x023a00;
export const WRITE_ERROR: Sense = 0x030c00;
export const UNRECOVERED_READ_ERROR: Sense = 0x031100;
export const FORMAT_COMMAND_FAILED: Sense = 0x033101;
export const SANITIZE_COMMAND_FAILED: Sense = 0x033103;
export const INTERNAL_TARGET_FAILURE: Sense = 0x044400;
export const SET_TARGET_PORT_GROUPS_COMMAND_FAILED: Sense = 0x04670a;
export const OPERATION_IN_PROGRESS: Sense = 0x050016;
export const INVALID_FIELD_IN_COMMAND_INFORMATION_UNIT: Sense = 0x050e03;
export const PARAMETER_LIST_LENGTH_ERROR: Sense = 0x051a00;
export const INVALID_COMMAND_OPERATION_CODE: Sense = 0x052000;
export const LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE: Sense = 0x052100;
export const UNSUPPORTED_TOKEN_TYPE: Sense = 0x052301;
export const TOKEN_UNKNOWN: Sense = 0x052304;
export const TOKEN_REVOKED: Sense = 0x052306;
export const TOKEN_EXPIRED: Sense = 0x052307;
export const TOKEN_CANCELLED: Sense = 0x052308;
export const TOKEN_DELETED: Sense = 0x052309;
export const INVALID_TOKEN_LENGTH: Sense = 0x05230a;
export const INVALID_FIELD_IN_CDB: Sense = 0x052400;
export const LOGICAL_UNIT_NOT_SUPPORTED: Sense = 0x052500;
export const INVALID_FIELD_IN_PARAMETER_LIST: Sense = 0x052600;
export const INVALID_RELEASE_OF_PERSISTENT_RESERVATION: Sense = 0x052604;
export const TOO_MANY_TARGET_DESCRIPTORS: Sense = 0x052606;
export const UNSUPPORTED_TARGET_DESCRIPTOR_TYPE_CODE: Sense = 0x052607;
export const TOO_MANY_SEGMENT_DESCRIPTORS: Sense = 0x052608;
export const UNSUPPORTED_SEGMENT_DESCRIPTOR_TYPE_CODE: Sense = 0x052609;
export const INLINE_DATA_LENGTH_EXCEEDED: Sense = 0x05260b;
export const COMMAND_SEQUENCE_ERROR: Sense = 0x052c00;
export const SAVING_PARAMETERS_NOT_SUPPORTED: Sense = 0x053900;
export const INVALID_MESSAGE_ERROR: Sense = 0x054900;
export const MEDIUM_REMOVAL_PREVENTED: Sense = 0x055302;
export const INSUFFICIENT_REGISTRATION_RESOURCES: Sense = 0x055504;
export const MEDIUM_MAY_HAVE_CHANGED: Sense = 0x062800;
export const POWER_ON_OCCURRED: Sense = 0x062900;
export const SCSI_BUS_RESET_OCCURRED: Sense = 0x062902;
export const BUS_DEVICE_RESET_FUNCTION_OCCURRED: Sense = 0x062903;
export const I_T_NEXUS_LOSS_OCCURRED: Sense = 0x062907;
export const MODE_PARAMETERS_CHANGED: Sense = 0x062a01;
export const RESERVATIONS_PREEMPTED: Sense = 0x062a03;
export const RESERVATIONS_RELEASED: Sense = 0x062a04;
export const REGISTRATIONS_PREEMPTED: Sense = 0x062a05;
export const CAPACITY_DATA_HAS_CHANGED: Sense = 0x062a09;
export const COMMANDS_CLEARED_BY_ANOTHER_INITIATOR: Sense = 0x062f00;
export const THIN_PROVISIONING_SOFT_THRESHOLD_REACHED: Sense = 0x063807;
export const INQUIRY_DATA_HAS_CHANGED: Sense = 0x063f03;
export const REPORTED_LUNS_DATA_HAS_CHANGED: Sense = 0x063f0e;
export const WRITE_PROTECTED: Sense = 0x072700;
export const SOFTWARE_WRITE_PROTECTED: Sense = 0x072702;
export const SPACE_ALLOCATION_FAILED_WRITE_PROTECT: Sense = 0x072707;
export const COPY_ABORTED: Sense = 0x0a0000;
export const UNREACHABLE_COPY_TARGET: Sense = 0x0a0804;
export const THIRD_PARTY_DEVICE_FAILURE: Sense = 0x0a0d01;
export const INCORRECT_COPY_TARGET_DEVICE_TYPE: Sense = 0x0a0d03;
export const UNEXPECTED_INEXACT_SEGMENT: Sense = 0x0a260a;
export const INVALID_OPERATION_FOR_COPY_SOURCE_OR_DESTINATION: Sense = 0x0a260c;
export const COPY_CLEARED_BY_DEVICE_SERVER: Sense = 0x0a2f02;
export const INSUFFICIENT_RESOURCES: Sense = 0x0b5503;
export const INSUFFICIENT_RESOURCES_TO_CREATE_ROD_TOKEN: Sense = 0x0b550d;
export const MISCOMPARE_DURING_VERIFY: Sense = 0x0e1d00;

/** What a failed backend request becomes: `read` for requests that read, `write` for all that change or flush. */
export interface FailureSense {
  readonly read: Sense;
  readonly write: Sense;
}

const both = (sense: Sense): FailureSense => ({ read: sense, write: sense });
const medium: FailureSense = { read: UNRECOVERED_READ_ERROR, write: WRITE_ERROR };
const internal: FailureSense = both(INTERNAL_TARGET_FAILURE);

/**
 * The one way from a failure to sense data. An initiator acts on it: DATA PROTECT 27h/07h pauses a virtual machine or becomes ENOSPC,
 * NOT READY and ABORTED COMMAND are tried again, MEDIUM and HARDWARE ERROR reach the application as EIO.
 */
export const FAILURE_SENSE: Readonly<Record<Errno, FailureSense>> = {
  EACCES: both(WRITE_PROTECTED),
  EAGAIN: both(NOT_READY_BECOMING_READY),
  EBADF: internal,
  EBUSY: both(NOT_READY_BECOMING_READY),
  EDEADLK: internal,
  EEXIST: internal,
  EFAULT: internal,
  EFBIG: { read: INTERNAL_TARGET_FAILURE, write: SPACE_ALLOCATION_FAILED_WRITE_PROTECT },
  EILSEQ: medium,
  EINVAL: internal,
  EIO: medium,
  EMFILE: both(INSUFFICIENT_RESOURCES),
  ENODATA: medium,
  ENODEV: both(NOT_READY_CAUSE_NOT_REPORTABLE),
  ENOENT: both(NOT_READY_CAUSE_NOT_REPORTABLE),
  ENOMEM: both(INSUFFICIENT_RESOURCES),
  ENOSPC: both(SPACE_ALLOCATION_FAILED_WRITE_PROTECT),
  ENOTBLK: internal,
  ENOTDIR: internal,
  ENXIO: both(LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE),
  EOPNOTSUPP: internal,
  EPERM: both(WRITE_PROTECTED),
  ERANGE: internal,
  EROFS: both(WRITE_PROTECTED),
  ESHUTDOWN: both(NOT_READY_CAUSE_NOT_REPORTABLE),
};

/** No sense key specific bytes. */
export const NO_SKS = -1;
/** No INFORMATION field. */
export const NO_INFORMATION = -1;

/**
 * The sense key specific bytes of ILLEGAL REQUEST (SPC-4 4.5.2.4.2): SKSV, `inCdb` for C/D, and with `bit` from 0 to 7 BPV and the
 * BIT POINTER; `byte` is the FIELD POINTER.
 */
export function fieldPointer(inCdb: boolean, byte: number, bit: number): number {
  const first = 0x80 | (inCdb ? 0x40 : 0) | (bit >= 0 ? 0x08 | bit : 0);
  return first * 0x10000 + byte;
}

/** The sense key specific bytes of a progress indication (SPC-4 4.5.2.4.4): `progress` of 65536. */
export function progressIndication(progress: number): number {
  return 0x80_0000 + progress;
}

/**
 * The sense key specific bytes of COPY ABORTED (SPC-4 4.5.2.4.5): `byte` points into the segment descriptor, or into the parameter list when
 * `inSegment` is false.
 */
export function segmentPointer(inSegment: boolean, byte: number): number {
  return (inSegment ? 0xa0 : 0x80) * 0x10000 + byte;
}

/**
 * Writes sense data for `sense` at the begin of `out` (at least 32 bytes) and returns its length.
 * `information` is a whole number or NO_INFORMATION; what does not fit in the fixed format's 32 bits is left out there.
 * `sks` comes from `fieldPointer` or is NO_SKS.
 */
export function writeSense(
  out: Uint8Array,
  descriptorFormat: boolean,
  sense: Sense,
  information: number,
  sks: number,
): number {
  const key = sense >>> 16;
  const asc = (sense >>> 8) & 0xff;
  const ascq = sense & 0xff;
  if (!descriptorFormat) {
    out.fill(0, 0, 18);
    out[0] = 0x70;
    out[2] = key;
    if (information >= 0 && information <= 0xffffffff) {
      out[0] = 0xf0;
      writeU32BE(out, 3, information);
    }
    out[7] = 10;
    out[12] = asc;
    out[13] = ascq;
    if (sks !== NO_SKS) writeSks(out, 15, sks);
    return 18;
  }
  out.fill(0, 0, 28);
  out[0] = 0x72;
  out[1] = key;
  out[2] = asc;
  out[3] = ascq;
  let end = 8;
  if (information >= 0) {
    out[end + 1] = 10;
    out[end + 2] = 0x80;
    writeU64BE(out, end + 4, information);
    end += 12;
  }
  if (sks !== NO_SKS) {
    out[end] = 2;
    out[end + 1] = 6;
    writeSks(out, end + 4, sks);
    end += 8;
  }
  out[7] = end - 8;
  return end;
}

function writeSks(out: Uint8Array, at: number, sks: number): void {
  out[at] = sks >>> 16;
  out[at + 1] = sks >>> 8;
  out[at + 2] = sks;
}

/** Puts COMMAND-SPECIFIC INFORMATION into the sense data of `length` bytes in `out`, which `writeSense` has written; returns the length. */
export function addCommandSpecific(out: Uint8Array, length: number, value: number): number {
  if (out[0]! < 0x72 || out[0]! >= 0xf0) {
    writeU32BE(out, 8, value);
    return length;
  }
  out.fill(0, length, length + 12);
  out[length] = 1;
  out[length + 1] = 10;
  writeU64BE(out, length + 4, value);
  out[7] = length + 12 - 8;
  return length + 12;
}
