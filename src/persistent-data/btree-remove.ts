/**
 * Removal rebalances on the way down: when a node is reached it has more than a third of its entries, so that one can go
 * without leaving it underfull. Unlike the kernel, a collapse of the root is followed by another rebalancing; nodes that are
 * underfull already, as older kernels left them, are put right when met. Source: dm-btree-remove.c.
 */
import { assert } from '../base/assert.ts';
import { StorageError } from '../base/errors.ts';
import type { WritableBlock } from './block.ts';
import { balancePair } from './btree-insert.ts';
import {
  childAt,
  closeGap,
  entryCount,
  isLeaf,
  isLike,
  keyAt,
  lowerBound,
  maxEntries,
  setKey,
  shiftLeft,
  shiftRight,
  valueAt,
} from './btree-node.ts';
import type { TreeNodes } from './btree-spine.ts';

/** What a removal did. */
export interface Removal {
  root: number;
  removedCount: number;
}

/**
 * Removes entries of one leaf, from `key` on, which must exist, while keys are below `end`: at least one, at most `limit`, and no more than
 * leave the leaf a legal node. The values are dropped (`ValueType.decrement`).
 */
export function removeEntries(
  nodes: TreeNodes,
  root: number,
  key: number,
  end: number,
  limit: number,
  result: Removal,
): void {
  const node = shadowDown(nodes, root, key, isLeafNode, result);
  const { words } = node;
  const index = lowerBound(words, key);
  assert(index >= 0 && keyAt(words, index) === key, 'A key to remove is not in its tree');
  const spare = node.number === result.root ? limit : Math.max(entryCount(words) - maxEntries(words) / 3, 1);
  const most = Math.min(limit, spare, entryCount(words) - index);
  let count = 1;
  while (count < most && keyAt(words, index + count) < end) count++;
  nodes.valueType.decrement(words, valueAt(words, index), count);
  closeGap(words, index, count);
  result.removedCount = count;
}

function isLeafNode(_: TreeNodes, node: WritableBlock): boolean {
  return isLeaf(node.words);
}

/**
 * Shadows the nodes on the way to `key` down to the first for which `isEnd` holds, and returns that. The root has more than one child, and all others
 * more than a third of their entries, so that some can go. Sets `result.root`.
 */
export function shadowDown(
  nodes: TreeNodes,
  root: number,
  key: number,
  isEnd: (nodes: TreeNodes, node: WritableBlock, key: number) => boolean,
  result: Removal,
): WritableBlock {
  let node = nodes.shadow(root);
  result.root = node.number;
  for (let depth = 1; !isEnd(nodes, node, key); depth++) {
    nodes.checkDepth(depth);
    if (node.number === result.root && entryCount(node.words) === 1) {
      collapseOnce(nodes, node);
      continue;
    }
    rebalanceAround(nodes, node, key);
    // Two children of the root may have become one.
    if (node.number === result.root && entryCount(node.words) === 1) continue;
    node = nodes.shadowChild(node, Math.max(lowerBound(node.words, key), 0));
  }
  return node;
}

/** A root with a single child becomes what that child is: the tree loses a level. */
export function collapseOnce(nodes: TreeNodes, root: WritableBlock): void {
  const number = childAt(root.words, 0);
  const child = nodes.read(number);
  if (nodes.transaction.isShared(number)) nodes.incrementPointers(child);
  nodes.copiedShared ||= nodes.mayBeShared(number, false);
  root.words.set(child.words as Uint32Array);
  nodes.transaction.decrement(number);
}

/** Sees to it that the child of `parent` that covers `key` has more than a third of its entries, if it has siblings. */
export function rebalanceAround(nodes: TreeNodes, parent: WritableBlock, key: number): void {
  const count = entryCount(parent.words);
  if (count < 2) return;
  const index = Math.max(lowerBound(parent.words, key), 0);
  // The kernel shares entries out whenever it passes; leaving a node with enough alone costs fewer copies.
  const { words } = nodes.read(childAt(parent.words, index));
  if (entryCount(words) > maxEntries(words) / 3) return;
  if (index === 0) rebalancePair(nodes, parent, 0);
  else if (index === count - 1) rebalancePair(nodes, parent, index - 1);
  else rebalanceTriple(nodes, parent, index - 1);
}

