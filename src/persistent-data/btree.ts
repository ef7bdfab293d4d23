import type { ReadableBlock, ReadonlyWords } from './block.ts';
import { deleteTree } from './btree-delete.ts';
import { deletionCost, dropLeaves, dropSomeLeaves, leavesCached } from './btree-drop.ts';
import { type Insertion, insertEntry, insertRun } from './btree-insert.ts';
import { childAt, entryCount, isLeaf, keyAt, lowerBound, valueAt } from './btree-node.ts';
import { type Removal, removeEntries } from './btree-remove.ts';
import { TreeNodes } from './btree-spine.ts';
import { updateValues, type ValueChange } from './btree-update.ts';
import type { TransactionManager } from './transaction-manager.ts';
import type { ValueType } from './value-type.ts';

/** No key: returned where a key is looked for and there is none. */
export const NO_KEY = -1;

export type PathSharing = 'shared' | 'exclusive' | 'unknown';

/**
 * Copy-on-write b-trees with one value type. A tree is the number of its root; operations that change it return the new
 * root, and the old one is no longer the caller's. Two trees may share nodes: that is what a snapshot is.
 *
 * Keys are whole numbers below 2^53; values are words in a caller's array.
 */
export class BTree {
  readonly nodes: TreeNodes;
  /** Set by `insert` and `insertRun`: keys that were not there before. */
  insertedCount = 0;
  /** Set by `insertRun`: keys that were set. */
  setCount = 0;
  /** Set by `removeRange`: entries removed. */
  removedCount = 0;
  /** Set by `removeRange`: where to go on. */
  nextKey = 0;
  /** Set by `lookupNext`. */
  foundKey: number = NO_KEY;
  /** Set by `findLeaf`: every key of the tree to the right of the leaf is at or above it. */
  leafEnd = 0;
  readonly #insertion: Insertion = { root: 0, insertedCount: 0, setCount: 0 };
  /** Of the leaf with the key that `#nextKeyFrom` has found. */
  #leafNumber = 0;
  #leafCount = 0;
  /** The leaf's last key if that key is its first, else beyond all. */
  #leafLast = 0;
  readonly #removal: Removal = { root: 0, removedCount: 0 };

  constructor(transaction: TransactionManager, valueType: ValueType) {
    this.nodes = new TreeNodes(transaction, valueType);
  }

  /** A new empty tree. ENOSPC. */
  empty(): number {
    const { blocks } = this.nodes.transaction;
    const mark = blocks.mark();
    const { number } = this.nodes.createLeaf();
    blocks.release(mark);
    return number;
  }

  /**
   * The leaf that holds `key` if the tree does; sets `leafEnd`. With `nonBlocking`, null when a node is not in the cache
   * (see `BlockManager.tryRead`), and nothing is pinned; otherwise the nodes on the way are.
   */
  findLeaf(root: number, key: number, nonBlocking: boolean): ReadableBlock | null {
    this.leafEnd = Number.POSITIVE_INFINITY;
    let begin = 0;
    let number = root;
    for (let depth = 1; ; depth++) {
      this.nodes.checkDepth(depth);
      const node = nonBlocking ? this.nodes.tryRead(number) : this.nodes.read(number);
      if (node === null) return null;
      const { words } = node;
      const count = entryCount(words);
      // Keys elsewhere than where their parents say would be taken for missing.
      if (count > 0 && (keyAt(words, 0) < begin || keyAt(words, count - 1) >= this.leafEnd)) {
        this.nodes.refuseKeys(number, begin, this.leafEnd);
      }
      if (isLeaf(words)) return node;
      const index = Math.max(lowerBound(words, key), 0);
      begin = keyAt(words, index);
      if (index + 1 < count) this.leafEnd = keyAt(words, index + 1);
      number = childAt(words, index);
    }
  }

