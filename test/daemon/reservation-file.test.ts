import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  promises,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { silentLogger } from '../../src/base/log.ts';
import { hintOf } from '../../src/daemon/advised-error.ts';
import { ReservationFile } from '../../src/daemon/reservation-file.ts';
import type { PersistentState } from '../../src/scsi/persistent-state.ts';
import { RecordingLogger } from './served-pool.ts';

const NAA = '3123456789abcdef';
const OTHER = '3fedcba987654321';
const A = { initiatorPort: 'iqn.x:a,i,0x000000000001', targetPort: 1 };
const B = { initiatorPort: 'iqn.x:ä b,i,0x000000000002', targetPort: 2 };

const held: PersistentState = {
  registrants: [
    { ...A, key: '00000000000000aa' },
    { ...B, key: 'ffffffffffffffff' },
  ],
  type: 5,
  holder: B,
  aptpl: true,
};
const shared: PersistentState = { ...held, type: 8, holder: null };
const registered: PersistentState = { ...held, type: null, holder: null };

let dir: string;

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'thinlun-reservations-'));
});

afterEach(() => {
  chmodSync(dir, 0o700);
  rmSync(dir, { recursive: true, force: true });
});

const path = (): string => join(dir, 'reservations.json');
const load = (isKnown: (naa: string) => boolean = () => true): ReservationFile =>
  ReservationFile.load(dir, silentLogger, isKnown);

describe('reservations.json', () => {
  it('has what was set, for whoever loads it next, and only the owner may read it', async () => {
    const file = load();
    expect(file.get(NAA)).toBeNull();
    for (const state of [held, shared, registered]) {
      await file.set(NAA, state);
      expect(file.get(NAA)).toEqual(state);
      expect(load().get(NAA)).toEqual(state);
      expect(statSync(path()).mode & 0o777).toBe(0o600);
    }
    await file.set(OTHER, held);
    await file.set(NAA, null);
    expect([load().get(NAA), load().get(OTHER)]).toEqual([null, held]);
  });

  it('is not there when there is nothing to keep', async () => {
    const file = load();
    await file.forget(NAA);
    expect(existsSync(path())).toBe(false);
    await file.set(NAA, held);
    await file.set(NAA, { ...held, registrants: [], type: null, holder: null });
    expect(existsSync(path())).toBe(false);
    await file.set(NAA, held);
    await file.forget(NAA);
    expect(existsSync(path())).toBe(false);
  });

  it('forgets volumes that are not there any more', async () => {
    const file = load();
    await file.set(NAA, held);
    await file.set(OTHER, shared);
    const next = load((naa) => naa === OTHER);
    expect([next.get(NAA), next.get(OTHER)]).toEqual([null, shared]);
  });

  it('ends with what was set last, in one write for all that came during another', async () => {
    const file = load();
    const store = file.storeOf(NAA);
    const done: (Error | null)[] = [];
    for (let i = 0; i < 20; i++) {
      const state = { ...registered, registrants: [{ ...A, key: i.toString(16).padStart(16, '1') }] };
      store.save(state, (error) => done.push(error));
    }
    const end = file.set(OTHER, held);
    expect(done).toEqual([]);
    await end;
    expect(done).toEqual(new Array(20).fill(null));
    expect(load().get(NAA)?.registrants[0]?.key).toBe('1111111111111113');
    expect(file.get(OTHER)).toEqual(held);
  });

  it('waits on close until all of it is written', async () => {
    const file = load();
    const store = file.storeOf(NAA);
    store.save(registered, () => store.save(held, () => {}));
    await file.close();
    expect(load().get(NAA)).toEqual(held);
  });

  it('tells who wanted it when it cannot be written, and goes on when it can be again', async () => {
    const logger = new RecordingLogger();
    const file = ReservationFile.load(dir, logger, () => true);
    await file.set(NAA, registered);
    mkdirSync(`${path()}.new`);
    await expect(file.set(NAA, held)).rejects.toMatchObject({ message: /^Cannot write the reservations ".*": / });
    expect(file.get(NAA)).toEqual(registered);
    expect(load().get(NAA)).toEqual(registered);
    expect(logger.texts('error')).toHaveLength(1);
    rmSync(`${path()}.new`, { recursive: true });
    await file.set(NAA, held);
    expect(load().get(NAA)).toEqual(held);
  });

  it.each([
    ['', /Unexpected end/],
    ['{', /JSON/],
    ['{"format":2,"volumes":[]}', /format/],
    ['{"format":1}', /volumes/],
    ['{"format":1,"volumes":[],"more":1}', /more/],
  ])('is refused when it says %s', (text, reason) => {
    writeFileSync(path(), text);
    expect(() => load()).toThrow(reason);
  });

  it.each<[string, object]>([
    ['a key of zero', { registrants: [{ ...A, key: '0000000000000000' }], type: null, holder: null }],
    ['a key that is none', { registrants: [{ ...A, key: 'AA' }], type: null, holder: null }],
    ['no registrants', { registrants: [] }],
    ['a nexus twice', { registrants: [held.registrants[0], held.registrants[0]], type: null, holder: null }],
    ['a type that there is not', { type: 2 }],
    ['a holder who is not registered', { holder: { ...B, targetPort: 1 } }],
    ['no holder', { holder: null }],
    ['a holder of what all registrants hold', { type: 7 }],
    ['a holder of nothing', { type: null }],
    [
      'a target port of zero',
      { registrants: [{ ...A, targetPort: 0, key: '00000000000000aa' }], type: null, holder: null },
    ],
  ])('is refused when it has %s', (_, wrong) => {
    const { aptpl: _aptpl, ...good } = held;
    const content = (volume: object): string => JSON.stringify({ format: 1, volumes: [{ naa: NAA, ...volume }] });
    writeFileSync(path(), content(good));
    expect(load().get(NAA)).toEqual(held);
    writeFileSync(path(), content({ ...good, ...wrong }));
    let error: unknown;
    try {
      load();
    } catch (thrown) {
      error = thrown;
    }
    expect(error).toMatchObject({ code: 'EINVAL', message: /^Cannot read the reservations ".*": volumes\.0/ });
    expect(hintOf(error)).toMatch(/remove it only when none is running/);
  });

  it('is on the disk, with its name, before anybody is told', async () => {
    const { open, rename } = promises;
    const calls: string[] = [];
    promises.open = async (name, ...rest) => {
      const handle = await open(name, ...rest);
      const { sync } = handle;
      handle.sync = async () => {
        await sync.call(handle);
        calls.push(`${basename(String(name))} is synced`);
      };
      return handle;
    };
    promises.rename = async (from, to) => {
      await rename(from, to);
      calls.push(`${basename(String(from))} is ${basename(String(to))}`);
    };
    syncBuiltinESMExports();
    try {
      await load().set(NAA, held);
      calls.push('told');
    } finally {
      Object.assign(promises, { open, rename });
      syncBuiltinESMExports();
    }
    expect(calls).toEqual([
      'reservations.json.new is synced',
      'reservations.json.new is reservations.json',
      `${basename(dir)} is synced`,
      'told',
    ]);
  });

  it('is never half of something: any part of the file is refused or means nothing', async () => {
    const file = load();
    await file.set(NAA, held);
    const whole = readFileSync(path());
    fc.assert(
      fc.property(fc.nat({ max: whole.length - 3 }), (length) => {
        writeFileSync(path(), whole.subarray(0, length));
        expect(() => load()).toThrow();
      }),
      { numRuns: 50 },
    );
  });
});
