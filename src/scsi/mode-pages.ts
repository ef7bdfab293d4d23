import { readU16BE, readU24BE, readU32BE, readU64BE, writeU16BE, writeU32BE, writeU64BE } from '../base/bytes.ts';
import type { Command, CommandHandler } from './command.ts';
import { PARAMETER_LIST_LENGTH_ERROR, SAVING_PARAMETERS_NOT_SUPPORTED } from './sense.ts';
import { Opcode } from './spec.ts';
import { UnitAttention } from './unit-attention.ts';
import type { UnitState } from './unit-state.ts';

/**
 * MODE SENSE and MODE SELECT (SPC-4 6.11 to 6.14) and the mode pages (SPC-4 7.5, SBC-4 6.5).
 *
 *     list     header | block descriptor (8, or 16 with LONGLBA; none with DBD) | pages
 *     header   6:  0 MODE DATA LENGTH  1 MEDIUM TYPE  2 WP,DPOFUA  3 BLOCK DESCRIPTOR LENGTH
 *              10: 0 MODE DATA LENGTH(2)  2 MEDIUM TYPE  3 WP,DPOFUA  4 LONGLBA  6 BLOCK DESCRIPTOR LENGTH(2)
 *     page     0 PS,SPF,PAGE CODE  1 LENGTH | 1 SUBPAGE CODE  2 LENGTH(2)
 */

const PageControl = { CURRENT: 0, CHANGEABLE: 1, DEFAULT: 2, SAVED: 3 } as const;

interface ModePage {
  readonly code: number;
  /** 0: page_0 format. */
  readonly subpage: number;
  /** With its header. */
  readonly length: number;
  /** Fills `out` at `at` for one page control; the bytes are zero and the header is written. */
  write(unit: UnitState, control: number, out: Uint8Array, at: number): void;
  /** Takes what the initiator set; only bits that `write` calls changeable differ from the current ones. */
  apply(unit: UnitState, bytes: Uint8Array): void;
}

const ALL_PAGES = 0x3f;
const ALL_SUBPAGES = 0xff;

const WCE = 0x04;
/** Caching (SBC-4 6.5.6). */
const cachingPage: ModePage = {
  code: 0x08,
  subpage: 0,
  length: 20,
  write(unit, control, out, at) {
    const writeCache =
      control === PageControl.CHANGEABLE ||
      (control === PageControl.DEFAULT ? unit.defaultWriteCache : unit.writeCache);
    out[at + 2] = writeCache ? WCE : 0;
  },
  apply(unit, bytes) {
    unit.writeCache = (bytes[2]! & WCE) !== 0;
  },
};

const D_SENSE = 0x04;
const SWP = 0x08;
const TAS = 0x40;
/** Control (SPC-4 7.5.8). */
const controlPage: ModePage = {
  code: 0x0a,
  subpage: 0,
  length: 12,
  write(unit, control, out, at) {
    if (control === PageControl.CHANGEABLE) {
      out[at + 2] = D_SENSE;
      out[at + 4] = SWP;
      out[at + 5] = TAS;
      return;
    }
    const current = control === PageControl.CURRENT;
    out[at + 2] = current && unit.descriptorSense ? D_SENSE : 0;
    // TST 0: one task set for all nexuses. QERR 0: what fails does not touch other tasks. QUEUE ALGORITHM MODIFIER 1: unrestricted reordering.
    out[at + 3] = 0x10;
    out[at + 4] = current && unit.softwareWriteProtect ? SWP : 0;
    out[at + 5] = current && unit.taskSet.reportsAborted ? TAS : 0;
    // BUSY TIMEOUT PERIOD: unlimited
    writeU16BE(out, at + 8, 0xffff);
  },
  apply(unit, bytes) {
    unit.descriptorSense = (bytes[2]! & D_SENSE) !== 0;
    unit.softwareWriteProtect = (bytes[4]! & SWP) !== 0;
    unit.taskSet.reportsAborted = (bytes[5]! & TAS) !== 0;
  },
};

/** Control extension (SPC-4 7.5.9). */
const controlExtensionPage: ModePage = {
  code: 0x0a,
  subpage: 0x01,
  length: 32,
  write() {},
  apply() {},
};

/** Ascending by page and subpage code, as MODE SENSE returns them. */
const PAGES: readonly ModePage[] = [cachingPage, controlPage, controlExtensionPage];
const MAX_PAGE_LENGTH = 32;

function isSelected(page: ModePage, code: number, subpage: number): boolean {
  if (code !== ALL_PAGES && code !== page.code) return false;
  return subpage === ALL_SUBPAGES || subpage === page.subpage;
}

