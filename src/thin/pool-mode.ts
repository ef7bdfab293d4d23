/** The kernel's pool modes; what each allows is in `PoolEngine`. */
export type PoolMode = 'write' | 'out-of-data-space' | 'out-of-metadata-space' | 'read-only' | 'fail';

/** What the pool has to say to an administrator, beside its log. */
export type PoolEvent =
  | { kind: 'mode'; mode: PoolMode; reason: string }
  /** Free data blocks have fallen to the mark; told again after there were more, after growth, and after options were set. */
  | { kind: 'low-water'; freeBlocks: number; lowWaterBlocks: number }
  /** Free metadata blocks, the reserve included, have fallen to the threshold; told again after there were more. */
  | { kind: 'metadata-low'; freeBlocks: number; thresholdBlocks: number }
  /** No data space came in time: from now on writes that need it fail at once. */
  | { kind: 'no-space-timeout'; waiting: number }
  /** The pool has grown by itself. */
  | { kind: 'extended'; file: 'data' | 'metadata'; sizeBytes: number };
