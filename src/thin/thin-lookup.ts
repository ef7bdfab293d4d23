import type { PoolEngine } from './pool-engine.ts';
import type { ThinIo } from './thin-io.ts';

/** After so many lookups of one request that found metadata not cached, it reads synchronously: a cache too small must not starve it. */
export const MAX_MISSES = 8;

/** Fills in the runs of the step; false: they are not cached, `io` waits. */
export function lookUpStep(engine: PoolEngine, io: ThinIo, forWrite: boolean): boolean {
  const { metadata, blockSizeBytes: size, runResult: run } = engine;
  const end = Math.ceil(io.stepEnd / size);
  let at = Math.floor(io.stepBegin / size);
  let count = 0;
  while (at < end) {
    const nonBlocking = io.misses < MAX_MISSES;
    const { thin } = io.device;
    const known = forWrite
      ? metadata.lookupRunForWrite(thin, at, end, run, nonBlocking)
      : metadata.lookupRun(thin, at, end, run, nonBlocking);
    if (!known) {
      engine.waitForMetadata(io);
      return false;
    }
    io.runEnd[count] = run.end;
    io.runData[count] = run.mapped ? run.dataBlock : -1;
    io.runShared[count] = run.mapped && run.shared;
    count++;
    at = run.end;
  }
  io.runCount = count;
  return true;
}
