import { beforeEach, describe, expect, it } from 'vitest';
import { PoolMetadata } from '../../src/thin/pool-metadata.ts';
import { RunResult } from '../../src/thin/run-lookup.ts';
import { contentsOf, expectClean, expectThinCheck } from '../support/metadata-judges.ts';
import { TestDevice } from '../support/test-device.ts';

let device: TestDevice;
let pool: PoolMetadata;
const result = new RunResult();

beforeEach(() => {
  device = new TestDevice(8 << 20);
  pool = PoolMetadata.format(device, { dataBlockSizeBytes: 65536, dataBlockCount: 1024 });
});

function code(expected: string): unknown {
  return expect.objectContaining({ code: expected });
}

/** Block numbers that commits have written, in the order in which they were allocated: all but the superblock. */
function blocksWrittenBy(work: () => void): number[] {
  const written = new Set<number>();
  device.hook = (event) => {
    if (event.kind === 'write' && event.offset > 0) written.add(event.offset / 4096);
    return null;
  };
  work();
  device.hook = null;
  return [...written];
}

describe('devices', () => {
  it('are created, listed, opened, closed and deleted', () => {
    for (const id of [5, 0, 2 ** 24 - 1, 17]) pool.createThin(id);
    expect(pool.thinIds()).toEqual([0, 5, 17, 2 ** 24 - 1]);
    const thin = pool.openThin(5);
    expect(pool.openThin(5)).toBe(thin);
    expect(() => pool.deleteThin(5)).toThrow(code('EBUSY'));
    pool.closeThin(thin);
    expect(() => pool.deleteThin(5)).toThrow(code('EBUSY'));
    pool.closeThin(thin);
    pool.deleteThin(5);
    expect(pool.hasThin(5)).toBe(false);
    pool.commitSync();
    expect(PoolMetadata.open(device).thinIds()).toEqual([0, 17, 2 ** 24 - 1]);
    expectClean(device);
  });

  it('refuse wrong ids and change nothing', () => {
    pool.createThin(1);
    pool.commitSync();
    for (const id of [-1, 2 ** 24, 1.5, Number.NaN]) expect(() => pool.createThin(id)).toThrow(code('EINVAL'));
    expect(() => pool.createThin(1)).toThrow(code('EEXIST'));
    expect(() => pool.createSnap(1, 1)).toThrow(code('EEXIST'));
    expect(() => pool.createSnap(2, 3)).toThrow(code('ENODATA'));
    expect(() => pool.deleteThin(2)).toThrow(code('ENODATA'));
    expect(() => pool.openThin(2)).toThrow(code('ENODATA'));
    expect([pool.changed, pool.mustAbort]).toEqual([false, false]);
  });

  it('remember the transaction id and the time of their creation', () => {
    pool.createThin(1);
    pool.setTransactionId(0, 7);
    pool.createThin(2);
    pool.createSnap(3, 2);
    pool.commitSync();
    const { devices } = contentsOf(device);
    expect(devices.get(2)).toMatchObject({ transactionId: 7, creationTime: 0, snapshottedTime: 1 });
    expect(devices.get(3)).toMatchObject({ transactionId: 7, creationTime: 1, snapshottedTime: 1 });
    expect(() => pool.setTransactionId(0, 8)).toThrow('it is 7, expected 0');
    expect(() => pool.setTransactionId(7, 2 ** 53)).toThrow(code('EINVAL'));
    expect([pool.transactionId, pool.time]).toEqual([7, 1]);
  });

  it('a thousand of them, in a chain of snapshots, leave no trace when deleted', () => {
    pool.createThin(0);
    const thin = pool.openThin(0);
    for (let i = 0; i < 30; i++) pool.insert(thin, i * 7, pool.allocateDataBlock());
    pool.closeThin(thin);
    pool.commitSync();
    const free = pool.freeMetadataBlocks;
    for (let id = 1; id < 1000; id++) {
      pool.createSnap(id, id - 1);
      if (id % 100 === 0) pool.commitSync();
    }
    pool.commitSync();
    expectClean(device);
    for (let id = 999; id > 0; id--) pool.deleteThin(id);
    pool.commitSync();
    expectClean(device);
    expect(pool.thinIds()).toEqual([0]);
    expect(pool.freeDataBlocks).toBe(1024 - 30);
    expect(Math.abs(pool.freeMetadataBlocks - free)).toBeLessThan(3);
  });

  it('refuse a snapshot when the 24 bits of time are used up', () => {
    pool.createThin(1);
    pool.commitSync();
    // As after 2^24 - 1 snapshots.
    (pool as unknown as { transaction: { superblock: { time: number } } }).transaction.superblock.time = 2 ** 24 - 1;
    expect(() => pool.createSnap(2, 1)).toThrow(code('ERANGE'));
    const thin = pool.openThin(1);
    pool.insert(thin, 3, pool.allocateDataBlock());
    pool.lookupRun(thin, 3, 4, result, false);
    expect(result).toMatchObject({ mapped: true, dataBlock: 0 });
  });
});

