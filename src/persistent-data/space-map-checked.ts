import { assert } from '../base/assert.ts';
import type { SpaceMap } from './space-map.ts';
import type { MetadataBlocks } from './transaction-manager.ts';

/**
 * A space map that repeats what is done to another in plain numbers, and asserts that both agree and that the rule of
 * `SpaceMap` holds. For tests (`THINLUN_VERIFY=1`): it remembers every block that a transaction touches.
 */
export class CheckedSpaceMap implements SpaceMap {
  protected readonly inner: SpaceMap;
  /** Blocks touched in this transaction: the count before it, and now. */
  readonly #before: Map<number, number> = new Map();
  readonly #now: Map<number, number> = new Map();

  constructor(inner: SpaceMap) {
    this.inner = inner;
  }

  get blockCount(): number {
    return this.inner.blockCount;
  }

  get freeCount(): number {
    return this.inner.freeCount;
  }

  count(block: number): number {
    const count = this.inner.count(block);
    assert(count === (this.#now.get(block) ?? count), 'A space map has lost count');
    return count;
  }

  isShared(block: number): boolean {
    const shared = this.inner.isShared(block);
    const count = this.#now.get(block);
    assert(count === undefined || shared === count > 1, 'A space map is wrong about sharing');
    return shared;
  }

  increment(begin: number, end: number): void {
    for (let block = begin; block < end; block++) {
      this.#learn(block);
      const taken = this.#now.get(block) === 0;
      assert(!taken || this.#before.get(block) === 0, 'A block of the last commit was taken');
    }
    this.inner.increment(begin, end);
    for (let block = begin; block < end; block++) this.#add(block, 1);
  }

  decrement(begin: number, end: number): void {
    for (let block = begin; block < end; block++) this.#learn(block);
    this.inner.decrement(begin, end);
    for (let block = begin; block < end; block++) this.#add(block, -1);
  }

  allocate(): number {
    const free = this.inner.freeCount;
    const block = this.inner.allocate();
    assert((this.#now.get(block) ?? 0) === 0, 'A block in use was allocated');
    assert((this.#before.get(block) ?? 0) === 0, 'A block of the last commit was allocated');
    assert(this.inner.count(block) === 1, 'An allocated block does not have one reference');
    assert(this.inner.freeCount < free, 'An allocated block is counted as free');
    if (!this.#before.has(block)) this.#before.set(block, 0);
    this.#now.set(block, 1);
    return block;
  }

  extend(blockCount: number): void {
    this.inner.extend(blockCount);
  }

  prepareCommit(): void {
    for (const [block, count] of this.#now) {
      assert(this.inner.count(block) === count, 'A space map has lost count');
    }
    this.inner.prepareCommit();
  }

  committed(): void {
    this.inner.committed();
    this.#before.clear();
    this.#now.clear();
  }

  /** The count before this transaction; undefined when it has not touched the block. */
  protected before(block: number): number | undefined {
    return this.#before.get(block);
  }

  #learn(block: number): void {
    if (this.#now.has(block) || block >= this.inner.blockCount) return;
    const count = this.inner.count(block);
    this.#before.set(block, count);
    this.#now.set(block, count);
  }

  #add(block: number, difference: number): void {
    const count = this.#now.get(block)! + difference;
    assert(this.inner.count(block) === count, 'A space map has miscounted');
    this.#now.set(block, count);
  }
}

/** The same for the metadata's map. Its own bitmaps come and go unseen. */
export class CheckedMetadataBlocks extends CheckedSpaceMap implements MetadataBlocks {
  readonly #metadata: MetadataBlocks;

  constructor(inner: MetadataBlocks) {
    super(inner);
    this.#metadata = inner;
  }

  isNew(block: number): boolean {
    const isNew = this.#metadata.isNew(block);
    const before = this.before(block);
    assert(before === undefined || isNew === (before === 0), 'A space map is wrong about what is new');
    return isNew;
  }

  wasShared(block: number): boolean {
    const shared = this.#metadata.wasShared(block);
    const before = this.before(block);
    assert(before === undefined || shared === before > 1, 'A space map is wrong about what was shared');
    return shared;
  }
}
