import { serialAdd, serialDistance } from './serial.ts';

/**
 * The CmdSN window of a session (RFC 7143 4.2.2.1). A command takes a place when it is delivered and gives it back with its response, so that the
 * initiator never has more than `size` outstanding; MaxCmdSN never goes back.
 */
export class CommandWindow {
  /** CmdSN of the command that is delivered next. */
  expCmdSn: number;
  /** Commands delivered and not answered. */
  outstanding = 0;
  readonly size: number;
  /** What comes is kept and not delivered: another process is about to go on with the session. */
  isFrozen = false;

  constructor(expCmdSn: number, size: number) {
    this.expCmdSn = expCmdSn;
    this.size = size;
  }

  /** One less than ExpCmdSN when the window is closed. */
  get maxCmdSn(): number {
    return serialAdd(this.expCmdSn, this.size - this.outstanding - 1);
  }

  get isClosed(): boolean {
    return this.outstanding >= this.size;
  }

  contains(cmdSn: number): boolean {
    return serialDistance(this.expCmdSn, cmdSn) < this.size - this.outstanding;
  }

  /** The command with ExpCmdSN has been delivered. */
  advance(): void {
    this.expCmdSn = serialAdd(this.expCmdSn, 1);
  }
}
