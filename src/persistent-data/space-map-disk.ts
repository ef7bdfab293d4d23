import { StorageError } from '../base/errors.ts';
import type { RunSet } from '../base/run-set.ts';
import {
  BITMAP_ENTRIES,
  bitmapCount,
  bitmapsFor,
  bitmapValidator,
  countFreeEntries,
  findFreeEntry,
  OVERFLOW_COUNT,
  setBitmapCount,
} from './bitmap.ts';
import { BitmapIndex, NOWHERE } from './bitmap-index.ts';
import type { ReadonlyWords, WritableBlock } from './block.ts';
import { RefCountTree } from './ref-count-tree.ts';
import type { AllocationOrder, SpaceMap, SpaceMapRoot } from './space-map.ts';
import type { TransactionManager } from './transaction-manager.ts';

const NOT_FOUND = -1;

/**
 * The space map of the data device: bitmaps in metadata blocks, found through a b-tree of index entries.
 *
 * A bitmap of the last commit stays readable until the next one, as copies go elsewhere; a block may be handed out when it is
 * free in both.
 *
 * The index entries' hints may be wrong in metadata that others wrote, so before ENOSPC every bitmap is counted once.
 * Source: dm-space-map-disk.c, dm-space-map-common.c.
 */
export class DiskSpaceMap implements SpaceMap {
  /** Blocks that are not handed out even if they are free: the caller has work in flight on them. */
  readonly withheld: readonly RunSet[];
  order: AllocationOrder = 'sweep';
  /** Where the runs of blocks go whose count fell to 0; null: nowhere. */
  freed: RunSet | null = null;
  readonly #transaction: TransactionManager;
  readonly #index: BitmapIndex;
  readonly #refCounts: RefCountTree;
  #blockCount = 0;
  #allocatedCount = 0;
  /** Where the search for a free block goes on. */
  #searchBegin = 0;
  /** First-fit: the lowest block that may become free for use with the next commit. */
  #lowestSkipped: number = Number.POSITIVE_INFINITY;

  private constructor(transaction: TransactionManager, root: SpaceMapRoot, withheld: readonly RunSet[]) {
    this.#transaction = transaction;
    this.withheld = withheld;
    this.#index = new BitmapIndex(transaction, root.bitmapRoot);
    this.#refCounts = new RefCountTree(transaction, 'data', root.refCountRoot);
    this.#blockCount = root.blockCount;
    this.#allocatedCount = root.allocatedCount;
  }

  /** An empty map of no blocks. ENOSPC. */
  static format(transaction: TransactionManager, withheld: readonly RunSet[]): DiskSpaceMap {
    const nothing = { blockCount: 0, allocatedCount: 0, bitmapRoot: 0, refCountRoot: 0 };
    const map = new DiskSpaceMap(transaction, nothing, withheld);
    map.#index.format();
    map.#refCounts.format();
    return map;
  }

  /** Reads the index of the map that the last commit left. */
  static open(transaction: TransactionManager, root: SpaceMapRoot, withheld: readonly RunSet[]): DiskSpaceMap {
    const map = new DiskSpaceMap(transaction, root, withheld);
    map.#index.resize(root.blockCount);
    map.#index.load();
    return map;
  }

  get blockCount(): number {
    return this.#blockCount;
  }

  get freeCount(): number {
    return this.#blockCount - this.#allocatedCount;
  }

  /** Bitmaps, each in a metadata block. */
  get bitmapCount(): number {
    return this.#index.length;
  }

  /** For the superblock. */
  get root(): SpaceMapRoot {
    return {
      blockCount: this.#blockCount,
      allocatedCount: this.#allocatedCount,
      bitmapRoot: this.#index.root,
      refCountRoot: this.#refCounts.root,
    };
  }

  count(block: number): number {
    const count = this.#bitmapCount(block);
    return count === OVERFLOW_COUNT ? this.#overflowCount(block) : count;
  }

  isShared(block: number): boolean {
    return this.#bitmapCount(block) > 1;
  }

