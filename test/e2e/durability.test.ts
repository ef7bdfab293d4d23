import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, expect, it } from 'vitest';
import { FastInitiator } from '../support/fast-initiator.mjs';
import { RecordedLoad } from '../support/recorded-load.ts';
import { SeededRandom } from '../support/seeded-random.ts';
import { ServedPool } from '../support/server.ts';
import type { ThinlunServer } from '../support/thinlun-server.mjs';

const ROUNDS = 24;
const MIB_SECTORS = 2048;
const VOLUMES = ['first', 'second'];

let created: ServedPool | null = null;

afterEach(async () => {
  const last = created;
  created = null;
  await last?.close();
});

async function createPool(dataSize: string, volumes: Readonly<Record<string, string>>): Promise<ServedPool> {
  created = await ServedPool.create(dataSize, volumes);
  return created;
}

function connect(server: ThinlunServer, volume: string): Promise<FastInitiator> {
  const lun = server.luns.find((candidate) => candidate.volume === volume)!;
  return FastInitiator.connect({ host: server.host, port: server.port, target: lun.target, lun: lun.lun });
}

/** Both volumes under load; resolves with what ends it once the load is on. */
async function startLoads(server: ThinlunServer, loads: Map<string, RecordedLoad>) {
  const running: Promise<void>[] = [];
  const initiators: FastInitiator[] = [];
  for (const [volume, load] of loads) {
    const initiator = await connect(server, volume);
    initiators.push(initiator);
    running.push(load.run(initiator, 16));
  }
  return { initiators, ended: Promise.all(running) };
}

async function verifyAll(server: ThinlunServer, loads: Map<string, RecordedLoad>): Promise<string[]> {
  const wrong: string[] = [];
  for (const [volume, load] of loads) {
    const initiator = await connect(server, volume);
    wrong.push(...(await load.verify(initiator)).map((line) => `${volume}: ${line}`));
    await initiator.close();
  }
  return wrong;
}

it(`keeps every acknowledged write, flushed or not, over ${ROUNDS} kills at random moments under load`, async () => {
  const random = new SeededRandom();
  const pool = await createPool('1G', Object.fromEntries(VOLUMES.map((name) => [name, '512M'])));
  // The second one small and hot: its blocks are mapped, given back and mapped again all the time.
  const loads = new Map([
    ['first', new RecordedLoad(48 * MIB_SECTORS, random)],
    ['second', new RecordedLoad(4 * MIB_SECTORS, random)],
  ]);
  for (let round = 0; round < ROUNDS; round++) {
    const where = `round ${round} with THINLUN_SEED=${random.seed}`;
    const server = await pool.serve();
    expect(await verifyAll(server, loads), where).toEqual([]);
    const { ended } = await startLoads(server, loads);
    // The commit timer fires once a second: moments before, at and after it.
    await sleep(random.oneIn(3) ? random.below(60) : random.below(1300));
    await pool.crash();
    await ended;
    // The initiators live on and will flush what they believe is written: what was acknowledged outlives the process.
    for (const load of loads.values()) load.processEnded();
    await pool.check();
    expect(
      [...loads.values()].flatMap((load) => load.refused),
      where,
    ).toEqual([]);
  }
  const server = await pool.serve();
  expect(await verifyAll(server, loads), `in the end with THINLUN_SEED=${random.seed}`).toEqual([]);
  for (const load of loads.values()) {
    // The test has tested something: promises of every kind were made, and some had to be kept through a crash.
    expect(Math.min(...Object.values(load.done)), JSON.stringify(load.done)).toBeGreaterThan(20);
    expect(load.history.counts.later, JSON.stringify(load.history.counts)).toBeGreaterThan(0);
  }
}, 300_000);

it('keeps every acknowledged write, flushed or not, over a SIGTERM under load, and ends well', async () => {
  const random = new SeededRandom();
  const pool = await createPool('512M', Object.fromEntries(VOLUMES.map((name) => [name, '256M'])));
  const loads = new Map(VOLUMES.map((name) => [name, new RecordedLoad(16 * MIB_SECTORS, random)]));
  for (let round = 0; round < 3; round++) {
    const server = await pool.serve();
    expect(await verifyAll(server, loads), `THINLUN_SEED=${random.seed}`).toEqual([]);
    const { ended } = await startLoads(server, loads);
    await sleep(300);
    await pool.stop();
    await ended;
    for (const load of loads.values()) load.processEnded();
    await pool.check();
  }
  expect(await verifyAll(await pool.serve(), loads), `THINLUN_SEED=${random.seed}`).toEqual([]);
}, 240_000);

it('has everything flushed that was written before a clean stop, even without a flush from the initiator', async () => {
  const random = new SeededRandom();
  const pool = await createPool('256M', { first: '128M' });
  const server = await pool.serve();
  const initiator = await connect(server, 'first');
  const data = Buffer.alloc(MIB_SECTORS * 512);
  random.fill(data);
  await initiator.runGood((command) => command.write(64, MIB_SECTORS, data));
  await initiator.close();
  const again = await connect(await pool.restart(), 'first');
  const back = Buffer.alloc(data.length);
  await again.runGood((command) => command.read(64, MIB_SECTORS, 512, back));
  expect(back.equals(data)).toBe(true);
  await again.close();
});
