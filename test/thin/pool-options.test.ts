import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { GIB, KIB, MIB } from '../../src/base/units.ts';
import { openBlockDevice } from '../../src/block/file-device.ts';
import { Pool } from '../../src/thin/pool.ts';
import { createPool } from '../../src/thin/pool-create.ts';
import type { PoolEngine } from '../../src/thin/pool-engine.ts';
import { PoolMetadata } from '../../src/thin/pool-metadata.ts';
import { DEFAULT_POOL_OPTIONS } from '../../src/thin/pool-options.ts';
import { expectBytes, LunClient, pattern } from '../support/lun-client.ts';

let folder: string;
let dir: string;
let pool: Pool;

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'thinlun-options-'));
  dir = join(folder, 'tank');
  await createPool(dir, { dataSizeBytes: 16 * MIB });
  pool = await Pool.open(dir);
});

afterEach(async () => {
  await pool.close();
  execFileSync('thin_check', ['-q', join(dir, 'metadata')]);
  rmSync(folder, { recursive: true });
});

async function reopen(): Promise<void> {
  await pool.close();
  pool = await Pool.open(dir);
}

describe('the options of a pool', () => {
  it('are what they were set to, also after the pool was closed and opened', async () => {
    expect(pool.status().options).toEqual(DEFAULT_POOL_OPTIONS);
    const options = {
      skipBlockZeroing: true,
      ignoreDiscard: true,
      noDiscardPassdown: true,
      errorIfNoSpace: true,
      readOnly: false,
      lowWaterBlocks: 7,
      noSpaceTimeoutMs: 1500,
      autoExtend: { limitBytes: GIB, stepBytes: MIB },
      metadataCacheBytes: 8 * MIB,
    };
    await pool.setOptions(options);
    expect(pool.status().options).toEqual(options);
    const inside = (): { engine: PoolEngine } => pool as unknown as { engine: PoolEngine };
    const cacheBlocks = (): number => inside().engine.metadata.cacheBlocks;
    expect(cacheBlocks()).toBe((192 * MIB) / 4096);
    await reopen();
    expect(cacheBlocks()).toBe((8 * MIB) / 4096);
    expect(pool.status()).toMatchObject({ options, lowWaterBlocks: 7, failsWhenFull: true, discardPassdown: false });
    await pool.setOptions({ errorIfNoSpace: false });
    expect(pool.status()).toMatchObject({ options: { ...options, errorIfNoSpace: false }, failsWhenFull: false });
  });

  it('are the defaults for a pool that has none in its catalogue', async () => {
    await pool.close();
    const path = join(dir, 'pool.json');
    const { options: _, ...old } = JSON.parse(readFileSync(path, 'utf8'));
    writeFileSync(path, JSON.stringify(old));
    pool = await Pool.open(dir);
    expect(pool.status().options).toEqual(DEFAULT_POOL_OPTIONS);
  });

  it.each([
    [{ lowWaterBlocks: -1 }, 'low-water mark of -1 blocks'],
    [{ lowWaterBlocks: 1.5 }, 'whole number'],
    [{ noSpaceTimeoutMs: 2 ** 31 }, 'at most 2147483 s'],
    [{ noSpaceTimeoutMs: -1 }, 'Cannot let writes wait'],
    [{ autoExtend: { limitBytes: MIB, stepBytes: MIB } }, 'it has 16 MiB already'],
    [{ autoExtend: { limitBytes: GIB, stepBytes: KIB } }, 'a block has 64 KiB'],
    [{ metadataCacheBytes: 256 * KIB }, 'Cannot use 256 KiB for metadata: at least 512 KiB, at most 16 GiB'],
    [{ metadataCacheBytes: 17 * GIB }, 'at most 16 GiB'],
  ])('are refused as %j, and stay as they were', async (options, reason) => {
    await expect(pool.setOptions({ errorIfNoSpace: true, ...options })).rejects.toMatchObject({
      code: 'EINVAL',
      message: expect.stringContaining(reason),
    });
    const other = join(folder, 'other');
    await expect(createPool(other, { dataSizeBytes: 16 * MIB, options })).rejects.toThrow(reason);
    expect(pool.status().options).toEqual(DEFAULT_POOL_OPTIONS);
  });

  it('do not take discards away from a volume that is in use', async () => {
    await pool.createVolume('v', MIB);
    const device = pool.openVolume('v');
    await expect(pool.setOptions({ ignoreDiscard: true })).rejects.toMatchObject({ code: 'EBUSY' });
    await pool.setOptions({ ignoreDiscard: false, noDiscardPassdown: true });
    await pool.closeVolume(device);
    await pool.setOptions({ ignoreDiscard: true });
    expect(pool.openVolume('v').unmapGranularityBytes).toBe(0);
  });
});

