import { monotonicClock } from '../base/clock.ts';
import { createLogger } from '../daemon/logger.ts';
import { accessPool } from '../daemon/pool-access.ts';
import type { PoolControl } from '../daemon/pool-control.ts';

/** Runs `work` on the pool in `dir`, at its server or here, and gives the pool back whatever happens. */
export async function withPool<T>(
  dir: string,
  work: (pool: PoolControl) => Promise<T>,
  options: { readOnlyFallback?: boolean } = {},
): Promise<T> {
  const pool = await accessPool(dir, { logger: createLogger('warn'), clock: monotonicClock, ...options });
  try {
    return await work(pool);
  } finally {
    await pool.close();
  }
}
