import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, describe, expect, it } from 'vitest';
import { Takeover } from '../../src/daemon/takeover.ts';
import { Status } from '../../src/scsi/spec.ts';
import { outCdb, outList, PR_OUT } from '../scsi/support/cluster.ts';
import { FastInitiator } from '../support/fast-initiator.mjs';
import { TestProcess } from '../support/processes.mjs';
import { RecordedLoad } from '../support/recorded-load.ts';
import { SeededRandom } from '../support/seeded-random.ts';
import { ServedPool } from '../support/server.ts';
import { ThinlunServer, thinlun } from '../support/thinlun-server.mjs';

const ROUNDS = Number(process.env['THINLUN_KILLS'] ?? 3);
const COMMAND = join(import.meta.dirname, '../../bin/thinlun');
const AS_IT_IS = { portals: null, tcmu: null };

let created: ServedPool[] = [];
const initiators: FastInitiator[] = [];

afterEach(async () => {
  for (const initiator of initiators.splice(0)) initiator.destroy();
  const all = created;
  created = [];
  for (const pool of all) await pool.close();
});

async function createPool(): Promise<ServedPool> {
  const pool = await ServedPool.create('256M', { v: '64M' });
  created.push(pool);
  return pool;
}

async function connect(pool: ServedPool, name: string): Promise<FastInitiator> {
  const { host, port, lun } = pool.server;
  const initiatorName = `iqn.2026-11.test:${name}`;
  const initiator = await FastInitiator.connect({ host, port, target: lun.target, lun: lun.lun, initiatorName });
  initiators.push(initiator);
  return initiator;
}

/** Writes and reads until `stop` is called; then nothing may have been refused, and all be as it was written. */
async function startLoad(pool: ServedPool): Promise<() => Promise<void>> {
  const random = new SeededRandom();
  const load = new RecordedLoad(16 * 2048, random);
  const [writer, reader] = [await connect(pool, 'writer'), await connect(pool, 'reader')];
  const writing = load.run(writer, 32);
  const reading = (async () => {
    while (!load.isStopping) await reader.runGood((command) => command.read(random.below(1000) * 8, 8, 512));
  })();
  return async () => {
    load.stop();
    await Promise.all([writing, reading]);
    const where = `THINLUN_SEED=${random.seed}`;
    expect(load.refused, where).toEqual([]);
    expect(writer.failure, where).toBeNull();
    expect(reader.failure, where).toBeNull();
    expect(await load.verify(reader), where).toEqual([]);
  };
}

async function reserveOut(
  node: FastInitiator,
  action: number,
  fields: { key?: number; newKey?: number; type?: number },
): Promise<void> {
  const list = Buffer.from(outList(fields));
  await node.runGood((command) => {
    command.cdb.set(outCdb(action, list.length, fields.type ?? 0));
    command.dataOut = list;
  });
}

async function write(node: FastInitiator): Promise<number> {
  const { status } = await node.run((command) => command.write(0, 1, Buffer.alloc(512)));
  return status;
}

