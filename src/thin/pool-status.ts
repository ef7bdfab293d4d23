import type { Catalogue } from './catalogue.ts';
import type { Deletions } from './deletions.ts';
import type { PoolEngine } from './pool-engine.ts';
import type { PoolMetadata } from './pool-metadata.ts';
import type { PoolMode } from './pool-mode.ts';
import type { PoolOptions } from './pool-options.ts';
import { poolStatusLine, thinStatusLine } from './status-line.ts';

export interface PoolStatus {
  name: string;
  uuid: string;
  mode: PoolMode;
  needsCheck: boolean;
  transactionId: number;
  blockSizeBytes: number;
  dataBlocks: number;
  usedDataBlocks: number;
  metadataBlocks: number;
  usedMetadataBlocks: number;
  lowWaterBlocks: number;
  /** As they are set; what holds at the moment may differ: the fields below. */
  options: Readonly<PoolOptions>;
  /** Writes that find no space fail at once, because they are to or because none came in time. */
  failsWhenFull: boolean;
  /** Discards reach the data device, which can discard whole blocks. */
  discardPassdown: boolean;
  /** Free data blocks are at the low-water mark or below. */
  dataIsLow: boolean;
  /** Free metadata blocks are at `metadataLowThresholdBlocks` or below. */
  metadataIsLow: boolean;
  metadataLowThresholdBlocks: number;
  volumes: number;
  /** Volumes that were deleted and whose blocks are still being freed. */
  deletedVolumes: number;
  /** Blocks that they still map, shared ones included. */
  deletedBlocks: number;
}

/** What `dmsetup status` says of a pool and its volumes, without the names before it. */
export interface PoolStatusLines {
  pool: string;
  volumes: { name: string; line: string }[];
}

export function statusLinesOf(
  catalogue: Catalogue,
  metadata: PoolMetadata,
  engine: PoolEngine,
  deletions: Deletions,
): PoolStatusLines {
  const status = statusOf(catalogue, metadata, engine, deletions);
  const { mode, blockSizeBytes } = status;
  const { ignoreDiscard } = engine;
  const volumes = catalogue.volumes.map(({ id, name, sizeBytes }) => {
    const fields = { mode, blockSizeBytes, sizeBytes, mappedBlocks: 0, highestMappedBlock: -1 };
    if (mode !== 'fail') {
      const thin = metadata.openThin(id);
      fields.mappedBlocks = thin.mappedBlocks;
      fields.highestMappedBlock = metadata.highestMapped(thin);
      metadata.closeThin(thin);
    }
    return { name, line: thinStatusLine(fields) };
  });
  return { pool: poolStatusLine({ ...status, heldRoot: metadata.heldRoot, ignoreDiscard }), volumes };
}

export function statusOf(
  catalogue: Catalogue,
  metadata: PoolMetadata,
  engine: PoolEngine,
  deletions: Deletions,
): PoolStatus {
  const { space } = engine;
  return {
    name: catalogue.name,
    uuid: catalogue.uuid,
    mode: space.mode,
    needsCheck: metadata.needsCheck,
    transactionId: metadata.transactionId,
    blockSizeBytes: metadata.dataBlockSizeBytes,
    dataBlocks: metadata.dataBlockCount,
    usedDataBlocks: metadata.dataBlockCount - metadata.freeDataBlocks,
    metadataBlocks: metadata.metadataBlockCount,
    usedMetadataBlocks: metadata.metadataBlockCount - metadata.freeMetadataBlocks,
    lowWaterBlocks: space.lowWaterBlocks,
    options: catalogue.options,
    failsWhenFull: space.failsWhenFull,
    discardPassdown: engine.reclaimer.passdown,
    dataIsLow: space.dataIsLow,
    metadataIsLow: space.metadataIsLow,
    metadataLowThresholdBlocks: metadata.metadataLowThresholdBlocks,
    volumes: catalogue.volumes.length,
    deletedVolumes: catalogue.deleting.length,
    deletedBlocks: space.mode === 'fail' ? 0 : deletions.mappedBlocks,
  };
}
