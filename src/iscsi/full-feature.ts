import { readU16BE, readU32BE } from '../base/bytes.ts';
import { decodeLun } from '../scsi/lun.ts';
import type { CommandWindow } from './command-window.ts';
import type { MemoryAccount } from './data-memory.ts';
import { sendTargets, type TargetDirectory } from './discovery.ts';
import { HeldPdus } from './held-pdus.ts';
import type { AbortWaiter } from './iscsi-task.ts';
import type { PortalLimits } from './limits.ts';
import { negotiate } from './negotiation.ts';
import type { Parameters } from './parameters.ts';
import { PduParser, Verdict } from './pdu-parser.ts';
import type { PduWriter } from './pdu-writer.ts';
import { serialBefore } from './serial.ts';
import type { Session } from './session.ts';
import {
  CONTINUE,
  FINAL,
  Field,
  IMMEDIATE,
  LogoutReason,
  LogoutResponse,
  Opcode,
  RESERVED_TAG,
  RejectReason,
  TaskFunction,
  TaskFunctionResponse,
} from './spec.ts';
import { startTaskManagement, TaskManagement } from './task-management.ts';
import { TaskSet, type TaskSetHost } from './task-set.ts';
import { formatText, NOT_UNDERSTOOD, parseText, REJECT, type TextPair } from './text.ts';
import { TextExchange } from './text-exchange.ts';

/** What full feature phase needs of its connection. */
export interface FullFeatureHost {
  readonly cid: number;
  readonly limits: PortalLimits;
  readonly targets: TargetDirectory;
  /** `host:port,tag` of the portal as the initiator reached it. */
  readonly targetAddress: string;
  readonly account: MemoryAccount;
  sessions(): Session[];
  /** Reads on after a BLOCK. */
  resumeInput(): void;
  /** Reads nothing more; what was written goes out, then the connection ends. */
  end(reason: string): void;
  /** Ends the connection at once. */
  drop(reason: string): void;
}

/** What the end of the PDU that is being read brings. */
const Action = {
  NOTHING: 0,
  COMMAND: 1,
  DATA_OUT: 2,
  NOP_OUT: 3,
  TEXT: 4,
  TASK_MANAGEMENT: 5,
  LOGOUT: 6,
  HOLD: 7,
  HOLD_DATA_OUT: 8,
  /** Rejected, but it has had its turn. */
  REFUSED: 9,
} as const;
type Action = (typeof Action)[keyof typeof Action];

const EMPTY = new Uint8Array(0);

/** One connection in full feature phase: every PDU that an initiator may send, in the order of CmdSN. */
export class FullFeature implements TaskSetHost {
  readonly session: Session;
  private readonly host: FullFeatureHost;
  private readonly writer: PduWriter;
  private readonly parser: PduParser;
  private readonly parameters: Parameters;
  private readonly window: CommandWindow;
  /** Null in a discovery session. */
  private readonly tasks: TaskSet | null;
  private readonly held: HeldPdus;
  private readonly text: TextExchange;
  private readonly managements: Set<TaskManagement> = new Set();

  private action: Action = Action.NOTHING;
  /** Data of a NOP-Out or a text request. */
  private data: Uint8Array = EMPTY;
  /** Tag of the logout that waits for the tasks in the engine, -1 when there is none. */
  private logoutTag = -1;
  private finishing = false;
  private closed = false;
  private ended: (() => void) | null = null;

  /** Held PDUs whose turn has come go through a parser of their own. */
  private readonly replayParser: PduParser;
  private readonly replayQueue: Uint8Array[] = [];
  private replayAt = 0;
  private replaying = false;

  constructor(session: Session, parameters: Parameters, host: FullFeatureHost, writer: PduWriter, parser: PduParser) {
    const { limits, account } = host;
    this.session = session;
    this.host = host;
    this.writer = writer;
    this.parser = parser;
    this.parameters = parameters;
    this.window = session.window;
    this.held = new HeldPdus(limits.heldBytes);
    this.text = new TextExchange(limits.textBytes);
    this.replayParser = new PduParser(
      { pduHeader: (p) => this.pduHeader(p), pduEnd: (p) => this.pduEnd(p, true), pduFailure: () => {} },
      0xffffff,
    );
    this.tasks =
      session.target === null || session.nexus === null
        ? null
        : new TaskSet(session.target, session.nexus, writer, session.window, parameters, limits, account, this);
  }

  /** Tasks that the initiator waits for or that the engine still has. */
  get taskCount(): number {
    return this.tasks?.count ?? 0;
  }

  /** The initiator owes data; false while we are the ones who do not read. */
  get expectsData(): boolean {
    return this.tasks !== null && !this.tasks.isBlocked && this.tasks.expectsData;
  }

  // --- PDUs ---

