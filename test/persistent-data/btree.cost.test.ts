import { beforeEach, describe, expect, it } from 'vitest';
import { type ModelTree, TreeStore } from '../support/tree-store.ts';

/** What changes of a tree cost in nodes, exactly. The trees have two levels and three, of small leaves. */
const SMALL_LEAVES = 1000;

interface Cost {
  /** Nodes handed out. */
  locks: number;
  /** Blocks that the commit writes: new nodes, a bitmap and the index. */
  written: number;
}

let store: TreeStore;

function treeOf(entries: number): ModelTree {
  const tree = store.create(store.tree(SMALL_LEAVES));
  for (let key = 0; key < entries; key++) tree.insert(key, key);
  store.commit();
  return tree;
}

function cost(work: () => void): Cost {
  const { stats } = store.blocks;
  const { locks, writes } = stats;
  work();
  const handedOut = stats.locks - locks;
  store.commit();
  return { locks: handedOut, written: stats.writes - writes };
}

/** Of the same change in both trees. */
function onBoth(work: (tree: ModelTree) => void, prepare: (tree: ModelTree) => void = () => {}): [Cost, Cost] {
  const costs = [100, 1500].map((entries) => {
    const tree = treeOf(entries);
    prepare(tree);
    store.commit();
    return cost(() => work(tree));
  });
  return costs as [Cost, Cost];
}

beforeEach(() => {
  store = new TreeStore();
});

describe('the cost of a change of a tree of two levels, and of three', () => {
  it('insertion: the path', () => {
    expect(onBoth((tree) => tree.insert(5000, 1))).toEqual([
      { locks: 6, written: 5 },
      { locks: 8, written: 6 },
    ]);
  });

  it('overwriting: the path', () => {
    expect(onBoth((tree) => tree.insert(50, 1))).toEqual([
      { locks: 4, written: 4 },
      { locks: 6, written: 5 },
    ]);
  });

  it('overwriting what is shared: the path', () => {
    expect(
      onBoth(
        (tree) => tree.insert(50, 1),
        (tree) => void tree.share(),
      ),
    ).toEqual([
      { locks: 4, written: 4 },
      { locks: 6, written: 5 },
    ]);
  });

  it('removal of an entry: the path, and a sibling of the leaf at most', () => {
    expect(onBoth((tree) => tree.remove(50))).toEqual([
      { locks: 11, written: 3 },
      { locks: 18, written: 4 },
    ]);
  });

  it('removal of a third of it: the nodes above the leaves', () => {
    expect(onBoth((tree) => tree.removeRange(20, 60, 1000))).toEqual([
      { locks: 89, written: 3 },
      { locks: 96, written: 4 },
    ]);
    expect(
      onBoth(
        (tree) => tree.removeRange(20, 60, 1000),
        (tree) => void tree.share(),
      ),
    ).toEqual([
      { locks: 89, written: 3 },
      { locks: 96, written: 4 },
    ]);
  });

  it('sharing and dropping what is shared: no node', () => {
    expect(onBoth((tree) => void tree.share())).toEqual([
      { locks: 0, written: 2 },
      { locks: 0, written: 2 },
    ]);
    expect(
      onBoth(
        (tree) => tree.delete(),
        (tree) => void tree.share(),
      ),
    ).toEqual([
      { locks: 0, written: 2 },
      { locks: 0, written: 2 },
    ]);
  });

  it('deletion: reads each node once, writes none', () => {
    expect(onBoth((tree) => tree.delete())).toEqual([
      { locks: 99, written: 2 },
      { locks: 1506, written: 2 },
    ]);
  });
});
