import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { MetadataSpaceError } from '../../src/persistent-data/space-map.ts';
import { PoolMetadata } from '../../src/thin/pool-metadata.ts';
import { contentsOf, expectClean, expectThinCheck } from '../support/metadata-judges.ts';
import { TestDevice } from '../support/test-device.ts';

const STEP = 4;

function make(metadataBlocks: number, dataBlocks: number): { device: TestDevice; pool: PoolMetadata } {
  const device = new TestDevice(metadataBlocks * 4096);
  const options = { dataBlockSizeBytes: 65536, dataBlockCount: dataBlocks, cacheBlocks: 2048 };
  return { device, pool: PoolMetadata.format(device, options) };
}

function write(pool: PoolMetadata, id: number, blocks: Iterable<number>): void {
  const thin = pool.openThin(id);
  for (const block of blocks) pool.insert(thin, block, pool.allocateDataBlock());
  pool.closeThin(thin);
}

function* range(begin: number, end: number, stride = 1): Iterable<number> {
  for (let block = begin; block < end; block += stride) yield block;
}

/** Deletes in steps with a commit after each; checks some of the states between. Returns the number of steps. */
function deleteInSteps(device: TestDevice, pool: PoolMetadata, id: number, checkEvery: number): number {
  let before = Number.POSITIVE_INFINITY;
  for (let step = 1; ; step++) {
    const gone = pool.deleteThinStep(id, STEP);
    pool.commitSync();
    if (step % checkEvery === 0 || gone) expectClean(device);
    if (gone) return step;
    const thin = pool.openThin(id);
    expect(thin.mappedBlocks).toBeLessThan(before);
    before = thin.mappedBlocks;
    pool.closeThin(thin);
  }
}

const used = (pool: PoolMetadata): number => pool.dataBlockCount - pool.freeDataBlocks;

