import { rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as v from 'valibot';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { parse } from '../../src/base/schema.ts';
import { GIB, KIB, MIB } from '../../src/base/units.ts';
import { deletedSchema, volumeSchema } from '../../src/daemon/control-messages.ts';
import type { TestProcess } from '../support/processes.mjs';
import { createPool, createVolume, serve, statusOf, thinlun, thinlunJson, volumesOf, withPool } from './command.ts';

describe.each(['no server', 'a server'])('with %s, a volume', (situation) => {
  let dir: string;
  let server: TestProcess | null = null;

  beforeEach(async () => {
    dir = await createPool();
    server = situation === 'a server' ? await serve([dir]) : null;
  });

  afterEach(async () => {
    if (server !== null) expect(await server.stop()).toEqual({ code: 0, signal: null });
    // What was done is there afterwards, whoever did it.
    expect((await statusOf(dir)).server).toBeNull();
  });

  it('is created, listed, resized and deleted', async () => {
    const made = parse(volumeSchema, await thinlunJson('volume', 'create', dir, 'web', '--size', '512M'));
    expect(made).toMatchObject({ name: 'web', sizeBytes: 512 * MIB, mappedBytes: 0, lun: 0, logicalBlockSize: 512 });
    const second = await thinlunJson('volume', 'create', dir, 'db', '--size', '2T', '--logical-block-size', '4096');
    expect(second).toMatchObject({ name: 'db', sizeBytes: 2048 * GIB, lun: 1, logicalBlockSize: 4096 });
    expect(parse(v.array(volumeSchema), await thinlunJson('volume', 'list', dir))).toEqual([made, second]);
    expect((await statusOf(dir)).volumeCount).toBe(2);

    expect(await thinlunJson('volume', 'resize', dir, 'web', '--size', '1G')).toEqual({ ...made, sizeBytes: GIB });
    expect(parse(deletedSchema, await thinlunJson('volume', 'delete', dir, 'web'))).toEqual({ deleted: 'web' });
    expect(await volumesOf(dir)).toEqual([second]);
    // The LUN is free again, the serial number is not used again.
    const third = await createVolume(dir, 'web');
    expect(third.lun).toBe(0);
    expect(third.serial).not.toBe(made.serial);
  });

  it('stands on an image, and is listed with what is wrong with that', async () => {
    const image = join(dir, '..', 'image.raw');
    writeFileSync(image, Buffer.alloc(MIB, 1));
    const made = parse(volumeSchema, await thinlunJson('volume', 'create', dir, 'vm', '--external-origin', image));
    expect(made).toMatchObject({ sizeBytes: MIB, mappedBytes: 0, externalOrigin: { path: image, problem: null } });
    const larger = await thinlunJson('volume', 'create', dir, 'vm2', '--external-origin', image, '--size', '1G');
    expect(larger).toMatchObject({ sizeBytes: GIB });
    truncateSync(image, 512 * KIB);
    const { stdout } = await thinlun(['volume', 'list', dir]);
    expect(stdout).toMatch(new RegExp(`^vm .* rw +${image} `, 'm'));
    expect(stdout).toContain('The external origin of "vm" is not what it was: it had 1 MiB and has 512 KiB now\n');
    for (const [path, reason] of [
      [join(dir, 'data'), /it belongs to the pool itself/],
      [join(dir, 'absent'), /as an external origin: ENOENT/],
    ] as const) {
      const refused = await thinlun(['volume', 'create', dir, 'x', '--external-origin', path]);
      expect(refused).toMatchObject({ code: 1, stdout: '' });
      expect(refused.stderr).toMatch(reason);
    }
    expect(await thinlun(['volume', 'create', dir, 'x'])).toMatchObject({ code: 2 });
    if (server !== null) await server.stop();
    rmSync(image);
    server = situation === 'a server' ? await serve([dir]) : null;
    await createVolume(dir, 'other');
    const listed = parse(v.array(volumeSchema), await thinlunJson('volume', 'list', dir));
    expect(listed.map(({ name, externalOrigin }) => [name, externalOrigin?.problem])).toEqual([
      ['vm', expect.stringMatching(/^it cannot be read: ENOENT/)],
      ['vm2', expect.stringMatching(/^it cannot be read: ENOENT/)],
      ['other', undefined],
    ]);
    expect(await thinlun(['volume', 'delete', dir, 'vm'])).toMatchObject({ code: 0 });
  });

  it('is shown in aligned columns, without colours', async () => {
    expect(await thinlun(['volume', 'list', dir])).toMatchObject({ code: 0, stdout: 'No volumes.\n' });
    await createVolume(dir, 'a');
    await withPool(dir, (pool) => pool.createVolume({ name: 'a-longer-name', sizeBytes: 640 * KIB }));
    const { stdout } = await thinlun(['volume', 'list', dir]);
    expect(stdout.split('\n').map((line) => line.slice(0, 36))).toEqual([
      'NAME           LUN     SIZE  MAPPED ',
      'a                0    1 GiB     0 B ',
      'a-longer-name    1  640 KiB     0 B ',
      '',
    ]);
  });

  it('says in words what was done to it', async () => {
    const words = async (...args: string[]): Promise<string> => (await thinlun(['volume', ...args])).stdout;
    expect(await words('create', dir, 'a', '--size', '1G')).toBe('Created the volume "a": 1 GiB, LUN 0.\n');
    expect(await words('resize', dir, 'a', '--size', '2G')).toBe('The volume "a" has 2 GiB now.\n');
    expect(await words('delete', dir, 'a')).toBe('Deleted the volume "a".\n');
  });

  it('has properties that are set when it is made and at any time', async () => {
    const plain = await thinlunJson('volume', 'create', dir, 'plain', '--size', '1G');
    expect(plain).toMatchObject({ readOnly: false, removable: false, physicalBlockSize: 4096 });
    const flags = ['--removable', '--read-only', '--physical-block-size', '64K'];
    const made = await thinlunJson('volume', 'create', dir, 'odd', '--size', '1G', ...flags);
    expect(made).toMatchObject({ readOnly: true, removable: true, physicalBlockSize: 64 * KIB });
    expect((await thinlun(['volume', 'list', dir])).stdout).toMatch(/ ro,removable /);
    const set = await thinlunJson('volume', 'set', dir, 'odd', '--read-only', 'off', '--physical-block-size', '512');
    expect(set).toEqual({ ...(made as object), readOnly: false, physicalBlockSize: 512 });
    const words = await thinlun(['volume', 'set', dir, 'odd', '--removable', 'off']);
    expect(words.stdout).toBe('The volume "odd" is writable and fixed, with physical blocks of 512 B.\n');
    expect((await volumesOf(dir))[1]).toEqual({ ...(set as object), removable: false });
  });

  it.each([
    ['nothing to set', [], 2, /say what to set/],
    ['half a switch', ['--read-only'], 2, /argument missing/],
    ['a physical block of no power of two', ['--physical-block-size', '3000'], 2, /a power of two/],
    [
      'a physical block below a logical one',
      ['--physical-block-size', '512'],
      1,
      /a power of two from 4096 to 1048576/,
    ],
    ['a physical block that is too large', ['--physical-block-size', '2M'], 1, /a power of two from 4096 to 1048576/],
  ])('is not set for %s', async (_what, flags, code, reason) => {
    await thinlunJson('volume', 'create', dir, 'web', '--size', '1G', '--logical-block-size', '4096');
    const before = await volumesOf(dir);
    const result = await thinlun(['volume', 'set', dir, 'web', ...flags]);
    expect(result).toMatchObject({ code, stdout: '' });
    expect(result.stderr).toMatch(reason);
    expect(await volumesOf(dir)).toEqual(before);
  });

  it('is made smaller only when that is said', async () => {
    await createVolume(dir, 'a');
    const refused = await thinlun(['volume', 'resize', dir, 'a', '--size', '512M']);
    expect(refused.code).toBe(1);
    expect(refused.stderr).toMatch(/^thinlun: Cannot resize the volume "a" to 512 MiB: it has 1 GiB\n {2}.*--shrink/);
    expect((await volumesOf(dir))[0]!.sizeBytes).toBe(GIB);
    expect(await thinlunJson('volume', 'resize', dir, 'a', '--size', '512M', '--shrink')).toMatchObject({
      sizeBytes: 512 * MIB,
    });
  });

  it.each([
    [
      'a name that is taken',
      ['create', 'taken', '--size', '1G'],
      /"taken": it is there already\n {2}Choose another name/,
    ],
    ['a size that is no multiple of a block', ['create', 'b', '--size', '1000'], /multiple of 512 bytes/],
    ['a size beyond all limits', ['create', 'b', '--size', '2P'], /up to 1 PiB/],
    ['an unknown name to delete', ['delete', 'b'], /There is no volume "b" .*\n {2}See what is there/],
    ['an unknown name to resize', ['resize', 'b', '--size', '1G'], /There is no volume "b" .*\n {2}See what is there/],
    ['a name made to break out', ['delete', '../../etc'], /There is no volume "..\/..\/etc"/],
  ])('is refused and nothing changed for %s', async (_what, args, reason) => {
    await createVolume(dir, 'taken');
    const before = await volumesOf(dir);
    const [verb, ...rest] = args;
    const result = await thinlun(['volume', verb!, dir, ...rest]);
    expect(result).toMatchObject({ code: 1, stdout: '' });
    expect(result.stderr).toMatch(/^thinlun: /);
    expect(result.stderr).toMatch(reason);
    expect(await volumesOf(dir)).toEqual(before);
  });

  it('can be one of many that are created at the same time', async () => {
    const names = Array.from({ length: 6 }, (_, i) => `v${i}`);
    await Promise.all(names.map((name) => thinlunJson('volume', 'create', dir, name, '--size', '1G')));
    const volumes = await volumesOf(dir);
    expect(volumes.map(({ lun }) => lun)).toEqual([0, 1, 2, 3, 4, 5]);
    expect(volumes.map(({ name }) => name).sort()).toEqual(names);
  });
});

describe('a volume list', () => {
  it('of a folder without a pool is refused', async () => {
    const dir = join(await createPool(), '..');
    const result = await thinlun(['volume', 'list', dir]);
    expect(result.code).toBe(1);
    expect(result.stderr).toMatch(/there is no pool.json in it\n {2}Make a pool/);
  });
});
