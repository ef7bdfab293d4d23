/** The kernel's pool modes; what each allows is in `PoolEngine`. */
export type PoolMode = 'write' | 'out-of-data-space' | 'out-of-metadata-space' | 'read-only' | 'fail';

/** What the pool has to say to an administrator, beside its log. */
export type PoolEvent =
  | { kind: 'mode'; mode: PoolMode; reason: string }
  | { kind: 'low-water'; freeBlocks: number; lowWaterBlocks: number };