function writePage(unit: UnitState, page: ModePage, control: number, out: Uint8Array, at: number): void {
  out.fill(0, at, at + page.length);
  if (page.subpage === 0) {
    out[at] = page.code;
    out[at + 1] = page.length - 2;
  } else {
    out[at] = 0x40 | page.code;
    out[at + 1] = page.subpage;
    writeU16BE(out, at + 2, page.length - 4);
  }
  page.write(unit, control, out, at);
}

function allocationLength(cdb: Uint8Array): number {
  return cdb[0] === Opcode.MODE_SENSE_6 ? cdb[4]! : readU16BE(cdb, 7);
}

export const modeSense: CommandHandler = {
  prepare(command: Command): boolean {
    const { cdb } = command.task;
    const code = cdb[2]! & 0x3f;
    const subpage = cdb[3]!;
    if (code === ALL_PAGES && subpage !== 0 && subpage !== ALL_SUBPAGES) return command.checkCdb(3);
    let known = false;
    let codeKnown = false;
    for (const page of PAGES) {
      if (isSelected(page, code, subpage)) known = true;
      if (code === page.code) codeKnown = true;
    }
    if (!known) return codeKnown ? command.checkCdb(3) : command.checkCdb(2, 5);
    if (cdb[2]! >>> 6 === PageControl.SAVED) return command.check(SAVING_PARAMETERS_NOT_SUPPORTED);
    return command.transferIn(allocationLength(cdb));
  },

  execute(command: Command): void {
    const { unit, task } = command;
    const { cdb } = task;
    const out = unit.reply;
    const six = cdb[0] === Opcode.MODE_SENSE_6;
    const headerLength = six ? 4 : 8;
    out.fill(0, 0, headerLength + 16);
    const longLba = !six && (cdb[1]! & 0x10) !== 0;
    const descriptorLength = (cdb[1]! & 0x08) !== 0 ? 0 : longLba ? 16 : 8;
    let end = headerLength;
    if (descriptorLength > 0) {
      writeBlockDescriptor(unit, longLba, out, end);
      end += descriptorLength;
    }
    for (const page of PAGES) {
      if (isSelected(page, cdb[2]! & 0x3f, cdb[3]!)) {
        writePage(unit, page, cdb[2]! >>> 6, out, end);
        end += page.length;
      }
    }
    // WP and DPOFUA
    const deviceSpecific = (command.writeProtected ? 0x80 : 0) | 0x10;
    if (six) {
      out[0] = end - 1;
      out[2] = deviceSpecific;
      out[3] = descriptorLength;
    } else {
      writeU16BE(out, 0, end - 2);
      out[3] = deviceSpecific;
      out[4] = longLba && descriptorLength > 0 ? 1 : 0;
      writeU16BE(out, 6, descriptorLength);
    }
    command.finishReply(end, allocationLength(cdb));
  },

  step(): void {},
};

/** Short: NUMBER OF LOGICAL BLOCKS(4) 0 LOGICAL BLOCK LENGTH(3); long: NUMBER(8) 0(4) LENGTH(4) (SBC-4 6.5.2). */
function writeBlockDescriptor(unit: UnitState, longLba: boolean, out: Uint8Array, at: number): void {
  if (longLba) {
    writeU64BE(out, at, unit.blockCount);
    writeU32BE(out, at + 12, unit.blockSize);
  } else {
    writeU32BE(out, at, Math.min(unit.blockCount, 0xffffffff));
    // Below 2^24, so the reserved byte before it stays zero.
    writeU32BE(out, at + 4, unit.blockSize);
  }
}

const MAX_PARAMETER_LIST = 4096;

function parameterListLength(cdb: Uint8Array): number {
  return cdb[0] === Opcode.MODE_SELECT_6 ? cdb[4]! : readU16BE(cdb, 7);
}

