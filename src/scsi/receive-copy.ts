import { readU32BE, writeU16BE, writeU32BE, writeU64BE } from '../base/bytes.ts';
import { roundUp } from '../base/units.ts';
import type { Command, CommandHandler } from './command.ts';
import {
  MAX_COPY_RECORDS,
  MAX_CSCD_DESCRIPTORS,
  MAX_DESCRIPTOR_LIST_LENGTH,
  MAX_SEGMENT_DESCRIPTORS,
  MAX_SEGMENT_LENGTH,
} from './copy-limits.ts';
import { DESCRIPTOR_TYPES } from './copy-list.ts';
import type { CopyRecord } from './copy-records.ts';
import { MANAGEMENT_TOKEN_SIZE, TOKEN_SIZE } from './rod-token.ts';
import { Status } from './spec.ts';

/** What initiators ask the copy manager: THIRD-PARTY COPY IN (SPC-4 6.24 to 6.29), and COPY OPERATION ABORT. */

const LIST_ID_FIELD = 2;
const ALLOCATION_LENGTH_FIELD = 10;
const nothing = (): void => {};

function allocationLength(command: Command): number {
  return readU32BE(command.task.cdb, ALLOCATION_LENGTH_FIELD);
}

const listIdOf1 = (command: Command): number => command.task.cdb[LIST_ID_FIELD]!;
const listIdOf4 = (command: Command): number => readU32BE(command.task.cdb, LIST_ID_FIELD);

/** What a command of a kind tells about one operation. */
interface Kind {
  readonly listIdOf: (command: Command) => number;
  /** Puts it into `out` and returns its length, or -1 when there is nothing to tell. */
  readonly write: (command: Command, record: CopyRecord, out: Uint8Array) => number;
  /** The operation has ended, and all of it is told now. */
  readonly told: (record: CopyRecord) => void;
}

function receive({ listIdOf, write, told }: Kind): CommandHandler {
  return {
    prepare: (command: Command): boolean => command.transferReply(allocationLength(command)),

    execute(command: Command): void {
      const record = command.nexusState?.copies.find(listIdOf(command)) ?? null;
      const { reply } = command.unit;
      const length = record === null ? -1 : write(command, record, reply);
      if (record === null || length < 0) {
        command.checkCdb(LIST_ID_FIELD);
        command.finish();
        return;
      }
      // What was cut off is asked for again, with more room; who has none does not want it.
      const limit = allocationLength(command);
      const isWhole = limit === 0 || length <= Math.min(limit, command.task.expectedDataIn);
      if (record.isEnded && isWhole) told(record);
      command.finishReply(length, limit);
    },

    step: nothing,
  };
}

/** COPY COMMAND STATUS of LID1 (SPC-4 table 254). */
const Status1 = { IN_PROGRESS: 0, COMPLETED: 1, FAILED: 2 } as const;
/** COPY OPERATION STATUS of LID4 (SPC-4 table 249). */
const Status4 = { COMPLETED: 0x01, FAILED: 0x02, PARTIAL: 0x03, IN_PROGRESS: 0x11, TERMINATED: 0x60 } as const;
/** TRANSFER COUNT UNITS (SPC-4 table 251). */
const Units = { BYTES: 0x00, MEBIBYTES: 0x02, LOGICAL_BLOCKS: 0xf1 } as const;

const MEBIBYTE = 2 ** 20;

/** SEGMENTS PROCESSED: the one under way or gone wrong counts. */
function segmentsOf(record: CopyRecord): number {
  const isWhole = record.isEnded && !record.hasFailed;
  return record.isOfSegments && !isWhole ? record.segments + 1 : record.segments;
}

/** RECEIVE COPY STATUS(LID1): COPY STATUS of RECEIVE COPY RESULTS. */
export const receiveCopyStatus1: CommandHandler = receive({
  listIdOf: listIdOf1,
  write(_command, record, out) {
    if (record.statusTold) return -1;
    out.fill(0, 0, 12);
    writeU32BE(out, 0, 8);
    if (!record.isEnded) out[4] = Status1.IN_PROGRESS;
    else out[4] = record.hasFailed ? Status1.FAILED : Status1.COMPLETED;
    writeU16BE(out, 5, segmentsOf(record));
    const fits = record.bytes <= 0xffffffff;
    out[7] = fits ? Units.BYTES : Units.MEBIBYTES;
    writeU32BE(out, 8, fits ? record.bytes : Math.floor(record.bytes / MEBIBYTE));
    return 12;
  },
  told(record) {
    record.statusTold = true;
  },
});

const DETAILS_HEADER = 60;

/** RECEIVE COPY FAILURE DETAILS(LID1): FAILED SEGMENT DETAILS of RECEIVE COPY RESULTS. */
export const receiveCopyFailureDetails: CommandHandler = receive({
  listIdOf: listIdOf1,
  write(_command, record, out) {
    if (!record.isEnded || record.detailsTold) return -1;
    out.fill(0, 0, DETAILS_HEADER);
    // Of one that did not fail there is only the length, which says so.
    if (!record.hasFailed) return 4;
    const { sense } = record;
    writeU32BE(out, 0, DETAILS_HEADER - 4 + sense.length);
    out[56] = record.status;
    writeU16BE(out, 58, sense.length);
    out.set(sense, DETAILS_HEADER);
    return DETAILS_HEADER + sense.length;
  },
  told(record) {
    record.detailsTold = true;
  },
});

const STATUS_HEADER = 32;

