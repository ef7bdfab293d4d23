import type { WritableBlock } from './block.ts';
import { entryCount, isLeaf, keyAt, lowerBound, valueAt } from './btree-node.ts';
import type { TreeNodes } from './btree-spine.ts';

/** Changes the value at `words[at]`, which must refer to the same things afterwards. */
export type ValueChange = (words: Uint32Array, at: number) => void;

/**
 * Changes the values of the entries of one leaf with keys from `key`, which must exist, to below `end`. Returns the new root; sets
 * `nodes.leafEnd`.
 */
export function updateValues(nodes: TreeNodes, root: number, key: number, end: number, change: ValueChange): number {
  let node: WritableBlock = nodes.shadow(root);
  const newRoot = node.number;
  nodes.leafEnd = Number.POSITIVE_INFINITY;
  for (let depth = 1; !isLeaf(node.words); depth++) {
    nodes.checkDepth(depth);
    const index = Math.max(lowerBound(node.words, key), 0);
    if (index + 1 < entryCount(node.words)) nodes.leafEnd = keyAt(node.words, index + 1);
    node = nodes.shadowChild(node, index);
  }
  const { words } = node;
  const count = entryCount(words);
  for (let i = Math.max(lowerBound(words, key), 0); i < count && keyAt(words, i) < end; i++) {
    if (keyAt(words, i) >= key) change(words, valueAt(words, i));
  }
  return newRoot;
}
