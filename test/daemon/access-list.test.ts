import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { beforeEach, describe, expect, it } from 'vitest';
import { type AccessEntry, AccessList, accessTo, normalizePattern } from '../../src/daemon/access-list.ts';
import { PoolAccessControl } from '../../src/daemon/pool-access-control.ts';
import type { Credential } from '../../src/iscsi/access.ts';
import { Access } from '../../src/scsi/command.ts';
import { atEnd } from './served-pool.ts';

const HOST = 'iqn.2026-01.org.example:host';
const SECRET = 'a secret of alice';
const credential = (user: string, secret = SECRET): Credential => ({ user, secret: Buffer.from(secret), mutual: null });
const entryOf = (list: AccessList, initiatorName: string, proved: Credential | null = null): AccessEntry | null =>
  list.entryFor({ initiatorName, credential: proved });

describe('a pattern of initiator names', () => {
  it.each([
    ['*', '*'],
    ['iqn.2026-01.org.Example:Host', HOST],
    ['iqn.2026-01.org.Example:*', 'iqn.2026-01.org.example:*'],
    ['i*', 'i*'],
    ['eui.0011223344556677', 'eui.0011223344556677'],
    ['iqn.2026-01.org.example:J\u030c*', 'iqn.2026-01.org.example:\u01f0*'],
  ])('%s is compared as %s', (pattern, normal) => {
    expect(normalizePattern(pattern)).toBe(normal);
    expect(normalizePattern(normal)).toBe(normal);
  });

  it.each(['', 'host', '**', 'iqn.*:host', 'iqn.a*b', 'iqn.a b*', 'iqn.a\n*', `iqn.${'x'.repeat(220)}`, 'iqn.a,b*'])(
    '%j is none',
    (pattern) => {
      expect(normalizePattern(pattern)).toBeNull();
    },
  );
});

describe('an access list', () => {
  it('lets the longest pattern count, wherever it stands', () => {
    const entries: AccessEntry[] = [
      { initiator: '*', volumes: ['everybody'] },
      { initiator: 'iqn.2026-01.*', volumes: ['some'] },
      { initiator: HOST, volumes: ['one'] },
      { initiator: 'iqn.2026-01.org.example:*', denied: true },
    ];
    fc.assert(
      fc.property(fc.shuffledSubarray(entries, { minLength: 4 }), (shuffled) => {
        const list = new AccessList(shuffled);
        expect(entryOf(list, HOST)?.volumes).toEqual(['one']);
        expect(entryOf(list, 'iqn.2026-01.org.other:x')?.volumes).toEqual(['some']);
        expect(entryOf(list, 'eui.0011223344556677')?.volumes).toEqual(['everybody']);
        expect(entryOf(list, `${HOST}2`)).toBeNull();
        expect(list.isOpenTo(`${HOST}2`)).toBe(false);
      }),
    );
  });

  it('lets nobody in when it is empty, or when no pattern fits', () => {
    expect(entryOf(new AccessList([]), HOST)).toBeNull();
    expect(entryOf(new AccessList([{ initiator: 'iqn.2025*' }]), HOST)).toBeNull();
  });

  it('asks for the proof of one of the users that it has for the pattern', () => {
    const list = new AccessList([
      { initiator: '*', chap: { user: 'carol', secret: 'a secret of carol' } },
      { initiator: HOST, volumes: ['a'], chap: { user: 'alice', secret: SECRET } },
      { initiator: HOST, volumes: ['b'], chap: { user: 'bob', secret: SECRET } },
    ]);
    expect(list.isOpenTo(HOST)).toBe(false);
    expect(list.credentials(HOST).map(({ user }) => user)).toEqual(['alice', 'bob']);
    expect(entryOf(list, HOST)).toBeNull();
    expect(entryOf(list, HOST, credential('alice'))?.volumes).toEqual(['a']);
    expect(entryOf(list, HOST, credential('bob'))?.volumes).toEqual(['b']);
    expect(entryOf(list, HOST, credential('alice', 'another secret'))).toBeNull();
    // Another pattern's user does not count here.
    expect(entryOf(list, HOST, credential('carol', 'a secret of carol'))).toBeNull();
  });

  it('gives what it names of the volumes, or all', () => {
    const some: AccessEntry = { initiator: '*', volumes: ['web', 'db-*'], readOnly: true };
    expect(['web', 'web2', 'db', 'db-', 'db-1'].map((name) => accessTo(some, name))).toEqual([
      Access.READ,
      Access.NONE,
      Access.NONE,
      Access.READ,
      Access.READ,
    ]);
    expect(accessTo({ initiator: '*' }, 'anything')).toBe(Access.WRITE);
    expect(accessTo({ initiator: '*', volumes: [] }, 'anything')).toBe(Access.NONE);
  });

  it('has a bound', () => {
    const entries = Array.from({ length: 1025 }, (_, i) => ({ initiator: `iqn.x:${i}` }));
    expect(new AccessList(entries.slice(1)).entries).toHaveLength(1024);
    expect(() => new AccessList(entries)).toThrow('more than 1024 entries');
  });

  it.each([
    ['11 bytes', 'x'.repeat(11)],
    ['256 bytes', 'x'.repeat(256)],
    ['a line end', `${'x'.repeat(12)}\n`],
    ['a null byte', `${'x'.repeat(12)}\0`],
  ])('takes no secret with %s, and does not show it', (_what, secret) => {
    const make = (): AccessList => new AccessList([{ initiator: '*', chap: { user: 'alice', secret } }]);
    expect(make).toThrow(/the secret of the user "alice" has/);
    try {
      make();
    } catch (error) {
      expect(String(error)).not.toContain('xxxxx');
    }
  });
});

