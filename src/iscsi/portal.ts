import { createServer, type Server, type Socket } from 'node:net';
import { readU16BE } from '../base/bytes.ts';
import { type Clock, monotonicClock, type Timer } from '../base/clock.ts';
import { StorageError, wrapError } from '../base/errors.ts';
import { type Logger, silentLogger } from '../base/log.ts';
import { KIB } from '../base/units.ts';
import type { TargetDirectory } from './access.ts';
import type { RandomBytes } from './authentication.ts';
import { Connection, type ConnectionContext } from './connection.ts';
import { DataMemory } from './data-memory.ts';
import { LimitedLogger } from './limited-logger.ts';
import { checkLimits, DEFAULT_LIMITS, type PortalLimits } from './limits.ts';
import { formatAddress, type PortalListener } from './portal-listener.ts';
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
  private sweepTimer: Timer | null = null;
  private closing = false;
  private drained: (() => void) | null = null;

  constructor(options: PortalOptions) {
    const { randomBytes: random } = options;
    this.clock = options.clock ?? monotonicClock;
    this.logger = new LimitedLogger(options.logger ?? silentLogger, this.clock);
    this.limits = checkLimits({ ...DEFAULT_LIMITS, ...options.limits });
    this.memory = new DataMemory(this.limits.slabBytes);
    this.sessionTable = new SessionTable(this.limits.sessions, readU16BE(random(2), 0));
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
      connectionEnded: (connection) => this.connectionEnded(connection),
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
    return this.sessionTable.list().map((session) => ({
      initiator: session.initiatorName,
      target: session.targetName,
      user: session.identity.credential?.user ?? null,
      authentication: session.authentication,
      luns: session.nexus === null ? [] : session.target!.luns(session.nexus),
      isid: session.isid,
      tsih: session.tsih,
      portalGroupTag: session.portalGroupTag,
      commands: session.window.outstanding,
    }));
  }

  /** What the directory says has changed: sessions that would not be let in any more are dropped, others see other LUNs. */
  accessChanged(): void {
    const { targets } = this.context;
    for (const session of this.sessionTable.list()) {
      const { target, targetName, nexus, identity } = session;
      if (target === null || targetName === null || nexus === null) continue;
      if (targets.find(targetName, identity)?.target === target) target.accessChanged(nexus);
      else session.connection?.drop('the initiator is not let in any more');
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
    const seconds = Math.floor(this.limits.closeTimeMs / 2000);
    for (const connection of this.connections) {
      if (connection.isInFullFeature) connection.requestLogout(seconds);
      else connection.drop('the portal closes');
    }
    const finish = this.clock.setTimer(this.limits.closeTimeMs / 2, () => {
      for (const connection of this.connections) connection.finish();
    });
    const drop = this.clock.setTimer(this.limits.closeTimeMs, () => {
      for (const connection of this.connections) connection.drop('the portal closes');
      this.drained?.();
    });
    await new Promise<void>((resolve) => {
      this.drained = resolve;
      if (this.connections.size === 0) resolve();
    });
    finish.cancel();
    drop.cancel();
    await Promise.all(closed);
  }

  private accept(socket: Socket, listener: PortalListener): void {
    const { limits } = this;
    if (
      this.closing ||
      this.connections.size >= limits.connections ||
      this.loginsInProgress >= limits.loginsInProgress ||
      socket.remoteAddress === undefined
    ) {
      this.logger.warn({ peer: socket.remoteAddress, connections: this.connections.size }, 'connection refused');
      socket.on('error', () => {});
      socket.resetAndDestroy();
      return;
    }
    this.loginsInProgress++;
    this.connections.add(new Connection(socket, listener, this.context));
  }

  private connectionEnded(connection: Connection): void {
    this.connections.delete(connection);
    if (this.closing && this.connections.size === 0) this.drained?.();
  }

  private scheduleSweep(): void {
    this.sweepTimer = this.clock.setTimer(this.limits.stallTimeMs / 2, () => {
      for (const connection of this.connections) connection.sweep();
      this.scheduleSweep();
    });
  }
}
