import { resolve } from 'node:path';
import { monotonicClock } from '../../base/clock.ts';
import { StorageError } from '../../base/errors.ts';
import { formatSize } from '../../base/units.ts';
import { until } from '../../base/until.ts';
import { openBlockDevice } from '../../block/file-device.ts';
import { AdvisedError } from '../../daemon/advised-error.ts';
import type { PoolControl } from '../../daemon/pool-control.ts';
import { checkMetadataInTurns } from '../../tools/check.ts';
import { poolFolderOf } from '../../tools/metadata-source.ts';
import { trimDevices } from '../../tools/trim.ts';
import { interruptible } from '../interruption.ts';
import { createProgress } from '../progress.ts';
import { type RunContext, UsageError } from '../run-context.ts';
import { withPool } from '../with-pool.ts';
import type { TrimFlags } from './trim-command.ts';
import { useMetadata } from './use-metadata.ts';

/** `thinlun trim`. */
export async function trim(context: RunContext, dir: string | undefined, flags: TrimFlags): Promise<void> {
  const { metadataDev, dataDev } = flags;
  const devices = metadataDev !== undefined && dataDev !== undefined;
  if (dir === undefined ? !devices : metadataDev !== undefined || dataDev !== undefined) {
    throw new UsageError("Give either a pool's folder, or --metadata-dev and --data-dev");
  }
  if (dir !== undefined) {
    await interruptible(context, (stopped) => withPool(dir, (pool) => trimPool(context, pool, flags, stopped)));
  } else await trimAlone(context, metadataDev!, dataDev!, flags);
}

async function trimPool(
  { output }: RunContext,
  pool: PoolControl,
  { quiet }: TrimFlags,
  stopped: Promise<never>,
): Promise<void> {
  const progress = createProgress('Trimming', { quiet });
  let bytes = 0;
  try {
    for await (const { trimmedBytes, nextBlock, blockCount } of until(trimSteps(pool), stopped)) {
      bytes += trimmedBytes;
      progress.update(nextBlock ?? blockCount, blockCount);
    }
  } finally {
    progress.end();
  }
  if (!quiet) output.line(`Discarded ${formatSize(bytes)} of free space.`);
}

async function* trimSteps(pool: PoolControl): AsyncIterable<Awaited<ReturnType<PoolControl['trim']>>> {
  for (let fromBlock: number | null = 0; fromBlock !== null; ) {
    const step: Awaited<ReturnType<PoolControl['trim']>> = await pool.trim({ fromBlock });
    yield step;
    fromBlock = step.nextBlock;
  }
}

async function trimAlone(
  { output }: RunContext,
  metadataDev: string,
  dataDev: string,
  { quiet }: TrimFlags,
): Promise<void> {
  const dir = poolFolderOf(metadataDev);
  if (dir !== null) {
    const hint = `Use "thinlun trim ${resolve(dir)}": changes that are only in the journal count, too.`;
    throw new AdvisedError('EINVAL', `Cannot trim with "${metadataDev}" alone: it belongs to a pool's folder`, hint);
  }
  const progress = createProgress('Trimming', { quiet });
  const bytes = await useMetadata(metadataDev, {}, async ({ device }) => {
    const data = openBlockDevice(dataDev, { readOnly: false, exclusive: true, direct: false });
    try {
      let first: string | null = null;
      const { errors } = await checkMetadataInTurns(
        device,
        ({ severity, path, message }) => {
          if (severity === 'error') first ??= `${path}: ${message}`;
        },
        { clock: monotonicClock },
      );
      if (errors > 0) throw new StorageError('EILSEQ', `Cannot trim "${dataDev}": the metadata is damaged: ${first}`);
      return await trimDevices(device, data, progress.update);
    } finally {
      progress.end();
      await data.close();
    }
  });
  if (!quiet) output.line(`Discarded ${formatSize(bytes)} of free space.`);
}
