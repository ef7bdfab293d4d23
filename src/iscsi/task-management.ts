import { readU32BE } from '../base/bytes.ts';
import type { LogicalUnit } from '../scsi/logical-unit.ts';
import { decodeLun } from '../scsi/lun.ts';
import type { Nexus } from '../scsi/nexus.ts';
import { isImmediate, taskTag } from './command-pdu.ts';
import type { CommandWindow } from './command-window.ts';
import type { ConnectionTasks } from './connection-tasks.ts';
import type { HeldPdus } from './held-pdus.ts';
import type { PduParser } from './pdu-parser.ts';
import type { PduWriter } from './pdu-writer.ts';
import { serialBefore } from './serial.ts';
import type { Session } from './session.ts';
import { Field, RejectReason, TaskFunction, TaskFunctionResponse } from './spec.ts';

/** The fields of a task management function request. */
interface Request {
  readonly code: number;
  /** NO_LUN for what is none. */
  readonly lun: number;
  readonly referencedTag: number;
  readonly refCmdSn: number;
  readonly cmdSn: number;
  /** The function is complete. */
  readonly ended: () => void;
}

/** FUNCTION SUCCEEDED. */
interface Answer {
  readonly information: number;
}
const YES: Answer = { information: 0 };
const NO: TaskFunctionResponse = TaskFunctionResponse.COMPLETE;

export interface TaskManagerHost {
  /** All sessions of the portal. */
  sessions(): Session[];
}

/**
 * Task management of one connection (RFC 7143 4.2.3, 11.5, 11.6).
 *
 * Data that the initiator still owes for R2Ts of stopped tasks is not waited for, though the RFC asks for it: initiators with FastAbort (open-iscsi, by
 * default) do not send it. It is dropped when it comes.
 */
export class TaskManager {
  private readonly session: Session;
  private readonly tasks: ConnectionTasks;
  private readonly held: HeldPdus;
  private readonly window: CommandWindow;
  private readonly writer: PduWriter;
  private readonly maxFunctions: number;
  private readonly host: TaskManagerHost;
  private inProgress = 0;
  private closed = false;

  constructor(
    session: Session,
    tasks: ConnectionTasks,
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
    const finish = (response: TaskFunctionResponse, information = 0): void => {
      this.inProgress--;
      if (counted) this.window.outstanding--;
      if (this.closed) return;
      this.writer.taskManagementResponse(tag, response, information);
      if (code === TaskFunction.TARGET_COLD_RESET && response === TaskFunctionResponse.COMPLETE) this.endConnections();
    };
    const request: Request = {
      code,
      lun,
      referencedTag: readU32BE(header, at + Field.REFERENCED_TAG),
      refCmdSn: readU32BE(header, at + Field.REF_CMD_SN),
      cmdSn: readU32BE(header, at + Field.CMD_SN),
      ended: () => finish(TaskFunctionResponse.COMPLETE),
    };
    const response = this.carryOut(request);
    if (typeof response === 'number') finish(response);
    else if (response !== null) finish(TaskFunctionResponse.SUCCEEDED, response.information);
    return 0;
  }

  /** A function has no response yet. */
  get isBusy(): boolean {
    return this.inProgress > 0;
  }

  close(): void {
    this.closed = true;
  }

  /** The response; null: `ended` is called when there is one. */
  private carryOut(request: Request): TaskFunctionResponse | Answer | null {
    const target = this.session.target!;
    const nexus = this.session.nexus!;
    switch (request.code) {
      case TaskFunction.ABORT_TASK:
        return this.abortTask(request);
      case TaskFunction.QUERY_TASK:
        return this.tasks.table.get(request.referencedTag)?.lun === request.lun ? YES : NO;
      case TaskFunction.ABORT_TASK_SET:
      case TaskFunction.CLEAR_TASK_SET:
      case TaskFunction.LOGICAL_UNIT_RESET:
      case TaskFunction.QUERY_TASK_SET:
      case TaskFunction.QUERY_ASYNCHRONOUS_EVENT: {
        const unit = target.unit(nexus, request.lun);
        return unit === undefined ? TaskFunctionResponse.LUN_DOES_NOT_EXIST : this.onUnit(request, unit, nexus);
      }
      case TaskFunction.TARGET_COLD_RESET:
      case TaskFunction.TARGET_WARM_RESET:
        if (!this.cancel(null, request)) return TaskFunctionResponse.REJECTED;
        target.reset(nexus, request.ended);
        return null;
      case TaskFunction.I_T_NEXUS_RESET:
        if (!this.cancel(null, request)) return TaskFunctionResponse.REJECTED;
        target.loseNexus(nexus, request.ended);
        return null;
      case TaskFunction.TASK_REASSIGN:
        return TaskFunctionResponse.REASSIGNMENT_NOT_SUPPORTED;
      default:
        return TaskFunctionResponse.NOT_SUPPORTED;
    }
  }

  private onUnit(request: Request, unit: LogicalUnit, nexus: Nexus): TaskFunctionResponse | Answer | null {
    const { code, lun, ended } = request;
    if (code === TaskFunction.QUERY_TASK_SET) return unit.hasTasks(nexus) ? YES : NO;
    if (code === TaskFunction.QUERY_ASYNCHRONOUS_EVENT) {
      const attentions = unit.pendingAttentions(nexus);
      if (attentions === null) return NO;
      // UADE DEPTH, sense key, additional sense code and qualifier (SAM-5 7.9)
      return { information: (attentions.count === 1 ? 0x100000 : 0x200000) + attentions.peek() };
    }
    if (!this.cancel(lun, request)) return TaskFunctionResponse.REJECTED;
    if (code === TaskFunction.ABORT_TASK_SET) unit.abortTaskSet(nexus, ended);
    else if (code === TaskFunction.CLEAR_TASK_SET) unit.clearTaskSet(nexus, ended);
    else unit.reset(nexus, ended);
    return null;
  }

  /** By tag, else by RefCmdSN for a command that has not come (RFC 7143 11.5.1, 11.6.1). */
  private abortTask({ referencedTag, refCmdSn, cmdSn, lun, ended }: Request): TaskFunctionResponse | null {
    const task = this.tasks.table.get(referencedTag);
    if (task !== null) {
      if (task.lun !== lun) return TaskFunctionResponse.TASK_DOES_NOT_EXIST;
      this.tasks.abort(task, ended);
      return null;
    }
    if (this.held.cancelTask(referencedTag)) return TaskFunctionResponse.COMPLETE;
    if (this.window.contains(refCmdSn) && serialBefore(refCmdSn, cmdSn)) {
      this.held.skip(refCmdSn);
      return TaskFunctionResponse.COMPLETE;
    }
    return TaskFunctionResponse.TASK_DOES_NOT_EXIST;
  }

  /**
   * What task sets do not know of the session's tasks for `lun` (all LUNs when it is null): those that have a status, and those whose turn has not come. False: there are
   * too many such functions.
   */
  private cancel(lun: number | null, { cmdSn }: Request): boolean {
    if (!this.session.cancelled.add(lun, cmdSn)) return false;
    for (const connection of this.session.connections) connection.dropAnswered(lun);
    return true;
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
