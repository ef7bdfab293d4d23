import { readU16BE, readU64BE } from '../base/bytes.ts';
import { LunOp } from '../block/lun-backend.ts';
import { checkRange, hasFua } from './block-commands.ts';
import type { Command, CommandHandler } from './command.ts';
import { maxTransferBlocks } from './front-end.ts';
import { INVALID_FIELD_IN_COMMAND_INFORMATION_UNIT } from './sense.ts';

const LBA_FIELD = 2;
const BLOCKS_FIELD = 12;

/** Of the nexus, in logical blocks; 0 where not even the smallest write fits a transfer. */
export function atomicLimit({ task, unit }: Command): number {
  const limit = Math.min(unit.maxAtomicBlocks, maxTransferBlocks(task.nexus.frontEnd, unit.blockSize));
  return limit < unit.atomicGranularity ? 0 : limit;
}

const Phase = { LOCKED: 0, WRITTEN: 1 } as const;

/**
 * WRITE ATOMIC(16) (SBC-4 5.47): whatever fails, all of it is on the medium or nothing; and nobody reads a part of it. It begins at a
 * physical block and writes whole ones; there are no atomic boundaries. An initiator that announces less than the CDB says is refused.
 */
export const writeAtomic: CommandHandler = {
  prepare(command: Command): boolean {
    const { task, unit } = command;
    command.lba = readU64BE(task.cdb, LBA_FIELD);
    command.blocks = readU16BE(task.cdb, BLOCKS_FIELD);
    if (!checkRange(command)) return false;
    if (command.blocks > atomicLimit(command)) return command.checkCdb(BLOCKS_FIELD);
    const granularity = unit.atomicGranularity;
    if (command.lba % granularity !== 0) return command.checkCdb(LBA_FIELD);
    if (command.blocks % granularity !== 0) return command.checkCdb(BLOCKS_FIELD);
    const length = command.blocks * unit.blockSize;
    if (task.expectedDataOut < length) {
      command.check(INVALID_FIELD_IN_COMMAND_INFORMATION_UNIT);
      task.residual = task.expectedDataOut - length;
      return false;
    }
    return command.transferOut(length);
  },

  execute(command: Command): void {
    const { statistics } = command.unit;
    statistics.writeCommands++;
    if (command.blocks === 0) {
      command.finish();
      return;
    }
    statistics.writtenBlocks += command.blocks;
    command.phase = Phase.LOCKED;
    command.lock(true);
  },

  step(command: Command): void {
    const { task, unit, request } = command;
    if (command.phase === Phase.WRITTEN) {
      command.finish();
      return;
    }
    command.phase = Phase.WRITTEN;
    request.data.setSlice(task.dataOut, 0, task.dataOutLength);
    command.submitTransfer(LunOp.WRITE, command.lba * unit.blockSize, !unit.writeCache || hasFua(command), true);
  },
};
