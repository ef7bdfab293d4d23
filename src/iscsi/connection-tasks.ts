import { assert } from '../base/assert.ts';
import type { Nexus } from '../scsi/nexus.ts';
import { INVALID_FIELD_IN_CDB } from '../scsi/sense.ts';
import type { Target } from '../scsi/target.ts';
import type { ScsiTask, ScsiTaskOwner } from '../scsi/task.ts';
import { isFinal, isImmediate, readCommand, refuseCommand, taskTag, wrongUnsolicited } from './command-pdu.ts';
import type { CommandWindow } from './command-window.ts';
import { DataCollector, type DataCollectorHost, type DataCollectorOwner } from './data-collector.ts';
import type { MemoryAccount } from './data-memory.ts';
import { type IscsiTask, TaskState } from './iscsi-task.ts';
import type { PortalLimits } from './limits.ts';
import { MemoryLine, type MemoryLineOwner } from './memory-line.ts';
import type { Parameters } from './parameters.ts';
import { type PduParser, Verdict } from './pdu-parser.ts';
import type { PduWriter } from './pdu-writer.ts';
import { RejectReason } from './spec.ts';
import { endAborted, endFull, endWith, endWithCondition } from './task-endings.ts';
import { TaskPool } from './task-pool.ts';
import { TaskTable } from './task-table.ts';

/** What a task set needs of its connection. */
export interface ConnectionTasksHost extends DataCollectorHost {
  /** The command that is being read is rejected when it is read. */
  refuse(reason: RejectReason): void;
  /** Another connection of the session has a task with this tag. */
  hasTaskElsewhere(tag: number): boolean;
  /** A command that blocked the input can be tried again. */
  resumeInput(): void;
  /** The memory that the rest of the data segment goes to is being given back. */
  discardInput(): void;
  /** The last task has ended. */
  tasksEnded(): void;
}

