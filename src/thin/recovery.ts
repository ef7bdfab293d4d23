import { readFileSync } from 'node:fs';
import { messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { JournalTarget, MappingJournal } from './mapping-journal.ts';
import type { PoolEngine } from './pool-engine.ts';
import type { PoolMetadata } from './pool-metadata.ts';

const BATCH = 16384;

/** What the journal of a killed process says, done again to the metadata that it had last committed. */
class JournalReplay implements JournalTarget {
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

  share(sourceId: number, sourceBegin: number, device: number, begin: number, end: number): void {
    const source = this.metadata.openThin(sourceId);
    const target = this.metadata.openThin(device);
    try {
      for (let at = begin; at < end; ) {
        const from = sourceBegin + (at - begin);
        const range = { source, sourceBegin: from, target, begin: at, end, keepsSource: false, isReplay: true };
        at = this.metadata.shareRange(range, BATCH);
      }
    } finally {
      this.metadata.closeThin(target);
      this.metadata.closeThin(source);
    }
  }

  remove(device: number, begin: number, end: number): void {
    const thin = this.metadata.openThin(device);
    try {
      for (let at = begin; at < end; ) at = this.metadata.removeRange(thin, at, end, BATCH);
    } finally {
      this.metadata.closeThin(thin);
    }
  }
}

/** Does again what a process that was killed had acknowledged after its last commit, and commits it; then the journal begins anew. */
export async function recover(engine: PoolEngine, journal: MappingJournal, logger: Logger): Promise<void> {
  const { metadata } = engine;
  try {
    const count = journal.replay(metadata.committedIdentity, new JournalReplay(metadata));
    await engine.commits.commit();
    if (count > 0) logger.warn({ count }, 'the last process was killed: its uncommitted changes were done again');
  } catch (error) {
    logger.error(
      { error: messageOf(error) },
      'the changes since the last commit could not be done again: they are lost',
    );
    metadata.abort();
  }
  journal.begin(metadata.committedIdentity);
}

/** Tells one run of the machine from another; empty where it is not known. */
export function bootId(): string {
  try {
    return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  } catch {
    return '';
  }
}
