import { readU16BE, readU32BE } from '../base/bytes.ts';
import type { Command, CommandHandler } from './command.ts';
import { MediumOperation } from './medium-operation.ts';
import { INTERNAL_TARGET_FAILURE, INVALID_FIELD_IN_CDB, PARAMETER_LIST_LENGTH_ERROR } from './sense.ts';
import type { UnfinishedOperation } from './unit-memory.ts';

/**
 * SANITIZE (SBC-4 5.30) and FORMAT UNIT (SBC-4 5.4).
 *
 *     overwrite  0 INVERT,TEST,OVERWRITE COUNT  2 INITIALIZATION PATTERN LENGTH(2)  4 pattern
 *     format     0 PROTECTION FIELD USAGE  1 FOV,DPRY,DCRT,STPF,IP,IMMED  2 DEFECT LIST LENGTH(2) | long: 3 PI  4 DEFECT LIST LENGTH(4)
 */
const IMMED = 0x80;
const AUSE = 0x20;
const INVERT = 0x80;
const OVERWRITE_HEADER = 4;

const UNMAP_EVERYTHING: UnfinishedOperation = {
  command: 'sanitize',
  pattern: null,
  passes: 1,
  inverts: false,
  mayBeGivenUp: false,
  failed: false,
};

const nothing = (): void => {};

/** BLOCK ERASE and CRYPTOGRAPHIC ERASE: everything is unmapped. Nothing is encrypted, so that there is no other way to make it unreadable at once. */
export const sanitizeErase: CommandHandler = {
  prepare: (command: Command): boolean => command.transferNone(),

  execute(command: Command): void {
    beginSanitize(command, {});
  },

  step: nothing,
};

/** OVERWRITE: the pattern is written to every block, which is mapped then. */
export const sanitizeOverwrite: CommandHandler = {
  prepare(command: Command): boolean {
    const length = readU16BE(command.task.cdb, 7);
    if (length <= OVERWRITE_HEADER || length > OVERWRITE_HEADER + command.unit.blockSize) return command.checkCdb(7);
    if (command.task.expectedDataOut < length) return command.check(PARAMETER_LIST_LENGTH_ERROR);
    return command.transferOut(length);
  },

  execute(command: Command): void {
    const { task, bytes } = command;
    task.dataOut.copyTo(bytes, 0, 0, OVERWRITE_HEADER);
    const passes = bytes[0]! & 0x1f;
    const length = readU16BE(bytes, 2);
    // As libiscsi reads SBC-4: what is wrong in the list is a field of the CDB.
    if ((bytes[0]! & 0x60) !== 0 || passes === 0 || length === 0 || length > task.dataOutLength - OVERWRITE_HEADER) {
      command.fail(INVALID_FIELD_IN_CDB);
      return;
    }
    if (bytes[1] !== 0) {
      command.failParameter(1);
      return;
    }
    const pattern = Buffer.alloc(length);
    task.dataOut.copyTo(pattern, 0, OVERWRITE_HEADER, length);
    beginSanitize(command, { pattern: pattern.toString('hex'), passes, inverts: (bytes[0]! & INVERT) !== 0 });
  },

  step: nothing,
};

function beginSanitize(command: Command, how: Partial<UnfinishedOperation>): void {
  const flags = command.task.cdb[1]!;
  const unfinished = { ...UNMAP_EVERYTHING, mayBeGivenUp: (flags & AUSE) !== 0, ...how };
  MediumOperation.begin(command.unit, unfinished, command, (flags & IMMED) !== 0);
}

/** EXIT FAILURE MODE: gives up what has failed, where that was allowed then. The medium holds what it holds. */
export const sanitizeExitFailureMode: CommandHandler = {
  prepare(command: Command): boolean {
    const { operation } = command.unit;
    if (operation === null || operation.unfinished.command !== 'sanitize' || !operation.unfinished.mayBeGivenUp) {
      return command.checkCdb(1, 4);
    }
    return command.transferNone();
  },

  execute(command: Command): void {
    const { unit } = command;
    unit.keep(
      { ...unit.memory, operation: null },
      () => {
        unit.operation = null;
        command.resume();
      },
      () => command.fail(INTERNAL_TARGET_FAILURE),
    );
  },

  step: (command: Command): void => command.finish(),
};

const FMTDATA = 0x10;
const LONGLIST = 0x20;
const FOV = 0x80;
const FORMAT_IMMED = 0x02;

/** FORMAT UNIT: everything is unmapped. There is no protection information, no defect list and no other block length. */
export const formatUnit: CommandHandler = {
  prepare(command: Command): boolean {
    const { unit, task } = command;
    const { cdb } = task;
    const flags = cdb[1]!;
    if (unit.operation !== null && unit.operation.unfinished.command === 'sanitize') {
      return command.check(unit.operation.sense);
    }
    if ((flags & FMTDATA) === 0) return (flags & ~FMTDATA) === 0 ? command.transferNone() : command.checkCdb(1, 5);
    const length = (flags & LONGLIST) === 0 ? 4 : 8;
    if (task.expectedDataOut < length) return command.check(PARAMETER_LIST_LENGTH_ERROR);
    return command.transferOut(length);
  },

  execute(command: Command): void {
    const { task, bytes } = command;
    const length = task.dataOutLength;
    bytes.fill(0, 0, 8);
    task.dataOut.copyTo(bytes, 0, 0, length);
    const options = bytes[1]!;
    // Without FOV none of the options that it makes valid may be set; with it, initialization patterns and stopping on format are not offered.
    const allowed = (options & FOV) === 0 ? FORMAT_IMMED : FOV | 0x60 | FORMAT_IMMED;
    if (bytes[0] !== 0) command.failParameter(0);
    else if ((options & ~allowed) !== 0) command.failParameter(1);
    else if (length === 8 && (bytes[2] !== 0 || bytes[3] !== 0)) command.failParameter(bytes[2] !== 0 ? 2 : 3);
    else if (length === 8 ? readU32BE(bytes, 4) !== 0 : readU16BE(bytes, 2) !== 0) {
      command.failParameter(length === 8 ? 4 : 2);
    } else {
      const unfinished = { ...UNMAP_EVERYTHING, command: 'format' as const };
      MediumOperation.begin(command.unit, unfinished, command, (options & FORMAT_IMMED) !== 0);
    }
  },

  step: nothing,
};
