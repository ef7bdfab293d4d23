/**
 * Insertion makes room on the way down: when a node is reached it has a free entry, so that a split of its child
 * never has to go up again. Source: dm-btree.c.
 */
import { StorageError } from '../base/errors.ts';
import type { ReadonlyWords, WritableBlock } from './block.ts';
import {
  childAt,
  closeGap,
  copyEntries,
  entryCount,
  initInternal,
  insertChild,
  isLeaf,
  isLike,
  keyAt,
  lowerBound,
  maxEntries,
  openGap,
  setEntryCount,
  setKey,
  shiftLeft,
  shiftRight,
  valueAt,
} from './btree-node.ts';
import type { TreeNodes } from './btree-spine.ts';

/** A sibling takes entries only if it has this much room; else the same would soon be done again. */
const WORTH_SHIFTING = 8;

/** Where an insertion ended. */
export interface Insertion {
  root: number;
  /** Keys that were not there before. */
  insertedCount: number;
  /** Keys that have the value that was given. */
  setCount: number;
}

/** Sets `key` to the value in the first words of `value`. What is overwritten is dropped (`ValueType.decrement`). */
export function insertEntry(
  nodes: TreeNodes,
  root: number,
  key: number,
  value: ReadonlyWords,
  result: Insertion,
): void {
  setValue(nodes, leafFor(nodes, root, key, result), key, value, result);
}

/**
 * Sets keys from `key` on to the `count` values from the first word of `values` on: as many as go into one leaf, at least one. Each is one more
 * reference (`ValueType.increment`); what is overwritten is dropped.
 */
export function insertRun(
  nodes: TreeNodes,
  root: number,
  key: number,
  values: ReadonlyWords,
  count: number,
  result: Insertion,
): void {
  const leaf = leafFor(nodes, root, key, result);
  setRun(nodes, leaf, key, values, Math.min(count, nodes.leafEnd - key), result);
}

/** The leaf where `key` is or belongs, with room for it; sets `nodes.leafEnd`. */
function leafFor(nodes: TreeNodes, root: number, key: number, result: Insertion): WritableBlock {
  let node = nodes.shadow(root);
  result.root = node.number;
  nodes.leafEnd = Number.POSITIVE_INFINITY;
  if (isFullFor(node, key)) splitBeneath(nodes, node);
  for (let depth = 1; !isLeaf(node.words); depth++) {
    nodes.checkDepth(depth);
    const parent = node.words;
    let index = lowerBound(parent, key);
    if (index < 0) {
      index = 0;
      setKey(parent, 0, key);
    }
    const child = nodes.shadowChild(node, index);
    if (isFullFor(child, key)) {
      node = makeRoom(nodes, node, index, child, key);
      index = lowerBound(parent, key);
    } else {
      node = child;
    }
    if (index + 1 < entryCount(parent)) nodes.leafEnd = keyAt(parent, index + 1);
  }
  return node;
}

function setRun(
  nodes: TreeNodes,
  leaf: WritableBlock,
  key: number,
  values: ReadonlyWords,
  count: number,
  result: Insertion,
): void {
  const { words } = leaf;
  const { valueType } = nodes;
  const valueWords = valueType.sizeBytes / 4;
  let index = lowerBound(words, key);
  if (index < 0 || keyAt(words, index) !== key) index++;
  result.insertedCount = 0;
  let set = 0;
  while (set < count) {
    const next = index < entryCount(words) ? keyAt(words, index) : Number.POSITIVE_INFINITY;
    let length: number;
    if (next === key + set) {
      length = 1;
      const most = Math.min(count - set, entryCount(words) - index);
      while (length < most && keyAt(words, index + length) === next + length) length++;
      // In this order: what is the same before and after never has no reference.
      valueType.increment(values, valueWords * set, length);
      valueType.decrement(words, valueAt(words, index), length);
    } else {
      length = Math.min(count - set, next - key - set, maxEntries(words) - entryCount(words));
      if (length === 0) break;
      valueType.increment(values, valueWords * set, length);
      openGap(words, index, length);
      for (let i = 0; i < length; i++) setKey(words, index + i, key + set + i);
      result.insertedCount += length;
    }
    const at = valueAt(words, index);
    for (let i = 0; i < valueWords * length; i++) words[at + i] = values[valueWords * set + i]!;
    set += length;
    index += length;
  }
  result.setCount = set;
}

function setValue(nodes: TreeNodes, leaf: WritableBlock, key: number, value: ReadonlyWords, result: Insertion): void {
  const { words } = leaf;
  const { valueType } = nodes;
  let index = lowerBound(words, key);
  const isNew = index < 0 || keyAt(words, index) !== key;
  result.setCount = 1;
  result.insertedCount = isNew ? 1 : 0;
  if (isNew) {
    index++;
    openGap(words, index, 1);
    setKey(words, index, key);
  }
  const at = valueAt(words, index);
  if (!isNew && !valueType.refersToSame(words, at, value)) valueType.decrement(words, at, 1);
  for (let i = 0; i < valueType.sizeBytes / 4; i++) words[at + i] = value[i]!;
}

