import { readU32BE, readU64BE, writeU32BE, writeU64BE } from '../base/bytes.ts';
import { LunOp } from '../block/lun-backend.ts';
import { checkRange } from './block-commands.ts';
import type { Command, CommandHandler } from './command.ts';

/**
 * GET LBA STATUS(16) (SBC-4 5.6), from the backend's map.
 *
 *     0  PARAMETER DATA LENGTH(4)   8  descriptors: LBA(8) NUMBER OF LOGICAL BLOCKS(4) PROVISIONING STATUS 0(3)
 */
const HEADER_LENGTH = 8;
const DESCRIPTOR_LENGTH = 16;
const MAX_DESCRIPTORS = 4096;
/** Looks at the map that one command takes: neighbours that say the same are joined, however many there are. */
const MAX_LOOKS = 16384;

const MAPPED = 0;
const DEALLOCATED = 1;
const MAX_BLOCKS = 0xffffffff;

function allocationLength(command: Command): number {
  return readU32BE(command.task.cdb, 10);
}

function look(command: Command): void {
  const { unit } = command;
  const from = (command.lba + command.blocks) * unit.blockSize;
  command.phase++;
  command.submitRange(LunOp.EXTENT, from, unit.blockCount * unit.blockSize - from, false);
}

/** Puts the run `[lba, lba + blocks)` into Data-In, as far as there is room, and begins the next one. */
function putDescriptor(command: Command): void {
  const { task, bytes } = command;
  writeU64BE(bytes, 0, command.lba);
  writeU32BE(bytes, 8, command.blocks);
  writeU32BE(bytes, 12, 0);
  bytes[12] = command.flag ? MAPPED : DEALLOCATED;
  const at = HEADER_LENGTH + command.count * DESCRIPTOR_LENGTH;
  if (at < task.dataInLength) {
    task.dataIn.copyFrom(bytes, 0, at, Math.min(DESCRIPTOR_LENGTH, task.dataInLength - at));
  }
  command.count++;
  command.lba += command.blocks;
  command.blocks = 0;
}

function end(command: Command): void {
  const { task, bytes } = command;
  if (command.blocks > 0) putDescriptor(command);
  const length = HEADER_LENGTH + command.count * DESCRIPTOR_LENGTH;
  writeU32BE(bytes, 0, length - 4);
  writeU32BE(bytes, 4, 0);
  task.dataIn.copyFrom(bytes, 0, 0, Math.min(HEADER_LENGTH, task.dataInLength));
  command.transferIn(Math.min(length, allocationLength(command)));
  command.finish();
}

export const getLbaStatus: CommandHandler = {
  prepare(command: Command): boolean {
    command.lba = readU64BE(command.task.cdb, 2);
    command.blocks = 0;
    if (!checkRange(command)) return false;
    return command.transferIn(Math.min(allocationLength(command), HEADER_LENGTH + MAX_DESCRIPTORS * DESCRIPTOR_LENGTH));
  },

  execute(command: Command): void {
    const room = Math.floor((command.task.dataInLength - HEADER_LENGTH) / DESCRIPTOR_LENGTH);
    command.end = Math.max(1, room);
    command.count = 0;
    command.phase = 0;
    look(command);
  },

  /** `lba`, `blocks`, `flag`: the run so far and whether it is mapped; `count` descriptors of `end` are out; `phase` counts looks. */
  step(command: Command): void {
    const { unit, request } = command;
    let blocks = Math.floor(request.extentLength / unit.blockSize);
    let mapped = request.extentMapped;
    if (blocks === 0) {
      // A boundary inside a block: what is mapped in part is mapped.
      blocks = 1;
      mapped = true;
    }
    if (command.blocks > 0 && mapped !== command.flag) {
      putDescriptor(command);
      if (command.count === command.end) {
        end(command);
        return;
      }
    }
    command.flag = mapped;
    command.blocks += blocks;
    while (command.blocks > MAX_BLOCKS) {
      const rest = command.blocks - MAX_BLOCKS;
      command.blocks = MAX_BLOCKS;
      putDescriptor(command);
      if (command.count === command.end) {
        end(command);
        return;
      }
      command.blocks = rest;
    }
    if (command.lba + command.blocks >= unit.blockCount || command.phase === MAX_LOOKS) end(command);
    else look(command);
  },
};
