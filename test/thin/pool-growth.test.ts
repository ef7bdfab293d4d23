import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, statSync, truncateSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { GIB, KIB, MIB } from '../../src/base/units.ts';
import { Pool } from '../../src/thin/pool.ts';
import { createPool, type PoolCreateOptions } from '../../src/thin/pool-create.ts';
import type { PoolEvent } from '../../src/thin/pool-mode.ts';
import { RecordingLogger } from '../daemon/served-pool.ts';
import { expectBytes, LunClient, pattern } from '../support/lun-client.ts';

let folder: string;
let dir: string;
let pool: Pool;
let events: PoolEvent[];
let logger: RecordingLogger;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'thinlun-growth-'));
  dir = join(folder, 'tank');
});

afterEach(async () => {
  await pool.close();
  execFileSync('thin_check', ['-q', join(dir, 'metadata')]);
  rmSync(folder, { recursive: true });
});

async function open(): Promise<void> {
  events = [];
  logger = new RecordingLogger();
  pool = await Pool.open(dir, { logger, onEvent: (event) => events.push(event) });
}

async function make(options: PoolCreateOptions): Promise<LunClient> {
  await createPool(dir, options);
  await open();
  await pool.createVolume('v', GIB);
  return new LunClient(pool.openVolume('v'));
}

function until(condition: () => boolean): Promise<void> {
  return new Promise((resolve, reject) => {
    const look = (left: number): void => {
      if (condition()) resolve();
      else if (left === 0) reject(new Error('it did not come to that'));
      else setTimeout(look, 5, left - 1);
    };
    look(1000);
  });
}

const sizes = (): number[] =>
  events.flatMap((event) => (event.kind === 'extended' && event.file === 'data' ? [event.sizeBytes] : []));

describe('a pool that may grow by itself', () => {
  it('is larger before a write has to wait, in steps, and never beyond its limit', async () => {
    const lun = await make({
      dataSizeBytes: 4 * MIB,
      options: { lowWaterBlocks: 16, autoExtend: { limitBytes: 10 * MIB + 100, stepBytes: 4 * MIB } },
    });
    for (let i = 0; i < 10; i++) await lun.write(i * MIB, pattern(MIB, i));
    await until(() => logger.texts('warn').includes('the pool has grown to its limit'));
    expect(sizes()).toEqual([8 * MIB, 10 * MIB]);
    expect(events.filter(({ kind }) => kind === 'mode')).toEqual([]);
    expect(statSync(join(dir, 'data')).size).toBe(10 * MIB);
    await pool.setOptions({ errorIfNoSpace: true });
    await expect(lun.write(20 * MIB, pattern(512, 1))).rejects.toThrow('ENOSPC');
    expect(pool.status()).toMatchObject({ mode: 'out-of-data-space', dataBlocks: 160, dataIsLow: true });
    for (let i = 0; i < 10; i++) expectBytes(await lun.read(i * MIB, MIB), pattern(MIB, i));
    expect(logger.texts('warn').filter((text) => text === 'the pool has grown to its limit')).toHaveLength(1);
  });

  it('grows when it is out of space already: when it is opened, and when it is told that it may', async () => {
    const lun = await make({ dataSizeBytes: MIB });
    await lun.write(0, pattern(MIB, 1));
    const waiting = lun.write(MIB, pattern(MIB, 2));
    await until(() => pool.mode === 'out-of-data-space');
    await pool.setOptions({ autoExtend: { limitBytes: 4 * MIB, stepBytes: 2 * MIB } });
    await waiting;
    expect(pool.mode).toBe('write');
    await until(() => sizes().length === 1);
    await lun.write(2 * MIB, pattern(MIB, 3));
    await until(() => sizes().length === 2);
    expect(sizes()).toEqual([3 * MIB, 4 * MIB]);
    await pool.close();
    await open();
    await pool.setOptions({ autoExtend: null });
    await new LunClient(pool.openVolume('v')).write(3 * MIB, pattern(MIB, 4));
    await pool.setOptions({ autoExtend: { limitBytes: 6 * MIB, stepBytes: MIB } });
    await pool.close();
    expect(sizes().length).toBeLessThanOrEqual(1);
    await open();
    await until(() => pool.status().dataBlocks === 5 * 16);
  });

  it('adds what one write of many blocks needs, a step after the other', async () => {
    const lun = await make({
      dataSizeBytes: MIB,
      options: { autoExtend: { limitBytes: 64 * MIB, stepBytes: 64 * KIB } },
    });
    await lun.write(0, pattern(6 * MIB, 1));
    expectBytes(await lun.read(0, 6 * MIB), pattern(6 * MIB, 1));
    expect(pool.status().dataBlocks).toBeLessThan(8 * 16);
  });

  it('grows its metadata, too, up to twice what the rule of thumb says for the limit', async () => {
    await make({ dataSizeBytes: 64 * MIB, options: { autoExtend: { limitBytes: 128 * MIB, stepBytes: MIB } } });
    await pool.createVolume('o', GIB);
    for (let i = 0; pool.status().metadataBlocks === 512 && i < 500; i++) await pool.createVolume(`x${i}`, MIB);
    await until(() => events.some((event) => event.kind === 'extended'));
    expect(events.filter(({ kind }) => kind === 'extended')).toEqual([
      { kind: 'extended', file: 'metadata', sizeBytes: 3 * MIB },
    ]);
    expect(events.filter(({ kind }) => kind === 'mode')).toEqual([]);
    expect(pool.status()).toMatchObject({ metadataBlocks: 768, metadataIsLow: false, dataBlocks: 1024 });
  });

  it('does not, where it may not', async () => {
    const lun = await make({ dataSizeBytes: MIB, options: { errorIfNoSpace: true } });
    await expect(lun.write(0, pattern(2 * MIB, 1))).rejects.toThrow('ENOSPC');
    expect(events.map(({ kind }) => kind)).toEqual(['low-water', 'mode']);
    expect(statSync(join(dir, 'data')).size).toBe(MIB);
  });
});

