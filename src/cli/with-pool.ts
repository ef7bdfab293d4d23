import { monotonicClock } from '../base/clock.ts';
import { createLogger } from '../daemon/logger.ts';
import { usePool } from '../daemon/pool-access.ts';
import type { PoolControl } from '../daemon/pool-control.ts';

/** Runs `work` on the pool in `dir`, at its server or here. What the pool has to say beside goes to standard error. */
export function withPool<T>(
  dir: string,
  work: (pool: PoolControl) => Promise<T>,
  options: { readOnlyFallback?: boolean } = {},
): Promise<T> {
  return usePool(dir, { logger: createLogger('warn'), clock: monotonicClock, ...options }, work);
}
