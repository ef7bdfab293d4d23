import { describe, expect, it } from 'vitest';
import type { BlockDevice } from '../../src/block/block-device.ts';
import type { FaultyOperation } from '../support/faulty-device.ts';
import { FaultyDevice } from '../support/faulty-device.ts';
import { expectBytes, LunClient as Lun, type LunClient, pattern } from '../support/lun-client.ts';
import { BLOCK, type Fixture, makePool } from './pool-fixture.ts';

const COPY_CHUNK = 2 ** 20;

/** A volume with a snapshot, so that its first blocks are shared; blocks of several chunks of a copy. */
async function sharedVolume(blockSizeBytes: number): Promise<{ pool: Fixture; data: FaultyDevice; lun: LunClient }> {
  let data!: FaultyDevice;
  const wrapData = (device: BlockDevice): BlockDevice => {
    data = new FaultyDevice(device);
    return data;
  };
  const pool = makePool({ blockSizeBytes, dataBlocks: 12, wrapData });
  const device = pool.volume(1, 6 * blockSizeBytes);
  const lun = new Lun(device);
  await lun.write(0, pattern(2 * blockSizeBytes, 1));
  await pool.engine.mutate(() => pool.metadata.createSnap(2, 1));
  return { pool, data, lun };
}

describe.each([BLOCK, 3 * COPY_CHUNK + BLOCK])('with blocks of %i bytes, a write', (size) => {
  const chunks = Math.ceil(size / COPY_CHUNK);

  it.each<[string, FaultyOperation, number]>([
    ['to a shared block, when its first chunk cannot be read', 'read', 1],
    ['to a shared block, when its last chunk cannot be read', 'read', chunks],
    ['to a shared block, when the copy cannot be written', 'write', 1],
    ['to a shared block, when a later part cannot be written', 'write', chunks],
  ])('%s, fails, costs no block, and can be sent again', async (_what, operation, nth) => {
    const { pool, data, lun } = await sharedVolume(size);
    const free = pool.metadata.freeDataBlocks;
    data.failNth(operation, nth);
    await expect(lun.write(size - 512, pattern(512, 2))).rejects.toThrow('EIO');
    expect(data.failures).toBe(1);
    await lun.flush();
    expect([pool.metadata.freeDataBlocks, pool.engine.space.mode]).toEqual([free, 'write']);
    expectBytes(await lun.read(0, 2 * size), pattern(2 * size, 1));
    await lun.write(size - 512, pattern(512, 2));
    const expected = pattern(2 * size, 1);
    expected.set(pattern(512, 2), size - 512);
    expectBytes(await lun.read(0, 2 * size), expected);
    expect(pool.metadata.freeDataBlocks).toBe(free - 1);
  });

  it.each<[string, FaultyOperation]>([
    ['zeroes cannot be written', 'writeZeroes'],
    ['its data cannot be written', 'write'],
  ])('to a new block, when %s, fails, costs no block, and can be sent again', async (_what, operation) => {
    const { pool, data, lun } = await sharedVolume(size);
    const free = pool.metadata.freeDataBlocks;
    data.failNth(operation, 1);
    await expect(lun.write(4 * size + 4096, pattern(512, 3))).rejects.toThrow('EIO');
    await lun.flush();
    expect(pool.metadata.freeDataBlocks).toBe(free);
    expect(await lun.extent(4 * size, size)).toMatchObject({ mapped: false });
    await lun.write(4 * size + 4096, pattern(512, 3));
    const expected = new Uint8Array(size);
    expected.set(pattern(512, 3), 4096);
    expectBytes(await lun.read(4 * size, size), expected);
  });

  it('of WRITE ZEROES to shared and new blocks that fails half-way leaves all of them as they were', async () => {
    const { pool, data, lun } = await sharedVolume(size);
    const free = pool.metadata.freeDataBlocks;
    data.failNth('writeZeroes', 2);
    await expect(lun.writeZeroes(size + 512, 3 * size)).rejects.toThrow('EIO');
    await lun.flush();
    const expected = new Uint8Array(6 * size);
    expected.set(pattern(2 * size, 1));
    expectBytes(await lun.read(0, 6 * size), expected);
    expect(pool.metadata.freeDataBlocks).toBe(free);
  });
});
