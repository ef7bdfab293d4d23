import { mkdtempSync, rmSync, symlinkSync, truncateSync } from 'node:fs';
import { cp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { MIB } from '../../src/base/units.ts';
import { Pool } from '../../src/thin/pool.ts';
import { createPool } from '../../src/thin/pool-create.ts';
import { LunClient, pattern } from '../support/lun-client.ts';
import { LunDevice } from '../support/lun-device.ts';
import { refused, type Thin, ThinPool } from './thin-pool.ts';

let folder: string;
const pools: Pool[] = [];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'thinlun-pools-'));
});

afterEach(async () => {
  for (const pool of pools.splice(0)) await pool.close();
  rmSync(folder, { recursive: true });
});

async function open(name: string): Promise<Pool> {
  const pool = await Pool.open(join(folder, name));
  pools.push(pool);
  return pool;
}

describe('pools', () => {
  it('data_cannot_be_smaller_than_pool_on_initial_load', async () => {
    await createPool(join(folder, 'one'), { dataSizeBytes: 64 * MIB });
    truncateSync(join(folder, 'one', 'data'), 32 * MIB);
    await refused('EINVAL', open('one'));
  });

  it('change_discard_with_reload_fails: while a volume is in use, in both directions', async () => {
    await createPool(join(folder, 'one'), { dataSizeBytes: 64 * MIB });
    const pool = await open('one');
    await pool.createVolume('v', 8 * MIB);
    for (const ignoreDiscard of [true, false]) {
      const device = pool.openVolume('v');
      await refused('EBUSY', pool.setOptions({ ignoreDiscard }));
      await pool.closeVolume(device);
      await pool.setOptions({ ignoreDiscard });
    }
  });

  it.each([
    ['two_pools_pointing_to_the_same_metadata_fails', 'metadata', 'data'],
    ['two pools that point to the same data fail as well', 'data', 'metadata'],
  ] as const)('%s', async (_, shared, own) => {
    await createPool(join(folder, 'one'), { dataSizeBytes: 64 * MIB });
    await createPool(join(folder, 'two'), { dataSizeBytes: 64 * MIB });
    rmSync(join(folder, 'two', shared));
    symlinkSync(join(folder, 'one', shared), join(folder, 'two', shared));
    await cp(join(folder, 'one', 'pool.json'), join(folder, 'two', 'pool.json'));
    await cp(join(folder, 'one', own), join(folder, 'two', own));
    const one = await open('one');
    await one.createVolume('v', 8 * MIB);
    await refused('EBUSY', open('two'));
    await pools.pop()!.close();
    rmSync(join(folder, 'two', 'pool.json'));
    await cp(join(folder, 'one', 'pool.json'), join(folder, 'two', 'pool.json'));
    await cp(join(folder, 'one', own), join(folder, 'two', own));
    await open('two');
  });

  it('two_pools_can_create_thins: side by side in one process', async () => {
    for (const name of ['one', 'two']) await createPool(join(folder, name), { dataSizeBytes: 64 * MIB });
    const both = [await open('one'), await open('two')];
    await Promise.all(
      both.map(async (pool, i) => {
        await pool.createVolume('v', 8 * MIB);
        const client = new LunClient(pool.openVolume('v'));
        await client.write(0, pattern(MIB, i));
        expect(Buffer.compare(await client.read(0, MIB), pattern(MIB, i))).toBe(0);
      }),
    );
  });

  it('stacked_pools: three, each on a volume of the one below', async () => {
    const on = (thin: Thin): ThinPool =>
      new ThinPool({ dataBlocks: thin.blocks, wrapData: () => new LunDevice(thin.device) });
    const bottom = new ThinPool({ dataBlocks: 256 });
    const middle = on(await bottom.newThin(0, 192));
    const top = on(await middle.newThin(0, 128));
    const thin = await top.newThin(0, 64);
    await thin.wipe(1);
    const snap = await top.newSnap(1, thin);
    await thin.wipe(2, thin.all().slice(0, 20));
    await thin.client.flush();
    await snap.verify(1);
    await thin.verify(2, thin.all().slice(0, 20));
    expect([await top.used(), await middle.used(), await bottom.used()]).toEqual([84, 84, 84]);
  });
});
