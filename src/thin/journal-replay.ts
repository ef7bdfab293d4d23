import { readFileSync } from 'node:fs';
import type { JournalTarget } from './mapping-journal.ts';
import type { PoolMetadata } from './pool-metadata.ts';

const REMOVE_BATCH = 16384;

/** What the journal of a killed process says, done again to the metadata that it had last committed. */
export class JournalReplay implements JournalTarget {
  private readonly metadata: PoolMetadata;

  constructor(metadata: PoolMetadata) {
    this.metadata = metadata;
  }

  insert(device: number, virtualBlock: number, dataBlock: number): void {
    const thin = this.metadata.openThin(device);
    try {
      this.metadata.claimDataBlock(dataBlock);
      this.metadata.insert(thin, virtualBlock, dataBlock);
    } finally {
      this.metadata.closeThin(thin);
    }
  }

  remove(device: number, begin: number, end: number): void {
    const thin = this.metadata.openThin(device);
    try {
      for (let at = begin; at < end; ) at = this.metadata.removeRange(thin, at, end, REMOVE_BATCH);
    } finally {
      this.metadata.closeThin(thin);
    }
  }
}

/** Tells one run of the machine from another; empty where it is not known. */
export function bootId(): string {
  try {
    return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  } catch {
    return '';
  }
}