describe('a device that is deleted in steps', () => {
  it('gets smaller with each, the metadata being consistent between them, until it is gone (delete/large)', () => {
    const { device, pool } = make(2048, 100_000);
    const fresh = pool.freeMetadataBlocks;
    pool.createThin(1);
    pool.createThin(2);
    write(pool, 1, range(0, 40_000));
    write(pool, 2, range(0, 1000));
    pool.commitSync();
    expect(pool.isQuickToDelete(1, STEP)).toBe(false);
    const steps = deleteInSteps(device, pool, 1, 10);
    expect(steps).toBeGreaterThan(40);
    expect([pool.hasThin(1), used(pool)]).toEqual([false, 1000]);
    expectThinCheck(device);
    expect(contentsOf(device).devices.get(2)!.mappings.size).toBe(1000);
    pool.deleteThin(2);
    pool.commitSync();
    expect([used(pool), pool.freeMetadataBlocks]).toEqual([0, fresh]);
  });

  it('is accepted by thin_check half-way, and is deleted on by whoever opens the pool then', () => {
    const { device, pool } = make(2048, 100_000);
    pool.createThin(1);
    write(pool, 1, range(0, 60_000, 2));
    pool.commitSync();
    for (let i = 0; i < 20; i++) expect(pool.deleteThinStep(1, STEP)).toBe(false);
    pool.commitSync();
    expectThinCheck(device);
    expect(pool.deleteThinStep(1, STEP)).toBe(false);
    const reopened = PoolMetadata.open(device);
    deleteInSteps(device, reopened, 1, 20);
    expect(used(reopened)).toBe(0);
  });

  it('goes in one step that reads no leaf where all of it is shared', () => {
    const { device, pool } = make(2048, 100_000);
    pool.createThin(1);
    write(pool, 1, range(0, 30_000));
    pool.createSnap(2, 1);
    pool.commitSync();
    const reopened = PoolMetadata.open(device);
    expect(reopened.isQuickToDelete(1, 1)).toBe(true);
    const reads = reopened.stats.misses;
    expect(reopened.deleteThinStep(1, 1)).toBe(true);
    expect(reopened.stats.misses - reads).toBeLessThan(10);
    reopened.commitSync();
    expectClean(device);
    expect(used(reopened)).toBe(30_000);
  });

  it('leaves what a snapshot shares alone: copies no leaf, and reads few', () => {
    const { device, pool } = make(4096, 200_000);
    pool.createThin(1);
    write(pool, 1, range(0, 60_000));
    pool.createSnap(2, 1);
    // The first third is written anew and so the device's own, and so is one block in the middle.
    write(pool, 1, range(0, 20_000));
    write(pool, 1, [45_000]);
    pool.commitSync();
    const snapshot = contentsOf(device).devices.get(2);
    const before = used(pool);
    const dirty: number[] = [];
    let gone = false;
    while (!gone) {
      gone = pool.deleteThinStep(1, STEP);
      dirty.push(pool.dirtyBlocks);
      pool.commitSync();
    }
    // Paths and bitmaps, whatever the step drops.
    expect(Math.max(...dirty)).toBeLessThan(24);
    expect(dirty.length).toBeLessThan(70);
    expectClean(device);
    expectThinCheck(device);
    expect(contentsOf(device).devices.get(2)).toEqual(snapshot);
    expect(used(pool)).toBe(before - 20_001);
  });

  it('that a metadata snapshot holds costs nothing, and what it mapped is free when that is released', () => {
    const { device, pool } = make(2048, 100_000);
    pool.createThin(1);
    write(pool, 1, range(0, 30_000));
    pool.commitSync();
    pool.reserveSnapshot();
    pool.commitSync();
    expect(pool.deleteThinStep(1, STEP)).toBe(true);
    pool.commitSync();
    expectClean(device);
    expect(used(pool)).toBe(30_000);
    pool.releaseSnapshot();
    pool.commitSync();
    expectClean(device);
    expect(used(pool)).toBe(0);
  });

  it('is back at the last commit after an abort between two steps', () => {
    const { device, pool } = make(2048, 100_000);
    pool.createThin(1);
    write(pool, 1, range(0, 20_000));
    pool.commitSync();
    for (let i = 0; i < 5; i++) pool.deleteThinStep(1, STEP);
    pool.abort();
    const thin = pool.openThin(1);
    expect(thin.mappedBlocks).toBe(20_000);
    expect(() => pool.deleteThinStep(1, STEP)).toThrow('in use');
    pool.closeThin(thin);
    deleteInSteps(device, pool, 1, 1000);
    expect(used(pool)).toBe(0);
  });

  it('is gone in the end also where metadata blocks are as short as the reserve makes them', () => {
    const { device, pool } = make(640, 500_000);
    pool.createThin(1);
    const thin = pool.openThin(1);
    let block = 0;
    try {
      for (; ; block++) pool.insert(thin, (block * 7919) % 1_000_003, pool.allocateDataBlock());
    } catch (error) {
      expect(error).toBeInstanceOf(MetadataSpaceError);
    }
    pool.closeThin(thin);
    pool.commitSync();
    expect(block).toBeGreaterThan(50_000);
    for (let gone = false; !gone; ) {
      try {
        gone = pool.deleteThinStep(1, 96);
      } catch (error) {
        expect(error).toBeInstanceOf(MetadataSpaceError);
        expect([pool.mustAbort, pool.changed]).toEqual([false, true]);
        pool.commitSync();
      }
    }
    pool.commitSync();
    expectClean(device);
    expect(used(pool)).toBe(0);
  });

  it('has its leaves read ahead', async () => {
    const { device, pool } = make(2048, 100_000);
    pool.createThin(1);
    write(pool, 1, range(0, 40_000));
    pool.commitSync();
    const cold = PoolMetadata.open(device, { cacheBlocks: 2048 });
    const { blockingReads } = cold.stats;
    for (let gone = false; !gone; gone = cold.deleteThinStep(1, 24)) {
      for (let i = 0; i < 4 && !cold.isDeletionCached(1, 24); i++) {
        await new Promise<void>((resolve) => {
          if (!cold.prefetch({ ioDone: () => resolve() })) resolve();
        });
      }
    }
    expect(cold.stats.prefetchedReads).toBeGreaterThan(150);
    // Bitmaps, the top of the trees, the last few leaves.
    expect(cold.stats.blockingReads - blockingReads).toBeLessThan(40);
  });

  it('leaves other devices as they are, whatever is shared how', () => {
    const change = fc.oneof(
      fc.record({ op: fc.constant('write' as const), device: fc.nat(3), begin: fc.nat(15_000), length: fc.nat(3000) }),
      fc.record({ op: fc.constant('snap' as const), device: fc.nat(3) }),
      fc.record({
        op: fc.constant('discard' as const),
        device: fc.nat(3),
        begin: fc.nat(15_000),
        length: fc.nat(6000),
      }),
      fc.record({ op: fc.constant('delete' as const), device: fc.nat(3), leaves: fc.integer({ min: 1, max: 100 }) }),
    );
    fc.assert(
      fc.property(fc.array(change, { minLength: 4, maxLength: 12 }), (changes) => {
        const { device, pool } = make(4096, 400_000);
        let next = 2;
        pool.createThin(1);
        write(pool, 1, range(0, 12_000));
        for (const one of changes) {
          const ids = pool.thinIds();
          const id = ids[one.device % ids.length];
          if (id === undefined) break;
          if (one.op === 'write') write(pool, id, range(one.begin, one.begin + one.length));
          else if (one.op === 'snap') pool.createSnap(next++, id);
          else if (one.op === 'discard') {
            const thin = pool.openThin(id);
            pool.removeRange(thin, one.begin, one.begin + one.length, 100_000);
            pool.closeThin(thin);
          } else {
            pool.commitSync();
            const others = contentsOf(device).devices;
            others.delete(id);
            while (!pool.deleteThinStep(id, one.leaves)) {
              pool.commitSync();
              expectClean(device);
            }
            pool.commitSync();
            expect(contentsOf(device).devices).toEqual(others);
          }
        }
        pool.commitSync();
        expectClean(device);
      }),
      { numRuns: 8 },
    );
  });
});
