import { assert } from '../base/assert.ts';
import { readU32BE } from '../base/bytes.ts';
import { decodeLun } from '../scsi/lun.ts';
import type { Nexus } from '../scsi/nexus.ts';
import { INVALID_FIELD_IN_CDB, NO_INFORMATION, NO_SKS, writeSense } from '../scsi/sense.ts';
import { Status } from '../scsi/spec.ts';
import type { Target } from '../scsi/target.ts';
import type { ScsiTask, ScsiTaskOwner } from '../scsi/task.ts';
import type { CommandWindow } from './command-window.ts';
import type { MemoryAccount, MemoryUser } from './data-memory.ts';
import { type AbortWaiter, IscsiTask, TaskState } from './iscsi-task.ts';
import type { PortalLimits } from './limits.ts';
import type { Parameters } from './parameters.ts';
import { type PduParser, Verdict } from './pdu-parser.ts';
import type { PduWriter } from './pdu-writer.ts';
import {
  AhsType,
  BASIC_CDB_SIZE,
  BHS_SIZE,
  CommandFlag,
  FINAL,
  Field,
  IMMEDIATE,
  IscsiCondition,
  PAD_SIZE,
  RESERVED_TAG,
  RejectReason,
} from './spec.ts';
import { TaskTable } from './task-table.ts';

const ABORTED_COMMAND = 0x0b;

/** What a task set needs of its connection. */
export interface TaskSetHost {
  /** Answers the PDU that is being read with a reject. */
  reject(parser: PduParser, reason: RejectReason): void;
  /** A command that blocked the input can be tried again. */
  resumeInput(): void;
  /** The memory that the rest of the data segment goes to is being given back. */
  discardInput(): void;
  /** The last task has ended. */
  tasksEnded(): void;
}

/**
 * The SCSI tasks of one connection in full feature phase, from the command PDU over memory, data and the engine to the response
 * (RFC 7143 11.3, 11.4, 11.7, 11.8).
 *
 * ```
 *  command ─ prepare ─┬─ ended early ──────────────────────────┬─ DRAINING: unsolicited data still comes ─┐
 *                     │                                        └──────────────────────────────────────────┤
 *                     ├─ WAITING: in line for memory ─┐                                                   │
 *                     ├─ COLLECTING: data comes in  <─┤  wrong data ─ DRAINING ───────────────────────────┤
 *                     └─ RUNNING: in the engine     <─┘ ──────────────────────────────────────────────────┴─ response
 * ```
 *
 * A write gets memory for all of its data where there is enough, else only for what comes unasked; the rest waits in line before it is asked for. When not
 * even the unsolicited data has room, the input stands still, unless data that would free memory must come through it: then the command ends
 * with TASK SET FULL.
 */
export class TaskSet implements ScsiTaskOwner, MemoryUser {
  private readonly target: Target;
  private readonly nexus: Nexus;
  private readonly writer: PduWriter;
  private readonly window: CommandWindow;
  private readonly parameters: Parameters;
  private readonly limits: PortalLimits;
  private readonly account: MemoryAccount;
  private readonly host: TaskSetHost;

  private readonly table: TaskTable;
  private pool: IscsiTask | null = null;
  private immediateCount = 0;
  /** Tasks that hold memory and need more input to give it back. */
  private collectingCount = 0;
  private closed = false;

  /** The task whose command PDU is being read; not in the table before its end. */
  private incoming: IscsiTask | null = null;
  private incomingDone = false;
  private incomingFinal = false;
  private incomingLength = 0;
  /** The incoming task has no room: the input stands still. */
  private blocked = false;

  /** The task whose Data-Out is being read. */
  private receiving: IscsiTask | null = null;
  private receivingFinal = false;
  private receivingSolicited = false;
  private receivingLength = 0;
  private nextTransferTag = 0;

  /** Tasks in line for memory, first come first served. */
  private lineFirst: IscsiTask | null = null;
  private lineLast: IscsiTask | null = null;
  /** Refused for what this connection holds itself: tried again when some of that is freed. */
  private waitsForOwn = false;

