import { execFileSync } from 'node:child_process';
import {
  linkSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { KIB, MIB } from '../../src/base/units.ts';
import { Pool } from '../../src/thin/pool.ts';
import { createPool } from '../../src/thin/pool-create.ts';
import { RecordingLogger } from '../daemon/served-pool.ts';
import { expectBytes, LunClient, pattern } from '../support/lun-client.ts';

const SIZE = MIB + 100 * KIB;
let folder: string;
let dir: string;
let image: string;
let pool: Pool;
let logger: RecordingLogger;

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'thinlun-origin-'));
  dir = join(folder, 'tank');
  image = join(folder, 'image.raw');
  writeFileSync(image, pattern(SIZE, 1));
  await createPool(dir, { dataSizeBytes: 64 * MIB });
  logger = new RecordingLogger();
  pool = await Pool.open(dir, { logger });
});

afterEach(async () => {
  await pool.close();
  execFileSync('thin_check', ['-q', join(dir, 'metadata')]);
  rmSync(folder, { recursive: true });
});

async function reopen(): Promise<void> {
  await pool.close();
  logger.lines.length = 0;
  pool = await Pool.open(dir, { logger });
}

async function contentOf(name: string): Promise<Uint8Array> {
  const device = pool.openVolume(name);
  try {
    return await new LunClient(device).read(0, device.sizeBytes);
  } finally {
    await pool.closeVolume(device);
  }
}

async function write(name: string, offset: number, bytes: Uint8Array): Promise<void> {
  const device = pool.openVolume(name);
  await new LunClient(device).write(offset, bytes);
  await pool.closeVolume(device);
}

describe('a volume over a file', () => {
  it('is as large as the file, in whole logical blocks, or as large as it is told', async () => {
    truncateSync(image, SIZE - 100);
    const odd = await pool.createVolume('odd', undefined, { externalOrigin: image });
    const large = await pool.createVolume('large', undefined, { externalOrigin: image, logicalBlockSize: 4096 });
    const told = await pool.createVolume('told', 8 * MIB, { externalOrigin: image });
    expect([odd, large, told].map(({ sizeBytes }) => sizeBytes)).toEqual([SIZE, SIZE, 8 * MIB]);
    const expected = new Uint8Array(8 * MIB);
    expected.set(pattern(SIZE, 1).subarray(0, SIZE - 100));
    expectBytes(await contentOf('odd'), expected.subarray(0, SIZE));
    expectBytes(await contentOf('told'), expected);
    await expect(pool.createVolume('none', undefined)).rejects.toMatchObject({ code: 'EINVAL' });
  });

  it('keeps it and what was written when the pool is closed and opened, and leaves the file alone', async () => {
    await pool.createVolume('v', undefined, { externalOrigin: image });
    await write('v', 64 * KIB + 512, pattern(1024, 2));
    await reopen();
    const expected = pattern(SIZE, 1);
    expected.set(pattern(1024, 2), 64 * KIB + 512);
    expectBytes(await contentOf('v'), expected);
    expectBytes(readFileSync(image), pattern(SIZE, 1));
    expect(logger.texts('warn')).toEqual([]);
  });

  it('has snapshots and rollbacks that show it, too', async () => {
    await pool.createVolume('v', undefined, { externalOrigin: image });
    await write('v', 0, pattern(512, 2));
    const snapshot = await pool.createSnapshot('v', 's');
    expect(snapshot.externalOrigin).toMatchObject({ path: image, sizeBytes: SIZE });
    await write('v', MIB, pattern(512, 3));
    const expected = pattern(SIZE, 1);
    expected.set(pattern(512, 2));
    expectBytes(await contentOf('s'), expected);
    await pool.rollbackVolume('v', 's');
    expectBytes(await contentOf('v'), expected);
    await reopen();
    expectBytes(await contentOf('v'), expected);
    await pool.createVolume('other', SIZE);
    await expect(pool.rollbackVolume('v', 'other')).rejects.toThrow('different external origins');
  });

  it('shrinks and grows: the blocks past the end are given back, the one that the end was in stays', async () => {
    await pool.createVolume('v', undefined, { externalOrigin: image });
    await write('v', 0, pattern(SIZE, 9));
    await pool.resizeVolume('v', 512 * KIB + 4096);
    await pool.resizeVolume('v', SIZE);
    const expected = pattern(SIZE, 1);
    expected.set(pattern(SIZE, 9).subarray(0, 576 * KIB));
    expectBytes(await contentOf('v'), expected);
  });
});

