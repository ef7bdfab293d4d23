import { describe, expect, it } from 'vitest';
import { refused, ThinPool } from './thin-pool.ts';

describe('metadata snapshot', () => {
  it('hold_release_cycle_empty_pool', async () => {
    const pool = new ThinPool();
    const { freeMetadataBlocks } = pool.fixture.metadata;
    await pool.reserveMetadataSnap();
    expect(pool.fixture.metadata.heldRoot).toBeGreaterThan(0);
    await pool.releaseMetadataSnap();
    await pool.commit();
    expect(pool.fixture.metadata.freeMetadataBlocks).toBe(freeMetadataBlocks);
  });

  it('cannot_hold_twice', async () => {
    const pool = new ThinPool();
    await pool.reserveMetadataSnap();
    await refused('EBUSY', pool.reserveMetadataSnap());
  });

  it('cannot_release_twice', async () => {
    const pool = new ThinPool();
    await pool.reserveMetadataSnap();
    await pool.releaseMetadataSnap();
    await refused('EINVAL', pool.releaseMetadataSnap());
  });

  it('no_initial_hold', async () => {
    const pool = new ThinPool();
    expect(pool.fixture.metadata.heldRoot).toBe(0);
    await refused('EINVAL', pool.releaseMetadataSnap());
  });

  it('held_dump: what is held stays, however the pool goes on', async () => {
    const pool = new ThinPool({ dataBlocks: 512 });
    const thin = await pool.newThin(0, 64);
    await thin.wipe(1);
    await pool.commit();
    const before = pool.contents();
    await pool.reserveMetadataSnap();
    await pool.newSnap(1, thin);
    await thin.wipe(2);
    await pool.commit();
    expect(pool.contents(true).devices).toEqual(before.devices);
    const live = pool.contents().devices.get(0)!.mappings;
    for (const [block, { dataBlock }] of before.devices.get(0)!.mappings) {
      expect(live.get(block)!.dataBlock).not.toBe(dataBlock);
    }
  });

  it('thin_check_passes_with_a_held_root: with one that shares all, some and nothing with the pool', async () => {
    const pool = new ThinPool({ dataBlocks: 512 });
    const thin = await pool.newThin(0, 64);
    await thin.wipe(1);
    await pool.reserveMetadataSnap();
    pool.check();
    await pool.newSnap(1, thin);
    await thin.wipe(2, thin.all().slice(0, 32));
    pool.check();
    await pool.commit();
    await thin.discard(0, 64);
    await pool.commit();
    pool.check();
    expect(await pool.used()).toBe(64);
    await pool.releaseMetadataSnap();
    pool.check();
  });

  it('metadata_snap_cycle: a hundred cycles while blocks are provisioned', async () => {
    const pool = new ThinPool({ dataBlocks: 512 });
    const thin = await pool.newThin(0, 300);
    const load = thin.wipe(1);
    for (let i = 0; i < 100; i++) {
      await pool.reserveMetadataSnap();
      await pool.releaseMetadataSnap();
    }
    await load;
    await thin.verify(1);
    expect(await pool.used()).toBe(300);
  });
});
