import * as v from 'valibot';
import { integer, object, type Schema } from '../../base/schema.ts';

/** What `thinlun check --json` prints. */
export interface CheckMessage {
  /** Neither errors nor leaks. */
  ok: boolean;
  /** Null when the superblock cannot be read. */
  transactionId: number | null;
  freeMetadataBlocks: number | null;
  errors: number;
  leaks: number;
  warnings: number;
  needsCheck: boolean;
  /** Something was set right. */
  repaired: boolean;
  deviceCount: number;
  mappingCount: number;
  blocksRead: number;
  /** At most the first 1000. */
  damages: {
    severity: 'error' | 'leak' | 'warning';
    invariant: string;
    path: string;
    begin: number | null;
    end: number | null;
    message: string;
  }[];
}

const size = integer(0);

export const checkSchema: Schema<CheckMessage> = object({
  ok: v.boolean(),
  transactionId: v.nullable(size),
  freeMetadataBlocks: v.nullable(size),
  errors: size,
  leaks: size,
  warnings: size,
  needsCheck: v.boolean(),
  repaired: v.boolean(),
  deviceCount: size,
  mappingCount: size,
  blocksRead: size,
  damages: v.array(
    object({
      severity: v.picklist(['error', 'leak', 'warning']),
      invariant: v.string(),
      path: v.string(),
      begin: v.nullable(size),
      end: v.nullable(size),
      message: v.string(),
    }),
  ),
});
