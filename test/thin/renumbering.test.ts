import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { MIB } from '../../src/base/units.ts';
import { openBlockDevice } from '../../src/block/file-device.ts';
import { Pool } from '../../src/thin/pool.ts';
import { createPool } from '../../src/thin/pool-create.ts';
import { PoolMetadata } from '../../src/thin/pool-metadata.ts';
import { LunClient, pattern } from '../support/lun-client.ts';
import { contentsOf, expectClean, expectThinCheck } from '../support/metadata-judges.ts';
import { TestDevice } from '../support/test-device.ts';
import { requireTool } from '../support/tools.ts';

const TIME_LIMIT = 2 ** 24;

/** Five devices that share leaves, nodes and whole trees, and the last snapshot that there can be. */
function worn(metadataKibibytes = 8192): { device: TestDevice; pool: PoolMetadata } {
  const device = new TestDevice(metadataKibibytes << 10);
  const pool = PoolMetadata.format(device, { dataBlockSizeBytes: 65536, dataBlockCount: 100_000 });
  const write = (id: number, begin: number, end: number): void => {
    const thin = pool.openThin(id);
    for (let block = begin; block < end; block++) pool.insert(thin, block, pool.allocateDataBlock());
    pool.closeThin(thin);
  };
  pool.createThin(1);
  write(1, 0, 12_000);
  pool.createSnap(2, 1);
  write(1, 100, 110);
  pool.createSnap(3, 1);
  pool.createSnap(4, 3);
  write(4, 8000, 8300);
  pool.createThin(6);
  pool.commitSync();
  const { superblock } = (pool as unknown as { transaction: { superblock: { time: number } } }).transaction;
  superblock.time = TIME_LIMIT - 2;
  pool.createSnap(5, 4);
  pool.commitSync();
  expect(() => pool.createSnap(7, 1)).toThrow("the pool's times are used up");
  return { device, pool };
}

/** Mappings without times. */
function mappingsOf(device: TestDevice): unknown {
  const { devices } = contentsOf(device);
  return [...devices].map(([id, { mappings }]) => [
    id,
    [...mappings].map(([block, { dataBlock }]) => [block, dataBlock]),
  ]);
}

function renumber(pool: PoolMetadata, between: () => void = () => {}): void {
  const renumbering = pool.renumberTimes();
  for (const id of pool.thinIds()) {
    renumbering.renumber(id);
    pool.commitSync();
    between();
  }
  renumbering.finish();
  pool.commitSync();
}

describe('renumbering a pool’s times', () => {
  it('keeps every mapping and what is shared, and lets snapshots be taken again', () => {
    const { device, pool } = worn();
    const before = { mappings: mappingsOf(device), data: pool.freeDataBlocks, metadata: pool.freeMetadataBlocks };
    renumber(pool, () => expectClean(device));
    expect(mappingsOf(device)).toEqual(before.mappings);
    expect([pool.time, pool.freeDataBlocks]).toEqual([1, before.data]);
    expect(pool.freeMetadataBlocks).toBe(before.metadata);
    for (const { snapshottedTime, creationTime, mappings } of contentsOf(device).devices.values()) {
      expect([creationTime, snapshottedTime]).toEqual([0, 1]);
      expect([...mappings.values()].every(({ time }) => time === 0)).toBe(true);
    }
    expectClean(device);
    expectThinCheck(device);
    pool.createSnap(7, 1);
    pool.commitSync();
    expect(pool.time).toBe(2);
    expectClean(device);
  });

  it('that ends half-way leaves a pool as good as before', () => {
    const { device, pool } = worn();
    const before = mappingsOf(device);
    const renumbering = pool.renumberTimes();
    for (const id of [1, 2]) {
      renumbering.renumber(id);
      pool.commitSync();
    }
    renumbering.renumber(3);
    const reopened = PoolMetadata.open(device);
    expect(reopened.time).toBe(TIME_LIMIT - 1);
    expect(mappingsOf(device)).toEqual(before);
    expectClean(device);
    renumber(reopened);
    expect(mappingsOf(device)).toEqual(before);
    expect(reopened.time).toBe(1);
    expectClean(device);
  });

  it('is refused while a device is open, or a metadata snapshot held, or without room for a copy, and changes nothing then', () => {
    const { pool } = worn(640);
    const thin = pool.openThin(1);
    expect(() => pool.renumberTimes()).toThrow('thin device 1 is in use');
    pool.closeThin(thin);
    expect(() => pool.renumberTimes().renumber(1)).toThrow('free blocks');
    expect([pool.changed, pool.mustAbort]).toEqual([false, false]);
    pool.reserveSnapshot();
    pool.commitSync();
    expect(() => pool.renumberTimes()).toThrow('there is a metadata snapshot');
  });

  it('of a pool in its folder keeps the data of volumes and snapshots apart', async () => {
    const dir = join(mkdtempSync(join(tmpdir(), 'thinlun-renumber-')), 'tank');
    await createPool(dir, { dataSizeBytes: 64 * MIB });
    let pool = await Pool.open(dir);
    await pool.createVolume('a', 8 * MIB);
    const device = pool.openVolume('a');
    const client = new LunClient(device);
    await client.write(0, pattern(MIB, 1));
    await pool.createSnapshot('a', 'b');
    await client.write(0, pattern(65536, 2));
    await expect(pool.renumberTimes()).rejects.toMatchObject({ code: 'EBUSY' });
    await pool.closeVolume(device);
    await pool.renumberTimes();
    await new LunClient(pool.openVolume('a')).write(65536, pattern(65536, 3));
    await new LunClient(pool.openVolume('b')).write(3 * 65536, pattern(65536, 4));
    await pool.close();
    pool = await Pool.open(dir);
    const expected = pattern(MIB, 1);
    const b = await new LunClient(pool.openVolume('b')).read(0, 3 * 65536);
    expect(Buffer.compare(b, expected.subarray(0, 3 * 65536))).toBe(0);
    const a = await new LunClient(pool.openVolume('a')).read(2 * 65536, MIB - 2 * 65536);
    expect(Buffer.compare(a, expected.subarray(2 * 65536))).toBe(0);
    await pool.close();
    execFileSync(requireTool('thin_check'), [join(dir, 'metadata')], { stdio: 'pipe' });
    const metadata = openBlockDevice(join(dir, 'metadata'), { readOnly: true });
    expect(PoolMetadata.open(metadata, { readOnly: true }).time).toBe(1);
    await metadata.close();
    rmSync(join(dir, '..'), { recursive: true });
  });
});