describe('the order in which blocks are allocated', () => {
  it('is the kernel’s, for one change at a time', () => {
    expect(
      blocksWrittenBy(() => PoolMetadata.format(device, { dataBlockSizeBytes: 65536, dataBlockCount: 1024 })),
    ).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
    pool = PoolMetadata.open(device);
    // The kernel's counter goes on from the format; ours begins at 0 and finds the blocks that the format has freed.
    pool.close();
    pool = PoolMetadata.format(device, { dataBlockSizeBytes: 65536, dataBlockCount: 1024 });
    const commit = (change: () => void): number[] =>
      blocksWrittenBy(() => {
        change();
        pool.commitSync();
      });
    expect(commit(() => pool.createThin(1))).toEqual([12, 13, 14, 15, 16]);
    const thin = pool.openThin(1);
    expect(commit(() => pool.insert(thin, 0, pool.allocateDataBlock()))).toEqual([17, 18, 19, 20, 21, 22, 23]);
    expect(
      commit(() => {
        for (let i = 1; i < 6; i++) pool.insert(thin, i, pool.allocateDataBlock());
      }),
    ).toEqual([24, 25, 26, 27, 28, 29, 30]);
    // And each structure is where the kernel has it.
    const words = new Uint32Array(device.memory.buffer);
    const superblock = (index: number): number => words[index]!;
    expect(superblock(80)).toBe(26);
    expect(superblock(82)).toBe(28);
    expect(superblock(20)).toBe(29);
    expect(superblock(52)).toBe(30);
    // Index entry: the bitmap at 25.
    expect(words[30 * 1024 + 4]).toBe(25);
  });
});

describe('mappings', () => {
  it('reach as far as the format does', () => {
    device = new TestDevice(64 << 20);
    pool = PoolMetadata.format(device, { dataBlockSizeBytes: 65536, dataBlockCount: 2 ** 24 });
    pool.createThin(1);
    const thin = pool.openThin(1);
    const virtual = [0, 1, 2 ** 32 - 1, 2 ** 32, 2 ** 40, Number.MAX_SAFE_INTEGER - 1];
    for (const block of virtual) pool.insert(thin, block, pool.allocateDataBlock());
    pool.commitSync();
    expectThinCheck(device);
    virtual.forEach((block, i) => {
      pool.lookupRun(thin, block, block + 1, result, false);
      expect(result).toMatchObject({ mapped: true, dataBlock: i });
    });
    expect(pool.highestMapped(thin)).toBe(Number.MAX_SAFE_INTEGER - 1);
    pool.lookupRun(thin, 2 ** 32 + 1, 2 ** 41, result, false);
    expect(result).toMatchObject({ mapped: false, end: 2 ** 40 });
    pool.lookupRun(thin, 2 ** 32 - 1, 2 ** 41, result, false);
    expect(result).toMatchObject({ mapped: true, dataBlock: 2, end: 2 ** 32 + 1 });
  });

  it('are one run across leaves, mapped and not', () => {
    pool.createThin(1);
    const thin = pool.openThin(1);
    for (let i = 0; i < 1000; i++) pool.insert(thin, 5000 + i, pool.allocateDataBlock());
    pool.insert(thin, 900_000, pool.allocateDataBlock());
    const runs: [number, number, boolean][] = [];
    for (let at = 0; at < 1_000_000; at = result.end) {
      pool.lookupRun(thin, at, 1_000_000, result, false);
      runs.push([at, result.end, result.mapped]);
    }
    expect(runs).toEqual([
      [0, 5000, false],
      [5000, 6000, true],
      [6000, 900_000, false],
      [900_000, 900_001, true],
      [900_001, 1_000_000, false],
    ]);
    pool.lookupRun(thin, 5500, 5600, result, false);
    expect(result).toMatchObject({ mapped: true, dataBlock: 500, end: 5600 });
  });

  it('are overwritten without a leak, and refuse a data block that was not allocated', () => {
    pool.createThin(1);
    const thin = pool.openThin(1);
    const [first, second] = [pool.allocateDataBlock(), pool.allocateDataBlock()];
    pool.insert(thin, 9, first);
    pool.insert(thin, 9, second);
    expect(() => pool.insert(thin, 9, second)).toThrow('not an allocated data block');
    expect(thin.mappedBlocks).toBe(1);
    expect([pool.dataBlockReferences(first), pool.dataBlockReferences(second)]).toEqual([0, 1]);
    pool.commitSync();
    expectClean(device);
  });

  it('tell shared from exclusive by the time of the last snapshot', () => {
    pool.createThin(1);
    const thin = pool.openThin(1);
    pool.insert(thin, 0, pool.allocateDataBlock());
    pool.insert(thin, 1, pool.allocateDataBlock());
    pool.createSnap(2, 1);
    pool.insert(thin, 1, pool.allocateDataBlock());
    const snap = pool.openThin(2);
    const shared = [thin, snap].map((one) =>
      [0, 1].map((block) => {
        pool.lookupRun(one, block, 2, result, false);
        return `${result.dataBlock} ${result.shared} ${result.end}`;
      }),
    );
    expect(shared).toEqual([
      ['0 true 1', '2 false 2'],
      ['0 true 2', '1 true 2'],
    ]);
    expect([0, 1, 2].map((block) => pool.dataBlockReferences(block))).toEqual([2, 1, 1]);
    pool.commitSync();
    expectClean(device);
  });
});
