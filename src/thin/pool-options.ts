import * as v from 'valibot';
import { StorageError } from '../base/errors.ts';
import { integer, type Schema, strictObject } from '../base/schema.ts';
import { formatSize, GIB, roundUp } from '../base/units.ts';
import { BLOCK_SIZE } from '../persistent-data/block.ts';
import { DEFAULT_CACHE_BLOCKS, MIN_CACHE_BLOCKS } from '../persistent-data/block-cache.ts';
import type { EngineSettings } from './engine-options.ts';

/** Steps are a tenth of the limit, unless told otherwise. */
const DEFAULT_STEPS = 10;

/** How far a pool in files may grow by itself. */
export interface AutoExtend {
  /** The data file never becomes larger. */
  limitBytes: number;
  /** How much is added at a time. */
  stepBytes: number;
}

/** A pool's features, by the kernel's names (dm thin-pool's table) where it has them; kept in the catalogue. */
export interface PoolOptions {
  /** What a first write does not cover of its block keeps what was on the data device. */
  skipBlockZeroing: boolean;
  /** Volumes do not offer UNMAP. */
  ignoreDiscard: boolean;
  /** Discards free blocks of the pool and do not reach the data device. */
  noDiscardPassdown: boolean;
  /** Writes that find no data space fail at once instead of waiting. */
  errorIfNoSpace: boolean;
  /** The metadata does not change: mapped blocks are written in place, nothing else. */
  readOnly: boolean;
  /** Free data blocks at which the administrator is told; null: a sixteenth of the pool. */
  lowWaterBlocks: number | null;
  /** How long writes wait for data space before they fail; 0 is for ever. */
  noSpaceTimeoutMs: number;
  autoExtend: AutoExtend | null;
  /** Memory for blocks of the metadata at most, from when the pool is opened next. */
  metadataCacheBytes: number;
}

export const DEFAULT_POOL_OPTIONS: Readonly<PoolOptions> = {
  skipBlockZeroing: false,
  ignoreDiscard: false,
  noDiscardPassdown: false,
  errorIfNoSpace: false,
  readOnly: false,
  lowWaterBlocks: null,
  noSpaceTimeoutMs: 60_000,
  autoExtend: null,
  metadataCacheBytes: DEFAULT_CACHE_BLOCKS * BLOCK_SIZE,
};

const LOW_WATER_FRACTION = 16;
/** What timers can hold: 24 days. */
const MAX_TIMEOUT_MS = 2 ** 31 - 1;

const MIN_METADATA_CACHE = MIN_CACHE_BLOCKS * BLOCK_SIZE;
/** All metadata that a pool can have. */
const MAX_METADATA_CACHE = 16 * GIB;

const count = integer(0);

/** As `pool.json` has them; what is left out has its default. */
export const POOL_OPTIONS: Schema<PoolOptions> = strictObject({
  skipBlockZeroing: v.optional(v.boolean(), DEFAULT_POOL_OPTIONS.skipBlockZeroing),
  ignoreDiscard: v.optional(v.boolean(), DEFAULT_POOL_OPTIONS.ignoreDiscard),
  noDiscardPassdown: v.optional(v.boolean(), DEFAULT_POOL_OPTIONS.noDiscardPassdown),
  errorIfNoSpace: v.optional(v.boolean(), DEFAULT_POOL_OPTIONS.errorIfNoSpace),
  readOnly: v.optional(v.boolean(), DEFAULT_POOL_OPTIONS.readOnly),
  lowWaterBlocks: v.optional(v.nullable(count), DEFAULT_POOL_OPTIONS.lowWaterBlocks),
  noSpaceTimeoutMs: v.optional(integer(0, MAX_TIMEOUT_MS), DEFAULT_POOL_OPTIONS.noSpaceTimeoutMs),
  autoExtend: v.optional(
    v.nullable(strictObject({ limitBytes: count, stepBytes: integer(1) })),
    DEFAULT_POOL_OPTIONS.autoExtend,
  ),
  metadataCacheBytes: v.optional(
    integer(MIN_METADATA_CACHE, MAX_METADATA_CACHE),
    DEFAULT_POOL_OPTIONS.metadataCacheBytes,
  ),
});

