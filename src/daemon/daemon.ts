import { randomBytes } from 'node:crypto';
import { isIPv4 } from 'node:net';
import { resolve } from 'node:path';
import { assert } from '../base/assert.ts';
import type { Clock } from '../base/clock.ts';
import { errnoOf, messageOf, StorageError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { type BoundPortal, Portal } from '../iscsi/portal.ts';
import type { Target } from '../scsi/target.ts';
import { TcmuHandler } from '../tcmu/handler.ts';
import { AdvisedError } from './advised-error.ts';
import type { PortalsMessage, ReadyMessage, ServerMessage } from './control-messages.ts';
import { ControlServer } from './control-server.ts';
import { HostRegistry } from './host-registry.ts';
import { targetNameOf } from './iscsi-name.ts';
import { OwnLuns, ownVolumes } from './own-luns.ts';
import { openForServing } from './pool-access.ts';
import type { PoolService } from './pool-service.ts';
import { formatPortal, isLoopback, type PortalAddress, type ServedPortal } from './portal-address.ts';
import type { ProcessProtection } from './process-protection.ts';
import { type ServedTarget, ServedTargets } from './served-targets.ts';
import { TcmuDbus } from './tcmu-dbus.ts';
import { TcmuVolumes } from './tcmu-volumes.ts';
import { VERSION } from './version.ts';
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
}

/** A logger that can make others which say whose they are: a pino logger. */
export interface DaemonLogger extends Logger {
  child(fields: object): Logger;
}

interface ServedPool {
  readonly dir: string;
  readonly service: PoolService;
  readonly target: Target;
  control: ControlServer | null;
}

export interface PoolFailure {
  readonly dir: string;
  readonly error: unknown;
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
  readonly #options: DaemonOptions;
  readonly #logger: DaemonLogger;
  readonly #pools: Map<string, ServedPool> = new Map();
  #portal: Portal | null = null;
  /** With TCMU: who serves what on this host. */
  #registry: HostRegistry | null = null;
  #tcmu: TcmuHandler | null = null;
  #dbus: TcmuDbus | null = null;
  readonly #targetPorts: readonly number[];
  readonly #ownLuns: OwnLuns = new OwnLuns(() => this.services.flatMap(ownVolumes));
  readonly #listeners: BoundPortal[] = [];
  /** Folders of pools that everybody was warned of. */
  readonly #warnedOf: Set<string> = new Set();
  #signalAllFailed: () => void = () => {};
  #stopping: Promise<void> | null = null;

  private constructor(options: DaemonOptions) {
    this.#options = options;
    this.#logger = options.logger;
    const tags = new Set(options.portals.map(({ tag }) => tag));
    this.#targetPorts = tags.size === 0 ? [1] : [...tags].sort((a, b) => a - b);
    this.allFailed = new Promise((done) => {
      this.#signalAllFailed = done;
    });
  }

