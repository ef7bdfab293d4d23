import { readU16BE, readU32BE, readU64BE } from '../base/bytes.ts';
import { LunOp } from '../block/lun-backend.ts';
import type { Command, CommandHandler } from './command.ts';
import { LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE, PARAMETER_LIST_LENGTH_ERROR } from './sense.ts';

/**
 * UNMAP (SBC-4 5.35).
 *
 *     0  UNMAP DATA LENGTH(2)   2  UNMAP BLOCK DESCRIPTOR DATA LENGTH(2)   8  descriptors: LBA(8) NUMBER OF LOGICAL BLOCKS(4) 0(4)
 *
 * All descriptors are checked before the first one does anything; they are done one after the other.
 */
const HEADER_LENGTH = 8;
const DESCRIPTOR_LENGTH = 16;
/** MAXIMUM UNMAP BLOCK DESCRIPTOR COUNT of VPD page B0h. */
export const MAX_UNMAP_DESCRIPTORS = 256;

/** What is unmapped has its space all the same: here it stays or becomes mapped, as the standard allows. */
const ANCHOR = 0x01;

const Phase = { NEXT: 0, LOCKED: 1, UNMAPPED: 2, FLUSHED: 3 } as const;

/** Sets `lba` and `blocks` from descriptor `index`. */
function takeDescriptor(command: Command, index: number): void {
  const { bytes, task } = command;
  task.dataOut.copyTo(bytes, 0, HEADER_LENGTH + index * DESCRIPTOR_LENGTH, DESCRIPTOR_LENGTH);
  command.lba = readU64BE(bytes, 0);
  command.blocks = readU32BE(bytes, 8);
}

/** Goes on to the next descriptor that names blocks; `position` counts descriptors up to `end`. */
function nextDescriptor(command: Command): void {
  const { unit } = command;
  while (command.position < command.end) {
    takeDescriptor(command, command.position++);
    if (command.blocks === 0) continue;
    command.phase = Phase.LOCKED;
    command.lock(false);
    return;
  }
  if (unit.writeCache) {
    command.finish();
    return;
  }
  command.phase = Phase.FLUSHED;
  command.submitRange(LunOp.FLUSH, 0, 0, false);
}

export const unmap: CommandHandler = {
  prepare(command: Command): boolean {
    const { task } = command;
    const length = readU16BE(task.cdb, 7);
    if (length > 0 && (length < HEADER_LENGTH || task.expectedDataOut < length)) {
      return command.check(PARAMETER_LIST_LENGTH_ERROR);
    }
    return command.transferOut(length);
  },

  execute(command: Command): void {
    const { task, unit, bytes } = command;
    if (task.dataOutLength === 0) {
      command.finish();
      return;
    }
    task.dataOut.copyTo(bytes, 0, 0, HEADER_LENGTH);
    const dataLength = readU16BE(bytes, 0);
    const descriptorsLength = readU16BE(bytes, 2);
    if (descriptorsLength > task.dataOutLength - HEADER_LENGTH) {
      command.failParameter(2);
      return;
    }
    if (dataLength + 2 < HEADER_LENGTH + descriptorsLength) {
      command.failParameter(0);
      return;
    }
    // What does not fill a descriptor is ignored.
    const count = Math.floor(descriptorsLength / DESCRIPTOR_LENGTH);
    if (count > MAX_UNMAP_DESCRIPTORS) {
      command.failParameter(2);
      return;
    }
    for (let i = 0; i < count; i++) {
      takeDescriptor(command, i);
      if (command.lba > unit.blockCount || command.blocks > unit.blockCount - command.lba) {
        command.fail(LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE);
        return;
      }
    }
    command.position = 0;
    command.end = count;
    nextDescriptor(command);
  },

  step(command: Command): void {
    switch (command.phase) {
      case Phase.LOCKED:
        command.phase = Phase.UNMAPPED;
        command.submitRange(
          (command.task.cdb[1]! & ANCHOR) !== 0 ? LunOp.WRITE_ZEROES : LunOp.UNMAP,
          command.lba * command.unit.blockSize,
          command.blocks * command.unit.blockSize,
          false,
        );
        break;
      case Phase.UNMAPPED:
        command.unlock();
        nextDescriptor(command);
        break;
      default:
        command.finish();
    }
  },
};
