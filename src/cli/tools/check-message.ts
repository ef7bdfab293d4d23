import * as is from '../../base/schema.ts';

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

const size = is.int().min(0);

export const checkSchema: is.Schema<CheckMessage> = is.object({
  ok: is.boolean(),
  transactionId: size.nullable(),
  freeMetadataBlocks: size.nullable(),
  errors: size,
  leaks: size,
  warnings: size,
  needsCheck: is.boolean(),
  repaired: is.boolean(),
  deviceCount: size,
  mappingCount: size,
  blocksRead: size,
  damages: is.array(
    is.object({
      severity: is.oneOf(['error', 'leak', 'warning']),
      invariant: is.string(),
      path: is.string(),
      begin: size.nullable(),
      end: size.nullable(),
      message: is.string(),
    }),
  ),
});
