import { messageOf, StorageError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { formatSize, MIB, roundDown, roundUp } from '../base/units.ts';
import type { BlockDevice } from '../block/block-device.ts';
import { BLOCK_SIZE } from '../persistent-data/block.ts';
import type { PoolEngine } from './pool-engine.ts';
import { defaultMetadataSize, isFile, MAX_METADATA_SIZE } from './pool-files.ts';
import type { PoolEvent } from './pool-mode.ts';
import { lowWaterOf, type PoolOptions } from './pool-options.ts';
import { usableBlocks } from './superblock-io.ts';

/** Snapshots need more metadata than the rule of thumb has: up to so much of it a pool takes by itself. */
const METADATA_LIMIT_FACTOR = 2;

export interface GrowthOptions {
  /** As they are at the moment. */
  options: () => Readonly<PoolOptions>;
  logger: Logger;
  onEvent: (event: PoolEvent) => void;
}

/**
 * Makes the two devices of a pool larger: when told to and, as far as its options let it, by itself when space becomes short. Online: writes that
 * wait for space go on. A size that was made and not taken into use, as after a crash, is taken by the next growth.
 */
export class PoolGrowth {
  readonly #engine: PoolEngine;
  readonly #metadataDevice: BlockDevice;
  readonly #data: BlockDevice;
  readonly #options: GrowthOptions;
  /** The growth by itself that is under way. */
  #extension: Promise<void> | null = null;
  /** Since the last look, somebody found space short. */
  #wanted = false;
  #stopped = false;
  #limitTold = false;

  constructor(engine: PoolEngine, metadataDevice: BlockDevice, data: BlockDevice, options: GrowthOptions) {
    this.#engine = engine;
    this.#metadataDevice = metadataDevice;
    this.#data = data;
    this.#options = options;
  }

  /** To `sizeBytes`, or of a block device to the size that it has. Throws EINVAL when that is not larger, EROFS. */
  async growData(sizeBytes?: number): Promise<void> {
    const { metadata, space } = this.#engine;
    space.requireChangeable(true);
    const blockSize = metadata.dataBlockSizeBytes;
    const has = metadata.dataBlockCount * blockSize;
    const size = sizeBytes ?? this.#data.refreshSize();
    const blocks = Math.floor(size / blockSize);
    if (blocks <= metadata.dataBlockCount) throw notLarger('data', size, has);
    enlarge(this.#data, size);
    await this.#engine.mutate(() => metadata.resizeData(blocks), true);
    space.grown(lowWaterOf(this.#options.options(), blocks));
    this.#limitTold = false;
  }

  /** To `sizeBytes`, or of a block device to the size that it has. Throws EINVAL when that is not larger, EROFS. */
  async growMetadata(sizeBytes?: number): Promise<void> {
    const { metadata, space } = this.#engine;
    space.requireChangeable(true);
    const size = sizeBytes ?? this.#metadataDevice.refreshSize();
    const has = metadata.metadataBlockCount * BLOCK_SIZE;
    if (Math.floor(size / BLOCK_SIZE) * BLOCK_SIZE <= has) throw notLarger('metadata', size, has);
    enlarge(this.#metadataDevice, size);
    await this.#engine.mutate(() => metadata.resizeMetadata(), true);
    space.grown(space.lowWaterBlocks);
  }

  /** A metadata device that was made larger while the pool was closed is used from the start, as the kernel does. */
  async useWholeMetadata(): Promise<void> {
    const { metadata, space } = this.#engine;
    if (space.mode === 'read-only' || space.mode === 'fail') return;
    if (usableBlocks(this.#metadataDevice) <= metadata.metadataBlockCount) return;
    await this.growMetadata();
    const size = formatSize(metadata.metadataBlockCount * BLOCK_SIZE);
    this.#options.logger.info({ size }, 'the metadata device was made larger');
  }

  /** Space may have become short: grows in the background where options and limit let it. Cheap when it is not. */
  kick(): void {
    if (this.#stopped || this.#options.options().autoExtend === null) return;
    this.#wanted = true;
    this.#extension ??= this.#extend();
  }

  /** No more growth by itself; resolves when the one under way has ended. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#extension;
  }

  async #extend(): Promise<void> {
    try {
      while (this.#wanted && !this.#stopped) {
        // Not from inside the request that found space short; but a turn of the event loop later may be too late.
        await null;
        this.#wanted = false;
        if (await this.#extendOnce()) this.#wanted = true;
      }
    } catch (error) {
      this.#options.logger.error({ error: messageOf(error) }, 'the pool could not grow by itself');
    }
    this.#extension = null;
  }

  /** One step; false when nothing is short, or may not be helped. */
  async #extendOnce(): Promise<boolean> {
    const { metadata, space } = this.#engine;
    const { autoExtend } = this.#options.options();
    if (autoExtend === null || space.mode === 'read-only' || space.mode === 'fail') return false;
    const limit = roundDown(autoExtend.limitBytes, metadata.dataBlockSizeBytes);
    if (space.metadataIsLow && (await this.#extendMetadata(limit))) return true;
    if (!space.dataIsLow) return false;
    const size = metadata.dataBlockCount * metadata.dataBlockSizeBytes;
    if (size < limit) {
      const step = roundUp(autoExtend.stepBytes, metadata.dataBlockSizeBytes);
      const next = Math.min(limit, size + step);
      await this.growData(next);
      this.#told('data', next);
      return true;
    }
    if (!this.#limitTold) {
      this.#limitTold = true;
      this.#options.logger.warn({ limit: formatSize(limit) }, 'the pool has grown to its limit');
    }
    return false;
  }

  async #extendMetadata(dataLimit: number): Promise<boolean> {
    const { metadata } = this.#engine;
    const size = metadata.metadataBlockCount * BLOCK_SIZE;
    const rule = METADATA_LIMIT_FACTOR * defaultMetadataSize(dataLimit, metadata.dataBlockSizeBytes);
    const next = Math.min(MAX_METADATA_SIZE, rule, size + roundUp(Math.max(MIB, size / 2), BLOCK_SIZE));
    if (next <= size || !isFile(this.#metadataDevice.path)) return false;
    await this.growMetadata(next);
    this.#told('metadata', next);
    return true;
  }

  #told(file: 'data' | 'metadata', sizeBytes: number): void {
    this.#options.logger.info({ file, size: formatSize(sizeBytes) }, 'the pool has grown by itself');
    this.#options.onEvent({ kind: 'extended', file, sizeBytes });
  }
}

/** Files are made that large; a block device has to be it. */
function enlarge(device: BlockDevice, sizeBytes: number): void {
  if (sizeBytes > device.refreshSize()) device.resize(sizeBytes);
}

function notLarger(what: 'data' | 'metadata', sizeBytes: number, hasBytes: number): StorageError {
  return new StorageError(
    'EINVAL',
    `Cannot grow the ${what} to ${formatSize(sizeBytes)}: it has ${formatSize(hasBytes)} already`,
  );
}
