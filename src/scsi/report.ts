import { readU16BE, readU32BE, writeU16BE, writeU32BE, writeU64BE } from '../base/bytes.ts';
import type { Command, CommandHandler } from './command.ts';
import { encodeLun } from './lun.ts';
import {
  LOGICAL_UNIT_NOT_SUPPORTED,
  MEDIUM_NOT_PRESENT,
  NO_INFORMATION,
  NO_SENSE,
  NO_SKS,
  writeSense,
} from './sense.ts';

/** Commands that tell something and touch no medium. */

const nothing = (): void => {};

/** TEST UNIT READY (SPC-4 6.47). */
export const testUnitReady: CommandHandler = {
  prepare: (command: Command): boolean => command.transferNone(),
  execute: (command: Command): void => command.finish(),
  step: nothing,
};

/** REQUEST SENSE (SPC-4 6.39): a pending unit attention as parameter data, which clears it. */
export const requestSense: CommandHandler = {
  prepare: (command: Command): boolean => command.transferIn(command.task.cdb[4]!),

  execute(command: Command): void {
    const { task, unit, nexusState } = command;
    let sense = nexusState ? nexusState.attentions.take() : NO_SENSE;
    let sks = NO_SKS;
    if (sense === NO_SENSE && unit.operation !== null) {
      sense = unit.operation.sense;
      sks = unit.operation.sks;
    } else if (sense === NO_SENSE && !unit.mediumPresent) sense = MEDIUM_NOT_PRESENT;
    const descriptorFormat = (task.cdb[1]! & 1) !== 0;
    const length = writeSense(unit.reply, descriptorFormat, sense, NO_INFORMATION, sks);
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

const TIMESTAMP_LENGTH = 12;

/** REPORT TIMESTAMP (SPC-4 6.38): milliseconds since the process began (origin 000b); nobody can set it. */
export const reportTimestamp: CommandHandler = {
  prepare: (command: Command): boolean => command.transferReply(readU32BE(command.task.cdb, 6)),

  execute(command: Command): void {
    const { unit, task } = command;
    const out = unit.reply;
    const now = Math.floor(unit.clock?.nowMs() ?? 0);
    out.fill(0, 0, TIMESTAMP_LENGTH);
    writeU64BE(out, 2, now);
    // Below 2^48, so that what lies under the upper bytes is zero.
    writeU16BE(out, 0, TIMESTAMP_LENGTH - 2);
    command.finishReply(TIMESTAMP_LENGTH, readU32BE(task.cdb, 6));
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
    if (unit.unmaps) out[14] = unit.backend.unmappedReadsZeroes ? 0xc0 : 0x80;
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
    return command.transferReply(readU32BE(cdb, 6));
  },

  execute(command: Command): void {
    const { unit, task, inventory } = command;
    const luns = task.cdb[2] === 1 ? [] : inventory.luns(task.nexus);
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
