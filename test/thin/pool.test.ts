import { execFileSync, spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { GIB, KIB, MIB } from '../../src/base/units.ts';
import { openBlockDevice } from '../../src/block/file-device.ts';
import { Pool } from '../../src/thin/pool.ts';
import { createPool } from '../../src/thin/pool-create.ts';
import { PoolMetadata } from '../../src/thin/pool-metadata.ts';
import { expectBytes, LunClient, pattern } from '../support/lun-client.ts';

let dir: string;
let pools: Pool[] = [];

beforeEach(() => {
  dir = join(mkdtempSync(join(tmpdir(), 'thinlun-pool-')), 'tank');
});

afterEach(async () => {
  for (const pool of pools.splice(0)) await pool.close();
  if (existsSync(join(dir, 'metadata'))) execFileSync('thin_check', [join(dir, 'metadata')]);
  rmSync(join(dir, '..'), { recursive: true });
});

async function open(options = {}): Promise<Pool> {
  const pool = await Pool.open(dir, options);
  pools.push(pool);
  return pool;
}

async function close(pool: Pool): Promise<void> {
  pools = pools.filter((other) => other !== pool);
  await pool.close();
}

describe('createPool', () => {
  it('makes a folder with a catalogue and two sparse files that thin_check accepts', async () => {
    await createPool(dir, { dataSizeBytes: 10 * GIB });
    expect(readdirSync(dir).sort()).toEqual(['data', 'metadata', 'pool.json']);
    expect(statSync(join(dir, 'data')).size).toBe(10 * GIB);
    expect(statSync(join(dir, 'data')).blocks * 512).toBeLessThan(MIB);
    expect(statSync(join(dir, 'metadata')).size).toBe(8 * MIB);
  });

  it('uses devices and files that it is given, and makes those that are not there', async () => {
    const data = join(dir, '..', 'big');
    const metadata = join(dir, '..', 'fast');
    writeFileSync(metadata, new Uint8Array(4 * MIB));
    await createPool(dir, { dataSizeBytes: GIB, dataPath: data, metadataPath: metadata });
    expect(statSync(data).size).toBe(GIB);
    expect((await open()).status().metadataBlocks).toBe(1024);
  });

  it('refuses what is a pool already, and metadata that somebody uses, and leaves both as they were', async () => {
    await createPool(dir, { dataSizeBytes: GIB });
    const before = readFileSync(join(dir, 'metadata'));
    await expect(createPool(dir, { dataSizeBytes: GIB })).rejects.toThrow('there is one already');
    const other = join(dir, '..', 'other');
    await expect(createPool(other, { dataSizeBytes: GIB, metadataPath: join(dir, 'metadata') })).rejects.toMatchObject({
      code: 'EEXIST',
    });
    expect(existsSync(other)).toBe(false);
    expect(Buffer.compare(readFileSync(join(dir, 'metadata')), before)).toBe(0);
  });

  it.each([
    [{ dataSizeBytes: GIB, blockSizeBytes: 96 * KIB }, 'multiple of 64 KiB'],
    [{ dataSizeBytes: GIB, blockSizeBytes: 2 * GIB }, 'at most 1 GiB'],
    [{ dataSizeBytes: KIB }, 'a block has 64 KiB'],
    [{ dataSizeBytes: GIB, metadataSizeBytes: 20 * GIB }, '15.88 GiB'],
    [{ dataSizeBytes: GIB, name: 'a b' }, 'Cannot name'],
    [{}, 'size is not given'],
  ])('refuses %j and leaves nothing behind', async (options, message) => {
    await expect(createPool(dir, options)).rejects.toThrow(message);
    expect(existsSync(dir)).toBe(false);
  });
});

describe('Pool.open', () => {
  it('lets one process have it', async () => {
    await createPool(dir, { dataSizeBytes: GIB });
    const pool = await open();
    await expect(Pool.open(dir)).rejects.toMatchObject({ code: 'EBUSY' });
    await close(pool);
    await open();
  });

  it('says what is missing', async () => {
    await expect(Pool.open(dir)).rejects.toMatchObject({ code: 'ENOENT' });
    await createPool(dir, { dataSizeBytes: GIB });
    truncateSync(join(dir, 'data'), MIB);
    await expect(Pool.open(dir)).rejects.toThrow('its data device has 1 MiB, its metadata needs 1 GiB');
    truncateSync(join(dir, 'data'), GIB);
  });

  it('gives a name to devices that another tool made, and takes it from those that another tool deleted', async () => {
    await createPool(dir, { dataSizeBytes: GIB });
    const pool = await open();
    await pool.createVolume('kept', GIB);
    const gone = await pool.createVolume('gone', GIB);
    await close(pool);
    const device = openBlockDevice(join(dir, 'metadata'), {});
    const metadata = PoolMetadata.open(device, {});
    metadata.createThin(77);
    metadata.deleteThin(gone.id);
    metadata.commitSync();
    metadata.close();
    await device.close();
    expect((await open()).volumes().map((volume) => volume.name)).toEqual(['kept', 'thin-77']);
  });
});

describe('volumes', () => {
  beforeEach(() => createPool(dir, { dataSizeBytes: GIB }));

  it('keep their data, names, sizes, LUNs and identities when the pool is closed and opened', async () => {
    const pool = await open();
    await pool.createVolume('one', GIB);
    await pool.createVolume('two', 2 * GIB, { logicalBlockSize: 4096 });
    const device = pool.openVolume('two');
    await new LunClient(device).write(MIB, pattern(MIB, 1));
    const before = pool.volumes();
    expect(before.map(({ name, lun, mappedBytes }) => ({ name, lun, mappedBytes }))).toEqual([
      { name: 'one', lun: 0, mappedBytes: 0 },
      { name: 'two', lun: 1, mappedBytes: MIB },
    ]);
    await close(pool);
    const again = await open();
    expect(again.volumes()).toEqual(before);
    expectBytes(await new LunClient(again.openVolume('two')).read(MIB, MIB), pattern(MIB, 1));
  });

  it('have the lowest free LUN and an identity of their own', async () => {
    const pool = await open();
    for (const name of ['a', 'b', 'c']) await pool.createVolume(name, GIB);
    await pool.deleteVolume('b');
    const again = await pool.createVolume('d', GIB);
    expect(again.lun).toBe(1);
    const naas = pool.volumes().map((volume) => volume.naa);
    expect(new Set(naas).size).toBe(3);
    for (const naa of naas) expect(naa).toMatch(/^3[0-9a-f]{15}$/);
  });

  it('refuse bad names, sizes and names that are taken, and change nothing', async () => {
    const pool = await open();
    await pool.createVolume('a', GIB);
    const before = pool.status().transactionId;
    await expect(pool.createVolume('a', GIB)).rejects.toMatchObject({ code: 'EEXIST' });
    await expect(pool.createVolume('a/b', GIB)).rejects.toMatchObject({ code: 'EINVAL' });
    await expect(pool.createVolume('b', 1000)).rejects.toThrow('multiple of 512');
    await expect(pool.createVolume('b', 512, { logicalBlockSize: 4096 })).rejects.toThrow('multiple of 4096');
    await expect(pool.deleteVolume('b')).rejects.toMatchObject({ code: 'ENOENT' });
    expect(pool.status().transactionId).toBe(before);
  });

  it('give their space back when they are deleted, and not while they are in use', async () => {
    const pool = await open();
    await pool.createVolume('a', GIB);
    const device = pool.openVolume('a');
    await new LunClient(device).write(0, pattern(4 * MIB, 1));
    await expect(pool.deleteVolume('a')).rejects.toMatchObject({ code: 'EBUSY' });
    await pool.closeVolume(device);
    await pool.deleteVolume('a');
    expect(pool.status().usedDataBlocks).toBe(0);
    await close(pool);
    expect(statSync(join(dir, 'data')).blocks).toBe(0);
  });

  it('shrink and grow: what was past the end is gone', async () => {
    const pool = await open();
    await pool.createVolume('a', 4 * MIB);
    const lun = new LunClient(pool.openVolume('a'));
    await lun.write(0, pattern(4 * MIB, 1));
    expect((await pool.resizeVolume('a', MIB)).mappedBytes).toBe(MIB);
    await expect(lun.read(MIB, 512)).rejects.toThrow('ENXIO');
    await pool.resizeVolume('a', 4 * MIB);
    expectBytes(await lun.read(0, MIB), pattern(4 * MIB, 1).subarray(0, MIB));
    expectBytes(await lun.read(MIB, 3 * MIB), new Uint8Array(3 * MIB));
  });

  it('can be made and deleted in one go from many places', async () => {
    const pool = await open();
    await Promise.all(Array.from({ length: 20 }, (_, i) => pool.createVolume(`v${i}`, MIB)));
    await Promise.all(
      Array.from({ length: 20 }, (_, i) => (i % 2 ? pool.deleteVolume(`v${i}`) : pool.resizeVolume(`v${i}`, 2 * MIB))),
    );
    expect(pool.volumes().map((volume) => [volume.name, volume.sizeBytes])).toEqual(
      Array.from({ length: 10 }, (_, i) => [`v${2 * i}`, 2 * MIB]),
    );
  });
});

describe('growth', () => {
  it('of the data file lets a full pool go on', async () => {
    await createPool(dir, { dataSizeBytes: MIB });
    const pool = await open();
    await pool.createVolume('a', GIB);
    const lun = new LunClient(pool.openVolume('a'));
    await lun.write(0, pattern(MIB, 1));
    const waiting = lun.write(2 * MIB, pattern(MIB, 2));
    await lun.flush();
    expect(pool.mode).toBe('out-of-data-space');
    await pool.growData(4 * MIB);
    await waiting;
    expect(pool.mode).toBe('write');
    expectBytes(await lun.read(2 * MIB, MIB), pattern(MIB, 2));
    await expect(pool.growData(2 * MIB)).rejects.toMatchObject({ code: 'EINVAL' });
  });

  it('of the metadata file is used at once', async () => {
    await createPool(dir, { dataSizeBytes: GIB });
    const pool = await open();
    await pool.growMetadata(80 * MIB);
    expect(pool.status().metadataBlocks).toBe(20480);
    await close(pool);
    expect(spawnSync('thin_check', [join(dir, 'metadata')]).status).toBe(0);
    expect((await open()).status().metadataBlocks).toBe(20480);
  });
});

describe('the end of the process', () => {
  /** What a new process would find if this one ended now: files as they are in the page cache. */
  function killed(): string {
    const copy = join(dir, '..', 'copy');
    rmSync(copy, { recursive: true, force: true });
    execFileSync('cp', ['-r', '--sparse=always', dir, copy]);
    return copy;
  }

  it('takes nothing with it that was acknowledged, flushed or not, written or discarded', async () => {
    await createPool(dir, { dataSizeBytes: GIB });
    const pool = await open();
    await pool.createVolume('a', GIB);
    const lun = new LunClient(pool.openVolume('a'));
    await lun.write(0, pattern(MIB, 1), true);
    await Promise.all(Array.from({ length: 50 }, (_, i) => lun.write((100 + 7 * i) * 65536 + 512, pattern(1024, i))));
    await lun.unmap(65536, 65536 * 3);
    await lun.write(2 * 65536, pattern(512, 99));
    expect(readFileSync(join(dir, 'journal')).length).toBeGreaterThan(4096);
    const copy = killed();
    expect(spawnSync('thin_check', ['-q', join(copy, 'metadata')]).status).toBe(0);
    const again = await Pool.open(copy);
    const after = new LunClient(again.openVolume('a'));
    for (let i = 0; i < 50; i++) expectBytes(await after.read((100 + 7 * i) * 65536 + 512, 1024), pattern(1024, i));
    expectBytes(await after.read(0, 65536), pattern(MIB, 1).subarray(0, 65536));
    expectBytes(await after.read(65536, 65536), new Uint8Array(65536));
    expectBytes(await after.read(2 * 65536, 512), pattern(512, 99));
    expectBytes(await after.read(2 * 65536 + 512, 65536), new Uint8Array(65536));
    expect(again.status().usedDataBlocks).toBe(pool.status().usedDataBlocks);
    await again.close();
    expect(existsSync(join(copy, 'journal'))).toBe(false);
    expect(spawnSync('thin_check', ['-q', join(copy, 'metadata')]).status).toBe(0);
  });

  it('after a commit does nothing twice', async () => {
    await createPool(dir, { dataSizeBytes: GIB });
    const pool = await open();
    await pool.createVolume('a', GIB);
    const lun = new LunClient(pool.openVolume('a'));
    await lun.write(0, pattern(MIB, 1));
    const before = readFileSync(join(dir, 'journal'));
    await lun.flush();
    // The process ended between the superblock and the journal's new header.
    const copy = killed();
    writeFileSync(join(copy, 'journal'), before);
    const again = await Pool.open(copy);
    expect(again.status().usedDataBlocks).toBe(16);
    expectBytes(await new LunClient(again.openVolume('a')).read(0, MIB), pattern(MIB, 1));
    await again.close();
  });

  it('and of the machine brings back the last commit: what the page cache had is gone', async () => {
    await createPool(dir, { dataSizeBytes: GIB });
    const pool = await open();
    await pool.createVolume('a', GIB);
    await new LunClient(pool.openVolume('a')).write(0, pattern(MIB, 1));
    const copy = killed();
    const journal = readFileSync(join(copy, 'journal'));
    // Another boot id gives another digest.
    journal[0]! ^= 1;
    writeFileSync(join(copy, 'journal'), journal);
    const again = await Pool.open(copy);
    expect(again.status().usedDataBlocks).toBe(0);
    await again.close();
  });

  it('in the middle of an append does again what was whole', async () => {
    await createPool(dir, { dataSizeBytes: GIB });
    const pool = await open();
    await pool.createVolume('a', GIB);
    const lun = new LunClient(pool.openVolume('a'));
    for (let i = 0; i < 4; i++) await lun.write(i * 65536, pattern(65536, i));
    const copy = killed();
    truncateSync(join(copy, 'journal'), 4096 + 3 * 32 + 7);
    const again = await Pool.open(copy);
    expect(again.status().usedDataBlocks).toBe(3);
    await again.close();
  });
});

describe('a crash', () => {
  it('in the middle of shrinking a volume leaves nothing that a later growth would bring back', async () => {
    await createPool(dir, { dataSizeBytes: GIB });
    const pool = await open();
    await pool.createVolume('a', 4 * MIB);
    const device = pool.openVolume('a');
    await new LunClient(device).write(0, pattern(4 * MIB, 1), true);
    await close(pool);
    // The catalogue has the new size, the blocks are still there.
    const json = JSON.parse(readFileSync(join(dir, 'pool.json'), 'utf8'));
    json.volumes[0].sizeBytes = MIB + 512;
    writeFileSync(join(dir, 'pool.json'), JSON.stringify(json));
    const again = await open();
    expect(again.status().usedDataBlocks).toBe(17);
    await again.resizeVolume('a', 4 * MIB);
    const lun = new LunClient(again.openVolume('a'));
    expectBytes(await lun.read(0, MIB + 512), pattern(4 * MIB, 1).subarray(0, MIB + 512));
    expectBytes(await lun.read(MIB + 512, 3 * MIB - 512), new Uint8Array(3 * MIB - 512));
  });
});
