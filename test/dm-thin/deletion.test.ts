import { describe, expect, it } from 'vitest';
import { MIB } from '../../src/base/units.ts';
import { refused, ThinPool } from './thin-pool.ts';

const LOTS = 1000;

describe('deletion', () => {
  it('create_delete_cycle: a thousand times the same device', async () => {
    const pool = new ThinPool();
    for (let i = 0; i < LOTS; i++) {
      await pool.createThin(0);
      await pool.delete(0);
    }
    expect(pool.contents().devices.size).toBe(0);
  });

  it('create_many_thins_then_delete_them', async () => {
    const pool = new ThinPool({ metadataSize: 16 * MIB });
    const { freeMetadataBlocks } = pool.fixture.metadata;
    for (let id = 0; id < LOTS; id++) await pool.createThin(id);
    for (let id = 0; id < LOTS; id++) await pool.delete(id);
    expect(pool.contents().devices.size).toBe(0);
    expect(pool.fixture.metadata.freeMetadataBlocks).toBe(freeMetadataBlocks);
  });

  it('rolling_create_delete: a device dies for each that is made', async () => {
    const pool = new ThinPool({ metadataSize: 16 * MIB });
    for (let id = 0; id < LOTS / 2; id++) await pool.createThin(id);
    for (let id = 0; id < LOTS / 2; id++) {
      await pool.delete(id);
      await pool.createThin(id);
    }
    expect(pool.contents().devices.size).toBe(LOTS / 2);
  });

  it('delete_thin', async () => {
    const pool = new ThinPool();
    await pool.createThin(0);
    await pool.delete(0);
    expect(pool.contents().devices.size).toBe(0);
  });

  it('delete_provisioned_thin: the data blocks in use return to none', async () => {
    const pool = new ThinPool();
    const thin = await pool.newThin(0, 64);
    await thin.wipe(1);
    expect(await pool.used()).toBe(64);
    await thin.close();
    await pool.delete(0);
    expect(await pool.used()).toBe(0);
  });

  it('delete_fully_provisioned_device: and all of its data goes back to the data device', async () => {
    const pool = new ThinPool();
    const thin = await pool.newThin(0, 64);
    await thin.wipe(1);
    await thin.close();
    await pool.delete(0);
    await pool.fixture.engine.stop();
    expect(pool.fixture.engine.reclaimer.stats.discardedBlocks).toBe(64);
  });

  it('delete_unknown_devices: fails', async () => {
    const pool = new ThinPool();
    for (let id = 0; id < 10; id++) await refused('ENODATA', pool.delete(id));
  });

  it('delete_active_device_fails', async () => {
    const pool = new ThinPool();
    const thin = await pool.newThin(0, 4);
    await refused('EBUSY', pool.delete(0));
    await thin.wipe(1);
    await thin.verify(1);
  });

  it('delete_after_out_of_space: the pool writes again, and nothing is in use', async () => {
    const pool = new ThinPool({ dataBlocks: 16, errorIfNoSpace: true });
    const thin = await pool.newThin(0, 20);
    await refused('ENOSPC', thin.wipe(1));
    expect(pool.mode).toBe('out-of-data-space');
    await thin.close();
    await pool.delete(0);
    expect(await pool.used()).toBe(0);
    expect(pool.mode).toBe('write');
  });
});
