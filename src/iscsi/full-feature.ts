import { readU16BE, readU32BE } from '../base/bytes.ts';
import { isImmediate, taskTag } from './command-pdu.ts';
import type { CommandWindow } from './command-window.ts';
import type { MemoryAccount } from './data-memory.ts';
import { HeldPdus } from './held-pdus.ts';
import type { Parameters } from './parameters.ts';
import { type PduHandler, type PduParser, Verdict } from './pdu-parser.ts';
import type { PduWriter } from './pdu-writer.ts';
import { Replay } from './replay.ts';
import type { Session } from './session.ts';
import { Field, LogoutReason, LogoutResponse, Opcode, RESERVED_TAG, RejectReason } from './spec.ts';
import { TaskManager, type TaskManagerHost } from './task-management.ts';
import { TaskSet, type TaskSetHost } from './task-set.ts';
import { TextRequests, type TextScope } from './text-requests.ts';

/** What full feature phase needs of its connection. */
export interface FullFeatureHost extends TextScope, TaskManagerHost {
  readonly cid: number;
  readonly account: MemoryAccount;
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

/**
 * One connection in full feature phase: every PDU that an initiator may send, in the order of CmdSN.
 *
 * ExpStatSN is not looked at: nothing is kept to be sent again at error recovery level 0, so an acknowledgement frees nothing.
 */
export class FullFeature implements TaskSetHost, PduHandler {
  private readonly host: FullFeatureHost;
  private readonly writer: PduWriter;
  private readonly parser: PduParser;
  private readonly parameters: Parameters;
  private readonly window: CommandWindow;
  /** Both null in a discovery session. */
  private readonly tasks: TaskSet | null;
  private readonly taskManager: TaskManager | null;
  private readonly held: HeldPdus;
  private readonly replay: Replay;
  private readonly text: TextRequests;

  private action: Action = Action.NOTHING;
  /** Data of a NOP-Out or a text request. */
  private data: Uint8Array = EMPTY;
  /** Tag of the logout that waits for the tasks in the engine, -1 when there is none. */
  private logoutTag = -1;
  private finishing = false;
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
    this.held = new HeldPdus(limits.heldBytes);
    this.replay = new Replay(this.held, window, this);
    this.text = new TextRequests(session, parameters, host, writer);
    if (target === null || nexus === null) {
      this.tasks = null;
      this.taskManager = null;
    } else {
      this.tasks = new TaskSet(target, nexus, writer, window, parameters, limits, account, this);
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
        if (intact) this.held.end(field(parser, Field.CMD_SN), taskTag(parser));
        else this.discardHeld(parser);
        return;
      case Action.HOLD_DATA_OUT:
        if (intact) this.held.endDataOut(taskTag(parser));
        else this.discardHeld(parser);
        return;
      default:
        this.turn(action, parser, intact);
    }
    if (this.held.count > 0) this.deliverHeld();
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
    let reason: RejectReason | 0 = 0;
    if (action === Action.NOP_OUT) this.answerPing(parser, data);
    else if (action === Action.TEXT) reason = this.text.answer(parser, data);
    else if (action === Action.TASK_MANAGEMENT) reason = this.taskManager!.request(parser);
    else if (action === Action.LOGOUT) reason = this.logout(parser);
    if (reason !== 0) this.reject(parser, reason);
  }

