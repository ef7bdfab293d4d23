import { resolve } from 'node:path';
import { Catalogue } from '../../thin/catalogue.ts';
import { countExclusive, highestBlock } from '../../tools/ls.ts';
import { DEFAULT_LS_FIELDS, LS_FIELDS, type LsRow, lsLines } from '../../tools/ls-fields.ts';
import type { MetadataSource } from '../../tools/metadata-source.ts';
import { PoolReader } from '../../tools/pool-reader.ts';
import { createProgress } from '../progress.ts';
import type { RunContext } from '../run-context.ts';
import type { LsFlags } from './ls-command.ts';
import { useMetadata } from './use-metadata.ts';

/** `thinlun ls`. */
export function ls(context: RunContext, path: string, flags: LsFlags): Promise<void> {
  return useMetadata(path, { metadataSnapshot: flags.metadataSnap ?? false }, (source) => {
    list(context, path, source, flags);
  });
}

function list({ output }: RunContext, path: string, source: MetadataSource, flags: LsFlags): void {
  const pool = new PoolReader(source.device, { metadataSnapshot: flags.metadataSnap });
  const isFolder = source.dir !== null && resolve(source.dir) === resolve(path);
  const [first, ...others] = DEFAULT_LS_FIELDS;
  const fields = flags.format ?? (isFolder ? [first!, 'NAME', ...others] : DEFAULT_LS_FIELDS);
  const needs = fields.map((field) => LS_FIELDS.get(field)!);
  const names = source.dir === null || !fields.includes('NAME') ? new Map() : namesOf(source.dir, pool);
  const progress = createProgress('Reading the mappings', flags);
  try {
    const exclusive = needs.some(({ scan }) => scan) ? countExclusive(pool, progress.update) : null;
    const rows = pool.devices.map(
      (device): LsRow => ({
        ...device,
        name: names.get(device.id) ?? '',
        exclusiveBlocks: exclusive?.get(device.id) ?? 0,
        highestBlock: needs.some(({ highest }) => highest) ? highestBlock(pool, device) : 0,
      }),
    );
    progress.end();
    const { dataBlockSize: blockSize } = pool.superblock;
    for (const line of lsLines(fields, rows, { blockSize, headers: flags.headers })) output.line(line);
  } finally {
    progress.end();
  }
}

function namesOf(dir: string, pool: PoolReader): Map<number, string> {
  const volumes =
    Catalogue.load(dir).volumesAt(pool.live.transactionId, (id) => pool.devices.some((device) => device.id === id)) ??
    [];
  return new Map(volumes.map(({ id, name }) => [id, name]));
}
