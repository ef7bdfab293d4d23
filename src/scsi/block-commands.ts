import { LunOp } from '../block/lun-backend.ts';
import { blockCountField, flagsOf, readBlockCount, readLba } from './cdb.ts';
import type { Command, CommandHandler } from './command.ts';
import { LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE } from './sense.ts';
import { Opcode } from './spec.ts';

/** READ, WRITE and what else names a range of blocks and does one thing to it. */

/** FUA in the flags of the CDBs that have it. */
export const FUA = 0x08;

/** Sets `lba` and `blocks` from the CDB; false after CHECK CONDITION when they do not lie on the medium. */
export function takeRange(command: Command): boolean {
  const { cdb } = command.task;
  command.lba = readLba(cdb);
  command.blocks = readBlockCount(cdb);
  return checkRange(command);
}

/** `lba` names a block also where `blocks` is zero. No sum that could pass 2^53 is made. */
export function checkRange(command: Command): boolean {
  const { lba, blocks, unit } = command;
  if (lba >= unit.blockCount || blocks > unit.blockCount - lba) {
    return command.check(LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE);
  }
  return true;
}

/** As `takeRange`, and the blocks are transferred: at most MAXIMUM TRANSFER LENGTH. 0 means 256 in the 6-byte CDBs. */
export function takeTransfer(command: Command): boolean {
  const { cdb } = command.task;
  command.lba = readLba(cdb);
  command.blocks = readBlockCount(cdb);
  if (command.blocks === 0 && cdb[0]! >>> 5 === 0) command.blocks = 256;
  if (!checkRange(command)) return false;
  if (command.blocks * command.unit.blockSize > command.task.nexus.frontEnd.maxTransferBytes) {
    return command.checkCdb(blockCountField(cdb));
  }
  return true;
}

export function hasFua(command: Command): boolean {
  return (flagsOf(command.task.cdb) & FUA) !== 0;
}

const Read = { LOCKED: 0, FLUSHED: 1, BLOCKS: 2, TAIL_SCRATCH: 3, TAIL: 4 } as const;

/**
 * READ (SBC-4 5.14 to 5.17). With FUA what is in a volatile cache goes to the medium first. When the initiator has room for less than the
 * CDB says, the last block may be a partial one, which is read beside and copied.
 */
export const read: CommandHandler = {
  prepare(command: Command): boolean {
    return takeTransfer(command) && command.transferIn(command.blocks * command.unit.blockSize);
  },

  execute(command: Command): void {
    const { statistics } = command.unit;
    statistics.readCommands++;
    if (command.task.dataInLength === 0) {
      command.finish();
      return;
    }
    statistics.readBlocks += command.blocks;
    command.phase = Read.LOCKED;
    command.lock(false);
  },

  step(command: Command): void {
    const { task, unit, request } = command;
    const { blockSize } = unit;
    const tail = task.dataInLength % blockSize;
    const whole = task.dataInLength - tail;
    if (command.phase === Read.LOCKED) {
      command.phase = Read.FLUSHED;
      if (hasFua(command)) {
        command.submitRange(LunOp.FLUSH, 0, 0, false);
        return;
      }
    }
    if (command.phase === Read.FLUSHED) {
      command.phase = Read.BLOCKS;
      if (whole > 0) {
        request.data.setSlice(task.dataIn, 0, whole);
        command.submitTransfer(LunOp.READ, command.lba * blockSize, false);
        return;
      }
    }
    if (command.phase === Read.BLOCKS && tail > 0) {
      command.phase = Read.TAIL_SCRATCH;
      command.needScratch();
      return;
    }
    if (command.phase === Read.TAIL_SCRATCH) {
      command.phase = Read.TAIL;
      request.data.set(command.scratch!, 0, blockSize);
      command.submitTransfer(LunOp.READ, command.lba * blockSize + whole, false);
      return;
    }
    if (command.phase === Read.TAIL) task.dataIn.copyFrom(command.scratch!, 0, whole, tail);
    command.finish();
  },
};

const Write = { LOCKED: 0, WRITTEN: 1 } as const;

/** WRITE (SBC-4 5.40 to 5.43). When the initiator announced less than the CDB says, the whole blocks that it announced are written. */
export const write: CommandHandler = {
  prepare(command: Command): boolean {
    const { blockSize } = command.unit;
    return takeTransfer(command) && command.transferOutBlocks(command.blocks * blockSize);
  },

  execute(command: Command): void {
    const { statistics } = command.unit;
    statistics.writeCommands++;
    if (command.task.dataOutLength === 0) {
      command.finish();
      return;
    }
    statistics.writtenBlocks += command.blocks;
    command.phase = Write.LOCKED;
    command.lock(false);
  },

  step(command: Command): void {
    const { task, unit, request } = command;
    if (command.phase === Write.WRITTEN) {
      command.finish();
      return;
    }
    command.phase = Write.WRITTEN;
    request.data.setSlice(task.dataOut, 0, task.dataOutLength);
    command.submitTransfer(LunOp.WRITE, command.lba * unit.blockSize, !unit.writeCache || hasFua(command));
  },
};

/** SYNCHRONIZE CACHE (SBC-4 5.33, 5.34). Flushes everything; with IMMED too the status waits for it, which promises more. */
export const synchronizeCache: CommandHandler = {
  prepare(command: Command): boolean {
    return takeRange(command) && command.transferNone();
  },

  execute(command: Command): void {
    command.submitRange(LunOp.FLUSH, 0, 0, false);
  },

  step(command: Command): void {
    command.finish();
  },
};

/** REZERO UNIT, SEEK(6) and SEEK(10) (SCSI-2): nothing moves here; old guests send them. */
export const seek: CommandHandler = {
  prepare(command: Command): boolean {
    command.lba = command.task.cdb[0] === Opcode.REZERO_UNIT ? 0 : readLba(command.task.cdb);
    command.blocks = 0;
    return checkRange(command) && command.transferNone();
  },

  execute(command: Command): void {
    command.finish();
  },

  step(): void {},
};

/** PRE-FETCH (SBC-4 5.13). GOOD and not CONDITION MET: there is no cache here that would promise to hold the blocks. */
export const preFetch: CommandHandler = {
  prepare(command: Command): boolean {
    return takeRange(command) && command.transferNone();
  },

  execute(command: Command): void {
    command.finish();
  },

  step(): void {},
};
