import * as v from 'valibot';
import { integer, object, type Schema } from '../base/schema.ts';

/** Whether this process can be made to wait for an initiator on the same machine, which waits for this process. */
export interface ProcessProtection {
  /** No thread of it is made to write out memory of others when it needs some (PR_SET_IO_FLUSHER). */
  readonly ioFlusher: boolean;
  /** Bytes of its program that are never dropped and read again. */
  readonly lockedBytes: number;
  /** `none`: the machine has no swap; `excluded`: this process's memory does not go there; `possible`: it may. */
  readonly swap: 'none' | 'excluded' | 'possible';
}

export const protectionSchema: Schema<ProcessProtection> = object({
  ioFlusher: v.boolean(),
  lockedBytes: integer(0),
  swap: v.picklist(['none', 'excluded', 'possible']),
});
