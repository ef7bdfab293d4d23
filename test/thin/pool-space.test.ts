import { describe, expect, it } from 'vitest';
import { RunSet } from '../../src/base/run-set.ts';
import { MetadataSpaceError } from '../../src/persistent-data/space-map.ts';
import { PoolMetadata } from '../../src/thin/pool-metadata.ts';
import { RunResult } from '../../src/thin/run-lookup.ts';
import { contentsOf, damageOf, expectClean, expectThinCheck, thinDump } from '../support/metadata-judges.ts';
import { TestDevice } from '../support/test-device.ts';

const BITMAP = 16320;
const result = new RunResult();

function make(metadataBlocks: number, dataBlockCount: number): { device: TestDevice; pool: PoolMetadata } {
  const device = new TestDevice(metadataBlocks * 4096);
  const pool = PoolMetadata.format(device, { dataBlockSizeBytes: 65536, dataBlockCount, cacheBlocks: 256 });
  return { device, pool };
}

function code(expected: string): unknown {
  return expect.objectContaining({ code: expected });
}

/** The same as a pool that has never been told anything. */
function reopened(device: TestDevice): PoolMetadata {
  return PoolMetadata.open(device, { cacheBlocks: 256 });
}

describe('data space', () => {
  it('runs out with ENOSPC, without harm; what was freed comes back with the commit', () => {
    const { device, pool } = make(1024, 20);
    pool.createThin(1);
    const thin = pool.openThin(1);
    for (let i = 0; i < 20; i++) pool.insert(thin, i, pool.allocateDataBlock());
    pool.commitSync();
    expect(pool.freeDataBlocks).toBe(0);
    expect(() => pool.allocateDataBlock()).toThrow(code('ENOSPC'));
    expect(() => pool.allocateDataBlock()).not.toThrow(MetadataSpaceError);
    expect([pool.mustAbort, pool.changed]).toEqual([false, false]);
    expect(pool.removeRange(thin, 3, 7, 100)).toBe(7);
    expect(pool.freeDataBlocks).toBe(4);
    expect(() => pool.allocateDataBlock()).toThrow(code('ENOSPC'));
    pool.commitSync();
    expect([3, 4, 5, 6].map(() => pool.allocateDataBlock())).toEqual([3, 4, 5, 6]);
    expect(pool.freeDataBlocks).toBe(0);
    expect(() => pool.allocateDataBlock()).toThrow(code('ENOSPC'));
    for (const block of [3, 4, 5, 6]) pool.freeDataBlock(block);
    expect(pool.freeDataBlocks).toBe(4);
    pool.commitSync();
    expectClean(device);
  });

  it('is not handed out while it is being discarded, nor before the caller has taken what was freed', () => {
    const { device, pool } = make(1024, 20);
    pool.recordFreed = true;
    pool.allocationOrder = 'first-fit';
    pool.createThin(1);
    const thin = pool.openThin(1);
    for (let i = 0; i < 10; i++) pool.insert(thin, i, pool.allocateDataBlock());
    pool.commitSync();
    pool.removeRange(thin, 0, 4, 100);
    pool.commitSync();
    const [tenth] = [pool.allocateDataBlock()];
    const discarding = new RunSet();
    pool.withheld.push(discarding);
    discarding.takeAll(pool.freed);
    expect(discarding.count).toBe(4);
    expect([tenth, pool.allocateDataBlock()]).toEqual([10, 11]);
    discarding.remove(1, 3);
    pool.freeDataBlock(10);
    pool.freeDataBlock(11);
    pool.setTransactionId(0, 1);
    pool.commitSync();
    expect([1, 2, 3].map(() => pool.allocateDataBlock())).toEqual([1, 2, 10]);
    pool.abort();
    expectClean(device);
  });

  it('of shared blocks is freed only with the last reference', () => {
    const { device, pool } = make(1024, 100);
    pool.recordFreed = true;
    pool.createThin(1);
    const thin = pool.openThin(1);
    for (let i = 0; i < 10; i++) pool.insert(thin, i, pool.allocateDataBlock());
    pool.createSnap(2, 1);
    pool.commitSync();
    pool.removeRange(thin, 0, 10, 100);
    expect([pool.freed.count, pool.freeDataBlocks]).toEqual([0, 90]);
    pool.deleteThin(2);
    expect([pool.freed.count, pool.freeDataBlocks]).toEqual([10, 100]);
    pool.commitSync();
    expectClean(device);
  });

  it.each([
    [BITMAP - 5, BITMAP + 5],
    [BITMAP, BITMAP + 1],
    [10, 3 * BITMAP],
  ])('grows from %i to %i blocks', (from, to) => {
    const { device, pool } = make(1024, from);
    pool.createThin(1);
    const thin = pool.openThin(1);
    for (let i = 0; i < 10; i++) pool.insert(thin, i, pool.allocateDataBlock());
    pool.commitSync();
    pool.resizeData(to);
    pool.commitSync();
    expect([pool.dataBlockCount, pool.freeDataBlocks]).toEqual([to, to - 10]);
    expectClean(device);
    expectThinCheck(device);
    const again = reopened(device);
    const seen = new Set<number>();
    for (let i = 10; i < to; i++) seen.add(again.allocateDataBlock());
    expect([seen.size, again.freeDataBlocks]).toEqual([to - 10, 0]);
  });

  it('does not shrink, and does not grow beyond what the metadata can count', () => {
    const { pool } = make(1024, 100);
    expect(() => pool.resizeData(99)).toThrow(code('EINVAL'));
    expect(() => pool.resizeData(1.5)).toThrow(code('EINVAL'));
    expect(() => pool.resizeData(2 ** 40 + 1)).toThrow(code('EINVAL'));
    expect(() => pool.resizeData(BITMAP * 1100)).toThrow(MetadataSpaceError);
    pool.resizeData(100);
    expect([pool.changed, pool.mustAbort]).toEqual([false, false]);
  });
});

