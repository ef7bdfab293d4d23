import { closeSync, realpathSync } from 'node:fs';
import { messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { Portal } from '../iscsi/portal.ts';
import { HANDOVER_FORMAT, type PoolHandover } from './handover-messages.ts';
import { Inheritance, machineMs } from './inheritance.ts';
import type { PoolService } from './pool-service.ts';
import type { ServedPortal } from './portal-address.ts';
import { VERSION } from './version.ts';

/** The parts of a server that another process goes on with. Nobody changes its pools any more. */
export interface GivingServer {
  readonly pools: readonly { readonly dir: string; readonly service: PoolService }[];
  readonly portals: readonly ServedPortal[];
  readonly tcmu: boolean;
  readonly portal: Portal | null;
  readonly logger: Logger;
  leaveTcmu(): Promise<void>;
}

/** How long the engine may take to end what is in flight; then the takeover is refused. */
const DRAIN_MS = 5_000;

/**
 * Stops taking commands, ends what is in flight, makes everything durable, closes the pools. Rejects, with everything as before, when one of the first three
 * fails: then no command has failed either.
 */
export async function giveAway(server: GivingServer): Promise<Inheritance> {
  const { pools, portals, tcmu, portal, logger } = server;
  const alive = pools.filter(({ service }) => service.pool.mode === 'write');
  const commit = (): Promise<unknown> => Promise.all(alive.map(({ service }) => service.commit()));
  // What takes long is done while commands are still taken.
  await commit();
  const stoppedMs = machineMs();
  try {
    await portal?.freeze(DRAIN_MS);
    await commit();
  } catch (error) {
    await portal?.thaw();
    throw error;
  }
  const drainedMs = machineMs();

  const fds: number[] = [];
  const give = (fd: number): number => fds.push(fd) - 1;
  const units = pools.map(({ service }) => service.exports!.handOver());
  const { listeners, sessions } = portal?.handOver(give) ?? { listeners: [], sessions: [] };
  await server.leaveTcmu();
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
    { event: 'state', ...about, portals, tcmu, stoppedMs, drainedMs, pools: given, listeners, sessions },
    fds,
  );
}
