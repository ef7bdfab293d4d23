import { describe, expect, it } from 'vitest';
import { PoolMetadata } from '../../src/thin/pool-metadata.ts';
import { refused, type Thin, ThinPool } from './thin-pool.ts';

/** Whether a flush of the device writes the superblock. */
async function flushCommits(thin: Thin): Promise<boolean> {
  const { log } = thin.pool.metadata;
  log.length = 0;
  await thin.client.flush();
  return log.some((entry) => entry.startsWith('write 0 '));
}

function setTransactionId(pool: ThinPool, expected: number, next: number): Promise<void> {
  const { engine, metadata } = pool.fixture;
  return engine.mutate(() => metadata.setTransactionId(expected, next));
}

describe('flush triggers commit', () => {
  it('commit_if_changed: a flush writes the superblock when a mapping was made, and not when none was', async () => {
    const pool = new ThinPool();
    const thin = await pool.newThin(0, 16);
    const snap = await pool.newSnap(1, thin);
    for (const device of [thin, snap]) {
      expect(await flushCommits(device)).toBe(false);
      await device.write(0, 1);
      expect(await flushCommits(device)).toBe(true);
      await device.write(0, 2);
      expect(await flushCommits(device)).toBe(false);
      await device.write(1, 2);
      expect(await flushCommits(device)).toBe(true);
    }
  });

  it('discard_triggers_commit: when there was something to unmap', async () => {
    const pool = new ThinPool();
    const thin = await pool.newThin(0, 16);
    await thin.wipe(1);
    await thin.client.flush();
    await thin.discard(0, 4);
    expect(await flushCommits(thin)).toBe(true);
    await thin.discard(0, 4);
    expect(await flushCommits(thin)).toBe(false);
  });

  it('pool_without_thin_devices_does_not_commit: in ten seconds nothing is written to the metadata', async () => {
    const pool = new ThinPool();
    for (let i = 0; i < 10; i++) {
      pool.fixture.clock.advance(1000);
      await pool.commit();
    }
    expect(pool.metadata.log).toEqual([]);
  });
});

describe('transaction id', () => {
  it('initial_trans_id_is_zero', () => {
    expect(new ThinPool().fixture.metadata.transactionId).toBe(0);
  });

  it('set_trans_id_works: and is there when the pool is opened again', async () => {
    const pool = new ThinPool();
    await setTransactionId(pool, 0, 500);
    const again = PoolMetadata.open(pool.image());
    expect(again.transactionId).toBe(500);
    again.close();
  });

  it('set_trans_id_check_first_arg: it has to be the present one', async () => {
    const pool = new ThinPool();
    await refused('EINVAL', setTransactionId(pool, 500, 1000));
    await setTransactionId(pool, 0, 1);
    await refused('EINVAL', setTransactionId(pool, 0, 2));
    expect(pool.fixture.metadata.transactionId).toBe(1);
  });
});
