import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, describe, expect, it } from 'vitest';
import { Command, FastInitiator } from '../support/fast-initiator.mjs';
import { RecordedLoad } from '../support/recorded-load.ts';
import { SeededRandom } from '../support/seeded-random.ts';
import { memoryOf, ServedPool } from '../support/server.ts';

const MIB = 1024 * 1024;
const MAX_MEMORY = 250 * MIB;
const BLOCK_SIZE = 64 * 1024;

let pool: ServedPool | null = null;

afterEach(async () => {
  const last = pool;
  pool = null;
  await last?.close();
});

function connect(name = 'iqn.2026-11.test:load'): Promise<FastInitiator> {
  const { host, port, lun } = pool!.server;
  return FastInitiator.connect({ host, port, target: lun.target, lun: lun.lun, initiatorName: name });
}

/** Runs `count` commands, `depth` at a time; `prepare` makes the i-th. Throws on the first that is not GOOD. */
function runMany(
  initiator: FastInitiator,
  count: number,
  depth: number,
  prepare: (command: Command, index: number) => void,
): Promise<void> {
  return new Promise((resolve, reject) => {
    let next = 0;
    let live = Math.min(depth, count);
    for (let i = 0; i < Math.min(depth, count); i++) {
      const command = new Command((completed) => {
        if (completed.status !== 0)
          reject(initiator.failure ?? new Error(`status ${completed.status}: ${completed.sense?.toString('hex')}`));
        else if (next < count) {
          prepare(completed, next++);
          initiator.submit(completed);
        } else if (--live === 0) resolve();
      });
      prepare(command, next++);
      initiator.submit(command);
    }
  });
}

