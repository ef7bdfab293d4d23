import { expect } from 'vitest';
import type { ReadonlyWords } from '../../src/persistent-data/block.ts';
import { BlockManager } from '../../src/persistent-data/block-manager.ts';
import { BTree, NO_KEY } from '../../src/persistent-data/btree.ts';
import {
  childAt,
  entryCount,
  isLeaf,
  keyAt,
  maxEntries,
  nodeValidator,
  valueAt,
} from '../../src/persistent-data/btree-node.ts';
import { MetadataSpaceMap } from '../../src/persistent-data/space-map-metadata.ts';
import { TransactionManager } from '../../src/persistent-data/transaction-manager.ts';
import type { ValueType } from '../../src/persistent-data/value-type.ts';
import { TestDevice } from './test-device.ts';

const CACHE_BLOCKS = 160;

/** Counts what leaves refer to: the first word of each value is the number of a thing. */
class CountedValues implements ValueType {
  readonly treeName = 'test tree';
  readonly sizeBytes: number;
  readonly counts: Map<number, number>;

  constructor(sizeBytes: number, counts: Map<number, number>) {
    this.sizeBytes = sizeBytes;
    this.counts = counts;
  }

  increment(words: ReadonlyWords, at: number, count: number): void {
    for (let i = 0; i < count; i++) this.#add(words[at + (i * this.sizeBytes) / 4]!, 1);
  }

  decrement(words: ReadonlyWords, at: number, count: number): void {
    for (let i = 0; i < count; i++) this.#add(words[at + (i * this.sizeBytes) / 4]!, -1);
  }

  refersToSame(words: ReadonlyWords, at: number, value: ReadonlyWords): boolean {
    return words[at] === value[0];
  }

  damage(): null {
    return null;
  }

  #add(thing: number, difference: number): void {
    const count = (this.counts.get(thing) ?? 0) + difference;
    if (count < 0) throw new Error(`count of ${thing} below zero`);
    if (count === 0) this.counts.delete(thing);
    else this.counts.set(thing, count);
  }
}

/** A metadata device with trees on it, and nothing else. */
export class TreeStore {
  readonly device: TestDevice = new TestDevice(24 << 20);
  readonly blocks: BlockManager;
  readonly transaction: TransactionManager;
  readonly map: MetadataSpaceMap;
  readonly counts: Map<number, number> = new Map();
  readonly #heights: Map<number, number> = new Map();
  /** Blocks in use without any tree. */
  readonly #ownBlocks: number;

  constructor() {
    this.blocks = new BlockManager(this.device, this.device.sizeBytes / 4096, new Uint8Array(CACHE_BLOCKS * 4096));
    this.transaction = new TransactionManager(this.blocks);
    this.map = MetadataSpaceMap.format(this.transaction, this.blocks.blockCount);
    this.commit();
    this.#ownBlocks = this.map.blockCount - this.map.freeCount;
  }

  tree(valueSize: number): BTree {
    return new BTree(this.transaction, new CountedValues(valueSize, this.counts));
  }

  create(tree: BTree): ModelTree {
    return new ModelTree(this, tree, tree.empty(), new Map());
  }

  /** As a pool would, but for the superblock; then forgets the cache, so that what was written is what is read. */
  commit(): void {
    this.map.prepareCommit();
    this.blocks.writeDirtySync();
    this.map.committed();
    this.blocks.reset();
  }

  /** Walks everything: shapes, metadata counts and value counts are what they must be with exactly these trees. */
  expectConsistent(trees: readonly ModelTree[]): void {
    const parents = new Map<number, number>();
    const things = new Map<number, number>();
    for (const tree of trees) this.#walk(tree.root, 0, Infinity, true, parents, things);
    expect(new Map([...parents.keys()].map((block) => [block, this.map.count(block)]))).toEqual(parents);
    // Overflow counts of the map itself take blocks.
    const overflow = [...parents.values()].some((count) => count > 2);
    const used = this.map.blockCount - this.map.freeCount;
    if (!overflow) expect(used).toBe(parents.size + this.#ownBlocks);
    expect(new Map([...this.counts].sort())).toEqual(new Map([...things].sort()));
    expect(this.blocks.mark()).toBe(0);
  }

  #walk(
    number: number,
    begin: number,
    end: number,
    isRoot: boolean,
    parents: Map<number, number>,
    things: Map<number, number>,
  ): number {
    const before = parents.get(number) ?? 0;
    parents.set(number, before + 1);
    if (before > 0) return this.#heights.get(number)!;
    const mark = this.blocks.mark();
    const { words } = this.blocks.read(number, nodeValidator);
    const count = entryCount(words);
    if (!isRoot && count < maxEntries(words) / 3) throw new Error(`block ${number} is underfull: ${count}`);
    let height = 0;
    for (let i = 0; i < count; i++) {
      const key = keyAt(words, i);
      if (key < begin || key >= end || (i > 0 && key <= keyAt(words, i - 1)))
        throw new Error(`key ${key} out of place`);
      if (isLeaf(words)) {
        const thing = words[valueAt(words, i)]!;
        things.set(thing, (things.get(thing) ?? 0) + 1);
      } else {
        const below = this.#walk(
          childAt(words, i),
          key,
          i + 1 < count ? keyAt(words, i + 1) : end,
          false,
          parents,
          things,
        );
        if (height !== 0 && below !== height) throw new Error('leaves on different levels');
        height = below;
      }
    }
    this.blocks.release(mark);
    this.#heights.set(number, height + 1);
    return height + 1;
  }
}

/** A tree and the map that it stands for. */
export class ModelTree {
  readonly model: Map<number, number>;
  root: number;
  /** Entries as insertions and removals have counted them. */
  size: number;
  readonly #store: TreeStore;
  readonly #tree: BTree;
  readonly #value: Uint32Array;

