import { setImmediate } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { MIB } from '../../src/base/units.ts';
import { PoolMetadata } from '../../src/thin/pool-metadata.ts';
import { BLOCK, refused, type Thin, ThinPool } from './thin-pool.ts';

const TIMEOUT_MS = 60_000;

/** Promises, and which of them have ended. */
async function pending(work: Promise<unknown>): Promise<boolean> {
  let ended = false;
  const note = (): void => {
    ended = true;
  };
  work.then(note, note);
  for (let i = 0; i < 20; i++) await setImmediate();
  return !ended;
}

/** A pool of 16 blocks that are all in use, and a device of 32 of which the first 16 are mapped. */
async function fullPool(options: { errorIfNoSpace?: boolean } = {}): Promise<[ThinPool, Thin]> {
  const pool = new ThinPool({ dataBlocks: 16, noSpaceTimeoutMs: TIMEOUT_MS, ...options });
  const thin = await pool.newThin(0, 32);
  await thin.wipe(1, thin.all().slice(0, 16));
  return [pool, thin];
}

describe('pool resize', () => {
  it('data_cannot_be_smaller_than_pool_on_reload: it never shrinks', async () => {
    const pool = new ThinPool({ dataBlocks: 16 });
    await refused('EINVAL', pool.growData(15));
    expect(pool.fixture.metadata.dataBlockCount).toBe(16);
  });

  it.each([
    'extra_data_space_must_not_be_used_on_initial_load',
    'extra_data_space_must_not_be_used_on_suspend',
    'extra_data_space_must_not_be_used_on_reload',
  ])('%s: the pool uses what its metadata counts', async (name) => {
    const pool = new ThinPool({ dataBlocks: 16, errorIfNoSpace: true });
    pool.fixture.data.resize(32 * BLOCK);
    const thin = await pool.newThin(0, 32);
    if (name.endsWith('suspend')) await pool.newSnap(1, thin);
    if (name.endsWith('reload')) {
      pool.configure({ lowWaterBlocks: 1, noSpaceTimeoutMs: 1, errorIfNoSpace: true });
    }
    await refused('ENOSPC', thin.wipe(1));
    expect(await pool.used()).toBe(16);
  });

  it('resize: eight steps, each of which is filled', async () => {
    const pool = new ThinPool({ dataBlocks: 8 });
    const thin = await pool.newThin(0, 64);
    for (let blocks = 8; blocks <= 64; blocks += 8) {
      if (blocks > 8) await pool.growData(blocks);
      await thin.wipe(1, thin.all().slice(blocks - 8, blocks));
      expect(await pool.used()).toBe(blocks);
    }
    await thin.verify(1);
  });

  it('resize_io: eight growths under load, which waits for each and never fails', async () => {
    const pool = new ThinPool({ dataBlocks: 8 });
    const thin = await pool.newThin(0, 72);
    const load = thin.wipe(1);
    for (let blocks = 16; blocks <= 72; blocks += 8) {
      while (pool.mode !== 'out-of-data-space') await setImmediate();
      await pool.growData(blocks);
    }
    await load;
    await thin.verify(1);
    await pool.settle();
    expect(pool.mode).toBe('write');
  });

  it('reload_io: settings change under load, and it goes on', async () => {
    const pool = new ThinPool();
    const thin = await pool.newThin(0, 128);
    const load = thin.wipe(1);
    for (let i = 0; i < 8; i++) {
      pool.configure({ lowWaterBlocks: i, errorIfNoSpace: i % 2 === 0, discardPassdown: i % 2 === 1 });
      await setImmediate();
    }
    await load;
    await thin.verify(1);
  });

  it('reload_no_io: settings change, nothing is written', async () => {
    const pool = new ThinPool();
    pool.metadata.log.length = 0;
    const { engine } = pool.fixture;
    pool.configure({ lowWaterBlocks: 3, errorIfNoSpace: true, discardPassdown: false });
    expect([pool.mode, engine.space.lowWaterBlocks, engine.reclaimer.passdown]).toEqual(['write', 3, false]);
    expect(pool.metadata.log).toEqual([]);
  });
});

