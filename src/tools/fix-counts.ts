import { alignedMemory } from '../block/aligned-memory.ts';
import type { BlockDevice } from '../block/block-device.ts';
import { BLOCK_SIZE, stampBlock } from '../persistent-data/block.ts';
import { DEFAULT_CACHE_BLOCKS } from '../persistent-data/block-cache.ts';
import { BlockManager } from '../persistent-data/block-manager.ts';
import { PoolTransaction } from '../thin/pool-transaction.ts';
import { noWithheldRuns, PoolTrees } from '../thin/pool-trees.ts';
import { encodeSuperblock, NEEDS_CHECK_FLAG, SUPERBLOCK_LOCATION, superblockValidator } from '../thin/superblock.ts';
import { readSuperblock } from '../thin/superblock-io.ts';
import type { CountReport } from './check.ts';
import type { Damage } from './damage.ts';
import type { CountDifference, SpaceMapName } from './space-map-check.ts';
import type { Steps } from './steps.ts';

/** The rest is found by the next check. */
const MAX_DIFFERENCES = 500_000;
/** Counts that are brought down in one step: a part of a bitmap. */
const STEP_BLOCKS = 2040;

/** What a check found that is only counted wrong, and whether that is all it found. */
export class CountFaults implements CountReport {
  /** Something is damaged that counting does not mend. */
  otherErrors = 0;
  /** Counts that are too high, of metadata and data blocks. */
  readonly #leaks: { name: SpaceMapName; leak: CountDifference }[] = [];
  #inUse: Partial<Record<SpaceMapName, number>> = {};
  #totalWrong = false;

  /** There is something to mend, and nothing else is wrong. */
  get mendable(): boolean {
    return (
      this.otherErrors === 0 &&
      this.#inUse.data !== undefined &&
      this.#inUse.metadata !== undefined &&
      (this.#leaks.length > 0 || this.#totalWrong)
    );
  }

  damage({ invariant, severity }: Damage): void {
    if (severity !== 'error') return;
    if (invariant === 'allocated') this.#totalWrong = true;
    else this.otherErrors++;
  }

  difference(name: SpaceMapName, difference: CountDifference): void {
    if (difference.count > difference.expected && this.#leaks.length < MAX_DIFFERENCES) {
      this.#leaks.push({ name, leak: difference });
    }
  }

  inUse(name: SpaceMapName, blockCount: number): void {
    this.#inUse[name] = blockCount;
  }

  /**
   * Writes counts that are right, in one transaction of the pool's own kind: everything that changes goes to free blocks, and the
   * superblock is written last, so that power may fail at any moment. Clears the needs-check flag. Only when `mendable`.
   *
   * A block that is counted too often *and* belongs to a space map takes its children with it when it moves; the next check finds what
   * then leaks, and a second round mends that. Throws ENOSPC when no metadata block is free.
   */
  *mend(device: BlockDevice): Steps<void> {
    const superblock = readSuperblock(device, false);
    superblock.flags &= ~NEEDS_CHECK_FLAG;
    const { data, metadata } = this.#inUse;
    superblock.dataSpaceMap = { ...superblock.dataSpaceMap, allocatedCount: data! };
    superblock.metadataSpaceMap = { ...superblock.metadataSpaceMap, allocatedCount: metadata! };
    const memory = alignedMemory(DEFAULT_CACHE_BLOCKS * BLOCK_SIZE);
    const blocks = new BlockManager(device, superblock.metadataSpaceMap.blockCount, memory);
    const withheld = noWithheldRuns();
    const trees = PoolTrees.open(blocks, superblock, withheld);
    const transaction = new PoolTransaction(blocks, trees, superblock, false, withheld, {
      transactionCommitted: () => {},
      transactionAborted: () => {},
    });
    // Those of metadata first: what is counted once is moved, not copied, by what follows.
    for (const wanted of ['metadata', 'data'] as const) {
      const map = wanted === 'metadata' ? trees.metadataBlocks : trees.dataBlocks;
      for (const { name, leak } of this.#leaks) {
        if (name !== wanted) continue;
        for (let begin = leak.begin, end = 0; begin < leak.end; begin = end) {
          end = Math.min(begin - (begin % STEP_BLOCKS) + STEP_BLOCKS, leak.end);
          if (name === 'data') trees.dataMap.verifyHints(begin);
          for (let count = leak.count; count > leak.expected; count--) map.decrement(begin, end);
          yield;
        }
      }
    }
    transaction.prepareCommit(() => {});
    transaction.writeSync();
    transaction.close();
  }
}

/** Clears the needs-check flag: one sector is written, and flushed. The metadata has been found good. */
export function clearNeedsCheck(device: BlockDevice): void {
  const superblock = readSuperblock(device, false);
  superblock.flags &= ~NEEDS_CHECK_FLAG;
  const bytes = alignedMemory(BLOCK_SIZE);
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, BLOCK_SIZE / 4);
  encodeSuperblock(superblock, words);
  stampBlock(words, bytes, SUPERBLOCK_LOCATION, superblockValidator);
  device.writeSync(SUPERBLOCK_LOCATION, bytes, 0, BLOCK_SIZE);
  device.flushSync();
}
