import { assert } from '../base/assert.ts';
import { readU32BE } from '../base/bytes.ts';
import { isFinal, taskTag } from './command-pdu.ts';
import { type IscsiTask, TaskState } from './iscsi-task.ts';
import type { Parameters } from './parameters.ts';
import type { PduParser } from './pdu-parser.ts';
import type { PduWriter } from './pdu-writer.ts';
import { Field, IscsiCondition, RESERVED_TAG, RejectReason } from './spec.ts';
import type { TaskTable } from './task-table.ts';

export interface DataCollectorHost {
  /** Answers the PDU that is being read with a reject. */
  reject(parser: PduParser, reason: RejectReason): void;
}

export interface DataCollectorOwner {
  /** Gets memory for all of the task's data. False: the task stands in line for it and begins again when it has it. */
  needMemory(task: IscsiTask): boolean;
  /** The task has its data. */
  dataComplete(task: IscsiTask): void;
  /** The task has failed with a condition of RFC 7143 11.4.7.2; it is answered when `dataDrained` comes. */
  dataWrong(task: IscsiTask, condition: number): void;
  /** Nothing comes any more for a task that has failed. */
  dataDrained(task: IscsiTask): void;
}

/**
 * The data of writes on its way in: unsolicited Data-Out, then R2Ts and their Data-Out (RFC 7143 11.7, 11.8), all in order: DataPDUInOrder and
 * DataSequenceInOrder are Yes.
 *
 * A task whose data is wrong in any way is not carried out; its response waits until the initiator has finished every sequence that it was
 * entitled to send (RFC 7143 11.4.3).
 */
export class DataCollector {
  /** Tasks that hold memory and need more input to give it back. */
  count = 0;
  /** Data that has come in PDUs of tasks that waited for it. */
  dataBytes = 0;

  private readonly table: TaskTable;
  private readonly writer: PduWriter;
  private readonly parameters: Parameters;
  private readonly owner: DataCollectorOwner;
  private readonly host: DataCollectorHost;
  /** The task whose Data-Out is being read. */
  private receiving: IscsiTask | null = null;
  private final = false;
  private solicited = false;
  private length = 0;
  nextTransferTag = 0;

  constructor(
    table: TaskTable,
    writer: PduWriter,
    parameters: Parameters,
    owner: DataCollectorOwner,
    host: DataCollectorHost,
  ) {
    this.host = host;
    this.table = table;
    this.writer = writer;
    this.parameters = parameters;
    this.owner = owner;
  }

  /** Begins, or goes on after standing in line for memory. */
  begin(task: IscsiTask): void {
    task.state = TaskState.COLLECTING;
    this.count++;
    this.advance(task);
  }

  /** A task that is being collected is stopped. Returns whether its Data-Out is being read just now. */
  forget(task: IscsiTask): boolean {
    if (task.state === TaskState.COLLECTING) this.count--;
    if (this.receiving !== task) return false;
    this.receiving = null;
    return true;
  }

  /** A task that is being collected has ended; what it is still entitled to is dropped as it comes. Returns whether its Data-Out is being read just now. */
  drain(task: IscsiTask): boolean {
    this.count--;
    task.state = TaskState.DRAINING;
    return this.receiving === task;
  }

  /** What comes next: wait, ask for more, or done. */
  private advance(task: IscsiTask): void {
    if (task.unsolicitedOpen) return;
    if (task.received >= task.dataOutLength) {
      this.count--;
      this.owner.dataComplete(task);
      return;
    }
    if (task.dataOut.lengthBytes < task.dataOutLength && !this.owner.needMemory(task)) {
      this.count--;
      return;
    }
    const { maxBurstLength, maxOutstandingR2T } = this.parameters;
    while (task.requested < task.dataOutLength && task.r2tOpen < maxOutstandingR2T) {
      const length = Math.min(maxBurstLength, task.dataOutLength - task.requested);
      const slot = task.r2tLast % maxOutstandingR2T;
      const transferTag = this.nextTransferTag;
      this.nextTransferTag = transferTag === RESERVED_TAG - 1 ? 0 : transferTag + 1;
      task.r2tTags[slot] = transferTag;
      task.r2tEnds[slot] = task.requested + length;
      this.writer.r2t(task, transferTag, task.requested, length);
      task.r2tLast++;
      task.requested += length;
    }
  }