/**
 * The SCSI tasks of one connection in full feature phase, from the command PDU over memory, data and the engine to the response
 * (RFC 7143 11.3, 11.4).
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
export class ConnectionTasks implements ScsiTaskOwner, DataCollectorOwner, MemoryLineOwner {
  private readonly target: Target;
  private readonly writer: PduWriter;
  private readonly window: CommandWindow;
  private readonly parameters: Parameters;
  private readonly maxImmediate: number;
  private readonly host: ConnectionTasksHost;
  private readonly pool: TaskPool;
  readonly table: TaskTable;
  private readonly line: MemoryLine;
  readonly collector: DataCollector;

  private immediateCount = 0;
  private closed = false;

  /** The task whose command PDU is being read; not in the table before its end. */
  private incoming: IscsiTask | null = null;
  /** It has its status already. */
  private incomingEnded = false;
  /** It has no room: the input stands still. */
  private blocked = false;

  constructor(
    target: Target,
    nexus: Nexus,
    writer: PduWriter,
    window: CommandWindow,
    parameters: Parameters,
    limits: PortalLimits,
    account: MemoryAccount,
    host: ConnectionTasksHost,
  ) {
    this.target = target;
    this.writer = writer;
    this.window = window;
    this.parameters = parameters;
    this.maxImmediate = limits.immediateCommands;
    this.host = host;
    this.pool = new TaskPool(this, nexus);
    this.table = new TaskTable(window.size + limits.immediateCommands);
    this.line = new MemoryLine(account, this);
    this.collector = new DataCollector(this.table, writer, parameters, this, host);
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
    return this.table.list().some((task) => task.expectsData);
  }

  // --- PDUs ---

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
      this.giveUpIncoming(task);
      this.host.reject(parser, RejectReason.DATA_DIGEST_ERROR);
      return;
    }
    if (task.aborted && !task.abortReported) {
      this.pool.recycle(task);
      // No response tells an initiator whose window is closed that it may send again.
      if (this.window.outstanding === this.window.size - 1) this.writer.windowUpdate();
      return;
    }
    this.table.add(task);
    if (task.immediate) this.immediateCount++;
    else this.window.outstanding++;
    task.received = parser.dataLength;
    task.requested = parser.dataLength;
    task.unsolicitedOpen = !isFinal(parser);
    if (this.incomingEnded) {
      if (task.unsolicitedOpen) task.state = TaskState.DRAINING;
      else this.respond(task);
    } else if (task.dataOutLength > 0 || task.unsolicitedOpen) this.collector.begin(task);
    else if (task.dataInLength > 0 && !this.line.take(task)) this.wait(task);
    else this.run(task);
  }

  /** The header of a Data-Out. */
  dataOut(parser: PduParser): void {
    this.collector.dataOut(parser);
  }

  dataOutEnd(parser: PduParser, intact: boolean): void {
    this.collector.dataOutEnd(parser, intact);
  }

  /** Checks the PDU and prepares the task; null when the PDU was rejected. */
  private admit(parser: PduParser): IscsiTask | null {
    let reason = refuseCommand(parser);
    const tag = taskTag(parser);
    if (reason === 0 && (this.table.get(tag) !== null || this.host.hasTaskElsewhere(tag))) {
      reason = RejectReason.TASK_IN_PROGRESS;
    }
    if (reason === 0 && isImmediate(parser) && this.immediateCount >= this.maxImmediate) {
      reason = RejectReason.TOO_MANY_IMMEDIATE;
    }
    if (reason !== 0) {
      this.host.refuse(reason);
      return null;
    }
    const task = this.pool.take();
    if (!readCommand(parser, task)) {
      this.pool.recycle(task);
      this.host.refuse(RejectReason.INVALID_PDU_FIELD);
      return null;
    }
    this.incomingEnded = !this.prepare(task, parser.dataLength, isFinal(parser));
    return task;
  }

  /** False: the task has its status. */
  private prepare(task: IscsiTask, dataLength: number, final: boolean): boolean {
    const condition = wrongUnsolicited(this.parameters, task.expectedDataOut, dataLength, final);
    if (condition !== 0) {
      endWithCondition(task, condition);
      return false;
    }
    if (!this.target.prepare(task, task.lun)) return false;
    assert(task.dataOutLength <= task.expectedDataOut, 'the engine asks for no more than was announced');
    assert(task.dataInLength <= task.expectedDataIn, 'the engine returns no more than there is room for');
    if (Math.max(task.dataOutLength, task.dataInLength) <= this.line.longestBytes) return true;
    this.target.withdraw(task);
    endWith(task, INVALID_FIELD_IN_CDB);
    return false;
  }

  /** Finds room for the data that comes with the command and, unasked, behind it. */
  private makeRoom(task: IscsiTask, parser: PduParser): Verdict {
    this.blocked = false;
    if (this.incomingEnded || task.dataOutLength === 0) return Verdict.ACCEPT;
    const coming = isFinal(parser) ? parser.dataLength : this.parameters.unsolicitedLength;
    if (coming === 0 || this.line.takeInPlace(task, parser)) return Verdict.ACCEPT;
    if (!this.line.take(task) && !this.line.takeUrgently(task, Math.min(coming, task.dataOutLength))) {
      if (this.collector.count === 0 && this.target.postpone(task)) {
        this.blocked = true;
        this.line.waitForInput();
        return Verdict.BLOCK;
      }
      this.target.withdraw(task);
      endFull(task);
      this.incomingEnded = true;
      return Verdict.ACCEPT;
    }
    if (parser.dataLength > 0) parser.intoVector(task.dataOut, 0, task.dataOut.lengthBytes);
    return Verdict.ACCEPT;
  }

  // --- data and memory ---

  needMemory(task: IscsiTask): boolean {
    if (this.line.take(task)) return true;
    this.wait(task);
    return false;
  }

  dataComplete(task: IscsiTask): void {
    this.run(task);
  }

  dataWrong(task: IscsiTask, condition: number): void {
    this.target.withdraw(task);
    endWithCondition(task, condition);
    this.line.free(task);
  }

  dataDrained(task: IscsiTask): void {
    this.respond(task);
  }

  private wait(task: IscsiTask): void {
    if (!this.target.postpone(task)) this.memoryDenied(task);
    else {
      task.state = TaskState.WAITING;
      this.line.stand(task);
    }
  }

  memoryGranted(task: IscsiTask): void {
    if (task.dataOutLength > 0) this.collector.begin(task);
    else this.run(task);
  }

  memoryDenied(task: IscsiTask): void {
    this.target.withdraw(task);
    endFull(task);
    this.respond(task);
  }

  unblock(): boolean {
    if (this.blocked) this.host.resumeInput();
    return !this.blocked;
  }

  letDataThrough(): void {
    if (this.blocked && this.collector.count > 0) this.host.resumeInput();
  }

  /** Something that was sent has left its memory. */
  memoryFreed(): void {
    this.line.ownMemoryFreed();
  }

  // --- the engine ---

  private run(task: IscsiTask): void {
    task.state = TaskState.RUNNING;
    this.target.execute(task);
  }

  taskDone(done: ScsiTask): void {
    const task = done as IscsiTask;
    assert(task.state === TaskState.RUNNING, 'the engine ends what it was given, once');
    if ((task.aborted && !task.abortReported) || this.closed) this.end(task);
    else this.respond(task);
  }

  /** Task management has ended a task that the engine does not have yet. */
  taskAborted(aborted: ScsiTask): void {
    const task = aborted as IscsiTask;
    if (task === this.incoming) this.incomingAborted(task);
    else if (task.abortReported && !this.closed) this.endReported(task);
    else {
      if (task.state === TaskState.WAITING) this.line.leave(task);
      else if (this.collector.forget(task)) this.host.discardInput();
      this.end(task);
    }
  }

  /** The response waits for what the initiator is entitled to send. */
  private endReported(task: IscsiTask): void {
    if (task.state === TaskState.WAITING) this.line.leave(task);
    else if (this.collector.drain(task)) this.host.discardInput();
    endAborted(task);
    this.line.free(task);
    if (!task.expectsData) this.respond(task);
  }

  /** The data of its command PDU is still coming, or there is no room for it: `commandEnd` does the rest. */
  private incomingAborted(task: IscsiTask): void {
    if (task.memoryLength > 0) this.host.discardInput();
    this.line.free(task);
    endAborted(task);
    this.incomingEnded = true;
    if (this.blocked) this.host.resumeInput();
  }

  private respond(task: IscsiTask): void {
    // Before the response is put together: it tells the initiator that its place is free.
    this.leaveTable(task);
    this.writer.taskResponse(task, this.parameters);
    this.line.free(task);
    this.pool.recycle(task);
    if (this.table.count === 0) this.host.tasksEnded();
  }

  /** Ends a task without a response. */
  private end(task: IscsiTask): void {
    // An initiator that may send nothing would not learn that it may again.
    const wasClosed = this.window.isClosed;
    this.leaveTable(task);
    if (wasClosed && !this.closed) this.writer.windowUpdate();
    this.line.free(task);
    this.pool.recycle(task);
    if (this.table.count === 0) this.host.tasksEnded();
  }

  private leaveTable(task: IscsiTask): void {
    this.table.remove(task);
    if (task.immediate) this.immediateCount--;
    else this.window.outstanding--;
  }

  // --- task management and the end ---

  /** Ends a task of the table without a response. `ended` is called once, now or later, when it has. */
  abort(task: IscsiTask, ended: (() => void) | null): void {
    if (task.state === TaskState.DRAINING) this.drop(task);
    else if (task.state !== TaskState.FREE) {
      this.target.abort(task, ended);
      return;
    }
    ended?.();
  }

  /** Task management has ended the tasks of this nexus at `lun` (all LUNs when it is null): those that have a status already are not answered any more. */
  dropAnswered(lun: number | null): void {
    for (const task of this.table.list()) {
      if (task.state === TaskState.DRAINING && (lun === null || task.lun === lun)) this.drop(task);
    }
  }

  private drop(task: IscsiTask): void {
    if (this.collector.forget(task)) this.host.discardInput();
    this.end(task);
  }

  /** Stops everything that is not in the engine without a response, and answers what is. Nothing new may come afterwards. */
  finish(): void {
    for (const task of this.table.list()) if (task.state !== TaskState.RUNNING) this.abort(task, null);
    this.forgetIncoming();
  }

  /** The connection is gone: stops everything; `tasksEnded` comes when the engine has given back the last task. */
  close(): void {
    this.closed = true;
    this.forgetIncoming();
    for (const task of this.table.list()) this.abort(task, null);
    this.line.close();
  }

  private forgetIncoming(): void {
    const task = this.incoming;
    this.incoming = null;
    this.blocked = false;
    if (task === null) return;
    this.host.discardInput();
    this.giveUpIncoming(task);
  }

  private giveUpIncoming(task: IscsiTask): void {
    if (!this.incomingEnded) this.target.withdraw(task);
    this.line.free(task);
    this.pool.recycle(task);
  }
}
