import { StorageError } from '../base/errors.ts';
import type { DeviceDetails } from './device-details.ts';
import type { SharedBlocks } from './shared-blocks.ts';

/**
 * A thin device that is open: one object for each device id, shared by everybody who has it open. Only `PoolMetadata`
 * changes it.
 */
export class ThinMetadata implements DeviceDetails {
  readonly id: number;
  /** Blocks of the device that have a mapping. */
  mappedBlocks = 0;
  /** The pool's transaction id when the device was created. */
  transactionId = 0;
  creationTime = 0;
  /** Mappings older than this may be shared. */
  snapshottedTime = 0;
  /** The device was changed in this transaction. */
  changed = false;
  /** In this transaction a node of its tree was copied that was shared: see `sharing.ts`. */
  copiedShared = false;
  /** A transaction that had changed the device was aborted, or a flush of its data has failed. Reset by whoever has told the initiator. */
  abortedWithChanges = false;
  /** Root of the device's mapping tree; `NO_ROOT` when an abort has undone its creation. */
  root = 0;
  openCount = 0;
  /** Known since something was copied to it. */
  sharedBlocks: SharedBlocks | null = null;
  /** Whose mappings the recent ones of this device are: see `RecentMappings`. */
  recentOwner = 0;

  constructor(id: number) {
    this.id = id;
  }

  /** What it had shared may not be there any more. */
  mappingsDropped(): void {
    if (this.sharedBlocks !== null) this.sharedBlocks.isStale = true;
  }

  /** So many mappings have gone. EILSEQ when there were not as many. */
  countRemoved(count: number): void {
    if (count > this.mappedBlocks) {
      const reason = `its details say that ${this.mappedBlocks} blocks are mapped, ${count} were removed`;
      throw new StorageError('EILSEQ', `Cannot change thin device ${this.id}: ${reason}`);
    }
    this.mappedBlocks -= count;
  }
}

export const NO_ROOT = -1;