describe('an origin', () => {
  it('that is not there, empty, a folder, or part of the pool is refused, and nothing is changed', async () => {
    const empty = join(folder, 'empty');
    writeFileSync(empty, '');
    const link = join(folder, 'link');
    symlinkSync(join(dir, 'data'), link);
    const hard = join(folder, 'hard');
    linkSync(join(dir, 'metadata'), hard);
    const before = pool.status().transactionId;
    for (const [path, code, reason] of [
      [join(folder, 'absent'), 'ENODEV', 'ENOENT'],
      [empty, 'EINVAL', 'it is empty'],
      [folder, 'ENOTBLK', 'neither a file nor a block device'],
      [join(dir, 'data'), 'EINVAL', 'it belongs to the pool itself'],
      [join(dir, 'pool.json'), 'EINVAL', 'it belongs to the pool itself'],
      [link, 'EINVAL', 'it belongs to the pool itself'],
      [hard, 'EINVAL', 'it belongs to the pool itself'],
    ] as const) {
      const failure = await pool.createVolume('v', MIB, { externalOrigin: path }).catch((error: unknown) => error);
      expect(failure).toMatchObject({ code });
      expect((failure as Error).message).toMatch(`Cannot use "${path}" as an external origin: `);
      expect((failure as Error).message).toContain(reason);
    }
    expect([pool.volumes(), pool.status().transactionId]).toEqual([[], before]);
  });

  it('that is gone takes its volumes away and no other, until it is back', async () => {
    await pool.createVolume('v', undefined, { externalOrigin: image });
    await pool.createVolume('other', MIB);
    renameSync(image, `${image}.away`);
    await reopen();
    expect(() => pool.openVolume('v')).toThrow(expect.objectContaining({ code: 'ENODEV' }));
    await expect(pool.resizeVolume('v', MIB)).rejects.toMatchObject({ code: 'ENODEV' });
    expect(pool.volume('v').sizeBytes).toBe(SIZE);
    expectBytes(await contentOf('other'), new Uint8Array(MIB));
    renameSync(`${image}.away`, image);
    expectBytes(await contentOf('v'), pattern(SIZE, 1));
    renameSync(image, `${image}.away`);
    await pool.deleteVolume('v');
    expect(pool.volumes().map(({ name }) => name)).toEqual(['other']);
  });

  it('that has changed is told of, precisely', async () => {
    await pool.createVolume('v', undefined, { externalOrigin: image });
    const warned = async (): Promise<object[]> => {
      await reopen();
      await contentOf('v');
      return logger.lines.filter(({ level }) => level === 'warn').map(({ fields }) => fields);
    };
    utimesSync(image, 1000, 2000);
    const modified = 'it was modified after the volume was made from it';
    expect(await warned()).toEqual([{ volume: 'v', origin: image, reason: modified }]);
    truncateSync(image, MIB);
    const shorter = 'it had 1.10 MiB and has 1 MiB now';
    expect(await warned()).toEqual([{ volume: 'v', origin: image, reason: shorter }]);
    const expected = new Uint8Array(SIZE);
    expected.set(pattern(SIZE, 1).subarray(0, MIB));
    expectBytes(await contentOf('v'), expected);
  });

  it('is opened once for all the volumes that stand on it, and closed with the last', async () => {
    for (const name of ['a', 'b']) await pool.createVolume(name, undefined, { externalOrigin: image });
    const [a, b] = ['a', 'b'].map((name) => pool.openVolume(name));
    expect(a!.origin).not.toBeNull();
    expect(a!.origin).toBe(b!.origin);
    await pool.closeVolume(a!);
    expectBytes(await new LunClient(b!).read(0, 512), pattern(SIZE, 1).subarray(0, 512));
    await pool.closeVolume(b!);
    expect(() => b!.origin!.device.readSync(0, new Uint8Array(1), 0, 1)).toThrow();
  });
});
