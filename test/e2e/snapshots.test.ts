import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, describe, expect, it } from 'vitest';
import { FastInitiator } from '../support/fast-initiator.mjs';
import { Moments, NumberedLoad, type WriteSlot, wrongWithSnapshots } from '../support/numbered-load.ts';
import { SeededRandom } from '../support/seeded-random.ts';
import { ServedPool } from '../support/server.ts';
import { thinlun } from '../support/thinlun-server.mjs';

const SECTOR = 512;
let pool: ServedPool | null = null;

afterEach(async () => {
  const last = pool;
  pool = null;
  await last?.close();
});

/** Writes for a load; what is answered with a unit attention, as for the new LUNs, was not done. */
function writerOf(initiator: FastInitiator): WriteSlot {
  return async (lba, data, fua) => {
    const done = await initiator.run((command) => command.write(lba, data.length / SECTOR, data, fua));
    if (done.status === 0) return true;
    if (done.status === 2 && done.sense !== null && (done.sense[2]! & 0xf) === 6) return false;
    throw new Error(`status ${done.status}: ${done.sense?.toString('hex')}`);
  };
}

async function contentOf(lun: number, sectors: number): Promise<Buffer> {
  const { host, port, luns } = pool!.server;
  const reader = await FastInitiator.connect({
    host,
    port,
    target: luns[0]!.target,
    lun,
    initiatorName: 'iqn.x:reader',
  });
  const content = Buffer.alloc(sectors * SECTOR);
  for (let at = 0; at < sectors; at += 1024) {
    const count = Math.min(1024, sectors - at);
    await reader.runGood((command) =>
      command.read(at, count, SECTOR, content.subarray(at * SECTOR, (at + count) * SECTOR)),
    );
  }
  await reader.close();
  return content;
}

describe('snapshots of two volumes under load', () => {
  it('hold whole writes, all that were answered before, none submitted after, and both volumes at one moment', async () => {
    pool = await ServedPool.create('1G', { a: '64M', b: '64M' });
    const { host, port, luns } = await pool.serve();
    const random = new SeededRandom();
    const moments = new Moments();
    const loads: NumberedLoad[] = [];
    const initiators: FastInitiator[] = [];
    for (const { target, lun } of luns) {
      const initiatorName = `iqn.x:writer${lun}`;
      const initiator = await FastInitiator.connect({ host, port, target, lun, initiatorName });
      initiators.push(initiator);
      loads.push(new NumberedLoad(writerOf(initiator), random, moments));
    }
    for (const load of loads) load.start(12);
    const taken: { luns: number[]; before: number; after: number }[] = [];
    for (let round = 0; round < 6; round++) {
      await sleep(100 + random.below(150));
      const before = moments.next();
      const args = ['volume', 'snapshot', pool.folder, 'a', `a${round}`, 'b', `b${round}`, '--json'];
      const made = JSON.parse(await thinlun(...args)) as { lun: number; origin: string }[];
      taken.push({ luns: made.map(({ lun }) => lun), before, after: moments.next() });
      expect(made.map(({ origin }) => origin)).toEqual(['a', 'b']);
    }
    await sleep(100);
    await Promise.all(loads.map((load) => load.stop()));
    for (const { luns: snapshots, before, after } of taken) {
      const contents: Buffer[] = [];
      for (const [i, load] of loads.entries()) contents.push(await contentOf(snapshots[i]!, load.sectors));
      expect(wrongWithSnapshots(loads, contents, before, after), `seed ${random.seed}`).toEqual([]);
    }
    expect(loads[0]!.writes).toBeGreaterThan(500);
    for (const initiator of initiators) await initiator.close();
  }, 120_000);
});

describe('a rollback', () => {
  it('waits until nobody uses the volume, or is forced, and the server goes on with the old content', async () => {
    pool = await ServedPool.create('1G', { a: '64M' });
    const { host, port, lun } = await pool.serve();
    const write = async (initiator: FastInitiator, byte: number): Promise<void> => {
      await initiator.runGood((command) => command.write(0, 1024, Buffer.alloc(1024 * SECTOR, byte)));
    };
    const initiator = await FastInitiator.connect({ host, port, target: lun.target, lun: lun.lun });
    await write(initiator, 1);
    await thinlun('volume', 'snapshot', pool.folder, 'a', 'good', '--read-only');
    const isUnitAttention = await initiator.run((command) => command.flush());
    expect(isUnitAttention.status).toBe(2);
    await write(initiator, 2);
    await expect(thinlun('volume', 'rollback', pool.folder, 'a', 'good')).rejects.toThrow('1 initiator uses it');
    await thinlun('volume', 'rollback', pool.folder, 'a', 'good', '--force');
    const told = await initiator.run((command) => command.flush());
    expect([told.status, told.sense?.toString('hex', 12, 14)]).toEqual([2, '2800']);
    expect((await contentOf(0, 1024)).every((byte) => byte === 1)).toBe(true);
    await write(initiator, 3);
    await initiator.close();
    await thinlun('volume', 'rollback', pool.folder, 'a', 'good');
    expect((await contentOf(0, 1024)).every((byte) => byte === 1)).toBe(true);
    await pool.crash();
    await pool.serve();
    expect((await contentOf(0, 1024)).every((byte) => byte === 1)).toBe(true);
  }, 60_000);
});
