import * as is from '../base/schema.ts';

/** Kept for a logical unit: saved mode pages, and an operation on the whole medium that has not ended well. */
export interface UnitRecord {
  modePages: Record<string, string>;
  operation: {
    command: 'sanitize' | 'format';
    pattern: string | null;
    passes: number;
    inverts: boolean;
    mayBeGivenUp: boolean;
    failed: boolean;
  } | null;
}

const HEX = is.string().regex(/^([0-9a-f]{2})+$/);
export const UNIT_RECORD: is.Schema<UnitRecord> = is.strictObject({
  modePages: is.record(is.string().regex(/^[0-9a-f]{2}(\.[0-9a-f]{2})?$/), HEX.max(512)),
  operation: is
    .strictObject({
      command: is.oneOf(['sanitize', 'format']),
      pattern: HEX.max(8192).nullable(),
      passes: is.int().min(1).max(31),
      inverts: is.boolean(),
      mayBeGivenUp: is.boolean(),
      failed: is.boolean(),
    })
    .nullable(),
});
