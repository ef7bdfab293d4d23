import { readU16BE, writeU16BE, writeU32BE, writeU64BE } from '../base/bytes.ts';
import { MIB, roundDown } from '../base/units.ts';
import type { Command, CommandHandler } from './command.ts';
import { compareAndWriteLimit } from './compare-and-write.ts';
import { maxTransferBlocks, tpgsOf } from './front-end.ts';
import { DIRECT_ACCESS_BLOCK_DEVICE, NO_SUCH_UNIT } from './spec.ts';
import { writeThirdPartyCopy } from './third-party-page.ts';
import type { UnitState } from './unit-state.ts';
import { MAX_UNMAP_DESCRIPTORS } from './unmap.ts';
import { atomicLimit } from './write-atomic.ts';

/** INQUIRY (SPC-4 6.6) and the vital product data pages (SPC-4 7.8, SBC-4 6.6). */

const STANDARD_LENGTH = 96;
const VERSION_SPC_4 = 0x06;
/** SAM-5, SPC-4, SBC-3, iSCSI: "no version claimed" of each (SPC-4 6.6.2, table of version descriptors). */
const VERSION_DESCRIPTORS = [0x00a0, 0x0460, 0x04c0, 0x0960];

export const inquiry: CommandHandler = {
  prepare(command: Command): boolean {
    const { cdb } = command.task;
    const evpd = (cdb[1]! & 1) !== 0;
    if (evpd ? !hasPage(command, cdb[2]!) : cdb[2] !== 0) return command.checkCdb(2);
    return command.transferIn(readU16BE(cdb, 3));
  },

  execute(command: Command): void {
    const { cdb, nexus } = command.task;
    const tellsOfPorts = (cdb[1]! & 1) === 0 || cdb[2] === DEVICE_IDENTIFICATION;
    if (!tellsOfPorts || nexus.frontEnd.refresh(command)) this.step(command);
  },

  step(command: Command): void {
    const { task, unit } = command;
    const { cdb } = task;
    const evpd = (cdb[1]! & 1) !== 0;
    unit.reply.fill(0, 0, 1024);
    const length = evpd ? writePage(command, cdb[2]!) : writeStandard(command);
    command.finishReply(length, readU16BE(cdb, 3));
  },
};

/** INQUIRY of a LUN without a unit: PERIPHERAL QUALIFIER 011b (SPC-4 6.6.2), no vital product data. */
export const inquiryOfAbsent: CommandHandler = {
  prepare(command: Command): boolean {
    const { cdb } = command.task;
    if ((cdb[1]! & 1) !== 0) return command.checkCdb(1, 0);
    if (cdb[2] !== 0) return command.checkCdb(2);
    return command.transferIn(readU16BE(cdb, 3));
  },

  execute(command: Command): void {
    const { unit, task } = command;
    unit.reply.fill(0, 0, STANDARD_LENGTH);
    const length = writeStandard(command);
    unit.reply[0] = NO_SUCH_UNIT;
    // Nothing is copied there.
    unit.reply[5]! &= ~0x08;
    command.finishReply(length, readU16BE(task.cdb, 3));
  },

  step(): void {},
};

function writeStandard(command: Command): number {
  const { unit, task } = command;
  const out = unit.reply;
  out[0] = DIRECT_ACCESS_BLOCK_DEVICE;
  // RMB
  out[1] = unit.removable ? 0x80 : 0;
  out[2] = VERSION_SPC_4;
  // HISUP, RESPONSE DATA FORMAT 2
  out[3] = 0x12;
  out[4] = STANDARD_LENGTH - 5;
  // TPGS, 3PC
  out[5] = (tpgsOf(task.nexus.frontEnd) << 4) | 0x08;
  // CMDQUE
  out[7] = 0x02;
  writeText(out, 8, unit.vendor, 8);
  writeText(out, 16, unit.product, 16);
  writeText(out, 32, unit.revision, 4);
  for (let i = 0; i < VERSION_DESCRIPTORS.length; i++) writeU16BE(out, 58 + 2 * i, VERSION_DESCRIPTORS[i]!);
  return STANDARD_LENGTH;
}

/** ASCII, left-aligned, filled with spaces (SPC-4 4.3.1); anything that is not printable becomes a space. */
function writeText(out: Uint8Array, at: number, text: string, length: number): void {
  for (let i = 0; i < length; i++) {
    const code = i < text.length ? text.charCodeAt(i) : 0x20;
    out[at + i] = code >= 0x20 && code < 0x7f ? code : 0x20;
  }
}

const DEVICE_IDENTIFICATION = 0x83;
/** What page 00h lists, ascending. */
const VPD_PAGES: readonly number[] = [
  0x00,
  0x80,
  DEVICE_IDENTIFICATION,
  0x85,
  0x86,
  0x87,
  0x88,
  0x8f,
  0xb0,
  0xb1,
  0xb2,
];

