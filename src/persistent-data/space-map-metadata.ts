import { assert } from '../base/assert.ts';
import { StorageError } from '../base/errors.ts';
import { BITMAP_ENTRIES, bitmapCount, bitmapsFor, bitmapValidator, OVERFLOW_COUNT, setBitmapCount } from './bitmap.ts';
import type { WritableBlock } from './block.ts';
import { entryBlock, indexEntryAt, indexValidator, MAX_METADATA_BITMAPS, writeIndexEntry } from './index-entry.ts';
import { RefCountTree } from './ref-count-tree.ts';
import { MetadataSpaceError, type SpaceMapRoot } from './space-map.ts';
import type { MetadataBlocks, TransactionManager } from './transaction-manager.ts';

/** The count as in a bitmap, 0 to 3, in the low bits of a block's state. */
const COUNT = 3;
/** In use at the last commit. */
const COMMITTED = 4;
/** And with a count above one. */
const WAS_SHARED = 8;
/** A block whose whole state is this may be handed out. */
const ALLOCATABLE = 0;

/**
 * The space map of the metadata device: the only structure that must count itself.
 *
 * The kernel queues what happens to the map while it is being changed. Here the whole map is in memory, a byte a block
 * (at most 4 MiB), and only a commit brings it into bitmap blocks, so nothing re-enters. A bitmap's new place is allocated
 * when the first of its counts changes in a transaction, which is where the kernel allocates it as well: blocks are handed
 * out in the kernel's order, and preparing a commit needs no more than a place for the index block.
 *
 * Nothing in it is taken from the hints of the index (`nr free`, `none free before`): thin_restore 0.9.0 wrote wrong ones.
 * Source: dm-space-map-metadata.c.
 */
export class MetadataSpaceMap implements MetadataBlocks {
  readonly #transaction: TransactionManager;
  readonly #refCounts: RefCountTree;
  #states: Uint8Array = new Uint8Array(0);
  /** Where each bitmap will be (touched) or is. */
  readonly #places: Uint32Array = new Uint32Array(MAX_METADATA_BITMAPS);
  /** Bitmaps with changed counts in this transaction. */
  readonly #touched: Uint8Array = new Uint8Array(MAX_METADATA_BITMAPS);
  #indexBlock = 0;
  #allocatedCount = 0;
  #allocatableCount = 0;
  /** Where the search for a free block goes on. Not reset by a commit, so that old generations survive for long. */
  #searchBegin = 0;

  private constructor(transaction: TransactionManager) {
    this.#transaction = transaction;
    this.#refCounts = new RefCountTree(transaction, 'metadata', 0);
    transaction.setSpaceMap(this);
  }

  /** The map of an empty device of `blockCount` blocks, block 0 taken. It becomes `transaction`'s. ENOSPC. */
  static format(transaction: TransactionManager, blockCount: number): MetadataSpaceMap {
    const map = new MetadataSpaceMap(transaction);
    map.#checkSize(blockCount);
    const bitmaps = bitmapsFor(blockCount);
    map.#states = new Uint8Array(blockCount);
    map.#allocatableCount = blockCount;
    // Places first, so that counting them moves nothing.
    map.#touched.fill(1, 0, bitmaps);
    const superblock = map.allocate();
    assert(superblock === 0, 'The superblock is the first block');
    const { blocks } = transaction;
    const mark = blocks.mark();
    map.#indexBlock = transaction.create(indexValidator).number;
    blocks.release(mark);
    map.#refCounts.format();
    for (let i = 0; i < bitmaps; i++) map.#places[i] = map.allocate();
    return map;
  }

  /** Reads the map that the last commit left. It becomes `transaction`'s. */
  static open(transaction: TransactionManager, root: SpaceMapRoot): MetadataSpaceMap {
    const map = new MetadataSpaceMap(transaction);
    map.#checkSize(root.blockCount);
    map.#refCounts.root = root.refCountRoot;
    map.#indexBlock = root.bitmapRoot;
    map.#states = new Uint8Array(root.blockCount);
    const { blocks } = transaction;
    const mark = blocks.mark();
    const index = transaction.read(root.bitmapRoot, indexValidator);
    for (let i = 0; i < bitmapsFor(root.blockCount); i++) {
      const place = entryBlock(index.words, indexEntryAt(i));
      map.#loadBitmap(i, place);
    }
    blocks.release(mark);
    map.#checkCounts(root);
    return map;
  }

  get blockCount(): number {
    return this.#states.length;
  }

  get freeCount(): number {
    return this.#states.length - this.#allocatedCount;
  }

