import { createServer, type Server, type Socket } from 'node:net';
import { readU16BE } from '../base/bytes.ts';
import { type Clock, monotonicClock, type Timer } from '../base/clock.ts';
import { StorageError, wrapError } from '../base/errors.ts';
import { type Logger, silentLogger } from '../base/log.ts';
import { KIB } from '../base/units.ts';
import type { TargetDirectory } from './access.ts';
import type { RandomBytes } from './authentication.ts';
import { Connection } from './connection.ts';
import type { ConnectionContext } from './connection-context.ts';
import { DataMemory } from './data-memory.ts';
import { LimitedLogger } from './limited-logger.ts';
import { checkLimits, DEFAULT_LIMITS, type PortalLimits } from './limits.ts';
import { formatAddress, type PortalListener, plainAddress } from './portal-listener.ts';
import type { Session } from './session.ts';
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

/** Where the portal listens, and the same as text: `host:port`. */
export interface BoundPortal extends PortalListener {
  readonly address: string;
}

/** Bytes that are read from a socket at a time. */
const INPUT_SIZE = 256 * KIB;

/** An iSCSI target node's network side (RFC 7143 4.4.1): listens, and serves every connection. */
export class Portal {
  private readonly logger: Logger;
  private readonly clock: Clock;
  private readonly limits: PortalLimits;
  private readonly memory: DataMemory;
  private readonly sessionTable: SessionTable;
  private readonly context: ConnectionContext;
  private readonly servers: Set<Server> = new Set();
  private readonly listeners: PortalListener[] = [];
  private readonly connections: Set<Connection> = new Set();
  private loginsInProgress = 0;
  private lastServedCount = 0;
  private sweepTimer: Timer | null = null;
  /** Of sessions that are being ended. */
  private readonly endTimers: Set<Timer> = new Set();
  private closing = false;
  private drained: (() => void) | null = null;

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
      input: new Uint8Array(INPUT_SIZE),
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
    const server = createServer({
      pauseOnConnect: true,
      noDelay: true,
      keepAlive: true,
      keepAliveInitialDelay: 60_000,
    });
    await new Promise<void>((resolve, reject) => {
      server.once('error', (error) => {
        const inUse = (error as NodeJS.ErrnoException).code === 'EADDRINUSE';
        const action = `Cannot listen on ${host}:${port}`;
        reject(inUse ? new StorageError('EBUSY', `${action}: the address is in use`) : wrapError(action, error));
      });
      server.listen({ host, port, ipv6Only: options.ipv6Only ?? false }, resolve);
    });
    server.on('error', (error) => this.logger.error({ error: error.message }, 'the portal cannot accept'));
    this.servers.add(server);
    if (this.sweepTimer === null) this.scheduleSweep();
    const bound = server.address();
    if (bound === null || typeof bound === 'string') throw new StorageError('EIO', 'Cannot listen: no address');
    const listener = { host: bound.address, port: bound.port, tag: options.tag ?? 1 };
    this.listeners.push(listener);
    server.on('connection', (socket) => this.accept(socket, listener));
    return { address: formatAddress(listener.host, listener.port), ...listener };
  }

  /**
   * Stops accepting, asks the initiators to log out, answers what is in flight and ends every connection; at most for `closeTimeMs` of the limits, then what is left is
   * dropped. Tasks that the engine still has then keep their memory until they are done.
   */
  async close(): Promise<void> {
    if (this.closing) return;
    this.closing = true;
    this.sweepTimer?.cancel();
    const closed = [...this.servers].map((server) => new Promise<void>((resolve) => server.close(() => resolve())));
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
