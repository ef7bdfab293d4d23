import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { KIB, MIB } from '../../src/base/units.ts';
import type { IoCompletion } from '../../src/block/block-device.ts';
import { Pool } from '../../src/thin/pool.ts';
import { createPool } from '../../src/thin/pool-create.ts';
import { openPoolFile } from '../../src/thin/pool-files.ts';
import { expectBytes, LunClient, pattern } from '../support/lun-client.ts';
import { Moments, NumberedLoad, type WriteSlot, wrongWithSnapshots } from '../support/numbered-load.ts';
import { SeededRandom } from '../support/seeded-random.ts';
import { WrappedDevice } from '../support/wrapped-device.ts';

const BLOCK = 64 * KIB;
let dir: string;
let pool: Pool;

beforeEach(async () => {
  dir = join(mkdtempSync(join(tmpdir(), 'thinlun-snapshots-')), 'tank');
  await createPool(dir, { dataSizeBytes: 64 * MIB });
  pool = await Pool.open(dir);
});

afterEach(async () => {
  await pool.close();
  execFileSync('thin_check', [join(dir, 'metadata')]);
  rmSync(join(dir, '..'), { recursive: true });
});

function open(name: string): LunClient {
  return new LunClient(pool.openVolume(name));
}

async function contentOf(name: string): Promise<Uint8Array> {
  const device = pool.openVolume(name);
  const bytes = await new LunClient(device).read(0, device.sizeBytes);
  await pool.closeVolume(device);
  return bytes;
}

async function reopen(): Promise<void> {
  await pool.close();
  pool = await Pool.open(dir);
}

describe('a snapshot', () => {
  it('keeps what the volume held, takes no data space of its own, and both go their ways', async () => {
    await pool.createVolume('a', 4 * MIB);
    const a = open('a');
    await a.write(0, pattern(2 * MIB, 1));
    const made = await pool.createSnapshot('a', 'before');
    expect(made).toMatchObject({ name: 'before', lun: 1, sizeBytes: 4 * MIB, mappedBytes: 2 * MIB, origin: 1 });
    expect(made.serial).not.toBe(pool.volume('a').serial);
    expect(pool.status().usedDataBlocks).toBe(32);
    const before = open('before');
    await a.write(BLOCK + 512, pattern(1024, 2));
    await before.write(3 * BLOCK, pattern(BLOCK, 3));
    await before.write(3 * MIB, pattern(512, 4));
    await pool.commit();
    expect(pool.status().usedDataBlocks).toBe(35);
    const expected = { a: new Uint8Array(4 * MIB), before: new Uint8Array(4 * MIB) };
    for (const bytes of [expected.a, expected.before]) bytes.set(pattern(2 * MIB, 1));
    expected.a.set(pattern(1024, 2), BLOCK + 512);
    expected.before.set(pattern(BLOCK, 3), 3 * BLOCK);
    expected.before.set(pattern(512, 4), 3 * MIB);
    for (const name of ['a', 'before'] as const) expectBytes(await contentOf(name), expected[name]);
    await reopen();
    for (const name of ['a', 'before'] as const) expectBytes(await contentOf(name), expected[name]);
  });

  it('of a snapshot, to any depth, outlives every one before it', async () => {
    await pool.createVolume('v0', MIB);
    for (let i = 0; i < 12; i++) {
      await open(`v${i}`).write(i * BLOCK, pattern(BLOCK, i));
      await pool.createSnapshot(`v${i}`, `v${i + 1}`);
    }
    await reopen();
    const order = [3, 0, 7, 11, 1, 5, 10, 2, 9, 4, 8, 6];
    for (const gone of order) {
      await pool.deleteVolume(`v${gone}`);
      const expected = new Uint8Array(MIB);
      for (let i = 0; i < 12; i++) expected.set(pattern(BLOCK, i), i * BLOCK);
      expectBytes(await contentOf('v12'), expected);
    }
    expect(pool.volumes()).toEqual([expect.objectContaining({ name: 'v12', mappedBytes: 12 * BLOCK })]);
    expect(pool.volume('v12').origin).toBeUndefined();
    await pool.deleteVolume('v12');
    expect(pool.status().usedDataBlocks).toBe(0);
  });

  it('of a volume that is not open is taken all the same, and can be for reading only', async () => {
    await pool.createVolume('a', MIB);
    const made = await pool.createSnapshot('a', 'backup', { readOnly: true });
    expect(made.readOnly).toBe(true);
    await reopen();
    await expect(open('backup').write(0, pattern(512, 1))).rejects.toThrow('EROFS');
    await expect(pool.resizeVolume('backup', 2 * MIB)).rejects.toThrow('it is read-only');
    const again = await pool.createSnapshot('backup', 'work');
    expect([again.readOnly, again.origin]).toEqual([undefined, made.id]);
    await open('work').write(0, pattern(512, 1));
  });

  it('that cannot be taken changes nothing, not even those that were to be taken with it', async () => {
    await pool.createVolume('a', MIB);
    const before = [pool.volumes(), pool.status()];
    await expect(pool.createSnapshot('b', 'c')).rejects.toMatchObject({ code: 'ENOENT' });
    await expect(pool.createSnapshot('a', 'a')).rejects.toMatchObject({ code: 'EEXIST' });
    await expect(pool.createSnapshot('a', 'x/y')).rejects.toMatchObject({ code: 'EINVAL' });
    for (const names of [
      ['c', 'c'],
      ['c', 'a'],
    ]) {
      const wanted = names.map((name) => ({ origin: 'a', name }));
      await expect(pool.createSnapshots(wanted)).rejects.toMatchObject({ code: 'EEXIST' });
    }
    expect([pool.volumes(), pool.status()]).toEqual(before);
    await reopen();
    expect([pool.volumes(), pool.status()]).toEqual(before);
  });

  it('follows its origin under another name', async () => {
    await pool.createVolume('a', MIB);
    await pool.createSnapshot('a', 's');
    const a = open('a');
    await a.write(0, pattern(MIB, 1));
    expect((await pool.renameVolume('a', 'b')).name).toBe('b');
    await a.write(0, pattern(BLOCK, 2));
    expect(() => pool.volume('a')).toThrow('There is no volume "a"');
    await expect(pool.deleteVolume('b')).rejects.toMatchObject({ code: 'EBUSY' });
    await expect(pool.renameVolume('b', 's')).rejects.toMatchObject({ code: 'EEXIST' });
    await expect(pool.renameVolume('b', '..')).rejects.toMatchObject({ code: 'EINVAL' });
    await reopen();
    expect(pool.volumes().map(({ name, origin }) => [name, origin])).toEqual([
      ['b', undefined],
      ['s', 1],
    ]);
    expectBytes((await contentOf('b')).subarray(0, BLOCK), pattern(BLOCK, 2));
  });
});