describe('the access of a pool', () => {
  let control: PoolAccessControl;
  let dir: string;

  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'thinlun-access-'));
    atEnd(() => rmSync(dir, { recursive: true, force: true }));
    control = new PoolAccessControl(dir, (call) => call());
  });

  const denied = { initiator: HOST, denied: true, volumes: null, readOnly: false, user: null, mutualUser: null };
  const allowed = { ...denied, denied: false };

  it('stays as it is where nothing else is asked for', async () => {
    const mutual = { user: 'target', secret: 'a secret of the target' };
    const first = await control.allow({ initiator: HOST, volumes: ['a'], user: 'alice', secret: SECRET, mutual });
    const entry = { ...allowed, volumes: ['a'], user: 'alice', mutualUser: 'target' };
    expect(first).toEqual({ open: false, entries: [entry] });
    expect(await control.allow({ initiator: HOST, user: 'alice' })).toEqual(first);
    const readOnly = await control.allow({ initiator: HOST, user: 'alice', readOnly: true });
    expect(readOnly.entries).toEqual([{ ...entry, readOnly: true }]);
    const all = await control.allow({ initiator: HOST, user: 'alice', readOnly: false, volumes: ['*'], mutual: null });
    expect(all.entries).toEqual([{ ...entry, volumes: null, mutualUser: null }]);
    expect(control.credentials(HOST)).toEqual([credential('alice')]);
  });

  it('does not go without a proof where there was one, unless that is said', async () => {
    await control.allow({ initiator: HOST, user: 'alice', secret: SECRET });
    await expect(control.allow({ initiator: HOST })).rejects.toThrow('it has to authenticate itself, as "alice"');
    expect(control.isOpenTo(HOST)).toBe(false);
    await control.deny({ initiator: HOST });
    await control.allow({ initiator: HOST });
    expect(control.isOpenTo(HOST)).toBe(true);
    // The other way it may.
    expect((await control.allow({ initiator: HOST, user: 'alice', secret: SECRET })).entries).toHaveLength(1);
    expect(control.isOpenTo(HOST)).toBe(false);
  });

  it('takes no user without a secret, and no secret without a user', async () => {
    await expect(control.allow({ initiator: HOST, user: 'alice' })).rejects.toThrow(
      'the user is new and has no secret',
    );
    await expect(control.allow({ initiator: HOST, secret: SECRET })).rejects.toThrow('a secret belongs to a user');
    await expect(control.allow({ initiator: 'host' })).rejects.toThrow('neither an iSCSI name nor the beginning');
    expect(await control.list()).toEqual({ open: true, entries: [] });
  });

  it('is taken back by deny, whatever else would let the initiator in', async () => {
    await control.allow({ initiator: HOST, volumes: ['a'] });
    expect((await control.deny({ initiator: HOST })).entries).toEqual([]);
    await control.allow({ initiator: '*' });
    await control.allow({ initiator: HOST, volumes: ['a'] });
    expect((await control.deny({ initiator: HOST })).entries).toEqual([{ ...allowed, initiator: '*' }, denied]);
    expect(control.isOpenTo(HOST)).toBe(false);
    expect(control.isOpenTo(`${HOST}2`)).toBe(true);
    expect((await control.allow({ initiator: HOST })).entries).toEqual([{ ...allowed, initiator: '*' }, allowed]);
  });

  it('that is open to all is, after a deny, open to all others', async () => {
    const { open, entries } = await control.deny({ initiator: HOST });
    expect(open).toBe(false);
    expect(entries).toEqual([{ ...allowed, initiator: '*' }, denied]);
  });

  it('of a user is taken back alone; with the last one the initiator is out', async () => {
    await control.allow({ initiator: '*' });
    await control.allow({ initiator: HOST, user: 'alice', secret: SECRET });
    await control.allow({ initiator: HOST, user: 'bob', secret: SECRET });
    await expect(control.deny({ initiator: HOST, user: 'eve' })).rejects.toThrow('there is no such user');
    expect((await control.deny({ initiator: HOST, user: 'alice' })).entries).toHaveLength(2);
    expect((await control.deny({ initiator: HOST, user: 'bob' })).entries).toContainEqual(denied);
    expect(control.isOpenTo(HOST)).toBe(false);
  });

  it('keeps the list while it is open', async () => {
    await control.allow({ initiator: HOST, user: 'alice', secret: SECRET });
    expect(await control.setOpen({ open: true })).toMatchObject({ open: true, entries: [{ user: 'alice' }] });
    expect([control.isOpenTo('iqn.x:y'), control.usesChap, control.credentials(HOST)]).toEqual([true, false, []]);
    await control.setOpen({ open: false });
    expect([control.isOpenTo('iqn.x:y'), control.usesChap]).toEqual([false, true]);
  });

  it('names a volume by both names while it is renamed, and by the old one when that fails', async () => {
    await control.allow({ initiator: HOST, volumes: ['a', 'b*'] });
    const seen = (): unknown => JSON.parse(readFileSync(join(dir, 'access.json'), 'utf8')).entries[0].volumes;
    const failure = control.renamed('a', 'z', async () => {
      expect(seen()).toEqual(['a', 'b*', 'z']);
      throw new Error('no');
    });
    await expect(failure).rejects.toThrow('no');
    expect(seen()).toEqual(['a', 'b*']);
    await control.renamed('a', 'z', async () => {});
    expect(seen()).toEqual(['z', 'b*']);
    await control.renamed('bx', 'y', async () => {});
    expect(seen()).toEqual(['z', 'b*']);
  });

  it('lets nobody in before it was read', () => {
    expect(control.isOpenTo(HOST)).toBe(false);
    expect(control.rightsOf({ initiatorName: HOST, credential: null })).toBeNull();
  });
});
