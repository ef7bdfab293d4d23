import { closeSync } from 'node:fs';
import type { Server, Socket } from 'node:net';
import { readU16BE } from '../base/bytes.ts';
import { type Clock, monotonicClock, type Timer } from '../base/clock.ts';
import { StorageError } from '../base/errors.ts';
import { type Logger, silentLogger } from '../base/log.ts';
import { type GiveFd, shareHandle, type TakeFd } from '../base/shared-handle.ts';
import type { TargetDirectory } from './access.ts';
import type { RandomBytes } from './authentication.ts';
import { Connection } from './connection.ts';
import type { ConnectionContext } from './connection-context.ts';
import { Calm, freezeSession, handOverConnection, settle, thaw } from './connection-handover.ts';
import { DataMemory } from './data-memory.ts';
import { InputChunks } from './input-chunks.ts';
import { LimitedLogger } from './limited-logger.ts';
import { checkLimits, DEFAULT_LIMITS, type PortalLimits } from './limits.ts';
import { type BoundPortal, boundPortal, listening, type PortalListener, plainAddress } from './portal-listener.ts';
import type { Session } from './session.ts';
import { handOverSession, originOf, type PortalHandover, type SessionHandover } from './session-handover.ts';
import { SessionTable } from './session-table.ts';
import { ArenaPool } from './transmitter.ts';

export interface PortalOptions {
  readonly targets: TargetDirectory;
  readonly logger?: Logger;
  readonly clock?: Clock;
  /** Unpredictable bytes, for challenges, and so that session handles of one run mean nothing to the next. */
  readonly randomBytes: RandomBytes;
  /** What differs from `DEFAULT_LIMITS`. */
  readonly limits?: Partial<PortalLimits>;
}

/** A session as people want to see it. */
export interface SessionInfo {
  readonly initiator: string;
  /** Null: discovery. */
  readonly target: string | null;
  /** Of CHAP; null for an initiator that was not asked. */
  readonly user: string | null;
  /** `none`, `CHAP SHA-256`, `mutual CHAP MD5`. */
  readonly authentication: string;
  /** That it may see. */
  readonly luns: readonly number[];
  readonly isid: string;
  readonly tsih: number;
  readonly portalGroupTag: number;
  readonly connections: number;
  readonly commands: number;
}

export interface ListenOptions {
  /** Of the portal group; 1 unless it is given. */
  readonly tag?: number;
  /** `::` leaves IPv4 to others. */
  readonly ipv6Only?: boolean;
}

/** How long an initiator may hold up a takeover by what it has not sent or read. */
const PEER_MS = 1000;

/** An iSCSI target node's network side (RFC 7143 4.4.1): listens, and serves every connection. */
export class Portal {
  private readonly logger: Logger;
  private readonly clock: Clock;
  private readonly limits: PortalLimits;
  private readonly memory: DataMemory;
  private readonly sessionTable: SessionTable;
  private readonly context: ConnectionContext;
  private readonly servers: Map<PortalListener, Server> = new Map();
  private readonly listeners: PortalListener[] = [];
  private readonly connections: Set<Connection> = new Set();
  private loginsInProgress = 0;
  private lastServedCount = 0;
  private sweepTimer: Timer | null = null;
  /** Of sessions that are being ended. */
  private readonly endTimers: Set<Timer> = new Set();
  private closing = false;
  private drained: (() => void) | null = null;
  /** Descriptors of listening sockets that nobody accepts from at the moment. */
  private readonly waitingListeners: Map<PortalListener, number> = new Map();

  constructor(options: PortalOptions) {
    const { randomBytes: random } = options;
    this.clock = options.clock ?? monotonicClock;
    this.logger = new LimitedLogger(options.logger ?? silentLogger, this.clock);
    this.limits = checkLimits({ ...DEFAULT_LIMITS, ...options.limits });
    this.memory = new DataMemory(this.limits.slabBytes);
    this.sessionTable = new SessionTable(this.limits, readU16BE(random(2), 0));
    this.context = {
      limits: this.limits,
      clock: this.clock,
      logger: this.logger,
      targets: options.targets,
      randomBytes: random,
      listeners: this.listeners,
      memory: this.memory,
      arenas: new ArenaPool(),
      input: new InputChunks(this.limits.inputChunks),
      sessionTable: this.sessionTable,
      loginEnded: () => {
        this.loginsInProgress--;
      },
    };
  }