describe('metadata space', () => {
  it('runs out with ENOSPC before a change begins; deleting still works', () => {
    const { device, pool } = make(128, 20_000);
    let id = 0;
    expect(() => {
      for (; ; id++) {
        pool.createThin(id);
        const thin = pool.openThin(id);
        pool.insert(thin, id, pool.allocateDataBlock());
        pool.closeThin(thin);
        pool.commitSync();
      }
    }).toThrow(MetadataSpaceError);
    expect(id).toBeGreaterThan(20);
    expect(pool.mustAbort).toBe(false);
    pool.commitSync();
    const before = pool.freeMetadataBlocks;
    for (let i = 0; i < 10; i++) {
      pool.deleteThin(i);
      pool.commitSync();
    }
    expect(pool.freeMetadataBlocks).toBeGreaterThan(before);
    pool.createThin(0);
    pool.commitSync();
    expectClean(device);
    expectThinCheck(device);
  });

  it('of a device that is full but for what a commit moves is rescued by growing it', () => {
    const { device, pool } = make(64, 1000);
    pool.createThin(1);
    const thin = pool.openThin(1);
    pool.insert(thin, 5, pool.allocateDataBlock());
    pool.commitSync();
    // Blocks that belong to nobody, as many as the commit itself leaves.
    const { transaction } = pool as unknown as { transaction: Transaction };
    while (transaction.trees.metadataMap.allocatableCount > 1) transaction.trees.metadataMap.allocate();
    transaction.changed = true;
    pool.commitSync();
    expect(transaction.trees.metadataMap.allocatableCount).toBeLessThan(4);
    const full = reopened(device);
    expect(full.freeMetadataBlocks).toBe(0);
    expect(() => full.createThin(2)).toThrow(MetadataSpaceError);
    device.resize(200 * 4096);
    full.resizeMetadata();
    full.commitSync();
    expect(full.metadataBlockCount).toBe(200);
    full.createThin(2);
    const grown = full.openThin(2);
    for (let i = 0; i < 300; i++) full.insert(grown, i * 2, full.allocateDataBlock());
    full.commitSync();
    // Only the blocks that were taken for nothing.
    expect(damageOf(device).filter((damage) => damage.severity !== 'leak')).toEqual([]);
    expect(contentsOf(device).devices.get(2)!.mappings.size).toBe(300);
  });

  it.each([
    [1000, BITMAP - 1],
    [1000, BITMAP],
    [BITMAP - 3, BITMAP + 1],
    [BITMAP, 2 * BITMAP + 100],
  ])('grows from %i to %i blocks', (from, to) => {
    const { device, pool } = make(from, 1000);
    pool.createThin(1);
    const thin = pool.openThin(1);
    pool.insert(thin, 7, pool.allocateDataBlock());
    pool.commitSync();
    device.resize(to * 4096);
    pool.resizeMetadata();
    pool.commitSync();
    expect(pool.metadataBlockCount).toBe(to);
    expectClean(device);
    expectThinCheck(device);
    const again = reopened(device);
    expect(again.metadataBlockCount).toBe(to);
    expect(again.freeMetadataBlocks).toBe(pool.freeMetadataBlocks);
    again.createThin(2);
    again.commitSync();
    expectClean(device);
    // A superblock says for ever with how many blocks it was formatted.
    expect(new Uint32Array(device.memory.buffer, 0, 1024)[86]).toBe(from);
    device.resize(from * 4096);
    expect(() => again.resizeMetadata()).toThrow(code('EINVAL'));
    expect(() => PoolMetadata.open(device)).toThrow(code('EINVAL'));
  });

  it('that is short makes removals smaller, and they go on to the end', () => {
    const { device, pool } = make(320, 600_000);
    pool.createThin(1);
    const thin = pool.openThin(1);
    for (let i = 0; i < 12_000; i++) pool.insert(thin, i * 3, pool.allocateDataBlock());
    pool.commitSync();
    pool.createSnap(2, 1);
    pool.commitSync();
    const steps: number[] = [];
    // The shared leaves are copied before they shrink.
    for (let at = 0; at < 36_000; ) {
      const { mappedBlocks } = thin;
      try {
        at = pool.removeRange(thin, at, 36_000, 10_000);
      } catch (error) {
        expect(error).toBeInstanceOf(MetadataSpaceError);
        expect([pool.mustAbort, pool.changed]).toEqual([false, true]);
        pool.commitSync();
        continue;
      }
      steps.push(mappedBlocks - thin.mappedBlocks);
    }
    expect(Math.max(...steps)).toBeLessThan(10_000);
    expect(thin.mappedBlocks).toBe(0);
    pool.commitSync();
    expectClean(device);
    expect(contentsOf(device).devices.get(2)!.mappings.size).toBe(12_000);
  });

  it('that is short refuses a deletion before it begins, or between two of its steps', () => {
    const { device, pool } = make(300, 20_000);
    pool.createThin(1);
    const thin = pool.openThin(1);
    for (let i = 0; i < 5000; i++) pool.insert(thin, i * 3, pool.allocateDataBlock());
    pool.commitSync();
    const { metadataMap } = (pool as unknown as { transaction: Transaction }).transaction.trees;
    pool.closeThin(thin);
    while (metadataMap.allocatableCount > 1) metadataMap.allocate();
    expect(() => pool.deleteThin(1)).toThrow(MetadataSpaceError);
    expect([pool.mustAbort, pool.hasThin(1)]).toEqual([false, true]);
    pool.abort();
    expectClean(device);
    pool.deleteThin(1);
    pool.commitSync();
    expectClean(device);
    expect(pool.freeDataBlocks).toBe(20_000);
  });
});

