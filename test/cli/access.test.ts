import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { parse } from '../../src/base/schema.ts';
import { accessSchema } from '../../src/daemon/access-messages.ts';
import { poolSchema } from '../../src/daemon/control-messages.ts';
import { logInWithChap } from '../support/chap-initiator.ts';
import { Initiator, loginStatus } from '../support/iscsi-initiator.ts';
import type { TestProcess } from '../support/processes.mjs';
import { createPool, createVolume, serve, temporaryFolder, thinlun, thinlunJson, withPool } from './command.ts';

const HOST = 'iqn.2026-01.org.example:host';
const SECRET = 'a secret of alice';
const TARGET_SECRET = 'a secret of the target';

let dir: string;
let secretFile: string;
let targetSecretFile: string;

beforeEach(async () => {
  dir = await createPool();
  await createVolume(dir, 'web');
  const folder = temporaryFolder();
  secretFile = join(folder, 'secret');
  targetSecretFile = join(folder, 'target-secret');
  writeFileSync(secretFile, `${SECRET}\n`);
  writeFileSync(targetSecretFile, TARGET_SECRET);
});

describe.each(['no server', 'a server'])('with %s, access to a pool', (situation) => {
  let server: TestProcess | null = null;

  beforeEach(async () => {
    server = situation === 'a server' ? await serve([dir]) : null;
  });

  afterEach(async () => {
    if (server !== null) expect(await server.stop()).toEqual({ code: 0, signal: null });
  });

  it('is allowed, changed, listed, denied, opened and closed', async () => {
    const allowed = parse(
      accessSchema,
      await thinlunJson('access', 'allow', dir, HOST, '--volumes', 'web', '--read-only'),
    );
    const entry = { initiator: HOST, denied: false, volumes: ['web'], readOnly: true, user: null, mutualUser: null };
    expect(allowed).toEqual({ open: false, entries: [entry] });
    expect(await thinlunJson('access', 'list', dir)).toEqual(allowed);
    expect(await thinlunJson('access', 'allow', dir, HOST, '--read-write')).toMatchObject({
      entries: [{ ...entry, readOnly: false }],
    });
    const chap = ['--user', 'alice', '--secret-file', secretFile];
    const mutual = ['--mutual-user', 'target', '--mutual-secret-file', targetSecretFile];
    expect(await thinlunJson('access', 'allow', dir, HOST, ...chap, ...mutual)).toMatchObject({
      entries: [{ user: 'alice', mutualUser: 'target' }],
    });
    expect(await thinlunJson('access', 'allow', dir, HOST, '--user', 'alice', '--no-mutual')).toMatchObject({
      entries: [{ user: 'alice', mutualUser: null }],
    });
    expect(await thinlunJson('access', 'open', dir)).toMatchObject({ open: true, entries: [{ user: 'alice' }] });
    expect(await thinlunJson('access', 'close', dir)).toMatchObject({ open: false, entries: [{ user: 'alice' }] });
    expect(await thinlunJson('access', 'deny', dir, HOST)).toEqual({ open: false, entries: [] });
    expect(parse(poolSchema, await thinlunJson('pool', 'status', dir)).access).toEqual({
      open: false,
      entryCount: 0,
      problem: null,
    });
  });

  it('is told in words', async () => {
    const first = await thinlun(
      ['access', 'allow', dir, `${HOST}*`, '--volumes', 'web,nix', '--user', 'alice', '--secret-file', '-'],
      {
        input: SECRET,
      },
    );
    expect(first.stdout).toMatch(
      /^INITIATOR +VOLUMES +ACCESS +AUTHENTICATION\n.*:host\* +web,nix +read-write +CHAP as alice\n/,
    );
    expect(first.stdout).toMatch(/The pool was open to all until now/);
    expect(first.stdout).toMatch(/There is no volume "nix" yet\./);
    const status = await thinlun(['pool', 'status', dir]);
    expect(status.stdout).toMatch(/^access +1 entry; see "thinlun access list /m);
    expect((await thinlun(['access', 'open', dir])).stdout).toMatch(
      /^The pool is open to all.*\nThis list does not count until "thinlun access close":\nINITIATOR .*\n.*:host\* +web,nix /,
    );
    expect((await thinlun(['access', 'close', dir])).stdout).toMatch(/^INITIATOR /);
    expect((await thinlun(['access', 'deny', dir, `${HOST}*`])).stdout).toBe('Nobody may log in.\n');
    expect((await thinlun(['access', 'open', dir])).stdout).toMatch(/^The pool is open to all[^\n]*\n$/);
  });

  it('is refused with what is wrong, and stays as it is', async () => {
    const short = join(temporaryFolder(), 'short');
    writeFileSync(short, 'shortsecret');
    const refused = async (...args: string[]): Promise<string> => {
      const { code, stderr } = await thinlun(['access', ...args]);
      expect(code).toBe(1);
      return stderr;
    };
    const chap = ['--user', 'alice', '--secret-file'];
    expect(await refused('allow', dir, HOST, ...chap, short)).toMatch(/the secret of the user "alice" has 11 bytes/);
    expect(await refused('allow', dir, HOST, ...chap, '/nowhere')).toMatch(/Cannot read the secret/);
    expect(await refused('allow', dir, 'host')).toMatch(/neither an iSCSI name nor the beginning of one/);
    expect(await refused('allow', dir, HOST, '--user', 'alice')).toMatch(/the user is new and has no secret/);
    const same = [...chap, secretFile, '--mutual-user', 'target', '--mutual-secret-file', secretFile];
    expect(await refused('allow', dir, HOST, ...same)).toMatch(/have the same secret/);
    expect(await refused('deny', dir, HOST, '--user', 'eve')).toMatch(/there is no such user/);
    expect(await thinlunJson('access', 'list', dir)).toEqual({ open: true, entries: [] });
  });
});

it.each([
  ['--secret-file', '/dev/null'],
  ['--mutual-user', 'target'],
  ['--user', 'alice', '--mutual-secret-file', '/dev/null'],
  ['--read-only', '--read-write'],
  ['--user', 'a', '--secret-file', '-', '--mutual-user', 'b', '--mutual-secret-file', '-'],
  ['--volumes', 'a,,b'],
])('wrong usage is status 2: access allow %s', async (...flags) => {
  expect((await thinlun(['access', 'allow', dir, HOST, ...flags])).code).toBe(2);
});

it('a secret is nowhere but in access.json', async () => {
  const server = await serve([dir, '--log-level', 'debug', '--json']);
  const allowing = thinlun(
    [
      'access',
      'allow',
      dir,
      '*',
      '--user',
      'alice',
      '--secret-file',
      secretFile,
      '--mutual-user',
      't',
      '--mutual-secret-file',
      targetSecretFile,
    ],
    {},
  );
  const { stdout, stderr } = await allowing;
  const { portals } = JSON.parse(String(server.stdout).split('\n')[0]!) as { portals: string[] };
  const port = Number(portals[0]!.split(':').at(-1));
  const target = 'iqn.2026-11.io.thinlun:pool';
  for (const secret of [SECRET, 'a guess of eve, long', SECRET]) {
    const initiator = await Initiator.connect(port);
    const status = loginStatus(await logInWithChap(initiator, { target, user: 'alice', secret }));
    expect(status).toBe(secret === SECRET ? 0 : 0x201);
    initiator.socket.destroy();
  }
  const shown = [
    stdout,
    stderr,
    (await thinlun(['access', 'list', dir, '--json'])).stdout,
    (await thinlun(['access', 'list', dir])).stdout,
    (await thinlun(['pool', 'status', dir, '--json'])).stdout,
    readFileSync(`/proc/${server.pid}/cmdline`, 'latin1'),
  ];
  await server.stop();
  shown.push(String(server.stdout), String(server.stderr));
  for (const secret of [SECRET, TARGET_SECRET, 'a guess of eve, long']) {
    expect(shown.filter((text) => text.includes(secret))).toEqual([]);
  }
  expect(shown.join()).toMatch(/CHAP MD5/);
  const holders = readdirSync(dir).filter(
    (name) => !['data', 'metadata'].includes(name) && readFileSync(join(dir, name)).includes(SECRET),
  );
  expect(holders).toEqual(['access.json']);
  expect(await withPool(dir, (pool) => pool.access.list())).toMatchObject({ entries: [{ user: 'alice' }] });
});