  /** TCP connections, those whose last tasks are still in the engine included. */
  get connectionCount(): number {
    return this.connections.size;
  }

  /** Bytes of the data memory in use. */
  get memoryUsedBytes(): number {
    return this.memory.usedBytes;
  }

  /** Chunks of input memory that connections receive in, or that writes are done from. */
  get inputChunkCount(): number {
    return this.context.input.usedCount;
  }

  sessions(): SessionInfo[] {
    return this.sessionTable.list().map(infoOf);
  }

  /** What the directory says has changed: sessions that would not be let in any more are dropped, others see other LUNs. */
  accessChanged(): void {
    const { targets } = this.context;
    for (const session of this.sessionTable.list()) {
      const { target, targetName, nexus, identity } = session;
      if (target === null || targetName === null || nexus === null) continue;
      if (targets.find(targetName, identity)?.target === target) target.accessChanged(nexus);
      else session.drop('the initiator is not let in any more');
    }
  }

  /**
   * Listens on one more address; port 0 takes a free one, `::` takes IPv4 too unless `ipv6Only`. Returns where: `host:port`, with brackets around an IPv6
   * host. Throws `StorageError` (EACCES, EBUSY for an address in use, EINVAL, ...).
   */
  async listen(host: string, port: number, options: ListenOptions = {}): Promise<BoundPortal> {
    if (this.closing) throw new StorageError('ESHUTDOWN', 'Cannot listen: the portal is closing');
    const server = await listening(`${host}:${port}`, { host, port, ipv6Only: options.ipv6Only ?? false });
    const bound = server.address();
    if (bound === null || typeof bound === 'string') throw new StorageError('EIO', 'Cannot listen: no address');
    const listener = { host: bound.address, port: bound.port, tag: options.tag ?? 1 };
    this.listeners.push(listener);
    this.serve(listener, server);
    return boundPortal(listener);
  }

  private serve(listener: PortalListener, server: Server): void {
    server.on('error', (error) => this.logger.error({ error: error.message }, 'the portal cannot accept'));
    server.on('connection', (socket) => this.accept(socket, listener));
    this.servers.set(listener, server);
    if (this.sweepTimer === null) this.scheduleSweep();
  }

  // --- from one process to another ---

  /** Takes no new connections, which wait in the kernel, until `thaw` or `handOver`; resolves when nobody is in the middle of a login, or when that takes too long. */
  async stopAccepting(): Promise<void> {
    for (const [listener, server] of this.servers) {
      this.waitingListeners.set(listener, shareHandle(server));
      server.close();
    }
    this.servers.clear();
    await this.until(PEER_MS, () => this.loginsInProgress === 0);
  }

  /**
   * After `stopAccepting`: takes no new commands, which are kept; resolves when nothing is in flight. Who is in the middle of a login still, or owes data for longer
   * than `PEER_MS`, is dropped. Rejects with EBUSY when the engine does not end what it has within `limitMs`.
   */
  async freeze(limitMs: number): Promise<void> {
    this.sweepTimer?.cancel();
    this.sweepTimer = null;
    for (const session of this.sessionTable.list()) freezeSession(session);
    const are = (calm: Calm): Connection[] => [...this.connections].filter((each) => calmOf(each) === calm);
    await this.until(PEER_MS, () => are(Calm.PEER).length === 0);
    for (const late of are(Calm.PEER)) late.drop('it was in the middle of something when another process took over');
    await this.until(limitMs, () => are(Calm.QUIET).length === this.connections.size);
    const busy = [...this.connections].find((each) => calmOf(each) !== Calm.QUIET);
    if (busy === undefined) return;
    throw new StorageError('EBUSY', `commands of ${busy.peer} have not ended within ${limitMs / 1000} s`);
  }

