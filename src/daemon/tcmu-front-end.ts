import type { Clock } from '../base/clock.ts';
import type { Logger } from '../base/log.ts';
import type { GiveFd, TakeFd } from '../base/shared-handle.ts';
import { TcmuHandler } from '../tcmu/handler.ts';
import type { TcmuStatus } from '../tcmu/tcmu-status.ts';
import type { TcmuFrontEndHandover } from './handover-messages.ts';
import { HostRegistry } from './host-registry.ts';
import type { PoolService } from './pool-service.ts';
import { TcmuDbus } from './tcmu-dbus.ts';
import { TcmuVolumes } from './tcmu-volumes.ts';

/** What stands before the first "/" of a TCMU device's configuration, and after "user:" in targetcli. */
const SUBTYPE = 'thin';

/** LIO as a front end of a server's pools: the devices, what targetcli asks, and the other servers of the host. */
export class TcmuFrontEnd {
  readonly #registry: HostRegistry;
  readonly #dbus: TcmuDbus;
  readonly #handler: TcmuHandler;

  /** Serves nothing yet. `find` knows the pools by name. Throws `StorageError`: without the addon, or when the other servers cannot be found. */
  constructor(find: (pool: string) => PoolService | undefined, logger: Logger, clock: Clock) {
    const registry = new HostRegistry({ clock });
    const volumes = new TcmuVolumes(find, (name) => registry.find(name), logger);
    this.#registry = registry;
    this.#dbus = new TcmuDbus({
      subtype: SUBTYPE,
      description:
        'A thin volume of a pool that thinlun serves. cfgstring: POOL/VOLUME; a volume that is not there is made.',
      check: (cfgstring) => volumes.check(cfgstring),
      isServer: (pid) => registry.isServer(pid),
      logger,
      clock,
    });
    this.#handler = new TcmuHandler({
      subtype: SUBTYPE,
      resolve: (cfgstring, sizeBytes, device) => volumes.resolve(cfgstring, sizeBytes, device),
      release: (cfgstring, unit, device) => volumes.release(cfgstring, unit, device),
      resize: (cfgstring, sizeBytes) => volumes.resize(cfgstring, sizeBytes),
      works: (cfgstring) => volumes.has(cfgstring),
      logger,
      clock,
      neighbours: registry,
    });
  }

  status(): TcmuStatus {
    return this.#handler.status();
  }

  /** The pool is this server's for LIO. Throws EEXIST when another one on this host has a pool of that name. */
  claim(pool: string, dir: string): Promise<void> {
    return this.#registry.claim(pool, dir);
  }

  /** Takes the name on the bus, or a place behind its owner. */
  async startBus(): Promise<void> {
    await this.#dbus.start();
  }

  /** Throws `StorageError`. */
  start(): Promise<void> {
    return this.#handler.start();
  }

  /** The devices of the pools, which are still open, wait for the next process. */
  async stop(): Promise<void> {
    this.stopBus();
    await this.#handler.stop();
    this.#registry.close();
  }

  stopBus(): void {
    this.#dbus.stop();
  }

  // --- from one process to another: see the handler ---

  freeze(limitMs: number): Promise<void> {
    return this.#handler.freeze(limitMs);
  }

  thaw(): void {
    this.#handler.thaw();
  }

  /** The bus stays: it is asked there what may be made, which may wait for the next process. */
  async handOver(give: GiveFd): Promise<TcmuFrontEndHandover> {
    const handover = { ...(await this.#handler.handOver(give)), registry: this.#registry.handOver(give) };
    this.#registry.close();
    return handover;
  }

  /** Before any pool is claimed. */
  takeOverNames({ registry }: TcmuFrontEndHandover, take: TakeFd): void {
    this.#registry.takeOver(registry, take);
  }

  /** Instead of `start`, once the pools are open; it was handed over `elapsedMs` ago. */
  takeOver(handover: TcmuFrontEndHandover, take: TakeFd, elapsedMs: number): Promise<void> {
    return this.#handler.takeOver(handover, take, elapsedMs);
  }

  /** Leaves what `takeOver` has taken to the other process after all. */
  async abandon(): Promise<void> {
    this.stopBus();
    await this.#handler.abandon();
    this.#registry.close();
  }
}
