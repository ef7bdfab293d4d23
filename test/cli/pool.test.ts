import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { parse } from '../../src/base/schema.ts';
import { GIB, KIB, MIB } from '../../src/base/units.ts';
import { poolSchema } from '../../src/daemon/control-messages.ts';
import { createPool, createVolume, serve, temporaryFolder, thinlun, thinlunJson } from './command.ts';

describe('pool create', () => {
  it('makes a folder with sparse files, and says what to do next', async () => {
    const dir = join(temporaryFolder(), 'a', 'pool-1');
    const result = await thinlun(['pool', 'create', dir, '--data-size', '10G']);
    expect(result).toMatchObject({ code: 0, stderr: '' });
    expect(result.stdout).toMatch(
      /^Created the pool "pool-1" in .*: 10 GiB of data in blocks of 64 KiB, [^\n]*\nNext: thinlun volume create /,
    );
    expect(readdirSync(dir).sort()).toEqual(['data', 'metadata', 'pool.json']);
    const data = statSync(join(dir, 'data'));
    expect(data.size).toBe(10 * GIB);
    expect(data.blocks * 512).toBeLessThan(MIB);
    expect(statSync(dir).mode & 0o077).toBe(0);
  });

  it('takes every size as people write it, and a name', async () => {
    const dir = join(temporaryFolder(), 'p');
    const args = ['--data-size', '1.5GiB', '--block-size', '256k', '--metadata-size', '4M', '--name', 'Fast.1'];
    const status = parse(poolSchema, await thinlunJson('pool', 'create', dir, ...args));
    expect(status).toMatchObject({
      name: 'Fast.1',
      directory: dir,
      mode: 'write',
      needsCheck: false,
      blockSizeBytes: 256 * KIB,
      dataSizeBytes: 1.5 * GIB,
      dataUsedBytes: 0,
      metadataSizeBytes: 4 * MIB,
      volumeCount: 0,
      server: null,
    });
  });

  it('uses files elsewhere through links', async () => {
    const folder = temporaryFolder();
    const data = join(folder, 'elsewhere');
    writeFileSync(data, '');
    const { truncateSync } = await import('node:fs');
    truncateSync(data, 64 * MIB);
    const dir = join(folder, 'p');
    const metadata = join(folder, 'meta');
    const status = parse(poolSchema, await thinlunJson('pool', 'create', dir, '--data', data, '--metadata', metadata));
    expect(status.dataSizeBytes).toBe(64 * MIB);
    expect(readlinkSync(join(dir, 'data'))).toBe(data);
    expect(readlinkSync(join(dir, 'metadata'))).toBe(metadata);
  });

  it('refuses a folder that holds a pool, and leaves it as it is', async () => {
    const dir = await createPool();
    const before = readFileSync(join(dir, 'pool.json'));
    const result = await thinlun(['pool', 'create', dir, '--data-size', '2G']);
    expect(result).toMatchObject({ code: 1, stdout: '' });
    expect(result.stderr).toMatch(/^thinlun: Cannot create the pool ".*": there is one already\n/);
    expect(readFileSync(join(dir, 'pool.json'))).toEqual(before);
  });

  it.each([
    ['a block size that is no multiple of 64 KiB', ['--data-size', '1G', '--block-size', '100K'], /multiple of 64 KiB/],
    ['data smaller than a block', ['--data-size', '32K'], /a block has 64 KiB/],
    ['metadata beyond the format', ['--data-size', '1G', '--metadata-size', '17G'], /15.88 GiB/],
    ['a data device that is not there', ['--data', '/nonexistent/dev'], /its size is not given/],
  ])('refuses %s and leaves nothing behind', async (_what, args, reason) => {
    const dir = join(temporaryFolder(), 'p');
    const result = await thinlun(['pool', 'create', dir, ...args]);
    expect(result).toMatchObject({ code: 1, stdout: '' });
    expect(result.stderr).toMatch(/^thinlun: Cannot /);
    expect(result.stderr).toMatch(reason);
    expect(existsSync(dir)).toBe(false);
  });

  it('refuses a metadata device that holds something', async () => {
    const folder = temporaryFolder();
    const metadata = join(folder, 'meta');
    writeFileSync(metadata, Buffer.alloc(4 * MIB, 'x'));
    const dir = join(folder, 'p');
    const result = await thinlun(['pool', 'create', dir, '--data-size', '1G', '--metadata', metadata]);
    expect(result.code).toBe(1);
    expect(result.stderr).toMatch(/not empty/);
    expect(readFileSync(metadata).subarray(0, 4096)).toEqual(Buffer.alloc(4096, 'x'));
  });
});

const DEFAULTS = {
  skipBlockZeroing: false,
  ignoreDiscard: false,
  noDiscardPassdown: false,
  errorIfNoSpace: false,
  readOnly: false,
  lowWaterBytes: null,
  noSpaceTimeoutMs: 60_000,
  autoExtend: null,
  metadataCacheBytes: 192 * MIB,
};