  /**
   * Whether no count of a block, now and at the last commit, is above one. With `nonBlocking` it is null when that is not known without
   * reading the device.
   */
  isExclusive(block: number, nonBlocking: boolean): boolean | null {
    this.#check(block, block + 1);
    const ordinal = Math.floor(block / BITMAP_ENTRIES);
    const place = this.#index.places[ordinal]!;
    const count = this.#countIn(place, block, nonBlocking);
    if (count === null || count > 1) return count === null ? null : false;
    const committedPlace = this.#index.committedPlaces[ordinal]!;
    if (committedPlace === place || committedPlace === NOWHERE) return true;
    const committed = this.#countIn(committedPlace, block, nonBlocking);
    return committed === null ? null : committed <= 1;
  }

  increment(begin: number, end: number): void {
    this.#check(begin, end);
    for (let from = begin; from < end; ) {
      const ordinal = Math.floor(from / BITMAP_ENTRIES);
      const to = Math.min(end, (ordinal + 1) * BITMAP_ENTRIES);
      this.#incrementIn(ordinal, from, to);
      from = to;
    }
  }

  decrement(begin: number, end: number): void {
    this.#check(begin, end);
    for (let from = begin; from < end; ) {
      const ordinal = Math.floor(from / BITMAP_ENTRIES);
      const to = Math.min(end, (ordinal + 1) * BITMAP_ENTRIES);
      this.#decrementIn(ordinal, from, to);
      from = to;
    }
  }

  allocate(): number {
    const block = this.find();
    this.increment(block, block + 1);
    return block;
  }

  /**
   * The block that `allocate` would hand out, and the search goes on behind it; its count stays 0, so it is for the caller to
   * withhold it from others. Changes nothing on the device, and so may be called while a commit is being written. ENOSPC.
   */
  find(): number {
    let block = this.#find(this.#searchBegin, this.#blockCount);
    if (block === NOT_FOUND) block = this.#find(0, this.#searchBegin);
    if (block === NOT_FOUND && this.#countUntrusted()) block = this.#find(0, this.#blockCount);
    if (block === NOT_FOUND) {
      throw new StorageError(
        'ENOSPC',
        `Cannot allocate a data block: none of ${this.#blockCount} is free, or only since the last commit`,
      );
    }
    this.#searchBegin = block + 1;
    return block;
  }

  /**
   * The first block at or behind `from` that `find` could hand out, and how many behind it, in one bitmap and at most `limit`: as
   * `[begin, end)`; null when there is none. The search of `find` does not go on.
   */
  freeRun(from: number, limit: number): { begin: number; end: number } | null {
    const begin = this.#find(from, this.#blockCount);
    if (begin === NOT_FOUND) return null;
    const ordinal = Math.floor(begin / BITMAP_ENTRIES);
    const last = Math.min(this.#blockCount, (ordinal + 1) * BITMAP_ENTRIES, begin + limit);
    let end = begin + 1;
    while (end < last && this.#findIn(ordinal, end, end + 1) === end) end++;
    return { begin, end };
  }

  /** A block that `find` has returned will not be used. */
  giveBack(block: number): void {
    if (block < this.#lowestSkipped) this.#lowestSkipped = block;
  }

  extend(blockCount: number): void {
    const oldCount = this.#blockCount;
    if (blockCount < oldCount) {
      throw new StorageError('EINVAL', `Cannot shrink the data space map: from ${oldCount} to ${blockCount} blocks`);
    }
    const first = bitmapsFor(oldCount);
    this.#blockCount = blockCount;
    this.#index.resize(blockCount);
    // Whatever an older program left behind the old end is not to become counts.
    if (oldCount % BITMAP_ENTRIES !== 0) this.#clearTail(first - 1, oldCount % BITMAP_ENTRIES);
    const { blocks } = this.#transaction;
    for (let ordinal = first; ordinal < this.#index.length; ordinal++) {
      const mark = blocks.mark();
      this.#index.places[ordinal] = this.#transaction.create(bitmapValidator).number;
      blocks.release(mark);
      this.#index.correct(ordinal, BITMAP_ENTRIES, 0);
      this.#index.store(ordinal);
    }
  }

  prepareCommit(): void {
    this.#index.storeChanged();
  }

  committed(): void {
    this.#index.committed();
    if (this.order === 'first-fit') this.#searchBegin = Math.min(this.#searchBegin, this.#lowestSkipped);
    this.#lowestSkipped = Number.POSITIVE_INFINITY;
  }

  #check(begin: number, end: number): void {
    if (end <= this.#blockCount) return;
    throw new StorageError(
      'EINVAL',
      `Cannot count references to data blocks ${begin} to ${end}: there are ${this.#blockCount}`,
    );
  }

  #bitmapCount(block: number): number {
    this.#check(block, block + 1);
    return this.#countIn(this.#index.places[Math.floor(block / BITMAP_ENTRIES)]!, block, false)!;
  }

  /** In the bitmap at `place`; null when that is not in the cache and reading it would block. */
  #countIn(place: number, block: number, nonBlocking: boolean): number | null {
    const { blocks } = this.#transaction;
    const mark = blocks.mark();
    const bitmap = nonBlocking
      ? this.#transaction.tryRead(place, bitmapValidator)
      : this.#transaction.read(place, bitmapValidator);
    const count = bitmap === null ? null : bitmapCount(bitmap.words, block % BITMAP_ENTRIES);
    blocks.release(mark);
    return count;
  }

  #overflowCount(block: number): number {
    const count = this.#refCounts.get(block);
    if (count >= OVERFLOW_COUNT) return count;
    throw new StorageError(
      'EILSEQ',
      `Cannot count references to data block ${block}: the bitmap says 3 or more, the overflow tree ${count || 'nothing'}`,
    );
  }

  #writableBitmap(ordinal: number): WritableBlock {
    const bitmap = this.#transaction.shadow(this.#index.places[ordinal]!, bitmapValidator);
    this.#index.places[ordinal] = bitmap.number;
    this.#index.changed[ordinal] = 1;
    return bitmap;
  }

