import type { CommandWindow } from './command-window.ts';
import { serialAdd, serialBefore } from './serial.ts';
import type { CancelledMark } from './session-handover.ts';

/** Functions of one session whose commands have not all come, at most. */
const MAX_MARKS = 64;

interface Mark {
  /** Null: all LUNs. */
  readonly lun: number | null;
  endCmdSn: number;
}

/**
 * Commands of a session that task management has aborted before their turn came: they wait for an earlier CmdSN, or have not arrived. A function that is delivered
 * immediately concerns all commands before its CmdSN, by whatever connection they come (RFC 7143 4.2.3.3); they count as received and get no response.
 */
export class CancelledCommands {
  private readonly window: CommandWindow;
  private marks: Mark[] = [];

  constructor(window: CommandWindow) {
    this.window = window;
  }

  /** The commands for `lun` before `endCmdSn`. False: there are too many such functions already. */
  add(lun: number | null, endCmdSn: number): boolean {
    // Nothing is missing; or the number is of no command that could come, and would stand in the way of all that do.
    if (endCmdSn === this.window.expCmdSn || !this.window.contains(serialAdd(endCmdSn, -1))) return true;
    this.prune();
    const mark = this.marks.find((each) => each.lun === lun);
    if (mark !== undefined) {
      if (serialBefore(mark.endCmdSn, endCmdSn)) mark.endCmdSn = endCmdSn;
    } else if (this.marks.length >= MAX_MARKS) return false;
    else this.marks.push({ lun, endCmdSn });
    return true;
  }

  /** Whether the command for `lun` whose turn it is, is one of them. */
  has(lun: number): boolean {
    if (this.marks.length === 0) return false;
    this.prune();
    return this.marks.some((mark) => mark.lun === null || mark.lun === lun);
  }

  /** What still matters, for the next process. */
  handOver(): CancelledMark[] {
    this.prune();
    return this.marks.map(({ lun, endCmdSn }) => ({ lun, endCmdSn }));
  }

  takeOver(marks: readonly CancelledMark[]): void {
    this.marks = marks.slice(0, MAX_MARKS).map(({ lun, endCmdSn }) => ({ lun, endCmdSn }));
  }

  private prune(): void {
    this.marks = this.marks.filter(({ endCmdSn }) => serialBefore(this.window.expCmdSn, endCmdSn));
  }
}