describe('out of data space', () => {
  it('out_of_data_space_errors_immediately_if_requested', async () => {
    const [pool, thin] = await fullPool({ errorIfNoSpace: true });
    await refused('ENOSPC', thin.write(16, 2));
    expect(pool.mode).toBe('out-of-data-space');
  });

  it('filling_pool_returns_enospc', async () => {
    const pool = new ThinPool({ dataBlocks: 16, errorIfNoSpace: true });
    const thin = await pool.newThin(0, 64);
    await refused('ENOSPC', thin.wipe(1));
    expect(await pool.used()).toBe(16);
  });

  it('filling_thin_device_returns_enospc: past the end, where a block device says so: ENXIO', async () => {
    const pool = new ThinPool();
    const thin = await pool.newThin(0, 8);
    await thin.wipe(1);
    await refused('ENXIO', thin.write(8, 1));
    expect(await pool.used()).toBe(8);
  });

  it('out_of_data_space_times_out: the write fails then, the pool is out of data space and needs no check', async () => {
    const [pool, thin] = await fullPool();
    const write = thin.write(16, 2);
    expect(await pending(write)).toBe(true);
    pool.fixture.clock.advance(TIMEOUT_MS);
    await refused('ENOSPC', write);
    expect(pool.mode).toBe('out-of-data-space');
    expect(pool.fixture.metadata.needsCheck).toBe(false);
    await refused('ENOSPC', thin.write(17, 2));
  });

  it('resize_after_OODS_error_immediately: writes go on', async () => {
    const [pool, thin] = await fullPool({ errorIfNoSpace: true });
    await refused('ENOSPC', thin.write(16, 2));
    await pool.growData(32);
    expect(pool.mode).toBe('write');
    await thin.wipe(3);
    await thin.verify(3);
  });

  it.each([
    ['resize_after_OODS_held_io: the write that waits is done, without an error', 0],
    ['resize_after_OODS_held_io_preload: also when the space was there before the pool knew of it', 32],
  ])('%s', async (_, preloadBlocks) => {
    const [pool, thin] = await fullPool();
    const write = thin.wipe(2, thin.all().slice(16));
    expect(await pending(write)).toBe(true);
    if (preloadBlocks > 0) pool.fixture.data.resize(preloadBlocks * BLOCK);
    await pool.growData(32);
    await write;
    await thin.verify(2, thin.all().slice(16));
    await thin.verify(1, thin.all().slice(0, 16));
    expect(pool.mode).toBe('write');
  });

  it('resize_after_OODS_held_io_timed_out_preload: it says that it errors, and waits again after the growth', async () => {
    const [pool, thin] = await fullPool();
    const { engine, clock } = pool.fixture;
    const write = thin.write(16, 2);
    expect(await pending(write)).toBe(true);
    clock.advance(TIMEOUT_MS);
    await refused('ENOSPC', write);
    expect(engine.space.failsWhenFull).toBe(true);
    await pool.growData(24);
    expect(engine.space.failsWhenFull).toBe(false);
    const wipe = thin.wipe(3);
    expect(await pending(wipe)).toBe(true);
    await pool.growData(32);
    await wipe;
    await thin.verify(3);
  });

  it('io_to_provisioned_region_with_OODS_held_io: what is mapped is read and written while others wait', async () => {
    const [pool, thin] = await fullPool();
    const write = thin.write(16, 2);
    expect(await pending(write)).toBe(true);
    const provisioned = thin.all().slice(0, 16);
    await thin.verify(1, provisioned);
    await thin.wipe(4, provisioned);
    await thin.verify(4, provisioned);
    await thin.client.flush();
    expect(await pending(write)).toBe(true);
    await pool.growData(17);
    await write;
  });
});

describe('metadata resize', () => {
  it.each([
    ['resize_no_io: from 1 MiB, in steps', 1 * MIB],
    ['resize_no_io_with_extra_checking: every size on the way is counted and clean', 64 * 1024],
  ])('%s', async (_, step) => {
    const pool = new ThinPool({ metadataSize: MIB });
    for (let size = MIB + step; size <= MIB + 16 * step; size += step) {
      await pool.growMetadata(size / 4096);
      expect(pool.fixture.metadata.metadataBlockCount).toBe(size / 4096);
      const opened = PoolMetadata.open(pool.image());
      expect(opened.metadataBlockCount).toBe(size / 4096);
      opened.close();
    }
  });

  it('resize_with_io: a writer sees nothing of it', async () => {
    const pool = new ThinPool({ metadataSize: MIB });
    const thin = await pool.newThin(0, 200);
    const load = thin.wipe(1);
    for (let blocks = 300; blocks <= 700; blocks += 50) await pool.growMetadata(blocks);
    await load;
    await thin.verify(1);
  });

  it('resize_after_exhaust: out of metadata space, growth lets it write again', async () => {
    const [pool, thin] = await exhausted();
    await pool.growMetadata(256);
    expect(pool.mode).toBe('write');
    const blocks = thin.all().slice(0, 500);
    await thin.wipe(2, blocks);
    await thin.verify(2, blocks);
  });

  it('exhausting_metadata_space_aborts_to_ro_mode: nothing is lost, what is mapped is read and written, nothing new is mapped', async () => {
    const [pool, thin] = await exhausted();
    expect(pool.mode).toBe('out-of-metadata-space');
    const mapped = await thin.mappedBlocks();
    await thin.wipe(3, mapped.slice(0, 8));
    await thin.verify(3, mapped.slice(0, 8));
    const hole = thin.all().find((block) => !mapped.includes(block))!;
    await refused('ENOSPC', thin.write(hole, 2));
    await refused('ENOSPC', pool.createThin(5));
    expect(pool.fixture.metadata.needsCheck).toBe(false);
  });

  it('thin_remove_works_after_resize', async () => {
    const [pool, thin] = await exhausted();
    await pool.growMetadata(300);
    await thin.close();
    await pool.delete(0);
    expect(await pool.used()).toBe(0);
  });

  it('recover_after_crash: what was committed before the metadata was full is there', async () => {
    const [pool, thin] = await exhausted();
    const again = PoolMetadata.open(pool.image());
    expect(again.openThin(0).mappedBlocks).toBe((await thin.mappedBlocks()).length);
    expect(again.needsCheck).toBe(false);
    again.close();
  });
});

/** A pool of 64 metadata blocks that has no room for another mapping, and the device that filled it. */
async function exhausted(): Promise<[ThinPool, Thin]> {
  const pool = new ThinPool({ metadataSize: 64 * 4096, dataBlocks: 20_000, errorIfNoSpace: true });
  const thin = await pool.newThin(0, 20_000);
  // Scattered, so that leaves split.
  for (let i = 0; pool.mode === 'write'; i++) {
    const block = (i * 7919) % 20_000;
    await thin.client.write(block * BLOCK, new Uint8Array(512).fill(1)).catch(() => {});
    if (i % 64 === 0) await pool.commit();
  }
  return [pool, thin];
}
