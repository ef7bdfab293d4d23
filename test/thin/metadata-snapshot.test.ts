import { execFileSync } from 'node:child_process';
import { describe, expect, it } from 'vitest';
import { StorageError } from '../../src/base/errors.ts';
import { PoolMetadata } from '../../src/thin/pool-metadata.ts';
import { contentsOf, expectClean, expectThinCheck, withImage } from '../support/metadata-judges.ts';
import { TestDevice } from '../support/test-device.ts';
import { type PoolContents, parseThinXml } from '../support/thin-xml.ts';
import { requireTool } from '../support/tools.ts';

const SIZE = 4 << 20;

function newPool(): { device: TestDevice; pool: PoolMetadata } {
  const device = new TestDevice(SIZE);
  return { device, pool: PoolMetadata.format(device, { dataBlockSizeBytes: 65536, dataBlockCount: 4096 }) };
}

function write(pool: PoolMetadata, id: number, begin: number, end: number): void {
  const thin = pool.openThin(id);
  for (let block = begin; block < end; block++) pool.insert(thin, block, pool.allocateDataBlock());
  pool.closeThin(thin);
}

/** What thin_dump reads in the metadata snapshot. */
function dumpHeld(device: TestDevice): PoolContents {
  return parseThinXml(
    withImage(device, (path) => execFileSync(requireTool('thin_dump'), ['-m', path], { encoding: 'utf8' })),
  );
}

function expectGood(device: TestDevice): void {
  expectClean(device);
  expectThinCheck(device);
}

const code = (errno: string): unknown => expect.objectContaining({ code: errno });

describe('a metadata snapshot', () => {
  it('is held and released over and over on an empty pool (hold_release_cycle_empty_pool)', () => {
    const { device, pool } = newPool();
    const free = pool.freeMetadataBlocks;
    for (let i = 0; i < 20; i++) {
      pool.reserveSnapshot();
      pool.commitSync();
      expect(pool.heldRoot).toBeGreaterThan(0);
      if (i === 0) expectGood(device);
      pool.releaseSnapshot();
      pool.commitSync();
      expect(pool.heldRoot).toBe(0);
      expect(pool.freeMetadataBlocks).toBe(free);
    }
    expectGood(device);
  });

  it('is not there at first (no_initial_hold), and there is one at a time (cannot_hold_twice, cannot_release_twice)', () => {
    const { pool } = newPool();
    expect(pool.heldRoot).toBe(0);
    expect(() => pool.releaseSnapshot()).toThrow(code('EINVAL'));
    pool.reserveSnapshot();
    pool.commitSync();
    expect(() => pool.reserveSnapshot()).toThrow(code('EBUSY'));
    expect(pool.mustAbort).toBe(false);
    pool.releaseSnapshot();
    pool.commitSync();
    expect(() => pool.releaseSnapshot()).toThrow(StorageError);
  });

  it('keeps what was mapped when all of it is written anew, deleted and made again (held_dump)', () => {
    const { device, pool } = newPool();
    pool.createThin(1);
    pool.createThin(2);
    write(pool, 1, 0, 1000);
    write(pool, 2, 500, 520);
    pool.commitSync();
    const before = contentsOf(device);
    pool.reserveSnapshot();
    pool.commitSync();
    expect(dumpHeld(device).devices).toEqual(before.devices);
    write(pool, 1, 0, 1000);
    pool.deleteThin(2);
    pool.createThin(3);
    write(pool, 3, 0, 10);
    pool.commitSync();
    expect(dumpHeld(device).devices).toEqual(before.devices);
    expect([...contentsOf(device).devices.keys()]).toEqual([1, 3]);
    expectGood(device);
    // What only the snapshot maps is in use until it is released.
    expect(pool.dataBlockCount - pool.freeDataBlocks).toBe(1000 + 20 + 1000 + 10);
    const reopened = PoolMetadata.open(device);
    expect(reopened.heldRoot).toBe(pool.heldRoot);
    reopened.releaseSnapshot();
    reopened.commitSync();
    expect(reopened.dataBlockCount - reopened.freeDataBlocks).toBe(1010);
    expectGood(device);
  });

  it('that has little in common with the devices any more is released in steps, each leaving everything in order', () => {
    const { device, pool } = newPool();
    for (const id of [1, 2, 3]) {
      pool.createThin(id);
      write(pool, id, 0, id === 2 ? 10 : 1000);
    }
    pool.createSnap(4, 3);
    pool.commitSync();
    pool.reserveSnapshot();
    pool.commitSync();
    write(pool, 1, 0, 1000);
    pool.deleteThin(2);
    pool.deleteThin(3);
    pool.commitSync();
    const live = contentsOf(device).devices;
    let steps = 1;
    let held = 4;
    for (; !pool.releaseSnapshotStep(1); steps++) {
      pool.commitSync();
      expectGood(device);
      expect(contentsOf(device).devices).toEqual(live);
      const left = dumpHeld(device).devices.size;
      expect(left).toBeLessThanOrEqual(held);
      held = left;
    }
    expect(steps).toBeGreaterThan(5);
    pool.commitSync();
    expectGood(device);
    expect(contentsOf(device).devices).toEqual(live);
    expect(pool.dataBlockCount - pool.freeDataBlocks).toBe(2000);
  });

  it('keeps discarded blocks from being used again until it is released', () => {
    const { device, pool } = newPool();
    pool.createThin(1);
    write(pool, 1, 0, 4);
    pool.commitSync();
    pool.reserveSnapshot();
    pool.commitSync();
    const thin = pool.openThin(1);
    pool.removeRange(thin, 0, 2, 10);
    pool.commitSync();
    expect(pool.dataBlockCount - pool.freeDataBlocks).toBe(4);
    pool.releaseSnapshot();
    pool.commitSync();
    expect(pool.dataBlockCount - pool.freeDataBlocks).toBe(2);
    expectGood(device);
  });

  it('that is reserved in a transaction which is aborted is not there', () => {
    const { device, pool } = newPool();
    pool.createThin(1);
    write(pool, 1, 0, 4);
    pool.commitSync();
    pool.reserveSnapshot();
    pool.abort();
    expect(pool.heldRoot).toBe(0);
    pool.createThin(2);
    pool.commitSync();
    expectGood(device);
  });

  it('demands a commit before', () => {
    const { pool } = newPool();
    pool.createThin(1);
    expect(() => pool.reserveSnapshot()).toThrow('commit before');
  });

  it('can be taken and released many times while devices are written (metadata_snap_cycle)', () => {
    const { device, pool } = newPool();
    pool.createThin(1);
    for (let i = 0; i < 30; i++) {
      write(pool, 1, (i * 37) % 300, ((i * 37) % 300) + 50);
      pool.commitSync();
      pool.reserveSnapshot();
      pool.commitSync();
      write(pool, 1, (i * 91) % 300, ((i * 91) % 300) + 20);
      if (i % 5 === 0) pool.createSnap(10 + i, 1);
      pool.commitSync();
      pool.releaseSnapshot();
      pool.commitSync();
    }
    expectGood(device);
  });
});
