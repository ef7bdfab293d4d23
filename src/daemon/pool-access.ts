import { existsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Clock } from '../base/clock.ts';
import { errnoOf, StorageError, wrapError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { Pool } from '../thin/pool.ts';
import { AdvisedError } from './advised-error.ts';
import { ControlClient, NoServerError } from './control-client.ts';
import type { ServerMessage } from './control-messages.ts';
import type { PoolControl } from './pool-control.ts';
import type { PoolService, PoolServiceOptions } from './pool-service.ts';

/** How long a pool may be held by a process without a socket: another command, a server that starts or ends. */
const HELD_TIMEOUT_MS = 10_000;
const RETRY_MS = 50;

export interface PoolAccessOptions {
  /** Asked for a logger when the pool is opened here. */
  makeLogger: () => Promise<Logger>;
  clock: Clock;
  /** Opens for reading where writing is not allowed, instead of failing. */
  readOnlyFallback?: boolean;
}

/** Throws ENOENT with advice unless `dir` is a pool's folder. */
export function requirePool(dir: string): void {
  try {
    if (!statSync(dir).isDirectory()) throw new StorageError('ENOTDIR', 'it is not a folder');
    statSync(join(dir, 'pool.json'));
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw wrapError(`Cannot open the pool "${dir}"`, error);
    const reason = existsSync(dir) ? 'there is no pool.json in it' : 'there is no such folder';
    const hint = `Make a pool with "thinlun pool create ${dir} --data-size 10G".`;
    throw new AdvisedError('ENOENT', `Cannot open the pool "${dir}": ${reason}`, hint);
  }
}

/**
 * The pool in `dir`, wherever it is open: at its server, or else here. Who owns it is decided by its lock alone; a socket that
 * nobody answers on is a dead server's. Throws EBUSY when a process holds the pool and does not answer.
 */
export function accessPool(dir: string, options: PoolAccessOptions): Promise<PoolControl> {
  return untilFree(dir, options.clock, async () => (await ControlClient.connect(dir)) ?? openHere(dir, options));
}

/**
 * Runs `work` on the pool in `dir`, as `accessPool` finds it, and gives the pool back whatever happens. When the server ended just
 * before it could be asked for anything, `work` is run again.
 */
export async function usePool<T>(
  dir: string,
  options: PoolAccessOptions,
  work: (pool: PoolControl) => Promise<T>,
): Promise<T> {
  for (;;) {
    const pool = await accessPool(dir, options);
    try {
      return await work(pool);
    } catch (error) {
      const untouched = pool instanceof ControlClient && pool.answered === 0;
      if (!(error instanceof NoServerError) || !untouched) throw error;
    } finally {
      await pool.close();
    }
  }
}

/** What serves the pool in `dir`; null when nothing does. Throws `StorageError` when something does but cannot be talked to. */
export async function servedBy(dir: string): Promise<ServerMessage | null> {
  const client = await ControlClient.connect(dir);
  try {
    return client === null ? null : (await client.status()).server;
  } finally {
    await client?.close();
  }
}

/** Opens the pool in `dir` in this process to serve it. Throws EBUSY when a server has it. */
export function openForServing(dir: string, options: PoolServiceOptions): Promise<PoolService> {
  return untilFree(dir, options.clock, async () => {
    const server = await servedBy(dir);
    if (server === null) return (await import('./pool-service.ts')).PoolService.open(dir, options);
    const { pid } = server;
    throw new AdvisedError(
      'EBUSY',
      `Cannot serve the pool "${dir}": process ${pid} serves it already`,
      `See where with "thinlun pool status ${dir}", or end it with "kill ${pid}".`,
    );
  });
}

/** Opens the pool in `dir` in this process for what cannot be done while it is served. Throws EBUSY when a server has it. */
export function openAlone(dir: string, { makeLogger, clock }: PoolAccessOptions): Promise<Pool> {
  return untilFree(dir, clock, async () => {
    const server = await servedBy(dir);
    if (server === null) {
      const { Pool } = await import('../thin/pool.ts');
      return Pool.open(dir, { logger: await makeLogger(), clock });
    }
    const { pid } = server;
    throw new AdvisedError(
      'EBUSY',
      `Cannot open the pool "${dir}" alone: process ${pid} serves it`,
      `This is done while nobody uses the pool: end the server with "kill ${pid}", and start it again afterwards.`,
    );
  });
}

/** Tries again for a while when `open` finds the pool held: another command has it for a moment, a server starts or ends. */
export async function untilFree<T>(dir: string, clock: Clock, open: () => Promise<T>): Promise<T> {
  requirePool(dir);
  let deadline = Number.POSITIVE_INFINITY;
  for (;;) {
    try {
      return await open();
    } catch (error) {
      // The lock's own EBUSY brings no advice; one that does is final.
      if (!(error instanceof StorageError) || error.code !== 'EBUSY' || error instanceof AdvisedError) throw error;
      // A clock costs a start a millisecond: most commands need none.
      const now = clock.nowMs();
      if (now >= deadline) throw held(error);
      deadline = Math.min(deadline, now + HELD_TIMEOUT_MS);
    }
    await sleep(RETRY_MS);
  }
}

async function openHere(dir: string, { makeLogger, clock, readOnlyFallback }: PoolAccessOptions): Promise<PoolControl> {
  // Opening a pool is most of the program: what a server is asked for does not load it.
  const { PoolService } = await import('./pool-service.ts');
  const logger = await makeLogger();
  try {
    return await PoolService.open(dir, { logger, clock });
  } catch (error) {
    const denied = error instanceof StorageError && ['EACCES', 'EPERM', 'EROFS'].includes(error.code);
    if (!denied || !readOnlyFallback) throw error;
    return PoolService.open(dir, { logger, clock, readOnly: true });
  }
}

function held(error: StorageError): StorageError {
  return new AdvisedError(
    'EBUSY',
    error.message,
    'That process does not answer on its control socket: end it, or wait until it has ended. "fuser -v" on the folder names it.',
    { cause: error },
  );
}
