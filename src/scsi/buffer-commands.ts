import { readU24BE, readU32BE, readU64BE, writeU16BE, writeU32BE } from '../base/bytes.ts';
import type { Command, CommandHandler } from './command.ts';
import { COMMAND_SEQUENCE_ERROR, PARAMETER_LIST_LENGTH_ERROR } from './sense.ts';
import { Opcode } from './spec.ts';
import { DATA_BUFFER_SIZE, ECHO_BUFFER_SIZE } from './unit-buffers.ts';

/**
 * READ BUFFER and WRITE BUFFER (SPC-4 6.18, 6.49) of one data buffer (ID 0) and the echo buffer.
 *
 *     10  1 MODE  2 BUFFER ID  3 BUFFER OFFSET(3)  6 length(3)
 *     16  1 MODE  2 BUFFER OFFSET(8)  10 ALLOCATION LENGTH(4)  14 BUFFER ID
 */
const Mode = { DATA: 0x02, DESCRIPTOR: 0x03, ECHO: 0x0a, ECHO_DESCRIPTOR: 0x0b } as const;
const DESCRIPTOR_LENGTH = 4;

const modeOf = (cdb: Uint8Array): number => cdb[1]! & 0x1f;
const isLong = (cdb: Uint8Array): boolean => cdb[0] === Opcode.READ_BUFFER_16;
const idOf = (cdb: Uint8Array): number => cdb[isLong(cdb) ? 14 : 2]!;
const offsetOf = (cdb: Uint8Array): number => (isLong(cdb) ? readU64BE(cdb, 2) : readU24BE(cdb, 3));
const lengthOf = (cdb: Uint8Array): number => (isLong(cdb) ? readU32BE(cdb, 10) : readU24BE(cdb, 6));

export const readBuffer: CommandHandler = {
  prepare(command: Command): boolean {
    const { unit, task } = command;
    const { cdb } = task;
    const allocation = lengthOf(cdb);
    switch (modeOf(cdb)) {
      case Mode.DATA: {
        if (idOf(cdb) !== 0) return command.checkCdb(isLong(cdb) ? 14 : 2);
        const offset = offsetOf(cdb);
        if (offset > DATA_BUFFER_SIZE) return command.checkCdb(isLong(cdb) ? 2 : 3);
        return command.transferIn(Math.min(allocation, DATA_BUFFER_SIZE - offset));
      }
      case Mode.DESCRIPTOR:
      case Mode.ECHO_DESCRIPTOR:
        return command.transferIn(Math.min(allocation, DESCRIPTOR_LENGTH));
      case Mode.ECHO: {
        const echo = unit.buffers.echoOf(task.nexus);
        if (echo === null) return command.check(COMMAND_SEQUENCE_ERROR);
        return command.transferIn(Math.min(allocation, echo.length));
      }
      default:
        return command.checkCdb(1, 4);
    }
  },

  execute(command: Command): void {
    const { unit, task, bytes } = command;
    const { cdb } = task;
    const mode = modeOf(cdb);
    if (mode === Mode.DATA) {
      task.dataIn.copyFrom(unit.buffers.data, offsetOf(cdb), 0, task.dataInLength);
    } else if (mode === Mode.ECHO) {
      const echo = unit.buffers.echoOf(task.nexus);
      if (echo === null || echo.length < task.dataInLength) {
        command.fail(COMMAND_SEQUENCE_ERROR);
        return;
      }
      task.dataIn.copyFrom(echo, 0, 0, task.dataInLength);
    } else {
      // OFFSET BOUNDARY 0: any byte. A buffer that is not there has no capacity.
      if (mode === Mode.ECHO_DESCRIPTOR) {
        writeU16BE(bytes, 0, 0);
        writeU16BE(bytes, 2, ECHO_BUFFER_SIZE);
      } else writeU32BE(bytes, 0, idOf(cdb) === 0 ? DATA_BUFFER_SIZE : 0);
      task.dataIn.copyFrom(bytes, 0, 0, task.dataInLength);
    }
    command.finish();
  },

  step(): void {},
};

export const writeBuffer: CommandHandler = {
  prepare(command: Command): boolean {
    const { cdb, expectedDataOut } = command.task;
    const length = lengthOf(cdb);
    const mode = modeOf(cdb);
    if (mode === Mode.DATA) {
      if (idOf(cdb) !== 0) return command.checkCdb(2);
      if (offsetOf(cdb) > DATA_BUFFER_SIZE) return command.checkCdb(3);
      if (length > DATA_BUFFER_SIZE - offsetOf(cdb)) return command.checkCdb(6);
    } else if (mode !== Mode.ECHO) return command.checkCdb(1, 4);
    else if (length > ECHO_BUFFER_SIZE) return command.checkCdb(6);
    if (expectedDataOut < length) return command.check(PARAMETER_LIST_LENGTH_ERROR);
    return command.transferOut(length);
  },

  execute(command: Command): void {
    const { unit, task } = command;
    const { cdb, dataOutLength: length } = task;
    if (modeOf(cdb) === Mode.ECHO) task.dataOut.copyTo(unit.buffers.writableEcho(task.nexus, length), 0, 0, length);
    else task.dataOut.copyTo(unit.buffers.writableData(), offsetOf(cdb), 0, length);
    command.finish();
  },

  step(): void {},
};
