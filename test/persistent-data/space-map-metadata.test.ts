import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { BITMAP_ENTRIES } from '../../src/persistent-data/bitmap.ts';
import { BlockManager } from '../../src/persistent-data/block-manager.ts';
import { nodeValidator } from '../../src/persistent-data/btree-node.ts';
import { MetadataSpaceError } from '../../src/persistent-data/space-map.ts';
import { CheckedMetadataBlocks } from '../../src/persistent-data/space-map-checked.ts';
import { MetadataSpaceMap } from '../../src/persistent-data/space-map-metadata.ts';
import { TransactionManager } from '../../src/persistent-data/transaction-manager.ts';
import { countsOf, SpaceMapModel } from '../support/space-map-cases.ts';
import { TestDevice } from '../support/test-device.ts';

class Store {
  readonly device: TestDevice;
  readonly blocks: BlockManager;
  transaction: TransactionManager;
  map: MetadataSpaceMap;

  constructor(blockCount: number) {
    this.device = new TestDevice(blockCount * 4096);
    this.blocks = new BlockManager(this.device, blockCount, new Uint8Array(256 * 4096));
    this.transaction = new TransactionManager(this.blocks);
    this.map = MetadataSpaceMap.format(this.transaction, blockCount);
  }

  commit(): void {
    this.map.prepareCommit();
    this.blocks.writeDirtySync();
    this.map.committed();
  }

  reopen(): MetadataSpaceMap {
    const { root } = this.map;
    this.blocks.reset();
    this.transaction = new TransactionManager(this.blocks);
    this.map = MetadataSpaceMap.open(this.transaction, root);
    return this.map;
  }

  grow(blockCount: number): void {
    this.device.resize(blockCount * 4096);
    this.blocks.extend(blockCount);
    this.map.extend(blockCount);
  }
}

describe('the metadata space map', () => {
  it('takes the first blocks of an empty device for itself, in the order of the kernel', () => {
    const { map } = new Store(2048);
    // Superblock, index, overflow tree, bitmap.
    expect([0, 1, 2, 3, 4].map((block) => map.count(block))).toEqual([1, 1, 1, 1, 0]);
    expect(map.allocate()).toBe(4);
  });

  it('is found again as it was, itself included', () => {
    const store = new Store(2048);
    store.commit();
    for (let i = 0; i < 5; i++) {
      const block = store.map.allocate();
      store.map.increment(block, block + 1);
      for (let j = 0; j < i; j++) store.map.increment(block, block + 1);
      store.commit();
      const counts = countsOf(store.map);
      const { freeCount } = store.map;
      const reopened = store.reopen();
      expect(countsOf(reopened)).toEqual(counts);
      expect(reopened.freeCount).toBe(freeCount);
      expect(reopened.freeCount).toBe(counts.filter((count) => count === 0).length);
    }
  });

  it('never hands out a block of the last commit, and changes none in place', () => {
    const block = fc.nat(599);
    const step = fc.oneof(
      { weight: 6, arbitrary: fc.record({ op: fc.constant('allocate' as const), block }) },
      { weight: 3, arbitrary: fc.record({ op: fc.constantFrom('increment' as const, 'decrement' as const), block }) },
      { weight: 2, arbitrary: fc.record({ op: fc.constant('commit' as const), block }) },
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 120 }), (steps) => {
        const store = new Store(600);
        store.commit();
        const map = new CheckedMetadataBlocks(store.map);
        store.transaction.setSpaceMap(map);
        const model = new SpaceMapModel(600);
        model.counts = countsOf(map);
        model.commit();
        const mine: number[] = [];
        for (const change of steps) {
          if (change.op === 'allocate') {
            const allocated = map.allocate();
            expect(model.committed[allocated]).toBe(0);
            expect(map.isNew(allocated)).toBe(true);
            mine.push(allocated);
          } else if (change.op === 'commit') {
            const before = model.committed.map((count) => count > 0);
            const disk = store.device.memory.slice();
            map.prepareCommit();
            store.blocks.writeDirtySync();
            before.forEach((inUse, at) => {
              if (!inUse) return;
              const [old, now] = [disk, store.device.memory].map((image) =>
                image.subarray(at * 4096, at * 4096 + 4096),
              );
              expect(Buffer.compare(old!, now!)).toBe(0);
            });
            map.committed();
            model.counts = countsOf(map);
            model.commit();
          } else if (mine.length > 0) {
            const one = mine[change.block % mine.length]!;
            if (change.op === 'increment') map.increment(one, one + 1);
            else map.decrement(one, one + 1);
            if (change.op === 'decrement') mine.splice(change.block % mine.length, 1);
            else mine.push(one);
          }
        }
        map.prepareCommit();
        store.blocks.writeDirtySync();
        map.committed();
        const counts = countsOf(map);
        expect(countsOf(store.reopen())).toEqual(counts);
      }),
      { numRuns: 40 },
    );
  });

  it('says so when it is full, and can be grown even then', () => {
    const store = new Store(64);
    store.commit();
    while (store.map.allocatableCount > 0) store.map.allocate();
    expect(() => store.map.allocate()).toThrow(MetadataSpaceError);
    // What is left of the transaction cannot be committed; growing needs nothing of the old part.
    store.grow(100);
    expect(store.map.freeCount).toBeGreaterThan(30);
    store.commit();
    const counts = countsOf(store.map);
    expect(countsOf(store.reopen())).toEqual(counts);
  });

  it.each([
    [BITMAP_ENTRIES - 10, BITMAP_ENTRIES + 1],
    [BITMAP_ENTRIES, 2 * BITMAP_ENTRIES],
    [100, 3 * BITMAP_ENTRIES + 7],
  ])('grows from %i to %i blocks over the ends of bitmaps', (from, to) => {
    const store = new Store(from);
    store.commit();
    store.grow(to);
    store.commit();
    expect(store.map.blockCount).toBe(to);
    const used = to - store.map.freeCount;
    const map = store.reopen();
    expect(to - map.freeCount).toBe(used);
    const seen = new Set<number>();
    // The first count in each bitmap moves it.
    while (map.allocatableCount > 4) seen.add(map.allocate());
    expect(seen.size).toBeGreaterThan(to - used - 20);
    expect(() => map.extend(from)).toThrow(expect.objectContaining({ code: 'EINVAL' }));
  });

  it('refuses more blocks than the format reaches', () => {
    const store = new Store(64);
    expect(() => store.map.extend(255 * BITMAP_ENTRIES + 1)).toThrow('the format reaches 4161600');
  });

  it('does not let a count fall below zero or a block lie past the end', () => {
    const { map } = new Store(64);
    expect(() => map.decrement(40, 41)).toThrow('it has none');
    expect(() => map.count(64)).toThrow(expect.objectContaining({ code: 'EINVAL' }));
    expect(() => map.increment(63, 65)).toThrow(expect.objectContaining({ code: 'EINVAL' }));
  });

  it('costs the same to commit whatever the size of the device', () => {
    const costs = [2000, 20_000, 200_000].map((blockCount) => {
      const store = new Store(blockCount);
      store.commit();
      store.blocks.create(store.map.allocate(), nodeValidator);
      store.blocks.release(0);
      const { locks, writes } = store.blocks.stats;
      store.commit();
      return [store.blocks.stats.locks - locks, store.blocks.stats.writes - writes];
    });
    expect(costs[1]).toEqual(costs[0]);
    expect(costs[2]).toEqual(costs[0]);
  });
});
