import { describe, expect, it } from 'vitest';
import { MemoryDevice } from '../../src/block/memory-device.ts';
import { PoolMetadata } from '../../src/thin/pool-metadata.ts';
import { WrappedDevice } from '../support/wrapped-device.ts';
import { refused, type Thin, ThinPool } from './thin-pool.ts';

/** A device whose every operation fails once it is told to. */
class ErrorTarget extends WrappedDevice {
  broken = false;

  override readSync(offset: number, memory: Uint8Array, memoryOffset: number, length: number): void {
    if (this.broken) throw Object.assign(new Error('error target'), { code: 'EIO' });
    super.readSync(offset, memory, memoryOffset, length);
  }

  override writeSync(offset: number, memory: Uint8Array, memoryOffset: number, length: number): void {
    if (this.broken) throw Object.assign(new Error('error target'), { code: 'EIO' });
    super.writeSync(offset, memory, memoryOffset, length);
  }
}

async function provisioned(pool: ThinPool): Promise<Thin> {
  const thin = await pool.newThin(0, 32);
  await thin.wipe(1, thin.all().slice(0, 16));
  await pool.commit();
  return thin;
}

/** A pool that cannot write its metadata any more, but for the superblock. */
async function failedCommit(): Promise<[ThinPool, Thin]> {
  const pool = new ThinPool();
  const thin = await provisioned(pool);
  pool.metadata.fail.set('write', 'EIO');
  await thin.write(20, 2);
  await expect(thin.client.flush()).rejects.toThrow('EIO');
  pool.metadata.fail.clear();
  return [pool, thin];
}

describe('failure', () => {
  it('commit_failure_sets_needs_check: read-only until it is checked, and writable again then', async () => {
    const [pool] = await failedCommit();
    expect(pool.mode).toBe('read-only');
    const device = pool.image();
    const again = PoolMetadata.open(device);
    expect(again.needsCheck).toBe(true);
    expect(() => again.createThin(5)).toThrow(/check/);
    again.clearNeedsCheck();
    again.close();
    const checked = PoolMetadata.open(device);
    checked.createThin(5);
    checked.commitSync();
    checked.close();
  });

  it('bz1230271: metadata that answers nothing but errors fails the pool and no more', async () => {
    let error!: ErrorTarget;
    const pool = new ThinPool({
      wrapMetadata: (device) => {
        error = new ErrorTarget(device);
        return error;
      },
    });
    const thin = await provisioned(pool);
    pool.fixture.broken = true;
    error.broken = true;
    pool.metadata.fail.set('write', 'EIO').set('read', 'EIO').set('flush', 'EIO');
    await thin.write(20, 2);
    await expect(thin.client.flush()).rejects.toThrow('EIO');
    expect(['read-only', 'fail']).toContain(pool.mode);
    await expect(thin.write(21, 2)).rejects.toThrow();
  });

  it('commit_failure_causes_fallback: to Fail, where neither the transaction nor the flag can be had', async () => {
    let error!: ErrorTarget;
    const pool = new ThinPool({
      wrapMetadata: (device) => {
        error = new ErrorTarget(device);
        return error;
      },
    });
    const thin = await provisioned(pool);
    pool.fixture.broken = true;
    pool.metadata.fail.set('write', 'EIO').set('flush', 'EIO');
    error.broken = true;
    await thin.write(20, 2);
    await expect(thin.client.flush()).rejects.toThrow('EIO');
    expect(pool.mode).toBe('fail');
    await refused('EIO', thin.client.read(0, 512));
    await refused('EIO', pool.createThin(9));
  });

  it.each([
    ['aborting_a_fresh_pool: leaves it as it was made', 0],
    ['aborting_a_provisioned_thin: leaves it as it was committed', 1],
    ['aborting_during_io: what comes meanwhile is answered', 8],
  ])('%s', async (_, writes) => {
    const pool = new ThinPool();
    const thin = await pool.newThin(0, 64);
    if (writes > 0) await thin.wipe(1, [0, 1, 2, 3]);
    await pool.commit();
    const committed = pool.contents();
    pool.metadata.fail.set('write', 'EIO');
    const load = Promise.allSettled(
      thin
        .all()
        .slice(4, 4 + writes)
        .map((block) => thin.write(block, 2)),
    );
    await refused('EIO', pool.createThin(1));
    await load;
    pool.metadata.fail.clear();
    expect(pool.mode).toBe('read-only');
    expect(pool.contents().devices).toEqual(committed.devices);
    if (writes > 0) await thin.verify(1, [0, 1, 2, 3]);
  });
});

/** A read-only pool with a device that is mapped half. */
async function readOnlyPool(): Promise<[ThinPool, Thin]> {
  const pool = new ThinPool();
  const thin = await provisioned(pool);
  pool.configure({ readOnly: true });
  expect(pool.mode).toBe('read-only');
  return [pool, thin];
}

describe('read only', () => {
  it('can_access_fully_mapped_device: what is mapped is read and written', async () => {
    const [, thin] = await readOnlyPool();
    const mapped = thin.all().slice(0, 16);
    await thin.verify(1, mapped);
    await thin.wipe(2, mapped);
    await thin.client.flush();
    await thin.verify(2, mapped);
  });

  it('can_read_unprovisioned_regions: as zeroes', async () => {
    const [, thin] = await readOnlyPool();
    await thin.verify(0, thin.all().slice(16));
  });

  it('cant_provision_new_blocks', async () => {
    const [pool, thin] = await readOnlyPool();
    await refused('EROFS', thin.write(16, 2));
    await refused('EROFS', thin.discard(0, 1));
    expect(pool.contents().devices.get(0)!.mappedBlocks).toBe(16);
  });

  it('cant_create_new_thins', async () => {
    const [pool] = await readOnlyPool();
    await refused('EROFS', pool.createThin(1));
    await refused('EROFS', pool.createSnap(1, 0));
  });

  it('cant_delete_thins', async () => {
    const [pool, thin] = await readOnlyPool();
    await thin.close();
    await refused('EROFS', pool.delete(0));
  });

  it('create_read_only: what was never formatted cannot be', () => {
    expect(() => PoolMetadata.open(new MemoryDevice(1 << 21), { readOnly: true })).toThrow(/not formatted|no pool/);
  });

  it.each(['with_ro_dev_works', 'ro_pool_succeeds_with_ro_metadata'])('%s: and nothing is written', async () => {
    const pool = new ThinPool();
    const thin = await provisioned(pool);
    const image = pool.image();
    image.readOnly = true;
    const before = image.memory.slice();
    const metadata = PoolMetadata.open(image);
    expect(metadata.readOnly).toBe(true);
    expect(metadata.openThin(0).mappedBlocks).toBe(thin.mapped);
    expect(() => metadata.createThin(1)).toThrow(/read-only/);
    metadata.close();
    expect(Buffer.compare(before, image.memory)).toBe(0);
  });
});