  /** Goes on after `freeze`. */
  async thaw(): Promise<void> {
    for (const [listener, fd] of this.waitingListeners) this.serve(listener, await listening('', { fd }));
    this.waitingListeners.clear();
    thaw(this.connections);
  }

  /** After `freeze`: everything for the next process. */
  handOver(give: GiveFd): PortalHandover {
    const listeners = this.listeners.map((listener) => {
      return { ...listener, fd: give(this.waitingListeners.get(listener)!) };
    });
    this.waitingListeners.clear();
    const sessions = this.sessionTable.list().flatMap((session) => {
      const own = [...this.connections].filter((connection) => connection.session === session);
      // Its initiator comes again.
      if (own.some((connection) => calmOf(connection) !== Calm.QUIET)) return [];
      const connections = own.map((connection) => {
        const fd = give(shareHandle(connection.socket));
        return handOverConnection(connection, fd, this.listeners.indexOf(connection.listener));
      });
      return [handOverSession(session, connections)];
    });
    this.abandon();
    return { listeners, sessions };
  }

  /** Leaves everything to another process, which has descriptors of it: nothing is sent. The portal is of no use any more. */
  abandon(): void {
    this.closing = true;
    this.sweepTimer?.cancel();
    for (const fd of this.waitingListeners.values()) closeSync(fd);
    this.waitingListeners.clear();
    for (const connection of [...this.connections]) connection.drop('another process goes on with it');
  }

  /** Before anything else: makes a new portal go on as the one that `handover` is of, once `resume` is called. Returns where it listens. */
  takeOver(handover: PortalHandover, take: TakeFd): BoundPortal[] {
    for (const { host, port, tag, fd } of handover.listeners) {
      const listener = { host, port, tag };
      this.listeners.push(listener);
      this.waitingListeners.set(listener, take(fd));
    }
    for (const session of handover.sessions) this.takeOverSession(session, take);
    return this.listeners.map(boundPortal);
  }

  /** Begins to serve what `takeOver` has brought. */
  async resume(): Promise<void> {
    await this.thaw();
  }

  private takeOverSession(handover: SessionHandover, take: TakeFd): void {
    const { targets } = this.context;
    const origin = originOf(handover, targets);
    const admission =
      origin === null || handover.targetName === null ? null : targets.find(handover.targetName, origin.identity);
    const fds = handover.connections.map(({ fd }) => take(fd));
    if (origin === null || admission === undefined) {
      this.logger.warn({ initiator: handover.initiatorName }, 'the initiator is not let in any more');
      for (const fd of fds) closeSync(fd);
      return;
    }
    const { tsih, portalGroupTag, windowSize } = handover;
    const session = this.sessionTable.restore(origin, tsih, admission, portalGroupTag, windowSize);
    session.window.isFrozen = true;
    session.cancelled.takeOver(handover.cancelled);
    handover.connections.forEach((each, index) => {
      const listener = this.listeners[each.listener]!;
      this.loginsInProgress++;
      const connection = new Connection(fds[index]!, listener, this.context, (ended) => this.connectionEnded(ended));
      this.connections.add(connection);
      connection.takeOver(session, each);
    });
  }

  /** Waits until `condition` holds, at most `limitMs`. */
  private async until(limitMs: number, condition: () => boolean): Promise<void> {
    const endMs = this.clock.nowMs() + limitMs;
    while (!condition() && this.clock.nowMs() < endMs) {
      await new Promise<void>((resolve) => this.clock.setTimer(1, resolve));
    }
  }

