import { assert } from '../base/assert.ts';
import { StorageError } from '../base/errors.ts';
import { NEXT_TO_DROP } from '../persistent-data/btree-drop.ts';
import { dataBlockAt, timeAt } from './block-time.ts';
import { PoolState } from './pool-state.ts';
import { lookupRun, type RunResult } from './run-lookup.ts';
import { refineSharing } from './sharing.ts';
import { NO_ROOT, type ThinMetadata } from './thin-metadata.ts';

/** Of a leaf that is not the only one. */
const MIN_LEAF_ENTRIES = 84;

/** What a pool's metadata holds: devices, and where their blocks are. The changes are `PoolMetadata`'s. */
export class PoolView extends PoolState {
  protected exactSharing = true;

  hasThin(id: number): boolean {
    this.transaction.checkAlive();
    return this.devices.has(id);
  }

  /** Ascending. */
  thinIds(): number[] {
    this.transaction.checkAlive();
    return this.devices.ids();
  }

  /** ENODATA. The same object for everybody who has the device open; `closeThin` once for each call. */
  openThin(id: number): ThinMetadata {
    this.transaction.checkAlive();
    return this.devices.open(id);
  }

  closeThin(thin: ThinMetadata): void {
    this.devices.close(thin);
  }

  /**
   * How the map goes on at `begin`: as one run, mapped to consecutive data blocks (all of them shared, or none) or not mapped,
   * to `result.end`, at most to `end`. With `nonBlocking` it returns false if that is not known without reading the
   * device (see `prefetch`), and a run may end early where a leaf does.
   */
  lookupRun(thin: ThinMetadata, begin: number, end: number, result: RunResult, nonBlocking: boolean): boolean {
    this.checkThin(thin);
    assert(begin >= 0 && begin < end, 'lookupRun: an empty range');
    const isOne = end === begin + 1;
    if (isOne && this.#findRecent(thin, begin, result)) return true;
    if (!lookupRun(this.transaction.trees.mappings, thin, begin, end, result, nonBlocking)) return false;
    if (isOne && result.mapped) this.devices.recent.add(thin.recentOwner, begin, result.dataBlock, result.time);
    return true;
  }

  #findRecent(thin: ThinMetadata, block: number, result: RunResult): boolean {
    const { recent } = this.devices;
    const at = recent.find(thin.recentOwner, block);
    if (at < 0) return false;
    result.mapped = true;
    result.dataBlock = dataBlockAt(recent.words, at);
    result.time = timeAt(recent.words, at);
    result.shared = thin.snapshottedTime > result.time;
    result.end = block + 1;
    return true;
  }

  /**
   * The same for a write, which may stay in place where a block was shared once and is so no more: `shared` is exact where time alone
   * would say that it is (see sharing.ts), and a run may end early for that.
   */
  lookupRunForWrite(thin: ThinMetadata, begin: number, end: number, result: RunResult, nonBlocking: boolean): boolean {
    if (!this.lookupRun(thin, begin, end, result, nonBlocking)) return false;
    if (!result.mapped || !result.shared || !this.exactSharing || this.devices.isNew(thin.id)) return true;
    return refineSharing(this.transaction.trees, this.sharedNow, thin, begin, result, nonBlocking);
  }

  /** Whether a change of about so many mappings from `begin` on finds their leaves in the cache; if not, `prefetch` reads them. */
  areLeavesCached(thin: ThinMetadata, begin: number, mappings: number): boolean {
    this.checkThin(thin);
    const leaves = Math.ceil(mappings / MIN_LEAF_ENTRIES);
    return this.transaction.trees.mappings.leavesCached(thin.root, begin, leaves);
  }

  /** The same of a `deleteThinStep`. */
  isDeletionCached(id: number, maxLeaves: number): boolean {
    const thin = this.openThin(id);
    const cached = this.transaction.trees.mappings.leavesCached(thin.root, NEXT_TO_DROP, maxLeaves);
    this.closeThin(thin);
    return cached;
  }

  /** The highest virtual block with a mapping; -1 when there is none. */
  highestMapped(thin: ThinMetadata): number {
    this.checkThin(thin);
    return this.transaction.trees.mappings.highestKey(thin.root);
  }

  /** How many leaves refer to a data block. EINVAL past the end. */
  dataBlockReferences(block: number): number {
    this.transaction.checkAlive();
    return this.transaction.trees.dataBlocks.count(block);
  }

  protected checkThin(thin: ThinMetadata): void {
    this.transaction.checkAlive();
    if (thin.root === NO_ROOT) {
      throw new StorageError('ENODATA', `Cannot use thin device ${thin.id}: its creation was aborted`);
    }
  }
}