describe('a server', () => {
  it('serves 1 TiB with 100,000 mapped blocks in less than 250 MB of memory', async () => {
    pool = await ServedPool.create('8G', { huge: '1T' });
    // As a user runs it: without the second copy of the space maps that tests keep otherwise.
    const options = { env: { THINLUN_VERIFY: '0' } };
    const { pid } = await pool.serve(options);
    const initiator = await connect();
    const blocks = 100_000;
    const totalBlocks = (1024 * 1024 * MIB) / BLOCK_SIZE;
    // Spread over the whole volume: no two neighbours, every leaf of the tree as large as it gets.
    const positionOf = (index: number) => Math.floor((index * totalBlocks) / blocks) * (BLOCK_SIZE / 512);
    const data = Buffer.alloc(4096, 0x5a);
    await runMany(initiator, blocks, 64, (command, index) => command.write(positionOf(index), 8, data));
    await initiator.runGood((command) => command.flush());
    expect((await pool.status()).dataUsedBytes).toBe(blocks * BLOCK_SIZE);
    expect(await memoryOf(pid, 'VmHWM'), 'the most while it was filled').toBeLessThan(MAX_MEMORY);
    await initiator.close();

    await pool.stop();
    const again = await pool.serve(options);
    const reader = await connect();
    const random = new SeededRandom(3);
    await runMany(reader, 20_000, 64, (command) => command.read(positionOf(random.below(blocks)), 8, 512));
    const back = Buffer.alloc(4096);
    for (let i = 0; i < 50; i++) {
      await reader.runGood((command) => command.read(positionOf(random.below(blocks)), 8, 512, back));
      expect(back.equals(data)).toBe(true);
    }
    expect(await memoryOf(again.pid, 'VmHWM'), 'the most while it was read').toBeLessThan(MAX_MEMORY);
    await reader.close();
  }, 240_000);

  it('holds little for an initiator that does not read, and serves the others meanwhile', async () => {
    pool = await ServedPool.create('1G', { disk: '512M' });
    const { pid } = await pool.serve();
    const slow = await connect('iqn.2026-11.test:slow');
    const other = await connect('iqn.2026-11.test:other');
    const data = Buffer.alloc(MIB);
    for (let i = 0; i < 256; i++) {
      data.fill(i);
      await slow.runGood((command) => command.write(i * 2048, 2048, data));
    }
    slow.setPaused(true);
    const buffers = Array.from({ length: 256 }, () => Buffer.alloc(MIB));
    const all = runMany(slow, 256, 256, (command, index) => command.read(index * 2048, 2048, 512, buffers[index]!));
    await sleep(500);
    const begun = performance.now();
    await runMany(other, 500, 8, (command, index) => command.read(index * 8, 8, 512));
    expect(performance.now() - begun, 'the other initiator waits for nobody').toBeLessThan(5000);
    await sleep(500);
    expect(await memoryOf(pid, 'VmHWM')).toBeLessThan(MAX_MEMORY);
    slow.setPaused(false);
    await all;
    for (const [index, buffer] of buffers.entries())
      expect(buffer.equals(Buffer.alloc(MIB, index)), `read ${index}`).toBe(true);
    await slow.close();
    await other.close();
  });

  it('survives initiators that disappear in the middle of everything', async () => {
    pool = await ServedPool.create('1G', { disk: '512M' });
    const { pid } = await pool.serve();
    const data = Buffer.alloc(MIB, 1);
    for (let round = 0; round < 20; round++) {
      const initiator = await connect();
      for (let i = 0; i < 32; i++) {
        const command = new Command(() => {});
        if (i % 2 === 0) command.write(i * 2048, 2048, data);
        else command.read(i * 2048, 2048, 512);
        initiator.submit(command);
      }
      await sleep(round);
      initiator.destroy();
    }
    const last = await connect();
    await last.runGood((command) => command.read(0, 2048, 512, data));
    await last.close();
    expect(pool.server.isRunning).toBe(true);
    expect(await memoryOf(pid, 'VmHWM')).toBeLessThan(MAX_MEMORY);
  });

  it('keeps the data of thirty-two initiators apart that write at the same time', async () => {
    pool = await ServedPool.create('1G', { disk: '512M' });
    await pool.serve();
    const initiators = await Promise.all(
      Array.from({ length: 32 }, (_, index) => connect(`iqn.2026-11.test:many-${index}`)),
    );
    // Chunks of 4 KiB in turn: the blocks of the pool are shared by all of them.
    const stripe = (initiator: number, index: number) => (index * initiators.length + initiator) * 8;
    await Promise.all(
      initiators.map((initiator, number) =>
        runMany(initiator, 200, 8, (command, index) =>
          command.write(stripe(number, index), 8, Buffer.alloc(4096, number + 1)),
        ),
      ),
    );
    await Promise.all(
      initiators.map((initiator, number) => {
        const expected = Buffer.alloc(4096, number + 1);
        const reads = Array.from({ length: 200 }, async (_, index) => {
          const data = Buffer.alloc(4096);
          await initiator.runGood((command) => command.read(stripe(number, index), 8, 512, data));
          return data.equals(expected);
        });
        return Promise.all(reads).then((same) => expect(same).not.toContain(false));
      }),
    );
    await Promise.all(initiators.map((initiator) => initiator.close()));
  });

  it('answers correctly under a long mixed load of several initiators on one volume', async () => {
    pool = await ServedPool.create('1G', { disk: '512M' });
    const server = await pool.serve();
    const random = new SeededRandom();
    const load = new RecordedLoad(32 * 2048, random);
    const initiators = await Promise.all([connect('iqn.2026-11.test:a'), connect('iqn.2026-11.test:b')]);
    // One record, one initiator: what the other one does must not matter.
    const noise = (async () => {
      while (!load.isStopping)
        await runMany(initiators[1]!, 500, 32, (command) => command.read(random.below(500) * 2048, 8, 512));
    })();
    const ended = load.run(initiators[0]!, 32);
    await sleep(3000);
    load.stop();
    await ended;
    await noise;
    expect(load.refused).toEqual([]);
    load.processEnded();
    expect(await load.verify(initiators[1]!), `THINLUN_SEED=${random.seed}`).toEqual([]);
    for (const initiator of initiators) await initiator.close();
    expect(server.isRunning).toBe(true);
  });
});
