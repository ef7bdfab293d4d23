import { beforeEach, describe, expect, it } from 'vitest';
import type { Errno } from '../../src/base/errors.ts';
import { PoolMetadata } from '../../src/thin/pool-metadata.ts';
import { RunResult } from '../../src/thin/run-lookup.ts';
import type { ThinMetadata } from '../../src/thin/thin-metadata.ts';
import { completed } from '../support/device-io.ts';
import { contentsOf, expectClean } from '../support/metadata-judges.ts';
import { TestDevice } from '../support/test-device.ts';

let device: TestDevice;
let pool: PoolMetadata;
let thin: ThinMetadata;
const result = new RunResult();

/** A device with blocks 0 to 9 mapped, committed. */
beforeEach(() => {
  device = new TestDevice(4 << 20);
  pool = PoolMetadata.format(device, { dataBlockSizeBytes: 65536, dataBlockCount: 1000 });
  pool.createThin(1);
  thin = pool.openThin(1);
  for (let i = 0; i < 10; i++) pool.insert(thin, i, pool.allocateDataBlock());
  pool.commitSync();
});

const writeBlocks = (): Promise<Errno | null> => completed((completion) => pool.writeBlocks(completion));
const writeSuperblock = (): Promise<Errno | null> => completed((completion) => pool.writeSuperblock(completion));

function mappedAt(block: number): number {
  pool.lookupRun(thin, block, block + 1, result, false);
  return result.mapped ? result.dataBlock : -1;
}

function code(expected: string): unknown {
  return expect.objectContaining({ code: expected });
}

