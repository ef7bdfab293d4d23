import { readU32BE, readU64BE, writeU32BE, writeU64BE } from '../base/bytes.ts';
import { LunOp } from '../block/lun-backend.ts';
import { checkRange } from './block-commands.ts';
import type { Command, CommandHandler } from './command.ts';

/**
 * GET LBA STATUS(16) (SBC-4 5.6), from the backend's map.
 *
 *     0  PARAMETER DATA LENGTH(4)   7  COMPLETION CONDITION(3 bits),RTP   8  descriptors: LBA(8) NUMBER OF LOGICAL BLOCKS(4) PROVISIONING STATUS 0(3)
 */
const HEADER_LENGTH = 8;
const DESCRIPTOR_LENGTH = 16;
const MAX_DESCRIPTORS = 4096;
/** Looks at the map that one command takes: neighbours that say the same are joined, however many there are. */
const MAX_LOOKS = 16384;

const MAPPED = 0;
const DEALLOCATED = 1;
const MAX_BLOCKS = 0xffffffff;

/** REPORT TYPE: which blocks are reported. Nothing is anchored, and nothing known to be unreadable. */
const ReportType = {
  ALL: 0x00,
  NOT_MAPPED: 0x01,
  MAPPED: 0x02,
  DEALLOCATED: 0x03,
  ANCHORED: 0x04,
  UNREADABLE: 0x10,
} as const;
const REPORT_TYPES: readonly number[] = Object.values(ReportType);
const REPORT_TYPE_FIELD = 14;

function isReported(type: number, mapped: boolean): boolean {
  if (type === ReportType.ALL) return true;
  if (type === ReportType.MAPPED) return mapped;
  return (type === ReportType.NOT_MAPPED || type === ReportType.DEALLOCATED) && !mapped;
}

/** COMPLETION CONDITION, in its place, and RTP: REPORT TYPE is processed. */
const NO_ROOM = 0x02;
const LOOKED_ENOUGH = 0x04;
const END_OF_MEDIUM = 0x06;
const RTP = 0x01;

function allocationLength(command: Command): number {
  return readU32BE(command.task.cdb, 10);
}

function look(command: Command): void {
  const { unit } = command;
  const from = (command.lba + command.blocks) * unit.blockSize;
  command.phase++;
  command.submitRange(LunOp.EXTENT, from, unit.blockCount * unit.blockSize - from, false);
}

/** Puts the run `[lba, lba + blocks)` into Data-In if it is asked for, as far as there is room, and begins the next one. */
function putDescriptor(command: Command): void {
  const { task, bytes } = command;
  if (isReported(task.cdb[REPORT_TYPE_FIELD]!, command.flag)) {
    writeU64BE(bytes, 0, command.lba);
    writeU32BE(bytes, 8, command.blocks);
    writeU32BE(bytes, 12, 0);
    bytes[12] = command.flag ? MAPPED : DEALLOCATED;
    const at = HEADER_LENGTH + command.count * DESCRIPTOR_LENGTH;
    if (at < task.dataInLength) {
      task.dataIn.copyFrom(bytes, 0, at, Math.min(DESCRIPTOR_LENGTH, task.dataInLength - at));
    }
    command.count++;
  }
  command.lba += command.blocks;
  command.blocks = 0;
}

function end(command: Command, completion: number): void {
  const { task, bytes } = command;
  const length = HEADER_LENGTH + command.count * DESCRIPTOR_LENGTH;
  writeU32BE(bytes, 0, length - 4);
  writeU32BE(bytes, 4, 0);
  bytes[7] = completion | RTP;
  task.dataIn.copyFrom(bytes, 0, 0, Math.min(HEADER_LENGTH, task.dataInLength));
  command.transferIn(Math.min(length, allocationLength(command)));
  command.finish();
}

export const getLbaStatus: CommandHandler = {
  prepare(command: Command): boolean {
    command.lba = readU64BE(command.task.cdb, 2);
    command.blocks = 0;
    if (!checkRange(command)) return false;
    if (!REPORT_TYPES.includes(command.task.cdb[REPORT_TYPE_FIELD]!)) return command.checkCdb(REPORT_TYPE_FIELD);
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
        end(command, NO_ROOM);
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
        end(command, NO_ROOM);
        return;
      }
      command.blocks = rest;
    }
    const isEnd = command.lba + command.blocks >= unit.blockCount;
    if (!isEnd && command.phase < MAX_LOOKS) {
      look(command);
      return;
    }
    if (command.blocks > 0) putDescriptor(command);
    end(command, isEnd ? END_OF_MEDIUM : LOOKED_ENOUGH);
  },
};
