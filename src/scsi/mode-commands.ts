import { readU16BE, readU24BE, readU32BE, readU64BE, writeU16BE, writeU32BE, writeU64BE } from '../base/bytes.ts';
import type { Command, CommandHandler } from './command.ts';
import { MAX_MODE_PAGE_LENGTH, type ModePage } from './mode-pages.ts';
import { PageControl } from './mode-state.ts';
import { INTERNAL_TARGET_FAILURE, PARAMETER_LIST_LENGTH_ERROR, SAVING_PARAMETERS_NOT_SUPPORTED } from './sense.ts';
import { Opcode } from './spec.ts';
import { UnitAttention } from './unit-attention.ts';
import type { UnitState } from './unit-state.ts';

/**
 * MODE SENSE and MODE SELECT (SPC-4 6.11 to 6.14).
 *
 *     list     header | block descriptor (8, or 16 with LONGLBA; none with DBD) | pages
 *     header   6:  0 MODE DATA LENGTH  1 MEDIUM TYPE  2 WP,DPOFUA  3 BLOCK DESCRIPTOR LENGTH
 *              10: 0 MODE DATA LENGTH(2)  2 MEDIUM TYPE  3 WP,DPOFUA  4 LONGLBA  6 BLOCK DESCRIPTOR LENGTH(2)
 */

const ALL_PAGES = 0x3f;
const ALL_SUBPAGES = 0xff;

function isSelected(page: ModePage, code: number, subpage: number): boolean {
  if (code !== ALL_PAGES && code !== page.code) return false;
  return subpage === ALL_SUBPAGES || subpage === page.subpage;
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
    const { modes } = command.unit;
    for (const page of modes.pages) {
      if (isSelected(page, code, subpage)) known = true;
      if (code === page.code) codeKnown = true;
    }
    if (!known) return codeKnown ? command.checkCdb(3) : command.checkCdb(2, 5);
    if (cdb[2]! >>> 6 === PageControl.SAVED && !modes.savable) return command.check(SAVING_PARAMETERS_NOT_SUPPORTED);
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
    for (const page of unit.modes.pages) {
      if (isSelected(page, cdb[2]! & 0x3f, cdb[3]!)) {
        unit.modes.write(page, (cdb[2]! >>> 6) as PageControl, out, end);
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
const PF = 0x10;
const SP = 0x01;

function parameterListLength(cdb: Uint8Array): number {
  return cdb[0] === Opcode.MODE_SELECT_6 ? cdb[4]! : readU16BE(cdb, 7);
}

export const modeSelect: CommandHandler = {
  prepare(command: Command): boolean {
    const { cdb } = command.task;
    // PF 0 means vendor-specific pages, which do not exist.
    if ((cdb[1]! & PF) === 0) return command.checkCdb(1, 4);
    if ((cdb[1]! & SP) !== 0 && !command.unit.modes.savable) return command.checkCdb(1, 0);
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
    const pages = checkPages(command, list, pagesAt, length);
    if (pages === null) return;
    if ((task.cdb[1]! & SP) !== 0 && pages.size > 0) {
      save(command, pages);
      return;
    }
    apply(command, pages);
    command.finish();
  },

  step(command: Command): void {
    command.finish();
  },
};

type SelectedPages = ReadonlyMap<ModePage, Uint8Array>;

/** What cannot be saved is not set either. */
function save(command: Command, pages: SelectedPages): void {
  const { unit } = command;
  unit.keep(
    { ...unit.memory, modePages: unit.modes.savedWith(pages) },
    () => {
      for (const [page, bytes] of pages) unit.modes.setSaved(page, bytes);
      apply(command, pages);
      command.resume();
    },
    () => command.fail(INTERNAL_TARGET_FAILURE),
  );
}

function apply(command: Command, pages: SelectedPages): void {
  const { unit, task } = command;
  let changed = false;
  for (const [page, bytes] of pages) if (unit.modes.select(page, bytes)) changed = true;
  if (changed) unit.raiseAttention(UnitAttention.MODE_PARAMETERS_CHANGED, task.nexus);
}

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
function pageAt(unit: UnitState, list: Uint8Array, at: number): ModePage | null {
  const hasSubpage = (list[at]! & 0x40) !== 0;
  const code = list[at]! & 0x3f;
  const subpage = hasSubpage ? list[at + 1]! : 0;
  for (const page of unit.modes.pages) {
    if (page.code === code && page.subpage === subpage && hasSubpage === page.subpage > 0) return page;
  }
  return null;
}

const current = new Uint8Array(MAX_MODE_PAGE_LENGTH);

/** The pages of a list, if every one is known, whole, and changes only what is changeable; otherwise the command has failed: null. */
function checkPages(command: Command, list: Uint8Array, begin: number, end: number): SelectedPages | null {
  const { unit } = command;
  const pages = new Map<ModePage, Uint8Array>();
  let at = begin;
  while (at < end) {
    if (at + 4 > end && (at + 2 > end || (list[at]! & 0x40) !== 0)) {
      command.fail(PARAMETER_LIST_LENGTH_ERROR);
      return null;
    }
    const page = pageAt(unit, list, at);
    if (page === null) {
      command.failParameter(at, 5);
      return null;
    }
    const length = page.subpage === 0 ? list[at + 1]! + 2 : readU16BE(list, at + 2) + 4;
    if (length !== page.length) {
      command.failParameter(page.subpage === 0 ? at + 1 : at + 2);
      return null;
    }
    if (at + length > end) {
      command.fail(PARAMETER_LIST_LENGTH_ERROR);
      return null;
    }
    unit.modes.write(page, PageControl.CURRENT, current, 0);
    for (let i = page.subpage === 0 ? 2 : 4; i < length; i++) {
      const wrong = (list[at + i]! ^ current[i]!) & ~(page.changeable.get(i) ?? 0);
      if (wrong !== 0) {
        command.failParameter(at + i, 31 - Math.clz32(wrong));
        return null;
      }
    }
    pages.set(page, list.slice(at, at + length));
    at += length;
  }
  return pages;
}
