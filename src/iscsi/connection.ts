import type { Socket } from 'node:net';
import { readU16BE, readU32BE } from '../base/bytes.ts';
import type { Clock, Timer } from '../base/clock.ts';
import type { Logger } from '../base/log.ts';
import { sameIdentity, type TargetDirectory } from './access.ts';
import type { RandomBytes } from './authentication.ts';
import { type DataMemory, MemoryAccount } from './data-memory.ts';
import { FullFeature, type FullFeatureHost } from './full-feature.ts';
import type { PortalLimits } from './limits.ts';
import { Login, type LoginReply } from './login.ts';
import { type ParserFailure, type PduHandler, PduParser, Verdict } from './pdu-parser.ts';
import { PduWriter } from './pdu-writer.ts';
import { formatAddress, type PortalListener, plainAddress, targetAddresses } from './portal-listener.ts';
import type { Session, SessionConnection } from './session.ts';
import type { SessionTable } from './session-table.ts';
import { type InputReceiver, receiveInto } from './socket-input.ts';
import {
  AsyncEvent,
  CONTINUE,
  DEFAULT_SEGMENT_LENGTH,
  Field,
  IMMEDIATE,
  LoginStatus,
  Opcode,
  TRANSIT,
} from './spec.ts';
import { type ArenaPool, Transmitter, type TransmitterOwner } from './transmitter.ts';

/** What the connections of a portal share. */
export interface ConnectionContext {
  readonly limits: PortalLimits;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly targets: TargetDirectory;
  readonly randomBytes: RandomBytes;
  /** Everywhere that the portal listens. */
  readonly listeners: readonly PortalListener[];
  readonly memory: DataMemory;
  readonly arenas: ArenaPool;
  /** Where all connections receive. */
  readonly input: Uint8Array;
  readonly sessionTable: SessionTable;
  /** The login phase of a connection is over. */
  loginEnded(connection: Connection): void;
  /** The socket is closed and no task of the connection is left. */
  connectionEnded(connection: Connection): void;
}

const EMPTY = new Uint8Array(0);

/** One TCP connection: bytes to and from the socket, the login, then full feature phase. */
export class Connection implements InputReceiver, PduHandler, TransmitterOwner, FullFeatureHost, SessionConnection {
  readonly limits: PortalLimits;
  readonly targets: TargetDirectory;
  readonly account: MemoryAccount;
  /** `host:port` of the initiator. */
  readonly peer: string;
  cid = 0;

  private readonly context: ConnectionContext;
  private readonly listener: PortalListener;
  private readonly socket: Socket;
  private readonly parser: PduParser;
  private readonly transmitter: Transmitter;
  private readonly writer: PduWriter;
  private readonly localAddress: string;
  private session: Session | null = null;
  private fullFeature: FullFeature | null = null;

  /** Null after the login. */
  private login: Login | null;
  private loginTimer: Timer | null;
  private loginText: Uint8Array = EMPTY;
  /** The last login request, which the answer repeats parts of. */
  private loginHeader: Uint8Array = EMPTY;

  /** Bytes that were received and not read, because the input stands still. */
  private rest: Uint8Array | null = null;
  private outputFull = false;
  private ending = false;
  private closed = false;
  private endTimer: Timer | null = null;

  /** For `sweep`: what has moved, and for how many sweeps nothing has. */
  private receivedBytes = 0;
  private sent = 0;
  private lastReceived = 0;
  private lastSent = 0;
  private idleSweeps = 0;

