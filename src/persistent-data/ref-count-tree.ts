import { StorageError } from '../base/errors.ts';
import { BTree, NO_KEY } from './btree.ts';
import type { TransactionManager } from './transaction-manager.ts';
import { plainValues } from './value-type.ts';

/** A count is a u32 on disk. */
const MAX_COUNT = 0xffffffff;

/** The overflow tree of a space map: the counts of 3 and more, by block. An entry exists exactly where the bitmap says 3. */
export class RefCountTree {
  root: number;
  readonly #tree: BTree;
  readonly #value: Uint32Array = new Uint32Array(1);

  constructor(transaction: TransactionManager, name: string, root: number) {
    this.#tree = new BTree(transaction, plainValues(`${name} reference count tree`, 4));
    this.root = root;
  }

  /** Makes it empty: a new tree. */
  format(): void {
    this.root = this.#tree.empty();
  }

  /** 0 when there is no entry. */
  get(block: number): number {
    return this.#tree.lookup(this.root, block, this.#value) ? this.#value[0]! : 0;
  }

  /** The first block at or above `block` that has an entry; -1 when there is none. */
  next(block: number): number {
    return this.#tree.lookupNext(this.root, block, this.#value) ? this.#tree.foundKey : NO_KEY;
  }

  set(block: number, count: number): void {
    this.#value[0] = count;
    this.root = this.#tree.insert(this.root, block, this.#value);
  }

  remove(block: number): void {
    this.root = this.#tree.remove(this.root, block);
  }

  /** One more than `count`, which it has. ERANGE. */
  increment(block: number, count: number): void {
    if (count === MAX_COUNT) {
      throw new StorageError('ERANGE', `Cannot count references to block ${block}: it has ${count}`);
    }
    this.set(block, count + 1);
  }
}
