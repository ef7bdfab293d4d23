import { chmodSync, readFileSync, statSync, symlinkSync, unlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { monotonicClock } from '../../src/base/clock.ts';
import { silentLogger } from '../../src/base/log.ts';
import { MIB } from '../../src/base/units.ts';
import { hintOf } from '../../src/daemon/advised-error.ts';
import { Daemon } from '../../src/daemon/daemon.ts';
import { usePool } from '../../src/daemon/pool-access.ts';
import type { PoolControl } from '../../src/daemon/pool-control.ts';
import { type ChapLogin, logInWithChap } from '../support/chap-initiator.ts';
import { INITIATOR_NAME, Initiator, loginStatus, type Pdu, textPairs } from '../support/iscsi-initiator.ts';
import { atEnd, createPool, RecordingLogger } from './served-pool.ts';

const SECRET = 'a secret of alice';
const OTHER_SECRET = 'another secret of hers';
const HOST = 'iqn.2026-01.org.example:host';
const REPORT_LUNS = [0xa0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0];
const targetOf = (name: string): string => `iqn.2026-11.io.thinlun:${name}`;
const withPool = <T>(dir: string, work: (pool: PoolControl) => Promise<T>): Promise<T> =>
  usePool(dir, { makeLogger: async () => silentLogger, clock: monotonicClock }, work);

async function createPoolOf(name: string, volumes: readonly string[]): Promise<string> {
  const dir = await createPool(name);
  await withPool(dir, async (pool) => {
    for (const volume of volumes) await pool.createVolume({ name: volume, sizeBytes: MIB });
  });
  return dir;
}

interface Served {
  daemon: Daemon;
  logger: RecordingLogger;
  port: number;
}

async function serve(...dirs: string[]): Promise<Served> {
  const logger = new RecordingLogger();
  const portals = [{ host: '127.0.0.1', port: 0, tag: 1 }];
  const daemon = await Daemon.start({ dirs, portals, tcmu: false, logger, clock: monotonicClock });
  atEnd(() => daemon.stop());
  return { daemon, logger, port: Number((await daemon.ready()).portals[0]!.split(':').at(-1)) };
}

async function connect({ port }: Served): Promise<Initiator> {
  const initiator = await Initiator.connect(port);
  atEnd(() => initiator.socket.destroy());
  return initiator;
}

/** A login and what it brought. */
async function logIn(
  served: Served,
  options: ChapLogin,
): Promise<{ initiator: Initiator; status: number; response: Pdu }> {
  const initiator = await connect(served);
  const response = await logInWithChap(initiator, { initiator: HOST, ...options });
  return { initiator, status: loginStatus(response), response };
}

async function lunsOf(initiator: Initiator): Promise<number[]> {
  let result = await initiator.command(REPORT_LUNS, { read: 512 });
  while (result.status !== 0) result = await initiator.command(REPORT_LUNS, { read: 512 });
  const luns: number[] = [];
  for (let at = 8; at < result.data.length; at += 8) luns.push(result.data[at + 1]!);
  return luns;
}

async function discovered(initiator: Initiator): Promise<string[]> {
  const response = await initiator.text({ SendTargets: 'All' });
  return Object.entries(response).flatMap(([key, value]) => (key === 'TargetName' ? [value] : []));
}

describe('a pool without an access list', () => {
  it('is open to all, without CHAP', async () => {
    const dir = await createPoolOf('open', ['one', 'two']);
    const served = await serve(dir);
    const { initiator, status } = await logIn(served, { target: targetOf('open') });
    expect(status).toBe(0);
    expect(await lunsOf(initiator)).toEqual([0, 1]);
    expect(await withPool(dir, (pool) => pool.access.list())).toEqual({ open: true, entries: [] });
    expect(await withPool(dir, (pool) => pool.status())).toMatchObject({
      access: { open: true, entryCount: 0, problem: null },
      server: { sessions: [{ initiator: HOST, user: null, authentication: 'none', volumes: ['one', 'two'] }] },
    });
  });
});

describe('an access list', () => {
  it('shows each initiator only what it is allowed, as soon as that is said', async () => {
    const dir = await createPoolOf('pool', ['one', 'two', 'three']);
    const served = await serve(dir);
    const stranger = await logIn(served, { target: targetOf('pool'), initiator: INITIATOR_NAME });
    await withPool(dir, (pool) => pool.access.allow({ initiator: HOST, volumes: ['one', 't*'] }));
    // Who is not in the list is out at once.
    expect(await stranger.initiator.closes()).toBe(true);
    const host = await logIn(served, { target: targetOf('pool') });
    expect(await lunsOf(host.initiator)).toEqual([0, 1, 2]);

    await withPool(dir, (pool) => pool.access.allow({ initiator: HOST, volumes: ['two'], readOnly: true }));
    expect(await lunsOf(host.initiator)).toEqual([1]);
    const write = await host.initiator.command([0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0], {
      lun: 1,
      write: 512,
      data: new Uint8Array(512),
    });
    expect(write.status).toBe(2);
    // A volume that comes later and is allowed appears, one that is not does not.
    await withPool(dir, (pool) => pool.access.allow({ initiator: HOST, volumes: ['two', 'later'], readOnly: false }));
    for (const name of ['later', 'hidden']) {
      await withPool(dir, (pool) => pool.createVolume({ name, sizeBytes: MIB }));
    }
    expect(await lunsOf(host.initiator)).toEqual([1, 3]);
  });

  it('follows a volume that is renamed', async () => {
    const dir = await createPoolOf('pool', ['one', 'two']);
    const served = await serve(dir);
    await withPool(dir, (pool) => pool.access.allow({ initiator: HOST, volumes: ['one'] }));
    const { initiator } = await logIn(served, { target: targetOf('pool') });
    await withPool(dir, (pool) => pool.renameVolume('one', { name: 'first' }));
    await withPool(dir, (pool) => pool.renameVolume('two', { name: 'one' }));
    expect(await lunsOf(initiator)).toEqual([0]);
    expect((await withPool(dir, (pool) => pool.access.list())).entries[0]!.volumes).toEqual(['first']);
  });

  it('asks for CHAP where it has a user, and says in the status who came how', async () => {
    const dir = await createPoolOf('pool', ['one']);
    await withPool(dir, (pool) => pool.access.allow({ initiator: '*', user: 'alice', secret: SECRET }));
    const served = await serve(dir);
    const options = { target: targetOf('pool'), user: 'alice', secret: SECRET, algorithms: '7,5' };
    const { initiator, status } = await logIn(served, options);
    expect(status).toBe(0);
    expect(await lunsOf(initiator)).toEqual([0]);
    const message = await withPool(dir, (pool) => pool.status());
    expect(message.server!.sessions).toEqual([
      { initiator: HOST, user: 'alice', authentication: 'CHAP SHA-256', volumes: ['one'] },
    ]);
    expect(
      JSON.stringify([message, await withPool(dir, (pool) => pool.access.list()), served.logger.lines]),
    ).not.toContain(SECRET);
  });

  it('drops sessions whose user has another secret now, or is gone, and no others', async () => {
    const dir = await createPoolOf('pool', ['one']);
    const allow = (user: string, secret: string): Promise<unknown> =>
      withPool(dir, (pool) => pool.access.allow({ initiator: HOST, user, secret }));
    await allow('alice', SECRET);
    await allow('bob', SECRET);
    const served = await serve(dir);
    const options = { target: targetOf('pool'), secret: SECRET };
    const alice = await logIn(served, { ...options, user: 'alice', isid: 1 });
    const bob = await logIn(served, { ...options, user: 'bob', isid: 2 });
    await allow('alice', OTHER_SECRET);
    expect(await alice.initiator.closes()).toBe(true);
    expect(await bob.initiator.ping()).toBe(true);
    expect((await logIn(served, { ...options, user: 'alice', isid: 3 })).status).toBe(0x201);
    const again = await logIn(served, { ...options, user: 'alice', secret: OTHER_SECRET, isid: 3 });
    expect(again.status).toBe(0);
    await withPool(dir, (pool) => pool.access.deny({ initiator: HOST, user: 'bob' }));
    expect(await bob.initiator.closes()).toBe(true);
    expect(await again.initiator.ping()).toBe(true);
    await withPool(dir, (pool) => pool.access.deny({ initiator: HOST }));
    expect(await again.initiator.closes()).toBe(true);
  });

  it("keeps a user's session from another user's hands", async () => {
    const dir = await createPoolOf('pool', ['one']);
    for (const user of ['alice', 'eve']) {
      await withPool(dir, (pool) => pool.access.allow({ initiator: '*', user, secret: `${user}, who has a secret` }));
    }
    const served = await serve(dir);
    const as = (user: string, more: ChapLogin = {}) =>
      logIn(served, { target: targetOf('pool'), user, secret: `${user}, who has a secret`, ...more });
    const alice = await as('alice');
    // The same initiator name and ISID: neither a reinstatement of the session nor one of its connection.
    expect((await as('eve')).status).toBe(0x202);
    expect((await as('eve', { tsih: alice.initiator.tsih })).status).toBe(0x202);
    expect(await alice.initiator.ping()).toBe(true);
    expect((await as('alice')).status).toBe(0);
    expect(await alice.initiator.closes()).toBe(true);
  });

  it('takes over what was changed by hand when somebody looks at it', async () => {
    const dir = await createPoolOf('pool', ['one']);
    const served = await serve(dir);
    const { initiator } = await logIn(served, { target: targetOf('pool') });
    writeFileSync(join(dir, 'access.json'), JSON.stringify({ format: 1, entries: [] }), { mode: 0o600 });
    expect(await initiator.ping()).toBe(true);
    await withPool(dir, (pool) => pool.access.list());
    expect(await initiator.closes()).toBe(true);
    await withPool(dir, (pool) => pool.access.setOpen({ open: true }));
    expect((await logIn(served, { target: targetOf('pool') })).status).toBe(0);
  });
});

describe('an initiator that is not let in', () => {
  /** Everything that it is sent until the end, by what it asks for. */
  const whatItSees = async (served: Served, options: ChapLogin): Promise<unknown> => {
    const initiator = await connect(served);
    const responses: unknown[] = [];
    const receive = initiator.receive.bind(initiator);
    initiator.receive = async (timeoutMs) => {
      const pdu = await receive(timeoutMs);
      const pairs = textPairs(pdu.data);
      const header = Buffer.from(pdu.header);
      // TSIH, as it was asked for.
      header.fill(0, 14, 16);
      if ('CHAP_C' in pairs) {
        // Drawn anew each time: the identifier with one to three digits.
        header.fill(0, 5, 8);
        Object.assign(pairs, { CHAP_I: '', CHAP_C: pairs['CHAP_C']!.length });
      }
      responses.push([header.toString('hex'), pairs]);
      return pdu;
    };
    await logInWithChap(initiator, { initiator: HOST, ...options });
    return [responses, await initiator.closes()];
  };
  const LONG = 'x'.repeat(4);

  it.each<[string, ChapLogin]>([
    ['with CHAP and a wrong secret', { user: 'alice', secret: 'not the secret of alice' }],
    ['as a user that nobody is', { user: 'nobody', secret: SECRET }],
    ['without CHAP', { authMethod: 'None' }],
    ['with methods that nobody has', { authMethod: 'KRB5' }],
    ['with an algorithm that nobody has', { algorithms: '99' }],
  ])('cannot tell a target that it may not have from one that is not there: %s', async (_what, options) => {
    const dir = await createPoolOf(`with${LONG}`, ['one']);
    const other = await createPoolOf(`none${LONG}`, ['one']);
    await withPool(dir, (pool) => pool.access.allow({ initiator: HOST, user: 'alice', secret: SECRET }));
    await withPool(other, (pool) => pool.access.allow({ initiator: INITIATOR_NAME, volumes: ['one'] }));
    const served = await serve(dir, other);
    const there = await whatItSees(served, { ...options, target: targetOf(`with${LONG}`) });
    expect(await whatItSees(served, { ...options, target: targetOf(`gone${LONG}`) })).toEqual(there);
    expect(await whatItSees(served, { ...options, target: targetOf(`none${LONG}`) })).toEqual(there);
  });

  it('cannot tell it either where nobody uses CHAP', async () => {
    const dir = await createPoolOf('closed', ['one']);
    await withPool(dir, (pool) => pool.access.setOpen({ open: false }));
    const served = await serve(dir);
    const there = await whatItSees(served, { target: targetOf('closed') });
    expect(await whatItSees(served, { target: targetOf('clxsed') })).toEqual(there);
    const { status } = await logIn(served, { target: targetOf('closed') });
    expect(status).toBe(0x203);
  });

  it('learns nothing of sessions that are there', async () => {
    const dir = await createPoolOf('pool', ['one']);
    await withPool(dir, (pool) => pool.access.allow({ initiator: '*', user: 'alice', secret: SECRET }));
    const served = await serve(dir);
    const target = targetOf('pool');
    const alice = await logIn(served, { target, user: 'alice', secret: SECRET });
    const eve = (tsih: number) => whatItSees(served, { target, user: 'alice', secret: 'a guess of eves', tsih });
    expect(await eve(alice.initiator.tsih)).toEqual(await eve(alice.initiator.tsih ^ 1));
    expect(await alice.initiator.ping()).toBe(true);
  });
});

describe('discovery', () => {
  it('shows each initiator the targets that it may log in to, by name and by user', async () => {
    const [open, named, users] = [
      await createPoolOf('open', ['one']),
      await createPoolOf('named', ['one']),
      await createPoolOf('users', ['one']),
    ];
    await withPool(named, (pool) => pool.access.allow({ initiator: HOST }));
    await withPool(users, (pool) => pool.access.allow({ initiator: '*', user: 'alice', secret: SECRET }));
    const served = await serve(open, named, users);
    const seen = async (options: ChapLogin): Promise<string[]> => {
      const { initiator, status } = await logIn(served, { target: null, ...options });
      expect(status).toBe(0);
      return discovered(initiator);
    };
    // `text` keeps the last of each key: ask for each by name.
    const sees = async (options: ChapLogin): Promise<string[]> => {
      const { initiator } = await logIn(served, { target: null, ...options });
      const names: string[] = [];
      for (const name of ['open', 'named', 'users']) {
        if ('TargetName' in (await initiator.text({ SendTargets: targetOf(name) }))) names.push(name);
      }
      return names;
    };
    expect(await sees({ authMethod: 'None' })).toEqual(['open', 'named']);
    expect(await sees({ authMethod: 'None', initiator: INITIATOR_NAME })).toEqual(['open']);
    expect(await sees({ user: 'alice', secret: SECRET })).toEqual(['open', 'named', 'users']);
    expect(await sees({ user: 'alice', secret: SECRET, initiator: INITIATOR_NAME })).toEqual(['open', 'users']);
    expect(await seen({ authMethod: 'None', initiator: INITIATOR_NAME })).toEqual([targetOf('open')]);
    expect((await logIn(served, { target: null, user: 'alice', secret: 'a guess of eves' })).status).toBe(0x201);
  });

  it('asks for CHAP where there is nothing to see without', async () => {
    const dir = await createPoolOf('users', ['one']);
    await withPool(dir, (pool) => pool.access.allow({ initiator: HOST, user: 'alice', secret: SECRET }));
    const served = await serve(dir);
    expect((await logIn(served, { target: null, authMethod: 'None' })).status).toBe(0x201);
    expect((await logIn(served, { target: null, initiator: INITIATOR_NAME, authMethod: 'None' })).status).toBe(0x201);
    const { initiator } = await logIn(served, { target: null, user: 'alice', secret: SECRET });
    expect(await discovered(initiator)).toEqual([targetOf('users')]);
    // Nothing is shown any more to a session whose user is gone.
    await withPool(dir, (pool) => pool.access.deny({ initiator: HOST }));
    expect(await discovered(initiator)).toEqual([]);
  });

  it('shows an empty list where all pools are closed and nobody uses CHAP', async () => {
    const dir = await createPoolOf('closed', ['one']);
    await withPool(dir, (pool) => pool.access.setOpen({ open: false }));
    const { initiator } = await logIn(await serve(dir), { target: null, authMethod: 'None' });
    expect(await discovered(initiator)).toEqual([]);
  });
});

describe('access.json', () => {
  const write = (dir: string, text: string, mode = 0o600): void => {
    writeFileSync(join(dir, 'access.json'), text);
    chmodSync(join(dir, 'access.json'), mode);
  };
  const refusal = async (dir: string): Promise<Error> => {
    const error = await serve(dir).then(
      () => null,
      (thrown: Error) => thrown,
    );
    if (error === null) throw new Error('it is served');
    return error;
  };

  it('is for its owner alone, whatever lay in its place', async () => {
    const dir = await createPoolOf('pool', []);
    writeFileSync(join(dir, 'access.json.new'), 'anything', { mode: 0o666 });
    await withPool(dir, (pool) => pool.access.allow({ initiator: '*', user: 'alice', secret: SECRET }));
    expect(statSync(join(dir, 'access.json')).mode & 0o777).toBe(0o600);
    expect(JSON.parse(readFileSync(join(dir, 'access.json'), 'utf8'))).toEqual({
      format: 1,
      entries: [{ initiator: '*', chap: { user: 'alice', secret: SECRET } }],
    });
  });

  it.each([0o640, 0o604, 0o660, 0o602])('keeps the pool from being served while its mode is %i', async (mode) => {
    const dir = await createPoolOf('pool', []);
    write(dir, JSON.stringify({ format: 1, entries: [] }), mode);
    const error = await refusal(dir);
    expect(error.message).toMatch(/access\.json": others than its owner may read or write it \(mode \d+\)/);
    expect(hintOf(error)).toMatch(/chmod 600/);
    // Commands say so, too, and the pool itself can be looked at.
    await expect(withPool(dir, (pool) => pool.access.list())).rejects.toThrow('others than its owner');
    expect((await withPool(dir, (pool) => pool.status())).access.problem).toMatch(/others than its owner/);
  });

  it.each([
    ['no JSON', `{"secret": "${SECRET}`],
    ['empty', ''],
    ['of another format', JSON.stringify({ format: 2, entries: [] })],
    ['without entries', JSON.stringify({ format: 1 })],
    ['with a field that we do not know', JSON.stringify({ format: 1, entries: [], hosts: [] })],
    ['with an unknown field in an entry', JSON.stringify({ format: 1, entries: [{ initiator: '*', volume: 'one' }] })],
    ['with an initiator that is none', JSON.stringify({ format: 1, entries: [{ initiator: 'web' }] })],
    ['with a name in capitals', JSON.stringify({ format: 1, entries: [{ initiator: 'iqn.2026-01.org.X:a' }] })],
    ['with a * in the middle', JSON.stringify({ format: 1, entries: [{ initiator: 'iqn.*:a' }] })],
    ['with a volume that is none', JSON.stringify({ format: 1, entries: [{ initiator: '*', volumes: ['../x'] }] })],
    [
      'with a short secret',
      JSON.stringify({ format: 1, entries: [{ initiator: '*', chap: { user: 'a', secret: 'short' } }] }),
    ],
    [
      'with one secret for both sides',
      JSON.stringify({
        format: 1,
        entries: [{ initiator: '*', chap: { user: 'a', secret: SECRET, mutual: { user: 'b', secret: SECRET } } }],
      }),
    ],
    [
      'with the same user twice',
      JSON.stringify({ format: 1, entries: Array(2).fill({ initiator: '*', chap: { user: 'a', secret: SECRET } }) }),
    ],
    [
      'with and without a user for the same initiators',
      JSON.stringify({
        format: 1,
        entries: [{ initiator: '*' }, { initiator: '*', chap: { user: 'a', secret: SECRET } }],
      }),
    ],
    [
      'with something for who is denied',
      JSON.stringify({ format: 1, entries: [{ initiator: '*', denied: true, readOnly: true }] }),
    ],
  ])('keeps the pool from being served when it is %s', async (_what, text) => {
    const dir = await createPoolOf('pool', []);
    write(dir, text);
    const error = await refusal(dir);
    expect(error.message).toMatch(/^Cannot use ".*access\.json": /);
    expect(hintOf(error)).not.toBeNull();
    expect(`${error.message} ${hintOf(error)}`).not.toContain(SECRET);
    // It is not written over.
    await expect(withPool(dir, (pool) => pool.access.allow({ initiator: '*' }))).rejects.toThrow('access.json');
    expect(readFileSync(join(dir, 'access.json'), 'utf8')).toBe(text);
  });

  it('is not followed when it is a link', async () => {
    const [dir, other] = [await createPoolOf('pool', []), await createPoolOf('other', [])];
    write(other, JSON.stringify({ format: 1, open: true, entries: [] }));
    symlinkSync(join(other, 'access.json'), join(dir, 'access.json'));
    expect((await refusal(dir)).message).toMatch(/symbolic link/);
    unlinkSync(join(dir, 'access.json'));
    await serve(dir);
  });

  it('that is bad leaves the other pools alone', async () => {
    const [bad, good] = [await createPoolOf('bad', []), await createPoolOf('good', ['one'])];
    write(bad, 'nonsense');
    const served = await serve(bad, good);
    expect(served.daemon.failures).toMatchObject([{ dir: bad }]);
    expect((await logIn(served, { target: targetOf('bad') })).status).toBe(0x203);
    expect((await logIn(served, { target: targetOf('good') })).status).toBe(0);
  });
});
