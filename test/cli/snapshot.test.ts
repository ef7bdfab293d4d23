import * as v from 'valibot';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { parse } from '../../src/base/schema.ts';
import { GIB, MIB } from '../../src/base/units.ts';
import { statusLinesSchema, volumeSchema } from '../../src/daemon/control-messages.ts';
import type { TestProcess } from '../support/processes.mjs';
import { createPool, createVolume, serve, statusOf, thinlun, thinlunJson, volumesOf } from './command.ts';

describe.each(['no server', 'a server'])('with %s', (situation) => {
  let dir: string;
  let server: TestProcess | null = null;

  beforeEach(async () => {
    dir = await createPool('tank');
    server = situation === 'a server' ? await serve([dir]) : null;
  });

  afterEach(async () => {
    if (server !== null) expect(await server.stop()).toEqual({ code: 0, signal: null });
    expect((await thinlun(['check', dir])).code).toBe(0);
  });

  it('snapshots are taken, listed, renamed, rolled back to and deleted', async () => {
    const a = await createVolume(dir, 'a');
    await createVolume(dir, 'b');
    const taken = await thinlunJson('volume', 'snapshot', dir, 'a', 'a1', 'b', 'b1', '--read-only');
    const made = parse(v.array(volumeSchema), taken);
    expect(made.map(({ name, lun, origin, readOnly, sizeBytes }) => [name, lun, origin, readOnly, sizeBytes])).toEqual([
      ['a1', 2, 'a', true, GIB],
      ['b1', 3, 'b', true, GIB],
    ]);
    expect(parse(volumeSchema, await thinlunJson('volume', 'rename', dir, 'a', 'web')).name).toBe('web');
    const rows = (await thinlun(['volume', 'list', dir])).stdout.split('\n');
    expect(rows.map((row) => row.split(/ {2,}/).slice(0, 7))).toEqual([
      ['NAME', 'LUN', 'SIZE', 'MAPPED', 'BLOCK', 'ACCESS', 'ORIGIN'],
      ['web', '0', '1 GiB', '0 B', '512', 'rw', '-'],
      ['b', '1', '1 GiB', '0 B', '512', 'rw', '-'],
      ['a1', '2', '1 GiB', '0 B', '512', 'ro', 'web'],
      ['b1', '3', '1 GiB', '0 B', '512', 'ro', 'b'],
      [''],
    ]);
    await thinlunJson('volume', 'resize', dir, 'web', '--size', '2G');
    const rolled = await thinlunJson('volume', 'rollback', dir, 'web', 'a1');
    expect(rolled).toEqual({ ...a, name: 'web', id: expect.any(Number) });
    await thinlunJson('volume', 'delete', dir, 'web');
    expect((await volumesOf(dir)).map(({ name, origin }) => [name, origin])).toEqual([
      ['b', null],
      ['a1', null],
      ['b1', 'b'],
    ]);
  });

  it('what was done is said in words, and what was not, why', async () => {
    await createVolume(dir, 'a');
    await createVolume(dir, 'b');
    const words = async (...args: string[]): Promise<string> => {
      const { stdout, stderr } = await thinlun(['volume', ...args]);
      return stdout + stderr;
    };
    expect(await words('snapshot', dir, 'a', 's', 'b', 't')).toBe(
      'Took the snapshot "s" of "a": LUN 2.\nTook the snapshot "t" of "b": LUN 3.\n',
    );
    expect(await words('snapshot', dir, 's', 'u', '--read-only')).toBe(
      'Took the snapshot "u" of "s": LUN 4, read-only.\n',
    );
    expect(await words('rename', dir, 't', 'v')).toBe('The volume "t" is named "v" now.\n');
    expect(await words('rollback', dir, 'a', 'u')).toBe('The volume "a" is what "u" is now: 1 GiB.\n');
    const before = await volumesOf(dir);
    expect(await words('snapshot', dir, 'a', 'x', 'b')).toMatch(
      /^thinlun: volume snapshot: each volume is followed by/,
    );
    expect(await words('snapshot', dir, 'a', '../x')).toMatch(/^thinlun: A name has letters/);
    expect(await words('snapshot', dir, 'a', 's')).toMatch(/it is there already\n {2}Choose another name/);
    expect(await words('snapshot', dir, 'none', 'x')).toMatch(/There is no volume "none".*\n {2}See what is there/);
    expect(await words('rename', dir, 'a', 's')).toMatch(/it is there already\n {2}Choose another name/);
    expect(await words('rollback', dir, 'a', 'v')).toMatch(/no snapshot of it\n {2}Add --force/);
    expect(await words('rollback', dir, 'u', 'a', '--force')).toMatch(/it is read-only/);
    expect(await volumesOf(dir)).toEqual(before);
    expect(await words('rollback', dir, 'a', 'v', '--force')).toBe('The volume "a" is what "v" is now: 1 GiB.\n');
  });

  it('messages of dm-thin are taken, and answered as dmsetup answers', async () => {
    const message = async (...words: string[]): Promise<unknown> => {
      const { code, stdout, stderr } = await thinlun(['message', dir, ...words]);
      return code === 0 ? stdout : stderr.split('\n')[0];
    };
    expect(await message('create_thin 7')).toBe('');
    expect(await message('Create_Snap', '8', '7')).toBe('');
    expect(await message('new-thin 9 4096')).toBe('');
    expect(await message('create_thin 7')).toMatch(/^thinlun: Message "create_thin 7" failed with EEXIST: /);
    expect(await message('create_snap 10 11')).toMatch(/failed with ENODATA: /);
    expect(await message('delete 11')).toMatch(/failed with ENODATA: /);
    expect(await message('set_transaction_id 1 2')).toMatch(/failed with EINVAL: /);
    expect(await message('release_metadata_snap')).toMatch(/failed with EINVAL: /);
    expect(await message('create_thin')).toMatch(/failed with EINVAL: .* expected create_thin <id>/);
    expect(await message('delete', '-1')).toMatch(/failed with EINVAL: /);
    expect(await thinlunJson('message', dir, 'set_transaction_id 0 5')).toEqual({ transactionId: 5 });
    expect(await message('reserve_metadata_snap')).toBe('');
    expect(await message('reserve_metadata_snap')).toMatch(/failed with EBUSY: /);
    expect(
      (await volumesOf(dir)).map(({ id, name, lun, sizeBytes, origin }) => [id, name, lun, sizeBytes, origin]),
    ).toEqual([
      [7, 'thin-7', 0, GIB, null],
      [8, 'thin-8', 1, GIB, 'thin-7'],
      [9, 'thin-9', 2, 2 * MIB, null],
    ]);
    const { stdout } = await thinlun(['pool', 'status', dir, '--dm']);
    expect(stdout.split('\n')).toEqual([
      expect.stringMatching(
        /^tank: 0 2097152 thin-pool 5 \d+\/512 0\/16384 [1-9]\d* rw discard_passdown queue_if_no_space - 128 $/,
      ),
      'thin-7: 0 2097152 thin 0 -',
      'thin-8: 0 2097152 thin 0 -',
      'thin-9: 0 4096 thin 0 -',
      '',
    ]);
    const json = parse(
      statusLinesSchema,
      JSON.parse((await thinlun(['pool', 'status', dir, '--dm', '--json'])).stdout),
    );
    expect(json.volumes[2]).toEqual({ name: 'thin-9', line: '0 4096 thin 0 -' });
    expect(await message('release_metadata_snap')).toBe('');
    expect(await message('del 7')).toBe('');
    expect((await statusOf(dir)).transactionId).toBe(5);
  });
});

describe('a message', () => {
  it('beginning with a minus is no option, and none at all is wrong usage', async () => {
    const dir = await createPool();
    expect((await thinlun(['message', dir])).code).toBe(2);
    const result = await thinlun(['message', '--', dir, '-1']);
    expect([result.code, result.stderr]).toEqual([1, expect.stringContaining('"-1" is none that dm-thin knows')]);
  });
});
