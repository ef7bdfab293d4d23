import { readU16BE, readU32BE, writeU16BE, writeU32BE } from '../base/bytes.ts';
import type { Command, CommandHandler, CommandRow } from './command.ts';

/** What the logical unit supports, out of the table that it works by. */
const ALL = 0;
const ONE_WITHOUT_SERVICE_ACTION = 1;
const ONE_WITH_SERVICE_ACTION = 2;
const ONE = 3;
const TIMEOUTS_LENGTH = 12;
const NOT_SUPPORTED = 1;
const SUPPORTED_AS_STANDARD = 3;

/** REPORT SUPPORTED OPERATION CODES (SPC-4 6.35), out of the same table that dispatches. */
export const reportOperationCodes: CommandHandler = {
  prepare(command: Command): boolean {
    const { cdb } = command.task;
    const option = cdb[2]! & 0x07;
    if (option > ONE) return command.checkCdb(2, 2);
    const hasActions = command.table.hasServiceActions(cdb[3]!);
    if (option === ONE_WITHOUT_SERVICE_ACTION && hasActions) return command.checkCdb(2, 2);
    if (option === ONE_WITH_SERVICE_ACTION && !hasActions && command.table.find(cdb[3]!, 0) !== null) {
      return command.checkCdb(2, 2);
    }
    return command.transferReply(readU32BE(cdb, 6));
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

  step(): void {},
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
export const reportTaskManagement: CommandHandler = {
  prepare(command: Command): boolean {
    return command.transferReply(readU32BE(command.task.cdb, 6));
  },

  execute(command: Command): void {
    const { unit, task } = command;
    const out = unit.reply;
    const extended = (task.cdb[2]! & 0x80) !== 0;
    const length = extended ? 16 : 4;
    out.fill(0, 0, length);
    const { managesTasks } = task.nexus.frontEnd;
    // Of LIO: ABORT TASK, LOGICAL UNIT RESET. Else also ABORT TASK SET, CLEAR TASK SET, QUERY TASK, TARGET RESET.
    out[0] = managesTasks ? 0x88 | 0x40 | 0x10 | 0x04 | 0x02 : 0x88;
    // QUERY ASYNCHRONOUS EVENT, QUERY TASK SET, I_T NEXUS RESET
    if (managesTasks) out[1] = 0x04 | 0x02 | 0x01;
    if (extended) out[3] = 0x0c;
    command.finishReply(length, readU32BE(task.cdb, 6));
  },

  step(): void {},
};
