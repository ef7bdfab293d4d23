/**
 * Taking whole leaves out of a tree by the pointers to them. A leaf is read, as somebody has to know how many entries went with it, but
 * never copied, shared or not: the kernel copies each leaf, and counts one more reference for each of its values, only to drop
 * them one by one.
 */
import type { ReadableBlock, WritableBlock } from './block.ts';
import {
  childAt,
  closeGap,
  entryCount,
  initLeaf,
  isLeaf,
  keyAt,
  lowerBound,
  maxEntries,
  valueAt,
} from './btree-node.ts';
import { collapseOnce, type Removal, rebalanceAround, shadowDown } from './btree-remove.ts';
import type { TreeNodes } from './btree-spine.ts';

/** What dropping a reference costs, compared with reading a leaf and dropping its values. */
const SHARED_COST = 1 / 16;

/**
 * Drops the leaf that begins with `key` and those behind it while all their keys are below `end`: at least the first, of which the caller
 * knows that, and no more than have `limit` entries together and leave their parent a legal node.
 */
export function dropLeaves(
  nodes: TreeNodes,
  root: number,
  key: number,
  end: number,
  limit: number,
  result: Removal,
): void {
  const node = shadowDown(nodes, root, key, hasLeaves, result);
  const { words } = node;
  const isRoot = node.number === result.root;
  const first = Math.max(lowerBound(words, key), 0);
  const spare = isRoot ? entryCount(words) : Math.max(entryCount(words) - maxEntries(words) / 3, 1);
  const most = Math.min(spare, entryCount(words) - first);
  result.removedCount = 0;
  let count = 0;
  while (
    count < most &&
    (count === 0 || isBelow(nodes, childAt(words, first + count), end, limit - result.removedCount))
  ) {
    result.removedCount += dropLeaf(nodes, childAt(words, first + count));
    count++;
  }
  closeGap(words, first, count);
  if (entryCount(words) === 0) initLeaf(words, nodes.valueType.sizeBytes);
}

/**
 * What it costs to drop a reference to a whole tree (`deleteTree`), in leaves whose values have to be dropped. No more than a little above
 * `limit` is looked at.
 */
export function deletionCost(nodes: TreeNodes, root: number, limit: number): number {
  if (nodes.transaction.isShared(root)) return SHARED_COST;
  return costBelow(nodes, root, levelsBelow(nodes, root), limit);
}

function costBelow(nodes: TreeNodes, number: number, level: number, limit: number): number {
  if (nodes.transaction.isShared(number)) return SHARED_COST;
  if (level === 0) return 1;
  const { blocks } = nodes.transaction;
  const mark = blocks.mark();
  const { words } = nodes.read(number);
  let cost = 0;
  for (let i = 0; i < entryCount(words) && cost <= limit; i++) {
    cost += costBelow(nodes, childAt(words, i), level - 1, limit - cost);
  }
  blocks.release(mark);
  return cost;
}

/**
 * Drops some leaves of a tree that is to be deleted, at least one and, but for a node's last ones, at most `maxLeaves`. Nodes that are shared stay for the end
 * where that is possible: then they cost nothing but a count, while now somebody would have to read how many entries are below
 * them. The tree costs more than `maxLeaves`, which is at least 1.
 */
export function dropSomeLeaves(nodes: TreeNodes, root: number, maxLeaves: number, result: Removal): void {
  let node = nodes.shadow(root);
  result.root = node.number;
  result.removedCount = 0;
  let level = levelsBelow(nodes, node.number);
  for (;;) {
    const { words } = node;
    if (node.number === result.root && level > 1 && entryCount(words) === 1) {
      collapseOnce(nodes, node);
      level--;
      continue;
    }
    if (level === 1) {
      const keep = node.number === result.root ? 1 : Math.min(maxEntries(words) / 3, entryCount(words) - 1);
      dropFirst(nodes, node, Math.min(maxLeaves, entryCount(words) - keep), result);
      return;
    }
    const index = firstExclusive(nodes, node);
    const child = nodes.read(childAt(words, index));
    if (level === 2 && entryCount(child.words) <= maxLeaves) {
      dropParent(nodes, child, result);
      closeGap(words, index, 1);
      return;
    }
    if (entryCount(child.words) <= maxEntries(child.words) / 3) {
      const key = keyAt(words, index);
      rebalanceAround(nodes, node, key);
      if (node.number === result.root && entryCount(words) === 1) continue;
      node = nodes.shadowChild(node, Math.max(lowerBound(words, key), 0));
    } else {
      node = nodes.shadowChild(node, index);
    }
    level--;
  }
}

