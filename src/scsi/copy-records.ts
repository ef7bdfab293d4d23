import { MAX_COPY_RECORDS } from './copy-limits.ts';
import { INSUFFICIENT_RESOURCES, NO_SENSE, OPERATION_IN_PROGRESS, type Sense } from './sense.ts';
import { CopyOut, Status } from './spec.ts';
import type { ScsiTask } from './task.ts';
import type { CopyRecordHandover } from './unit-handover.ts';

const NO_BYTES = new Uint8Array(0);

/** What is known of one third-party copy operation (SPC-4 5.17.4.2), while it runs and until its initiator has asked. */
export class CopyRecord {
  readonly listId: number;
  /** Of the command that began it. */
  readonly serviceAction: number;
  /** Segments that have ended. */
  segments = 0;
  /** Requests to the medium that have ended. */
  operations = 0;
  /** Bytes that have been copied. */
  bytes = 0;
  isEnded = false;
  /** It ended because an initiator asked for it. */
  isTerminated = false;
  /** COPY OPERATION ABORT has asked. */
  abortRequested = false;
  status: number = Status.GOOD;
  sense: Uint8Array = NO_BYTES;
  /** What POPULATE TOKEN has made. */
  token: Uint8Array | null = null;
  /** The token had less than was to be written. */
  isPartial = false;
  /** Told, and so not known any more: the status of LID1, the failure details, the tokens. */
  statusTold = false;
  detailsTold = false;
  tokensTold = false;
  #waiting: (() => void)[] = [];

  constructor(listId: number, serviceAction: number) {
    this.listId = listId;
    this.serviceAction = serviceAction;
  }

  /** Of an EXTENDED COPY. */
  get isOfSegments(): boolean {
    return this.serviceAction === CopyOut.EXTENDED_COPY_LID1 || this.serviceAction === CopyOut.EXTENDED_COPY_LID4;
  }

  get hasFailed(): boolean {
    return this.isEnded && this.status !== Status.GOOD;
  }

  /** Asks the operation to stop; calls `callback` when it has ended. Only of one under way. */
  abort(callback: () => void): void {
    this.abortRequested = true;
    this.#waiting.push(callback);
  }

  /** The command that began the operation has its status. */
  commandEnded(task: ScsiTask): void {
    this.isEnded = true;
    this.status = task.status;
    this.isTerminated ||= task.status === Status.TASK_ABORTED;
    if (task.status === Status.CHECK_CONDITION) this.sense = task.sense.slice(0, task.senseLength);
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const callback of waiting) callback();
  }
}

/** The operations of one I_T nexus at one logical unit that a list identifier names. Bounded: the oldest that has ended makes room. */
export class CopyRecords {
  readonly #records: CopyRecord[] = [];

  find(listId: number): CopyRecord | null {
    return this.#records.find((record) => record.listId === listId) ?? null;
  }

  /** Why no operation may begin under `listId` now; NO_SENSE when it may. */
  refusal(listId: number): Sense {
    const same = this.find(listId);
    if (same !== null) return same.isEnded ? NO_SENSE : OPERATION_IN_PROGRESS;
    const isFull = this.#records.length >= MAX_COPY_RECORDS && this.#records.every((record) => !record.isEnded);
    return isFull ? INSUFFICIENT_RESOURCES : NO_SENSE;
  }

  /** Keeps `record`, in the place of one that had its list identifier. `refusal` has said NO_SENSE. */
  keep(record: CopyRecord): void {
    const same = this.find(record.listId);
    if (same !== null) this.#drop(same);
    else if (this.#records.length >= MAX_COPY_RECORDS) this.#drop(this.#records.find(({ isEnded }) => isEnded)!);
    this.#records.push(record);
  }

  /** Those that have ended. */
  handOver(): CopyRecordHandover[] {
    return this.#records
      .filter(({ isEnded }) => isEnded)
      .map((record) => ({
        listId: record.listId,
        serviceAction: record.serviceAction,
        segments: record.segments,
        operations: record.operations,
        bytes: record.bytes,
        isTerminated: record.isTerminated,
        status: record.status,
        sense: Buffer.from(record.sense).toString('hex'),
        token: record.token === null ? null : Buffer.from(record.token).toString('hex'),
        isPartial: record.isPartial,
        statusTold: record.statusTold,
        detailsTold: record.detailsTold,
        tokensTold: record.tokensTold,
      }));
  }

  takeOver(records: readonly CopyRecordHandover[]): void {
    for (const { listId, serviceAction, sense, token, ...rest } of records.slice(-MAX_COPY_RECORDS)) {
      const record = new CopyRecord(listId, serviceAction);
      Object.assign(record, rest);
      record.isEnded = true;
      record.sense = Buffer.from(sense, 'hex');
      record.token = token === null ? null : Buffer.from(token, 'hex');
      this.#records.push(record);
    }
  }

  /** Forgets what has ended. */
  clear(): void {
    for (const record of [...this.#records]) if (record.isEnded) this.#drop(record);
  }

  #drop(record: CopyRecord): void {
    this.#records.splice(this.#records.indexOf(record), 1);
  }
}
