import { childAt, entryCount, isLeaf, valueAt } from './btree-node.ts';
import type { TreeNodes } from './btree-spine.ts';

/**
 * Drops one reference to a whole tree: where that was the last one to a node, its children or values are dropped
 * and the node is free. Reads every node that is not shared. Source: dm-btree.c.
 */
export function deleteTree(nodes: TreeNodes, root: number): void {
  deleteBelow(nodes, root, 1);
}

function deleteBelow(nodes: TreeNodes, number: number, depth: number): void {
  nodes.checkDepth(depth);
  const { transaction, valueType } = nodes;
  if (!transaction.isShared(number)) {
    const mark = transaction.blocks.mark();
    const { words } = nodes.read(number);
    const count = entryCount(words);
    if (isLeaf(words)) {
      if (count > 0) valueType.decrement(words, valueAt(words, 0), count);
    } else {
      for (let i = 0; i < count; i++) deleteBelow(nodes, childAt(words, i), depth + 1);
    }
    transaction.blocks.release(mark);
  }
  transaction.decrement(number);
}