  pduHeader(parser: PduParser): Verdict {
    if (this.tasks?.isBlocked) return this.tasks.command(parser);
    this.action = Action.NOTHING;
    switch (parser.opcode) {
      case Opcode.SCSI_COMMAND:
        if (!this.takesTurn(parser, Action.COMMAND)) return Verdict.ACCEPT;
        if (this.tasks !== null) return this.tasks.command(parser);
        this.refuse(parser, RejectReason.PROTOCOL_ERROR);
        break;
      case Opcode.DATA_OUT:
        this.dataOut(parser);
        break;
      case Opcode.NOP_OUT:
        if (this.takesTurn(parser, Action.NOP_OUT)) this.nopOut(parser);
        break;
      case Opcode.TEXT:
        if (this.takesTurn(parser, Action.TEXT)) this.textRequest(parser);
        break;
      case Opcode.TASK_MANAGEMENT:
        if (this.takesTurn(parser, Action.TASK_MANAGEMENT) && this.tasks === null) {
          this.refuse(parser, RejectReason.PROTOCOL_ERROR);
        }
        break;
      case Opcode.LOGOUT:
        this.takesTurn(parser, Action.LOGOUT);
        break;
      case Opcode.SNACK:
        // Nothing is sent twice at error recovery level 0.
        this.reject(parser, RejectReason.SNACK_REJECT);
        break;
      case Opcode.LOGIN:
        this.reject(parser, RejectReason.PROTOCOL_ERROR);
        this.host.end('login request in full feature phase');
        break;
      default:
        this.reject(parser, RejectReason.COMMAND_NOT_SUPPORTED);
    }
    return Verdict.ACCEPT;
  }

  pduEnd(parser: PduParser, intact: boolean): void {
    const { action } = this;
    this.action = Action.NOTHING;
    switch (action) {
      case Action.NOTHING:
        return;
      case Action.COMMAND:
        if (intact) this.advance(parser);
        this.tasks?.commandEnd(parser, intact);
        break;
      case Action.DATA_OUT:
        this.tasks!.dataOutEnd(parser, intact);
        return;
      case Action.HOLD:
        if (intact) this.held.end(field(parser, Field.CMD_SN), field(parser, Field.TASK_TAG));
        else this.discardHeld(parser);
        return;
      case Action.HOLD_DATA_OUT:
        if (intact) this.held.endDataOut(field(parser, Field.TASK_TAG));
        else this.discardHeld(parser);
        return;
      default:
        if (!intact) {
          this.data = EMPTY;
          this.reject(parser, RejectReason.DATA_DIGEST_ERROR);
          return;
        }
        this.advance(parser);
        this.perform(action, parser);
    }
    if (this.held.count > 0) this.replay();
  }

  private perform(action: Action, parser: PduParser): void {
    const { data } = this;
    this.data = EMPTY;
    switch (action) {
      case Action.NOP_OUT: {
        const tag = field(parser, Field.TASK_TAG);
        if (tag !== RESERVED_TAG) this.writer.nopIn(tag, data);
        break;
      }
      case Action.TEXT:
        this.answerText(parser, data);
        break;
      case Action.TASK_MANAGEMENT:
        this.manage(parser);
        break;
      case Action.LOGOUT:
        this.logout(parser);
        break;
      default:
        break;
    }
  }

  /**
   * Whether the PDU is delivered now (RFC 7143 4.2.2.1): immediate ones always, others when they carry ExpCmdSN. What is outside the window is silently ignored,
   * what is ahead in it is held.
   */
  private takesTurn(parser: PduParser, action: Action): boolean {
    const cmdSn = field(parser, Field.CMD_SN);
    if (!isImmediate(parser) && cmdSn !== this.window.expCmdSn) {
      if (this.window.contains(cmdSn)) this.hold(parser, Action.HOLD);
      return false;
    }
    if (!isImmediate(parser) && this.window.isClosed) return false;
    this.action = action;
    return true;
  }

  private advance(parser: PduParser): void {
    if (!isImmediate(parser)) this.window.advance();
  }

  private hold(parser: PduParser, action: Action): void {
    if (this.held.begin(parser)) this.action = action;
    else this.host.drop('too much came before an earlier CmdSN');
  }

  private discardHeld(parser: PduParser): void {
    this.held.forget();
    this.reject(parser, RejectReason.DATA_DIGEST_ERROR);
  }

