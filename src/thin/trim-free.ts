import { StorageError } from '../base/errors.ts';
import { GIB } from '../base/units.ts';
import type { PoolEngine } from './pool-engine.ts';

/** Of one step: what the allocator has to do without meanwhile. */
const STEP_RUNS = 32;
const STEP_BYTES = GIB;

export interface TrimStep {
  trimmedBlocks: number;
  /** null: that was all. */
  nextBlock: number | null;
}

/**
 * Discards a part of the free space of a pool that is in use, from block `fromBlock` on: what discards that failed, were cut off by the end of a
 * process or were not passed down have left on the device. The allocator leaves the blocks alone until they are discarded. Throws EOPNOTSUPP
 * where the device cannot discard whole blocks; EROFS; EIO.
 */
export async function trimStep(engine: PoolEngine, fromBlock: number): Promise<TrimStep> {
  const { metadata, reclaimer, data, blockSizeBytes, space } = engine;
  if (!reclaimer.canDiscard) {
    throw new StorageError(
      'EOPNOTSUPP',
      `Cannot trim "${data.path}": it cannot discard blocks of ${blockSizeBytes} bytes`,
    );
  }
  if (data.readOnly || space.mode === 'read-only')
    throw new StorageError('EROFS', 'Cannot trim the pool: it is read-only');
  const runs: { begin: number; end: number }[] = [];
  let trimmedBlocks = 0;
  let at = fromBlock;
  let left = Math.max(1, Math.floor(STEP_BYTES / blockSizeBytes));
  while (runs.length < STEP_RUNS && left > 0) {
    const run = metadata.freeDataRun(at, left);
    if (run === null) break;
    runs.push(run);
    at = run.end;
    trimmedBlocks += run.end - run.begin;
    left -= run.end - run.begin;
  }
  if (runs.length === 0) return { trimmedBlocks: 0, nextBlock: null };
  const trim = reclaimer.trim(runs);
  reclaimer.run();
  data.submit();
  while (!trim.ended) {
    if (engine.space.mode === 'fail') throw new StorageError('EIO', 'Cannot trim the pool: it has failed');
    await engine.reclaimWaiters.wait();
  }
  if (trim.failed > 0) throw new StorageError('EIO', `Cannot trim "${data.path}": ${trim.failed} discards failed`);
  return { trimmedBlocks, nextBlock: at };
}
