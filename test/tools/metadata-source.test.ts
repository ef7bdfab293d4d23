import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { MIB } from '../../src/base/units.ts';
import { createPool } from '../../src/thin/pool-create.ts';
import { PoolLock } from '../../src/thin/pool-lock.ts';
import { openMetadata, poolFolderOf } from '../../src/tools/metadata-source.ts';

let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'thinlun-source-'));
});

afterEach(() => rmSync(folder, { recursive: true }));

describe('the source of metadata', () => {
  it('is a file by itself, open for reading', async () => {
    const path = join(folder, 'metadata');
    writeFileSync(path, Buffer.alloc(8192));
    expect(poolFolderOf(path)).toBeNull();
    const source = await openMetadata(path);
    expect(source.dir).toBeNull();
    expect(source.device).toMatchObject({ path, sizeBytes: 8192, readOnly: true });
    await source.close();
  });

  it.each(['', 'metadata'])('is a pool: its folder/%s is locked until it is closed', async (name) => {
    const dir = join(folder, 'pool');
    await createPool(dir, { dataSizeBytes: 64 * MIB });
    const source = await openMetadata(join(dir, name), { write: true });
    expect(source).toMatchObject({ dir, device: { readOnly: false } });
    await expect(openMetadata(dir)).rejects.toMatchObject({ code: 'EBUSY' });
    await source.close();
    await (await openMetadata(dir)).close();
  });

  it('needs no lock to read a metadata snapshot', async () => {
    const dir = join(folder, 'pool');
    await createPool(dir, { dataSizeBytes: 64 * MIB });
    const lock = await PoolLock.take(dir);
    await (await openMetadata(dir, { metadataSnapshot: true })).close();
    lock.release();
  });

  it('has to be there', async () => {
    await expect(openMetadata(join(folder, 'nothing'))).rejects.toMatchObject({ code: 'ENOENT' });
  });
});