  constructor(
    target: Target,
    nexus: Nexus,
    writer: PduWriter,
    window: CommandWindow,
    parameters: Parameters,
    limits: PortalLimits,
    account: MemoryAccount,
    host: TaskSetHost,
  ) {
    this.target = target;
    this.nexus = nexus;
    this.writer = writer;
    this.window = window;
    this.parameters = parameters;
    this.limits = limits;
    this.account = account;
    this.host = host;
    this.table = new TaskTable(limits.commandWindow + limits.immediateCommands);
  }

  /** Tasks that have no response yet, aborted ones in the engine included. */
  get count(): number {
    return this.table.count;
  }

  /** The input stands still for a command without room. */
  get isBlocked(): boolean {
    return this.blocked;
  }

  /** Data that the initiator was asked for, or announced, has not come. */
  get expectsData(): boolean {
    return this.tasks().some((task) => task.expectsData);
  }

  find(tag: number): IscsiTask | null {
    return this.table.get(tag);
  }

  tasks(): IscsiTask[] {
    return this.table.list();
  }

  // --- the command PDU ---

  /** The header of a SCSI command whose turn it is. BLOCK: call again for the same header when there is memory. */
  command(parser: PduParser): Verdict {
    if (!this.blocked) {
      this.incoming = this.admit(parser);
      if (this.incoming === null) return Verdict.ACCEPT;
    }
    return this.makeRoom(this.incoming!, parser);
  }

  /** The data segment of that command is in; when its digest was wrong, the command was never received. */
  commandEnd(parser: PduParser, intact: boolean): void {
    const task = this.incoming;
    this.incoming = null;
    if (task === null) return;
    if (!intact) {
      this.freeMemory(task);
      this.recycle(task);
      this.host.reject(parser, RejectReason.DATA_DIGEST_ERROR);
      return;
    }
    this.table.add(task);
    if (task.immediate) this.immediateCount++;
    else this.window.outstanding++;
    task.received = this.incomingLength;
    task.requested = this.incomingLength;
    task.unsolicitedOpen = !this.incomingFinal;
    if (this.incomingDone) {
      if (task.unsolicitedOpen) task.state = TaskState.DRAINING;
      else this.respond(task);
    } else if (task.dataOutLength > 0 || task.unsolicitedOpen) this.beginCollecting(task);
    else if (task.dataInLength > 0 && !this.takeMemory(task)) this.standInLine(task);
    else this.run(task);
  }

  /** Checks the PDU and prepares the task; null when the PDU was rejected. */
  private admit(parser: PduParser): IscsiTask | null {
    const { header, headerAt: at, dataLength } = parser;
    const flags = header[at + Field.FLAGS]!;
    const immediate = (header[at]! & IMMEDIATE) !== 0;
    const final = (flags & FINAL) !== 0;
    const read = (flags & CommandFlag.READ) !== 0;
    const write = (flags & CommandFlag.WRITE) !== 0;
    const tag = readU32BE(header, at + Field.TASK_TAG);
    const reason = this.refuse(parser, tag, immediate, final, read, write);
    if (reason !== 0) {
      this.host.reject(parser, reason);
      return null;
    }
    const task = this.take();
    task.reset();
    for (let i = 0; i < BASIC_CDB_SIZE; i++) task.cdb[i] = header[at + Field.CDB + i]!;
    task.cdbLength = BASIC_CDB_SIZE;
    if (parser.ahsLength > 0 && !readExtendedCdb(task, header, at + BHS_SIZE, parser.ahsLength)) {
      this.recycle(task);
      this.host.reject(parser, RejectReason.INVALID_PDU_FIELD);
      return null;
    }
    const expectedLength = readU32BE(header, at + Field.EXPECTED_LENGTH);
    task.tag = tag;
    task.cmdSn = readU32BE(header, at + Field.CMD_SN);
    task.immediate = immediate;
    task.lunHigh = readU32BE(header, at + Field.LUN);
    task.lunLow = readU32BE(header, at + Field.LUN + 4);
    task.lun = decodeLun(header, at + Field.LUN);
    task.expectedLength = expectedLength;
    task.expectedDataOut = write ? expectedLength : 0;
    task.expectedDataIn = read ? expectedLength : 0;
    this.incomingFinal = final;
    this.incomingLength = dataLength;
    this.incomingDone = true;
    const { initialR2T, immediateData, unsolicitedLength } = this.parameters;
    if ((dataLength > 0 && !immediateData) || (!final && initialR2T)) {
      this.failWith(task, IscsiCondition.UNEXPECTED_UNSOLICITED_DATA);
    } else if (dataLength > Math.min(unsolicitedLength, expectedLength)) {
      this.failWith(task, IscsiCondition.INCORRECT_AMOUNT_OF_DATA);
    } else if (this.target.prepare(task, task.lun)) {
      assert(task.dataOutLength <= task.expectedDataOut, 'the engine asks for no more than was announced');
      assert(task.dataInLength <= task.expectedDataIn, 'the engine returns no more than there is room for');
      if (Math.max(task.dataOutLength, task.dataInLength) > this.account.limitBytes) {
        this.endWith(task, INVALID_FIELD_IN_CDB);
      } else this.incomingDone = false;
    }
    return task;
  }