  /** `accepted` is a paused socket that nobody has used; it came in by `listener`. */
  constructor(accepted: Socket, listener: PortalListener, context: ConnectionContext) {
    const socket = receiveInto(accepted, context.input, this);
    this.socket = socket;
    this.context = context;
    this.listener = listener;
    this.limits = context.limits;
    this.targets = context.targets;
    this.peer = formatAddress(plainAddress(socket.remoteAddress ?? ''), socket.remotePort ?? 0);
    this.localAddress = socket.localAddress ?? '';
    this.account = new MemoryAccount(context.memory, context.limits.slabBytesPerConnection);
    this.parser = new PduParser(this, DEFAULT_SEGMENT_LENGTH);
    this.transmitter = new Transmitter(socket, context.arenas, this.account, this);
    this.writer = new PduWriter(this.transmitter);
    this.login = new Login({
      limits: context.limits,
      portalGroupTag: listener.tag,
      randomBytes: context.randomBytes,
      gate: (initiator, target) => context.targets.gate(initiator, target),
      admit: (initiatorName, targetName, isid, tsih, cid) =>
        context.sessionTable.admit({ initiatorName, targetName, isid, portalGroupTag: listener.tag }, tsih, cid),
    });
    this.loginTimer = context.clock.setTimer(context.limits.loginTimeMs, () => this.drop('the login took too long'));
    socket.setNoDelay(true);
    socket.on('error', (error) => context.logger.debug({ peer: this.peer, error: error.message }, 'connection failed'));
    socket.on('end', () => this.peerEnded());
    socket.on('close', () => this.socketClosed());
  }

  get isInFullFeature(): boolean {
    return this.fullFeature !== null;
  }

  targetAddresses(): readonly string[] {
    return targetAddresses(this.context.listeners, this.localAddress);
  }

  sessions(): Session[] {
    return this.context.sessionTable.list();
  }

  // --- input ---

  received(bytes: Uint8Array, length: number): void {
    this.receivedBytes += length;
    if (this.ending || this.closed) return;
    this.read(bytes, 0, length);
  }

  private read(bytes: Uint8Array, from: number, end: number): void {
    const at = this.parser.feed(bytes, from, end);
    if (this.ending || this.closed) return;
    if (at < end || this.parser.isHalted) {
      this.rest = bytes.slice(at, end);
      this.socket.pause();
    } else if (this.transmitter.queuedBytes > this.limits.outputBytes) {
      this.outputFull = true;
      this.socket.pause();
    }
  }

  resumeInput(): void {
    const { rest } = this;
    if (rest === null || this.ending || this.closed) return;
    this.rest = null;
    this.read(rest, 0, rest.length);
    this.resumeSocket();
  }

  private resumeSocket(): void {
    if (this.rest === null && !this.outputFull && !this.closed) this.socket.resume();
  }

  transmitted(): void {
    this.sent++;
    this.fullFeature?.memoryFreed();
    if (this.outputFull && this.transmitter.queuedBytes <= this.limits.outputBytes / 2) {
      this.outputFull = false;
      this.resumeSocket();
    }
  }

  pduHeader(parser: PduParser): Verdict {
    if (this.fullFeature !== null) return this.fullFeature.pduHeader(parser);
    this.loginText = new Uint8Array(parser.dataLength);
    parser.intoBytes(this.loginText, 0, parser.dataLength);
    return Verdict.ACCEPT;
  }

  pduEnd(parser: PduParser, intact: boolean): void {
    if (this.fullFeature !== null) this.fullFeature.pduEnd(parser, intact);
    else this.loginRequest(parser);
  }

  pduFailure(parser: PduParser, failure: ParserFailure): void {
    if (this.fullFeature === null && failure === 'data segment is longer than MaxRecvDataSegmentLength') {
      this.loginHeader = parser.copyHeader();
      this.refuse(LoginStatus.INITIATOR_ERROR, failure);
    } else this.drop(failure);
  }

  // --- login ---

