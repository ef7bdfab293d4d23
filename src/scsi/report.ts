import { readU16BE, readU32BE, writeU16BE, writeU32BE, writeU64BE } from '../base/bytes.ts';
import type { Command, CommandHandler, CommandRow } from './command.ts';
import { encodeLun } from './lun.ts';
import {
  LOGICAL_UNIT_NOT_SUPPORTED,
  NO_INFORMATION,
  NO_SENSE,
  NO_SKS,
  NOT_READY_INITIALIZING_COMMAND_REQUIRED,
  writeSense,
} from './sense.ts';

/** Commands that tell something and touch no medium. */

const nothing = (): void => {};

/** TEST UNIT READY (SPC-4 6.47). */
export const testUnitReady: CommandHandler = {
  prepare: (command: Command): boolean =>
    command.unit.stopped ? command.check(NOT_READY_INITIALIZING_COMMAND_REQUIRED) : command.transferNone(),
  execute: (command: Command): void => command.finish(),
  step: nothing,
};

/** REQUEST SENSE (SPC-4 6.39): a pending unit attention as parameter data, which clears it. */
export const requestSense: CommandHandler = {
  prepare: (command: Command): boolean => command.transferIn(command.task.cdb[4]!),

  execute(command: Command): void {
    const { task, unit, nexusState } = command;
    let sense = nexusState ? nexusState.attentions.take() : NO_SENSE;
    if (sense === NO_SENSE && unit.stopped) sense = NOT_READY_INITIALIZING_COMMAND_REQUIRED;
    const descriptorFormat = (task.cdb[1]! & 1) !== 0;
    const length = writeSense(unit.reply, descriptorFormat, sense, NO_INFORMATION, NO_SKS);
    command.finishReply(length, task.cdb[4]!);
  },

  step: nothing,
};

/** REQUEST SENSE of a LUN without a unit. */
export const requestSenseOfAbsent: CommandHandler = {
  prepare: (command: Command): boolean => command.transferIn(command.task.cdb[4]!),

  execute(command: Command): void {
    const { task, unit } = command;
    const descriptorFormat = (task.cdb[1]! & 1) !== 0;
    const length = writeSense(unit.reply, descriptorFormat, LOGICAL_UNIT_NOT_SUPPORTED, NO_INFORMATION, NO_SKS);
    command.finishReply(length, task.cdb[4]!);
  },

  step: nothing,
};

const CAPACITY_10_LENGTH = 8;

/** READ CAPACITY(10) (SBC-4 5.20). */
export const readCapacity10: CommandHandler = {
  prepare: (command: Command): boolean => command.transferIn(CAPACITY_10_LENGTH),

  execute(command: Command): void {
    const { unit } = command;
    writeU32BE(unit.reply, 0, Math.min(unit.blockCount - 1, 0xffffffff));
    writeU32BE(unit.reply, 4, unit.blockSize);
    command.finishReply(CAPACITY_10_LENGTH, CAPACITY_10_LENGTH);
  },

  step: nothing,
};

const CAPACITY_16_LENGTH = 32;

/** READ CAPACITY(16) (SBC-4 5.21). */
export const readCapacity16: CommandHandler = {
  prepare(command: Command): boolean {
    return command.transferIn(Math.min(readU32BE(command.task.cdb, 10), CAPACITY_16_LENGTH));
  },

  execute(command: Command): void {
    const { unit, task } = command;
    const out = unit.reply;
    out.fill(0, 0, CAPACITY_16_LENGTH);
    writeU64BE(out, 0, unit.blockCount - 1);
    writeU32BE(out, 8, unit.blockSize);
    out[13] = unit.physicalBlockExponent;
    // LBPME, LBPRZ
    out[14] = 0xc0;
    command.finishReply(CAPACITY_16_LENGTH, readU32BE(task.cdb, 10));
  },

  step: nothing,
};

/** LUNs that fit a reply. */
export const MAX_REPORTED_LUNS = 1000;

/** REPORT LUNS (SPC-4 6.33). There are no well-known logical units. */
export const reportLuns: CommandHandler = {
  prepare(command: Command): boolean {
    const { cdb } = command.task;
    if (cdb[2]! > 2) return command.checkCdb(2);
    return command.transferIn(readU32BE(cdb, 6));
  },

  execute(command: Command): void {
    const { unit, task, inventory } = command;
    const luns = task.cdb[2] === 1 ? [] : inventory.luns;
    const end = writeLunList(unit.reply, luns);
    inventory.inventoryReported(command);
    command.finishReply(end, readU32BE(task.cdb, 6));
  },

  step: nothing,
};

/** LUN LIST LENGTH and the LUNs; returns the length. */
function writeLunList(out: Uint8Array, luns: readonly number[]): number {
  out.fill(0, 0, 8);
  writeU32BE(out, 0, 8 * luns.length);
  for (let i = 0; i < luns.length; i++) encodeLun(luns[i]!, out, 8 + 8 * i);
  return 8 + 8 * luns.length;
}

const ALL = 0;
const ONE_WITHOUT_SERVICE_ACTION = 1;
const ONE_WITH_SERVICE_ACTION = 2;
const ONE = 3;
const TIMEOUTS_LENGTH = 12;
const NOT_SUPPORTED = 1;
const SUPPORTED_AS_STANDARD = 3;

