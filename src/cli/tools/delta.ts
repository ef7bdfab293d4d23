import { StorageError } from '../../base/errors.ts';
import { type DeltaSide, deltaXml } from '../../tools/delta.ts';
import { PoolReader } from '../../tools/pool-reader.ts';
import { OutputClosedError, TextOutput } from '../../tools/text-output.ts';
import { createProgress } from '../progress.ts';
import type { DeltaFlags } from './delta-command.ts';
import { useMetadata } from './use-metadata.ts';

/** `thinlun delta`. */
export function delta(path: string, flags: DeltaFlags): Promise<void> {
  return useMetadata(path, { metadataSnapshot: flags.metadataSnap ?? false }, ({ device }) => {
    const pool = new PoolReader(device, { metadataSnapshot: flags.metadataSnap });
    const left = sideOf(pool, 1, flags.thin1 ?? flags.snap1, flags.root1);
    const right = sideOf(pool, 2, flags.thin2 ?? flags.snap2, flags.root2);
    const { verbose = false, same } = flags;
    const output = new TextOutput(null);
    // A bar in the middle of the text would help nobody.
    const progress = createProgress('Comparing', { quiet: flags.quiet || process.stdout.isTTY });
    try {
      for (const text of deltaXml(pool, left, right, { verbose, same, progress: progress.update })) output.write(text);
      output.end();
    } catch (error) {
      if (!(error instanceof OutputClosedError)) throw error;
    } finally {
      progress.end();
    }
  });
}

function sideOf(pool: PoolReader, side: 1 | 2, id: number | undefined, root: number | undefined): DeltaSide {
  if (id !== undefined) return { device: id, root: pool.device(id).root };
  if (root !== undefined) return { device: null, root };
  throw new StorageError('EINVAL', `Cannot compare: neither --thin${side} nor --root${side} is given`);
}
