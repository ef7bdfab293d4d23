import type { Nexus } from '../scsi/nexus.ts';
import type { ScsiTask } from '../scsi/task.ts';
import type { UnitAttention } from '../scsi/unit-attention.ts';

/** Access to the two words that both sides use; the addon's in production, so that they are right on every processor. */
export interface RingAtomics {
  atomicLoadAcquire32(bytes: Uint8Array, offset: number): number;
  atomicStoreRelease32(bytes: Uint8Array, offset: number, value: number): void;
  awaitChange32(bytes: Uint8Array, offset: number, value: number, tries: number): boolean;
}

/** The logical unit, as far as a ring needs it: see the life of a `ScsiTask`. */
export interface RingUnit {
  prepare(task: ScsiTask): boolean;
  execute(task: ScsiTask): void;
  abort(task: ScsiTask): void;
  reset(by: Nexus | null, ended: () => void): void;
  clearAttention(nexus: Nexus, kind: UnitAttention): void;
}

export interface RingHost {
  /** Tells the kernel that cmd_tail has moved. Once a batch. */
  doorbell(): void;
  /** A command ended outside `service()`: the host calls `service()` once the current batch of completions is over. */
  serviceSoon(): void;
  /** An entry made no sense and was answered with an error (or skipped). */
  entryRefused(reason: string): void;
}

export interface RingStats {
  commands: number;
  responses: number;
  batches: number;
  aborts: number;
  refused: number;
  shortReads: number;
  busy: number;
}