  /** Blocks that may still be handed out in this transaction. */
  get allocatableCount(): number {
    return this.#allocatableCount;
  }

  /** For the superblock. */
  get root(): SpaceMapRoot {
    return {
      blockCount: this.#states.length,
      allocatedCount: this.#allocatedCount,
      bitmapRoot: this.#indexBlock,
      refCountRoot: this.#refCounts.root,
    };
  }

  count(block: number): number {
    const count = this.#state(block) & COUNT;
    return count === OVERFLOW_COUNT ? this.#overflowCount(block) : count;
  }

  isShared(block: number): boolean {
    return (this.#state(block) & COUNT) > 1;
  }

  isNew(block: number): boolean {
    return (this.#state(block) & COMMITTED) === 0;
  }

  wasShared(block: number): boolean {
    return (this.#state(block) & WAS_SHARED) !== 0;
  }

  increment(begin: number, end: number): void {
    for (let block = begin; block < end; block++) this.#increment(block);
  }

  decrement(begin: number, end: number): void {
    for (let block = begin; block < end; block++) this.#decrement(block);
  }

  allocate(): number {
    const states = this.#states;
    if (this.#allocatableCount === 0) {
      throw new MetadataSpaceError(`Cannot allocate a metadata block: none of ${states.length} is free`);
    }
    let block = states.indexOf(ALLOCATABLE, this.#searchBegin);
    if (block < 0) block = states.indexOf(ALLOCATABLE);
    assert(block >= 0, 'The count of free metadata blocks is wrong');
    this.#searchBegin = block + 1;
    this.#increment(block);
    return block;
  }

  extend(blockCount: number): void {
    const oldCount = this.#states.length;
    if (blockCount < oldCount) {
      throw new StorageError(
        'EINVAL',
        `Cannot shrink the metadata space map: from ${oldCount} to ${blockCount} blocks`,
      );
    }
    this.#checkSize(blockCount);
    const states = new Uint8Array(blockCount);
    states.set(this.#states);
    this.#states = states;
    this.#allocatableCount += blockCount - oldCount;
    // From the new part on: a device that was completely full can be rescued by growing it.
    this.#searchBegin = oldCount;
    const first = bitmapsFor(oldCount);
    this.#touched.fill(1, first, bitmapsFor(blockCount));
    for (let i = first; i < bitmapsFor(blockCount); i++) this.#places[i] = this.allocate();
    // Whatever an older program left behind the old end is not to become counts: the last bitmap is written anew.
    if (oldCount % BITMAP_ENTRIES !== 0) this.#touch(oldCount - 1);
  }

  prepareCommit(): void {
    const bitmaps = bitmapsFor(this.#states.length);
    let changed = false;
    for (let i = 0; i < bitmaps; i++) changed ||= this.#touched[i] === 1;
    if (!changed) return;
    const { blocks } = this.#transaction;
    const mark = blocks.mark();
    // The last place to be allocated: from here on the counts stand still and can be written down.
    const index = this.#transaction.shadow(this.#indexBlock, indexValidator);
    this.#indexBlock = index.number;
    for (let i = 0; i < bitmaps; i++) {
      if (this.#touched[i] === 1) this.#writeBitmap(i, index);
    }
    blocks.release(mark);
  }

  committed(): void {
    const states = this.#states;
    for (let i = 0; i < MAX_METADATA_BITMAPS; i++) {
      if (this.#touched[i] === 0) continue;
      this.#touched[i] = 0;
      const end = Math.min((i + 1) * BITMAP_ENTRIES, states.length);
      for (let block = i * BITMAP_ENTRIES; block < end; block++) {
        const count = states[block]! & COUNT;
        // What this transaction has freed may be handed out now.
        if (count === 0 && states[block] !== ALLOCATABLE) this.#allocatableCount++;
        states[block] = committedState(count);
      }
    }
  }

  #checkSize(blockCount: number): void {
    if (bitmapsFor(blockCount) > MAX_METADATA_BITMAPS) {
      throw new StorageError(
        'EINVAL',
        `Cannot count ${blockCount} metadata blocks: the format reaches ${MAX_METADATA_BITMAPS * BITMAP_ENTRIES}`,
      );
    }
  }

  #state(block: number): number {
    if (block >= this.#states.length) {
      throw new StorageError(
        'EINVAL',
        `Cannot count references to metadata block ${block}: there are ${this.#states.length}`,
      );
    }
    return this.#states[block]!;
  }

  #overflowCount(block: number): number {
    const count = this.#refCounts.get(block);
    if (count < OVERFLOW_COUNT) {
      throw new StorageError(
        'EILSEQ',
        `Cannot count references to metadata block ${block}: the bitmap says 3 or more, the overflow tree ${count || 'nothing'}`,
      );
    }
    return count;
  }

  #increment(block: number): void {
    const state = this.#state(block);
    const count = state & COUNT;
    if (count === 0) {
      if (state === ALLOCATABLE) this.#allocatableCount--;
      this.#allocatedCount++;
    }
    // The state first: what follows may allocate.
    if (count < OVERFLOW_COUNT) this.#states[block] = state + 1;
    this.#touch(block);
    if (count === OVERFLOW_COUNT) {
      this.#refCounts.increment(block, this.#overflowCount(block));
    } else if (count === OVERFLOW_COUNT - 1) {
      this.#refCounts.set(block, OVERFLOW_COUNT);
    }
  }

  #decrement(block: number): void {
    const state = this.#state(block);
    const count = state & COUNT;
    if (count === 0) {
      throw new StorageError('EINVAL', `Cannot drop a reference to metadata block ${block}: it has none`);
    }
    this.#touch(block);
    if (count === OVERFLOW_COUNT) {
      const exact = this.#overflowCount(block);
      if (exact > OVERFLOW_COUNT) {
        this.#refCounts.set(block, exact - 1);
        return;
      }
      this.#refCounts.remove(block);
    }
    this.#states[block] = state - 1;
    if (count === 1) {
      this.#allocatedCount--;
      if (state - 1 === ALLOCATABLE) this.#allocatableCount++;
    }
  }

  /** A count of this bitmap changes: in the next commit it will be elsewhere. */
  #touch(block: number): void {
    const ordinal = Math.floor(block / BITMAP_ENTRIES);
    if (this.#touched[ordinal] === 1) return;
    this.#touched[ordinal] = 1;
    const old = this.#places[ordinal]!;
    this.#places[ordinal] = this.allocate();
    this.#decrement(old);
  }

  /**
   * A block that is counted too low would be handed out while it is in use, and the pool with it. What the format says twice must
   * agree: the number of blocks in use (more than the root says only costs space), and which blocks have a count in the overflow tree.
   */
  #checkCounts(root: SpaceMapRoot): void {
    const action = 'Cannot open the metadata space map';
    if (this.#allocatedCount < root.allocatedCount) {
      const reason = `its bitmaps count ${this.#allocatedCount} blocks in use, its root ${root.allocatedCount}`;
      throw new StorageError('EILSEQ', `${action}: ${reason}`);
    }
    for (let block = this.#refCounts.next(0); block >= 0; block = this.#refCounts.next(block + 1)) {
      if (block < this.#states.length && (this.#states[block]! & COUNT) === OVERFLOW_COUNT) continue;
      throw new StorageError(
        'EILSEQ',
        `${action}: block ${block} is in the overflow tree, its bitmap says less than 3`,
      );
    }
  }

  #loadBitmap(ordinal: number, place: number): void {
    const { blocks } = this.#transaction;
    const mark = blocks.mark();
    const { words } = this.#transaction.read(place, bitmapValidator);
    this.#places[ordinal] = place;
    const first = ordinal * BITMAP_ENTRIES;
    const entries = Math.min(this.#states.length - first, BITMAP_ENTRIES);
    for (let i = 0; i < entries; i++) {
      const count = bitmapCount(words, i);
      if (count === 0) {
        this.#allocatableCount++;
        continue;
      }
      this.#states[first + i] = committedState(count);
      this.#allocatedCount++;
    }
    blocks.release(mark);
  }

  #writeBitmap(ordinal: number, index: WritableBlock): void {
    const { blocks } = this.#transaction;
    const mark = blocks.mark();
    const { words } = blocks.create(this.#places[ordinal]!, bitmapValidator);
    const first = ordinal * BITMAP_ENTRIES;
    const entries = Math.min(this.#states.length - first, BITMAP_ENTRIES);
    let used = 0;
    let noneFreeBefore = -1;
    for (let i = 0; i < entries; i++) {
      const count = this.#states[first + i]! & COUNT;
      if (count === 0) {
        if (noneFreeBefore < 0) noneFreeBefore = i;
        continue;
      }
      used++;
      setBitmapCount(words, i, count);
    }
    if (noneFreeBefore < 0) noneFreeBefore = entries;
    writeIndexEntry(index.words, indexEntryAt(ordinal), this.#places[ordinal]!, BITMAP_ENTRIES - used, noneFreeBefore);
    blocks.release(mark);
  }
}

function committedState(count: number): number {
  if (count === 0) return ALLOCATABLE;
  return count > 1 ? count | COMMITTED | WAS_SHARED : count | COMMITTED;
}
