import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { KIB, MIB } from '../../src/base/units.ts';
import { Pool } from '../../src/thin/pool.ts';
import { createPool } from '../../src/thin/pool-create.ts';
import { expectBytes, LunClient, pattern } from '../support/lun-client.ts';

let folder: string;
let pool: Pool;

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'thinlun-settings-'));
  await createPool(join(folder, 'pool'), { dataSizeBytes: 64 * MIB });
  pool = await Pool.open(join(folder, 'pool'));
});

afterEach(async () => {
  await pool.close();
  rmSync(folder, { recursive: true });
});

describe('a volume', () => {
  it('keeps its properties when the pool is opened again, and hands all but read-only down to snapshots', async () => {
    await pool.createVolume('a', MIB, { removable: true, physicalBlockSize: 16 * KIB, readOnly: true });
    await pool.createSnapshot('a', 'b');
    await pool.close();
    pool = await Pool.open(join(folder, 'pool'));
    expect(pool.volume('a')).toMatchObject({ removable: true, physicalBlockSize: 16 * KIB, readOnly: true });
    expect(pool.volume('b')).toMatchObject({ removable: true, physicalBlockSize: 16 * KIB });
    expect(pool.volume('b').readOnly).toBeUndefined();
  });

  it('keeps its own properties in a rollback', async () => {
    await pool.createVolume('a', MIB, { physicalBlockSize: 512 });
    await pool.createSnapshot('a', 'then');
    await pool.setVolume('a', { removable: true, physicalBlockSize: 8 * KIB });
    await pool.rollbackVolume('a', 'then');
    expect(pool.volume('a')).toMatchObject({ removable: true, physicalBlockSize: 8 * KIB });
  });

  it('that becomes read-only under writes holds exactly those that were answered', async () => {
    await pool.createVolume('a', 8 * MIB);
    const device = pool.openVolume('a');
    const client = new LunClient(device);
    const before = Array.from({ length: 32 }, (_, i) => client.write(i * 64 * KIB, pattern(64 * KIB, i)));
    const set = pool.setVolume('a', { readOnly: true });
    await Promise.all(before);
    await set;
    await expect(client.write(0, pattern(512, 99))).rejects.toThrow('EROFS');
    await expect(client.unmap(0, MIB)).rejects.toThrow('EROFS');
    for (let i = 0; i < 32; i++) expectBytes(await client.read(i * 64 * KIB, 64 * KIB), pattern(64 * KIB, i));
    await pool.setVolume('a', { readOnly: false });
    await client.write(0, pattern(512, 99));
    await pool.closeVolume(device);
  });

  it('is not changed by settings that cannot be, nor by those of another', async () => {
    await pool.createVolume('a', MIB, { logicalBlockSize: 4096 });
    const before = pool.volumes();
    for (const physicalBlockSize of [0, 512, 6144, 2 * MIB, -4096, 4096.5]) {
      await expect(pool.setVolume('a', { readOnly: true, physicalBlockSize })).rejects.toThrow(
        /power of two from 4096/,
      );
    }
    await expect(pool.createVolume('b', MIB, { physicalBlockSize: 256 })).rejects.toThrow(/power of two from 512/);
    await expect(pool.setVolume('b', { readOnly: true })).rejects.toThrow(/no volume "b"/);
    expect(pool.volumes()).toEqual(before);
  });
});
