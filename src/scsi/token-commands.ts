import { readU16BE, readU32BE, readU64BE } from '../base/bytes.ts';
import type { Command, CommandHandler } from './command.ts';
import { copyRefusal, RESERVED } from './copy-access.ts';
import { DEFAULT_TOKEN_TIMEOUT, MAX_TOKEN_BYTES, MAX_TOKEN_RANGES, MAX_TOKEN_TIMEOUT } from './copy-limits.ts';
import { ListRefusal } from './copy-list.ts';
import { CopyRecord } from './copy-records.ts';
import { creatorOf, hasTokenLength, makeToken, RodType, TOKEN_SIZE, tokenType } from './rod-token.ts';
import type { BlockRange, RodToken } from './rod-tokens.ts';
import {
  fieldPointer,
  INSUFFICIENT_RESOURCES_TO_CREATE_ROD_TOKEN,
  INVALID_FIELD_IN_PARAMETER_LIST,
  INVALID_TOKEN_LENGTH,
  LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE,
  NO_INFORMATION,
  NO_SENSE,
  PARAMETER_LIST_LENGTH_ERROR,
  type Sense,
  TOKEN_UNKNOWN,
  TOO_MANY_SEGMENT_DESCRIPTORS,
  UNSUPPORTED_TOKEN_TYPE,
} from './sense.ts';
import { TokenWriter } from './token-writer.ts';
import type { UnitState } from './unit-state.ts';

/**
 * POPULATE TOKEN and WRITE USING TOKEN (SBC-3 5.9, 5.50).
 *
 *     POPULATE TOKEN     0 DATA LENGTH(2)  2 RTV(1) IMMED(0)  4 INACTIVITY TIMEOUT(4)  8 ROD TYPE(4)
 *                        14 RANGE DESCRIPTOR LENGTH(2)  16 ranges
 *     WRITE USING TOKEN  0 DATA LENGTH(2)  2 DEL_TKN(1) IMMED(0)  8 OFFSET INTO ROD(8)  16 ROD TOKEN(512)
 *                        534 RANGE DESCRIPTOR LENGTH(2)  536 ranges
 *     range              0 LBA(8)  8 NUMBER OF LOGICAL BLOCKS(4)
 *
 * With IMMED, too, the status comes when the work is done.
 */
const LIST_ID_FIELD = 6;
const LIST_LENGTH_FIELD = 10;
const RANGE_LENGTH = 16;
/** What RANGE DESCRIPTOR LENGTH can say. */
const MAX_RANGES_LENGTH = 0xffff;
const FLAGS = 2;
const RTV = 0x02;
const DEL_TKN = 0x02;
const TIMEOUT = 4;
const ROD_TYPE = 8;
const OFFSET_INTO_ROD = 8;
const TOKEN = 16;

interface TokenList {
  readonly bytes: Uint8Array;
  readonly ranges: readonly BlockRange[];
  readonly blocks: number;
}

function prepare(command: Command, headerLength: number): boolean {
  const { task } = command;
  const length = readU32BE(task.cdb, LIST_LENGTH_FIELD);
  if (length === 0) return command.transferNone();
  if (length < headerLength || length > headerLength + MAX_RANGES_LENGTH || task.expectedDataOut < length) {
    return command.check(PARAMETER_LIST_LENGTH_ERROR);
  }
  return command.transferOut(length);
}

