import { resolve } from 'node:path';
import { originProblem } from '../thin/external-origin.ts';
import type { Pool } from '../thin/pool.ts';
import { autoExtendTo, type PoolOptions } from '../thin/pool-options.ts';
import type { VolumeInfo } from '../thin/pool-volumes.ts';
import { physicalBlockSizeOf } from '../thin/volume-settings.ts';
import type { PoolAccessMessage } from './access-messages.ts';
import type {
  PoolMessage,
  PoolOptionsMessage,
  ServerMessage,
  SetOptionsMessage,
  VolumeMessage,
} from './control-messages.ts';

/** What a pool and its volumes look like in messages, and options as a pool takes them: bytes there, blocks here. */

const METADATA_BLOCK_SIZE = 4096;

export function poolMessage(pool: Pool, access: PoolAccessMessage, server: ServerMessage | null): PoolMessage {
  const status = pool.status();
  const { blockSizeBytes } = status;
  return {
    name: status.name,
    uuid: status.uuid,
    directory: resolve(pool.dir),
    mode: status.mode,
    needsCheck: status.needsCheck,
    transactionId: status.transactionId,
    blockSizeBytes,
    dataSizeBytes: status.dataBlocks * blockSizeBytes,
    dataUsedBytes: status.usedDataBlocks * blockSizeBytes,
    lowWaterBytes: status.lowWaterBlocks * blockSizeBytes,
    dataIsLow: status.dataIsLow,
    metadataSizeBytes: status.metadataBlocks * METADATA_BLOCK_SIZE,
    metadataUsedBytes: status.usedMetadataBlocks * METADATA_BLOCK_SIZE,
    metadataIsLow: status.metadataIsLow,
    options: optionsMessage(status.options, blockSizeBytes),
    failsWhenFull: status.failsWhenFull,
    discardPassdown: status.discardPassdown,
    volumeCount: status.volumes,
    deletedVolumeCount: status.deletedVolumes,
    deletedBytes: status.deletedBlocks * blockSizeBytes,
    access,
    server,
  };
}

function optionsMessage(options: Readonly<PoolOptions>, blockSizeBytes: number): PoolOptionsMessage {
  const { lowWaterBlocks, ...rest } = options;
  return { ...rest, lowWaterBytes: lowWaterBlocks === null ? null : lowWaterBlocks * blockSizeBytes };
}

/** A mark between two numbers of blocks is the higher one. */
export function poolOptions(message: SetOptionsMessage, blockSizeBytes: number): Partial<PoolOptions> {
  const { lowWaterBytes, autoExtend, ...rest } = message;
  const options: Partial<PoolOptions> = {};
  for (const [name, value] of Object.entries(rest)) if (value !== undefined) Object.assign(options, { [name]: value });
  if (lowWaterBytes !== undefined) {
    options.lowWaterBlocks = lowWaterBytes === null ? null : Math.ceil(lowWaterBytes / blockSizeBytes);
  }
  if (autoExtend === null) options.autoExtend = null;
  else if (autoExtend !== undefined) {
    options.autoExtend = autoExtendTo(autoExtend.limitBytes, autoExtend.stepBytes, blockSizeBytes);
  }
  return options;
}

export function volumeMessage(volume: VolumeInfo, backstores: readonly string[]): VolumeMessage {
  const { name, id, lun, sizeBytes, mappedBytes, logicalBlockSize, serial, naa, externalOrigin: image } = volume;
  const externalOrigin = image === undefined ? null : { path: image.path, problem: originProblem(image) };
  const { originName: origin, readOnly = false, removable = false } = volume;
  const receivedBytes = volume.receiving?.positionBytes ?? null;
  return {
    name,
    id,
    lun,
    sizeBytes,
    mappedBytes,
    logicalBlockSize,
    serial,
    naa,
    origin,
    readOnly,
    removable,
    physicalBlockSize: physicalBlockSizeOf(volume),
    receivedBytes,
    externalOrigin,
    backstores: [...backstores],
  };
}