/** A full leaf that has the key already only gets another value. */
function isFullFor(node: WritableBlock, key: number): boolean {
  const { words } = node;
  if (entryCount(words) < maxEntries(words)) return false;
  if (!isLeaf(words)) return true;
  const index = lowerBound(words, key);
  return index < 0 || keyAt(words, index) !== key;
}

/** The root is full: its entries go to two new children; it keeps its number. */
function splitBeneath(nodes: TreeNodes, root: WritableBlock): void {
  const { words } = root;
  const count = entryCount(words);
  const half = Math.floor(count / 2);
  const left = nodes.createLike(root);
  const right = nodes.createLike(root);
  copyEntries(words, 0, left.words, 0, half);
  setEntryCount(left.words, half);
  copyEntries(words, half, right.words, 0, count - half);
  setEntryCount(right.words, count - half);
  initInternal(words);
  insertChild(words, 0, keyAt(left.words, 0), left.number);
  insertChild(words, 1, keyAt(right.words, 0), right.number);
}

/**
 * Child `index` of `parent`, which has room, is full. Returns the node that covers `key` afterwards.
 * Entries go to a sibling with room if there is one; else two become three, or one becomes two at the ends.
 */
function makeRoom(
  nodes: TreeNodes,
  parent: WritableBlock,
  index: number,
  child: WritableBlock,
  key: number,
): WritableBlock {
  const count = entryCount(parent.words);
  let siblingShared = false;
  if (index > 0) {
    siblingShared = nodes.transaction.isShared(childAt(parent.words, index - 1));
    if (!siblingShared && hasRoom(nodes, parent, index - 1, child)) {
      const left = nodes.shadowChild(parent, index - 1);
      balancePair(parent, index, left, child);
      return key < keyAt(child.words, 0) ? left : child;
    }
  }
  if (index < count - 1) {
    const rightShared = nodes.transaction.isShared(childAt(parent.words, index + 1));
    siblingShared ||= rightShared;
    if (!rightShared && hasRoom(nodes, parent, index + 1, child)) {
      const right = nodes.shadowChild(parent, index + 1);
      balancePair(parent, index + 1, child, right);
      return key < keyAt(right.words, 0) ? child : right;
    }
  }
  if (siblingShared || count <= 2 || index === 0 || index === count - 1) {
    return splitOneIntoTwo(nodes, parent, index, child, key);
  }
  return splitTwoIntoThree(nodes, parent, index, child, key);
}

function hasRoom(nodes: TreeNodes, parent: WritableBlock, index: number, child: WritableBlock): boolean {
  const sibling = nodes.read(childAt(parent.words, index));
  if (!isLike(sibling.words, child.words)) {
    throw new StorageError(
      'EILSEQ',
      `Cannot balance ${nodes.valueType.treeName}: blocks ${sibling.number} and ${child.number} are on one level and differ in kind`,
    );
  }
  return maxEntries(sibling.words) - entryCount(sibling.words) >= WORTH_SHIFTING;
}

/** Shares the entries of two neighbours out evenly; `rightIndex` is the right one's place in the parent. */
export function balancePair(
  parent: WritableBlock,
  rightIndex: number,
  left: WritableBlock,
  right: WritableBlock,
): void {
  const leftCount = entryCount(left.words);
  const target = Math.floor((leftCount + entryCount(right.words)) / 2);
  if (leftCount > target) shiftRight(left.words, right.words, leftCount - target);
  else shiftLeft(left.words, right.words, target - leftCount);
  setKey(parent.words, rightIndex, keyAt(right.words, 0));
}

function splitOneIntoTwo(
  nodes: TreeNodes,
  parent: WritableBlock,
  index: number,
  child: WritableBlock,
  key: number,
): WritableBlock {
  const right = nodes.createLike(child);
  const count = entryCount(child.words);
  const keep = Math.floor(count / 2);
  copyEntries(child.words, keep, right.words, 0, count - keep);
  setEntryCount(right.words, count - keep);
  setEntryCount(child.words, keep);
  insertChild(parent.words, index + 1, keyAt(right.words, 0), right.number);
  return key < keyAt(right.words, 0) ? child : right;
}

function splitTwoIntoThree(
  nodes: TreeNodes,
  parent: WritableBlock,
  index: number,
  right: WritableBlock,
  key: number,
): WritableBlock {
  const left = nodes.shadowChild(parent, index - 1);
  const middle = nodes.createLike(right);
  const leftCount = entryCount(left.words);
  const total = leftCount + entryCount(right.words);
  const leftTarget = Math.floor(total / 3);
  const middleTarget = Math.floor((total - leftTarget) / 2);
  const fromLeft = leftCount - leftTarget;
  const fromRight = middleTarget - fromLeft;
  copyEntries(left.words, leftTarget, middle.words, 0, fromLeft);
  copyEntries(right.words, 0, middle.words, fromLeft, fromRight);
  setEntryCount(middle.words, middleTarget);
  setEntryCount(left.words, leftTarget);
  closeGap(right.words, 0, fromRight);
  setKey(parent.words, index, keyAt(right.words, 0));
  insertChild(parent.words, index, keyAt(middle.words, 0), middle.number);
  if (key < keyAt(middle.words, 0)) return left;
  return key < keyAt(right.words, 0) ? middle : right;
}
