import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { RunSet } from '../../src/base/run-set.ts';
import { BITMAP_ENTRIES } from '../../src/persistent-data/bitmap.ts';
import { BTree } from '../../src/persistent-data/btree.ts';
import { INDEX_ENTRY_SIZE, writeIndexEntry } from '../../src/persistent-data/index-entry.ts';
import type { AllocationOrder } from '../../src/persistent-data/space-map.ts';
import { CheckedSpaceMap } from '../../src/persistent-data/space-map-checked.ts';
import { DiskSpaceMap } from '../../src/persistent-data/space-map-disk.ts';
import { plainValues } from '../../src/persistent-data/value-type.ts';
import { countsOf, SpaceMapModel } from '../support/space-map-cases.ts';
import { TreeStore } from '../support/tree-store.ts';

interface Case {
  store: TreeStore;
  map: DiskSpaceMap;
  freed: RunSet;
  discarding: RunSet;
}

function make(blockCount: number, order: AllocationOrder = 'sweep'): Case {
  const store = new TreeStore();
  const freed = new RunSet();
  const discarding = new RunSet();
  const map = DiskSpaceMap.format(store.transaction, [freed, discarding]);
  map.order = order;
  map.extend(blockCount);
  commit({ store, map, freed, discarding });
  return { store, map, freed, discarding };
}

function commit({ store, map }: Case): void {
  map.prepareCommit();
  store.commit();
  map.committed();
}

/** The map as somebody else finds it after the last commit. */
function reopened({ store, map }: Case): DiskSpaceMap {
  return DiskSpaceMap.open(store.transaction, map.root, []);
}

