import fc from 'fast-check';
import { beforeEach, describe, expect, it } from 'vitest';

import { insertChild } from '../../src/persistent-data/btree-node.ts';
import { ModelTree, TreeStore } from '../support/tree-store.ts';

/** Leaves of three entries, so that a thousand of them make a deep tree. */
const SMALL_LEAVES = 1000;
const KEYS = 2000;

type Step =
  | { op: 'insert'; key: number; value: number }
  | { op: 'insert run' | 'insert leaves' | 'update'; key: number; length: number }
  | { op: 'remove'; key: number }
  | { op: 'remove range'; begin: number; length: number; limit: number }
  | { op: 'drop in steps'; leaves: number }
  | { op: 'share' | 'drop' | 'commit' };

const key = fc.nat(KEYS - 1);
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 3, arbitrary: fc.record({ op: fc.constant('insert' as const), key, value: fc.nat(1000) }) },
  {
    weight: 4,
    arbitrary: fc.record({
      op: fc.constantFrom('insert run' as const, 'insert leaves' as const, 'update' as const),
      key,
      length: fc.integer({ min: 1, max: 600 }),
    }),
  },
  { weight: 3, arbitrary: fc.record({ op: fc.constant('remove' as const), key }) },
  {
    weight: 4,
    arbitrary: fc.record({
      op: fc.constant('remove range' as const),
      begin: key,
      length: fc.integer({ min: 1, max: 700 }),
      limit: fc.oneof(fc.constant(10_000), fc.integer({ min: 1, max: 200 })),
    }),
  },
  { weight: 2, arbitrary: fc.record({ op: fc.constantFrom('share' as const, 'drop' as const, 'commit' as const) }) },
  {
    weight: 1,
    arbitrary: fc.record({ op: fc.constant('drop in steps' as const), leaves: fc.integer({ min: 1, max: 90 }) }),
  },
);

let store: TreeStore;
beforeEach(() => {
  store = new TreeStore();
});

describe.each([
  ['of small leaves', SMALL_LEAVES],
  ['of u64 values', 8],
  ['of u32 values', 4],
])('a b-tree %s', (_, valueSize) => {
  it('does what a map does, whatever is shared with it, and keeps its shape and counts', () => {
    fc.assert(
      fc.property(fc.array(step, { minLength: 5, maxLength: 40 }), (steps) => {
        store = new TreeStore();
        const tree = store.tree(valueSize);
        let trees = [store.create(tree)];
        for (const change of steps) {
          const it = trees[trees.length - 1]!;
          if (change.op === 'insert') it.insert(change.key, change.value);
          else if (change.op === 'insert run') {
            for (let i = 0; i < change.length; i++) it.insert((change.key + i) % KEYS, i);
          } else if (change.op === 'insert leaves') {
            it.insertRun(
              change.key,
              Array.from({ length: change.length }, (_, i) => (i * 7) % 90),
            );
          } else if (change.op === 'update') it.update(change.key, change.length);
          else if (change.op === 'remove') it.remove(change.key);
          else if (change.op === 'remove range')
            it.removeRange(change.begin, change.begin + change.length, change.limit);
          else if (change.op === 'commit') store.commit();
          else if (change.op === 'share') trees = [it.share(), ...trees];
          else if (change.op === 'drop in steps')
            trees.pop()!.deleteInSteps(change.leaves, (rest) => store.expectConsistent([...trees, rest]));
          else trees.pop()!.delete();
          if (trees.length === 0) trees = [store.create(tree)];
          if (trees.includes(it)) expect(it.size).toBe(it.model.size);
        }
        for (const one of trees) one.expectSame();
        store.expectConsistent(trees);
        for (const one of trees)
          one.deleteInSteps(3, (rest) => store.expectConsistent([rest, ...trees.slice(trees.indexOf(rest) + 1)]));
        store.expectConsistent([]);
      }),
      { numRuns: 12 },
    );
  });
});

describe('a root with a single child, as kernels leave them', () => {
  it('becomes what the child is, also when another tree shares the child', () => {
    const tree = store.tree(8);
    const below = store.create(tree);
    for (let i = 0; i < 100; i++) below.insert(i, 100 + i);
    const root = tree.nodes.createInternal();
    insertChild(root.words, 0, 0, below.root);
    const shared = new ModelTree(store, tree, root.number, new Map(below.model));
    store.blocks.release(0);
    store.commit();
    const other = shared.share();
    other.remove(3);
    store.expectConsistent([shared, other]);
    shared.remove(5);
    store.expectConsistent([shared, other]);
    for (const one of [shared, other]) one.expectSame();
    for (const one of [shared, other]) one.delete();
    store.expectConsistent([]);
  });
});

describe('the leaves of a b-tree', () => {
  const occupancy = (keys: Iterable<number>): number => {
    const tree = store.create(store.tree(8));
    for (const one of keys) tree.insert(one, 1);
    return tree.size / (tree.leafCount * 252);
  };
  const COUNT = 20_000;

  it('are as full as the kernel makes them: ascending, descending, at random and in runs', () => {
    const ascending = Array.from({ length: COUNT }, (_, i) => i);
    expect(occupancy(ascending)).toBeGreaterThan(0.75);
    expect(occupancy(ascending.toReversed())).toBeGreaterThan(0.49);
    let at = 1;
    expect(occupancy(ascending.map(() => (at = (at * 48271) % 2147483647)))).toBeGreaterThan(0.75);
    const runs = ascending.map((i) => ((Math.floor(i / 20) * 7919) % 1000) * 20 + (i % 20));
    expect(occupancy(runs)).toBeGreaterThan(0.8);
  });

  it('take the same number of locks for an insertion, whatever has gone before', () => {
    const tree = store.create(store.tree(8));
    for (let i = 0; i < COUNT; i++) tree.insert(i * 2, 1);
    const cost = (i: number): number => {
      const before = store.blocks.stats.locks;
      tree.insert(i * 2 + 1, 1);
      return store.blocks.stats.locks - before;
    };
    // Root and leaf, but for a split now and then.
    const costs = Array.from({ length: 100 }, (_, i) => cost(i * 199));
    expect(Math.max(...costs)).toBeLessThanOrEqual(8);
    expect(costs.filter((one) => one > 2).length).toBeLessThan(20);
  });
});
