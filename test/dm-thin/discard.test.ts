import { describe, expect, it } from 'vitest';
import { checkCondition, Initiator } from '../scsi/support/initiator.ts';
import { LunDevice } from '../support/lun-device.ts';
import { SeededRandom } from '../support/seeded-random.ts';
import { WrappedDevice } from '../support/wrapped-device.ts';
import { BLOCK, refused, type Thin, ThinPool } from './thin-pool.ts';

/** A data device that knows no discard. */
class NonDiscardableDevice extends WrappedDevice {
  override get discardGranularityBytes(): number {
    return 0;
  }
}

/** Data blocks that the data device was told to discard. */
function discarded(pool: ThinPool): number {
  return pool.fixture.engine.reclaimer.stats.discardedBlocks;
}

async function wiped(pool: ThinPool, blocks: number): Promise<Thin> {
  const thin = await pool.newThin(0, blocks);
  await thin.wipe(1);
  return thin;
}

describe('discard', () => {
  it.each([
    ['discard_unmaps_with_passdown_discardable_pool', true, true],
    ['discard_unmaps_with_passdown_non_discardable_pool', true, false],
    ['discard_unmaps_with_no_passdown_discardable_pool', false, true],
    ['discard_unmaps_with_no_passdown_non_discardable_pool', false, false],
  ])('%s: nothing is mapped or in use, and what was passed down is what could be', async (_, passdown, discardable) => {
    const pool = new ThinPool({
      discardPassdown: passdown,
      wrapData: (device) => (discardable ? device : new NonDiscardableDevice(device)),
    });
    const thin = await wiped(pool, 64);
    expect(thin.device.unmapGranularityBytes).toBe(BLOCK);
    await thin.discard(0, 64);
    expect(await pool.used()).toBe(0);
    expect(await thin.mappedBlocks()).toEqual([]);
    expect(discarded(pool)).toBe(passdown && discardable ? 64 : 0);
    await thin.verify(0);
  });

  it('discard_empty_device: nothing happens, nothing is committed', async () => {
    const pool = new ThinPool();
    const thin = await pool.newThin(0, 64);
    pool.metadata.log.length = 0;
    await thin.discard(0, 64);
    await thin.client.flush();
    expect(pool.metadata.log).toEqual([]);
    expect(await pool.used()).toBe(0);
  });

  it('discard_fully_provisioned_device: and a device beside it stays as it is', async () => {
    const pool = new ThinPool();
    const other = await pool.newThin(1, 64);
    await other.wipe(2);
    const thin = await wiped(pool, 64);
    await thin.discard(0, 64);
    expect(await pool.used()).toBe(64);
    await other.verify(2);
    await thin.verify(0);
  });

  it('discard_a_fragmented_device: alternately written ones leave nothing behind either', async () => {
    const pool = new ThinPool({ dataBlocks: 512 });
    const thins = [await pool.newThin(0, 128), await pool.newThin(1, 128)] as const;
    for (const block of thins[0].all()) for (const thin of thins) await thin.write(block, 1 + thin.id);
    await thins[0].discard(0, 128);
    expect(await thins[0].mappedBlocks()).toEqual([]);
    expect(await pool.used()).toBe(128);
    await thins[1].verify(2);
  });

  it('discard_single_block: exactly the first is unmapped', async () => {
    const pool = new ThinPool();
    const thin = await wiped(pool, 16);
    await thin.discard(0, 1);
    expect(await thin.mappedBlocks()).toEqual(thin.all().slice(1));
    expect(await pool.used()).toBe(15);
  });

  it('discard_to_a_shared_block_doesnt_get_passed_down: unmapped, still in use', async () => {
    const pool = new ThinPool();
    const thin = await wiped(pool, 1);
    const snap = await pool.newSnap(1, thin);
    await snap.discard(0, 1);
    expect(await snap.mappedBlocks()).toEqual([]);
    expect(await pool.used()).toBe(1);
    expect(discarded(pool)).toBe(0);
    await thin.verify(1);
  });

  it('discard_to_a_previously_shared_block_does_get_passed_down: when the snapshot is gone', async () => {
    const pool = new ThinPool();
    const thin = await wiped(pool, 1);
    await pool.createSnap(1, 0);
    await pool.delete(1);
    await thin.discard(0, 1);
    expect(await pool.used()).toBe(0);
    expect(discarded(pool)).toBe(1);
  });

  it('discard_partial_blocks: everything stays mapped (and reads as zeroes where it was discarded)', async () => {
    const pool = new ThinPool();
    const thin = await wiped(pool, 8);
    for (const block of thin.all()) {
      await thin.client.unmap(block * BLOCK, BLOCK / 2);
      await thin.client.unmap(block * BLOCK + BLOCK / 2, BLOCK / 4);
    }
    expect(await thin.mappedBlocks()).toEqual(thin.all());
    expect((await thin.client.read(0, 8 * BLOCK)).filter((byte) => byte !== 0).length).toBeLessThanOrEqual(2 * BLOCK);
  });

  it('discard_same_blocks: a thousand times', async () => {
    const pool = new ThinPool();
    const thin = await wiped(pool, 16);
    for (let i = 0; i < 1000; i++) await thin.discard(0, 3);
    expect(await pool.used()).toBe(13);
  });

  it('discard_with_background_io: neither fails, and what was written last is there', async () => {
    const pool = new ThinPool();
    const thin = await wiped(pool, 128);
    const random = new SeededRandom();
    const discards = async (): Promise<void> => {
      for (let i = 0; i < 200; i++) await thin.discard(random.below(60), 1 + random.below(4));
    };
    const writes = async (): Promise<void> => {
      for (let i = 2; i < 6; i++) await thin.wipe(i);
    };
    await Promise.all([discards(), writes()]);
    await thin.verify(5, thin.all().slice(64));
    expect(await pool.used()).toBe((await thin.mappedBlocks()).length);
  });

  it('discard_random_sectors: at any place and of any length', async () => {
    const pool = new ThinPool();
    const thin = await wiped(pool, 64);
    const bytes = await thin.client.read(0, 64 * BLOCK);
    const random = new SeededRandom();
    for (let i = 0; i < 300; i++) {
      const at = random.below(64 * 128) * 512;
      const length = Math.min(64 * BLOCK - at, (1 + random.below(300)) * 512);
      await thin.client.unmap(at, length);
      bytes.fill(0, at, at + length);
    }
    expect(Buffer.compare(await thin.client.read(0, 64 * BLOCK), bytes)).toBe(0);
  });

  it('discard_origin_does_not_effect_snap: what a snapshot holds stays in use', async () => {
    const pool = new ThinPool();
    const thin = await wiped(pool, 32);
    const snap = await pool.newSnap(1, thin);
    await thin.discard(0, 32);
    expect(await pool.used()).toBe(32);
    await snap.verify(1);
    await snap.discard(0, 32);
    expect(await pool.used()).toBe(0);
  });

  it('discard_past_the_end_fails', async () => {
    const pool = new ThinPool();
    const thin = await wiped(pool, 8);
    await refused('ENXIO', thin.discard(8, 1));
    await refused('ENXIO', thin.discard(7, 2));
    await thin.verify(1);
  });

  it('discard_triggers_commit: without a flush, the space is seen to be free soon', async () => {
    const pool = new ThinPool();
    const thin = await wiped(pool, 8);
    await pool.commit();
    await thin.discard(0, 8);
    pool.fixture.clock.advance(1000);
    await pool.fixture.engine.commits.ended();
    const { dataBlockCount, freeDataBlocks } = pool.fixture.metadata;
    expect(freeDataBlocks).toBe(dataBlockCount);
    expect(pool.contents().devices.get(0)!.mappedBlocks).toBe(0);
  });

  it('discard_alternate_blocks: the odd ones remain', async () => {
    const pool = new ThinPool();
    const thin = await wiped(pool, 64);
    for (let block = 0; block < 64; block += 2) await thin.discard(block, 1);
    const odd = thin.all().filter((block) => block % 2 === 1);
    expect(await thin.mappedBlocks()).toEqual(odd);
    await thin.verify(1, odd);
  });

  it('discard_after_out_of_space: the pool writes again, and nothing is in use', async () => {
    const pool = new ThinPool({ dataBlocks: 16, errorIfNoSpace: true });
    const thin = await pool.newThin(0, 20);
    await refused('ENOSPC', thin.wipe(1));
    expect(pool.mode).toBe('out-of-data-space');
    await thin.discard(0, 20);
    expect(await pool.used()).toBe(0);
    expect(pool.mode).toBe('write');
  });

  it('discard_after_out_of_space: what is on its way to be free is waited for, not refused', async () => {
    const pool = new ThinPool({ dataBlocks: 16, errorIfNoSpace: true });
    const thin = await pool.newThin(0, 20);
    await refused('ENOSPC', thin.wipe(1));
    await thin.discard(0, 16);
    await thin.wipe(2, thin.all().slice(0, 8));
    const committed = pool.commit();
    await thin.wipe(2, thin.all().slice(8, 16));
    await committed;
    await thin.verify(2, thin.all().slice(0, 16));
    await refused('ENOSPC', thin.wipe(3, thin.all().slice(16)));
  });

  it('disable_discard: volumes do not offer it', async () => {
    const pool = new ThinPool({ ignoreDiscard: true });
    const thin = await wiped(pool, 8);
    expect(thin.device.unmapGranularityBytes).toBe(0);
  });

  it.each([
    'discard_no_unmap_with_discard_disabled_discardable_pool',
    'discard_no_unmap_with_discard_disabled_non_discardable_pool',
  ])('%s: refused, and everything stays in use', async (name) => {
    const pool = new ThinPool({
      ignoreDiscard: true,
      wrapData: (device) => (name.includes('_non_') ? new NonDiscardableDevice(device) : device),
    });
    const thin = await wiped(pool, 8);
    const initiator = new Initiator({ backend: thin.device });
    const unmap = initiator.out([0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0], new Uint8Array(24));
    expect(unmap).toMatchObject(checkCondition('5/20/00'));
    expect(await pool.used()).toBe(8);
    await thin.verify(1);
  });

  it.each([
    ['enable_passdown: set while the pool is in use, it is so from the next discard on', true, 16],
    ['disable_passdown: set while the pool is in use, nothing is passed down any more', false, 0],
  ])('%s', async (_, passdown, expected) => {
    const pool = new ThinPool({ discardPassdown: !passdown });
    const thin = await wiped(pool, 32);
    await thin.discard(0, 16);
    await pool.settle();
    const before = discarded(pool);
    pool.configure({ discardPassdown: passdown });
    await thin.discard(16, 16);
    await pool.settle();
    expect(discarded(pool) - before).toBe(expected);
  });

  it.each([
    ['pool_granularity_matches_data_dev: a coarser one than the block cannot be passed down', 2 * BLOCK, 0],
    ['pool_granularity_matches_data_dev: one that divides the block can', BLOCK / 4, 8],
  ])('%s', async (_, granularity, expected) => {
    class Granular extends WrappedDevice {
      override get discardGranularityBytes(): number {
        return granularity;
      }
    }
    const pool = new ThinPool({ wrapData: (device) => new Granular(device) });
    const thin = await wiped(pool, 8);
    await thin.discard(0, 8);
    expect(await pool.used()).toBe(0);
    expect(discarded(pool)).toBe(expected);
  });
});

