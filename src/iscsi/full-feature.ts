import { decodeLun } from '../scsi/lun.ts';
import { REPORTED_LUNS_DATA_HAS_CHANGED } from '../scsi/sense.ts';
import { isImmediate, taskTag } from './command-pdu.ts';
import type { CommandWindow } from './command-window.ts';
import { ConnectionTasks, type ConnectionTasksHost } from './connection-tasks.ts';
import type { MemoryAccount } from './data-memory.ts';
import { HeldPdus } from './held-pdus.ts';
import { Logout, type LogoutHost } from './logout.ts';
import type { Parameters } from './parameters.ts';
import { headerU32, type PduHandler, type PduParser, Verdict } from './pdu-parser.ts';
import { refuseRequest } from './pdu-rules.ts';
import type { PduWriter } from './pdu-writer.ts';
import { Pings } from './pings.ts';
import { Replay } from './replay.ts';
import type { Session } from './session.ts';
import { AsyncEvent, Field, Opcode, RejectReason } from './spec.ts';
import { TaskManager, type TaskManagerHost } from './task-management.ts';
import { TextRequests, type TextScope } from './text-requests.ts';

/** What full feature phase needs of its connection. */
export interface FullFeatureHost extends TextScope, TaskManagerHost, LogoutHost {
  readonly account: MemoryAccount;
  /** Reads on after a BLOCK. */
  resumeInput(): void;
  /** No task is left, and none will come. */
  settled(): void;
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
  /** A command that task management has aborted. */
  CANCELLED: 10,
} as const;
type Action = (typeof Action)[keyof typeof Action];

const EMPTY = new Uint8Array(0);

/**
 * One connection in full feature phase: every PDU that an initiator may send, in the order of CmdSN.
 *
 * ExpStatSN is not looked at: nothing is kept to be sent again at error recovery level 0, so an acknowledgement frees nothing.
 */
export class FullFeature implements ConnectionTasksHost, PduHandler {
  private readonly host: FullFeatureHost;
  private readonly writer: PduWriter;
  private readonly parser: PduParser;
  readonly parameters: Parameters;
  private readonly session: Session;
  private readonly window: CommandWindow;
  /** Both null in a discovery session. */
  readonly tasks: ConnectionTasks | null;
  readonly taskManager: TaskManager | null;
  readonly held: HeldPdus;
  readonly replay: Replay;
  private readonly text: TextRequests;
  private readonly logout: Logout;
  readonly pings: Pings;

  private action: Action = Action.NOTHING;
  /** Why it is rejected. */
  private refusal: RejectReason = RejectReason.PROTOCOL_ERROR;
  /** Data of a NOP-Out or a text request. */
  private data: Uint8Array = EMPTY;
  /** The initiator is told of the end when it is not its own wish. */
  announcesEnd = false;
  finishing = false;
  private endReason = '';
  private readonly whenQuiet: (() => void)[] = [];
  private closed = false;
  private ended: (() => void) | null = null;