  private loginRequest(parser: PduParser): void {
    const { header, headerAt: at } = parser;
    this.loginHeader = parser.copyHeader();
    const cmdSn = readU32BE(header, at + Field.CMD_SN);
    if (this.login!.isFresh) this.writer.statSn = readU32BE(header, at + Field.EXP_STAT_SN);
    this.writer.loginCmdSn = cmdSn;
    if (parser.opcode !== Opcode.LOGIN || (header[at]! & IMMEDIATE) === 0 || parser.ahsLength > 0) {
      this.refuse(LoginStatus.INVALID_DURING_LOGIN, 'not a login request');
      return;
    }
    const flags = header[at + Field.FLAGS]!;
    const reply = this.login!.next({
      transit: (flags & TRANSIT) !== 0,
      continues: (flags & CONTINUE) !== 0,
      currentStage: (flags >>> 2) & 3,
      nextStage: flags & 3,
      versionMin: header[at + 3]!,
      isid: Buffer.from(header.buffer, header.byteOffset + at + Field.ISID, 6).toString('hex'),
      tsih: readU16BE(header, at + Field.TSIH),
      cid: readU16BE(header, at + Field.CID),
      cmdSn,
      text: this.loginText,
    });
    this.loginText = EMPTY;
    if (reply.complete) this.establish(reply);
    else if (reply.status !== LoginStatus.SUCCESS) this.refuse(reply.status, reply.reason);
    else this.writer.loginResponse(reply, this.login!.tsih, this.loginHeader, 0);
  }

  /** Sends a login response that ends the login, and ends the connection. */
  private refuse(status: LoginStatus, reason: string): void {
    const reply = { status, transit: false, continues: false, currentStage: 0, nextStage: 0, text: EMPTY };
    this.writer.loginResponse({ ...reply, complete: false, reason }, 0, this.loginHeader, 0);
    const { initiatorName, targetName } = this.login!;
    const fields = { peer: this.peer, initiator: initiatorName, target: targetName, status, reason };
    this.context.logger.info(fields, 'login refused');
    this.end(`login refused: ${reason}`);
  }

  /** The login is complete: a session for it, once one that it reinstates has ended. */
  private establish(reply: LoginReply): void {
    if (this.closed || this.ending) return;
    const { sessionTable, targets, limits, logger } = this.context;
    const portalGroupTag = this.listener.tag;
    const login = this.login!;
    const { initiatorName, targetName, isid, tsih, cid } = login;
    const name = { initiatorName, targetName, isid, portalGroupTag };
    const status = sessionTable.admit(name, tsih, cid);
    // Asked again: it may have been taken away since the login began.
    const admission = targetName === null ? null : targets.find(targetName, login.identity);
    if (status !== LoginStatus.SUCCESS || admission === undefined) {
      const removed = status === LoginStatus.SUCCESS;
      this.refuse(
        removed ? LoginStatus.TARGET_REMOVED : status,
        removed ? 'the target is gone' : 'not admitted any more',
      );
      return;
    }
    const existing = sessionTable.find(name);
    if (existing !== null && existing.target !== null && !sameIdentity(existing.identity, login.identity)) {
      this.refuse(LoginStatus.AUTHORIZATION_FAILURE, "the session is another user's");
      return;
    }
    if (existing !== null) {
      // No PDU is read until the old session, or its connection, has ended: its tasks are not to overtake ours.
      this.parser.paused = true;
      const next = (): void => {
        this.parser.paused = false;
        if (tsih === 0) this.establish(reply);
        else this.join(existing, reply);
        this.resumeInput();
      };
      if (tsih === 0) sessionTable.whenRemoved(existing, next);
      else existing.successor = next;
      existing.connection?.drop(tsih === 0 ? 'the session is reinstated' : 'the connection is reinstated');
      return;
    }
    const session = sessionTable.add(login, admission, portalGroupTag, limits.commandWindow);
    const { tsih: handle, authentication } = session;
    const fields = { peer: this.peer, initiator: initiatorName, target: targetName, tsih: handle, authentication };
    logger.info(fields, 'session established');
    this.join(session, reply);
  }

