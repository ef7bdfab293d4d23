import { describe, expect, it } from 'vitest';
import { MIB } from '../../src/base/units.ts';
import { SeededRandom } from '../support/seeded-random.ts';
import { type Thin, ThinPool } from './thin-pool.ts';

/** A random half of the blocks. */
function someBlocks(random: SeededRandom, thin: Thin): number[] {
  return thin.all().filter(() => random.oneIn(2));
}

describe('snapshot', () => {
  it('pool_utilization_block: a wipe takes as many blocks as the device has, the wipe of a snapshot as many again', async () => {
    const pool = new ThinPool();
    const thin = await pool.newThin(0, 48);
    await thin.wipe(1);
    expect(await pool.used()).toBe(48);
    await thin.wipe(2);
    expect(await pool.used()).toBe(48);
    const snap = await pool.newSnap(1, thin);
    expect(await pool.used()).toBe(48);
    await snap.wipe(3);
    expect(await pool.used()).toBe(96);
    await thin.verify(2);
  });

  it('space_use: breaking the sharing of part of a device takes that part', async () => {
    const pool = new ThinPool();
    const thin = await pool.newThin(0, 60);
    await thin.wipe(1);
    const snap = await pool.newSnap(1, thin);
    await thin.wipe(2, thin.all().slice(0, 20));
    expect(await pool.used()).toBe(80);
    await snap.verify(1);
  });

  it('many_snapshots_of_same_volume: origin and first snapshot hold their patterns through 999 of them', async () => {
    const pool = new ThinPool({ metadataSize: 32 * MIB, dataBlocks: 1100 });
    const random = new SeededRandom();
    const origin = await pool.newThin(0, 16);
    await origin.wipe(1);
    const first = await pool.newSnap(1, origin);
    let stomped = new Set<number>();
    for (let id = 2; id < 1000; id++) {
      await (await pool.newSnap(id, origin)).close();
      const block = random.below(16);
      await origin.write(block, id);
      stomped = stomped.add(block);
      await origin.verify(id, [block]);
    }
    await first.verify(1);
    await origin.verify(
      1,
      origin.all().filter((block) => !stomped.has(block)),
    );
    expect(pool.contents().time).toBe(999);
  });

  it('parallel_io_to_shared_thins: six devices over the same blocks are written at the same time', async () => {
    const pool = new ThinPool({ dataBlocks: 512 });
    const thins = [await pool.newThin(0, 64)];
    await thins[0]!.wipe(1);
    for (let id = 1; id < 6; id++) thins.push(await pool.newSnap(id, thins[0]!));
    await Promise.all(thins.map((thin) => thin.wipe(10 + thin.id)));
    await Promise.all(thins.map((thin) => thin.verify(10 + thin.id)));
    expect(await pool.used()).toBe(6 * 64);
  });

  it('ref_count_tree: counts of more than two, up and down again', async () => {
    const pool = new ThinPool({ dataBlocks: 512 });
    const thins = [await pool.newThin(0, 32)];
    await thins[0]!.wipe(1);
    for (let id = 1; id <= 5; id++) thins.push(await pool.newSnap(id, thins[0]!));
    // Breaking one block copies the leaf, and what it refers to is then counted once more.
    for (const thin of thins) await thin.write(0, 20 + thin.id);
    await pool.commit();
    const { dataBlock } = pool.contents().devices.get(0)!.mappings.get(1)!;
    expect(pool.fixture.metadata.dataBlockReferences(dataBlock)).toBeGreaterThan(2);
    for (const thin of thins) {
      await thin.verify(20 + thin.id, [0]);
      await thin.verify(1, thin.all().slice(1));
    }
    for (const thin of thins) {
      await thin.close();
      await pool.delete(thin.id);
    }
    expect(await pool.used()).toBe(0);
  });

  it.each([
    ['pattern_stomp_snap: what a snapshot is written never shows in its origin', 1],
    ['pattern_stomp_origin: what an origin is written never shows in its snapshot', 0],
  ])('%s', async (_, stomped) => {
    const pool = new ThinPool({ dataBlocks: 512 });
    const random = new SeededRandom();
    const origin = await pool.newThin(0, 64);
    await origin.wipe(1);
    const both = [origin, await pool.newSnap(1, origin)] as const;
    for (let round = 2; round < 6; round++) {
      const blocks = someBlocks(random, origin);
      await both[stomped]!.wipe(round, blocks);
      await both[stomped]!.verify(round, blocks);
      await both[1 - stomped]!.verify(1);
    }
  });

  it('overwriting_various_thin_devices: fresh, provisioned, shared, and unshared again', async () => {
    const pool = new ThinPool({ dataBlocks: 512 });
    const thin = await pool.newThin(0, 64);
    for (const seed of [1, 2]) {
      await thin.wipe(seed);
      await thin.verify(seed);
    }
    const snap = await pool.newSnap(1, thin);
    for (const seed of [3, 4]) {
      await snap.wipe(seed);
      await snap.verify(seed);
      await thin.verify(2);
    }
  });

  it('many_snaps_with_changes: each generation keeps what it had', async () => {
    const pool = new ThinPool({ dataBlocks: 1024 });
    const random = new SeededRandom();
    const origin = await pool.newThin(0, 64);
    const held = new Array<number>(64).fill(0);
    const generations: { snap: Thin; held: number[] }[] = [];
    for (let generation = 1; generation <= 10; generation++) {
      const blocks = someBlocks(random, origin);
      await origin.wipe(generation, blocks);
      for (const block of blocks) held[block] = generation;
      generations.push({ snap: await pool.newSnap(generation, origin), held: [...held] });
    }
    for (const { snap, held } of generations) {
      for (const block of snap.all()) await snap.verify(held[block]!, [block]);
    }
  });

  it('try_and_create_duplicates: a device that is there is not made again', async () => {
    const pool = new ThinPool();
    const thin = await pool.newThin(0, 8);
    await thin.wipe(1);
    await pool.newSnap(1, thin);
    for (const id of [0, 1]) {
      await expect(pool.createThin(id)).rejects.toMatchObject({ code: 'EEXIST' });
      await expect(pool.createSnap(id, 0)).rejects.toMatchObject({ code: 'EEXIST' });
    }
    await thin.verify(1);
  });
});