  constructor(session: Session, parameters: Parameters, host: FullFeatureHost, writer: PduWriter, parser: PduParser) {
    const { limits, account } = host;
    const { target, nexus, window } = session;
    this.host = host;
    this.writer = writer;
    this.parser = parser;
    this.parameters = parameters;
    this.window = window;
    this.session = session;
    this.held = new HeldPdus(session.held);
    this.replay = new Replay(this.held, window, this);
    this.text = new TextRequests(session, parameters, host, writer);
    this.pings = new Pings(writer);
    this.logout = new Logout(session, writer, host, () => {
      if (this.taskCount === 0) this.tasksEnded();
    });
    if (target === null || nexus === null) {
      this.tasks = null;
      this.taskManager = null;
    } else {
      this.tasks = new ConnectionTasks(target, nexus, writer, window, parameters, limits, account, this);
      this.taskManager = new TaskManager(session, this.tasks, this.held, writer, limits.immediateCommands, host);
    }
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
        if (this.isCancelled(parser)) this.action = Action.CANCELLED;
        else if (this.tasks !== null) return this.tasks.command(parser);
        else this.refuse(RejectReason.PROTOCOL_ERROR);
        break;
      case Opcode.DATA_OUT:
        this.dataOut(parser);
        break;
      case Opcode.NOP_OUT:
        if (this.takesRequest(parser, Action.NOP_OUT)) {
          this.data = this.pings.data(parser, this.parameters.initiatorSegmentLength);
        }
        break;
      case Opcode.TEXT:
        if (this.takesRequest(parser, Action.TEXT)) this.textRequest(parser);
        break;
      case Opcode.TASK_MANAGEMENT:
        if (this.takesRequest(parser, Action.TASK_MANAGEMENT) && this.tasks === null) {
          this.refuse(RejectReason.PROTOCOL_ERROR);
        }
        break;
      case Opcode.LOGOUT:
        this.takesRequest(parser, Action.LOGOUT);
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
        this.tasks!.commandEnd(parser, intact);
        break;
      case Action.DATA_OUT:
        this.tasks!.dataOutEnd(parser, intact);
        return;
      case Action.HOLD:
        if (intact) this.held.end(headerU32(parser, Field.CMD_SN), taskTag(parser));
        else this.discardHeld(parser);
        return;
      case Action.HOLD_DATA_OUT:
        if (intact) this.held.endDataOut(taskTag(parser));
        else this.discardHeld(parser);
        return;
      default:
        this.turn(action, parser, intact);
    }
    if (this.session.held.count > 0) this.session.deliver();
  }

  /** Never: what is held was whole. */
  pduFailure(): void {}

  private turn(action: Action, parser: PduParser, intact: boolean): void {
    const { data } = this;
    this.data = EMPTY;
    if (!intact) {
      this.reject(parser, RejectReason.DATA_DIGEST_ERROR);
      return;
    }
    this.advance(parser);
    // No response tells an initiator whose window was closed that it may send again.
    if (action === Action.CANCELLED && this.window.outstanding === this.window.size - 1) this.writer.windowUpdate();
    let reason: RejectReason | 0 = action === Action.REFUSED ? this.refusal : 0;
    if (action === Action.NOP_OUT) reason = this.pings.received(parser, data);
    else if (action === Action.TEXT) reason = this.text.answer(parser, data);
    else if (action === Action.TASK_MANAGEMENT) reason = this.taskManager!.request(parser);
    else if (action === Action.LOGOUT) reason = this.logout.request(parser);
    if (reason !== 0) this.reject(parser, reason);
  }

  /**
   * Whether the PDU is delivered now (RFC 7143 4.2.2.1): immediate ones always, others when they carry ExpCmdSN. What is outside the window is silently ignored,
   * what is ahead in it is held.
   */
  private takesTurn(parser: PduParser, action: Action): boolean {
    if (!isImmediate(parser)) {
      const cmdSn = headerU32(parser, Field.CMD_SN);
      if (!this.window.contains(cmdSn)) return false;
      if (cmdSn !== this.window.expCmdSn || this.window.isFrozen) {
        this.hold(parser, Action.HOLD);
        return false;
      }
    }
    this.action = action;
    return true;
  }

  /** The same for what is no command, and whether it can be delivered at all. */
  private takesRequest(parser: PduParser, action: Action): boolean {
    if (!this.takesTurn(parser, action)) return false;
    const reason = refuseRequest(parser);
    if (reason !== 0) this.refuse(reason);
    return reason === 0;
  }

  private isCancelled(parser: PduParser): boolean {
    const { cancelled } = this.session;
    return !isImmediate(parser) && cancelled.has(decodeLun(parser.header, parser.headerAt + Field.LUN));
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

  /** See `SessionConnection`. What stands still on the way holds up all that comes later, and goes on in `resumeInput`. */
  deliverHeld(): void {
    this.held.dropBefore(this.window.expCmdSn);
    if (!this.replay.isHalted) this.runReplay();
  }

  private runReplay(): void {
    this.replay.run();
    this.parser.paused = this.replay.isHalted;
  }

  private dataOut(parser: PduParser): void {
    if (this.tasks === null) this.reject(parser, RejectReason.PROTOCOL_ERROR);
    else if (this.session.held.count > 0 && this.held.hasTask(taskTag(parser))) this.hold(parser, Action.HOLD_DATA_OUT);
    else {
      this.tasks.dataOut(parser);
      this.action = Action.DATA_OUT;
    }
  }

  private textRequest(parser: PduParser): void {
    if (parser.dataLength > this.host.limits.textBytes) {
      this.refuse(RejectReason.PROTOCOL_ERROR);
      return;
    }
    this.data = new Uint8Array(parser.dataLength);
    parser.intoBytes(this.data, 0, parser.dataLength);
  }

  // --- for others ---

  /** Data of commands that has come since the login, the part of a PDU included. */
  get dataBytes(): number {
    return this.tasks === null ? 0 : this.tasks.collector.dataBytes + this.parser.dataReceived;
  }

  /** Tells the initiator that there are other LUNs than it knows of; those that listen to it look (RFC 7143 11.9.1). */
  tellLunsChanged(): void {
    if (!this.finishing && !this.closed) this.writer.scsiEvent(REPORTED_LUNS_DATA_HAS_CHANGED);
  }

  /** See `ConnectionTasks`. */
  dropAnswered(lun: number | null): void {
    this.tasks?.dropAnswered(lun);
  }

  /** Something that was sent has left its memory. */
  memoryFreed(): void {
    this.tasks?.memoryFreed();
  }

  // --- the end ---

  /**
   * Takes nothing new; the tasks in the engine are answered, the others dropped. When none is left `FullFeatureHost.end` follows, and `quiet` is called, be it now or
   * when the connection has been closed meanwhile.
   */
  finish(reason: string, quiet: (() => void) | null): void {
    if (quiet !== null) this.whenQuiet.push(quiet);
    if (!this.finishing) {
      this.finishing = true;
      this.endReason = reason;
      this.parser.stop();
      this.dropHeld();
      if (!this.closed) this.tasks?.finish();
    }
    if (this.taskCount === 0) this.tasksEnded();
  }

  private dropHeld(): void {
    this.replay.stop();
    this.held.clear();
  }

  /** The connection is gone. `ended` is called, now or later, when the engine has given back the last task. */
  close(ended: () => void): void {
    this.closed = true;
    this.dropHeld();
    this.logout.close();
    this.taskManager?.close();
    this.tasks?.close();
    this.ended = ended;
    if (this.taskCount === 0) this.tasksEnded();
  }

  tasksEnded(): void {
    if (this.closed) {
      const { ended } = this;
      this.ended = null;
      ended?.();
    } else if (this.finishing && !this.logout.isWaiting) {
      this.host.settled();
      this.logout.answer();
      if (this.announcesEnd)
        this.writer.asyncMessage(AsyncEvent.SESSION_DROPPED, 0, this.parameters.defaultTime2Wait, 0);
      this.host.end(this.endReason);
    }
    if (this.closed || this.finishing) for (const quiet of this.whenQuiet.splice(0)) quiet();
  }

  // --- for the tasks ---

  reject(parser: PduParser, reason: RejectReason): void {
    this.writer.reject(reason, parser.copyHeader());
  }

  /** Rejects a PDU whose turn it is, once it has had it: the answer says so. */
  refuse(reason: RejectReason): void {
    this.action = Action.REFUSED;
    this.refusal = reason;
  }

  hasTask(tag: number): boolean {
    return this.tasks !== null && this.tasks.table.get(tag) !== null;
  }

  hasTaskElsewhere(tag: number): boolean {
    const { connections } = this.session;
    if (connections.length === 1) return false;
    return connections.some((other) => other.cid !== this.host.cid && other.hasTask(tag));
  }

  resumeInput(): void {
    if (this.replay.isHalted) {
      this.runReplay();
      if (this.session.held.count > 0) this.session.deliver();
      if (this.parser.paused) return;
    }
    this.host.resumeInput();
  }

  discardInput(): void {
    this.parser.discard();
    this.replay.discard();
  }
}