/** Children `index` and `index + 1`: merged if one node holds them with a third to spare, else shared out evenly. */
function rebalancePair(nodes: TreeNodes, parent: WritableBlock, index: number): void {
  const left = nodes.shadowChild(parent, index);
  const right = nodes.shadowChild(parent, index + 1);
  checkAlike(nodes, left, right);
  const rightCount = entryCount(right.words);
  const threshold = 2 * (maxEntries(left.words) / 3 + 1);
  if (entryCount(left.words) + rightCount < threshold) {
    shiftLeft(left.words, right.words, rightCount);
    dropChild(nodes, parent, index + 1);
  } else {
    balancePair(parent, index + 1, left, right);
  }
}

/** Children `index` to `index + 2`: the middle one dissolved if two nodes hold them all, else shared out evenly. */
function rebalanceTriple(nodes: TreeNodes, parent: WritableBlock, index: number): void {
  const left = nodes.shadowChild(parent, index);
  const middle = nodes.shadowChild(parent, index + 1);
  const right = nodes.shadowChild(parent, index + 2);
  checkAlike(nodes, left, middle);
  checkAlike(nodes, middle, right);
  const leftCount = entryCount(left.words);
  const middleCount = entryCount(middle.words);
  const total = leftCount + middleCount + entryCount(right.words);
  if (total < 4 * (maxEntries(left.words) / 3) + 1) {
    const toLeft = Math.min(maxEntries(left.words) - leftCount, middleCount);
    shiftLeft(left.words, middle.words, toLeft);
    shiftRight(middle.words, right.words, middleCount - toLeft);
    setKey(parent.words, index + 2, keyAt(right.words, 0));
    dropChild(nodes, parent, index + 1);
    rebalancePair(nodes, parent, index);
    return;
  }
  const rightTarget = Math.floor(total / 3);
  const leftTarget = total % 3 === 0 ? rightTarget : rightTarget + 1;
  shareOut(left.words, middle.words, right.words, leftTarget, rightTarget);
  setKey(parent.words, index + 1, keyAt(middle.words, 0));
  setKey(parent.words, index + 2, keyAt(right.words, 0));
}

function shareOut(
  left: Uint32Array,
  middle: Uint32Array,
  right: Uint32Array,
  leftTarget: number,
  rightTarget: number,
): void {
  // The middle passes on what it is given, so each side first takes what leaves it room: an outer node that is too full
  // gives only as much as the middle can hold for the moment.
  for (;;) {
    const fromLeft = entryCount(left) - leftTarget;
    const fromRight = entryCount(right) - rightTarget;
    if (fromLeft === 0 && fromRight === 0) return;
    if (fromLeft < 0) shiftLeft(left, middle, Math.min(-fromLeft, entryCount(middle)));
    if (fromRight < 0) shiftRight(middle, right, Math.min(-fromRight, entryCount(middle)));
    if (fromLeft > 0) shiftRight(left, middle, Math.min(fromLeft, maxEntries(middle) - entryCount(middle)));
    if (fromRight > 0) shiftLeft(middle, right, Math.min(fromRight, maxEntries(middle) - entryCount(middle)));
  }
}

/** Takes an emptied child out; what it pointed to has moved. */
function dropChild(nodes: TreeNodes, parent: WritableBlock, index: number): void {
  const number = childAt(parent.words, index);
  closeGap(parent.words, index, 1);
  nodes.transaction.decrement(number);
}

function checkAlike(nodes: TreeNodes, a: WritableBlock, b: WritableBlock): void {
  if (isLike(a.words, b.words)) return;
  throw new StorageError(
    'EILSEQ',
    `Cannot balance ${nodes.valueType.treeName}: blocks ${a.number} and ${b.number} are on one level and differ in kind`,
  );
}