describe('a takeover', () => {
  it('is a pause for initiators and nothing else, five times in a row under load', async () => {
    const pool = await createPool();
    await pool.serve();
    const end = await startLoad(pool);
    const pauses: number[] = [];
    for (let i = 0; i < 5; i++) {
      await sleep(300);
      const { pauseMs, sessions } = await pool.takeOver();
      expect(sessions).toBe(2);
      pauses.push(pauseMs);
    }
    await sleep(300);
    await end();
    console.log(`pauses of five takeovers: ${pauses.map((ms) => `${ms} ms`).join(', ')}`);
    expect(Math.max(...pauses)).toBeLessThan(5000);
  });

  it('keeps a fence up that no loss of power would survive, and raises no unit attention', async () => {
    const pool = await createPool();
    await pool.serve();
    const [first, second] = [await connect(pool, 'first'), await connect(pool, 'second')];
    await reserveOut(first, PR_OUT.REGISTER, { newKey: 0xa });
    await reserveOut(first, PR_OUT.RESERVE, { key: 0xa, type: 1 });
    for (let i = 0; i < 2; i++) {
      await pool.takeOver();
      expect([await write(first), await write(second)]).toEqual([Status.GOOD, Status.RESERVATION_CONFLICT]);
    }
    const text = await thinlun('volume', 'reservations', pool.folder, 'v', '--json');
    expect(JSON.parse(text)).toMatchObject([{ type: 'write-exclusive', survivesRestart: false, generation: 1 }]);
    // New initiators find the server where it was.
    expect(await write(await connect(pool, 'third'))).toBe(Status.RESERVATION_CONFLICT);
    await first.close();
    await second.close();
  });

  it('without a server to take over from begins as usual, and says so', async () => {
    const pool = await createPool();
    const server = await ThinlunServer.start([pool.folder], { takeover: true, args: ['--portal', '127.0.0.1:0'] });
    expect(server.ready.takeover).toBeNull();
    expect(String(server.process.stderr)).toMatch(/there is no server to take over from: starting as usual/);
    await server.stop();
  });

  it('is refused with a reason, and the server goes on, when it would be of something else', async () => {
    const one = await createPool();
    const other = one.path('other');
    await thinlun('pool', 'create', other, '--data-size', '64M');
    const server = await ThinlunServer.start([one.folder, other]);
    try {
      const reasonOf = (...args: string[]): Promise<string> => thinlun('serve', '--takeover', ...args).catch(String);
      expect(await reasonOf(one.folder)).toMatch(/it serves ".*", too\n.*A server is taken over whole/);
      const both = [one.folder, other];
      expect(await reasonOf(...both, '--tcmu')).toMatch(/it serves without --tcmu/);
      expect(await reasonOf(...both, '--no-portal')).toMatch(/it serves on 127\.0\.0\.1:0,1/);
      expect(await reasonOf(...both, '--portal', '127.0.0.1:1')).toMatch(/it serves on 127\.0\.0\.1:0,1/);
      const status = JSON.parse(await thinlun('pool', 'status', one.folder, '--json')) as { server: { pid: number } };
      expect(status.server.pid).toBe(server.pid);
    } finally {
      await server.stop();
    }
  });

  it(`loses nothing when the new process is killed at any moment, nor when the old one is, ${ROUNDS} times each`, async () => {
    const pool = await createPool();
    const random = new SeededRandom();
    const load = new RecordedLoad(16 * 2048, random);
    const where = `THINLUN_SEED=${random.seed}`;
    const outcomes: string[] = [];
    for (let round = 0; round < 2 * ROUNDS; round++) {
      const old = await pool.serve();
      const initiator = await connect(pool, 'writer');
      const writing = load.run(initiator, 16);
      const child = new TestProcess(process.execPath, [COMMAND, 'serve', pool.folder, '--takeover']);
      await child.waitForLine(/taking over from a running server/);
      await sleep(random.below(300));
      await (round < ROUNDS ? child : old.process).kill();
      await sleep(300);
      const isKept = initiator.failure === null;
      outcomes.push(isKept ? 'kept' : 'lost');
      load.stop();
      if (!isKept) initiator.destroy();
      await writing;
      expect(load.refused, where).toEqual([]);
      initiator.destroy();
      await child.kill();
      await pool.crash();
      load.processEnded();
      await pool.serve();
      const reader = await connect(pool, 'reader');
      expect(await load.verify(reader), `round ${round}, ${where}`).toEqual([]);
      await reader.close();
      await pool.stop();
    }
    const [ofNew, ofOld] = [outcomes.slice(0, ROUNDS), outcomes.slice(ROUNDS)];
    console.log(`sessions: kill -9 of the new process: ${ofNew.join(' ')}; of the old one: ${ofOld.join(' ')}`);
  }, 240_000);

  it('that ends in the middle leaves the old server serving, its sessions included', async () => {
    const pool = await createPool();
    await pool.serve();
    const end = await startLoad(pool);
    for (const step of ['prepared', 'begun', 'failed'] as const) {
      const takeover = await Takeover.prepare([pool.folder], AS_IT_IS);
      if (step === 'begun' || step === 'failed') {
        const inheritance = await takeover!.begin();
        await sleep(50);
        inheritance!.close();
      }
      if (step === 'failed') await takeover!.failed(new Error('this process has lost its mind'));
      else takeover!.close();
      // Waits until it serves again.
      await pool.status();
      await sleep(100);
    }
    await end();
    expect(pool.server.isRunning).toBe(true);
  });
});