  /** The header of a Data-Out. */
  dataOut(parser: PduParser): void {
    this.receiving = null;
    const task = this.table.get(taskTag(parser));
    // Data for a task that was aborted, or has failed, may have been on its way.
    if (task === null || (task.aborted && task.state !== TaskState.DRAINING)) return;
    const solicited = readU32BE(parser.header, parser.headerAt + Field.TRANSFER_TAG) !== RESERVED_TAG;
    if (solicited ? task.r2tOpen === 0 : !task.unsolicitedOpen) {
      this.host.reject(parser, RejectReason.INVALID_PDU_FIELD);
      return;
    }
    this.receiving = task;
    this.final = isFinal(parser);
    this.solicited = solicited;
    this.length = parser.dataLength;
    if (task.state === TaskState.COLLECTING) this.receive(parser, task);
  }

  /** Takes the data, or fails the task when it is not what must come next. */
  private receive(parser: PduParser, task: IscsiTask): void {
    const { header, headerAt: at, dataLength } = parser;
    const slot = task.r2tFirst % this.parameters.maxOutstandingR2T;
    const unasked = Math.min(this.parameters.unsolicitedLength, task.expectedDataOut);
    const end = this.solicited ? task.r2tEnds[slot]! : unasked;
    const offset = readU32BE(header, at + Field.BUFFER_OFFSET);
    let reason: RejectReason | 0 = 0;
    let condition: number = IscsiCondition.PROTOCOL_SERVICE_CRC_ERROR;
    // It says that an earlier one is missing, not what is wrong with this one: no reject, as for those that are lost (RFC 7143 7.9). After a
    // reject some initiators do not wait for the response.
    if (readU32BE(header, at + Field.DATA_SN) !== task.nextDataSn) {
      this.fail(task, condition);
      return;
    }
    if (this.solicited && readU32BE(header, at + Field.TRANSFER_TAG) !== task.r2tTags[slot]) {
      reason = RejectReason.INVALID_PDU_FIELD;
    } else if (parser.ahsLength > 0) reason = RejectReason.INVALID_PDU_FIELD;
    else if (offset !== task.received) reason = RejectReason.INVALID_PDU_FIELD;
    else if (offset + dataLength > end || (this.solicited && this.final && offset + dataLength !== end)) {
      reason = RejectReason.PROTOCOL_ERROR;
      condition = IscsiCondition.INCORRECT_AMOUNT_OF_DATA;
    }
    if (reason !== 0) {
      this.host.reject(parser, reason);
      this.fail(task, condition);
    } else if (offset < task.dataOut.lengthBytes) {
      parser.intoVector(task.dataOut, offset, task.dataOut.lengthBytes - offset);
    }
  }

  /** The data segment of that Data-Out is in. */
  dataOutEnd(parser: PduParser, intact: boolean): void {
    const task = this.receiving;
    this.receiving = null;
    if (!intact) this.host.reject(parser, RejectReason.DATA_DIGEST_ERROR);
    if (task === null) return;
    if (!intact && task.state === TaskState.COLLECTING) this.fail(task, IscsiCondition.PROTOCOL_SERVICE_CRC_ERROR);
    task.received += this.length;
    this.dataBytes += this.length;
    task.nextDataSn++;
    if (!this.final) return;
    task.nextDataSn = 0;
    if (this.solicited) task.r2tFirst++;
    else {
      task.unsolicitedOpen = false;
      task.requested = task.received;
    }
    if (task.state === TaskState.COLLECTING) this.advance(task);
    else if (!task.expectsData) this.owner.dataDrained(task);
  }

  private fail(task: IscsiTask, condition: number): void {
    assert(task.state === TaskState.COLLECTING, 'a task fails once');
    this.drain(task);
    this.owner.dataWrong(task, condition);
  }
}
