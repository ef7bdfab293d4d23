import type { Socket } from 'node:net';
import type { Timer } from '../base/clock.ts';
import type { TargetDirectory } from './access.ts';
import type { ConnectionContext } from './connection-context.ts';
import { type MovableConnection, takeOverConnection, takeOverParameters } from './connection-handover.ts';
import { MemoryAccount } from './data-memory.ts';
import { FullFeature, type FullFeatureHost } from './full-feature.ts';
import { InputFlow } from './input-flow.ts';
import type { PortalLimits } from './limits.ts';
import { Login, type LoginReply } from './login.ts';
import { isLoginRequest, readLoginRequest } from './login-pdu.ts';
import type { Parameters } from './parameters.ts';
import { headerU32, type ParserFailure, type PduHandler, PduParser, Verdict } from './pdu-parser.ts';
import { PduWriter } from './pdu-writer.ts';
import { PeerWatch, type WatchedPeer } from './peer-watch.ts';
import { formatAddress, type PortalListener, plainAddress, targetAddresses } from './portal-listener.ts';
import type { Session, SessionConnection } from './session.ts';
import type { ConnectionHandover } from './session-handover.ts';
import { receiveFrom, receiveInto } from './socket-input.ts';
import { AsyncEvent, DEFAULT_SEGMENT_LENGTH, Field, LoginStatus } from './spec.ts';
import { Transmitter, type TransmitterOwner } from './transmitter.ts';

const EMPTY = new Uint8Array(0);

