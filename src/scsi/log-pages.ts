import { readU16BE, writeU16BE } from '../base/bytes.ts';
import type { Command, CommandHandler } from './command.ts';

/**
 * LOG SENSE (SPC-4 6.7, 7.3). So far the two pages that list what there is.
 *
 *     0  PAGE CODE, SPF 40h   1 SUBPAGE CODE   2 PAGE LENGTH(2)   4 page codes, or with subpages pairs of codes
 */
const SUPPORTED_PAGES = 0x00;
const SUPPORTED_SUBPAGES = 0xff;

export const logSense: CommandHandler = {
  prepare(command: Command): boolean {
    const { cdb } = command.task;
    if ((cdb[2]! & 0x3f) !== SUPPORTED_PAGES) return command.checkCdb(2, 5);
    if (cdb[3] !== 0 && cdb[3] !== SUPPORTED_SUBPAGES) return command.checkCdb(3);
    return command.transferIn(readU16BE(cdb, 7));
  },

  execute(command: Command): void {
    const { unit, task } = command;
    const out = unit.reply;
    const withSubpages = task.cdb[3] === SUPPORTED_SUBPAGES;
    out.fill(0, 0, 16);
    let length: number;
    if (withSubpages) {
      out[0] = 0x40;
      out[1] = SUPPORTED_SUBPAGES;
      // 00h/00h, 00h/FFh
      out[7] = SUPPORTED_SUBPAGES;
      length = 4;
    } else {
      length = 1;
    }
    writeU16BE(out, 2, length);
    command.finishReply(4 + length, readU16BE(task.cdb, 7));
  },

  step(): void {},
};