/** Inside of a pool. */
interface Transaction {
  changed: boolean;
  trees: { metadataMap: { readonly allocatableCount: number; allocate(): number } };
}

describe('a pool of 1 TiB', () => {
  it('takes 100,000 scattered mappings, finds them again and gives them back, in little memory', () => {
    const device = new TestDevice(96 << 20);
    const dataBlockCount = 2 ** 24;
    const pool = PoolMetadata.format(device, { dataBlockSizeBytes: 65536, dataBlockCount, cacheBlocks: 2048 });
    pool.createThin(1);
    const thin = pool.openThin(1);
    const mappings = 100_000;
    const at = (i: number): number => (i * 7919 * 167) % dataBlockCount;
    const locks = pool.stats.locks;
    for (let i = 0; i < mappings; i++) {
      pool.insert(thin, at(i), pool.allocateDataBlock());
      if (pool.dirtyBlocks > pool.cacheBlocks / 2) pool.commitSync();
    }
    pool.commitSync();
    // Three levels of tree, the bitmap twice, and what the commits take.
    expect((pool.stats.locks - locks) / mappings).toBeLessThan(12);
    expect(pool.stats.evictionWrites).toBe(0);
    expectThinCheck(device);
    const summary = expectClean(device);
    expect(summary.mappingCount).toBe(mappings);
    expect(thinDump(device)).toEqual(contentsOf(device));

    const again = PoolMetadata.open(device, { cacheBlocks: 2048 });
    const before = again.stats.blockingReads;
    const found = again.openThin(1);
    let wrong = 0;
    for (let i = 0; i < mappings; i++) {
      again.lookupRun(found, at(i), at(i) + 1, result, false);
      if (!result.mapped || result.dataBlock !== i) wrong++;
    }
    expect(wrong).toBe(0);
    // All of the tree fits, and each node is read once.
    const nodes = again.stats.blockingReads - before;
    expect(nodes).toBeLessThan(1600);
    expect(again.cacheBlocks).toBe(2048);
    let next = 0;
    while (next < dataBlockCount) {
      next = again.removeRange(found, next, dataBlockCount, 10_000);
      again.commitSync();
    }
    expect([again.freeDataBlocks, found.mappedBlocks]).toEqual([dataBlockCount, 0]);
    expectClean(device);
    expectThinCheck(device);
  });
});