function hasPage({ task }: Command, page: number): boolean {
  return VPD_PAGES.includes(page) && (page !== 0x88 || task.nexus.frontEnd.ports.length > 0);
}

function writePage(command: Command, page: number): number {
  const { unit } = command;
  const out = unit.reply;
  let length: number;
  switch (page) {
    case 0x00:
      length = 0;
      for (const known of VPD_PAGES) if (hasPage(command, known)) out[4 + length++] = known;
      break;
    case 0x80:
      writeText(out, 4, unit.serial, unit.serial.length);
      length = unit.serial.length;
      break;
    case DEVICE_IDENTIFICATION:
      length = writeDeviceIdentification(command) - 4;
      break;
    case 0x85:
      // MANAGEMENT NETWORK ADDRESSES: none.
      length = 0;
      break;
    case 0x86:
      length = writeExtendedInquiry(command, out);
      break;
    case 0x87:
      // MODE PAGE POLICY of every page and subpage: shared by all nexuses.
      out[4] = 0x3f;
      out[5] = 0xff;
      length = 4;
      break;
    case 0x88:
      length = writeScsiPorts(command) - 4;
      break;
    case 0x8f:
      length = writeThirdPartyCopy(unit, out);
      break;
    case 0xb0:
      length = writeBlockLimits(command);
      break;
    case 0xb1:
      // MEDIUM ROTATION RATE 1: nothing rotates.
      writeU16BE(out, 4, 1);
      // WABEREQ, WACEREQ 01b: what was erased reads without errors.
      out[7] = 0x50;
      length = 0x3c;
      break;
    default:
      length = writeLogicalBlockProvisioning(unit);
      break;
  }
  out[0] = DIRECT_ACCESS_BLOCK_DEVICE;
  out[1] = page;
  writeU16BE(out, 2, length);
  return 4 + length;
}

const CODE_BINARY = 1;
const CODE_ASCII = 2;
const CODE_UTF8 = 3;
const OF_TARGET_PORT = 0x10;
const OF_TARGET_DEVICE = 0x20;
const PIV = 0x80;
const PROTOCOL_ISCSI = 0x50;

/** Designators of VPD page 83h (SPC-4 7.8.6); returns the end. */
function writeDeviceIdentification(command: Command): number {
  const { unit, task } = command;
  const out = unit.reply;
  let at = 4;

  // NAA, of the logical unit
  out[at] = CODE_BINARY;
  out[at + 1] = 0x03;
  out[at + 3] = unit.naa.length;
  out.set(unit.naa, at + 4);
  at += 4 + unit.naa.length;

  // T10 vendor, of the logical unit
  out[at] = CODE_ASCII;
  out[at + 1] = 0x01;
  out[at + 3] = 8 + unit.designation.length;
  writeText(out, at + 4, unit.vendor, 8);
  writeText(out, at + 12, unit.designation, unit.designation.length);
  at += 12 + unit.designation.length;

  const { targetPort, relativeTargetPort, frontEnd } = task.nexus;
  const isIscsi = targetPort !== '';
  const port = relativeTargetPort === 0 ? frontEnd.onlyPort : relativeTargetPort;
  if (port > 0) at = writePortDesignator(out, at, isIscsi, RELATIVE_TARGET_PORT, port);
  if (frontEnd.ownGroup >= 0) at = writePortDesignator(out, at, isIscsi, TARGET_PORT_GROUP, frontEnd.ownGroup);
  if (!isIscsi) return at;
  at = writeScsiName(out, at, OF_TARGET_PORT, targetPort);
  const comma = targetPort.indexOf(',');
  return writeScsiName(out, at, OF_TARGET_DEVICE, comma < 0 ? targetPort : targetPort.slice(0, comma));
}

const RELATIVE_TARGET_PORT = 0x04;
const TARGET_PORT_GROUP = 0x05;

function writePortDesignator(out: Uint8Array, at: number, isIscsi: boolean, type: number, id: number): number {
  out[at] = (isIscsi ? PROTOCOL_ISCSI : 0) | CODE_BINARY;
  out[at + 1] = (isIscsi ? PIV : 0) | OF_TARGET_PORT | type;
  out[at + 3] = 4;
  writeU16BE(out, at + 6, id);
  return at + 8;
}

const PORT_HEADER = 12;
/** Descriptor of a name, the longest that there can be. */
const MAX_NAME_DESCRIPTOR = 248;

