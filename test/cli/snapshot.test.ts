import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { MIB } from '../../src/base/units.ts';
import type { TestProcess } from '../support/processes.mjs';
import { createPool, createVolume, serve, statusOf, thinlun, volumesOf } from './command.ts';

describe.each(['no server', 'a server'])('with %s', (situation) => {
  let dir: string;
  let server: TestProcess | null = null;

  beforeEach(async () => {
    dir = await createPool();
    server = situation === 'a server' ? await serve([dir]) : null;
  });

  afterEach(async () => {
    if (server !== null) expect(await server.stop()).toEqual({ code: 0, signal: null });
  });

  it('a volume has snapshots, another name, and goes back', async () => {
    await createVolume(dir, 'web');
    await createVolume(dir, 'db');
    const taken = await thinlun(['volume', 'snapshot', dir, 'web', 'web.1', 'db', 'db.1']);
    expect(taken).toMatchObject({ code: 0, stderr: '' });
    expect(await thinlun(['volume', 'rename', dir, 'web', 'www'])).toMatchObject({ code: 0, stderr: '' });
    expect(await thinlun(['volume', 'rollback', dir, 'www', 'web.1'])).toMatchObject({ code: 0, stderr: '' });
    const volumes = await volumesOf(dir);
    expect(volumes.map(({ name, lun }) => [name, lun])).toEqual([
      ['www', 0],
      ['db', 1],
      ['web.1', 2],
      ['db.1', 3],
    ]);
    const again = await thinlun(['volume', 'snapshot', dir, 'www', 'db']);
    expect(again).toMatchObject({ code: 1, stdout: '' });
    expect(again.stderr).toContain('"db"');
  });

  it("dm-thin's messages make devices that are volumes, and delete them", async () => {
    const send = (...words: string[]) => thinlun(['message', dir, ...words]);
    const done = { code: 0, signal: null, stdout: '', stderr: '' };
    expect(await send('new-thin 7 2048')).toEqual(done);
    expect(await send('create_snap', '8', '7')).toEqual(done);
    expect(await send('create_thin 9')).toEqual(done);
    expect((await volumesOf(dir)).map(({ id, sizeBytes }) => [id, sizeBytes])).toEqual([
      [7, MIB],
      [8, MIB],
      [9, (await statusOf(dir)).dataSizeBytes],
    ]);
    expect(await send('create_thin 9')).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('failed with EEXIST'),
    });
    expect(await send('delete 10')).toMatchObject({ code: 1, stderr: expect.stringContaining('failed with ENODATA') });
    expect(await send('delete 7')).toEqual(done);
    expect(await send('set_transaction_id 0 41')).toEqual(done);
    expect((await volumesOf(dir)).map(({ id }) => id)).toEqual([8, 9]);
    const status = await thinlun(['pool', 'status', dir, '--dm']);
    expect(status.stdout).toMatch(
      /: 0 \d+ thin-pool 41 \d+\/\d+ 0\/\d+ - rw discard_passdown queue_if_no_space - \d+ \n/,
    );
  });
});