/** One TCP connection: bytes to and from the socket, the login, then full feature phase. */
export class Connection
  implements PduHandler, TransmitterOwner, FullFeatureHost, SessionConnection, WatchedPeer, MovableConnection
{
  readonly limits: PortalLimits;
  readonly targets: TargetDirectory;
  readonly account: MemoryAccount;
  /** `host:port` of the initiator, and the host alone. */
  readonly peer: string;
  readonly peerHost: string;
  cid = 0;

  readonly watch: PeerWatch;
  private readonly context: ConnectionContext;
  private readonly ended: (self: Connection) => void;
  readonly listener: PortalListener;
  readonly socket: Socket;
  readonly parser: PduParser;
  readonly input: InputFlow;
  readonly transmitter: Transmitter;
  readonly writer: PduWriter;
  private readonly localAddress: string;
  /** Null before the login is complete. */
  session: Session | null = null;
  fullFeature: FullFeature | null = null;

  /** Null after the login. */
  private login: Login | null;
  private loginTimer: Timer | null;
  private loginText: Uint8Array = EMPTY;
  /** The last login request, which the answer repeats parts of. */
  private loginHeader: Uint8Array = EMPTY;

  isSettled = false;
  private ending = false;
  private closed = false;
  /** It ends as it should: by a logout, or to be reinstated. */
  private orderly = false;
  /** New connections that wait to take its place. */
  private readonly successors: (() => void)[] = [];
  private endTimer: Timer | null = null;

  sentCount = 0;

  /**
   * `accepted` is a paused socket that nobody has used, or a descriptor of a connection that another process has had: `takeOver` follows. It came in by
   * `listener`. `ended` is called when it is closed and no task is left.
   */
  constructor(
    accepted: Socket | number,
    listener: PortalListener,
    context: ConnectionContext,
    ended: (self: Connection) => void,
  ) {
    this.parser = new PduParser(this, DEFAULT_SEGMENT_LENGTH);
    this.input = new InputFlow(this.parser, context.input, context.limits);
    const socket = typeof accepted === 'number' ? receiveFrom(accepted, this.input) : receiveInto(accepted, this.input);
    this.socket = socket;
    this.context = context;
    this.ended = ended;
    this.listener = listener;
    this.limits = context.limits;
    this.targets = context.targets;
    this.peerHost = plainAddress(socket.remoteAddress ?? '');
    this.peer = formatAddress(this.peerHost, socket.remotePort ?? 0);
    this.watch = new PeerWatch(this, context.limits, context.clock.nowMs());
    this.localAddress = socket.localAddress ?? '';
    this.account = new MemoryAccount(context.memory, context.limits.slabBytesPerConnection);
    this.transmitter = new Transmitter(socket, context.arenas, this.account, this);
    this.input.begin(socket, this.transmitter);
    this.writer = new PduWriter(this.transmitter);
    this.login = new Login({
      limits: context.limits,
      portalGroupTag: listener.tag,
      randomBytes: context.randomBytes,
      gate: (initiator, target) => context.targets.gate(initiator, target),
      admit: (name, identity, tsih, cid) => context.sessionTable.admit(name, identity, tsih, cid),
    });
    this.loginTimer = context.clock.setTimer(context.limits.loginTimeMs, () => this.drop('the login took too long'));
    socket.setNoDelay(true);
    socket.on('error', (error) => context.logger.debug({ peer: this.peer, error: error.message }, 'connection failed'));
    socket.on('end', () => this.peerEnded());
    socket.on('close', () => this.socketClosed());
  }

  get isEnding(): boolean {
    return this.orderly || this.ending || this.closed;
  }

  get isInLogin(): boolean {
    return this.login !== null;
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

  resumeInput(): void {
    this.input.resume();
  }

  transmitted(): void {
    this.sentCount++;
    this.fullFeature?.memoryFreed();
    this.input.transmitted();
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
    this.loginHeader = parser.copyHeader();
    if (this.login!.isFresh) this.writer.statSn = headerU32(parser, Field.EXP_STAT_SN);
    this.writer.loginCmdSn = headerU32(parser, Field.CMD_SN);
    if (!isLoginRequest(parser)) {
      this.refuse(LoginStatus.INVALID_DURING_LOGIN, 'not a login request');
      return;
    }
    const reply = this.login!.next(readLoginRequest(parser, this.loginText));
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
    const { sessionTable, targets, logger } = this.context;
    const portalGroupTag = this.listener.tag;
    const login = this.login!;
    const { initiatorName, targetName, isid, tsih, cid } = login;
    const name = { initiatorName, targetName, isid, portalGroupTag };
    const status = sessionTable.admit(name, login.identity, tsih, cid);
    // Asked again: it may have been taken away since the login began.
    const admission = targetName === null ? null : targets.find(targetName, login.identity);
    if (status !== LoginStatus.SUCCESS) {
      this.refuse(status, 'not admitted any more');
      return;
    }
    if (admission === undefined) {
      this.refuse(LoginStatus.TARGET_REMOVED, 'the target is gone');
      return;
    }
    const existing = sessionTable.find(name);
    if (existing !== null) {
      const old = existing.connection(cid);
      if (tsih !== 0 && old === undefined) {
        this.join(existing, reply);
        return;
      }
      // No PDU is read until the old session, or its connection, has ended: its tasks are not to overtake ours.
      this.parser.paused = true;
      const next = (): void => {
        this.parser.paused = false;
        this.establish(reply);
        this.resumeInput();
      };
      if (tsih === 0) {
        sessionTable.whenRemoved(existing, next);
        existing.drop('the session is reinstated');
      } else old!.giveWay(next);
      return;
    }
    const session = sessionTable.add(login, admission, portalGroupTag);
    const { tsih: handle, authentication } = session;
    const fields = { peer: this.peer, initiator: initiatorName, target: targetName, tsih: handle, authentication };
    logger.info(fields, 'session established');
    this.join(session, reply);
  }

  private join(session: Session, reply: LoginReply): void {
    const login = this.login!;
    const { parameters } = login;
    if (parameters !== session.parameters) parameters.takeSessionWide(session.parameters);
    this.writer.window = session.window;
    this.writer.loginResponse(reply, session.tsih, this.loginHeader, 0);
    this.enterFullFeature(session, login.cid, parameters);
  }

  /** Goes on with a connection of `session` as another process has left it, once `input.resume` is called. */
  takeOver(session: Session, handover: ConnectionHandover): void {
    this.writer.window = session.window;
    this.enterFullFeature(session, handover.cid, takeOverParameters(handover.parameters));
    takeOverConnection(this, handover);
  }

  private enterFullFeature(session: Session, cid: number, parameters: Parameters): void {
    this.cid = cid;
    this.session = session;
    session.connections.push(this);
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
    this.context.loginEnded();
  }

  // --- the session's view ---

  dropAnswered(lun: number | null): void {
    this.fullFeature!.dropAnswered(lun);
  }

  hasTask(tag: number): boolean {
    return this.fullFeature!.hasTask(tag);
  }

  deliverHeld(): void {
    this.fullFeature!.deliverHeld();
  }

  tellLunsChanged(): void {
    // One that does not read what it has does not get more.
    if (!this.input.isOutputFull) this.fullFeature!.tellLunsChanged();
  }

  giveWay(next: () => void): void {
    this.successors.push(next);
    this.orderly = true;
    this.drop('the connection is reinstated');
  }

  // --- the end ---

  /** Asks the initiator to log out within `seconds` (RFC 7143 11.9.1). */
  requestLogout(seconds: number): void {
    if (this.fullFeature !== null && !this.ending && !this.closed) {
      this.writer.asyncMessage(AsyncEvent.LOGOUT_REQUEST, 0, 0, seconds);
    }
  }

  finish(reason: string, quiet: (() => void) | null = null): void {
    this.orderly = true;
    if (this.fullFeature === null) this.drop(reason);
    else this.fullFeature.finish(reason, quiet);
  }

  /** The same, and tells the initiator that its session ends (RFC 7143 11.9.1). */
  dismiss(reason: string): void {
    if (this.fullFeature !== null) this.fullFeature.announcesEnd = true;
    this.finish(reason);
  }

  end(reason: string): void {
    if (this.ending || this.closed) return;
    this.ending = true;
    this.input.stop();
    this.context.logger.debug({ peer: this.peer, reason }, 'connection ends');
    this.transmitter.flush();
    this.socket.end();
    this.endTimer = this.context.clock.setTimer(this.limits.closeTimeMs, () => this.socket.destroy());
  }

  drop(reason: string): void {
    if (this.closed) return;
    this.ending = true;
    this.input.stop();
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
    this.input.close();
    this.endLogin();
    this.transmitter.close();
    if (this.fullFeature === null) this.ended(this);
    else {
      if (!this.orderly) this.session!.connectionLost(this);
      this.fullFeature.close(() => this.tasksReturned());
    }
  }

  /** The engine has given back the last task. */
  private tasksReturned(): void {
    this.session!.leave(this);
    for (const next of this.successors) next();
    this.settled();
    this.ended(this);
  }

  settled(): void {
    this.isSettled = true;
    this.context.sessionTable.settle(this.session!);
  }

  // --- what is watched ---

  get receivedBytes(): number {
    return this.input.receivedBytes;
  }

  get owesReading(): boolean {
    return this.transmitter.queuedBytes > 0;
  }

  get owesData(): boolean {
    return this.fullFeature?.expectsData === true;
  }

  get dataBytes(): number {
    return this.fullFeature === null ? 0 : this.fullFeature.dataBytes;
  }

  get canAnswer(): boolean {
    return this.fullFeature !== null && !this.isEnding && this.input.isOpen;
  }

  ping(): void {
    this.fullFeature!.pings.send();
  }
}
