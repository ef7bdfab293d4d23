import { describe, expect, it } from 'vitest';
import { MemoryDevice } from '../../src/block/memory-device.ts';
import { pattern } from '../support/lun-client.ts';
import { SeededRandom } from '../support/seeded-random.ts';
import { BLOCK, ThinPool } from './thin-pool.ts';

const ORIGIN_BLOCKS = 32;

describe('external origin', () => {
  it.each([
    ['snap_equal_size', ORIGIN_BLOCKS * BLOCK, ORIGIN_BLOCKS],
    ['snap_smaller_than_origin', ORIGIN_BLOCKS * BLOCK, ORIGIN_BLOCKS / 2],
    ['snap_bigger_than_origin', ORIGIN_BLOCKS * BLOCK, ORIGIN_BLOCKS * 2],
    ['snap_fractional_tail_block', ORIGIN_BLOCKS * BLOCK - BLOCK / 2 - 512, ORIGIN_BLOCKS * 2],
  ])('%s: its pattern shows, writes stay in the snapshot, the origin is as it was', async (_, originBytes, blocks) => {
    const image = pattern(originBytes, 1);
    const device = new MemoryDevice(originBytes);
    device.writeSync(0, image, 0, originBytes);
    const pool = new ThinPool();
    await pool.createThin(0);
    const thin = pool.open(0, blocks, { device, sizeBytes: originBytes, queued: false });
    const expected = new Uint8Array(blocks * BLOCK);
    expected.set(image.subarray(0, expected.length));
    const verify = async (): Promise<void> => {
      expect(Buffer.compare(await thin.client.read(0, expected.length), expected)).toBe(0);
    };
    await verify();
    expect(await pool.used()).toBe(0);
    const random = new SeededRandom();
    const write = async (at: number, length: number): Promise<void> => {
      const bytes = pattern(length, at);
      await thin.client.write(at, bytes);
      expected.set(bytes, at);
    };
    // Where the origin ends, then anywhere.
    if (originBytes < expected.length) await write(originBytes - 512, 512);
    for (let i = 0; i < 40; i++) await write(random.below(blocks * 128 - 8) * 512, (1 + random.below(8)) * 512);
    await verify();
    const snap = await pool.newSnap(1, thin);
    await thin.wipe(9);
    expect(Buffer.compare(await snap.client.read(0, expected.length), expected)).toBe(0);
    const now = new Uint8Array(originBytes);
    device.readSync(0, now, 0, originBytes);
    expect(Buffer.compare(now, image)).toBe(0);
  });
});