/** The parameter list in Data-Out, of at least the header's length, whose last field is RANGE DESCRIPTOR LENGTH. */
function readTokenList(command: Command, headerLength: number): TokenList | ListRefusal {
  const { task, unit } = command;
  const bytes = new Uint8Array(task.dataOutLength);
  task.dataOut.copyTo(bytes, 0, 0, bytes.length);
  const rangesLengthAt = headerLength - 2;
  const rangesLength = readU16BE(bytes, rangesLengthAt);
  if (readU16BE(bytes, 0) + 2 < headerLength + Math.max(rangesLength, RANGE_LENGTH)) return ListRefusal.field(0);
  if (rangesLength < RANGE_LENGTH) return ListRefusal.field(rangesLengthAt);
  if (rangesLength >= (MAX_TOKEN_RANGES + 1) * RANGE_LENGTH) return new ListRefusal(TOO_MANY_SEGMENT_DESCRIPTORS);
  // What is cut off is ignored.
  const end = Math.min(headerLength + rangesLength, bytes.length) - RANGE_LENGTH;
  const ranges: BlockRange[] = [];
  let blocks = 0;
  for (let at = headerLength; at <= end; at += RANGE_LENGTH) {
    const begin = readU64BE(bytes, at);
    const count = readU32BE(bytes, at + 8);
    if (begin > unit.blockCount || count > unit.blockCount - begin) {
      return new ListRefusal(LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE);
    }
    if (count === 0) continue;
    const range = { begin, end: begin + count };
    if (ranges.some((other) => begin < other.end && other.begin < range.end)) return ListRefusal.field(at);
    blocks += count;
    ranges.push(range);
  }
  return blocks * unit.blockSize > MAX_TOKEN_BYTES ? ListRefusal.field(headerLength + 8) : { bytes, ranges, blocks };
}

/** Begins the record of the command's operation; null after the command has ended. */
function beginRecord(command: Command): CopyRecord | null {
  const listId = readU32BE(command.task.cdb, LIST_ID_FIELD);
  const copies = command.nexusState?.copies ?? null;
  const refusal = copies?.refusal(listId) ?? NO_SENSE;
  if (refusal !== NO_SENSE) {
    command.fail(refusal);
    return null;
  }
  const record = new CopyRecord(listId, command.row.serviceAction);
  copies?.keep(record);
  command.copy = record;
  return record;
}

const POPULATE_HEADER = 16;

/**
 * A token represents its blocks from the moment it is made, and ends when one of them is written. Writes that had begun before are waited for:
 * whether they are in what it represents is settled when the initiator gets it.
 */
export const populateToken: CommandHandler = {
  prepare: (command: Command): boolean => prepare(command, POPULATE_HEADER),

  execute(command: Command): void {
    const { task, unit } = command;
    if (task.dataOutLength === 0) {
      command.finish();
      return;
    }
    const list = readTokenList(command, POPULATE_HEADER);
    if (list instanceof ListRefusal) {
      command.fail(list.sense, NO_INFORMATION, list.sks);
      return;
    }
    const { bytes, ranges, blocks } = list;
    const timeout = readU32BE(bytes, TIMEOUT);
    if (timeout > MAX_TOKEN_TIMEOUT) {
      command.failParameter(TIMEOUT);
      return;
    }
    const type = askedType(bytes);
    if (type === null) {
      command.failParameter(ROD_TYPE);
      return;
    }
    const record = beginRecord(command);
    if (record === null) return;
    const { tokens } = unit;
    const lengthBytes = blocks * unit.blockSize;
    const identifier = tokens.nextIdentifier();
    const made = makeToken(unit, task.nexus.targetPort, type, lengthBytes, identifier, tokens.random);
    const token = tokens.add(made, ranges, 1000 * (timeout === 0 ? DEFAULT_TOKEN_TIMEOUT : timeout));
    if (token === null) {
      command.fail(INSUFFICIENT_RESOURCES_TO_CREATE_ROD_TOKEN);
      return;
    }
    command.token = token;
    command.position = 0;
    waitForWriters(command);
  },

  step(command: Command): void {
    command.unlock();
    command.position++;
    waitForWriters(command);
  },
};

/** The type of the token to make; null when there is no such. */
function askedType(bytes: Uint8Array): number | null {
  if ((bytes[FLAGS]! & RTV) === 0) return RodType.CHANGE_VULNERABLE;
  switch (readU32BE(bytes, ROD_TYPE)) {
    case RodType.CHANGE_VULNERABLE:
    case RodType.ANY_POINT_IN_TIME:
      return RodType.CHANGE_VULNERABLE;
    default:
      return null;
  }
}

