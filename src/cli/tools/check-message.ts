import * as z from 'zod';

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

const size = z.int().min(0);

export const checkSchema: z.ZodType<CheckMessage> = z.object({
  ok: z.boolean(),
  transactionId: size.nullable(),
  freeMetadataBlocks: size.nullable(),
  errors: size,
  leaks: size,
  warnings: size,
  needsCheck: z.boolean(),
  repaired: z.boolean(),
  deviceCount: size,
  mappingCount: size,
  blocksRead: size,
  damages: z.array(
    z.object({
      severity: z.enum(['error', 'leak', 'warning']),
      invariant: z.string(),
      path: z.string(),
      begin: size.nullable(),
      end: size.nullable(),
      message: z.string(),
    }),
  ),
});
