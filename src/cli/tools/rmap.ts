import { PoolReader } from '../../tools/pool-reader.ts';
import { describeRun, reverseMap } from '../../tools/rmap.ts';
import { createProgress } from '../progress.ts';
import type { RunContext } from '../run-context.ts';
import type { RmapFlags } from './rmap-command.ts';
import { useMetadata } from './use-metadata.ts';

/** `thinlun rmap`. */
export function rmap({ output }: RunContext, path: string, flags: RmapFlags): Promise<void> {
  return useMetadata(path, { metadataSnapshot: flags.metadataSnap ?? false }, ({ device }) => {
    const pool = new PoolReader(device, { metadataSnapshot: flags.metadataSnap });
    const progress = createProgress('Reading the mappings', flags);
    try {
      const runs = reverseMap(pool, flags.region, progress.update);
      progress.end();
      for (const run of runs) output.line(describeRun(run));
    } finally {
      progress.end();
    }
  });
}