  /**
   * Whether one of the nodes on the way to the leaf that covers `key` may be shared, now or in the last commit; see
   * `TreeNodes.mayBeShared`. Sets `leafEnd`. With `nonBlocking` it is not known when a node is not in the cache.
   */
  pathSharing(root: number, key: number, copiedShared: boolean, nonBlocking: boolean): PathSharing {
    const { nodes } = this;
    const { blocks } = nodes.transaction;
    const mark = blocks.mark();
    this.leafEnd = Number.POSITIVE_INFINITY;
    let number = root;
    let answer: PathSharing = 'unknown';
    for (let depth = 1; ; depth++) {
      nodes.checkDepth(depth);
      if (nodes.mayBeShared(number, copiedShared)) {
        answer = 'shared';
        break;
      }
      const node = nonBlocking ? nodes.tryRead(number) : nodes.read(number);
      if (node === null) break;
      const { words } = node;
      if (isLeaf(words)) {
        answer = 'exclusive';
        break;
      }
      const index = Math.max(lowerBound(words, key), 0);
      if (index + 1 < entryCount(words)) this.leafEnd = keyAt(words, index + 1);
      number = childAt(words, index);
    }
    blocks.release(mark);
    return answer;
  }

  /** Copies the value of `key` to `value`; false when there is none. */
  lookup(root: number, key: number, value: Uint32Array): boolean {
    const { blocks } = this.nodes.transaction;
    const mark = blocks.mark();
    const { words } = this.findLeaf(root, key, false)!;
    const index = lowerBound(words, key);
    const found = index >= 0 && keyAt(words, index) === key;
    if (found) this.#copyValue(words, index, value);
    blocks.release(mark);
    return found;
  }

  /** The entry with the smallest key at or above `key`: sets `foundKey`, copies the value; false when there is none. */
  lookupNext(root: number, key: number, value: Uint32Array): boolean {
    const { blocks } = this.nodes.transaction;
    const mark = blocks.mark();
    this.foundKey = NO_KEY;
    // Behind the last key of a leaf one goes on from the lowest key that the next leaf may have.
    for (let from = key; from !== Number.POSITIVE_INFINITY; from = this.leafEnd) {
      const { words } = this.findLeaf(root, from, false)!;
      let index = lowerBound(words, from);
      if (index < 0 || keyAt(words, index) !== from) index++;
      if (index < entryCount(words)) {
        this.foundKey = keyAt(words, index);
        this.#copyValue(words, index, value);
        break;
      }
      blocks.release(mark);
    }
    blocks.release(mark);
    return this.foundKey !== NO_KEY;
  }

  /** `NO_KEY` when the tree is empty. */
  lowestKey(root: number): number {
    return this.#outermostKey(root, false);
  }

  /** `NO_KEY` when the tree is empty. */
  highestKey(root: number): number {
    return this.#outermostKey(root, true);
  }