/** Throws EINVAL for what a pool with `dataSizeBytes` in a file or on a device cannot be set to. */
export function checkPoolOptions(
  { lowWaterBlocks, noSpaceTimeoutMs, autoExtend, metadataCacheBytes }: Partial<PoolOptions>,
  pool: { blockSizeBytes: number; dataSizeBytes: number; dataIsFile: boolean },
): void {
  if (lowWaterBlocks != null && !isCount(lowWaterBlocks)) {
    throw new StorageError('EINVAL', `Cannot use a low-water mark of ${lowWaterBlocks} blocks: it is a whole number`);
  }
  if (noSpaceTimeoutMs !== undefined && !(isCount(noSpaceTimeoutMs) && noSpaceTimeoutMs <= MAX_TIMEOUT_MS)) {
    const seconds = Math.floor(MAX_TIMEOUT_MS / 1000);
    throw new StorageError(
      'EINVAL',
      `Cannot let writes wait ${noSpaceTimeoutMs / 1000} s for space: at most ${seconds} s, or 0 for ever`,
    );
  }
  if (
    metadataCacheBytes !== undefined &&
    !(
      isCount(metadataCacheBytes) &&
      metadataCacheBytes >= MIN_METADATA_CACHE &&
      metadataCacheBytes <= MAX_METADATA_CACHE
    )
  ) {
    throw new StorageError(
      'EINVAL',
      `Cannot use ${formatSize(metadataCacheBytes)} for metadata: at least ${formatSize(MIN_METADATA_CACHE)}, at most ${formatSize(MAX_METADATA_CACHE)}`,
    );
  }
  if (autoExtend == null) return;
  const { limitBytes, stepBytes } = autoExtend;
  const action = `Cannot let the pool grow by itself to ${formatSize(limitBytes)}`;
  if (!pool.dataIsFile) {
    throw new StorageError('EINVAL', `${action}: its data is on a device, which only its own tools make larger`);
  }
  if (!isCount(limitBytes) || limitBytes < pool.dataSizeBytes) {
    throw new StorageError('EINVAL', `${action}: it has ${formatSize(pool.dataSizeBytes)} already`);
  }
  if (!isCount(stepBytes) || stepBytes < pool.blockSizeBytes) {
    throw new StorageError(
      'EINVAL',
      `${action} in steps of ${formatSize(stepBytes)}: a block has ${formatSize(pool.blockSizeBytes)}`,
    );
  }
}

function isCount(value: number): boolean {
  return Number.isSafeInteger(value) && value >= 0;
}

/** What the pool's worker is set to, with so many data blocks. */
export function engineSettingsOf(options: Readonly<PoolOptions>, dataBlocks: number): EngineSettings {
  return {
    zeroNewBlocks: !options.skipBlockZeroing,
    ignoreDiscard: options.ignoreDiscard,
    discardPassdown: !options.noDiscardPassdown,
    errorIfNoSpace: options.errorIfNoSpace,
    noSpaceTimeoutMs: options.noSpaceTimeoutMs,
    lowWaterBlocks: lowWaterOf(options, dataBlocks),
    readOnly: options.readOnly,
  };
}

/** Growth by itself to `limitBytes`, in steps of which the size may be left out. */
export function autoExtendTo(limitBytes: number, stepBytes: number | undefined, blockSizeBytes: number): AutoExtend {
  return { limitBytes, stepBytes: stepBytes ?? roundUp(limitBytes / DEFAULT_STEPS, blockSizeBytes) };
}

/** The mark of a pool that has so many data blocks now. */
export function lowWaterOf(options: Readonly<PoolOptions>, dataBlocks: number): number {
  return options.lowWaterBlocks ?? Math.floor(dataBlocks / LOW_WATER_FRACTION);
}