  /** Why the PDU cannot be a command, 0 when it can. */
  private refuse(
    parser: PduParser,
    tag: number,
    immediate: boolean,
    final: boolean,
    read: boolean,
    write: boolean,
  ): RejectReason | 0 {
    if (tag === RESERVED_TAG) return RejectReason.INVALID_PDU_FIELD;
    if (this.table.get(tag) !== null) return RejectReason.TASK_IN_PROGRESS;
    if (read && write) return RejectReason.COMMAND_NOT_SUPPORTED;
    if (!write && (!final || parser.dataLength > 0)) return RejectReason.PROTOCOL_ERROR;
    if (immediate && this.immediateCount >= this.limits.immediateCommands) return RejectReason.TOO_MANY_IMMEDIATE;
    return 0;
  }

  /** Finds room for the data that comes with the command and, unasked, behind it. */
  private makeRoom(task: IscsiTask, parser: PduParser): Verdict {
    this.blocked = false;
    if (this.incomingDone || task.dataOutLength === 0) return Verdict.ACCEPT;
    const coming = this.incomingFinal ? this.incomingLength : this.parameters.unsolicitedLength;
    if (coming > 0 && !this.takeMemory(task) && !this.takeUrgently(task, Math.min(coming, task.dataOutLength))) {
      if (this.collectingCount === 0) {
        this.blocked = true;
        this.waitsForOwn = true;
        this.account.shared.wait(this);
        return Verdict.BLOCK;
      }
      endFull(task);
      this.incomingDone = true;
      return Verdict.ACCEPT;
    }
    if (this.incomingLength > 0) parser.intoVector(task.dataOut, 0, task.dataOut.lengthBytes);
    return Verdict.ACCEPT;
  }

  // --- data from the initiator ---

  private beginCollecting(task: IscsiTask): void {
    task.state = TaskState.COLLECTING;
    this.collectingCount++;
    this.collect(task);
  }

  /** Goes on with a task whose data is coming in: wait, ask for more, or run. */
  private collect(task: IscsiTask): void {
    if (task.unsolicitedOpen) return;
    if (task.received >= task.dataOutLength) {
      this.collectingCount--;
      this.run(task);
      return;
    }
    if (task.dataOut.lengthBytes < task.dataOutLength && !this.takeMemory(task)) {
      this.collectingCount--;
      this.standInLine(task);
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
      task.r2tCount++;
      task.requested += length;
    }
  }