describe('features', () => {
  it('are given to a new pool, shown, and set anew', async () => {
    const dir = join(temporaryFolder(), 'p');
    const flags = ['--skip-block-zeroing', 'on', '--discard-passdown', 'off', '--low-water', '100M'];
    const made = parse(
      poolSchema,
      await thinlunJson('pool', 'create', dir, '--data-size', '1G', ...flags, '--auto-extend-limit', '10G'),
    );
    const options = {
      ...DEFAULTS,
      skipBlockZeroing: true,
      noDiscardPassdown: true,
      lowWaterBytes: 100 * MIB,
      autoExtend: { limitBytes: 10 * GIB, stepBytes: GIB },
    };
    expect(made).toMatchObject({ options, lowWaterBytes: 100 * MIB, discardPassdown: false, failsWhenFull: false });
    expect((await thinlun(['pool', 'status', dir])).stdout).toMatch(
      /^features {5}skip-block-zeroing, no discard-passdown, low water at 100 MiB, grows by itself to 10 GiB in steps of 1 GiB$/m,
    );
    const said = await thinlun([
      ...['pool', 'set', dir, '--skip-block-zeroing', 'off', '--discard-passdown', 'on', '--low-water', 'default'],
      ...['--auto-extend-limit', 'off', '--error-if-no-space', 'on', '--no-space-timeout', '1.5'],
      ...['--metadata-cache', '64M'],
    ]);
    expect(said).toMatchObject({ code: 0, stdout: 'The pool "p" has: error-if-no-space, metadata cache of 64 MiB.\n' });
    const set = parse(poolSchema, await thinlunJson('pool', 'status', dir));
    expect(set.options).toEqual({
      ...DEFAULTS,
      errorIfNoSpace: true,
      noSpaceTimeoutMs: 1500,
      metadataCacheBytes: 64 * MIB,
    });
    expect(set).toMatchObject({ lowWaterBytes: 64 * MIB, failsWhenFull: true });
  });

  it('are set while a server has the pool open, and hold at once', async () => {
    const dir = await createPool('p');
    await createVolume(dir, 'v');
    await serve([dir]);
    const readOnly = await thinlun(['pool', 'set', dir, '--read-only', 'on']);
    expect(readOnly).toMatchObject({ code: 0, stdout: 'The pool "p" has: read-only.\n' });
    const status = (await thinlun(['pool', 'status', dir])).stdout;
    expect(status).toMatch(/^mode {9}read-only$/m);
    expect(status).toMatch(/--read-only off" takes that back/);
    expect(await thinlun(['volume', 'create', dir, 'w', '--size', '1G'])).toMatchObject({ code: 1 });
    await thinlunJson('pool', 'set', dir, '--read-only', 'off');
    expect(await thinlun(['volume', 'create', dir, 'w', '--size', '1G'])).toMatchObject({ code: 0 });
    const refused = await thinlun(['pool', 'set', dir, '--ignore-discard', 'on']);
    expect(refused).toMatchObject({ code: 1 });
    expect(refused.stderr).toMatch(/volumes are in use/);
    expect(refused.stderr).toMatch(/\n {2}Stop the server/);
  });

  it.each([
    [['--read-only'], /argument missing/],
    [['--read-only', 'maybe'], /on or off/],
    [['--no-space-timeout', 'soon'], /number of seconds/],
    [['--auto-extend-step', '1G'], /--auto-extend-limit/],
    [[], /say what to set/],
  ])('are asked for as %j in vain', async (flags, reason) => {
    const dir = await createPool('p');
    const result = await thinlun(['pool', 'set', dir, ...flags]);
    expect(result).toMatchObject({ code: 2, stdout: '' });
    expect(result.stderr).toMatch(reason);
  });

  it('that the pool cannot have are refused', async () => {
    const dir = await createPool('p');
    const result = await thinlun(['pool', 'set', dir, '--auto-extend-limit', '512M']);
    expect(result).toMatchObject({ code: 1, stdout: '' });
    expect(result.stderr).toMatch(/Cannot let the pool grow by itself to 512 MiB: it has 1 GiB already/);
  });
});

describe('pool grow', () => {
  it('makes a pool larger, with and without a server', async () => {
    const dir = await createPool('p');
    const alone = parse(
      poolSchema,
      await thinlunJson('pool', 'grow', dir, '--data-size', '2G', '--metadata-size', '16M'),
    );
    expect(alone).toMatchObject({ dataSizeBytes: 2 * GIB, metadataSizeBytes: 16 * MIB, server: null });
    expect(statSync(join(dir, 'data')).size).toBe(2 * GIB);
    await serve([dir]);
    const result = await thinlun(['pool', 'grow', dir, '--data-size', '3G']);
    expect(result).toMatchObject({ code: 0, stdout: 'The pool "p" has 3 GiB of data, 16 MiB of metadata now.\n' });
  });

  it('refuses what is not larger, and changes nothing', async () => {
    const dir = await createPool('p');
    const before = await thinlunJson('pool', 'status', dir);
    for (const [option, size, has] of [
      ['--data-size', '512M', '1 GiB'],
      ['--data-size', '1G', '1 GiB'],
      ['--metadata-size', '1M', '2 MiB'],
    ] as const) {
      const result = await thinlun(['pool', 'grow', dir, option, size]);
      expect(result).toMatchObject({ code: 1, stdout: '' });
      expect(result.stderr).toContain(`it has ${has} already`);
    }
    expect(await thinlunJson('pool', 'status', dir)).toEqual(before);
    expect(await thinlun(['pool', 'grow', dir])).toMatchObject({ code: 2 });
  });
});

describe('pool renumber', () => {
  it('counts snapshots from 1 again, while no server has the pool', async () => {
    const dir = await createPool('p');
    await createVolume(dir, 'a');
    expect(await thinlun(['pool', 'renumber', dir])).toMatchObject({
      code: 0,
      stdout: 'The pool "p" counts its snapshots from 1 again.\n',
    });
    await serve([dir]);
    const refused = await thinlun(['pool', 'renumber', dir]);
    expect(refused).toMatchObject({ code: 1, stdout: '' });
    expect(refused.stderr).toMatch(/Cannot open the pool .* alone: process \d+ serves it/);
  });
});

describe('pool status', () => {
  it('is a list of names and values', async () => {
    const dir = await createPool('my-pool');
    const { stdout } = await thinlun(['pool', 'status', dir]);
    expect(stdout).toMatch(/^pool {9}my-pool \([0-9a-f-]{36}\)$/m);
    expect(stdout).toMatch(/^mode {9}write$/m);
    expect(stdout).toMatch(/^data {9}0 B of 1 GiB used \(0\.0%\)$/m);
    expect(stdout).toMatch(/^server {7}none$/m);
  });

  it('names the server and where it listens', async () => {
    const dir = await createPool('p');
    const server = await serve([dir]);
    const status = parse(poolSchema, await thinlunJson('pool', 'status', dir));
    expect(status.server).toMatchObject({ pid: server.pid, target: 'iqn.2026-11.io.thinlun:p', tcmu: false });
    expect(status.server!.portals).toEqual([expect.stringMatching(/^127\.0\.0\.1:[1-9]\d*$/)]);
    expect((await thinlun(['pool', 'status', dir])).stdout).toContain(`process ${server.pid}`);
  });

  it('changes nothing', async () => {
    const dir = await createPool();
    await createVolume(dir, 'v');
    const look = (): unknown => [
      readdirSync(dir),
      ...['metadata', 'pool.json'].map((name) => readFileSync(join(dir, name)).toString('base64')),
      statSync(join(dir, 'data')).blocks,
    ];
    const before = look();
    await thinlunJson('pool', 'status', dir);
    expect(look()).toEqual(before);
  });

  it.each([
    ['no folder', 'nothing', /there is no such folder\n {2}Make a pool/],
    ['an empty folder', 'empty', /there is no pool.json in it\n {2}Make a pool/],
    ['a file', 'file', /it is not a folder/],
    ['a catalogue that is no JSON', 'garbage', /Cannot read the pool's catalogue ".*": /],
    ['a catalogue without its metadata', 'bare', /metadata/],
  ])('says what is wrong with %s', async (_what, name, reason) => {
    const root = temporaryFolder();
    mkdirSync(join(root, 'empty'));
    writeFileSync(join(root, 'file'), '');
    mkdirSync(join(root, 'garbage'));
    writeFileSync(join(root, 'garbage', 'pool.json'), '{');
    mkdirSync(join(root, 'bare'));
    const good = await createPool();
    writeFileSync(join(root, 'bare', 'pool.json'), readFileSync(join(good, 'pool.json')));
    const result = await thinlun(['pool', 'status', join(root, name)]);
    expect(result).toMatchObject({ code: 1, stdout: '' });
    expect(result.stderr).toMatch(/^thinlun: Cannot /);
    expect(result.stderr).toMatch(reason);
  });

  it('of a folder that is not ours to read says so', async () => {
    if (process.getuid?.() !== 0) return expect(process.getuid?.()).toBeGreaterThan(0);
    const dir = await createPool();
    chmodSync(join(dir, '..'), 0o755);
    const { run } = await import('../support/processes.mjs');
    const command = join(import.meta.dirname, '../../bin/thinlun');
    const args = [
      '--reuid',
      '65534',
      '--regid',
      '65534',
      '--clear-groups',
      process.execPath,
      command,
      'pool',
      'status',
      dir,
    ];
    const result = await run('setpriv', args);
    expect(result.code).toBe(1);
    expect(result.stderr).toMatch(/EACCES|EPERM|[Pp]ermission denied/);
    expect(result.stderr).toMatch(/\n {2}Run it as the owner/);
  });
});