export const modeSelect: CommandHandler = {
  prepare(command: Command): boolean {
    const { cdb } = command.task;
    // PF 0 means vendor-specific pages, SP 1 saved ones: neither exists.
    if ((cdb[1]! & 0x10) === 0) return command.checkCdb(1, 4);
    if ((cdb[1]! & 0x01) !== 0) return command.checkCdb(1, 0);
    const length = parameterListLength(cdb);
    if (length > MAX_PARAMETER_LIST) return command.checkCdb(7);
    if (command.task.expectedDataOut < length) return command.check(PARAMETER_LIST_LENGTH_ERROR);
    return command.transferOut(length);
  },

  execute(command: Command): void {
    const { unit, task } = command;
    const length = task.dataOutLength;
    if (length === 0) {
      command.finish();
      return;
    }
    const list = unit.reply;
    task.dataOut.copyTo(list, 0, 0, length);
    const six = task.cdb[0] === Opcode.MODE_SELECT_6;
    const headerLength = six ? 4 : 8;
    if (length < headerLength) {
      command.fail(PARAMETER_LIST_LENGTH_ERROR);
      return;
    }
    // MODE DATA LENGTH is reserved here; MEDIUM TYPE is 0; the device-specific byte is ignored (SBC-4 6.5.1: WP, DPOFUA).
    if (list[six ? 1 : 2] !== 0) {
      command.failParameter(six ? 1 : 2);
      return;
    }
    const longLba = !six && (list[4]! & 1) !== 0;
    const descriptorLength = six ? list[3]! : readU16BE(list, 6);
    if (descriptorLength !== 0 && descriptorLength !== (longLba ? 16 : 8)) {
      command.failParameter(six ? 3 : 6);
      return;
    }
    const pagesAt = headerLength + descriptorLength;
    if (length < pagesAt) {
      command.fail(PARAMETER_LIST_LENGTH_ERROR);
      return;
    }
    if (descriptorLength !== 0) {
      const wrong = wrongDescriptorField(unit, longLba, list, headerLength);
      if (wrong >= 0) {
        command.failParameter(wrong);
        return;
      }
    }
    // Everything is checked before anything changes.
    if (!checkPages(command, list, pagesAt, length)) return;
    if (applyPages(unit, list, pagesAt, length)) unit.raiseAttention(UnitAttention.MODE_PARAMETERS_CHANGED, task.nexus);
    command.finish();
  },

  step(): void {},
};

/** The block descriptor may only say what is so: byte of the first field that says otherwise, or -1. */
function wrongDescriptorField(unit: UnitState, longLba: boolean, list: Uint8Array, at: number): number {
  const count = longLba ? readU64BE(list, at) : readU32BE(list, at);
  const everything = longLba ? 2 ** 64 : 0xffffffff;
  if (count !== 0 && count !== unit.blockCount && count !== everything) return at;
  const lengthAt = longLba ? at + 12 : at + 5;
  const blockLength = longLba ? readU32BE(list, lengthAt) : readU24BE(list, lengthAt);
  return blockLength === unit.blockSize ? -1 : lengthAt;
}

/** The page that starts at `at`, or null when there is none of that code and length. */
function pageAt(list: Uint8Array, at: number): ModePage | null {
  const hasSubpage = (list[at]! & 0x40) !== 0;
  const code = list[at]! & 0x3f;
  const subpage = hasSubpage ? list[at + 1]! : 0;
  for (const page of PAGES) {
    if (page.code === code && page.subpage === subpage && hasSubpage === page.subpage > 0) return page;
  }
  return null;
}

const current = new Uint8Array(MAX_PAGE_LENGTH);
const changeable = new Uint8Array(MAX_PAGE_LENGTH);

/** True when every page is known, whole, and changes only what is changeable; otherwise the command has failed. */
function checkPages(command: Command, list: Uint8Array, begin: number, end: number): boolean {
  const { unit } = command;
  let at = begin;
  while (at < end) {
    if (at + 4 > end && (at + 2 > end || (list[at]! & 0x40) !== 0)) {
      command.fail(PARAMETER_LIST_LENGTH_ERROR);
      return false;
    }
    const page = pageAt(list, at);
    if (page === null) {
      command.failParameter(at, 5);
      return false;
    }
    const length = page.subpage === 0 ? list[at + 1]! + 2 : readU16BE(list, at + 2) + 4;
    if (length !== page.length) {
      command.failParameter(page.subpage === 0 ? at + 1 : at + 2);
      return false;
    }
    if (at + length > end) {
      command.fail(PARAMETER_LIST_LENGTH_ERROR);
      return false;
    }
    writePage(unit, page, PageControl.CURRENT, current, 0);
    writePage(unit, page, PageControl.CHANGEABLE, changeable, 0);
    for (let i = page.subpage === 0 ? 2 : 4; i < length; i++) {
      const wrong = (list[at + i]! ^ current[i]!) & ~changeable[i]!;
      if (wrong !== 0) {
        command.failParameter(at + i, 31 - Math.clz32(wrong));
        return false;
      }
    }
    at += length;
  }
  return true;
}

/** Takes every page; true when something changed. */
function applyPages(unit: UnitState, list: Uint8Array, begin: number, end: number): boolean {
  const { descriptorSense, softwareWriteProtect, writeCache } = unit;
  const { reportsAborted } = unit.taskSet;
  for (let at = begin; at < end; ) {
    const page = pageAt(list, at)!;
    page.apply(unit, list.subarray(at, at + page.length));
    at += page.length;
  }
  return (
    descriptorSense !== unit.descriptorSense ||
    softwareWriteProtect !== unit.softwareWriteProtect ||
    writeCache !== unit.writeCache ||
    reportsAborted !== unit.taskSet.reportsAborted
  );
}