describe('growth', () => {
  it('moves the low-water mark that nobody set, and tells of it anew', async () => {
    const lun = await make({ dataSizeBytes: 16 * MIB });
    expect(pool.status().lowWaterBlocks).toBe(16);
    await pool.growData(64 * MIB);
    expect(pool.status()).toMatchObject({ lowWaterBlocks: 64, dataBlocks: 1024 });
    for (let i = 0; i < 60; i++) await lun.write(i * MIB, pattern(MIB, i));
    expect(events).toEqual([{ kind: 'low-water', freeBlocks: 64, lowWaterBlocks: 64 }]);
    await pool.growData(80 * MIB);
    for (let i = 60; i < 76; i++) await lun.write(i * MIB, pattern(MIB, i));
    expect(events).toHaveLength(2);
  });

  it('of a read-only pool is refused and makes no file larger', async () => {
    await make({ dataSizeBytes: MIB });
    await pool.setOptions({ readOnly: true });
    await expect(pool.growData(2 * MIB)).rejects.toMatchObject({ code: 'EROFS' });
    await expect(pool.growMetadata(4 * MIB)).rejects.toMatchObject({ code: 'EROFS' });
    expect([statSync(join(dir, 'data')).size, statSync(join(dir, 'metadata')).size]).toEqual([MIB, 2 * MIB]);
  });

  it('offline brings a full pool back', async () => {
    const lun = await make({ dataSizeBytes: MIB, options: { errorIfNoSpace: true } });
    await expect(lun.write(0, pattern(2 * MIB, 1))).rejects.toThrow('ENOSPC');
    await pool.close();
    await open();
    await pool.growData(4 * MIB);
    await pool.close();
    await open();
    expect(pool.mode).toBe('write');
    await new LunClient(pool.openVolume('v')).write(0, pattern(2 * MIB, 1));
  });

  it('of the metadata device offline is used from the next opening on, unless the pool is read-only', async () => {
    await make({ dataSizeBytes: GIB });
    await pool.close();
    truncateSync(join(dir, 'metadata'), 4 * MIB + 100);
    await open();
    expect(pool.status()).toMatchObject({ metadataBlocks: 1024, mode: 'write' });
    await pool.setOptions({ readOnly: true });
    await pool.close();
    truncateSync(join(dir, 'metadata'), 8 * MIB);
    await open();
    expect(pool.status()).toMatchObject({ metadataBlocks: 1024, mode: 'read-only' });
    await pool.setOptions({ readOnly: false });
  });
});