/** REPORT SUPPORTED OPERATION CODES (SPC-4 6.35), out of the same table that dispatches. */
export const reportSupportedOperationCodes: CommandHandler = {
  prepare(command: Command): boolean {
    const { cdb } = command.task;
    const option = cdb[2]! & 0x07;
    if (option > ONE) return command.checkCdb(2, 2);
    if (option !== ALL) {
      const hasActions = command.table.hasServiceActions(cdb[3]!);
      if (option === ONE_WITHOUT_SERVICE_ACTION && hasActions) return command.checkCdb(2, 2);
      if (option === ONE_WITH_SERVICE_ACTION && !hasActions) return command.checkCdb(2, 2);
    }
    return command.transferIn(readU32BE(cdb, 6));
  },

  execute(command: Command): void {
    const { unit, task, table } = command;
    const { cdb } = task;
    const withTimeouts = (cdb[2]! & 0x80) !== 0;
    const length =
      (cdb[2]! & 0x07) === ALL
        ? writeAllCommands(unit.reply, table.rows, withTimeouts)
        : writeOneCommand(unit.reply, findRequested(command), withTimeouts);
    command.finishReply(length, readU32BE(cdb, 6));
  },

  step: nothing,
};

function findRequested(command: Command): CommandRow | null {
  const { cdb } = command.task;
  const serviceAction = readU16BE(cdb, 4);
  const row = command.table.find(cdb[3]!, serviceAction);
  // Option 3 asks for an opcode without service actions by action 0 (SPC-4 table 287).
  return row && row.serviceAction < 0 && (cdb[2]! & 0x07) === ONE && serviceAction !== 0 ? null : row;
}

function writeAllCommands(out: Uint8Array, rows: readonly CommandRow[], withTimeouts: boolean): number {
  let at = 4;
  for (const row of rows) {
    out.fill(0, at, at + 8);
    out[at] = row.opcode;
    if (row.serviceAction >= 0) writeU16BE(out, at + 2, row.serviceAction);
    out[at + 5] = (withTimeouts ? 2 : 0) | (row.serviceAction >= 0 ? 1 : 0);
    writeU16BE(out, at + 6, row.cdbLength);
    at += 8;
    if (withTimeouts) at = writeTimeouts(out, at, row);
  }
  writeU32BE(out, 0, at - 4);
  return at;
}

function writeOneCommand(out: Uint8Array, row: CommandRow | null, withTimeouts: boolean): number {
  out.fill(0, 0, 4);
  if (row === null) {
    out[1] = NOT_SUPPORTED;
    return 4;
  }
  out[1] = (withTimeouts ? 0x80 : 0) | SUPPORTED_AS_STANDARD;
  writeU16BE(out, 2, row.cdbLength);
  out.set(row.usage, 4);
  const at = 4 + row.cdbLength;
  return withTimeouts ? writeTimeouts(out, at, row) : at;
}

/** Command timeouts descriptor: no nominal time, the row's recommended one. */
function writeTimeouts(out: Uint8Array, at: number, row: CommandRow): number {
  out.fill(0, at, at + TIMEOUTS_LENGTH);
  writeU16BE(out, at, TIMEOUTS_LENGTH - 2);
  writeU32BE(out, at + 8, row.recommendedTimeoutSeconds);
  return at + TIMEOUTS_LENGTH;
}

/** REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS (SPC-4 6.36). */
export const reportTaskManagementFunctions: CommandHandler = {
  prepare(command: Command): boolean {
    return command.transferIn(readU32BE(command.task.cdb, 6));
  },

  execute(command: Command): void {
    const { unit, task } = command;
    const out = unit.reply;
    const extended = (task.cdb[2]! & 0x80) !== 0;
    const length = extended ? 16 : 4;
    out.fill(0, 0, length);
    // ATS, ATSS, CTSS, LURS: abort task, abort task set, clear task set, logical unit reset
    out[0] = 0x80 | 0x40 | 0x10 | 0x08;
    if (extended) out[3] = 0x0c;
    command.finishReply(length, readU32BE(task.cdb, 6));
  },

  step: nothing,
};

/**
 * READ DEFECT DATA (SBC-4 5.24, 5.25): empty lists in the format asked for; a thin volume's medium has no defects that an initiator could know
 * about.
 */
function readDefectData(allocationAt: number, formatAt: number, headerLength: number): CommandHandler {
  const allocation = (command: Command): number =>
    allocationAt === 7 ? readU16BE(command.task.cdb, 7) : readU32BE(command.task.cdb, 6);
  return {
    prepare: (command: Command): boolean => command.transferIn(Math.min(allocation(command), headerLength)),

    execute(command: Command): void {
      const { unit, task } = command;
      unit.reply.fill(0, 0, headerLength);
      // The PLISTV, GLISTV and format bits come back as asked.
      unit.reply[1] = task.cdb[formatAt]! & 0x1f;
      command.finishReply(headerLength, allocation(command));
    },

    step: nothing,
  };
}

export const readDefectData10: CommandHandler = readDefectData(7, 2, 4);
export const readDefectData12: CommandHandler = readDefectData(6, 1, 8);