/** SCSI ports of VPD page 88h (SPC-4 7.8.14): those of the target, by their names; returns the end. */
function writeScsiPorts({ unit, task }: Command): number {
  const out = unit.reply;
  const { targetPort, frontEnd } = task.nexus;
  const nameLength = targetPort.lastIndexOf(',t,0x');
  let at = 4;
  for (const port of frontEnd.ports) {
    if (at + PORT_HEADER + MAX_NAME_DESCRIPTOR > out.length) break;
    out.fill(0, at, at + PORT_HEADER + MAX_NAME_DESCRIPTOR);
    writeU16BE(out, at + 2, port);
    const begin = at + PORT_HEADER;
    const tag = port.toString(16).padStart(4, '0');
    const end =
      nameLength < 0
        ? begin
        : writeScsiName(out, begin, OF_TARGET_PORT, `${targetPort.slice(0, nameLength)},t,0x${tag}`);
    writeU16BE(out, at + 10, end - begin);
    at = end;
  }
  return at;
}

/** A SCSI name string: UTF-8, ended and filled with NUL to a multiple of four. iSCSI names have at most 223 bytes. */
function writeScsiName(out: Uint8Array, at: number, association: number, name: string): number {
  const text = Buffer.from(name.slice(0, 240), 'utf8').subarray(0, 240);
  const length = Math.ceil((text.length + 1) / 4) * 4;
  out[at] = PROTOCOL_ISCSI | CODE_UTF8;
  out[at + 1] = PIV | association | 0x08;
  out[at + 3] = length;
  out.set(text, at + 4);
  return at + 4 + length;
}

/** VPD page 86h (SPC-4 7.8.7). */
function writeExtendedInquiry(command: Command, out: Uint8Array): number {
  // HEADSUP, ORDSUP, SIMPSUP; LIO hands over simple tasks only.
  out[5] = command.task.nexus.frontEnd.managesTasks ? 0x07 : 0x01;
  // V_SUP: there is a volatile write cache.
  out[6] = 0x01;
  // LUICLR: REPORT LUNS takes back what it reports, at every logical unit of the target.
  out[7] = 0x01;
  return 0x3c;
}

/** VPD page B0h (SBC-4 6.6.4). */
function writeBlockLimits(command: Command): number {
  const { unit } = command;
  const out = unit.reply;
  const maxTransfer = maxTransferBlocks(command.task.nexus.frontEnd, unit.blockSize);
  const maxAtomic = atomicLimit(command);
  const granularity = Math.max(1, Math.floor(unit.backend.unmapGranularityBytes / unit.blockSize));
  // WSNZ stays 0: NUMBER OF LOGICAL BLOCKS 0 of WRITE SAME means to the end.
  out[5] = compareAndWriteLimit(command);
  // OPTIMAL TRANSFER LENGTH GRANULARITY, of which initiators want OPTIMAL TRANSFER LENGTH to be a multiple; 0 where it does not fit
  writeU16BE(out, 6, granularity > 0xffff ? 0 : granularity);
  writeU32BE(out, 8, maxTransfer);
  writeU32BE(out, 12, optimalTransferBlocks(unit, granularity, maxTransfer));
  writeU64BE(out, 36, unit.maxWriteSameBlocks);
  // MAXIMUM ATOMIC TRANSFER LENGTH, ATOMIC ALIGNMENT and GRANULARITY, 0 where any will do; no boundaries
  writeU32BE(out, 44, maxAtomic);
  if (maxAtomic > 0 && unit.atomicGranularity > 1) {
    writeU32BE(out, 48, unit.atomicGranularity);
    writeU32BE(out, 52, unit.atomicGranularity);
  }
  if (!unit.unmaps) return 0x3c;
  // MAXIMUM UNMAP LBA COUNT: no limit
  writeU32BE(out, 20, 0xffffffff);
  writeU32BE(out, 24, MAX_UNMAP_DESCRIPTORS);
  writeU32BE(out, 28, granularity);
  // UGAVALID, alignment 0
  writeU32BE(out, 32, 0x80000000);
  return 0x3c;
}

/** Whole blocks of the pool in about a mebibyte; at least one where a transfer may be that long. */
function optimalTransferBlocks(unit: UnitState, granularity: number, maxTransfer: number): number {
  const usual = Math.max(1, Math.floor(MIB / unit.blockSize));
  const whole = granularity > usual ? granularity : roundDown(usual, granularity);
  if (whole <= maxTransfer) return whole;
  return granularity <= maxTransfer ? roundDown(maxTransfer, granularity) : Math.min(maxTransfer, usual);
}

/** VPD page B2h (SBC-4 6.6.6). */
function writeLogicalBlockProvisioning(unit: UnitState): number {
  const out = unit.reply;
  if (!unit.unmaps) return 4;
  // THRESHOLD EXPONENT 0: no thresholds
  out[4] = unit.thresholds?.exponent ?? 0;
  // LBPU, LBPWS, LBPWS10, LBPRZ 001b, ANC_SUP: what is to be anchored is mapped
  out[5] = unit.backend.unmappedReadsZeroes ? 0xe6 : 0xe2;
  // PROVISIONING TYPE: thin
  out[6] = 0x02;
  return 4;
}