describe('a commit in steps', () => {
  it('writes blocks, flushes, writes the superblock, flushes; and nothing over what was committed', async () => {
    const before = device.memory.slice();
    const used = new Set<number>();
    // What the last commit reaches is what differs from zero, as nothing is ever cleared... so ask the space map: all blocks
    // whose contents a fresh pool reads.
    const reader = new TestDevice(before.slice());
    reader.hook = (event) => {
      used.add(event.offset / 4096);
      return null;
    };
    const fresh = PoolMetadata.open(reader);
    fresh.lookupRun(fresh.openThin(1), 0, 1, result, false);
    fresh.allocateDataBlock();

    const kinds: string[] = [];
    device.hook = ({ kind, offset }) => {
      if (kind !== 'read') kinds.push(kind === 'write' && offset === 0 ? 'superblock' : kind);
      if (kind === 'write' && offset > 0) expect(used.has(offset / 4096)).toBe(false);
      return null;
    };
    pool.insert(thin, 50, pool.allocateDataBlock());
    pool.prepareCommit();
    expect(await writeBlocks()).toBe(null);
    expect(contentsOf(device).devices.get(1)!.mappings.has(50)).toBe(false);
    expectClean(device);
    expect(await writeSuperblock()).toBe(null);
    expect(kinds.slice(-3)).toEqual(['flush', 'superblock', 'flush']);
    expect(kinds.slice(0, -3).every((kind) => kind === 'write')).toBe(true);
    expectClean(device);
    expect(contentsOf(device).devices.get(1)!.mappings.has(50)).toBe(true);
    expect([pool.changed, thin.changed]).toEqual([false, false]);
  });

  it('leaves lookups in peace and forbids changes while it runs', async () => {
    pool.insert(thin, 50, pool.allocateDataBlock());
    const eleventh = pool.allocateDataBlock();
    const changes = [
      (): unknown => pool.insert(thin, 51, eleventh),
      (): unknown => pool.removeRange(thin, 0, 10, 10),
      (): unknown => pool.createThin(2),
      (): unknown => pool.deleteThin(1),
      (): unknown => pool.setTransactionId(0, 1),
    ];
    const expectRefused = (): void => {
      expect(mappedAt(50)).toBe(10);
      // Only memory knows of it.
      pool.freeDataBlock(pool.allocateDataBlock());
      for (const change of changes) expect(change).toThrow('The metadata is changed during a commit');
      expect(pool.mustAbort).toBe(false);
    };
    pool.prepareCommit();
    expectRefused();
    const blocks = writeBlocks();
    expectRefused();
    await blocks;
    expectRefused();
    const superblock = writeSuperblock();
    expectRefused();
    await superblock;
    for (const change of changes) if (change !== changes[3]) change();
    pool.commitSync();
    expectClean(device);
  });

  it('has begun the next transaction when its last completion is called', async () => {
    pool.insert(thin, 50, pool.allocateDataBlock());
    pool.prepareCommit();
    await writeBlocks();
    const error = await completed((completion) =>
      pool.writeSuperblock({
        ioDone: (late) => {
          pool.insert(thin, 51, pool.allocateDataBlock());
          completion.ioDone(late);
        },
      }),
    );
    expect(error).toBe(null);
    pool.commitSync();
    expectClean(device);
    expect(contentsOf(device).devices.get(1)!.mappings.size).toBe(12);
  });

  it.each([
    ['a block', (kind: string, offset: number) => kind === 'write' && offset > 0, 'blocks'],
    ['the first flush', (kind: string) => kind === 'flush', 'blocks'],
    ['the superblock', (kind: string, offset: number) => kind === 'write' && offset === 0, 'superblock'],
    ['the last flush', (kind: string) => kind === 'flush', 'superblock'],
  ])('can be aborted when writing %s fails', async (_, isFailing, step) => {
    pool.insert(thin, 50, pool.allocateDataBlock());
    pool.removeRange(thin, 0, 5, 10);
    pool.prepareCommit();
    if (step === 'superblock') await writeBlocks();
    device.hook = ({ kind, offset }) => (isFailing(kind, offset) ? 'EIO' : null);
    expect(await (step === 'blocks' ? writeBlocks() : writeSuperblock())).toBe('EIO');
    expect(pool.mustAbort).toBe(true);
    expect(() => pool.allocateDataBlock()).toThrow('must be aborted');
    expect(() => pool.commitSync()).toThrow('must be aborted');
    device.hook = null;
    pool.abort();
    expect(pool.mustAbort).toBe(false);
    // What the superblock on the device says: only where its own write went through is that the new state.
    const isNew = step === 'superblock' && _ === 'the last flush';
    expect([mappedAt(50), mappedAt(0)]).toEqual(isNew ? [10, -1] : [-1, 0]);
    expect(thin.mappedBlocks).toBe(isNew ? 6 : 10);
    pool.setNeedsCheck();
    expectClean(device);
  });

  it('is only as large as the change', () => {
    const { writes } = pool.stats;
    pool.insert(thin, 50, pool.allocateDataBlock());
    pool.commitSync();
    // Data bitmap, metadata bitmap, top level, leaf, details, data index, metadata index; and the superblock.
    expect(pool.stats.writes - writes).toBe(8);
  });
});

