import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { GIB, MIB } from '../../src/base/units.ts';
import { openBlockDevice } from '../../src/block/file-device.ts';
import { Pool } from '../../src/thin/pool.ts';
import { createPool } from '../../src/thin/pool-create.ts';
import { PoolMetadata } from '../../src/thin/pool-metadata.ts';
import { checkMetadata } from '../../src/tools/check.ts';
import { LunClient, pattern } from '../support/lun-client.ts';

/** More than is deleted at once. */
const MAPPED = 60_000;
const BLOCK = 65536;

let dir: string;
let pool: Pool;

/** Changes the metadata of a pool that nobody has open. */
async function withMetadata(work: (metadata: PoolMetadata) => void): Promise<void> {
  const device = openBlockDevice(join(dir, 'metadata'), {});
  const metadata = PoolMetadata.open(device, {});
  work(metadata);
  metadata.commitSync();
  metadata.close();
  await device.close();
}

/** Maps blocks of a volume, with whatever is in them. */
function fill(metadata: PoolMetadata, id: number, count: number): void {
  const thin = metadata.openThin(id);
  for (let block = 0; block < count; block++) metadata.insert(thin, block, metadata.allocateDataBlock());
  metadata.closeThin(thin);
}

function expectClean(): void {
  const device = openBlockDevice(join(dir, 'metadata'), { readOnly: true });
  const found: string[] = [];
  checkMetadata(device, (damage) => found.push(damage.message));
  void device.close();
  expect(found).toEqual([]);
}

interface CatalogueText {
  volumes: { name: string; id: number }[];
  deleting: { id: number; transactionId: number }[];
}

function catalogue(): CatalogueText {
  return JSON.parse(readFileSync(join(dir, 'pool.json'), 'utf8'));
}

beforeEach(async () => {
  dir = join(mkdtempSync(join(tmpdir(), 'thinlun-deletion-')), 'tank');
  await createPool(dir, { dataSizeBytes: 8 * GIB });
  pool = await Pool.open(dir);
  await pool.createVolume('big', 8 * GIB);
  await pool.createVolume('small', 8 * GIB);
  await pool.close();
  await withMetadata((metadata) => fill(metadata, 1, MAPPED));
  pool = await Pool.open(dir);
});

afterEach(async () => {
  await pool.close();
  execFileSync('thin_check', [join(dir, 'metadata')]);
  expectClean();
  rmSync(join(dir, '..'), { recursive: true });
});

describe('a big volume that is deleted', () => {
  it('is gone at once, its name and its LUN free; its blocks come back while others are served', async () => {
    const client = new LunClient(pool.openVolume('small'));
    await pool.deleteVolume('big');
    expect(pool.volumes().map(({ name }) => name)).toEqual(['small']);
    expect(pool.status()).toMatchObject({ volumes: 1, deletedVolumes: 1 });
    expect(pool.status().deletedBlocks).toBeGreaterThan(MAPPED / 2);
    // Its device is there for a while: another one gets another id.
    expect(await pool.createVolume('big', GIB)).toMatchObject({ id: 3, lun: 0 });
    for (let i = 0; i < 20; i++) await client.write(i * MIB, pattern(4096, i));
    await pool.deletionsEnded();
    await pool.commit();
    expect(pool.status()).toMatchObject({ usedDataBlocks: 20, deletedVolumes: 0, deletedBlocks: 0 });
    expect(catalogue().deleting).toEqual([]);
    expect(await pool.createVolume('next', GIB)).toMatchObject({ id: 1 });
  });

  it('is deleted on by the next open', async () => {
    await pool.deleteVolume('big');
    await pool.close();
    expect(catalogue()).toMatchObject({ volumes: [{ name: 'small' }], deleting: [{ id: 1, transactionId: 0 }] });
    expectClean();
    pool = await Pool.open(dir);
    expect(pool.volumes().map(({ name }) => name)).toEqual(['small']);
    await pool.deletionsEnded();
    expect(pool.status()).toMatchObject({ usedDataBlocks: 0, deletedVolumes: 0 });
  });

  it('does not take a device with it that another program has made with its id meanwhile', async () => {
    await pool.deleteVolume('big');
    await pool.close();
    await withMetadata((metadata) => {
      if (metadata.hasThin(1)) metadata.deleteThin(1);
      metadata.createThin(1);
      fill(metadata, 1, 10);
    });
    pool = await Pool.open(dir);
    expect(pool.volumes().map(({ name }) => name)).toEqual(['small', 'thin-1']);
    expect(pool.status()).toMatchObject({ usedDataBlocks: 10, deletedVolumes: 0 });
  });

  it('and was gone from the metadata already when the pool was opened is forgotten', async () => {
    await pool.deleteVolume('big');
    await pool.close();
    await withMetadata((metadata) => metadata.deleteThin(1));
    pool = await Pool.open(dir);
    expect([pool.status().deletedVolumes, catalogue().deleting]).toEqual([0, []]);
  });

  it('gives back nothing that a snapshot of it still maps', async () => {
    await pool.createSnapshot('big', 'snap');
    await pool.deleteVolume('big');
    expect(pool.status()).toMatchObject({ deletedVolumes: 0, usedDataBlocks: MAPPED });
    await pool.deleteVolume('snap');
    await pool.deletionsEnded();
    expect(pool.status().usedDataBlocks).toBe(0);
  });

  it('can be one of several', async () => {
    await pool.close();
    await withMetadata((metadata) => fill(metadata, 2, MAPPED));
    pool = await Pool.open(dir);
    await Promise.all([pool.deleteVolume('big'), pool.deleteVolume('small')]);
    expect(pool.status().deletedVolumes).toBeGreaterThan(0);
    await pool.deletionsEnded();
    expect(pool.status()).toMatchObject({ usedDataBlocks: 0, deletedVolumes: 0 });
  });

  it('makes room where there was none (delete_after_out_of_space)', async () => {
    const free = pool.status().dataBlocks - MAPPED;
    await pool.close();
    await withMetadata((metadata) => fill(metadata, 2, free));
    pool = await Pool.open(dir);
    await pool.createVolume('third', GIB);
    const waiting = new LunClient(pool.openVolume('third')).write(0, pattern(BLOCK, 1));
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(pool.status()).toMatchObject({ mode: 'out-of-data-space' });
    await pool.deleteVolume('big');
    await waiting;
    await pool.deletionsEnded();
    await pool.commit();
    expect([pool.mode, pool.status().usedDataBlocks]).toEqual(['write', free + 1]);
  });

  it('by a rollback goes in the background, too', async () => {
    await pool.createSnapshot('small', 'empty');
    await pool.rollbackVolume('big', 'empty');
    expect(pool.status().deletedVolumes).toBe(1);
    expect(pool.volume('big').mappedBytes).toBe(0);
    await pool.deletionsEnded();
    expect(pool.status().usedDataBlocks).toBe(0);
  });
});