  private join(session: Session, reply: LoginReply): void {
    if (this.closed || this.ending) {
      this.context.sessionTable.remove(session);
      return;
    }
    const login = this.login!;
    const { parameters } = login;
    if (parameters !== session.parameters) parameters.takeSessionWide(session.parameters);
    this.cid = login.cid;
    this.session = session;
    session.connection = this;
    this.writer.window = session.window;
    this.writer.loginResponse(reply, session.tsih, this.loginHeader, 0);
    this.fullFeature = new FullFeature(session, parameters, this, this.writer, this.parser);
    this.parser.headerDigest = parameters.headerDigest;
    this.parser.dataDigest = parameters.dataDigest;
    this.parser.maxDataLength = parameters.targetSegmentLength;
    this.transmitter.headerDigest = parameters.headerDigest;
    this.transmitter.dataDigest = parameters.dataDigest;
    this.endLogin();
  }

  private endLogin(): void {
    if (this.login === null) return;
    this.login = null;
    this.loginHeader = EMPTY;
    this.loginTimer?.cancel();
    this.loginTimer = null;
    this.context.loginEnded(this);
  }

  // --- the session's view ---

  dropAnswered(lun: number | null): void {
    this.fullFeature?.dropAnswered(lun);
  }

  // --- the end ---

  /** Asks the initiator to log out within `seconds` (RFC 7143 11.9.1). */
  requestLogout(seconds: number): void {
    if (this.fullFeature !== null && !this.ending && !this.closed) {
      this.writer.asyncMessage(AsyncEvent.LOGOUT_REQUEST, 0, 0, seconds);
    }
  }

  /** Takes nothing new, answers what the engine has, then ends. */
  finish(): void {
    if (this.ending || this.closed) return;
    if (this.fullFeature === null) this.drop('the portal closes');
    else this.fullFeature.finish();
  }

  end(reason: string): void {
    if (this.ending || this.closed) return;
    this.ending = true;
    this.rest = null;
    this.parser.stop();
    this.context.logger.debug({ peer: this.peer, reason }, 'connection ends');
    this.transmitter.flush();
    this.socket.end();
    // What still comes is read and dropped, so that the peer reads our last words instead of a reset.
    this.socket.resume();
    this.endTimer = this.context.clock.setTimer(this.limits.closeTimeMs, () => this.socket.destroy());
  }

  drop(reason: string): void {
    if (this.closed) return;
    this.ending = true;
    this.rest = null;
    this.parser.stop();
    this.context.logger.info({ peer: this.peer, reason }, 'connection dropped');
    this.socket.destroy();
    this.release();
  }

  /** Half a connection is of no use: there is nobody to read our answers. */
  private peerEnded(): void {
    if (this.ending) this.socket.destroy();
    else this.drop('closed by the initiator');
  }

  private socketClosed(): void {
    this.release();
    this.endTimer?.cancel();
  }

  /** Gives everything back; the socket is closed or destroyed, so that nothing reads or writes memory any more. */
  private release(): void {
    if (this.closed) return;
    this.closed = true;
    this.rest = null;
    this.parser.stop();
    this.endLogin();
    this.transmitter.close();
    if (this.fullFeature === null) this.context.connectionEnded(this);
    else this.fullFeature.close(() => this.sessionEnded());
  }

  /** The engine has given back the last task. */
  private sessionEnded(): void {
    const session = this.session!;
    if (session.connection === this) session.connection = null;
    const { successor } = session;
    session.successor = null;
    if (successor !== null) successor();
    else this.context.sessionTable.remove(session);
    this.context.connectionEnded(this);
  }

  /** Ends a peer that owes us something and does not move. Called twice in a stall time. */
  sweep(): void {
    const owes =
      (this.fullFeature?.expectsData === true && this.receivedBytes === this.lastReceived) ||
      (this.transmitter.queuedBytes > 0 && this.sent === this.lastSent);
    this.lastReceived = this.receivedBytes;
    this.lastSent = this.sent;
    this.idleSweeps = owes ? this.idleSweeps + 1 : 0;
    if (this.idleSweeps > 2) this.drop('the peer has stalled');
  }
}
