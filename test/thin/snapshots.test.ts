import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { KIB, MIB } from '../../src/base/units.ts';
import { Pool } from '../../src/thin/pool.ts';
import { createPool } from '../../src/thin/pool-create.ts';
import type { ThinDevice } from '../../src/thin/thin-device.ts';
import { expectBytes, LunClient, pattern } from '../support/lun-client.ts';

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

/** Writes one after the other, each of its own content, until told to stop; knows when each was submitted and answered. */
class Writer {
  readonly submitted: number[] = [];
  readonly answered: number[] = [];
  private readonly running: Promise<void>;
  private stopped = false;

  constructor(device: ThinDevice, sectors: number, tick: () => number) {
    this.running = this.run(new LunClient(device), sectors, tick);
  }

  private async run(lun: LunClient, sectors: number, tick: () => number): Promise<void> {
    for (let i = 0; !this.stopped; i++) {
      this.submitted.push(tick());
      await lun.write((i % sectors) * 512, numbered(i), i % 50 === 0);
      this.answered.push(tick());
      if (i % 8 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
  }

  async stop(): Promise<void> {
    this.stopped = true;
    await this.running;
  }
}

function numbered(value: number): Uint8Array {
  const bytes = new Uint8Array(512);
  new Uint32Array(bytes.buffer).fill(value + 1);
  return bytes;
}

/** The number of the last write that is in `content`, which must be what the writes up to that one leave; -1 for none. */
function lastWrite(content: Uint8Array, sectors: number): number {
  const words = new Uint32Array(content.buffer, content.byteOffset, (sectors * 512) / 4);
  let last = -1;
  for (let sector = 0; sector < sectors; sector++) last = Math.max(last, words[sector * 128]! - 1);
  for (let sector = 0; sector < sectors; sector++) {
    const round = Math.floor((last - sector) / sectors);
    const expected = last >= sector ? round * sectors + sector + 1 : 0;
    for (let i = 0; i < 128; i++) {
      if (words[sector * 128 + i] !== expected) {
        throw new Error(
          `sector ${sector} holds ${words[sector * 128 + i]}, not ${expected}; the last write is ${last}`,
        );
      }
    }
  }
  return last;
}

describe('snapshots under load', () => {
  it('hold every write that was answered before, none that came after, and of several volumes the same moment', async () => {
    const sectors = 8 * 128;
    const names = ['a', 'b', 'c'];
    for (const name of names) await pool.createVolume(name, sectors * 512);
    let time = 0;
    const tick = (): number => ++time;
    const devices = names.map((name) => pool.openVolume(name));
    const writers = devices.map((device) => new Writer(device, sectors, tick));
    const taken: { round: number; before: number; after: number }[] = [];
    for (let round = 0; round < 12; round++) {
      await new Promise((resolve) => setTimeout(resolve, 15));
      const before = tick();
      await pool.createSnapshots(names.map((name) => ({ origin: name, name: `${name}.${round}` })));
      taken.push({ round, before, after: tick() });
    }
    for (const writer of writers) await writer.stop();
    for (const { round, before, after } of taken) {
      const lasts: number[] = [];
      for (const name of names) lasts.push(lastWrite(await contentOf(`${name}.${round}`), sectors));
      for (const [i, writer] of writers.entries()) {
        const last = lasts[i]!;
        const answeredBefore = writer.answered.filter((at) => at < before).length;
        const submittedBefore = writer.submitted.filter((at) => at <= after).length;
        expect(last).toBeGreaterThanOrEqual(answeredBefore - 1);
        expect(last).toBeLessThan(submittedBefore);
        // What is in one and was submitted at some time: everything that had been answered before that time is in the others.
        for (const [j, other] of writers.entries()) {
          const known = other.answered.filter((at) => at < (writer.submitted[last] ?? 0)).length;
          expect(lasts[j]).toBeGreaterThanOrEqual(known - 1);
        }
      }
    }
    expect(taken.at(-1)!.after).toBeGreaterThan(100);
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