  /** Delivers what was held and whose turn has come. */
  private replay(): void {
    if (this.replaying) return;
    this.replaying = true;
    while (!this.closed) {
      const pdu = this.replayQueue[0];
      if (pdu === undefined) {
        const pdus = this.held.take(this.window.expCmdSn);
        if (pdus === null) break;
        if (pdus.length === 0) this.window.advance();
        else this.replayQueue.push(...pdus);
        continue;
      }
      this.replayAt = this.replayParser.feed(pdu, this.replayAt, pdu.length);
      if (this.tasks?.isBlocked) break;
      this.replayQueue.shift();
      this.replayAt = 0;
    }
    this.replaying = false;
    // What came later must not overtake what is still held here.
    this.parser.paused = this.replayQueue.length > 0;
  }

  private dataOut(parser: PduParser): void {
    if (this.tasks === null) this.reject(parser, RejectReason.PROTOCOL_ERROR);
    else if (this.held.count > 0 && this.held.hasTask(field(parser, Field.TASK_TAG))) {
      this.hold(parser, Action.HOLD_DATA_OUT);
    } else {
      this.tasks.dataOut(parser);
      this.action = Action.DATA_OUT;
    }
  }

  /** A ping is answered with its data, as much as the initiator takes in one PDU (RFC 7143 11.18, 11.19). */
  private nopOut(parser: PduParser): void {
    if (field(parser, Field.TASK_TAG) === RESERVED_TAG) return;
    this.data = new Uint8Array(Math.min(parser.dataLength, this.parameters.initiatorSegmentLength));
    parser.intoBytes(this.data, 0, this.data.length);
  }

  private textRequest(parser: PduParser): void {
    if (parser.dataLength > this.host.limits.textBytes) {
      this.refuse(parser, RejectReason.PROTOCOL_ERROR);
      return;
    }
    this.data = new Uint8Array(parser.dataLength);
    parser.intoBytes(this.data, 0, parser.dataLength);
  }

  private answerText(parser: PduParser, data: Uint8Array): void {
    const flags = parser.header[parser.headerAt + Field.FLAGS]!;
    const answer = this.text.next(
      field(parser, Field.TRANSFER_TAG),
      (flags & FINAL) !== 0,
      (flags & CONTINUE) !== 0,
      data,
      this.parameters.initiatorSegmentLength,
      (text) => this.respondToText(text),
    );
    if (answer.reject !== 0) this.reject(parser, answer.reject);
    else this.writer.textResponse(field(parser, Field.TASK_TAG), answer);
  }

  private respondToText(bytes: Uint8Array): Uint8Array | RejectReason {
    const pairs = parseText(bytes);
    if (typeof pairs === 'string') return RejectReason.PROTOCOL_ERROR;
    if (new Set(pairs.map((pair) => pair.key)).size < pairs.length) return RejectReason.PROTOCOL_ERROR;
    const answers: TextPair[] = [];
    const parameters: TextPair[] = [];
    for (const pair of pairs) {
      if (pair.key !== 'SendTargets') parameters.push(pair);
      else
        answers.push(...sendTargets(pair.value, this.session.targetName, this.host.targets, this.host.targetAddress));
    }
    const context = { limits: this.host.limits, parameters: this.parameters };
    const discovery = this.session.target === null;
    answers.push(...negotiate(parameters, { ...context, discovery, fullFeature: true, leading: false }));
    // A request of which nothing means anything is rejected as a whole, as LIO does: initiators (libiscsi) that do not know the answer
    // `key=NotUnderstood` to a request take it for a broken connection.
    const refused = answers.every((answer) => answer.value === NOT_UNDERSTOOD || answer.value === REJECT);
    if (answers.length > 0 && refused) return RejectReason.COMMAND_NOT_SUPPORTED;
    return formatText(answers);
  }

  // --- task management ---

  private manage(parser: PduParser): void {
    const { header, headerAt: at } = parser;
    const tag = field(parser, Field.TASK_TAG);
    if (this.managements.size >= this.host.limits.immediateCommands) {
      this.reject(parser, RejectReason.TOO_MANY_IMMEDIATE);
      return;
    }
    const code = header[at + Field.FLAGS]! & 0x7f;
    const lun = decodeLun(header, at + Field.LUN);
    const immediate = isImmediate(parser);
    if (!immediate) this.window.outstanding++;
    const make = (effect: () => void): TaskManagement => {
      const management = new TaskManagement(effect, (response) => {
        this.managements.delete(management);
        this.endManagement(tag, immediate, response);
        if (code === TaskFunction.TARGET_COLD_RESET) this.coldReset();
      });
      this.managements.add(management);
      return management;
    };
    const response =
      code === TaskFunction.ABORT_TASK
        ? this.abortTask(parser, lun, make)
        : startTaskManagement(code, lun, { session: this.session, sessions: () => this.host.sessions() }, make);
    if (response !== null) this.endManagement(tag, immediate, response);
  }

  private endManagement(tag: number, immediate: boolean, response: TaskFunctionResponse): void {
    if (!immediate) this.window.outstanding--;
    if (!this.closed) this.writer.taskManagementResponse(tag, response);
  }

