import { readU16BE, readU24BE, readU32BE, readU64BE } from '../base/bytes.ts';

/**
 * Where the block commands keep their LBA and length: by the group code, the top three bits of the opcode (SAM-5 5.2, SPC-4 4.2.5).
 *
 *     6   0 opcode  1 LBA(21 bits)           4 length(1)   5 control
 *     10  0 opcode  1 flags  2 LBA(4)  6 group  7 length(2)   9 control
 *     12  0 opcode  1 flags  2 LBA(4)  6 length(4)  10 group  11 control
 *     16  0 opcode  1 flags  2 LBA(8)  10 length(4)  14 group  15 control
 *     32  0 7Fh     1 control  6 group  7 18h  8 service action(2)  10 flags  12 LBA(8)  20 protection(8)  28 length(4)
 */

/** Operation code of CDBs that say how long they are; all that there are here have 32 bytes. */
export const VARIABLE_LENGTH = 0x7f;

/** SERVICE ACTION, of an opcode that has them. */
export function serviceActionOf(cdb: Uint8Array): number {
  return cdb[0] === VARIABLE_LENGTH ? readU16BE(cdb, 8) : cdb[1]! & 0x1f;
}

/** Byte of the flags (protection, DPO, FUA, BYTCHK, ...). */
export function flagsField(cdb: Uint8Array): number {
  return cdb[0] === VARIABLE_LENGTH ? 10 : 1;
}

/** The flags; none in the CDBs of 6 bytes. */
export function flagsOf(cdb: Uint8Array): number {
  return cdb[0]! >>> 5 === 0 ? 0 : cdb[flagsField(cdb)]!;
}

/** Bytes of a CDB by its opcode; 0 where the opcode does not say. */
export function cdbLengthOf(opcode: number): number {
  switch (opcode >>> 5) {
    case 0:
      return 6;
    case 1:
    case 2:
      return 10;
    case 3:
      return opcode === VARIABLE_LENGTH ? 32 : 0;
    case 4:
      return 16;
    case 5:
      return 12;
    default:
      return 0;
  }
}

/** Byte of the LOGICAL BLOCK ADDRESS field, for field pointers. */
export const LBA_FIELD = 2;

/** LOGICAL BLOCK ADDRESS; one of 2^53 and above comes back rounded, still past the end of everything. */
export function readLba(cdb: Uint8Array): number {
  switch (cdb[0]! >>> 5) {
    case 0:
      return readU24BE(cdb, 1) & 0x1fffff;
    case 3:
      return readU64BE(cdb, 12);
    case 4:
      return readU64BE(cdb, 2);
    default:
      return readU32BE(cdb, 2);
  }
}

/** TRANSFER LENGTH, NUMBER OF LOGICAL BLOCKS and the like, as it stands in the CDB. */
export function readBlockCount(cdb: Uint8Array): number {
  switch (cdb[0]! >>> 5) {
    case 0:
      return cdb[4]!;
    case 3:
      return readU32BE(cdb, 28);
    case 4:
      return readU32BE(cdb, 10);
    case 5:
      return readU32BE(cdb, 6);
    default:
      return readU16BE(cdb, 7);
  }
}

/** Byte of the field that `readBlockCount` reads. */
export function blockCountField(cdb: Uint8Array): number {
  switch (cdb[0]! >>> 5) {
    case 0:
      return 4;
    case 3:
      return 28;
    case 4:
      return 10;
    case 5:
      return 6;
    default:
      return 7;
  }
}
