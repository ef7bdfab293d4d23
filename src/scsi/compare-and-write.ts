import { readU64BE } from '../base/bytes.ts';
import { LunOp } from '../block/lun-backend.ts';
import { checkRange, FUA, hasFua, takeTransfer } from './block-commands.ts';
import type { Command, CommandHandler } from './command.ts';
import { firstDifference, orBytes } from './data-bytes.ts';
import { maxTransferBlocks } from './front-end.ts';
import { MISCOMPARE_DURING_VERIFY } from './sense.ts';

/** Commands that read, decide and write, alone on their blocks from the first to the last step. */
const Phase = { LOCKED: 0, SCRATCH: 1, READ: 2, WRITTEN: 3 } as const;

const BLOCKS_FIELD = 13;

/** Of the nexus, in logical blocks: twice as many are transferred. One goes always: clusters live by it. */
export function compareAndWriteLimit({ task, unit }: Command): number {
  const both = maxTransferBlocks(task.nexus.frontEnd, unit.blockSize);
  return Math.max(1, Math.min(unit.maxCompareAndWriteBlocks, Math.floor(both / 2)));
}

/**
 * COMPARE AND WRITE (SBC-4 5.3). Data-Out is what to compare with, then what to write; it has to have exactly that size. A miscompare
 * gives the offset of the first differing byte in INFORMATION. The write is one request, so that it is whole or not there at all.
 */
export const compareAndWrite: CommandHandler = {
  prepare(command: Command): boolean {
    const { task, unit } = command;
    command.lba = readU64BE(task.cdb, 2);
    command.blocks = task.cdb[BLOCKS_FIELD]!;
    if (!checkRange(command)) return false;
    if (command.blocks > compareAndWriteLimit(command)) return command.checkCdb(BLOCKS_FIELD);
    const length = 2 * command.blocks * unit.blockSize;
    if (task.expectedDataOut !== length) return command.checkCdb(BLOCKS_FIELD);
    return command.transferOut(length);
  },

  execute(command: Command): void {
    if (command.blocks === 0) {
      command.finish();
      return;
    }
    command.phase = Phase.LOCKED;
    command.lock(true);
  },

  step(command: Command): void {
    const { task, unit, request } = command;
    const length = command.blocks * unit.blockSize;
    switch (command.phase) {
      case Phase.LOCKED:
        command.phase = Phase.SCRATCH;
        command.needScratch();
        break;
      case Phase.SCRATCH:
        command.phase = Phase.READ;
        request.data.set(command.scratch!, 0, length);
        command.submitTransfer(LunOp.READ, command.lba * unit.blockSize, false);
        break;
      case Phase.READ: {
        const difference = firstDifference(task.dataOut, 0, command.scratch!, length);
        if (difference >= 0) {
          command.fail(MISCOMPARE_DURING_VERIFY, difference);
          break;
        }
        command.phase = Phase.WRITTEN;
        request.data.setSlice(task.dataOut, length, length);
        command.submitTransfer(
          LunOp.WRITE,
          command.lba * unit.blockSize,
          !unit.writeCache || (task.cdb[1]! & FUA) !== 0,
        );
        break;
      }
      default:
        command.finish();
    }
  },
};

/** ORWRITE(16) (SBC-4 5.10). */
export const orWrite: CommandHandler = {
  prepare(command: Command): boolean {
    const { blockSize } = command.unit;
    return takeTransfer(command) && command.transferOutBlocks(command.blocks * blockSize);
  },

  execute(command: Command): void {
    if (command.task.dataOutLength === 0) {
      command.finish();
      return;
    }
    command.position = 0;
    command.end = command.task.dataOutLength;
    command.phase = Phase.LOCKED;
    command.lock(true);
  },

  /** `position` and `end` are bytes of Data-Out. */
  step(command: Command): void {
    const { task, unit, request, scratch } = command;
    const begin = command.lba * unit.blockSize;
    switch (command.phase) {
      case Phase.LOCKED:
        command.phase = Phase.SCRATCH;
        command.needScratch();
        return;
      case Phase.READ:
        orBytes(task.dataOut, command.position, scratch!, request.length);
        command.phase = Phase.WRITTEN;
        request.data.set(scratch!, 0, request.length);
        command.submitTransfer(LunOp.WRITE, begin + command.position, !unit.writeCache || hasFua(command));
        return;
      case Phase.WRITTEN:
        command.position += request.length;
        break;
    }
    if (command.position === command.end) {
      command.finish();
      return;
    }
    command.phase = Phase.READ;
    request.data.set(scratch!, 0, Math.min(command.end - command.position, unit.scratch.sizeBytes));
    command.submitTransfer(LunOp.READ, begin + command.position, false);
  },
};
