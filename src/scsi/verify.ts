import { LunOp } from '../block/lun-backend.ts';
import { takeRange, takeTransfer } from './block-commands.ts';
import { flagsField, flagsOf } from './cdb.ts';
import type { Command, CommandHandler } from './command.ts';
import { firstDifference } from './data-bytes.ts';
import { MISCOMPARE_DURING_VERIFY } from './sense.ts';

/**
 * VERIFY (SBC-4 5.36 to 5.38) and WRITE AND VERIFY (SBC-4 5.44 to 5.46).
 *
 * Blocks are read in pieces of a scratch buffer and, as BYTCHK says, not compared, compared with as much Data-Out, or each with one block of
 * Data-Out. A miscompare names the first differing block in INFORMATION. Blocks that the map calls unmapped are verified without reading them where
 * nothing is compared.
 */
const ByteCheck = { NONE: 0, ALL: 1, ONE_BLOCK: 3 } as const;

function byteCheckOf(command: Command): number {
  return (flagsOf(command.task.cdb) >>> 1) & 3;
}

const Phase = { LOCKED: 0, DURABLE: 1, NEXT: 2, EXTENT: 3, READ: 4 } as const;

/** Goes on to the next piece, or ends. `position` and `end` are bytes of the medium. */
function nextPiece(command: Command): void {
  const { unit, position, end } = command;
  if (position === end) {
    command.finish();
  } else if (byteCheckOf(command) === ByteCheck.NONE) {
    command.phase = Phase.EXTENT;
    command.submitRange(LunOp.EXTENT, position, end - position, false);
  } else {
    readPiece(command, Math.min(end - position, unit.scratch.sizeBytes));
  }
}

function readPiece(command: Command, length: number): void {
  command.phase = Phase.READ;
  command.request.data.set(command.scratch!, 0, length);
  command.submitTransfer(LunOp.READ, command.position, false);
}

/** The steps from DURABLE on, which both commands have: what is verified is on the medium now. */
function verifyStep(command: Command): void {
  const { unit, request } = command;
  switch (command.phase) {
    case Phase.DURABLE:
      command.phase = Phase.NEXT;
      command.needScratch();
      return;
    case Phase.EXTENT:
      if (request.extentMapped) {
        readPiece(command, Math.min(request.extentLength, unit.scratch.sizeBytes));
        return;
      }
      command.position += request.extentLength;
      break;
    case Phase.READ: {
      const difference = differenceOf(command, request.length);
      if (difference >= 0) {
        command.fail(MISCOMPARE_DURING_VERIFY, Math.floor((command.position + difference) / unit.blockSize));
        return;
      }
      command.position += request.length;
      break;
    }
  }
  nextPiece(command);
}

/** Byte of the piece in `scratch` that is not as Data-Out says; -1 when all are. */
function differenceOf(command: Command, length: number): number {
  const { task, unit, scratch } = command;
  const byteCheck = byteCheckOf(command);
  if (byteCheck === ByteCheck.NONE) return -1;
  if (byteCheck === ByteCheck.ALL) {
    return firstDifference(task.dataOut, command.position - command.lba * unit.blockSize, scratch!, length);
  }
  for (let at = 0; at < length; at += unit.blockSize) {
    const difference = firstDifference(task.dataOut, 0, scratch!.subarray(at, at + unit.blockSize), unit.blockSize);
    if (difference >= 0) return at + difference;
  }
  return -1;
}

export const verify: CommandHandler = {
  prepare(command: Command): boolean {
    const { task, unit } = command;
    const { blockSize } = unit;
    switch (byteCheckOf(command)) {
      case ByteCheck.NONE:
        return takeRange(command) && command.transferNone();
      case ByteCheck.ALL:
        return takeTransfer(command) && command.transferOutBlocks(command.blocks * blockSize);
      case ByteCheck.ONE_BLOCK:
        if (!takeRange(command)) return false;
        if (command.blocks === 0) return command.transferNone();
        if (task.expectedDataOut < blockSize) return command.checkCdb(flagsField(task.cdb), 2);
        return command.transferOut(blockSize);
      default:
        return command.checkCdb(flagsField(task.cdb), 2);
    }
  },

  execute(command: Command): void {
    const { task, unit } = command;
    const length = byteCheckOf(command) === ByteCheck.ALL ? task.dataOutLength : command.blocks * unit.blockSize;
    if (length === 0) {
      command.finish();
      return;
    }
    command.position = command.lba * unit.blockSize;
    command.end = command.position + length;
    command.phase = Phase.LOCKED;
    command.lock(false);
  },

  step(command: Command): void {
    if (command.phase === Phase.LOCKED) {
      // What is verified is the medium: what a volatile cache still holds goes there first (SBC-4 4.15).
      command.phase = Phase.DURABLE;
      command.submitRange(LunOp.FLUSH, 0, 0, false);
      return;
    }
    verifyStep(command);
  },
};

/** Holds its blocks alone, so that nobody else's write comes between its own and the comparison. */
export const writeAndVerify: CommandHandler = {
  prepare(command: Command): boolean {
    const { blockSize } = command.unit;
    return takeTransfer(command) && command.transferOutBlocks(command.blocks * blockSize);
  },

  execute(command: Command): void {
    const { task, unit } = command;
    if (task.dataOutLength === 0) {
      command.finish();
      return;
    }
    command.position = command.lba * unit.blockSize;
    command.end = command.position + task.dataOutLength;
    command.phase = Phase.LOCKED;
    command.lock(true);
  },

  step(command: Command): void {
    if (command.phase === Phase.LOCKED) {
      command.phase = Phase.DURABLE;
      command.request.data.setSlice(command.task.dataOut, 0, command.task.dataOutLength);
      command.submitTransfer(LunOp.WRITE, command.position, true);
      return;
    }
    verifyStep(command);
  },
};
