import { closeSync, realpathSync } from 'node:fs';
import { messageOf, StorageError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { Portal } from '../iscsi/portal.ts';
import type { Giver } from './handover.ts';
import { HANDOVER_FORMAT, type HandoverState, type PoolHandover } from './handover-messages.ts';
import { Inheritance, machineMs } from './inheritance.ts';
import type { PoolService } from './pool-service.ts';
import type { ServedPortal } from './portal-address.ts';
import type { TcmuFrontEnd } from './tcmu-front-end.ts';
import { VERSION } from './version.ts';

/** A server, as far as another process can go on with it. */
export interface GivingServer {
  readonly portals: readonly ServedPortal[];
  readonly tcmu: boolean;
  readonly logger: Logger;
  /** It ends, or has ended. */
  readonly isStopping: boolean;
  readonly pools: readonly { readonly dir: string; readonly service: PoolService }[];
  readonly portal: Portal | null;
  readonly lio: TcmuFrontEnd | null;
  checkSuccessor(pid: number): void;
  /** Takes no administrative requests, and ends those under way. */
  closeControl(): Promise<void>;
  openControl(): Promise<void>;
}

/** How long the engine may take to end what is in flight; then the takeover is refused. */
const DRAIN_MS = 5_000;

/** The end of a server by giving everything to another process. */
export class Giving implements Giver {
  readonly #server: GivingServer;
  #underWay: Promise<Inheritance> | null = null;
  #isOver = false;

  constructor(server: GivingServer) {
    this.#server = server;
  }

  /** The server has nothing any more. */
  get isOver(): boolean {
    return this.#isOver;
  }

  /** Waits for what is under way, whatever comes of it. */
  async settled(): Promise<void> {
    await this.#underWay?.catch(() => {});
  }

  check(pid: number): void {
    this.#server.checkSuccessor(pid);
  }

  describe(): ReturnType<Giver['describe']> {
    const { pools, portals, tcmu } = this.#server;
    return { directories: pools.map(({ dir }) => realpathSync(dir)), portals, tcmu };
  }

  async giveAway(): Promise<Inheritance> {
    if (this.#underWay !== null || this.#server.isStopping) {
      throw new StorageError('EBUSY', `Cannot take over from process ${process.pid}: it is about to end`);
    }
    try {
      this.#underWay = this.#giveAway();
      return await this.#underWay;
    } finally {
      this.#underWay = null;
    }
  }

  async #giveAway(): Promise<Inheritance> {
    const server = this.#server;
    await server.closeControl();
    try {
      const times = await quiet(server);
      this.#isOver = true;
      return await collect(server, times);
    } catch (error) {
      if (!this.#isOver) await server.openControl();
      // Half of it is gone, and everything is durable: to begin again is all that is left.
      else
        setImmediate(() => {
          throw error;
        });
      throw error;
    }
  }
}

type Times = Pick<HandoverState, 'stoppedMs' | 'drainedMs'>;

/**
 * Stops taking commands, ends what is in flight, makes everything durable. Rejects, with everything as before, when one of them fails: then no command has
 * failed either.
 */
async function quiet({ pools, portal, lio }: GivingServer): Promise<Times> {
  const alive = pools.filter(({ service }) => service.pool.mode === 'write');
  const commit = (): Promise<unknown> => Promise.all(alive.map(({ service }) => service.commit()));
  try {
    // What takes long is done while commands are still taken.
    await portal?.stopAccepting();
    await commit();
    const stoppedMs = machineMs();
    const frozen = await Promise.allSettled([portal?.freeze(DRAIN_MS), lio?.freeze(DRAIN_MS)]);
    for (const each of frozen) if (each.status === 'rejected') throw each.reason;
    await commit();
    return { stoppedMs, drainedMs: machineMs() };
  } catch (error) {
    lio?.thaw();
    await portal?.thaw();
    throw error;
  }
}

/** Takes a quiet server apart and closes its pools. */
async function collect(server: GivingServer, times: Times): Promise<Inheritance> {
  const { pools, portals, tcmu, portal, logger } = server;
  const fds: number[] = [];
  const give = (fd: number): number => fds.push(fd) - 1;
  const units = pools.map(({ service }) => service.exports!.handOver());
  const { listeners, sessions } = portal?.handOver(give) ?? { listeners: [], sessions: [] };
  const lio = (await server.lio?.handOver(give)) ?? null;
  const given: PoolHandover[] = [];
  for (const [index, { dir, service }] of pools.entries()) {
    const lock = service.pool.shareLock();
    const directory = realpathSync(dir);
    try {
      await service.close();
      given.push({ directory, lock: give(lock), units: units[index]! });
    } catch (error) {
      // Its initiators come back to what is durable, and are told so: not to be done behind their backs.
      closeSync(lock);
      logger.error({ pool: dir, reason: messageOf(error) }, 'the pool was not closed as it should be');
    }
  }
  const about = { format: HANDOVER_FORMAT, version: VERSION, pid: process.pid };
  return new Inheritance(
    { event: 'state', ...about, portals, tcmu, ...times, pools: given, listeners, sessions, lio },
    fds,
  );
}