/** Goes over the ranges: who has one alone for a moment knows that nobody writes there who began before. */
function waitForWriters(command: Command): void {
  const token = command.token!;
  const record = command.copy!;
  const range = token.ranges[command.position];
  if (range !== undefined) {
    command.lba = range.begin;
    command.blocks = range.end - range.begin;
    command.lock(true);
    return;
  }
  command.token = null;
  if (token.ended !== NO_SENSE) {
    command.fail(token.ended);
    return;
  }
  record.token = token.bytes;
  for (const { begin, end } of token.ranges) record.bytes += (end - begin) * command.unit.blockSize;
  command.finish();
}

const WRITE_HEADER = 536;

export const writeUsingToken: CommandHandler = {
  prepare: (command: Command): boolean => prepare(command, WRITE_HEADER),

  execute(command: Command): void {
    const { task, unit } = command;
    if (task.dataOutLength === 0) {
      command.finish();
      return;
    }
    const list = readTokenList(command, WRITE_HEADER);
    if (list instanceof ListRefusal) {
      command.fail(list.sense, NO_INFORMATION, list.sks);
      return;
    }
    const { bytes, ranges, blocks } = list;
    const tokenBytes = bytes.subarray(TOKEN, TOKEN + TOKEN_SIZE);
    const source = findToken(command, tokenBytes);
    if (typeof source === 'number') {
      if (source === RESERVED) {
        command.conflict();
        command.finish();
      } else {
        command.fail(source);
      }
      return;
    }
    const from = readU64BE(bytes, OFFSET_INTO_ROD) * unit.blockSize;
    const length = source === null ? Number.POSITIVE_INFINITY : lengthOf(source.unit, source.token);
    if (from >= length) {
      command.fail(INVALID_FIELD_IN_PARAMETER_LIST, NO_INFORMATION, fieldPointer(false, OFFSET_INTO_ROD, -1));
      return;
    }
    const record = beginRecord(command);
    if (record === null) return;
    const deletes = (bytes[FLAGS]! & DEL_TKN) !== 0;
    // Of a token with too little, whole blocks, the last one filled up with zeroes.
    const total = Math.min(blocks, Math.ceil((length - from) / unit.blockSize)) * unit.blockSize;
    record.isPartial = total < blocks * unit.blockSize;
    new TokenWriter(command, record, ranges, total, source, from, deletes).run();
  },

  step(): void {},
};

/** Bytes that a token of `unit` represents. */
function lengthOf(unit: UnitState, token: RodToken): number {
  let blocks = 0;
  for (const { begin, end } of token.ranges) blocks += end - begin;
  return blocks * unit.blockSize;
}

/**
 * Where the data of a token is: null for zeroes, a sense code when it cannot be used. A token is looked for only at the unit that it names, and only
 * when that is there for the nexus: one that was stolen is of no use to somebody who could not read the data anyway.
 */
function findToken(command: Command, bytes: Uint8Array): { unit: UnitState; token: RodToken } | null | Sense {
  const type = tokenType(bytes);
  if (!hasTokenLength(bytes)) return INVALID_TOKEN_LENGTH;
  if (type === RodType.BLOCK_DEVICE_ZERO) return null;
  if (type !== RodType.CHANGE_VULNERABLE) return UNSUPPORTED_TOKEN_TYPE;
  const naa = creatorOf(bytes);
  const unit = naa === null ? undefined : command.inventory.find(command.task.nexus, naa)?.state;
  const token = unit?.tokens.find(bytes) ?? null;
  if (unit === undefined || token === null) return TOKEN_UNKNOWN;
  if (token.ended !== NO_SENSE) return token.ended;
  const refusal = copyRefusal(command, unit, false);
  return refusal === NO_SENSE ? { unit, token } : refusal;
}