  /** `[begin, end)` lies in one bitmap. */
  #incrementIn(ordinal: number, begin: number, end: number): void {
    const { blocks } = this.#transaction;
    const mark = blocks.mark();
    const { words } = this.#writableBitmap(ordinal);
    const first = ordinal * BITMAP_ENTRIES;
    for (let block = begin; block < end; block++) {
      const entry = block - first;
      const count = bitmapCount(words, entry);
      if (count < OVERFLOW_COUNT) setBitmapCount(words, entry, count + 1);
      if (count === 0) {
        this.#allocatedCount++;
        this.#index.countUsed(ordinal, entry);
      } else if (count === OVERFLOW_COUNT - 1) {
        this.#refCounts.set(block, OVERFLOW_COUNT);
      } else if (count === OVERFLOW_COUNT) {
        this.#refCounts.increment(block, this.#overflowCount(block));
      }
    }
    blocks.release(mark);
  }

  /** `[begin, end)` lies in one bitmap. */
  #decrementIn(ordinal: number, begin: number, end: number): void {
    const { blocks } = this.#transaction;
    const mark = blocks.mark();
    const { words } = this.#writableBitmap(ordinal);
    const first = ordinal * BITMAP_ENTRIES;
    for (let block = begin; block < end; block++) {
      const entry = block - first;
      const count = bitmapCount(words, entry);
      if (count === 0) {
        throw new StorageError('EINVAL', `Cannot drop a reference to data block ${block}: it has none`);
      }
      if (count === 1) {
        this.#allocatedCount--;
        this.#index.countFreed(ordinal, entry);
        if (block < this.#lowestSkipped) this.#lowestSkipped = block;
        if (this.freed !== null) this.freed.add(block, block + 1);
      } else if (count === OVERFLOW_COUNT) {
        const exact = this.#overflowCount(block);
        if (exact > OVERFLOW_COUNT) {
          this.#refCounts.set(block, exact - 1);
          continue;
        }
        this.#refCounts.remove(block);
      }
      setBitmapCount(words, entry, count - 1);
    }
    blocks.release(mark);
  }

  #find(begin: number, end: number): number {
    for (let from = begin; from < end; ) {
      const ordinal = Math.floor(from / BITMAP_ENTRIES);
      const to = Math.min(end, (ordinal + 1) * BITMAP_ENTRIES);
      if (this.#index.freeCounts[ordinal]! > 0) {
        const block = this.#findIn(ordinal, from, to);
        if (block !== NOT_FOUND) return block;
      }
      from = to;
    }
    return NOT_FOUND;
  }

  /** `[begin, end)` lies in one bitmap. */
  #findIn(ordinal: number, begin: number, end: number): number {
    const first = ordinal * BITMAP_ENTRIES;
    const { blocks } = this.#transaction;
    const mark = blocks.mark();
    const { words } = this.#transaction.read(this.#index.places[ordinal]!, bitmapValidator);
    const committed = this.#committedBitmap(ordinal);
    let entry = Math.max(begin - first, this.#index.noneFreeBefore[ordinal]!);
    for (;;) {
      entry = findFreeEntry(words, committed, entry, end - first);
      if (entry === NOT_FOUND) break;
      const usable = this.#notWithheld(first + entry) - first;
      if (usable === entry) break;
      if (first + entry < this.#lowestSkipped) this.#lowestSkipped = first + entry;
      entry = usable;
    }
    blocks.release(mark);
    return entry === NOT_FOUND ? NOT_FOUND : first + entry;
  }

  /** The bitmap as the last commit has it, where that is another block than now. */
  #committedBitmap(ordinal: number): ReadonlyWords | null {
    const place = this.#index.committedPlaces[ordinal]!;
    if (place === this.#index.places[ordinal] || place === NOWHERE) return null;
    return this.#transaction.read(place, bitmapValidator).words;
  }

  #notWithheld(block: number): number {
    let usable = block;
    for (;;) {
      const before = usable;
      for (const runs of this.withheld) usable = runs.nextOutside(usable);
      if (usable === before) return usable;
    }
  }

  /** Counts the bitmap of `block`, whoever wrote its hints. */
  verifyHints(block: number): void {
    this.#countBitmap(Math.floor(block / BITMAP_ENTRIES));
  }

  /** Counts the bitmaps whose hints others wrote; whether one of them has room that its hints deny. */
  #countUntrusted(): boolean {
    let found = false;
    for (let ordinal = 0; ordinal < this.#index.length; ordinal++) {
      if (this.#index.trusted[ordinal] === 0 && this.#countBitmap(ordinal)) found = true;
    }
    return found;
  }

  /** Whether there is room that the hints deny. */
  #countBitmap(ordinal: number): boolean {
    const { blocks } = this.#transaction;
    const mark = blocks.mark();
    const { words } = this.#transaction.read(this.#index.places[ordinal]!, bitmapValidator);
    const free = countFreeEntries(words);
    const noneFreeBefore = free === 0 ? BITMAP_ENTRIES : findFreeEntry(words, null, 0, BITMAP_ENTRIES);
    blocks.release(mark);
    return this.#index.correct(ordinal, free, noneFreeBefore);
  }

  #clearTail(ordinal: number, begin: number): void {
    const { blocks } = this.#transaction;
    const mark = blocks.mark();
    const { words } = this.#transaction.read(this.#index.places[ordinal]!, bitmapValidator);
    let clean = true;
    for (let entry = begin; entry < BITMAP_ENTRIES && clean; entry++) clean = bitmapCount(words, entry) === 0;
    if (!clean) {
      const bitmap = this.#writableBitmap(ordinal);
      for (let entry = begin; entry < BITMAP_ENTRIES; entry++) setBitmapCount(bitmap.words, entry, 0);
    }
    blocks.release(mark);
  }
}