  /** The header of a Data-Out. */
  dataOut(parser: PduParser): void {
    const { header, headerAt: at, dataLength } = parser;
    this.receiving = null;
    const task = this.table.get(readU32BE(header, at + Field.TASK_TAG));
    // Data for a task that was aborted, or has failed, may have been on its way.
    if (task === null || task.aborted) return;
    const final = (header[at + Field.FLAGS]! & FINAL) !== 0;
    const transferTag = readU32BE(header, at + Field.TRANSFER_TAG);
    const solicited = transferTag !== RESERVED_TAG;
    if (solicited ? task.r2tOpen === 0 : !task.unsolicitedOpen) {
      this.host.reject(parser, RejectReason.INVALID_PDU_FIELD);
      return;
    }
    this.receiving = task;
    this.receivingFinal = final;
    this.receivingSolicited = solicited;
    this.receivingLength = dataLength;
    if (task.state !== TaskState.COLLECTING) return;
    const slot = task.r2tFirst % this.parameters.maxOutstandingR2T;
    const end = solicited ? task.r2tEnds[slot]! : Math.min(this.parameters.unsolicitedLength, task.expectedLength);
    const offset = readU32BE(header, at + Field.BUFFER_OFFSET);
    let reason: RejectReason | 0 = 0;
    let condition: number = IscsiCondition.PROTOCOL_SERVICE_CRC_ERROR;
    if (solicited && transferTag !== task.r2tTags[slot]) reason = RejectReason.INVALID_PDU_FIELD;
    else if (readU32BE(header, at + Field.DATA_SN) !== task.nextDataSn) reason = RejectReason.PROTOCOL_ERROR;
    else if (offset !== task.received) reason = RejectReason.INVALID_PDU_FIELD;
    else if (offset + dataLength > end || (solicited && final && offset + dataLength !== end)) {
      reason = RejectReason.PROTOCOL_ERROR;
      condition = IscsiCondition.INCORRECT_AMOUNT_OF_DATA;
    }
    if (reason !== 0) {
      this.host.reject(parser, reason);
      this.drain(task, condition);
    } else if (offset < task.dataOut.lengthBytes) {
      parser.intoVector(task.dataOut, offset, task.dataOut.lengthBytes - offset);
    }
  }

  /** The data segment of that Data-Out is in. */
  dataOutEnd(parser: PduParser, intact: boolean): void {
    const task = this.receiving;
    this.receiving = null;
    if (task === null) {
      if (!intact) this.host.reject(parser, RejectReason.DATA_DIGEST_ERROR);
      return;
    }
    if (!intact) {
      this.host.reject(parser, RejectReason.DATA_DIGEST_ERROR);
      if (task.state === TaskState.COLLECTING) this.drain(task, IscsiCondition.PROTOCOL_SERVICE_CRC_ERROR);
    }
    task.received += this.receivingLength;
    task.nextDataSn++;
    if (this.receivingFinal) {
      task.nextDataSn = 0;
      if (this.receivingSolicited) task.r2tFirst++;
      else {
        task.unsolicitedOpen = false;
        task.requested = task.received;
      }
    }
    if (task.state === TaskState.COLLECTING) {
      if (this.receivingFinal) this.collect(task);
    } else if (task.state === TaskState.DRAINING && !task.expectsData) this.respond(task);
  }

  /** The task has failed; what it may still be sent is dropped, then it is answered. */
  private drain(task: IscsiTask, condition: number): void {
    assert(task.state === TaskState.COLLECTING, 'a task fails once');
    this.collectingCount--;
    task.state = TaskState.DRAINING;
    this.failWith(task, condition);
    this.freeMemory(task);
  }

  // --- the engine ---

  private run(task: IscsiTask): void {
    task.state = TaskState.RUNNING;
    this.target.execute(task);
  }

  taskDone(done: ScsiTask): void {
    const task = done as IscsiTask;
    assert(task.state === TaskState.RUNNING, 'the engine ends what it was given, once');
    if (task.aborted || this.closed) this.end(task);
    else this.respond(task);
  }

  private respond(task: IscsiTask): void {
    const { writer, parameters } = this;
    // Before the response is put together: it tells the initiator that its place is free.
    this.leaveTable(task);
    if (task.dataInLength > 0) {
      writer.dataIn(task, parameters.initiatorSegmentLength, parameters.maxBurstLength);
      if (task.status !== Status.GOOD) writer.scsiResponse(task);
      if (!task.memoryCopied) {
        writer.transmitter.freeAfterwards(task.memoryOffset, task.memoryLength);
        task.memoryLength = 0;
      }
    } else writer.scsiResponse(task);
    this.freeMemory(task);
    this.recycle(task);
    if (this.table.count === 0) this.host.tasksEnded();
  }

