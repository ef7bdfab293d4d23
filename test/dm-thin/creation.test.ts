import { describe, expect, it } from 'vitest';
import { GIB, KIB, MIB, SECTOR_SIZE } from '../../src/base/units.ts';
import { MemoryDevice } from '../../src/block/memory-device.ts';
import { PoolMetadata } from '../../src/thin/pool-metadata.ts';
import { refused, ThinPool } from './thin-pool.ts';

const LOTS = 1000;

function format(dataBlockSizeSectors: number, metadataBytes: number = 2 * MIB): void {
  const dataBlockSizeBytes = dataBlockSizeSectors * SECTOR_SIZE;
  PoolMetadata.format(new MemoryDevice(metadataBytes), { dataBlockSizeBytes, dataBlockCount: 16 }).close();
}

describe('creation', () => {
  it('create_lots_of_empty_thins: a thousand, a commit each', async () => {
    const pool = new ThinPool({ metadataSize: 16 * MIB });
    for (let id = 0; id < LOTS; id++) await pool.createThin(id);
    expect(pool.contents().devices.size).toBe(LOTS);
  });

  it('create_lots_of_empty_snaps: 999 of one empty origin', async () => {
    const pool = new ThinPool({ metadataSize: 16 * MIB });
    await pool.createThin(0);
    for (let id = 1; id < LOTS; id++) await pool.createSnap(id, 0);
    expect(pool.contents().devices.size).toBe(LOTS);
  });

  it('create_lots_of_snaps: 999 of one origin with data, which take none', async () => {
    const pool = new ThinPool({ metadataSize: 16 * MIB });
    const origin = await pool.newThin(0, 32);
    await origin.wipe(1);
    for (let id = 1; id < LOTS; id++) await pool.createSnap(id, 0);
    expect(await pool.used()).toBe(32);
    expect(pool.contents().devices.get(LOTS - 1)!.mappedBlocks).toBe(32);
  });

  it('create_lots_of_recursive_snaps: a chain of 999, each a snapshot of the one before', async () => {
    const pool = new ThinPool({ metadataSize: 16 * MIB });
    const origin = await pool.newThin(0, 4);
    await origin.wipe(1);
    for (let id = 1; id < LOTS; id++) await pool.createSnap(id, id - 1);
    await pool.open(LOTS - 1, 4).verify(1);
    expect(await pool.used()).toBe(4);
  });

  it('huge_block_size: blocks of 256 MiB are provisioned, zeroed and shared as small ones are', async () => {
    const pool = new ThinPool({ blockSizeBytes: 256 * MIB, dataBlocks: 4 });
    const { client } = await pool.newThin(0, 2);
    for (let at = 0; at < 2 * 256 * MIB; at += 32 * MIB) await client.write(at, new Uint8Array(4096).fill(7));
    expect(await pool.used()).toBe(2);
    const [zeroes] = await client.read(64 * MIB - 4096, 4096);
    expect(zeroes).toBe(0);
    const [sevens] = await client.read(480 * MIB, 4096);
    expect(sevens).toBe(7);
  });

  it('non_power_of_2_data_block_size_fails: one that is no multiple of 64 KiB, to be exact', () => {
    expect(() => format(128 + 57)).toThrow(/multiple of 64 KiB/);
    expect(() => format(3 * 128)).not.toThrow();
  });

  it('too_small_data_block_size_fails', () => {
    expect(() => format(64)).toThrow(/64 KiB/);
  });

  it('too_large_data_block_size_fails', () => {
    expect(() => format(2 ** 21 + 1)).toThrow(/1 GiB/);
    expect(() => format(2 ** 21 + 128)).toThrow(/1 GiB/);
  });

  it('largest_data_block_size_succeeds: 1 GiB', async () => {
    const pool = new ThinPool({ blockSizeBytes: GIB, dataBlocks: 1 });
    const { client } = await pool.newThin(0, 1);
    await client.write(GIB - KIB, new Uint8Array(KIB).fill(1));
    expect(await pool.used()).toBe(1);
  });

  it('too_large_a_dev_t_fails', async () => {
    const pool = new ThinPool();
    await refused('EINVAL', pool.createThin(2 ** 24));
    await pool.createThin(1);
    await refused('EINVAL', pool.createSnap(2 ** 24, 1));
  });

  it('largest_dev_t_succeeds', async () => {
    const pool = new ThinPool();
    await pool.createThin(2 ** 24 - 1);
    await pool.createSnap(2 ** 24 - 2, 2 ** 24 - 1);
  });

  it('too_small_a_metadata_dev_fails', () => {
    expect(() => format(128, 16 * KIB)).toThrow(/needs at least/);
  });
});
