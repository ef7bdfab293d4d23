import * as v from 'valibot';
import { integer, record, type Schema, strictObject } from '../base/schema.ts';

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

const HEX = v.pipe(v.string(), v.regex(/^([0-9a-f]{2})+$/));
export const UNIT_RECORD: Schema<UnitRecord> = strictObject({
  modePages: record(v.pipe(v.string(), v.regex(/^[0-9a-f]{2}(\.[0-9a-f]{2})?$/)), v.pipe(HEX, v.maxLength(512))),
  operation: v.nullable(
    strictObject({
      command: v.picklist(['sanitize', 'format']),
      pattern: v.nullable(v.pipe(HEX, v.maxLength(8192))),
      passes: integer(1, 31),
      inverts: v.boolean(),
      mayBeGivenUp: v.boolean(),
      failed: v.boolean(),
    }),
  ),
});