  /**
   * Stops accepting, asks the initiators to log out, answers what is in flight and ends every connection; at most for `closeTimeMs` of the limits, then what is left is
   * dropped. Tasks that the engine still has then keep their memory until they are done.
   */
  async close(): Promise<void> {
    if (this.closing) return;
    this.closing = true;
    this.sweepTimer?.cancel();
    const closed = [...this.servers.values()].map(
      (server) => new Promise<void>((resolve) => server.close(() => resolve())),
    );
    this.end([...this.connections], 'the portal closes', () => this.drained?.());
    await new Promise<void>((resolve) => {
      this.drained = resolve;
      if (this.connections.size === 0) resolve();
    });
    for (const timer of this.endTimers) timer.cancel();
    await Promise.all(closed);
  }

  /** Asks the initiators of some sessions to log out, and ends those that have not done so as `close` does. They may come again if the targets let them. */
  dismiss(select: (session: SessionInfo) => boolean, reason: string): void {
    const chosen = new Set(this.sessionTable.list().filter((session) => select(infoOf(session))));
    for (const session of chosen) session.isEnding = true;
    this.end(
      [...this.connections].filter(({ session }) => session !== null && chosen.has(session)),
      reason,
      () => {},
    );
  }

  private end(connections: readonly Connection[], reason: string, ended: () => void): void {
    const { closeTimeMs } = this.limits;
    for (const connection of connections) {
      if (connection.isInFullFeature) connection.requestLogout(Math.floor(closeTimeMs / 2000));
      else connection.drop(reason);
    }
    const finish = this.clock.setTimer(closeTimeMs / 2, () => {
      this.endTimers.delete(finish);
      for (const connection of connections) connection.dismiss(reason);
    });
    const drop = this.clock.setTimer(closeTimeMs, () => {
      this.endTimers.delete(drop);
      for (const connection of connections) connection.drop(reason);
      ended();
    });
    this.endTimers.add(finish).add(drop);
  }

  private accept(socket: Socket, listener: PortalListener): void {
    const { limits } = this;
    const host = plainAddress(socket.remoteAddress ?? '');
    const sameHost = [...this.connections].filter(({ peerHost }) => peerHost === host);
    if (
      this.closing ||
      this.connections.size >= limits.connections ||
      this.loginsInProgress >= limits.loginsInProgress ||
      sameHost.length >= limits.connectionsPerAddress ||
      sameHost.filter(({ isInLogin }) => isInLogin).length >= limits.loginsPerAddress ||
      host === ''
    ) {
      this.logger.warn({ peer: host, connections: this.connections.size }, 'connection refused');
      socket.on('error', () => {});
      socket.resetAndDestroy();
      return;
    }
    this.loginsInProgress++;
    this.connections.add(new Connection(socket, listener, this.context, (ended) => this.connectionEnded(ended)));
  }

  private connectionEnded(connection: Connection): void {
    this.connections.delete(connection);
    if (this.closing && this.connections.size === 0) this.drained?.();
  }

  private scheduleSweep(): void {
    const { stallTimeMs, pressureTimeMs, pingIdleTimeMs, pingAnswerTimeMs } = this.limits;
    const shortestMs = Math.min(stallTimeMs, pressureTimeMs, pingIdleTimeMs, pingAnswerTimeMs);
    this.sweepTimer = this.clock.setTimer(shortestMs / 2, () => {
      const nowMs = this.clock.nowMs();
      const { waitingCount, servedCount } = this.memory;
      const underPressure = waitingCount > 0 && servedCount === this.lastServedCount;
      this.lastServedCount = servedCount;
      for (const connection of [...this.connections]) connection.watch.look(nowMs, underPressure);
      this.scheduleSweep();
    });
  }
}

/** How far a frozen connection is. */
function calmOf(connection: Connection): Calm {
  return connection.isInFullFeature ? settle(connection) : Calm.PEER;
}

function infoOf(session: Session): SessionInfo {
  return {
    initiator: session.initiatorName,
    target: session.targetName,
    user: session.identity.credential?.user ?? null,
    authentication: session.authentication,
    luns: session.nexus === null ? [] : session.target!.luns(session.nexus),
    isid: session.isid,
    tsih: session.tsih,
    portalGroupTag: session.portalGroupTag,
    connections: session.connections.length,
    commands: session.window.outstanding,
  };
}
