import { randomBytes } from 'node:crypto';
import { realpathSync } from 'node:fs';
import { isIPv4 } from 'node:net';
import type { Clock } from '../base/clock.ts';
import { errnoOf, messageOf, StorageError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { Portal } from '../iscsi/portal.ts';
import type { BoundPortal } from '../iscsi/portal-listener.ts';
import { AdvisedError } from './advised-error.ts';
import { ControlServer } from './control-server.ts';
import { Giving } from './give-away.ts';
import { type GivenAway, giveTo, type Predecessor } from './handover.ts';
import type { HandoverChannel } from './handover-channel.ts';
import type { PoolHandover } from './handover-messages.ts';
import { type Inheritance, machineMs } from './inheritance.ts';
import { targetNameOf } from './iscsi-name.ts';
import { listenFailure } from './listen-failure.ts';
import { OpenPoolWarnings } from './open-pool-warnings.ts';
import { OwnLuns, ownVolumes } from './own-luns.ts';
import { openForServing } from './pool-access.ts';
import { PoolService } from './pool-service.ts';
import type { ServedPortal } from './portal-address.ts';
import type { ProcessProtection } from './protection-message.ts';
import type { ReadyMessage, TakeoverMessage } from './ready-message.ts';
import type { PoolFailure, ServedPool } from './served-pool.ts';
import { type ServedTarget, ServedTargets } from './served-targets.ts';
import { readyMessage, type ServerParts, serverMessage, summaryLine } from './server-description.ts';
import type { TcmuFrontEnd } from './tcmu-front-end.ts';
import { VolumeExports } from './volume-exports.ts';

export interface DaemonOptions {
  /** Pool folders. */
  dirs: readonly string[];
  /** Where to listen for iSCSI. */
  portals: readonly ServedPortal[];
  tcmu: boolean;
  /** What this process is protected with; for the status. */
  protection?: ProcessProtection;
  logger: DaemonLogger;
  clock: Clock;
  /** Who served before, and is to be gone on from. */
  predecessor?: Predecessor;
  /** Whether the process with that id may take over from this one; throws why not. Default: every one may. */
  checkSuccessor?: (pid: number) => void;
}

/** A logger that can make others which say whose they are: a pino logger. */
export interface DaemonLogger extends Logger {
  child(fields: object): Logger;
}

/**
 * A server: several pools in one process, each with its target and its control socket, behind one portal and one TCMU handler.
 * A pool that cannot be opened, or that fails later, is left out and does not disturb the others.
 */
export class Daemon {
  /** Pools that could not be opened and pools that have failed since. */
  readonly failures: PoolFailure[] = [];
  /** Resolves when the last pool has failed: there is nothing left to serve. */
  readonly allFailed: Promise<void>;
  /** Resolves when another process has been given everything: there is nothing left to serve here, unless that process fails. */
  readonly givenAway: Promise<GivenAway>;
  /** Null unless it has taken over from another process. */
  takeover: TakeoverMessage | null = null;
  readonly #options: DaemonOptions;
  readonly #logger: DaemonLogger;
  readonly #pools: Map<string, ServedPool> = new Map();
  #portal: Portal | null = null;
  #lio: TcmuFrontEnd | null = null;
  readonly #targetPorts: readonly number[];
  readonly #ownLuns: OwnLuns = new OwnLuns(() => this.services.flatMap(ownVolumes));
  readonly #listeners: BoundPortal[] = [];
  readonly #warnings: OpenPoolWarnings;
  #signalAllFailed: () => void = () => {};
  #signalGivenAway: (given: GivenAway) => void = () => {};
  readonly #giving: Giving;
  #inheritance: Inheritance | null = null;
  #stopping: Promise<void> | null = null;

  private constructor(options: DaemonOptions) {
    this.#options = options;
    this.#logger = options.logger;
    this.#giving = this.#makeGiving();
    this.#warnings = new OpenPoolWarnings(options.logger);
    const tags = new Set(options.portals.map(({ tag }) => tag));
    this.#targetPorts = tags.size === 0 ? [1] : [...tags].sort((a, b) => a - b);
    this.allFailed = new Promise((done) => {
      this.#signalAllFailed = done;
    });
    this.givenAway = new Promise((done) => {
      this.#signalGivenAway = done;
    });
  }

  /** Serves; throws `StorageError`, with everything closed again, when no pool can be opened or a front end cannot start. */
  static async start(options: DaemonOptions): Promise<Daemon> {
    const daemon = new Daemon(options);
    try {
      // Before anybody waits for it: the rest is done while initiators do.
      if (options.portals.length > 0) daemon.#portal = daemon.#makePortal();
      if (options.tcmu) daemon.#lio = await daemon.#makeLio();
      await daemon.#lio?.startBus();
      await daemon.#inherit();
      // Those that lie on a disk of ours last: whose disk that is shows when the others are open.
      const nested = options.dirs.filter((dir) => daemon.#ownLuns.liesOnLun(dir));
      for (const dir of options.dirs) if (!nested.includes(dir)) await daemon.#openPool(dir);
      for (const dir of nested) {
        await daemon.#openPool(dir, async () => {
          daemon.#ownLuns.requireForeign(dir);
          await daemon.#ownLuns.requireAnswers(dir, options.clock);
        });
      }
      const failed = [...daemon.failures];
      const none = daemon.#pools.size === 0;
      for (const { dir, error } of none ? failed.slice(1) : failed) {
        daemon.#logger.error({ pool: dir, code: errnoOf(error) }, messageOf(error));
      }
      if (none) throw failed[0]!.error;
      daemon.#warnOfSwap();
      await daemon.#startFrontEnds();
      if (daemon.#inheritance !== null) await daemon.#goOn(daemon.#inheritance);
      for (const pool of [...daemon.#pools.values()]) await daemon.#startControl(pool);
      return daemon;
    } catch (error) {
      // What was inherited and not taken is still another's: nothing may be said to its initiators.
      if (daemon.takeover === null && daemon.#inheritance !== null) await daemon.#abandon();
      await daemon.stop();
      daemon.#inheritance?.close();
      throw error;
    }
  }

  /** The pools that are served. */
  get services(): PoolService[] {
    return [...this.#pools.values()].map(({ service }) => service);
  }

  /** What is served, and where. */
  ready(): Promise<ReadyMessage> {
    return readyMessage(this.#parts);
  }

  /** One line for who looks at the process. */
  summary(): string {
    return summaryLine(this.#parts);
  }

  /** Stops accepting, finishes what is in flight, commits, gives the pools back. Every call waits for the same end. */
  stop(): Promise<void> {
    this.#stopping ??= this.#stop();
    return this.#stopping;
  }

  async #stop(): Promise<void> {
    await this.#giving.settled();
    this.#lio?.stopBus();
    if (this.#giving.isOver) return;
    const pools = [...this.#pools.values()];
    await Promise.all(pools.map(({ control }) => control?.close()));
    await Promise.all([this.#portal?.close(), this.#lio?.stop()]);
    await Promise.all(pools.map((pool) => this.#closePool(pool)));
  }

  async #openPool(dir: string, check: () => Promise<void> = async () => {}): Promise<void> {
    try {
      await check();
      const logger = this.#logger.child({ pool: dir });
      let served: ServedPool | null = null;
      const inherited = this.#inheritedPool(dir);
      const open = inherited === undefined ? openForServing : PoolService.open;
      const service = await open(dir, {
        ...(inherited === undefined ? {} : { lockFd: this.#inheritance!.take(inherited.lock) }),
        logger,
        clock: this.#options.clock,
        onEvent: (event) => {
          if (event.kind === 'mode' && event.mode === 'fail') {
            const reason = event.reason;
            // Not from inside the pool's own loop, which reports this.
            setImmediate(() => served !== null && void this.#poolFailed(served, reason));
          }
        },
      });
      try {
        const targetName = targetNameOf(service.pool.name);
        const other = this.#pools.get(targetName);
        if (other !== undefined) {
          throw new AdvisedError(
            'EEXIST',
            `Cannot serve the pool "${dir}": the pool "${other.dir}" has the target name ${targetName} already`,
            'Serve the two in different processes, on different portals.',
          );
        }
        await this.#lio?.claim(service.pool.name, dir);
        this.#ownLuns.requireForeignPool(service);
        service.access.load();
        service.access.onChange = () => this.#accessChanged();
        const { file } = service.reservations;
        service.exports = new VolumeExports(service.pool, targetName, this.#targetPorts, logger, file);
        if (inherited !== undefined) service.exports.takeOver(inherited.units);
        served = { dir, service, target: service.exports.target, control: null };
        service.describeServer = () => serverMessage(this.#parts, service);
        this.#pools.set(targetName, served);
      } catch (error) {
        await service.close();
        throw error;
      }
    } catch (error) {
      if (this.#options.predecessor?.canGoOn && this.#inheritedPool(dir) !== undefined) throw error;
      this.failures.push({ dir, error });
    }
  }

  #warnOfSwap(): void {
    const problem = this.#ownLuns.swapProblem();
    if (problem !== null && this.#options.protection?.swap !== 'excluded') {
      this.#logger.error(
        { problem },
        'memory is swapped out to a disk of this process: it can wait for itself for ever; run "swapoff"',
      );
    }
  }

  async #startFrontEnds(): Promise<void> {
    const portal = this.#portal;
    const inheritance = this.#inheritance;
    const lio = inheritance?.state.lio ?? null;
    if (lio === null) await this.#lio?.start();
    else
      await this.#lio?.takeOver(lio, (index) => inheritance!.take(index), machineMs() - inheritance!.state.drainedMs);
    if (portal !== null) {
      const addresses = inheritance === null ? this.#options.portals : [];
      if (inheritance !== null) {
        this.#listeners.push(...portal.takeOver(inheritance.state, (index) => inheritance.take(index)));
      }
      for (const address of addresses) {
        const { host, port, tag } = address;
        // `::` would take the IPv4 addresses, too, which another portal asks for.
        const ipv6Only = addresses.some((other) => other.port === port && isIPv4(other.host));
        try {
          this.#listeners.push(await portal.listen(host, port, { tag, ipv6Only }));
        } catch (error) {
          throw listenFailure(address, error);
        }
      }
      this.#warnings.look(this.#listeners, this.#pools.values());
    }
  }

  /** Loads what only servers with TCMU need: D-Bus and its XML. Whatever is needed later is loaded now: another version may be installed by then. */
  async #makeLio(): Promise<TcmuFrontEnd> {
    const { TcmuFrontEnd } = await import('./tcmu-front-end.ts');
    const find = (name: string): PoolService | undefined => this.#poolNamed(name)?.service;
    return new TcmuFrontEnd(find, this.#logger.child({ part: 'tcmu' }), this.#options.clock);
  }

  #makePortal(): Portal {
    return new Portal({
      targets: new ServedTargets(() => this.#served()),
      logger: this.#logger.child({ part: 'portal' }),
      clock: this.#options.clock,
      randomBytes,
    });
  }

  *#served(): Iterable<ServedTarget> {
    for (const { service } of this.#pools.values()) {
      if (service.exports !== null) yield { exports: service.exports, access: service.access };
    }
  }

  #accessChanged(): void {
    this.#portal?.accessChanged();
    this.#warnings.look(this.#listeners, this.#pools.values());
  }

  #poolNamed(name: string): ServedPool | undefined {
    return [...this.#pools.values()].find(({ service }) => service.pool.name === name);
  }

  async #startControl(pool: ServedPool): Promise<void> {
    const logger = this.#logger.child({ pool: pool.dir });
    pool.control = await ControlServer.listen(pool.dir, pool.service, logger, (channel) => void this.#give(channel));
  }

  // --- from one process to another ---

  #inheritedPool(dir: string): PoolHandover | undefined {
    return this.#inheritance?.state.pools.find(({ directory }) => directory === realpathSync(dir));
  }

  /** Who served before stops, and gives us everything. */
  async #inherit(): Promise<void> {
    const { predecessor } = this.#options;
    const inheritance = (await predecessor?.begin()) ?? null;
    this.#inheritance = inheritance;
    if (predecessor !== undefined && inheritance === null) {
      this.#logger.warn({}, 'the server to take over from has ended: starting as usual');
    }
    const lio = inheritance?.state.lio ?? null;
    if (lio !== null) this.#lio?.takeOverNames(lio, (index) => inheritance!.take(index));
  }

  async #abandon(): Promise<void> {
    this.#portal?.abandon();
    await this.#lio?.abandon();
    this.#lio = null;
  }

  /** Begins to serve what was inherited; everything is ready. */
  async #goOn({ state }: Inheritance): Promise<void> {
    for (const { service } of this.#pools.values()) service.exports?.endTakeOver();
    await this.#options.predecessor?.taken();
    await this.#portal?.resume();
    if (state.lio !== null) this.#lio?.thaw();
    const pauseMs = Math.round((machineMs() - state.stoppedMs) * 10) / 10;
    const drainMs = Math.round((state.drainedMs - state.stoppedMs) * 10) / 10;
    const { pid, version } = state;
    this.takeover = {
      pid,
      version,
      pauseMs,
      drainMs,
      sessions: this.#portal?.sessions().length ?? 0,
      devices: this.#lio?.status().devices.length ?? 0,
    };
    this.#logger.info(this.takeover, 'took over: initiators have waited that long, and no longer');
  }

  /** Another process wants everything. */
  async #give(channel: HandoverChannel): Promise<void> {
    const given = await giveTo(channel, this.#giving, this.#logger);
    if (given !== null) this.#signalGivenAway(given);
  }

  #makeGiving(): Giving {
    const self = this;
    const { portals, tcmu, checkSuccessor } = this.#options;
    return new Giving({
      portals,
      tcmu,
      logger: this.#logger,
      checkSuccessor: checkSuccessor ?? (() => {}),
      get isStopping() {
        return self.#stopping !== null;
      },
      get pools() {
        return [...self.#pools.values()];
      },
      get portal() {
        return self.#portal;
      },
      get lio() {
        return self.#lio;
      },
      closeControl: async () => {
        await Promise.all([...this.#pools.values()].map(({ control }) => control?.close()));
      },
      openControl: async () => {
        for (const pool of this.#pools.values()) await this.#startControl(pool);
      },
    });
  }

  get #parts(): ServerParts {
    const { portals, tcmu, protection = null } = this.#options;
    return {
      pools: [...this.#pools.values()],
      portal: this.#portal,
      listeners: this.#listeners,
      targetPorts: portals.length === 0 ? [] : this.#targetPorts,
      lio: this.#lio,
      tcmu,
      protection,
      failures: this.failures,
      takeover: this.takeover,
    };
  }

  async #poolFailed(pool: ServedPool, reason: string): Promise<void> {
    const { dir } = pool;
    this.failures.push({ dir, error: new StorageError('EIO', `The pool "${dir}" failed: ${reason}`) });
    this.#logger.error({ pool: dir, reason }, 'the pool failed and is not served any more; the others are');
    this.#pools.delete(pool.target.name);
    this.#portal?.dismiss(({ target }) => target === pool.target.name, 'the pool failed');
    await pool.control?.close();
    await this.#closePool(pool);
    this.#logger.error({ pool: dir }, `the failed pool is closed: look at it with "thinlun check ${dir}"`);
    if (this.#pools.size === 0) this.#signalAllFailed();
  }

  async #closePool({ dir, service }: ServedPool): Promise<void> {
    try {
      await service.close();
    } catch (error) {
      this.failures.push({ dir, error });
      this.#logger.error({ pool: dir, err: error }, 'the pool was not closed as it should be');
    }
  }
}