/** Takes its time to write, and not always the same. */
class SlowDevice extends WrappedDevice {
  override write(at: number, memory: Uint8Array, begin: number, length: number, completion: IoCompletion): void {
    this.later(() => this.inner.write(at, memory, begin, length, completion));
  }

  override writeZeroes(at: number, length: number, completion: IoCompletion): void {
    this.later(() => this.inner.writeZeroes(at, length, completion));
  }

  private later(work: () => void): void {
    const start = (): void => {
      work();
      this.inner.submit();
    };
    setTimeout(start, random.below(6));
  }
}

const random = new SeededRandom();

describe('snapshots under load', () => {
  it('hold whole writes, all that were answered before, none that came after, of several volumes the same moment, for ever', async () => {
    await pool.close();
    pool = await Pool.open(dir, {
      openDevice: (...args) => (args[1] === 'data' ? new SlowDevice(openPoolFile(...args)) : openPoolFile(...args)),
    });
    const names = ['a', 'b', 'c'];
    const moments = new Moments();
    const loads: NumberedLoad[] = [];
    for (const name of names) {
      await pool.createVolume(name, 8 * MIB);
      const lun = open(name);
      const write: WriteSlot = (lba, data, fua) => lun.write(lba * 512, data, fua).then(() => true);
      const load = new NumberedLoad(write, random, moments);
      load.start(8);
      loads.push(load);
    }
    const taken: { round: number; before: number; after: number; contents: Uint8Array[] }[] = [];
    for (let round = 0; round < 8; round++) {
      await new Promise((resolve) => setTimeout(resolve, 30));
      const before = moments.next();
      await pool.createSnapshots(names.map((name) => ({ origin: name, name: `${name}.${round}` })));
      const after = moments.next();
      const contents = await Promise.all(names.map((name) => contentOf(`${name}.${round}`)));
      taken.push({ round, before, after, contents });
      if (round === 4) {
        // A rollback is a snapshot of the snapshot.
        await pool.createVolume('d', 8 * MIB);
        await pool.rollbackVolume('d', 'a.4');
      }
    }
    for (const load of loads) await load.stop();
    for (const { round, before, after, contents } of taken) {
      expect(wrongWithSnapshots(loads, contents, before, after), `seed ${random.seed}`).toEqual([]);
      for (const [i, name] of names.entries()) expectBytes(await contentOf(`${name}.${round}`), contents[i]!);
    }
    expectBytes(await contentOf('d'), taken[4]!.contents[0]!);
    expect(Math.min(...loads.map(({ writes }) => writes))).toBeGreaterThan(100);
  });

  it('are taken while other volumes change without end', async () => {
    await pool.createVolume('quiet', MIB);
    await pool.createVolume('busy', 16 * MIB);
    const busy = open('busy');
    let stopped = false;
    let flushes = 0;
    const load = Array.from({ length: 8 }, async (_, i) => {
      for (let n = i; !stopped; n += 8) {
        const offset = (n % 256) * BLOCK;
        await busy.write(offset, pattern(512, n), true);
        await busy.unmap(offset, BLOCK);
        flushes++;
      }
    });
    await new Promise((resolve) => setTimeout(resolve, 30));
    for (let i = 0; i < 10; i++) await pool.createSnapshot('quiet', `s${i}`);
    stopped = true;
    await Promise.all(load);
    expect(flushes).toBeGreaterThan(0);
    expect(pool.volumes().length).toBe(12);
  });
});