  /** Serves; throws `StorageError`, with everything closed again, when no pool can be opened or a front end cannot start. */
  static async start(options: DaemonOptions): Promise<Daemon> {
    const daemon = new Daemon(options);
    try {
      if (options.tcmu) daemon.#registry = new HostRegistry({ clock: options.clock });
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
      for (const pool of [...daemon.#pools.values()]) await daemon.#startControl(pool);
      return daemon;
    } catch (error) {
      await daemon.stop();
      throw error;
    }
  }

  /** The pools that are served. */
  get services(): PoolService[] {
    return [...this.#pools.values()].map(({ service }) => service);
  }

  /** What is served, and where. */
  async ready(): Promise<ReadyMessage> {
    const pools = [];
    for (const { service, target } of this.#pools.values()) {
      const { name, uuid, directory, mode, access } = await service.status();
      pools.push({ name, uuid, directory, target: target.name, mode, access, volumes: await service.listVolumes() });
    }
    const failed = this.failures.map(({ dir, error }) => ({
      directory: resolve(dir),
      code: errnoOf(error),
      message: messageOf(error),
    }));
    const { tcmu } = this.#options;
    return { event: 'ready', pid: process.pid, version: VERSION, ...this.#describePortals(), tcmu, pools, failed };
  }

  /** One line for who looks at the process. */
  summary(): string {
    const pools = [...this.#pools.values()].map(({ service }) => service.pool.name);
    const parts = [pools.length === 0 ? 'No pool' : `Serving ${pools.join(', ')}`];
    if (this.#listeners.length > 0) parts.push(`portal ${this.#listeners.map(({ address }) => address).join(' ')}`);
    if (this.#tcmu !== null) parts.push(`${this.#tcmu.status().devices.length} TCMU devices`);
    if (this.failures.length > 0) parts.push(`${this.failures.length} pools have failed`);
    return parts.join('; ');
  }

  /** Stops accepting, finishes what is in flight, commits, gives the pools back. Every call waits for the same end. */
  stop(): Promise<void> {
    this.#stopping ??= this.#stop();
    return this.#stopping;
  }

  async #stop(): Promise<void> {
    const pools = [...this.#pools.values()];
    await Promise.all(pools.map(({ control }) => control?.close()));
    this.#dbus?.stop();
    await Promise.all([this.#portal?.close(), this.#tcmu?.stop()]);
    this.#registry?.close();
    await Promise.all(pools.map((pool) => this.#closePool(pool)));
  }

  async #openPool(dir: string, check: () => Promise<void> = async () => {}): Promise<void> {
    try {
      await check();
      const logger = this.#logger.child({ pool: dir });
      let served: ServedPool | null = null;
      const service = await openForServing(dir, {
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
        this.#ownLuns.requireForeignPool(service);
        await this.#registry?.claim(service.pool.name, dir);
        service.access.load();
        service.access.onChange = () => this.#accessChanged();
        const { file } = service.reservations;
        service.exports = new VolumeExports(service.pool, targetName, this.#targetPorts, logger, file);
        served = { dir, service, target: service.exports.target, control: null };
        service.describeServer = () => this.#describe(targetName);
        this.#pools.set(targetName, served);
      } catch (error) {
        await service.close();
        throw error;
      }
    } catch (error) {
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
    const addresses = this.#options.portals;
    if (this.#options.tcmu) await this.#startTcmu();
    if (addresses.length > 0) {
      const portal = new Portal({
        targets: new ServedTargets(() => this.#served()),
        logger: this.#logger.child({ part: 'portal' }),
        clock: this.#options.clock,
        randomBytes,
      });
      this.#portal = portal;
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
      this.#warnOfOpenPools();
    }
  }

  async #startTcmu(): Promise<void> {
    const { clock } = this.#options;
    const logger = this.#logger.child({ part: 'tcmu' });
    const registry = this.#registry;
    assert(registry !== null, 'TCMU is served with a registry');
    const volumes = new TcmuVolumes(
      (name) => this.#poolNamed(name)?.service,
      (name) => registry.find(name),
      logger,
    );
    this.#dbus = new TcmuDbus({
      subtype: SUBTYPE,
      description:
        'A thin volume of a pool that thinlun serves. cfgstring: POOL/VOLUME; a volume that is not there is made.',
      check: (cfgstring) => volumes.check(cfgstring),
      isServer: (pid) => registry.isServer(pid),
      logger,
      clock,
    });
    await this.#dbus.start();
    this.#tcmu = new TcmuHandler({
      subtype: SUBTYPE,
      resolve: (cfgstring, sizeBytes, device) => volumes.resolve(cfgstring, sizeBytes, device),
      release: (cfgstring, unit) => volumes.release(cfgstring, unit),
      resize: (cfgstring, sizeBytes) => volumes.resize(cfgstring, sizeBytes),
      works: (cfgstring) => volumes.has(cfgstring),
      logger,
      clock,
      neighbours: registry,
    });
    await this.#tcmu.start();
  }

  *#served(): Iterable<ServedTarget> {
    for (const { service } of this.#pools.values()) {
      if (service.exports !== null) yield { exports: service.exports, access: service.access };
    }
  }

  #accessChanged(): void {
    this.#portal?.accessChanged();
    this.#warnOfOpenPools();
  }

  /** For who made a portal reachable and has said nothing about who may use it. */
  #warnOfOpenPools(): void {
    const reachable = this.#listeners.filter(({ host }) => !isLoopback(host)).map(({ address }) => address);
    if (reachable.length === 0) return;
    for (const { dir, service } of this.#pools.values()) {
      if (!service.access.summary().open) this.#warnedOf.delete(dir);
      else if (!this.#warnedOf.has(dir)) this.#warnOf(dir, reachable);
    }
  }

  #warnOf(dir: string, portals: readonly string[]): void {
    this.#warnedOf.add(dir);
    this.#logger.warn(
      { pool: dir, portals },
      'whoever reaches the portal can read and write every volume: see "thinlun access allow --help"',
    );
  }

  #poolNamed(name: string): ServedPool | undefined {
    return [...this.#pools.values()].find(({ service }) => service.pool.name === name);
  }

  async #startControl(pool: ServedPool): Promise<void> {
    pool.control = await ControlServer.listen(pool.dir, pool.service, this.#logger.child({ pool: pool.dir }));
  }

  #describe(target: string): ServerMessage {
    const sessions = [];
    for (const { target: name, initiator, user, authentication, luns } of this.#portal?.sessions() ?? []) {
      if (name !== target) continue;
      const { exports } = this.#pools.get(target)!.service;
      sessions.push({ initiator, user, authentication, volumes: luns.flatMap((lun) => exports?.volumeAt(lun) ?? []) });
    }
    const { tcmu, protection = null } = this.#options;
    return { pid: process.pid, version: VERSION, target, ...this.#describePortals(), tcmu, protection, sessions };
  }

  #describePortals(): PortalsMessage {
    const groups = this.#options.portals.length === 0 ? [] : this.#targetPorts;
    return {
      portals: this.#listeners.map(({ address }) => address),
      portalGroups: groups.map((tag) => ({
        tag,
        portals: this.#listeners.filter((listener) => listener.tag === tag).map(({ address }) => address),
      })),
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

/** What stands before the first "/" of a TCMU device's configuration, and after "user:" in targetcli. */
const SUBTYPE = 'thin';

function listenFailure(address: PortalAddress, error: unknown): unknown {
  const { code, cause } = error as { code?: string; cause?: { code?: string } };
  const where = formatPortal(address);
  const next = formatPortal({ host: address.host, port: address.port + 1 });
  switch (cause?.code ?? code) {
    case 'EBUSY':
      return new AdvisedError(
        'EBUSY',
        `Cannot listen on ${where}: another program listens there`,
        `Choose another port with --portal ${next}, or find that program with "ss -ltnp".`,
      );
    case 'EACCES':
      return new AdvisedError(
        'EACCES',
        `Cannot listen on ${where}: ports below 1024 are for root`,
        'Choose another port with --portal, as in --portal 127.0.0.1:3260.',
      );
    case 'EADDRNOTAVAIL':
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
      return new AdvisedError(
        'EINVAL',
        `Cannot listen on ${where}: this machine has no such address`,
        'See its addresses with "ip address"; 0.0.0.0 and [::] mean all of them.',
      );
    default:
      return new StorageError('EIO', `Cannot listen on ${where}: ${messageOf(error)}`, { cause: error });
  }
}
