import { LunOp } from '../block/lun-backend.ts';
import { checkRange } from './block-commands.ts';
import { blockCountField, flagsField, flagsOf, readBlockCount, readLba } from './cdb.ts';
import type { Command, CommandHandler } from './command.ts';
import { isZero, repeatBytes } from './data-bytes.ts';
import { Opcode } from './spec.ts';

/**
 * WRITE SAME (SBC-4 5.48, 5.49). One block of Data-Out, or with NDOB a block of zeroes, on every block of a range. Zeroes are one request: an
 * unmap where UNMAP allows it and unmapped blocks read as zeroes, else zeroes that stay mapped. With UNMAP and other data than zeroes the data is written, as unmapped blocks would
 * not read back as what was sent.
 */
const NDOB = 0x01;
const UNMAP = 0x08;
/** The ANCHOR bit: what is unmapped has its space all the same. Here it is mapped, as the standard allows. */
export const ANCHOR = 0x10;
export const UNMAP_BITS: number = UNMAP | ANCHOR;

const Phase = { LOCKED: 0, ZEROED: 1, FLUSHED: 2, SCRATCH: 3, WRITTEN: 4 } as const;

function writePiece(command: Command): void {
  const { unit, request } = command;
  if (command.position === command.end) {
    command.finish();
    return;
  }
  command.phase = Phase.WRITTEN;
  request.data.set(command.scratch!, 0, Math.min(command.end - command.position, unit.scratch.sizeBytes));
  command.submitTransfer(LunOp.WRITE, command.position, !unit.writeCache);
}

export const writeSame: CommandHandler = {
  prepare(command: Command): boolean {
    const { task, unit } = command;
    const { cdb } = task;
    command.lba = readLba(cdb);
    command.blocks = readBlockCount(cdb);
    if (!checkRange(command)) return false;
    // WSNZ is 0: no number of blocks means up to the last one.
    if (command.blocks === 0) command.blocks = unit.blockCount - command.lba;
    if (command.blocks > unit.maxWriteSameBlocks) return command.checkCdb(blockCountField(cdb));
    const flags = flagsOf(cdb);
    if ((flags & UNMAP_BITS) === ANCHOR) return command.checkCdb(flagsField(cdb), 4);
    command.flag = cdb[0] !== Opcode.WRITE_SAME_10 && (flags & NDOB) !== 0;
    if (command.flag) return command.transferNone();
    if (task.expectedDataOut !== unit.blockSize) return command.checkCdb(blockCountField(cdb));
    return command.transferOut(unit.blockSize);
  },

  execute(command: Command): void {
    const { task, unit } = command;
    command.flag = command.flag || isZero(task.dataOut);
    command.position = command.lba * unit.blockSize;
    command.end = command.position + command.blocks * unit.blockSize;
    command.phase = Phase.LOCKED;
    command.lock(!command.flag);
  },

  /** `flag`: zeroes. `position` and `end` are bytes of the medium. */
  step(command: Command): void {
    const { task, unit, request } = command;
    const unmap = (flagsOf(task.cdb) & UNMAP_BITS) === UNMAP && unit.backend.unmappedReadsZeroes;
    switch (command.phase) {
      case Phase.LOCKED:
        if (command.flag) {
          command.phase = Phase.ZEROED;
          command.submitRange(
            unmap ? LunOp.UNMAP : LunOp.WRITE_ZEROES,
            command.position,
            command.end - command.position,
            !unit.writeCache,
          );
        } else {
          command.phase = Phase.SCRATCH;
          command.needScratch();
        }
        break;
      case Phase.ZEROED:
        if (command.unmapRefused) {
          command.submitRange(LunOp.WRITE_ZEROES, command.position, command.end - command.position, !unit.writeCache);
        } else if (unmap && !unit.writeCache) {
          command.phase = Phase.FLUSHED;
          command.submitRange(LunOp.FLUSH, 0, 0, false);
        } else {
          command.finish();
        }
        break;
      case Phase.SCRATCH: {
        const length = Math.min(command.end - command.position, unit.scratch.sizeBytes);
        task.dataOut.copyTo(command.scratch!, 0, 0, unit.blockSize);
        repeatBytes(command.scratch!, unit.blockSize, length);
        writePiece(command);
        break;
      }
      case Phase.WRITTEN:
        command.position += request.length;
        writePiece(command);
        break;
      default:
        command.finish();
    }
  },
};