describe('a pool without space', () => {
  it('still lets its volumes be snapshotted, shrunk, rolled back and closed while writes wait', async () => {
    await pool.createVolume('a', 128 * MIB);
    const device = pool.openVolume('a');
    const a = new LunClient(device);
    for (let i = 0; i < 64; i++) await a.write(i * MIB, pattern(MIB, i));
    const beyond = expect(a.write(100 * MIB, pattern(BLOCK, 7))).rejects.toThrow('ENXIO');
    await a.flush();
    expect(pool.mode).toBe('out-of-data-space');
    await pool.createSnapshot('a', 'full');
    await pool.resizeVolume('a', 64 * MIB);
    await beyond;
    const shared = expect(a.write(0, pattern(512, 8))).rejects.toThrow('ESHUTDOWN');
    await a.flush();
    await pool.rollbackVolume('a', 'full');
    expectBytes(await a.read(0, MIB), pattern(MIB, 0));
    await pool.closeVolume(device);
    await shared;
    await pool.deleteVolume('a');
    await pool.deleteVolume('full');
    expect(pool.status().usedDataBlocks).toBe(0);
  });

  it('goes on with writes that waited during a snapshot when there is space', async () => {
    await pool.createVolume('a', 128 * MIB);
    const a = open('a');
    for (let i = 0; i < 63; i++) await a.write(i * MIB, pattern(MIB, i));
    const partly = a.write(63 * MIB, pattern(3 * MIB, 99));
    const discard = a.unmap(100, BLOCK);
    await a.flush();
    await pool.createSnapshot('a', 's');
    await pool.growData(80 * MIB);
    await Promise.all([partly, discard]);
    expectBytes(await a.read(63 * MIB, 3 * MIB), pattern(3 * MIB, 99));
    expectBytes((await contentOf('s')).subarray(MIB, 2 * MIB), pattern(MIB, 1));
  });
});

describe('a rollback', () => {
  it('gives a volume content and size of a snapshot, and leaves name, LUN, identity and the snapshot as they are', async () => {
    const original = await pool.createVolume('a', 4 * MIB);
    const a = open('a');
    await a.write(0, pattern(4 * MIB, 1));
    const snapshot = await pool.createSnapshot('a', 's');
    await pool.createSnapshot('s', 'deeper');
    await pool.resizeVolume('a', 8 * MIB);
    const writes = [a.write(0, pattern(4 * MIB, 2)), a.write(6 * MIB, pattern(MIB, 3))];
    const rolled = pool.rollbackVolume('a', 's');
    await Promise.all(writes);
    expect(await rolled).toMatchObject({ ...original, id: expect.any(Number), mappedBytes: 4 * MIB });
    expectBytes(await a.read(0, 4 * MIB), pattern(4 * MIB, 1));
    await expect(a.read(4 * MIB, 512)).rejects.toThrow('ENXIO');
    await a.write(0, pattern(BLOCK, 4));
    expectBytes(await contentOf('s'), pattern(4 * MIB, 1));
    await pool.commit();
    expect(pool.status().usedDataBlocks).toBe(65);
    await reopen();
    const { id } = pool.volume('a');
    expect(pool.volume('s')).toEqual({ ...snapshot, origin: id });
    expectBytes((await contentOf('a')).subarray(0, BLOCK), pattern(BLOCK, 4));
    expectBytes(await contentOf('deeper'), pattern(4 * MIB, 1));
  });

  it('is refused where the two cannot have the same content', async () => {
    await pool.createVolume('a', MIB);
    await pool.createVolume('b', MIB, { logicalBlockSize: 4096 });
    await pool.createSnapshot('a', 's', { readOnly: true });
    const before = [pool.volumes(), pool.status()];
    await expect(pool.rollbackVolume('a', 'b')).rejects.toThrow('different sizes');
    await expect(pool.rollbackVolume('a', 'a')).rejects.toThrow('they are the same');
    await expect(pool.rollbackVolume('s', 'a')).rejects.toThrow('it is read-only');
    await expect(pool.rollbackVolume('a', 'c')).rejects.toMatchObject({ code: 'ENOENT' });
    expect([pool.volumes(), pool.status()]).toEqual(before);
    await pool.rollbackVolume('a', 's');
    await open('a').write(0, pattern(512, 1));
  });
});

describe('the list of volumes', () => {
  it('can be asked for while one of them is being deleted', async () => {
    await pool.createVolume('a', 4 * MIB);
    await pool.createVolume('b', 4 * MIB);
    let ended = false;
    const deleted = pool.deleteVolume('a').finally(() => {
      ended = true;
    });
    while (!ended) {
      expect(pool.volumes().at(-1)!.name).toBe('b');
      await new Promise((resolve) => setImmediate(resolve));
    }
    await deleted;
    expect(pool.volumes().map(({ name }) => name)).toEqual(['b']);
  });
});
