import { setImmediate } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { whileHeld } from '../../src/thin/thin-device.ts';
import { refused, type Thin, ThinPool } from './thin-pool.ts';

/** Holds the devices, sees to it that a write to each waits, and lets them go. */
async function holdAndWrite(thins: readonly Thin[]): Promise<void> {
  let done = 0;
  const writes: Promise<void>[] = [];
  await whileHeld(
    thins.map((thin) => thin.device),
    async () => {
      for (const thin of thins) writes.push(thin.write(1, 5).then(() => void done++));
      for (let i = 0; i < 10; i++) await setImmediate();
      expect(done).toBe(0);
    },
  );
  await Promise.all(writes);
  for (const thin of thins) await thin.verify(5, [1]);
}

describe('suspend', () => {
  it('suspend_pool_no_thins: nothing has to be held', async () => {
    const pool = new ThinPool();
    await whileHeld([], () => pool.createThin(0));
    expect(pool.contents().devices.size).toBe(1);
  });

  it('suspend_pool_no_active_thins: those that nobody has open need not be', async () => {
    const pool = new ThinPool();
    await pool.createThin(0);
    await whileHeld([], () => pool.createSnap(1, 0));
    expect(pool.contents().devices.size).toBe(2);
  });

  it('suspend_pool_active_thins_no_io: what comes while they are held waits, and is done then', async () => {
    const pool = new ThinPool();
    await holdAndWrite([await pool.newThin(0, 4), await pool.newThin(1, 4)]);
  });

  it('suspend_pool_after_suspend_thin: one that was held before can be held again', async () => {
    const pool = new ThinPool();
    const thins = [await pool.newThin(0, 4), await pool.newThin(1, 4)];
    await holdAndWrite(thins.slice(0, 1));
    await holdAndWrite(thins);
  });

  it('discard_then_delete_thin: a device that is in use stays, however often its deletion is asked for', async () => {
    const pool = new ThinPool();
    const thin = await pool.newThin(0, 16);
    await thin.wipe(1);
    await thin.discard(0, 16);
    for (let i = 0; i < 3; i++) await refused('EBUSY', pool.delete(0));
    await thin.close();
    await pool.delete(0);
  });
});