  constructor(store: TreeStore, tree: BTree, root: number, model: Map<number, number>) {
    this.#store = store;
    this.#tree = tree;
    this.#value = new Uint32Array(tree.nodes.valueType.sizeBytes / 4);
    this.root = root;
    this.model = model;
    this.size = model.size;
  }

  /** Leaves that the tree has. */
  get leafCount(): number {
    let count = 0;
    for (let key = 0; key !== Infinity; key = this.#tree.leafEnd) {
      this.#tree.findLeaf(this.root, key, false);
      this.#store.blocks.release(0);
      count++;
    }
    return count;
  }

  insert(key: number, thing: number): void {
    // Who inserts brings a reference along, unless the same thing is there already.
    const { counts } = this.#store;
    if (this.model.get(key) !== thing) counts.set(thing, (counts.get(thing) ?? 0) + 1);
    this.#value[0] = thing;
    this.root = this.#tree.insert(this.root, key, this.#value);
    if ((this.#tree.insertedCount === 1) === this.model.has(key))
      throw new Error(`insertedCount is ${this.#tree.insertedCount}`);
    this.size += this.#tree.insertedCount;
    this.model.set(key, thing);
  }

  /** The tree counts up what they refer to, and down what they take the place of. */
  insertRun(key: number, things: readonly number[]): void {
    const words = this.#value.length;
    const values = new Uint32Array(words * things.length);
    for (const [i, thing] of things.entries()) values[words * i] = thing;
    for (let done = 0; done < things.length; ) {
      const { root } = this;
      this.root = this.#tree.insertRun(root, key + done, values.subarray(words * done), things.length - done);
      const { setCount, insertedCount } = this.#tree;
      const keys = Array.from({ length: setCount }, (_, i) => key + done + i);
      expect(setCount).toBeGreaterThan(0);
      expect(insertedCount).toBe(keys.filter((one) => !this.model.has(one)).length);
      for (const [i, one] of keys.entries()) this.model.set(one, things[done + i]!);
      this.size += insertedCount;
      done += setCount;
    }
  }

  /** Writes the values of the entries at and behind `key`, as many as follow each other, once more. Returns how many. */
  update(key: number, most: number): number {
    let end = key;
    while (end < key + most && this.model.has(end)) end++;
    let count = 0;
    if (end > key) {
      this.root = this.#tree.update(this.root, key, end, (words, at) => {
        const thing = words[at]!;
        words[at] = 0;
        words[at] = thing;
        count++;
      });
    }
    expect(count).toBe(end - key);
    return count;
  }

  remove(key: number): void {
    this.root = this.#tree.remove(this.root, key);
    expect(this.#tree.removedCount).toBe(this.model.delete(key) ? 1 : 0);
    this.size -= this.#tree.removedCount;
  }

  removeRange(begin: number, end: number, limit: number): void {
    this.root = this.#tree.removeRange(this.root, begin, end, limit);
    const keys = [...this.model.keys()].filter((key) => key >= begin && key < end).sort((a, b) => a - b);
    expect(this.#tree.removedCount).toBe(Math.min(keys.length, limit));
    expect(this.#tree.nextKey).toBe(keys.length > limit ? keys[limit] : end);
    for (const key of keys.slice(0, limit)) this.model.delete(key);
    this.size -= this.#tree.removedCount;
  }

  /** Another tree with the same entries, sharing every node. */
  share(): ModelTree {
    this.#tree.share(this.root);
    return new ModelTree(this.#store, this.#tree, this.root, new Map(this.model));
  }

  delete(): void {
    this.#tree.delete(this.root);
  }

  /** Deletes the tree a few leaves at a time; calls `between` when the rest of it is still a tree. Returns the number of steps. */
  deleteInSteps(maxLeaves: number, between: (rest: ModelTree) => void): number {
    let steps = 1;
    for (; this.#tree.deletionCost(this.root, maxLeaves) > maxLeaves; steps++) {
      this.root = this.#tree.deleteSome(this.root, maxLeaves);
      if (this.#tree.removedCount === 0) throw new Error('a step has removed nothing');
      this.size -= this.#tree.removedCount;
      if (this.entryCount !== this.size) throw new Error(`${this.entryCount} entries are left, ${this.size} expected`);
      between(this);
    }
    this.delete();
    return steps;
  }

  /** Entries that the tree has. */
  get entryCount(): number {
    let count = 0;
    for (let key = 0; key !== Infinity; key = this.#tree.leafEnd) {
      count += entryCount(this.#tree.findLeaf(this.root, key, false)!.words);
      this.#store.blocks.release(0);
    }
    return count;
  }

  /** Lookups, the next keys and the ends agree with the model. */
  expectSame(): void {
    const keys = [...this.model.keys()].sort((a, b) => a - b);
    expect(this.#tree.lowestKey(this.root)).toBe(keys[0] ?? NO_KEY);
    expect(this.#tree.highestKey(this.root)).toBe(keys.at(-1) ?? NO_KEY);
    const walked: [number, number][] = [];
    for (let key = 0; this.#tree.lookupNext(this.root, key, this.#value); key = this.#tree.foundKey + 1) {
      walked.push([this.#tree.foundKey, this.#value[0]!]);
    }
    expect(walked).toEqual(keys.map((key) => [key, this.model.get(key)]));
    const looked = keys.map((key) => this.#tree.lookup(this.root, key, this.#value) && this.#value[0]);
    expect(looked).toEqual(keys.map((key) => this.model.get(key)));
    const missing = keys.map((key) => key + 1).filter((key) => !this.model.has(key));
    expect(missing.filter((key) => this.#tree.lookup(this.root, key, this.#value))).toEqual([]);
  }
}
