import { readU32BE } from '../base/bytes.ts';
import type { LogicalUnit } from '../scsi/logical-unit.ts';
import { decodeLun } from '../scsi/lun.ts';
import { isImmediate, taskTag } from './command-pdu.ts';
import type { CommandWindow } from './command-window.ts';
import type { HeldPdus } from './held-pdus.ts';
import type { PduParser } from './pdu-parser.ts';
import type { PduWriter } from './pdu-writer.ts';
import { serialBefore } from './serial.ts';
import type { Session } from './session.ts';
import { Field, RejectReason, TaskFunction, TaskFunctionResponse } from './spec.ts';
import type { TaskSet } from './task-set.ts';

export interface TaskManagerHost {
  /** All sessions of the portal. */
  sessions(): Session[];
  /** Ends the connection after what was written. */
  end(reason: string): void;
}

/**
 * Task management of one connection (RFC 7143 4.2.3, 11.5, 11.6).
 *
 * Data that the initiator still owes for R2Ts of stopped tasks is not waited for, though the RFC asks for it: initiators with FastAbort (open-iscsi, by
 * default) do not send it. It is dropped when it comes.
 */
export class TaskManager {
  private readonly session: Session;
  private readonly tasks: TaskSet;
  private readonly held: HeldPdus;
  private readonly window: CommandWindow;
  private readonly writer: PduWriter;
  private readonly maxFunctions: number;
  private readonly host: TaskManagerHost;
  private inProgress = 0;
  private closed = false;

  constructor(
    session: Session,
    tasks: TaskSet,
    held: HeldPdus,
    writer: PduWriter,
    maxFunctions: number,
    host: TaskManagerHost,
  ) {
    this.session = session;
    this.tasks = tasks;
    this.held = held;
    this.window = session.window;
    this.writer = writer;
    this.maxFunctions = maxFunctions;
    this.host = host;
  }

  /** Carries out the request at `parser`; returns the reason to reject it for, else 0. */
  request(parser: PduParser): RejectReason | 0 {
    if (this.inProgress >= this.maxFunctions) return RejectReason.TOO_MANY_IMMEDIATE;
    const { header, headerAt: at } = parser;
    const code = header[at + Field.FLAGS]! & 0x7f;
    const lun = decodeLun(header, at + Field.LUN);
    const tag = taskTag(parser);
    const counted = !isImmediate(parser);
    this.inProgress++;
    if (counted) this.window.outstanding++;
    const finish = (response: TaskFunctionResponse): void => {
      this.inProgress--;
      if (counted) this.window.outstanding--;
      if (this.closed) return;
      this.writer.taskManagementResponse(tag, response);
      if (code === TaskFunction.TARGET_COLD_RESET) this.endConnections();
    };
    const ended = (): void => finish(TaskFunctionResponse.COMPLETE);
    const response =
      code === TaskFunction.ABORT_TASK ? this.abortTask(parser, lun, ended) : this.start(code, lun, ended);
    if (response !== null) finish(response);
    return 0;
  }

  close(): void {
    this.closed = true;
  }

  /** By tag, else by RefCmdSN for a command that has not come (RFC 7143 11.5.1, 11.6.1). Null: the response comes by itself. */
  private abortTask(parser: PduParser, lun: number, ended: () => void): TaskFunctionResponse | null {
    const { header, headerAt: at } = parser;
    const referencedTag = readU32BE(header, at + Field.REFERENCED_TAG);
    const task = this.tasks.table.get(referencedTag);
    if (task !== null) {
      if (task.lun !== lun) return TaskFunctionResponse.TASK_DOES_NOT_EXIST;
      this.tasks.abort(task, ended);
      return null;
    }
    if (this.held.cancelTask(referencedTag)) return TaskFunctionResponse.COMPLETE;
    const refCmdSn = readU32BE(header, at + Field.REF_CMD_SN);
    if (this.window.contains(refCmdSn) && serialBefore(refCmdSn, readU32BE(header, at + Field.CMD_SN))) {
      this.held.skip(refCmdSn);
      return TaskFunctionResponse.COMPLETE;
    }
    return TaskFunctionResponse.TASK_DOES_NOT_EXIST;
  }

  /** A function on a set of tasks. Null: the response comes by itself. */
  private start(code: number, lun: number, ended: () => void): TaskFunctionResponse | null {
    switch (code) {
      case TaskFunction.ABORT_TASK_SET:
      case TaskFunction.CLEAR_TASK_SET:
      case TaskFunction.LOGICAL_UNIT_RESET: {
        const unit = this.session.target!.unit(this.session.nexus!, lun);
        if (unit === undefined) return TaskFunctionResponse.LUN_DOES_NOT_EXIST;
        this.onUnit(code, unit, ended);
        this.dropAnswered(lun);
        return null;
      }
      case TaskFunction.TARGET_WARM_RESET:
      case TaskFunction.TARGET_COLD_RESET:
        this.session.target!.reset(this.session.nexus!, ended);
        this.dropAnswered(null);
        return null;
      case TaskFunction.TASK_REASSIGN:
        return TaskFunctionResponse.REASSIGNMENT_NOT_SUPPORTED;
      default:
        return TaskFunctionResponse.NOT_SUPPORTED;
    }
  }

  private onUnit(code: number, unit: LogicalUnit, ended: () => void): void {
    const nexus = this.session.nexus!;
    if (code === TaskFunction.ABORT_TASK_SET) unit.abortTaskSet(nexus, ended);
    else if (code === TaskFunction.CLEAR_TASK_SET) unit.clearTaskSet(nexus, ended);
    else unit.reset(nexus, ended);
  }

  private dropAnswered(lun: number | null): void {
    for (const connection of this.session.connections) connection.dropAnswered(lun);
  }

  /** Every connection to the target ends after the response to a cold reset (RFC 7143 11.5.1), if it can see anything of what was reset. */
  private endConnections(): void {
    const { target, nexus } = this.session;
    for (const session of this.host.sessions()) {
      if (session === this.session || session.target !== target) continue;
      if (target!.shareLuns(nexus!, session.nexus!)) session.drop('cold reset');
    }
    this.session.isEnding = true;
    for (const connection of this.session.connections) connection.finish('cold reset', null);
  }
}
