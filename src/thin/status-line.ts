import { SECTOR_SIZE } from '../base/units.ts';
import type { PoolMode } from './pool-mode.ts';

/**
 * The status lines of the kernel's thin-pool and thin targets, as `dmsetup status` prints them.
 *
 * ```
 *   0 <sectors> thin-pool <transaction id> <used>/<total metadata blocks> <used>/<total data blocks> <metadata snapshot|->
 *     rw|ro|out_of_data_space  ignore_discard|discard_passdown|no_discard_passdown  error_if_no_space|queue_if_no_space
 *     needs_check|-  <metadata low threshold>
 *   0 <sectors> thin <mapped sectors> <highest mapped sector|->
 * ```
 * A line of the pool ends with a space. A failed pool's are `Fail`. Source: dm-thin.c, pool_status and thin_status.
 */
export interface PoolStatusFields {
  mode: PoolMode;
  transactionId: number;
  blockSizeBytes: number;
  /** With the reserve, which cannot be used. */
  usedMetadataBlocks: number;
  metadataBlocks: number;
  usedDataBlocks: number;
  dataBlocks: number;
  /** 0 when there is none. */
  heldRoot: number;
  ignoreDiscard: boolean;
  discardPassdown: boolean;
  failsWhenFull: boolean;
  needsCheck: boolean;
  metadataLowThresholdBlocks: number;
}

export interface ThinStatusFields {
  /** Of its pool. */
  mode: PoolMode;
  blockSizeBytes: number;
  sizeBytes: number;
  mappedBlocks: number;
  /** -1 when no block is mapped. */
  highestMappedBlock: number;
}

/** Out of metadata space is one of the kernel's read-only modes. */
const MODE_WORDS: Readonly<Record<Exclude<PoolMode, 'fail'>, string>> = {
  write: 'rw',
  'out-of-data-space': 'out_of_data_space',
  'out-of-metadata-space': 'ro',
  'read-only': 'ro',
};

/** Without a newline, and with the space at its end. */
export function poolStatusLine(pool: PoolStatusFields): string {
  const head = `0 ${(pool.dataBlocks * pool.blockSizeBytes) / SECTOR_SIZE} thin-pool`;
  if (pool.mode === 'fail') return `${head} Fail`;
  const discards = pool.discardPassdown ? 'discard_passdown' : 'no_discard_passdown';
  const words = [
    head,
    pool.transactionId,
    `${pool.usedMetadataBlocks}/${pool.metadataBlocks}`,
    `${pool.usedDataBlocks}/${pool.dataBlocks}`,
    pool.heldRoot === 0 ? '-' : pool.heldRoot,
    MODE_WORDS[pool.mode],
    pool.ignoreDiscard ? 'ignore_discard' : discards,
    pool.failsWhenFull ? 'error_if_no_space' : 'queue_if_no_space',
    pool.needsCheck ? 'needs_check' : '-',
    pool.metadataLowThresholdBlocks,
  ];
  return `${words.join(' ')} `;
}

/** Without a newline. */
export function thinStatusLine(thin: ThinStatusFields): string {
  const head = `0 ${Math.ceil(thin.sizeBytes / SECTOR_SIZE)} thin`;
  if (thin.mode === 'fail') return `${head} Fail`;
  const blockSectors = thin.blockSizeBytes / SECTOR_SIZE;
  const highest = thin.highestMappedBlock < 0 ? '-' : (thin.highestMappedBlock + 1) * blockSectors - 1;
  return `${head} ${thin.mappedBlocks * blockSectors} ${highest}`;
}