describe('a pool that is set read-only', () => {
  it('is it after it was opened again, too; mapped blocks are written, and it can be taken back', async () => {
    await pool.createVolume('v', 8 * MIB);
    await new LunClient(pool.openVolume('v')).write(0, pattern(MIB, 1));
    await pool.setOptions({ readOnly: true });
    await reopen();
    expect(pool.mode).toBe('read-only');
    const lun = new LunClient(pool.openVolume('v'));
    await lun.write(4096, pattern(4096, 2));
    await lun.flush();
    await expect(lun.write(MIB, pattern(512, 1))).rejects.toThrow('EROFS');
    expectBytes(await lun.read(MIB, 512), new Uint8Array(512));
    await expect(pool.createVolume('w', MIB)).rejects.toMatchObject({ code: 'EROFS' });
    await expect(pool.resizeVolume('v', MIB)).rejects.toMatchObject({ code: 'EROFS' });
    expect(pool.volume('v').sizeBytes).toBe(8 * MIB);
    await pool.setOptions({ readOnly: false });
    await lun.write(MIB, pattern(512, 1));
    expectBytes(await lun.read(4096, 4096), pattern(4096, 2));
  });
});

describe('skipped zeroing', () => {
  it('leaves what was on the data device, and promises no zeroes', async () => {
    await pool.close();
    writeFileSync(join(dir, 'data'), new Uint8Array(16 * MIB).fill(0xaa));
    pool = await Pool.open(dir);
    await pool.createVolume('v', MIB);
    const device = pool.openVolume('v');
    const lun = new LunClient(device);
    await lun.write(0, pattern(512, 1));
    expect(device.unmappedReadsZeroes).toBe(true);
    await pool.setOptions({ skipBlockZeroing: true });
    expect(device.unmappedReadsZeroes).toBe(false);
    await lun.write(64 * KIB, pattern(512, 1));
    expectBytes(await lun.read(512, 512), new Uint8Array(512));
    expectBytes(await lun.read(64 * KIB + 512, 512), new Uint8Array(512).fill(0xaa));
    expectBytes(await lun.read(128 * KIB, 512), new Uint8Array(512));
  });
});

describe('without passdown', () => {
  it('discards free blocks of the pool and leave the data device alone', async () => {
    await pool.setOptions({ noDiscardPassdown: true });
    await pool.createVolume('v', 8 * MIB);
    const lun = new LunClient(pool.openVolume('v'));
    await lun.write(0, pattern(4 * MIB, 1));
    await lun.unmap(0, 4 * MIB);
    await lun.flush();
    expect(pool.status().usedDataBlocks).toBe(0);
    await pool.close();
    expectBytes(readFileSync(join(dir, 'data')).subarray(0, 4 * MIB), pattern(4 * MIB, 1));
    pool = await Pool.open(dir);
  });
});

describe.each([192 * KIB, 448 * KIB, 5 * MIB + 64 * KIB])('blocks of %i bytes', (blockSizeBytes) => {
  it('are written, copied, discarded and found again', async () => {
    await pool.close();
    dir = join(folder, 'odd');
    await createPool(dir, { dataSizeBytes: 20 * blockSizeBytes + 12345, blockSizeBytes });
    pool = await Pool.open(dir);
    expect(pool.status()).toMatchObject({ blockSizeBytes, dataBlocks: 20 });
    const size = 8 * blockSizeBytes + 4096;
    await pool.createVolume('v', size);
    const device = pool.openVolume('v');
    expect(device.unmapGranularityBytes).toBe(blockSizeBytes);
    const lun = new LunClient(device);
    const model = new Uint8Array(size);
    const write = async (offset: number, length: number, seed: number): Promise<void> => {
      const bytes = pattern(length, seed);
      await lun.write(offset, bytes);
      model.set(bytes, offset);
    };
    await write(blockSizeBytes - 512, 2 * blockSizeBytes, 1);
    await write(size - 1024, 1024, 2);
    await write(5 * blockSizeBytes + 64 * KIB, 512, 3);
    await pool.createSnapshot('v', 's');
    const before = model.slice();
    await write(2 * blockSizeBytes - 512, 1024, 4);
    await lun.unmap(5 * blockSizeBytes - 512, 2 * blockSizeBytes + 1024);
    model.fill(0, 5 * blockSizeBytes - 512, 7 * blockSizeBytes + 512);
    expectBytes(await lun.read(0, size), model);
    await reopen();
    expectBytes(await new LunClient(pool.openVolume('v')).read(0, size), model);
    expectBytes(await new LunClient(pool.openVolume('s')).read(0, size), before);
  });
});

describe('device ids', () => {
  it('go up to 2^24 - 1', async () => {
    await pool.close();
    const device = openBlockDevice(join(dir, 'metadata'), {});
    const metadata = PoolMetadata.open(device, {});
    metadata.createThin(2 ** 24 - 1);
    expect(() => metadata.createThin(2 ** 24)).toThrow(expect.objectContaining({ code: 'EINVAL' }));
    metadata.commitSync();
    metadata.close();
    await device.close();
    pool = await Pool.open(dir);
    const [volume] = pool.volumes();
    expect(volume).toMatchObject({ id: 16777215, name: 'thin-16777215' });
    await pool.resizeVolume(volume!.name, 8 * MIB);
    const lun = new LunClient(pool.openVolume(volume!.name));
    await lun.write(MIB, pattern(MIB, 1), true);
    expect((await pool.createSnapshot(volume!.name, 's')).id).toBe(1);
    await reopen();
    expectBytes(await new LunClient(pool.openVolume('thin-16777215')).read(MIB, MIB), pattern(MIB, 1));
  });
});