  /**
   * Whether the PDU is delivered now (RFC 7143 4.2.2.1): immediate ones always, others when they carry ExpCmdSN. What is outside the window is silently ignored,
   * what is ahead in it is held.
   */
  private takesTurn(parser: PduParser, action: Action): boolean {
    if (!isImmediate(parser)) {
      const cmdSn = field(parser, Field.CMD_SN);
      if (!this.window.contains(cmdSn)) return false;
      if (cmdSn !== this.window.expCmdSn) {
        this.hold(parser, Action.HOLD);
        return false;
      }
    }
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

  /** Delivers what was held and whose turn has come; what stands still on the way holds up all that comes later. */
  private deliverHeld(): void {
    this.replay.run();
    this.parser.paused = this.replay.isHalted;
  }

  private dataOut(parser: PduParser): void {
    if (this.tasks === null) this.reject(parser, RejectReason.PROTOCOL_ERROR);
    else if (this.held.count > 0 && this.held.hasTask(taskTag(parser))) this.hold(parser, Action.HOLD_DATA_OUT);
    else {
      this.tasks.dataOut(parser);
      this.action = Action.DATA_OUT;
    }
  }

  /** A ping is answered with its data, as much as the initiator takes in one PDU (RFC 7143 11.18, 11.19). */
  private nopOut(parser: PduParser): void {
    if (taskTag(parser) === RESERVED_TAG) return;
    this.data = new Uint8Array(Math.min(parser.dataLength, this.parameters.initiatorSegmentLength));
    parser.intoBytes(this.data, 0, this.data.length);
  }

  private answerPing(parser: PduParser, data: Uint8Array): void {
    const tag = taskTag(parser);
    if (tag !== RESERVED_TAG) this.writer.nopIn(tag, data);
  }

  private textRequest(parser: PduParser): void {
    if (parser.dataLength > this.host.limits.textBytes) {
      this.refuse(parser, RejectReason.PROTOCOL_ERROR);
      return;
    }
    this.data = new Uint8Array(parser.dataLength);
    parser.intoBytes(this.data, 0, parser.dataLength);
  }

  // --- for others ---

  /** See `TaskSet`. */
  dropAnswered(lun: number | null): void {
    this.tasks?.dropAnswered(lun);
  }

  /** Something that was sent has left its memory. */
  memoryFreed(): void {
    this.tasks?.memoryFreed();
  }

  // --- the end ---

  private logout(parser: PduParser): RejectReason | 0 {
    const reason = parser.header[parser.headerAt + Field.FLAGS]! & 0x7f;
    const tag = taskTag(parser);
    const cid = readU16BE(parser.header, parser.headerAt + Field.CID);
    if (reason > LogoutReason.REMOVE_FOR_RECOVERY) return RejectReason.INVALID_PDU_FIELD;
    if (reason === LogoutReason.REMOVE_FOR_RECOVERY) {
      this.writer.logoutResponse(tag, LogoutResponse.RECOVERY_NOT_SUPPORTED);
    } else if (reason === LogoutReason.CLOSE_CONNECTION && cid !== this.host.cid) {
      this.writer.logoutResponse(tag, LogoutResponse.CID_NOT_FOUND);
    } else {
      this.logoutTag = tag;
      this.finish();
    }
    return 0;
  }

  /** Takes nothing new; the tasks in the engine are answered, the others dropped. `FullFeatureHost.end` follows when none is left. */
  finish(): void {
    this.finishing = true;
    this.parser.stop();
    this.replay.stop();
    this.tasks?.finish();
    if (this.taskCount === 0) this.tasksEnded();
  }

  /** The connection is gone. `ended` is called, now or later, when the engine has given back the last task. */
  close(ended: () => void): void {
    this.closed = true;
    this.replay.stop();
    this.taskManager?.close();
    this.tasks?.close();
    if (this.taskCount === 0) ended();
    else this.ended = ended;
  }

  tasksEnded(): void {
    if (this.closed) {
      const { ended } = this;
      this.ended = null;
      ended?.();
    } else if (this.finishing) {
      if (this.logoutTag >= 0) this.writer.logoutResponse(this.logoutTag, LogoutResponse.CLOSED);
      this.host.end(this.logoutTag >= 0 ? 'logout' : 'the portal closes');
    }
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
    if (this.replay.isHalted) {
      this.deliverHeld();
      if (this.parser.paused) return;
    }
    this.host.resumeInput();
  }

  discardInput(): void {
    this.parser.discard();
    this.replay.discard();
  }
}

function field(parser: PduParser, offset: number): number {
  return readU32BE(parser.header, parser.headerAt + offset);
}
