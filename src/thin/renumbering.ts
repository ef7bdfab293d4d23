import { childAt, entryCount, isLeaf, setChild, valueAt } from '../persistent-data/btree-node.ts';
import { BLOCK_TIME_WORDS, writeTime } from './block-time.ts';
import { pathBlocks } from './metadata-room.ts';
import type { PoolTransaction } from './pool-transaction.ts';
import type { ThinDevices } from './thin-devices.ts';

/** All mappings are from then, and all devices were snapshotted a moment later: everything counts as shared by time. */
const TIME = 0;
const SNAPSHOTTED_TIME = 1;

/**
 * Gives a pool its times back: each snapshot takes one of 2^24. Every mapping is set to time 0, every device to a snapshot at time 1, and the pool
 * goes on counting from there. Until the other side of a block that is not shared is found out from its reference count, a write copies
 * it: that is the price, and it is never wrong, nor when this ends half-way: a mapping may always be older than it is.
 *
 * All nodes are copied, a device in a transaction. Copies of shared nodes are remembered, so that what was shared is shared afterwards. Nobody may
 * use the pool meanwhile.
 */
export class Renumbering {
  readonly #transaction: PoolTransaction;
  readonly #devices: ThinDevices;
  /** What shared nodes have become. An old node's number is not given to another node that is still to be copied: those are all old. */
  readonly #copies: Map<number, number> = new Map();

  constructor(transaction: PoolTransaction, devices: ThinDevices) {
    this.#transaction = transaction;
    this.#devices = devices;
  }

  /** A device's mappings and details. Commit before the next one. ENOSPC: grow the metadata device. */
  renumber(id: number): void {
    const action = `renumber the times of thin device ${id}`;
    this.#transaction.checkChangeable(action);
    const { trees } = this.#transaction;
    const nodes = this.#countNodes(trees.deviceRoot(id));
    // The values of shared leaves are counted up and down again: in the bitmaps, and in the trees with the counts above two.
    const counts = trees.dataMap.bitmapCount + Math.ceil(nodes / 4);
    this.#transaction.checkRoom(nodes + counts + pathBlocks(trees.metadataMap.blockCount, 3), 1, action);
    this.#transaction.change(() => {
      const thin = this.#devices.open(id);
      this.#devices.beginTreeChange(thin, 0, Number.POSITIVE_INFINITY);
      this.#devices.endTreeChange(thin, this.#copy(thin.root));
      thin.creationTime = TIME;
      thin.snapshottedTime = SNAPSHOTTED_TIME;
      this.#devices.close(thin);
    });
  }

  /** All devices have been renumbered. */
  finish(): void {
    this.#transaction.checkChangeable('renumber the times');
    this.#transaction.superblock.time = SNAPSHOTTED_TIME;
    this.#transaction.changed = true;
  }

  #countNodes(number: number): number {
    if (this.#copies.has(number)) return 0;
    const { nodes } = this.#transaction.trees.mappings;
    const { blocks } = this.#transaction;
    const mark = blocks.mark();
    const { words } = nodes.read(number);
    let count = 1;
    if (!isLeaf(words)) for (let i = 0; i < entryCount(words); i++) count += this.#countNodes(childAt(words, i));
    blocks.release(mark);
    return count;
  }

  /** Returns where the node is now; the reference to the old one has become one to it. */
  #copy(number: number): number {
    const { mappings, transaction } = this.#transaction.trees;
    const known = this.#copies.get(number);
    if (known !== undefined) {
      transaction.increment(known);
      mappings.delete(number);
      return known;
    }
    const { blocks } = this.#transaction;
    const mark = blocks.mark();
    const shared = transaction.isShared(number);
    const node = mappings.nodes.shadow(number);
    const { words } = node;
    const count = entryCount(words);
    if (isLeaf(words)) {
      for (let i = 0; i < count; i++) writeTime(words, valueAt(words, 0) + BLOCK_TIME_WORDS * i, TIME);
    } else {
      for (let i = 0; i < count; i++) setChild(words, i, this.#copy(childAt(words, i)));
    }
    blocks.release(mark);
    if (shared) this.#copies.set(number, node.number);
    return node.number;
  }
}