/** What RECEIVE COPY STATUS(LID4) and RECEIVE ROD TOKEN INFORMATION begin with; AVAILABLE DATA is left to them. */
function writeStatus(record: CopyRecord, out: Uint8Array, units: number, count: number): number {
  const isTerminated = record.isEnded && record.isTerminated;
  const { sense } = record;
  const senseLength = record.isEnded && !isTerminated ? sense.length : 0;
  const end = STATUS_HEADER + roundUp(senseLength, 4);
  out.fill(0, 0, end);
  out[4] = record.serviceAction;
  if (!record.isEnded) out[5] = Status4.IN_PROGRESS;
  else if (isTerminated) out[5] = Status4.TERMINATED;
  else if (record.hasFailed) out[5] = Status4.FAILED;
  else out[5] = record.isPartial ? Status4.PARTIAL : Status4.COMPLETED;
  writeU16BE(out, 6, record.operations & 0xffff);
  // ESTIMATED STATUS UPDATE DELAY: not known; of what has ended, none
  writeU32BE(out, 8, record.isEnded ? 0xfffffffe : 0xffffffff);
  if (record.isEnded) out[12] = isTerminated ? Status.TASK_ABORTED : record.status;
  out[13] = end - STATUS_HEADER;
  out[14] = senseLength;
  out[15] = units;
  writeU64BE(out, 16, count);
  writeU16BE(out, 24, segmentsOf(record));
  if (senseLength > 0) out.set(sense, STATUS_HEADER);
  return end;
}

/** Is told as often as it is asked for. */
export const receiveCopyStatus4: CommandHandler = receive({
  listIdOf: listIdOf4,
  write(_command, record, out) {
    const length = writeStatus(record, out, Units.BYTES, record.bytes);
    writeU32BE(out, 0, length - 4);
    return length;
  },
  told: nothing,
});

/** RECEIVE ROD TOKEN INFORMATION: of POPULATE TOKEN and WRITE USING TOKEN. */
export const receiveTokenInformation: CommandHandler = receive({
  listIdOf: listIdOf4,
  write(command, record, out) {
    if (record.isOfSegments || record.tokensTold) return -1;
    let end = writeStatus(record, out, Units.LOGICAL_BLOCKS, Math.floor(record.bytes / command.unit.blockSize));
    const { token } = record;
    // ROD TOKEN DESCRIPTORS LENGTH; a descriptor is two bytes (of EXTENDED COPY: which CSCD) and the token.
    writeU32BE(out, end, token === null ? 0 : 2 + TOKEN_SIZE);
    end += 4;
    if (token !== null) {
      writeU16BE(out, end, 0);
      out.set(token, end + 2);
      end += 2 + TOKEN_SIZE;
    }
    writeU32BE(out, 0, end - 4);
    return end;
  },
  told(record) {
    record.tokensTold = true;
  },
});

/** RECEIVE COPY OPERATING PARAMETERS: OPERATING PARAMETERS of RECEIVE COPY RESULTS. */
export const receiveOperatingParameters: CommandHandler = {
  prepare: (command: Command): boolean => command.transferReply(allocationLength(command)),

  execute(command: Command): void {
    const out = command.unit.reply;
    const length = 44 + DESCRIPTOR_TYPES.length;
    out.fill(0, 0, length);
    writeU32BE(out, 0, length - 4);
    // SNLID: LIST ID USAGE 11b is supported.
    out[4] = 0x01;
    writeU16BE(out, 8, MAX_CSCD_DESCRIPTORS);
    writeU16BE(out, 10, MAX_SEGMENT_DESCRIPTORS);
    writeU32BE(out, 12, MAX_DESCRIPTOR_LIST_LENGTH);
    writeU32BE(out, 16, MAX_SEGMENT_LENGTH);
    writeU16BE(out, 34, MAX_COPY_RECORDS);
    out[36] = MAX_COPY_RECORDS;
    // DATA SEGMENT GRANULARITY: 2^9
    out[37] = 9;
    out[43] = DESCRIPTOR_TYPES.length;
    out.set(DESCRIPTOR_TYPES, 44);
    command.finishReply(length, allocationLength(command));
  },

  step: nothing,
};

/** REPORT ALL ROD TOKENS: of this unit; the part of each that does not let anybody use it. */
export const reportAllTokens: CommandHandler = {
  prepare: (command: Command): boolean => command.transferReply(allocationLength(command)),

  execute(command: Command): void {
    const { unit } = command;
    const out = unit.reply;
    const most = Math.floor((out.length - 8) / MANAGEMENT_TOKEN_SIZE);
    let end = 8;
    out.fill(0, 0, end);
    for (const { bytes } of unit.tokens.list().slice(-most)) {
      out.set(bytes.subarray(0, MANAGEMENT_TOKEN_SIZE), end);
      end += MANAGEMENT_TOKEN_SIZE;
    }
    writeU32BE(out, 0, end - 4);
    command.finishReply(end, allocationLength(command));
  },

  step: nothing,
};

/** COPY OPERATION ABORT: has its status when the operation has ended. */
export const copyOperationAbort: CommandHandler = {
  prepare: (command: Command): boolean => command.transferNone(),

  execute(command: Command): void {
    const record = command.nexusState?.copies.find(listIdOf4(command)) ?? null;
    if (record === null || record.isEnded) {
      command.checkCdb(LIST_ID_FIELD);
      command.finish();
    } else {
      record.abort(() => command.resume());
    }
  },

  step: (command: Command): void => command.finish(),
};
