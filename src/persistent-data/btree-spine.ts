import { StorageError } from '../base/errors.ts';
import type { ReadableBlock, WritableBlock } from './block.ts';
import {
  childAt,
  entryCount,
  initInternal,
  initLeaf,
  initLike,
  isLeaf,
  nodeValidator,
  setChild,
  valueAt,
  valueSizeBytes,
} from './btree-node.ts';
import type { TransactionManager } from './transaction-manager.ts';
import type { ValueType } from './value-type.ts';

/** A tree over every metadata block there can be is 5 levels deep; more is a loop in damaged metadata. */
export const MAX_DEPTH = 16;

/**
 * The nodes of the trees with one value type: read-only for lookups, shadowed on the way down (the *spine*) for changes.
 * A copied node's pointers are counted here, so that the algorithms above see only nodes that they may change.
 */
export class TreeNodes {
  readonly transaction: TransactionManager;
  readonly valueType: ValueType;
  /** A node was copied that is shared or was so at the last commit. For the owner of the trees, who resets it. */
  copiedShared = false;
  /** Set by a change of one leaf: keys from here on belong to other leaves. */
  leafEnd = 0;

  constructor(transaction: TransactionManager, valueType: ValueType) {
    this.transaction = transaction;
    this.valueType = valueType;
  }

  /** Pinned. */
  read(number: number): ReadableBlock {
    const block = this.transaction.read(number, nodeValidator);
    this.#checkLeaf(block);
    return block;
  }

  /** Null when not in the cache. Not pinned. */
  tryRead(number: number): ReadableBlock | null {
    const block = this.transaction.tryRead(number, nodeValidator);
    if (block !== null) this.#checkLeaf(block);
    return block;
  }

  /** The node for changing; pinned. Its number may be a new one, which the caller must put where it found `number`. */
  shadow(number: number): WritableBlock {
    const block = this.transaction.shadow(number, nodeValidator);
    this.#checkLeaf(block);
    if (this.transaction.copiedShared) this.incrementPointers(block);
    if (block.number !== number)
      this.copiedShared ||= this.transaction.copiedShared || this.transaction.wasShared(number);
    return block;
  }

  /**
   * Whether something else may refer to a node, now or in the last commit. `copiedShared`: of nodes that are new in this transaction it is
   * not known what they are copies of.
   */
  mayBeShared(number: number, copiedShared: boolean): boolean {
    const { transaction } = this;
    if (transaction.isShared(number)) return true;
    return transaction.isNew(number) ? copiedShared : transaction.wasShared(number);
  }

  /** Shadows child `index` of a shadowed node and points the node to it. */
  shadowChild(parent: WritableBlock, index: number): WritableBlock {
    const number = childAt(parent.words, index);
    const child = this.shadow(number);
    if (child.number !== number) setChild(parent.words, index, child.number);
    return child;
  }

  createLeaf(): WritableBlock {
    const block = this.transaction.create(nodeValidator);
    initLeaf(block.words, this.valueType.sizeBytes);
    return block;
  }

  createInternal(): WritableBlock {
    const block = this.transaction.create(nodeValidator);
    initInternal(block.words);
    return block;
  }

  createLike(node: ReadableBlock): WritableBlock {
    const block = this.transaction.create(nodeValidator);
    initLike(block.words, node.words);
    return block;
  }

  /** One more reference for everything that a node points to. */
  incrementPointers(node: ReadableBlock): void {
    const { words } = node;
    const count = entryCount(words);
    if (isLeaf(words)) this.valueType.increment(words, valueAt(words, 0), count);
    else for (let i = 0; i < count; i++) this.transaction.increment(childAt(words, i));
  }

  /** For loops over levels. */
  checkDepth(depth: number): void {
    if (depth > MAX_DEPTH) {
      throw new StorageError('EILSEQ', `Cannot walk ${this.valueType.treeName}: it is deeper than ${MAX_DEPTH} levels`);
    }
  }

  /** A node has keys outside of `[begin, end)`. */
  refuseKeys(number: number, begin: number, end: number): never {
    const { treeName } = this.valueType;
    const range = end === Number.POSITIVE_INFINITY ? `from ${begin} up` : `${begin} to ${end - 1}`;
    throw new StorageError('EILSEQ', `Cannot use block ${number} of ${treeName}: it has keys outside of ${range}`);
  }

  #checkLeaf(block: ReadableBlock): void {
    // Values are looked at once: what changes them later is ours.
    if (block.judgedAs === this.valueType) return;
    const { words } = block;
    if (isLeaf(words)) {
      const size = valueSizeBytes(words);
      const reason =
        size === this.valueType.sizeBytes
          ? this.valueType.damage(words, valueAt(words, 0), entryCount(words))
          : `its value size is ${size}, expected ${this.valueType.sizeBytes}`;
      if (reason !== null) {
        throw new StorageError(
          'EILSEQ',
          `Cannot use block ${block.number} as a leaf of ${this.valueType.treeName}: ${reason}`,
        );
      }
    }
    block.judgedAs = this.valueType;
  }
}