  /** RFC 7143 11.5.1, 11.6.1: by tag, else by RefCmdSN for a command that has not come. */
  private abortTask(
    parser: PduParser,
    lun: number,
    make: (effect: () => void) => TaskManagement,
  ): TaskFunctionResponse | null {
    const referencedTag = field(parser, Field.REFERENCED_TAG);
    const task = this.tasks!.find(referencedTag);
    if (task !== null) {
      if (task.lun !== lun) return TaskFunctionResponse.TASK_DOES_NOT_EXIST;
      const management = make(() => {});
      if (!this.tasks!.abort(task, management)) management.waitFor(1);
      management.begin();
      return null;
    }
    if (this.held.cancelTask(referencedTag)) return TaskFunctionResponse.COMPLETE;
    const refCmdSn = field(parser, Field.REF_CMD_SN);
    if (this.window.contains(refCmdSn) && serialBefore(refCmdSn, field(parser, Field.CMD_SN))) {
      this.held.skip(refCmdSn);
      return TaskFunctionResponse.COMPLETE;
    }
    return TaskFunctionResponse.TASK_DOES_NOT_EXIST;
  }

  /** Every connection to the target ends after the response (RFC 7143 11.5.1). */
  private coldReset(): void {
    for (const session of this.host.sessions()) {
      if (session !== this.session && session.target === this.session.target) session.connection?.drop('cold reset');
    }
    if (!this.closed) this.host.end('cold reset');
  }

  abortTasks(lun: number | null, waiter: AbortWaiter): number {
    if (this.tasks === null) return 0;
    let running = 0;
    for (const task of this.tasks.tasks()) {
      if ((lun === null || task.lun === lun) && !this.tasks.abort(task, waiter)) running++;
    }
    return running;
  }

  /** Something that was sent has left its memory. */
  memoryFreed(): void {
    this.tasks?.ownMemoryFreed();
  }

  announceWindow(): void {
    this.writer.windowUpdate();
  }

  // --- the end ---

  private logout(parser: PduParser): void {
    const reason = parser.header[parser.headerAt + Field.FLAGS]! & 0x7f;
    const tag = field(parser, Field.TASK_TAG);
    const cid = readU16BE(parser.header, parser.headerAt + Field.CID);
    if (reason > LogoutReason.REMOVE_FOR_RECOVERY) this.reject(parser, RejectReason.INVALID_PDU_FIELD);
    else if (reason === LogoutReason.REMOVE_FOR_RECOVERY) {
      this.writer.logoutResponse(tag, LogoutResponse.RECOVERY_NOT_SUPPORTED);
    } else if (reason === LogoutReason.CLOSE_CONNECTION && cid !== this.host.cid) {
      this.writer.logoutResponse(tag, LogoutResponse.CID_NOT_FOUND);
    } else {
      this.logoutTag = tag;
      this.parser.stop();
      this.tasks?.finish();
      if (this.taskCount === 0) this.tasksEnded();
    }
  }

  /** Takes nothing new; the tasks in the engine are answered, the others dropped. `FullFeatureHost.end` follows when none is left. */
  finish(): void {
    this.parser.stop();
    this.tasks?.finish();
    this.finishing = true;
    if (this.taskCount === 0) this.tasksEnded();
  }

  /** The connection is gone. `ended` is called, now or later, when the engine has given back the last task. */
  close(ended: () => void): void {
    this.closed = true;
    this.tasks?.close();
    if (this.taskCount === 0) ended();
    else this.ended = ended;
  }

  tasksEnded(): void {
    if (this.closed) {
      const { ended } = this;
      this.ended = null;
      ended?.();
    } else if (this.logoutTag >= 0) {
      this.writer.logoutResponse(this.logoutTag, LogoutResponse.CLOSED);
      this.logoutTag = -1;
      this.host.end('logout');
    } else if (this.finishing) this.host.end('the portal closes');
  }

  // --- for the tasks ---

  reject(parser: PduParser, reason: RejectReason): void {
    this.writer.reject(reason, parser.copyHeader());
  }

  /** Rejects a PDU whose turn it was. */
  private refuse(parser: PduParser, reason: RejectReason): void {
    this.reject(parser, reason);
    this.action = Action.REFUSED;
  }

  resumeInput(): void {
    if (this.replayQueue.length > 0) {
      this.replay();
      if (this.parser.paused) return;
    }
    this.host.resumeInput();
  }

  discardInput(): void {
    this.parser.discard();
  }
}

function field(parser: PduParser, offset: number): number {
  return readU32BE(parser.header, parser.headerAt + offset);
}

function isImmediate(parser: PduParser): boolean {
  return (parser.header[parser.headerAt]! & IMMEDIATE) !== 0;
}
