import { readU16BE, readU32BE, writeU16BE, writeU32BE } from '../base/bytes.ts';
import type { Command, CommandHandler } from './command.ts';
import { PARAMETER_LIST_LENGTH_ERROR } from './sense.ts';

/**
 * REPORT TARGET PORT GROUPS and SET TARGET PORT GROUPS (SPC-4 6.37, 6.45).
 *
 *     0  RETURN DATA LENGTH(4)  with FORMAT 001b: 4 10h  5 IMPLICIT TRANSITION TIME
 *     set: 4 descriptors: STATE 0 GROUP(2)
 *     group: 0 PREF,STATE  1 supported states  2 GROUP(2)  5 STATUS CODE  7 PORT COUNT  8 ports: 0(2) RELATIVE TARGET PORT IDENTIFIER(2)
 */

const DESCRIPTOR_LENGTH = 4;
const LIST_HEADER = 4;
const MAX_DESCRIPTORS = 64;

/** The one group that all ports are in. */
export const TARGET_PORT_GROUP = 1;

const EXTENDED_HEADER = 0x20;
const ACTIVE_OPTIMIZED = 0x00;
const ACTIVE_OPTIMIZED_SUPPORTED = 0x01;

export const reportTargetPortGroups: CommandHandler = {
  prepare(command: Command): boolean {
    return command.transferReply(readU32BE(command.task.cdb, 6));
  },

  execute(command: Command): void {
    const { unit, task, inventory } = command;
    const { targetPorts } = inventory;
    const out = unit.reply;
    const extended = (task.cdb[1]! & EXTENDED_HEADER) !== 0;
    let at = extended ? 8 : 4;
    const end = at + 8 + 4 * targetPorts.length;
    out.fill(0, 0, end);
    writeU32BE(out, 0, end - 4);
    if (extended) out[4] = 0x10;
    out[at] = ACTIVE_OPTIMIZED;
    out[at + 1] = ACTIVE_OPTIMIZED_SUPPORTED;
    writeU16BE(out, at + 2, TARGET_PORT_GROUP);
    out[at + 7] = targetPorts.length;
    at += 8;
    for (const port of targetPorts) {
      writeU16BE(out, at + 2, port);
      at += 4;
    }
    command.finishReply(end, readU32BE(task.cdb, 6));
  },

  step(): void {},
};

/** Every path is active and optimized, and stays so: that is what may be set. */
export const setTargetPortGroups: CommandHandler = {
  prepare(command: Command): boolean {
    const { cdb, expectedDataOut } = command.task;
    const length = readU32BE(cdb, 6);
    if (length === 0) return command.transferNone();
    if (length > LIST_HEADER + MAX_DESCRIPTORS * DESCRIPTOR_LENGTH) return command.checkCdb(6);
    const isWhole = length > LIST_HEADER && (length - LIST_HEADER) % DESCRIPTOR_LENGTH === 0;
    if (!isWhole || expectedDataOut < length) return command.check(PARAMETER_LIST_LENGTH_ERROR);
    return command.transferOut(length);
  },

  execute(command: Command): void {
    const { task, bytes } = command;
    for (let at = LIST_HEADER; at < task.dataOutLength; at += DESCRIPTOR_LENGTH) {
      task.dataOut.copyTo(bytes, 0, at, DESCRIPTOR_LENGTH);
      if ((bytes[0]! & 0x0f) !== ACTIVE_OPTIMIZED) {
        command.failParameter(at, 3);
        return;
      }
      if (readU16BE(bytes, 2) !== TARGET_PORT_GROUP) {
        command.failParameter(at + 2);
        return;
      }
    }
    command.finish();
  },

  step(): void {},
};