  /** Ends a task without a response. */
  private end(task: IscsiTask): void {
    const waiters = task.abortWaiters;
    this.leaveTable(task);
    this.freeMemory(task);
    this.recycle(task);
    if (waiters !== null) for (const waiter of waiters) waiter.abortedTaskEnded();
    if (this.table.count === 0) this.host.tasksEnded();
  }

  private leaveTable(task: IscsiTask): void {
    this.table.remove(task);
    if (task.immediate) this.immediateCount--;
    else this.window.outstanding--;
  }

  private endWith(task: IscsiTask, sense: number): void {
    task.status = Status.CHECK_CONDITION;
    task.senseLength = writeSense(task.sense, false, sense, NO_INFORMATION, NO_SKS);
    task.residual = task.expectedDataIn + task.expectedDataOut;
    task.dataInLength = 0;
    task.dataOutLength = 0;
  }

  private failWith(task: IscsiTask, condition: number): void {
    this.endWith(task, ABORTED_COMMAND * 0x10000 + condition);
  }

  // --- task management ---

  /** Stops a task of the table; it gets no response. Returns false when it has not ended yet: then `waiter` is told. */
  abort(task: IscsiTask, waiter: AbortWaiter | null): boolean {
    if (task.state === TaskState.RUNNING) {
      task.aborted = true;
      if (waiter !== null) {
        if (task.abortWaiters === null) task.abortWaiters = [waiter];
        else task.abortWaiters.push(waiter);
      }
      return false;
    }
    if (task.state === TaskState.COLLECTING) this.collectingCount--;
    if (task.state === TaskState.WAITING) this.leaveLine(task);
    if (this.receiving === task) {
      this.receiving = null;
      this.host.discardInput();
    }
    this.end(task);
    return true;
  }

  /** Stops everything that is not in the engine without a response, and answers what is. Nothing new may come afterwards. */
  finish(): void {
    for (const task of this.tasks()) if (task.state !== TaskState.RUNNING) this.abort(task, null);
    this.forgetIncoming();
  }

  /** The connection is gone: stops everything; `tasksEnded` comes when the engine has given back the last task. */
  close(): void {
    this.closed = true;
    this.forgetIncoming();
    for (const task of this.tasks()) this.abort(task, null);
    this.account.shared.leave(this);
  }

  private forgetIncoming(): void {
    const task = this.incoming;
    this.incoming = null;
    this.blocked = false;
    if (task === null) return;
    this.host.discardInput();
    this.freeMemory(task);
    this.recycle(task);
  }

  // --- memory ---

  /** Gets all the memory that the task still needs. False: there is not enough, or others were first. */
  private takeMemory(task: IscsiTask): boolean {
    if (this.lineFirst !== null && this.lineFirst !== task) return false;
    if (task.dataInLength > 0) {
      const offset = this.account.allocate(task.dataInLength);
      if (offset < 0) return false;
      task.memoryOffset = offset;
      task.memoryLength = task.dataInLength;
      task.dataIn.set(this.account.shared.memory, offset, task.dataInLength);
      return true;
    }
    const have = task.memoryLength;
    const need = task.dataOutLength - have;
    if (need <= 0) return true;
    const offset = this.account.allocate(need);
    if (offset < 0) return false;
    if (have === 0) {
      task.memoryOffset = offset;
      task.memoryLength = need;
      task.dataOut.set(this.account.shared.memory, offset, need);
    } else {
      task.restOffset = offset;
      task.restLength = need;
      task.dataOut.push(offset, need);
    }
    return true;
  }

  private takeUrgently(task: IscsiTask, length: number): boolean {
    const offset = this.account.allocateUrgent(length);
    if (offset < 0) return false;
    task.memoryOffset = offset;
    task.memoryLength = length;
    task.memoryUrgent = true;
    task.dataOut.set(this.account.shared.memory, offset, length);
    return true;
  }

  private freeMemory(task: IscsiTask): void {
    if (task.memoryLength > 0) {
      if (task.memoryUrgent) this.account.freeUrgent(task.memoryOffset, task.memoryLength);
      else this.account.free(task.memoryOffset, task.memoryLength);
    }
    if (task.restLength > 0) this.account.free(task.restOffset, task.restLength);
    task.memoryLength = 0;
    task.restLength = 0;
    task.dataIn.clear();
    task.dataOut.clear();
    if (this.waitsForOwn) this.ownMemoryFreed();
  }

