import { monotonicClock } from '../base/clock.ts';
import { type PoolAccessOptions, usePool } from '../daemon/pool-access.ts';
import type { PoolControl } from '../daemon/pool-control.ts';

/** How commands open pools: what a pool has to say beside goes to standard error. */
export const COMMAND_ACCESS: PoolAccessOptions = {
  makeLogger: async () => (await import('../daemon/logger.ts')).createLogger('warn'),
  clock: monotonicClock,
};

/** Runs `work` on the pool in `dir`, at its server or here. */
export function withPool<T>(
  dir: string,
  work: (pool: PoolControl) => Promise<T>,
  options: { readOnlyFallback?: boolean } = {},
): Promise<T> {
  return usePool(dir, { ...COMMAND_ACCESS, ...options }, work);
}