/** In `leavesCached`: where `dropSomeLeaves` goes next. */
export const NEXT_TO_DROP = -1;

/**
 * Whether the next `count` leaves from `key` on, or those that `dropSomeLeaves` takes next, are in the cache, with the nodes above them; those that
 * are not have been noted for `BlockManager.prefetch`. Only leaves with the same parent are looked at.
 */
export function leavesCached(nodes: TreeNodes, root: number, key: number, count: number): boolean {
  let node = nodes.tryRead(root);
  for (let depth = 1; node !== null && !isLeaf(node.words); depth++) {
    nodes.checkDepth(depth);
    const { words }: ReadableBlock = node;
    const first = key === NEXT_TO_DROP ? firstExclusive(nodes, node) : Math.max(lowerBound(words, key), 0);
    node = nodes.tryRead(childAt(words, first));
    if (node === null || !isLeaf(node.words)) continue;
    let cached = true;
    const end = Math.min(entryCount(words), first + count);
    for (let i = first + 1; i < end; i++) cached = nodes.tryRead(childAt(words, i)) !== null && cached;
    return cached;
  }
  return node !== null;
}

/** Levels of the tree below a node: 0 for a leaf. */
function levelsBelow(nodes: TreeNodes, root: number): number {
  const { blocks } = nodes.transaction;
  let number = root;
  for (let level = 0; ; level++) {
    nodes.checkDepth(level);
    const mark = blocks.mark();
    const { words } = nodes.read(number);
    const leaf = isLeaf(words);
    if (!leaf) number = childAt(words, 0);
    blocks.release(mark);
    if (leaf) return level;
  }
}

function hasLeaves(nodes: TreeNodes, node: ReadableBlock, key: number): boolean {
  const { blocks } = nodes.transaction;
  const mark = blocks.mark();
  const leaves = isLeaf(nodes.read(childAt(node.words, Math.max(lowerBound(node.words, key), 0))).words);
  blocks.release(mark);
  return leaves;
}

/** The first child that nothing else points to; the first of all when there is none. */
function firstExclusive(nodes: TreeNodes, node: ReadableBlock): number {
  const count = entryCount(node.words);
  for (let i = 0; i < count; i++) if (!nodes.transaction.isShared(childAt(node.words, i))) return i;
  return 0;
}

function isBelow(nodes: TreeNodes, number: number, end: number, limit: number): boolean {
  const { blocks } = nodes.transaction;
  const mark = blocks.mark();
  const { words } = nodes.read(number);
  const count = entryCount(words);
  const below = count <= limit && (count === 0 || keyAt(words, count - 1) < end);
  blocks.release(mark);
  return below;
}

/** Drops the first `count` leaves of their parent. */
function dropFirst(nodes: TreeNodes, parent: WritableBlock, count: number, result: Removal): void {
  for (let i = 0; i < count; i++) result.removedCount += dropLeaf(nodes, childAt(parent.words, i));
  closeGap(parent.words, 0, count);
}

/** Drops a reference to a node with leaves below it. */
function dropParent(nodes: TreeNodes, parent: ReadableBlock, result: Removal): void {
  const { transaction } = nodes;
  const { number, words } = parent;
  const shared = transaction.isShared(number);
  for (let i = 0; i < entryCount(words); i++) {
    const leaf = childAt(words, i);
    result.removedCount += shared ? entriesOf(nodes, leaf) : dropLeaf(nodes, leaf);
  }
  transaction.decrement(number);
}

/** Drops a reference to a leaf; returns its entries. */
function dropLeaf(nodes: TreeNodes, number: number): number {
  const { transaction, valueType } = nodes;
  const mark = transaction.blocks.mark();
  const { words } = nodes.read(number);
  const count = entryCount(words);
  if (count > 0 && !transaction.isShared(number)) valueType.decrement(words, valueAt(words, 0), count);
  transaction.blocks.release(mark);
  transaction.decrement(number);
  return count;
}

function entriesOf(nodes: TreeNodes, number: number): number {
  const { blocks } = nodes.transaction;
  const mark = blocks.mark();
  const count = entryCount(nodes.read(number).words);
  blocks.release(mark);
  return count;
}
