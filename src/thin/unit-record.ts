import { z } from 'zod';

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

const HEX = z.string().regex(/^([0-9a-f]{2})+$/);
export const UNIT_RECORD: z.ZodType<UnitRecord> = z.strictObject({
  modePages: z.record(z.string().regex(/^[0-9a-f]{2}(\.[0-9a-f]{2})?$/), HEX.max(512)),
  operation: z
    .strictObject({
      command: z.enum(['sanitize', 'format']),
      pattern: HEX.max(8192).nullable(),
      passes: z.int().min(1).max(31),
      inverts: z.boolean(),
      mayBeGivenUp: z.boolean(),
      failed: z.boolean(),
    })
    .nullable(),
});