/** A pool whose data device is a thin volume of another. */
async function stack(lowerPassdown: boolean, upperPassdown: boolean): Promise<[ThinPool, ThinPool, Thin]> {
  const lower = new ThinPool({ discardPassdown: lowerPassdown });
  const below = await lower.newThin(0, 128);
  await below.wipe(9);
  const upper = new ThinPool({
    dataBlocks: 128,
    discardPassdown: upperPassdown,
    wrapData: () => new LunDevice(below.device),
  });
  return [lower, upper, await wiped(upper, 64)];
}

describe('discard in a pool on a pool', () => {
  it.each([
    ['discard_upper_both: the lower volume is unmapped, and its data device hears of it', true, true, 64, 64],
    ['discard_lower_both: as much is passed down by the lower pool', true, true, 64, 64],
    ['discard_upper_discard: without passdown above, the lower pool hears of nothing', true, false, 128, 0],
    ['discard_lower_discard: without passdown below, the lower volume is unmapped and no more', false, true, 64, 0],
    ['discard_upper_none: without any, only the upper volume is unmapped', false, false, 128, 0],
    ['discard_lower_none: and the lower one stays whole', false, false, 128, 0],
  ])('%s', async (_, lowerPassdown, upperPassdown, lowerUsed, lowerDiscarded) => {
    const [lower, upper, thin] = await stack(lowerPassdown, upperPassdown);
    expect(await lower.used()).toBe(128);
    await thin.discard(0, 64);
    expect(await upper.used()).toBe(0);
    expect(await lower.used()).toBe(lowerUsed);
    expect(discarded(lower)).toBe(lowerDiscarded);
    await thin.verify(0);
  });
});
