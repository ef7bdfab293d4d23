import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { PoolMetadata } from '../../src/thin/pool-metadata.ts';
import { contentsOf, expectClean, expectThinCheck, goldenContents, goldenImage } from '../support/metadata-judges.ts';
import { TestDevice } from '../support/test-device.ts';

const NAMES = readdirSync(join(import.meta.dirname, '..', 'golden'))
  .filter((name) => name.endsWith('.md.xz'))
  .map((name) => name.slice(0, -6));

/** With thin-provisioning-tools 1.x in it, where the kernel tests have been set up. */
const LAB = process.env['THINLUN_LAB'] ?? '/var/tmp/thinlun-lab';

function expectNewThinCheck(device: TestDevice): void {
  if (!existsSync(join(LAB, 'usr/sbin/thin_check'))) return;
  const folder = mkdtempSync(join(LAB, 'var/tmp/thinlun-'));
  try {
    writeFileSync(join(folder, 'image'), device.memory);
    execFileSync('chroot', [LAB, 'thin_check', '-q', join(folder.slice(LAB.length), 'image')], { stdio: 'pipe' });
  } finally {
    rmSync(folder, { recursive: true });
  }
}

describe('images made by the same steps as the kernel’s', () => {
  it('are the same in every byte', () => {
    const device = new TestDevice(8 << 20);
    const expectSame = (name: string): void => {
      expect(Buffer.compare(device.memory, goldenImage(name).memory), name).toBe(0);
    };
    const pool = PoolMetadata.format(device, { dataBlockSizeBytes: 65536, dataBlockCount: 1024 });
    expectSame('a00-fresh-created-and-resized');
    pool.createThin(1);
    pool.commitSync();
    expectSame('a01-created-thin-1');
    const origin = pool.openThin(1);
    pool.insert(origin, 0, pool.allocateDataBlock());
    pool.commitSync();
    for (const block of [1, 2, 3, 4, 100]) pool.insert(origin, block, pool.allocateDataBlock());
    pool.commitSync();
    expectSame('a02-thin1-wrote-5-plus-1');
    pool.createSnap(2, 1);
    pool.commitSync();
    pool.insert(origin, 0, pool.allocateDataBlock());
    pool.commitSync();
    expectSame('a03-snap2-then-origin-broke-block0');
    pool.insert(pool.openThin(2), 0, pool.allocateDataBlock());
    pool.commitSync();
    expectSame('a04-snap2-wrote-block0-too');
    pool.reserveSnapshot();
    pool.commitSync();
    expectSame('a05-metadata-snap-reserved');
    expectSame('a06-reserved-then-more-writes');
    pool.insert(origin, 7, pool.allocateDataBlock());
    pool.releaseSnapshot();
    pool.commitSync();
    expectSame('a07-metadata-snap-released');
  });
});

describe.each(NAMES)('the image %s', (name) => {
  it('opens, and its lookups give the mappings of its XML', () => {
    const pool = PoolMetadata.open(goldenImage(name));
    const expected = goldenContents(name);
    expect(pool.thinIds()).toEqual([...expected.devices.keys()]);
    expect([pool.time, pool.transactionId, pool.dataBlockCount]).toEqual([
      expected.time,
      expected.transactionId,
      expected.dataBlockCount,
    ]);
    const used = new Set<number>();
    for (const [id, device] of expected.devices) {
      const thin = pool.openThin(id);
      const { mappedBlocks, creationTime, snapshottedTime } = device;
      expect(thin).toMatchObject({ mappedBlocks, creationTime, snapshottedTime });
      for (const [block, { dataBlock, time }] of device.mappings) {
        used.add(dataBlock);
        const result = { mapped: false, dataBlock: -1, time: -1, shared: false, end: 0 };
        pool.lookupRun(thin, block, block + 1, result, false);
        expect(result).toEqual({ mapped: true, dataBlock, time, shared: snapshottedTime > time, end: block + 1 });
      }
    }
    // A metadata snapshot keeps blocks that no device maps any more.
    if (pool.heldRoot === 0) expect(pool.dataBlockCount - pool.freeDataBlocks).toBe(used.size);
  });

  it('goes on being written here, and nothing that was in it changes', () => {
    const device = goldenImage(name);
    const expected = goldenContents(name);
    const pool = PoolMetadata.open(device);
    if (pool.needsCheck) {
      expect(() => pool.createThin(4000)).toThrow('needs a check');
      pool.clearNeedsCheck();
    }
    for (let round = 0; round < 3; round++) {
      pool.createThin(4000 + round);
      const thin = pool.openThin(4000 + round);
      for (let i = 0; i < 20 && pool.freeDataBlocks > 0; i++) pool.insert(thin, i * 3, pool.allocateDataBlock());
      pool.commitSync();
      const [first] = expected.devices.keys();
      if (first !== undefined && pool.freeDataBlocks > 4) {
        pool.createSnap(5000 + round, first);
        const snap = pool.openThin(5000 + round);
        for (let i = 0; i < 4; i++) pool.insert(snap, i * 5, pool.allocateDataBlock());
        pool.removeRange(snap, 2, 100, 1000);
      }
      pool.commitSync();
      if (round === 1) {
        pool.closeThin(thin);
        pool.deleteThin(4000 + round);
        pool.commitSync();
      }
    }
    expectClean(device);
    expectThinCheck(device);
    expectNewThinCheck(device);
    const now = contentsOf(device);
    for (const [id, before] of expected.devices) expect(now.devices.get(id)!.mappings).toEqual(before.mappings);
  });
});
