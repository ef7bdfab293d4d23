import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { KIB, MIB } from '../../src/base/units.ts';
import { Pool } from '../../src/thin/pool.ts';
import { createPool } from '../../src/thin/pool-create.ts';
import type { PoolEngine } from '../../src/thin/pool-engine.ts';
import { checkPool } from '../../src/tools/check-pool.ts';
import { LunClient, pattern } from '../support/lun-client.ts';

const BLOCK = 64 * KIB;
let dir: string;
let pool: Pool;

beforeEach(async () => {
  dir = join(mkdtempSync(join(tmpdir(), 'thinlun-messages-')), 'tank');
  await createPool(dir, { dataSizeBytes: 64 * MIB });
  pool = await Pool.open(dir);
});

afterEach(async () => {
  await pool.close();
  execFileSync('thin_check', ['-q', join(dir, 'metadata')]);
  rmSync(join(dir, '..'), { recursive: true });
});

function code(expected: string): unknown {
  return expect.objectContaining({ code: expected });
}

function volumes(of: Pool = pool): unknown[] {
  return of.volumes().map(({ id, name, sizeBytes, origin }) => [id, name, sizeBytes, origin]);
}

describe('dm-thin messages', () => {
  it('make, snapshot, trim and delete devices that have volumes, and leave the transaction id alone', async () => {
    await pool.createThin(0, null);
    expect(await pool.createThin(2 ** 24 - 1, 4 * MIB)).toMatchObject({ name: 'thin-16777215', lun: 1 });
    const client = new LunClient(pool.openVolume('thin-0'));
    await client.write(0, pattern(MIB, 1));
    await client.write(5 * BLOCK, pattern(512, 2));
    await pool.createSnap(7, 0);
    await client.write(0, pattern(512, 3));
    await pool.trimThin(16777215, MIB);
    expect(pool.status().transactionId).toBe(0);
    const all = [
      [0, 'thin-0', 64 * MIB, undefined],
      [16777215, 'thin-16777215', MIB, undefined],
      [7, 'thin-7', 64 * MIB, 0],
    ];
    expect(volumes()).toEqual(all);
    await pool.close();
    pool = await Pool.open(dir);
    expect(volumes()).toEqual(all);
    await pool.deleteThin(0);
    expect(volumes()).toEqual([all[1], [7, 'thin-7', 64 * MIB, undefined]]);
    await pool.deleteThin(7);
    await pool.deleteThin(16777215);
    expect(pool.status()).toMatchObject({ usedDataBlocks: 0, transactionId: 0, volumes: 0 });
  });

  it('are refused with the errors of the kernel, and change nothing', async () => {
    await pool.createThin(1, null);
    const device = pool.openVolume('thin-1');
    const before = [pool.volumes(), pool.status()];
    await expect(pool.createThin(1, null)).rejects.toEqual(code('EEXIST'));
    await expect(pool.createThin(2 ** 24, null)).rejects.toEqual(code('EINVAL'));
    await expect(pool.createThin(2, 100)).rejects.toEqual(code('EINVAL'));
    await expect(pool.createSnap(1, 1)).rejects.toEqual(code('EEXIST'));
    await expect(pool.createSnap(2, 3)).rejects.toEqual(code('ENODATA'));
    await expect(pool.deleteThin(3)).rejects.toEqual(code('ENODATA'));
    await expect(pool.deleteThin(1)).rejects.toEqual(code('EBUSY'));
    await expect(pool.trimThin(3, MIB)).rejects.toEqual(code('ENODATA'));
    await expect(pool.trimThin(1, 128 * MIB)).rejects.toEqual(code('EINVAL'));
    await expect(pool.setTransactionId(1, 2)).rejects.toEqual(code('EINVAL'));
    await expect(pool.releaseMetadataSnapshot()).rejects.toEqual(code('EINVAL'));
    expect([pool.volumes(), pool.status()]).toEqual(before);
    await pool.closeVolume(device);
  });

  it('set the transaction id to what the user wants; volumes that are made by name go on from there', async () => {
    await pool.setTransactionId(0, 1000);
    await pool.setTransactionId(1000, 1000);
    await pool.createThin(5, null);
    await pool.createVolume('a', MIB);
    expect(pool.status().transactionId).toBe(1001);
    await pool.setTransactionId(1001, 3);
    await pool.close();
    pool = await Pool.open(dir);
    expect(pool.status().transactionId).toBe(3);
    expect(volumes()).toEqual([
      [5, 'thin-5', 64 * MIB, undefined],
      [1, 'a', MIB, undefined],
    ]);
  });

  it('may set the transaction id back, also behind that of a metadata snapshot: that is no damage', async () => {
    await pool.createThin(1, MIB);
    await pool.setTransactionId(0, 9);
    await pool.reserveMetadataSnapshot();
    await pool.createThin(2, MIB);
    await pool.setTransactionId(9, 3);
    await pool.close();
    expect(await checkPool(dir)).toMatchObject({ transactionId: 3, damages: [] });
    execFileSync('thin_check', ['-q', '-m', join(dir, 'metadata')]);
    pool = await Pool.open(dir);
    await pool.releaseMetadataSnapshot();
  });

  it('find another name and a free LUN where theirs are taken', async () => {
    await pool.createVolume('thin-9', MIB);
    await pool.createVolume('thin-9-2', MIB);
    expect(await pool.createThin(9, null)).toMatchObject({ name: 'thin-9-3', lun: 2 });
  });

  it('hold the metadata while others write: what is held is the commit before', async () => {
    await pool.createThin(1, null);
    const client = new LunClient(pool.openVolume('thin-1'));
    let stopped = false;
    const load = (async () => {
      for (let i = 0; !stopped; i++) {
        await client.write((i % 512) * BLOCK, pattern(512, i), i % 3 === 0);
        await client.unmap(((i * 7) % 512) * BLOCK, BLOCK);
      }
    })();
    for (let i = 0; i < 20; i++) {
      await pool.reserveMetadataSnapshot();
      await expect(pool.reserveMetadataSnapshot()).rejects.toEqual(code('EBUSY'));
      await pool.releaseMetadataSnapshot();
    }
    stopped = true;
    await load;
    await pool.reserveMetadataSnapshot();
    expect((await pool.statusLines()).pool).toMatch(/^0 131072 thin-pool 0 \d+\/512 \d+\/1024 [1-9]\d* rw /);
    await pool.close();
    execFileSync('thin_check', ['-q', '-m', join(dir, 'metadata')]);
    pool = await Pool.open(dir);
    await pool.releaseMetadataSnapshot();
  });

  it.each(['create', 'snapshot', 'delete', 'transaction id'] as const)(
    'are done or not at all when the machine stops: %s',
    async (what) => {
      await pool.createThin(1, 4 * MIB);
      await pool.createThin(2, 4 * MIB);
      const before = [volumes(), pool.status().transactionId];
      const { engine } = pool as unknown as { engine: PoolEngine };
      const copies: string[] = [];
      const copy = (): void => {
        copies.push(join(dir, '..', `copy${copies.length}`));
        execFileSync('cp', ['-r', '--sparse=always', dir, copies.at(-1)!]);
      };
      const mutate = engine.mutate.bind(engine);
      engine.mutate = async (...args) => {
        copy();
        const result = await mutate(...args);
        copy();
        return result as never;
      };
      if (what === 'create') await pool.createThin(3, 8 * MIB);
      else if (what === 'snapshot') await pool.createSnap(3, 1);
      else if (what === 'delete') await pool.deleteThin(2);
      else await pool.setTransactionId(0, 9);
      engine.mutate = mutate;
      const after = [volumes(), pool.status().transactionId];
      expect(after).not.toEqual(before);
      const found: unknown[] = [];
      for (const path of copies) {
        const again = await Pool.open(path);
        found.push([volumes(again), again.status().transactionId]);
        await again.close();
      }
      expect(found).toEqual([before, after]);
    },
  );
});

describe('status lines', () => {
  it('are of what is committed by then, with metadata that includes the reserve', async () => {
    await pool.createThin(4, 16 * MIB);
    const client = new LunClient(pool.openVolume('thin-4'));
    await client.write(3 * BLOCK, pattern(2 * BLOCK, 1));
    await client.write(20 * BLOCK, pattern(512, 1));
    const lines = await pool.statusLines();
    expect(lines.pool).toMatch(
      /^0 131072 thin-pool 0 \d+\/512 3\/1024 - rw (no_)?discard_passdown queue_if_no_space - 128 $/,
    );
    expect(lines.volumes).toEqual([{ name: 'thin-4', line: `0 32768 thin 384 ${21 * 128 - 1}` }]);
    const used = Number(/ (\d+)\/512 /.exec(lines.pool)![1]);
    expect(used).toBeGreaterThan(51);
    await pool.createThin(5, 512);
    expect((await pool.statusLines()).volumes[1]).toEqual({ name: 'thin-5', line: '0 1 thin 0 -' });
  });
});
