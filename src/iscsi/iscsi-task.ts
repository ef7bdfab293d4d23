import { ScsiTask } from '../scsi/task.ts';
import type { InputChunk } from './input-chunks.ts';

/** Where a task is between its command PDU and its response. */
export const TaskState = {
  FREE: 0,
  /** In line for memory. */
  WAITING: 1,
  /** Its data is coming in. */
  COLLECTING: 2,
  /** The engine has it. */
  RUNNING: 3,
  /** Failed early; its response waits until the initiator has sent what it is entitled to send (RFC 7143 11.4.3). */
  DRAINING: 4,
} as const;
export type TaskState = (typeof TaskState)[keyof typeof TaskState];

/** A SCSI task with what the transport keeps of it. Pooled, one pool a session. */
export class IscsiTask extends ScsiTask {
  state: TaskState = TaskState.FREE;
  /** Initiator Task Tag. */
  tag = 0;
  immediate = false;
  lun = 0;
  /** The LUN field as it came, in two words. */
  lunHigh = 0;
  lunLow = 0;
  /** Up to two ranges of the data memory; a length of 0 is none. */
  memoryOffset = 0;
  memoryLength = 0;
  /** The first range is of the urgent kind; the other never is. */
  memoryUrgent = false;
  restOffset = 0;
  restLength = 0;
  /** Where the data came in, if it stays there. */
  chunk: InputChunk | null = null;

  /** Data-Out without an R2T is still to come. */
  unsolicitedOpen = false;
  /** DataSN that the next Data-Out of the sequence that is open must have. */
  nextDataSn = 0;
  /** Bytes that came in order, whether or not they are kept. */
  received = 0;
  /** Bytes received or asked for. */
  requested = 0;
  /**
   * The R2Ts that are not answered yet: their tags, and where each one's data ends. R2TSN `r2tFirst` (the oldest) up to `r2tLast` (the next one to be
   * sent), each at its number modulo MaxOutstandingR2T.
   */
  readonly r2tTags: number[] = [];
  readonly r2tEnds: number[] = [];
  r2tFirst = 0;
  r2tLast = 0;
  /** Of the data that `PduWriter.dataIn` sent: nothing points into the memory any more. */
  memoryCopied = true;
  /** Data-In PDUs sent. */
  dataInCount = 0;
  /** A task of a line (a pool, a line for memory). */
  nextInLine: IscsiTask | null = null;

  /** R2Ts that are not answered yet. */
  get r2tOpen(): number {
    return this.r2tLast - this.r2tFirst;
  }

  /** The initiator may still send data that it was asked for, or announced. */
  get expectsData(): boolean {
    return this.unsolicitedOpen || this.r2tLast > this.r2tFirst;
  }

  /** For the next command. */
  reset(): void {
    this.aborted = false;
    this.abortReported = false;
    this.memoryLength = 0;
    this.restLength = 0;
    this.unsolicitedOpen = false;
    this.nextDataSn = 0;
    this.received = 0;
    this.requested = 0;
    this.r2tFirst = 0;
    this.r2tLast = 0;
    this.memoryUrgent = false;
    this.dataInCount = 0;
    this.nextInLine = null;
    this.dataOut.clear();
    this.dataIn.clear();
  }
}