  /** Sets `key` to the first words of `value`; returns the new root and sets `insertedCount`. Drops what is overwritten. */
  insert(root: number, key: number, value: ReadonlyWords): number {
    const { blocks } = this.nodes.transaction;
    const mark = blocks.mark();
    insertEntry(this.nodes, root, key, value, this.#insertion);
    blocks.release(mark);
    this.insertedCount = this.#insertion.insertedCount;
    return this.#insertion.root;
  }

  /**
   * Sets `key` and the keys behind it to the `count` values in `values`, as many as go into one leaf: sets `setCount`, at least 1, and
   * `insertedCount`. Unlike `insert` it counts what the values refer to; drops what is overwritten. Returns the new root.
   */
  insertRun(root: number, key: number, values: ReadonlyWords, count: number): number {
    const { blocks } = this.nodes.transaction;
    const mark = blocks.mark();
    insertRun(this.nodes, root, key, values, count, this.#insertion);
    blocks.release(mark);
    this.insertedCount = this.#insertion.insertedCount;
    this.setCount = this.#insertion.setCount;
    return this.#insertion.root;
  }

  /** Changes the values of the entries with keys in `[begin, end)`, each of which is there. Returns the new root. */
  update(root: number, begin: number, end: number, change: ValueChange): number {
    const { blocks } = this.nodes.transaction;
    let newRoot = root;
    for (let from = begin; from < end; from = this.nodes.leafEnd) {
      const mark = blocks.mark();
      newRoot = updateValues(this.nodes, newRoot, from, end, change);
      blocks.release(mark);
    }
    return newRoot;
  }

  /** Removes `key` and drops its value; returns the new root. Without such a key nothing changes. */
  remove(root: number, key: number): number {
    return this.removeRange(root, key, key + 1, 1);
  }

  /**
   * Removes at most `limit` entries with keys in `[begin, end)`, from the lowest up, and drops their values. Returns the new
   * root; sets `removedCount`, and `nextKey`: `end` when none is left in the range, else where to go on.
   */
  removeRange(root: number, begin: number, end: number, limit: number): number {
    const { blocks } = this.nodes.transaction;
    const mark = blocks.mark();
    const removal = this.#removal;
    removal.root = root;
    this.removedCount = 0;
    this.nextKey = end;
    for (;;) {
      // Looked up first: the removal shadows as it descends, and must find what it came for.
      const key = this.#nextKeyFrom(removal.root, begin);
      if (key === NO_KEY || key >= end) break;
      if (this.removedCount === limit) {
        this.nextKey = key;
        break;
      }
      const left = limit - this.removedCount;
      // The tree that is one leaf keeps its block.
      const whole = this.#leafLast < end && this.#leafCount <= left && this.#leafNumber !== removal.root;
      if (whole) dropLeaves(this.nodes, removal.root, key, end, left, removal);
      else removeEntries(this.nodes, removal.root, key, end, left, removal);
      this.removedCount += removal.removedCount;
      blocks.release(mark);
    }
    return removal.root;
  }

  /** Drops one reference to the tree. */
  delete(root: number): void {
    deleteTree(this.nodes, root);
  }

  /** What `delete` costs, in leaves whose values have to be dropped; not exact above `limit`. */
  deletionCost(root: number, limit: number): number {
    return deletionCost(this.nodes, root, limit);
  }

  /**
   * Part of a deletion: drops about `maxLeaves` leaves of a tree that has more, and whose root is not shared. Returns the new root; sets
   * `removedCount`.
   */
  deleteSome(root: number, maxLeaves: number): number {
    const { blocks } = this.nodes.transaction;
    const mark = blocks.mark();
    dropSomeLeaves(this.nodes, root, maxLeaves, this.#removal);
    blocks.release(mark);
    this.removedCount = this.#removal.removedCount;
    return this.#removal.root;
  }

  /** See `leavesCached`. */
  leavesCached(root: number, key: number, count: number): boolean {
    return leavesCached(this.nodes, root, key, count);
  }

  /** One more reference to the tree: it is then shared by two roots. */
  share(root: number): void {
    this.nodes.transaction.increment(root);
  }

  /** The smallest key at or above `key`, or `NO_KEY`. Remembers its leaf. */
  #nextKeyFrom(root: number, key: number): number {
    const { blocks } = this.nodes.transaction;
    for (let from = key; from !== Number.POSITIVE_INFINITY; from = this.leafEnd) {
      const mark = blocks.mark();
      const { number, words } = this.findLeaf(root, from, false)!;
      let index = lowerBound(words, from);
      if (index < 0 || keyAt(words, index) !== from) index++;
      const count = entryCount(words);
      const found = index < count ? keyAt(words, index) : NO_KEY;
      this.#leafNumber = number;
      this.#leafCount = count;
      this.#leafLast = index === 0 && count > 0 ? keyAt(words, count - 1) : Number.POSITIVE_INFINITY;
      blocks.release(mark);
      if (found !== NO_KEY) return found;
    }
    return NO_KEY;
  }

  #outermostKey(root: number, highest: boolean): number {
    const { blocks } = this.nodes.transaction;
    const mark = blocks.mark();
    let number = root;
    for (let depth = 1; ; depth++) {
      this.nodes.checkDepth(depth);
      const { words } = this.nodes.read(number);
      const index = highest ? entryCount(words) - 1 : 0;
      if (!isLeaf(words)) {
        number = childAt(words, index);
        continue;
      }
      const key = entryCount(words) > 0 ? keyAt(words, index) : NO_KEY;
      blocks.release(mark);
      return key;
    }
  }

  #copyValue(words: ReadonlyWords, index: number, value: Uint32Array): void {
    const at = valueAt(words, index);
    const count = this.nodes.valueType.sizeBytes / 4;
    for (let i = 0; i < count; i++) value[i] = words[at + i]!;
  }
}