  private standInLine(task: IscsiTask): void {
    task.state = TaskState.WAITING;
    task.nextInLine = null;
    if (this.lineLast === null) this.lineFirst = task;
    else this.lineLast.nextInLine = task;
    this.lineLast = task;
    if (this.lineFirst === task) this.waitForMemory(task);
  }

  private leaveLine(task: IscsiTask): void {
    let previous: IscsiTask | null = null;
    for (let each = this.lineFirst; each !== task; each = each.nextInLine) {
      assert(each !== null, 'a task that waits is in the line');
      previous = each;
    }
    if (previous === null) this.lineFirst = task.nextInLine;
    else previous.nextInLine = task.nextInLine;
    if (this.lineLast === task) this.lineLast = previous;
    task.nextInLine = null;
  }

  private missing(task: IscsiTask): number {
    return task.dataInLength > 0 ? task.dataInLength : task.dataOutLength - task.memoryLength;
  }

  /** `task` is the first in line. */
  private waitForMemory(task: IscsiTask): void {
    if (this.account.isOverdrawnBy(this.missing(task))) this.waitsForOwn = true;
    else {
      this.account.shared.wait(this);
      if (this.account.shared.isRegularFree) this.account.shared.serveSoon();
    }
  }

  memoryFreed(): boolean {
    for (let task = this.lineFirst; task !== null; task = this.lineFirst) {
      if (this.takeMemory(task)) {
        this.leaveLine(task);
        if (task.dataOutLength > 0) this.beginCollecting(task);
        else this.run(task);
      } else if (this.account.isOverdrawnBy(this.missing(task))) {
        this.waitsForOwn = true;
        return true;
      } else if (this.account.shared.isRegularFree) {
        // Nothing can come back, and what there is lies in pieces: the initiator tries again.
        this.leaveLine(task);
        this.freeMemory(task);
        endFull(task);
        this.respond(task);
      } else return false;
    }
    if (this.blocked) this.host.resumeInput();
    return !this.blocked && (this.lineFirst === null || this.waitsForOwn);
  }

  /** Some of the memory that this connection holds has been given back. */
  ownMemoryFreed(): void {
    if (!this.waitsForOwn || this.closed) return;
    this.waitsForOwn = false;
    this.account.shared.wait(this);
    this.account.shared.serveSoon();
  }

  private take(): IscsiTask {
    const task = this.pool;
    if (task === null) return new IscsiTask(this, this.nexus);
    this.pool = task.nextInLine;
    return task;
  }

  private recycle(task: IscsiTask): void {
    assert(task.memoryLength === 0 && task.restLength === 0, 'a task gives its memory back before it is used again');
    task.state = TaskState.FREE;
    task.nextInLine = this.pool;
    this.pool = task;
  }
}

function endFull(task: IscsiTask): void {
  task.status = Status.TASK_SET_FULL;
  task.senseLength = 0;
  task.residual = task.expectedDataIn + task.expectedDataOut;
  task.dataInLength = 0;
  task.dataOutLength = 0;
}

/** Appends the CDB bytes beyond the 16 of the header (RFC 7143 11.2.2.3). False: the segments are not well-formed, or are of a bidirectional command. */
function readExtendedCdb(task: IscsiTask, bytes: Uint8Array, begin: number, length: number): boolean {
  // AHSLength(2) counts what follows the type; then AHSType(1), a reserved byte that is counted, the CDB, padding.
  const cdbLength = bytes[begin]! * 256 + bytes[begin + 1]! - 1;
  if (bytes[begin + 2] !== AhsType.EXTENDED_CDB || cdbLength < 1) return false;
  if (4 + Math.ceil(cdbLength / PAD_SIZE) * PAD_SIZE !== length) return false;
  if (BASIC_CDB_SIZE + cdbLength > task.cdb.length) return false;
  for (let i = 0; i < cdbLength; i++) task.cdb[BASIC_CDB_SIZE + i] = bytes[begin + 4 + i]!;
  task.cdbLength = BASIC_CDB_SIZE + cdbLength;
  return true;
}
