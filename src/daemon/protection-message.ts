import * as z from 'zod';

/** Whether this process can be made to wait for an initiator on the same machine, which waits for this process. */
export interface ProcessProtection {
  /** No thread of it is made to write out memory of others when it needs some (PR_SET_IO_FLUSHER). */
  readonly ioFlusher: boolean;
  /** Bytes of its program that are never dropped and read again. */
  readonly lockedBytes: number;
  /** `none`: the machine has no swap; `excluded`: this process's memory does not go there; `possible`: it may. */
  readonly swap: 'none' | 'excluded' | 'possible';
}

export const protectionSchema: z.ZodType<ProcessProtection> = z.object({
  ioFlusher: z.boolean(),
  lockedBytes: z.int().min(0),
  swap: z.enum(['none', 'excluded', 'possible']),
});