describe('the data space map', () => {
  const block = fc.nat(299);
  const step = fc.oneof(
    {
      weight: 6,
      arbitrary: fc.record({ op: fc.constant('allocate' as const), count: fc.integer({ min: 1, max: 60 }) }),
    },
    { weight: 4, arbitrary: fc.record({ op: fc.constant('increment' as const), block, count: fc.nat(20) }) },
    { weight: 6, arbitrary: fc.record({ op: fc.constant('decrement' as const), block, count: fc.nat(80) }) },
    { weight: 3, arbitrary: fc.record({ op: fc.constant('commit' as const) }) },
    { weight: 1, arbitrary: fc.record({ op: fc.constant('extend' as const), count: fc.nat(200) }) },
  );

  it.each<AllocationOrder>(['sweep', 'first-fit'])('counts and allocates (%s) like an array', (order) => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const it = make(300, order);
        const map = new CheckedSpaceMap(it.map);
        const model = new SpaceMapModel(300);
        const freed = new Set<number>();
        for (const change of steps) {
          if (change.op === 'allocate') {
            for (let i = 0; i < change.count; i++) {
              // First-fit need not take back before the next commit what this transaction has freed, though it may.
              const lowest = model.counts.findIndex((_, at) => model.isAllocatable(at) && !freed.has(at));
              if (!model.counts.some((_, at) => model.isAllocatable(at))) {
                expect(() => map.allocate()).toThrow(expect.objectContaining({ code: 'ENOSPC' }));
                break;
              }
              const allocated = map.allocate();
              expect(model.isAllocatable(allocated)).toBe(true);
              const early = freed.has(allocated) && allocated < lowest;
              if (order === 'first-fit' && lowest >= 0 && !early) expect(allocated).toBe(lowest);
              model.add(allocated, allocated + 1, 1);
            }
          } else if (change.op === 'increment') {
            // A block that this transaction has freed is nobody's before the commit.
            let end = change.block;
            while (end < Math.min(change.block + change.count, map.blockCount)) {
              if (model.counts[end] === 0 && !model.isAllocatable(end)) break;
              end++;
            }
            map.increment(change.block, end);
            model.add(change.block, end, 1);
          } else if (change.op === 'decrement') {
            let end = change.block;
            while (end < change.block + change.count && model.counts[end]! > 0) end++;
            map.decrement(change.block, end);
            model.add(change.block, end, -1);
            for (let at = change.block; at < end; at++) if (model.counts[at] === 0) freed.add(at);
          } else if (change.op === 'extend') {
            map.extend(map.blockCount + change.count);
            model.extend(map.blockCount);
          } else {
            map.prepareCommit();
            it.store.commit();
            map.committed();
            model.commit();
            freed.clear();
          }
          expect(map.freeCount).toBe(model.free);
        }
        expect(countsOf(map)).toEqual(model.counts);
        map.prepareCommit();
        it.store.commit();
        map.committed();
        expect(countsOf(reopened(it))).toEqual(model.counts);
      }),
      { numRuns: 30 },
    );
  });

  it('keeps counts far above three, and gives the overflow entries back', () => {
    const it = make(100);
    for (let i = 0; i < 1000; i++) it.map.increment(10, 60);
    expect([9, 10, 59, 60].map((block) => it.map.count(block))).toEqual([0, 1000, 1000, 0]);
    commit(it);
    expect(reopened(it).count(33)).toBe(1000);
    for (let i = 0; i < 1000; i++) it.map.decrement(10, 60);
    expect(it.map.freeCount).toBe(100);
    expect(() => it.map.decrement(10, 11)).toThrow('it has none');
  });

  it('sweeps over the device and wraps, and hands freed blocks out only after a commit', () => {
    const it = make(10);
    expect(Array.from({ length: 10 }, () => it.map.allocate())).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    it.map.decrement(2, 4);
    expect(it.map.freeCount).toBe(2);
    // Neither block was in use at the last commit.
    expect(it.map.allocate()).toBe(2);
    commit(it);
    it.map.decrement(5, 8);
    expect(it.map.allocate()).toBe(3);
    expect(() => it.map.allocate()).toThrow('none of 10 is free, or only since the last commit');
    commit(it);
    expect([it.map.allocate(), it.map.allocate(), it.map.allocate()]).toEqual([5, 6, 7]);
  });

  it('takes the lowest block if asked to, as soon as it may', () => {
    const it = make(100, 'first-fit');
    for (let i = 0; i < 50; i++) it.map.allocate();
    commit(it);
    it.map.decrement(10, 12);
    expect(it.map.allocate()).toBe(50);
    commit(it);
    expect([it.map.allocate(), it.map.allocate(), it.map.allocate()]).toEqual([10, 11, 51]);
  });

  it('hands out nothing that is withheld', () => {
    const it = make(20, 'first-fit');
    it.discarding.add(0, 5);
    it.freed.add(5, 7);
    it.discarding.add(8, 9);
    expect([it.map.allocate(), it.map.allocate()]).toEqual([7, 9]);
    it.discarding.clear();
    commit(it);
    expect([it.map.allocate(), it.map.allocate()]).toEqual([0, 1]);
    for (let i = 0; i < 14; i++) it.map.allocate();
    expect(() => it.map.allocate()).toThrow(expect.objectContaining({ code: 'ENOSPC' }));
  });

  it('records what becomes free as runs', () => {
    const it = make(50);
    for (let i = 0; i < 20; i++) it.map.allocate();
    it.map.increment(3, 5);
    it.map.freed = it.freed;
    it.map.decrement(0, 10);
    const runs: number[][] = [];
    it.freed.forEach((begin, end) => {
      runs.push([begin, end]);
    });
    expect(runs).toEqual([
      [0, 3],
      [5, 10],
    ]);
  });

  it.each([BITMAP_ENTRIES - 1, BITMAP_ENTRIES, BITMAP_ENTRIES + 1, 2 * BITMAP_ENTRIES])(
    'hands out every one of %i blocks, once',
    (blockCount) => {
      const it = make(blockCount);
      const seen = new Set<number>();
      for (let i = 0; i < blockCount; i++) seen.add(it.map.allocate());
      expect(seen.size).toBe(blockCount);
      expect(it.map.freeCount).toBe(0);
      expect(() => it.map.allocate()).toThrow(expect.objectContaining({ code: 'ENOSPC' }));
      commit(it);
      it.map.extend(blockCount + 1);
      expect(it.map.allocate()).toBe(blockCount);
      expect(() => it.map.count(blockCount + 1)).toThrow(expect.objectContaining({ code: 'EINVAL' }));
      expect(() => it.map.extend(blockCount)).toThrow(expect.objectContaining({ code: 'EINVAL' }));
    },
  );

  it('does not look at full bitmaps again: sequential allocation reads a bitmap or two for each block', () => {
    const it = make(20 * BITMAP_ENTRIES);
    for (let i = 0; i < 18 * BITMAP_ENTRIES; i++) it.map.allocate();
    commit(it);
    const before = it.store.blocks.stats.locks;
    for (let i = 0; i < BITMAP_ENTRIES; i++) it.map.allocate();
    expect(it.store.blocks.stats.locks - before).toBeLessThan(3.1 * BITMAP_ENTRIES);
  });

  it('finds free blocks that wrong hints in the index hide', () => {
    const it = make(2 * BITMAP_ENTRIES);
    for (let i = 0; i < BITMAP_ENTRIES; i++) it.map.allocate();
    commit(it);
    const index = new BTree(it.store.transaction, plainValues('index', INDEX_ENTRY_SIZE));
    const entry = new Uint32Array(4);
    let root = it.map.root.bitmapRoot;
    index.lookup(root, 1, entry);
    writeIndexEntry(entry, 0, entry[0]!, 0, BITMAP_ENTRIES);
    root = index.insert(root, 1, entry);
    const misled = DiskSpaceMap.open(it.store.transaction, { ...it.map.root, bitmapRoot: root }, []);
    for (let i = 0; i < BITMAP_ENTRIES; i++) expect(misled.allocate()).toBe(BITMAP_ENTRIES + i);
    expect(() => misled.allocate()).toThrow(expect.objectContaining({ code: 'ENOSPC' }));
  });

  it('does not turn garbage behind the end into counts when it grows', () => {
    // Somebody else's bitmap, whose entries past the end were never cleared.
    const garbage = make(100);
    garbage.map.extend(200);
    garbage.map.increment(150, 160);
    commit(garbage);
    const root = { ...garbage.map.root, blockCount: 100, allocatedCount: 0 };
    const map = DiskSpaceMap.open(garbage.store.transaction, root, []);
    map.extend(200);
    expect(countsOf(map)).toEqual(new Array(200).fill(0));
  });
});
