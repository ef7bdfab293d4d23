import { beforeEach, describe, expect, it } from 'vitest';
import { BITMAP_ENTRIES } from '../../src/persistent-data/bitmap.ts';
import type { SpaceMap } from '../../src/persistent-data/space-map.ts';
import { DiskSpaceMap } from '../../src/persistent-data/space-map-disk.ts';
import { MetadataSpaceMap } from '../../src/persistent-data/space-map-metadata.ts';
import { SeededRandom } from '../support/seeded-random.ts';
import { type ModelTree, TreeStore } from '../support/tree-store.ts';

const COUNT = 10_000;

let store: TreeStore;
beforeEach(() => {
  store = new TreeStore();
});

function newTree(keys: Iterable<number> = []): ModelTree {
  const tree = store.create(store.tree(8));
  for (const key of keys) tree.insert(key, key);
  return tree;
}

function ascending(count: number): number[] {
  return Array.from({ length: count }, (_, i) => i);
}

function shuffled(keys: number[]): number[] {
  const random = new SeededRandom();
  for (let i = keys.length - 1; i > 0; i--) {
    const j = random.below(i + 1);
    [keys[i], keys[j]] = [keys[j]!, keys[i]!];
  }
  return keys;
}

/** Runs of 20 keys, the runs in random order. */
function runs(count: number): number[] {
  return shuffled(ascending(count / 20)).flatMap((run) => ascending(20).map((i) => run * 20 + i));
}

describe('btree', () => {
  it('btree/del/empty: nothing is left of it', () => {
    newTree().delete();
    store.expectConsistent([]);
  });

  it.each([
    ['btree/insert-overwrite-lookup/ascending', ascending(COUNT)],
    ['btree/insert-overwrite-lookup/descending', ascending(COUNT).toReversed()],
    ['btree/insert-overwrite-lookup/random', shuffled(ascending(COUNT))],
    ['btree/insert-overwrite-lookup/runs', runs(COUNT)],
  ])('%s', (_, keys) => {
    const tree = newTree(keys);
    store.commit();
    tree.expectSame();
    for (const key of keys) tree.insert(key, key + 1);
    expect(tree.size).toBe(COUNT);
    tree.expectSame();
    store.expectConsistent([tree]);
  });

  // Entries that two or three neighbouring leaves are brought to by removals, which have to move them to each other's side. A leaf has
  // room for 252 and wants 84.
  it.each([
    ['btree/redistribute-2/balanced', [90, 90]],
    ['btree/redistribute-2/left-below-target', [10, 120]],
    ['btree/redistribute-2/left-only', [120, 0]],
    ['btree/redistribute-2/right-below-target', [120, 10]],
    ['btree/redistribute-2/right-only', [0, 120]],
    ['btree/redistribute-3/both-above-target', [100, 1, 100]],
    ['btree/redistribute-3/left-below-target', [10, 90, 120]],
    ['btree/redistribute-3/left-only', [120, 0, 0]],
    ['btree/redistribute-3/right-below-target', [120, 90, 10]],
    ['btree/redistribute-3/right-only', [0, 0, 120]],
  ])('%s', (_, sizes) => {
    const tree = newTree(ascending(252 * 4));
    store.commit();
    const kept = sizes.flatMap((size, leaf) => ascending(size).map((i) => leaf * 126 + i));
    for (const key of shuffled(ascending(252 * 4))) {
      if (kept.includes(key)) continue;
      tree.remove(key);
    }
    expect(tree.size).toBe(kept.length);
    tree.expectSame();
    store.expectConsistent([tree]);
    const ranges = newTree(ascending(252 * 4));
    for (let leaf = 0; leaf < 8; leaf++) ranges.removeRange(leaf * 126 + (sizes[leaf] ?? 0), (leaf + 1) * 126, COUNT);
    expect(ranges.size).toBe(kept.length);
    ranges.expectSame();
    store.expectConsistent([tree, ranges]);
  });

  it('btree/remove/random: to the last', () => {
    const tree = newTree(ascending(COUNT));
    store.commit();
    for (const [i, key] of shuffled(ascending(COUNT)).entries()) {
      tree.remove(key);
      if (i % 1000 === 0) store.expectConsistent([tree]);
    }
    expect(tree.size).toBe(0);
    store.expectConsistent([tree]);
  });

  it('btree/cursor/iterate: meets every entry once, in order', () => {
    const tree = newTree(shuffled(ascending(COUNT)));
    tree.expectSame();
  });
});

interface Maps {
  map: SpaceMap;
  commit(): void;
}

function diskMap(blockCount: number): Maps {
  const map = DiskSpaceMap.format(store.transaction, []);
  map.extend(blockCount);
  return {
    map,
    commit: () => {
      map.prepareCommit();
      store.commit();
      map.committed();
    },
  };
}

function metadataMap(): Maps {
  return { map: store.map, commit: () => store.commit() };
}

