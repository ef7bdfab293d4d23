import { native } from '../base/native.ts';

/** Enough for O_DIRECT on every device. */
export const MEMORY_ALIGNMENT_BYTES: number = 4096;

/**
 * Zeroed memory that O_DIRECT takes: its position 0 is aligned to `MEMORY_ALIGNMENT_BYTES`. Without the addon the alignment cannot
 * be had; devices are then never opened for direct I/O.
 */
export function alignedMemory(sizeBytes: number): Uint8Array {
  return native === null
    ? new Uint8Array(sizeBytes)
    : new Uint8Array(native.alignedBuffer(sizeBytes, MEMORY_ALIGNMENT_BYTES));
}