describe('an abort', () => {
  it('goes back to the last commit, and says so to devices that had changes', () => {
    const other = pool.openThin(1);
    pool.createThin(2);
    const created = pool.openThin(2);
    pool.insert(created, 0, pool.allocateDataBlock());
    pool.insert(thin, 99, pool.allocateDataBlock());
    pool.createSnap(3, 1);
    pool.setTransactionId(0, 5);
    expect([pool.time, thin.snapshottedTime, thin.mappedBlocks]).toEqual([1, 1, 11]);
    pool.abort();
    expect(other).toBe(thin);
    expect(thin).toMatchObject({ mappedBlocks: 10, snapshottedTime: 0, changed: false, abortedWithChanges: true });
    expect([pool.time, pool.transactionId, pool.thinIds()]).toEqual([0, 0, [1]]);
    expect([mappedAt(0), mappedAt(99)]).toEqual([0, -1]);
    expect(created.abortedWithChanges).toBe(true);
    expect(() => pool.insert(created, 1, 1)).toThrow(code('ENODATA'));
    expect(() => pool.lookupRun(created, 0, 1, result, false)).toThrow('its creation was aborted');
    pool.closeThin(created);
    pool.createThin(2);
    expect(pool.openThin(2)).not.toBe(created);
    expect(pool.freeDataBlocks).toBe(990);
    pool.commitSync();
    expectClean(device);
  });

  it('leaves devices without changes alone', () => {
    pool.abort();
    expect(thin).toMatchObject({ mappedBlocks: 10, abortedWithChanges: false });
  });

  it('forgets what was freed', () => {
    pool.recordFreed = true;
    pool.removeRange(thin, 0, 5, 10);
    expect(pool.freed.count).toBe(5);
    pool.abort();
    expect(pool.freed.count).toBe(0);
    pool.removeRange(thin, 0, 3, 10);
    expect(pool.freed.count).toBe(3);
  });

  it('that cannot read the device leaves a pool that refuses everything', () => {
    pool.insert(thin, 50, pool.allocateDataBlock());
    device.hook = () => 'EIO';
    expect(() => pool.abort()).toThrow(code('EIO'));
    device.hook = null;
    for (const use of [
      (): unknown => pool.lookupRun(thin, 0, 1, result, true),
      (): unknown => pool.insert(thin, 0, 1),
      (): unknown => pool.thinIds(),
      (): unknown => pool.commitSync(),
      (): unknown => pool.setNeedsCheck(),
    ]) {
      expect(use).toThrow(code('EIO'));
    }
    expectClean(device);
  });

  it('is due after a change that failed half-way, and nothing else is accepted', () => {
    pool.close();
    pool = PoolMetadata.open(device);
    thin = pool.openThin(1);
    const block = pool.allocateDataBlock();
    // The leaf is not in the cache: it is read when the change is under way.
    device.hook = ({ kind }) => (kind === 'read' ? 'EIO' : null);
    expect(() => pool.insert(thin, 50, block)).toThrow(code('EIO'));
    device.hook = null;
    expect(pool.mustAbort).toBe(true);
    expect(() => pool.prepareCommit()).toThrow('must be aborted');
    pool.abort();
    pool.insert(thin, 50, pool.allocateDataBlock());
    pool.commitSync();
    expectClean(device);
  });
});

describe('lookups that do not block', () => {
  it('say what they miss, and find it after a prefetch', async () => {
    for (let i = 0; i < 900; i++) pool.insert(thin, i * 2, pool.allocateDataBlock());
    pool.commitSync();
    pool.close();
    pool = PoolMetadata.open(device);
    thin = pool.openThin(1);
    const { blockingReads } = pool.stats;
    let prefetches = 0;
    while (!pool.lookupRun(thin, 1000, 1001, result, true)) {
      prefetches++;
      await completed((completion) => expect(pool.prefetch(completion)).toBe(true));
    }
    expect(result).toMatchObject({ mapped: true, end: 1001 });
    // Root, then leaf.
    expect(prefetches).toBe(2);
    expect(pool.stats.blockingReads).toBe(blockingReads);
    // Half a run is an answer.
    expect(pool.lookupRun(thin, 1001, 100_000, result, true)).toBe(true);
    expect(result).toMatchObject({ mapped: false, end: 1002 });
    pool.insert(thin, 1000, pool.allocateDataBlock());
    pool.commitSync();
    expectClean(device);
  });

  it('end a run early rather than wait', () => {
    for (let i = 10; i < 700; i++) pool.insert(thin, i, pool.allocateDataBlock());
    pool.commitSync();
    pool.close();
    pool = PoolMetadata.open(device);
    thin = pool.openThin(1);
    expect(mappedAt(0)).toBe(0);
    expect(pool.lookupRun(thin, 0, 700, result, true)).toBe(true);
    expect(result.mapped && result.end > 50 && result.end < 700).toBe(true);
    expect(pool.lookupRun(thin, 0, 700, result, false)).toBe(true);
    expect(result.end).toBe(700);
  });
});