describe('space map', () => {
  it('space-map/disk/boundary-size: sizes about a bitmap’s', () => {
    for (const size of [BITMAP_ENTRIES - 1, BITMAP_ENTRIES, BITMAP_ENTRIES + 1]) {
      const { map, commit } = diskMap(size);
      commit();
      expect(map.freeCount).toBe(size);
      map.increment(size - 1, size);
      expect(map.count(size - 1)).toBe(1);
      expect(() => map.count(size)).toThrow();
      map.decrement(size - 1, size);
      commit();
      expect(map.freeCount).toBe(size);
    }
  });

  it('space-map/disk/commit-cost: the same whatever the number of blocks', () => {
    const cost = (size: number): number => {
      store = new TreeStore();
      const { map, commit } = diskMap(size);
      commit();
      map.increment(5, 6);
      commit();
      const { locks } = store.blocks.stats;
      map.increment(6, 7);
      commit();
      return store.blocks.stats.locks - locks;
    };
    expect(cost(60 * BITMAP_ENTRIES)).toBeLessThanOrEqual(cost(BITMAP_ENTRIES) + 4);
  });

  it('space-map/disk/inc-cost: a run costs what its bitmaps do, not what its blocks do', () => {
    const { map, commit } = diskMap(4 * BITMAP_ENTRIES);
    commit();
    const { locks } = store.blocks.stats;
    map.increment(0, 2 * BITMAP_ENTRIES);
    expect(store.blocks.stats.locks - locks).toBeLessThan(40);
  });

  it('space-map/disk/wrapping-around: what is freed behind is found again', () => {
    const { map, commit } = diskMap(1000);
    commit();
    const taken = ascending(1000).map(() => map.allocate());
    for (let round = 0; round < 5; round++) {
      commit();
      for (const block of taken.splice(0, 300)) map.decrement(block, block + 1);
      commit();
      for (let i = 0; i < 300; i++) taken.push(map.allocate());
      expect(new Set(taken).size).toBe(1000);
    }
    expect(() => map.allocate()).toThrow(expect.objectContaining({ code: 'ENOSPC' }));
  });

  it.each([
    ['space-map/disk/free-runs/ascending', ascending(COUNT)],
    ['space-map/disk/free-runs/descending', ascending(COUNT).toReversed()],
    ['space-map/disk/free-runs/random', runs(COUNT)],
  ])('%s', (_, order) => {
    const { map, commit } = diskMap(COUNT);
    map.increment(0, COUNT);
    commit();
    for (let i = 0; i < COUNT; i += 20) {
      const begin = Math.min(order[i]!, order[i + 19]!);
      map.decrement(begin, begin + 20);
    }
    commit();
    expect(map.freeCount).toBe(COUNT);
    expect(new Set(ascending(COUNT).map(() => map.allocate())).size).toBe(COUNT);
  });

  it('space-map/disk/nr-free/all', () => {
    const { map, commit } = diskMap(COUNT);
    expect(map.freeCount).toBe(COUNT);
    commit();
    expect(map.freeCount).toBe(COUNT);
  });

  it('space-map/disk/nr-free/none', () => {
    const { map, commit } = diskMap(COUNT);
    map.increment(0, COUNT);
    commit();
    expect(map.freeCount).toBe(0);
  });

  it('space-map/disk/nr-free/across-transactions: what is freed counts at once and is handed out after the commit', () => {
    const { map, commit } = diskMap(100);
    map.increment(0, 100);
    commit();
    map.decrement(10, 20);
    expect(map.freeCount).toBe(10);
    expect(() => map.allocate()).toThrow();
    commit();
    expect(map.freeCount).toBe(10);
    expect(map.allocate()).toBeGreaterThanOrEqual(10);
  });

  it('space-map/metadata/boundary-size: a device of exactly one bitmap, and of a block more', () => {
    for (const size of [BITMAP_ENTRIES, BITMAP_ENTRIES + 1]) {
      store = new TreeStore();
      const map = MetadataSpaceMap.format(store.transaction, Math.min(size, store.blocks.blockCount));
      map.prepareCommit();
      store.blocks.writeDirtySync();
      map.committed();
      expect(map.count(map.blockCount - 1)).toBe(0);
      expect(() => map.count(map.blockCount)).toThrow();
    }
  });

  it('space-map/metadata/commit-cost: the same after many changes as after few', () => {
    const { map, commit } = metadataMap();
    const cost = (blocks: number): number => {
      for (let i = 0; i < blocks; i++) map.allocate();
      const { locks } = store.blocks.stats;
      commit();
      return store.blocks.stats.locks - locks;
    };
    expect(cost(1000)).toBeLessThanOrEqual(cost(1) + 20);
  });

  it('space-map/metadata/inc-cost: a few locks for a count', () => {
    const { map, commit } = metadataMap();
    const block = map.allocate();
    commit();
    map.increment(block, block + 1);
    const { locks } = store.blocks.stats;
    map.decrement(block, block + 1);
    expect(store.blocks.stats.locks - locks).toBeLessThan(8);
    map.decrement(block, block + 1);
  });

  it('space-map/metadata/wrapping-around: the sweep begins again, and takes nothing of the last commit', () => {
    const { map, commit } = metadataMap();
    const total = map.freeCount;
    let held: number[] = [];
    for (let round = 0; round < 6; round++) {
      const taken = ascending(Math.floor(total / 3)).map(() => map.allocate());
      expect(taken.filter((block) => held.includes(block))).toEqual([]);
      for (const block of held) map.decrement(block, block + 1);
      held = taken;
      commit();
    }
  });

  it.each([
    ['space-map/metadata/nr-free/all', 0],
    ['space-map/metadata/nr-free/none', Number.POSITIVE_INFINITY],
    ['space-map/metadata/nr-free/across-transactions', 100],
  ])('%s', (_, wanted) => {
    const { map, commit } = metadataMap();
    const free = map.freeCount;
    const taken: number[] = [];
    try {
      while (taken.length < wanted) taken.push(map.allocate());
    } catch (error) {
      expect(error).toMatchObject({ code: 'ENOSPC' });
    }
    expect(map.freeCount).toBe(free - taken.length);
    if (wanted === Number.POSITIVE_INFINITY) {
      // What the map's own blocks have left behind in this transaction counts as free and is nobody's before the commit.
      expect(map.freeCount).toBeLessThanOrEqual(2);
      return;
    }
    commit();
    for (const block of taken) map.decrement(block, block + 1);
    commit();
    expect(map.freeCount).toBe(free);
  });
});
