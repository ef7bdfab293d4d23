import { readU32BE, writeU16BE, writeU32BE, writeU64BE } from '../base/bytes.ts';
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
import { CopyOut } from './spec.ts';

/** What initiators ask the copy manager: THIRD-PARTY COPY IN (SPC-4 6.24 to 6.29), and COPY OPERATION ABORT. */

const LIST_ID_FIELD = 2;
const ALLOCATION_LENGTH_FIELD = 10;
const nothing = (): void => {};

/** ALLOCATION LENGTH, or as much as a reply can have. */
function allocationLength(command: Command): number {
  return Math.min(readU32BE(command.task.cdb, ALLOCATION_LENGTH_FIELD), command.unit.reply.length);
}

const listIdOf1 = (command: Command): number => command.task.cdb[LIST_ID_FIELD]!;
const listIdOf4 = (command: Command): number => readU32BE(command.task.cdb, LIST_ID_FIELD);

/** A command that tells about one operation; `write` puts that into the reply and returns its length, or -1 when there is nothing to tell. */
function receive(
  listIdOf: (command: Command) => number,
  write: (command: Command, record: CopyRecord, out: Uint8Array) => number,
  told: (record: CopyRecord) => boolean,
): CommandHandler {
  return {
    prepare: (command: Command): boolean => command.transferIn(allocationLength(command)),

    execute(command: Command): void {
      const copies = command.nexusState?.copies;
      const record = copies?.find(listIdOf(command)) ?? null;
      const { reply } = command.unit;
      const length = record === null ? -1 : write(command, record, reply);
      if (record === null || length < 0) {
        command.checkCdb(LIST_ID_FIELD);
        command.finish();
        return;
      }
      // What was cut off is asked for again, with more room.
      if (
        record.isEnded &&
        length <= Math.min(allocationLength(command), command.task.expectedDataIn) &&
        told(record)
      ) {
        copies!.drop(record);
      }
      command.finishReply(length, allocationLength(command));
    },

    step: nothing,
  };
}

/** COPY COMMAND STATUS of LID1 (SPC-4 table 244). */
const Status1 = { IN_PROGRESS: 0, COMPLETED: 1, FAILED: 2 } as const;
/** COPY OPERATION STATUS of LID4 (SPC-4 table 252). */
const Status4 = { COMPLETED: 0x01, FAILED: 0x02, IN_PROGRESS: 0x11, TERMINATED: 0x60 } as const;
/** TRANSFER COUNT UNITS (SPC-4 table 245, SBC-3). */
const Units = { BYTES: 0x00, MEBIBYTES: 0x02, LOGICAL_BLOCKS: 0xf1 } as const;

const MEBIBYTE = 2 ** 20;

/** RECEIVE COPY STATUS(LID1): COPY STATUS of RECEIVE COPY RESULTS. Of a failure the details are kept until they are asked for. */
export const receiveCopyStatus1: CommandHandler = receive(
  listIdOf1,
  (_command, record, out) => {
    out.fill(0, 0, 12);
    writeU32BE(out, 0, 8);
    if (!record.isEnded) out[4] = Status1.IN_PROGRESS;
    else out[4] = record.hasFailed ? Status1.FAILED : Status1.COMPLETED;
    writeU16BE(out, 5, record.segments);
    const fits = record.bytes <= 0xffffffff;
    out[7] = fits ? Units.BYTES : Units.MEBIBYTES;
    writeU32BE(out, 8, fits ? record.bytes : Math.floor(record.bytes / MEBIBYTE));
    return 12;
  },
  (record) => {
    record.statusTold = true;
    return !record.hasFailed || record.detailsTold;
  },
);

const DETAILS_HEADER = 60;

/** RECEIVE COPY FAILURE DETAILS(LID1): FAILED SEGMENT DETAILS of RECEIVE COPY RESULTS. */
export const receiveCopyFailureDetails: CommandHandler = receive(
  listIdOf1,
  (_command, record, out) => {
    if (!record.isEnded) return -1;
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
  (record) => {
    record.detailsTold = true;
    return record.statusTold;
  },
);

const STATUS_HEADER = 32;

/** What RECEIVE COPY STATUS(LID4) and RECEIVE ROD TOKEN INFORMATION begin with; AVAILABLE DATA is left to them. */
function writeStatus(record: CopyRecord, out: Uint8Array, units: number, count: number): number {
  const { sense } = record;
  out.fill(0, 0, STATUS_HEADER);
  out[4] = record.serviceAction;
  if (!record.isEnded) out[5] = Status4.IN_PROGRESS;
  else if (record.isTerminated) out[5] = Status4.TERMINATED;
  else out[5] = record.hasFailed ? Status4.FAILED : Status4.COMPLETED;
  writeU16BE(out, 6, record.operations & 0xffff);
  // ESTIMATED STATUS UPDATE DELAY: not known
  writeU32BE(out, 8, 0xffffffff);
  if (record.isEnded) out[12] = record.status;
  out[13] = sense.length;
  out[14] = sense.length;
  out[15] = units;
  writeU64BE(out, 16, count);
  writeU16BE(out, 24, record.segments);
  out.set(sense, STATUS_HEADER);
  return STATUS_HEADER + sense.length;
}

export const receiveCopyStatus4: CommandHandler = receive(
  listIdOf4,
  (_command, record, out) => {
    const length = writeStatus(record, out, Units.BYTES, record.bytes);
    writeU32BE(out, 0, length - 4);
    return length;
  },
  () => true,
);

/** RECEIVE ROD TOKEN INFORMATION: of POPULATE TOKEN and WRITE USING TOKEN. */
export const receiveTokenInformation: CommandHandler = receive(
  listIdOf4,
  (command, record, out) => {
    const { serviceAction, token } = record;
    if (serviceAction !== CopyOut.POPULATE_TOKEN && serviceAction !== CopyOut.WRITE_USING_TOKEN) return -1;
    let end = writeStatus(record, out, Units.LOGICAL_BLOCKS, Math.floor(record.bytes / command.unit.blockSize));
    // ROD TOKEN DESCRIPTORS LENGTH; a descriptor is two bytes (of WRITE ROD: which CSCD) and the token.
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
  () => true,
);

/** RECEIVE COPY OPERATING PARAMETERS: OPERATING PARAMETERS of RECEIVE COPY RESULTS. */
export const receiveOperatingParameters: CommandHandler = {
  prepare: (command: Command): boolean => command.transferIn(allocationLength(command)),

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
  prepare: (command: Command): boolean => command.transferIn(allocationLength(command)),

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

/** COPY OPERATION ABORT: has its status when the operation has ended; at once when it had before. */
export const copyOperationAbort: CommandHandler = {
  prepare: (command: Command): boolean => command.transferNone(),

  execute(command: Command): void {
    const record = command.nexusState?.copies.find(listIdOf4(command)) ?? null;
    if (record === null) {
      command.checkCdb(LIST_ID_FIELD);
      command.finish();
    } else if (record.isEnded) {
      command.finish();
    } else {
      record.abort(() => command.resume());
    }
  },

  step: (command: Command): void => command.finish(),
};
