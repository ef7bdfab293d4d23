import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { KIB, MIB } from '../../src/base/units.ts';
import { openBlockDevice } from '../../src/block/file-device.ts';
import { Pool } from '../../src/thin/pool.ts';
import { createPool } from '../../src/thin/pool-create.ts';
import { trimDevices } from '../../src/tools/trim.ts';
import { expectBytes, LunClient, pattern } from '../support/lun-client.ts';

const BLOCK = 64 * KIB;
let dir: string;
let pool: Pool;

beforeEach(async () => {
  dir = join(mkdtempSync(join(tmpdir(), 'thinlun-trim-')), 'tank');
  await createPool(dir, { dataSizeBytes: 64 * MIB });
  pool = await Pool.open(dir);
  await pool.setOptions({ noDiscardPassdown: true });
});

afterEach(async () => {
  await pool.close();
  rmSync(join(dir, '..'), { recursive: true });
});

/** What the data file takes on its file system. */
function allocated(): number {
  return statSync(join(dir, 'data')).blocks * 512;
}

/** Leaves a hole of free blocks that were not discarded before, between and behind what is in use. */
async function fill(): Promise<LunClient> {
  await pool.createVolume('a', 32 * MIB);
  const a = new LunClient(pool.openVolume('a'));
  await a.write(0, pattern(24 * MIB, 1));
  await a.unmap(0, 4 * MIB);
  await a.unmap(8 * MIB, 8 * MIB);
  await a.unmap(20 * MIB, 4 * MIB);
  await pool.commit();
  return a;
}

async function trimAll(): Promise<number> {
  let blocks = 0;
  for (let from: number | null = 0; from !== null; ) {
    const step: Awaited<ReturnType<Pool['trimFree']>> = await pool.trimFree(from);
    blocks += step.trimmedBlocks;
    from = step.nextBlock;
  }
  return blocks;
}

describe('trimming', () => {
  it('gives back every free block of a pool in use and no other', async () => {
    const a = await fill();
    expect(allocated()).toBeGreaterThanOrEqual(24 * MIB);
    expect(await trimAll()).toBe((64 - 8) * 16);
    expect(allocated()).toBeLessThan(8 * MIB + 64 * KIB);
    expectBytes(await a.read(4 * MIB, 4 * MIB), pattern(24 * MIB, 1).subarray(4 * MIB, 8 * MIB));
    expectBytes(await a.read(16 * MIB, 4 * MIB), pattern(24 * MIB, 1).subarray(16 * MIB, 20 * MIB));
    await a.write(0, pattern(MIB, 2));
    expectBytes(await a.read(0, MIB), pattern(MIB, 2));
  });

  it('never meets what is written meanwhile, also when that takes the last free block', async () => {
    const a = await fill();
    await pool.createVolume('b', 56 * MIB);
    const b = new LunClient(pool.openVolume('b'));
    const writes: Promise<void>[] = [];
    for (let at = 0; at < 56 * MIB; at += MIB) {
      writes.push(b.write(at, pattern(MIB, at)));
      if (at % (8 * MIB) === 0) void (await pool.trimFree(0));
    }
    await Promise.all([trimAll(), ...writes]);
    for (let at = 0; at < 56 * MIB; at += MIB) expectBytes(await b.read(at, MIB), pattern(MIB, at));
    expectBytes(await a.read(4 * MIB, 4 * MIB), pattern(24 * MIB, 1).subarray(4 * MIB, 8 * MIB));
    expect(await trimAll()).toBe(0);
    expect(pool.mode).toBe('write');
  });

  it('gives back the free blocks of a pool that nobody has open, by its space map', async () => {
    await fill();
    await pool.close();
    const metadata = openBlockDevice(join(dir, 'metadata'), { readOnly: true, direct: true });
    const data = openBlockDevice(join(dir, 'data'), {});
    let last = 0;
    const trimmed = await trimDevices(metadata, data, (done) => {
      expect(done).toBeGreaterThan(last);
      last = done;
    });
    expect(trimmed).toBe(56 * MIB);
    expect(last).toBe(64 * MIB);
    await metadata.close();
    await data.close();
    expect(allocated()).toBeLessThan(8 * MIB + BLOCK);
    pool = await Pool.open(dir);
    const a = new LunClient(pool.openVolume('a'));
    expectBytes(await a.read(16 * MIB, 4 * MIB), pattern(24 * MIB, 1).subarray(16 * MIB, 20 * MIB));
  });

  it('refuses a data device that is too small', async () => {
    await pool.close();
    const metadata = openBlockDevice(join(dir, 'metadata'), { readOnly: true, direct: true });
    const small = openBlockDevice(join(dir, 'small'), { create: true, sizeBytes: MIB });
    await expect(trimDevices(metadata, small, () => {})).rejects.toThrow(
      'it has 1048576 bytes, the pool needs 67108864',
    );
    await metadata.close();
    await small.close();
    pool = await Pool.open(dir);
  });
});
