import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { compile } from '../../bench/lib/compile.mjs';
import { freePort } from '../../bench/peers/free-port.mjs';
import { makePool, ThinlunPeer } from '../../bench/peers/thinlun.mjs';
import { FastInitiator } from '../support/fast-initiator.mjs';
import { FastNbd } from '../support/fast-nbd.mjs';
import { run, runOk, TestProcess } from '../support/processes.mjs';
import { requireTool } from '../support/tools.ts';

const ROOT = join(import.meta.dirname, '../..');
const SIZE_MIB = 8;
const PAGE = 4096;
const PAGES = (SIZE_MIB * 2 ** 20) / PAGE;
const SEED = 77;
const IMAGE_SIZE = 4 * 2 ** 20;

let folder: string;
let pool: string;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'thinlun-bench-test-'));
  pool = join(folder, 'pool');
  await makePool(pool, '64M', `${SIZE_MIB}M`);
  const peer = await ThinlunPeer.start(pool);
  const { host, port, target } = peer.at();
  const initiator = await FastInitiator.connect({ host, port, target, lun: 0 });
  // From the end, so that no block lies where it would by itself; every page tells which it is.
  for (let page = PAGES - 1; page >= 0; page--) {
    const data = Buffer.alloc(PAGE, page & 0xff);
    data.writeUInt32LE(Math.imul(page, 2654435761) >>> 0);
    await initiator.runGood((command) => command.write((page * PAGE) / 512, PAGE / 512, data));
  }
  await initiator.runGood((command) => command.flush());
  await initiator.close();
  await peer.stop();
});

afterAll(() => rmSync(folder, { recursive: true, force: true }));

const load = (name: string, options: object): Promise<string> =>
  runOk(process.execPath, [join(ROOT, 'bench', 'load', name), JSON.stringify(options)]);
const leftovers = (): string[] => readdirSync(folder).filter((name) => name.startsWith('thinlun-bench-'));

describe('the NBD client of the benchmark', () => {
  it('reads what it has written, at depth, by a server that others wrote', async () => {
    requireTool('qemu-nbd');
    const image = join(folder, 'nbd.img');
    writeFileSync(image, Buffer.alloc(IMAGE_SIZE));
    const port = await freePort();
    const server = new TestProcess('qemu-nbd', [
      '-f',
      'raw',
      '-t',
      '-b',
      '127.0.0.1',
      '-p',
      String(port),
      '-x',
      'x',
      image,
    ]);
    const connect = () => FastNbd.connect({ host: '127.0.0.1', port, name: 'x' }).catch(() => null);
    await expect.poll(async () => (await connect())?.close().then(() => true) ?? false, { timeout: 10_000 }).toBe(true);
    const client = await FastNbd.connect({ host: '127.0.0.1', port, name: 'x' });
    expect(client.blockCount).toBe(IMAGE_SIZE / 512);
    const pieces = Array.from({ length: 16 }, (_, i) => Buffer.alloc(i === 0 ? 131_072 : 4096, i + 1));
    await Promise.all(pieces.map((piece, i) => client.runGood((command) => command.write(256 * i, 0, piece))));
    await client.runGood((command) => command.flush());
    const found = pieces.map((piece) => Buffer.alloc(piece.length));
    await Promise.all(
      found.map((into, i) => client.runGood((command) => command.read(256 * i, into.length / 512, 512, into))),
    );
    expect(found.every((bytes, i) => bytes.equals(pieces[i]!))).toBe(true);
    expect(
      readFileSync(image)
        .subarray(131_072, 131_072 + 4096)
        .equals(pieces[1]!),
    ).toBe(true);
    await expect(client.runGood((command) => command.read(IMAGE_SIZE / 512, 1, 512))).rejects.toThrow('errno');
    await client.close();
    await server.stop();
    await expect(FastNbd.connect({ host: '127.0.0.1', port, name: 'x' })).rejects.toThrow();
  });
});

describe('the benchmark', () => {
  it('reads the same bytes through the command ring as the same loop in C', async () => {
    requireTool('gcc');
    const program = await compile('ring-replay', folder);
    for (const count of [1, 100, 5000]) {
      const ours = JSON.parse(
        await load('ring-replay.mjs', { pool, volume: 'bench', depth: 128, seed: SEED, seconds: 0, count }),
      );
      const numbers = [1, 65536, PAGES, 128, SEED, 0, count].map(String);
      const theirs = JSON.parse(await runOk(program, [join(pool, 'metadata'), join(pool, 'data'), ...numbers]));
      expect([ours.count, ours.sum]).toEqual([theirs.count, theirs.sum]);
      expect(ours.count).toBe(count);
    }
  });

  it('finds the same data blocks as the same lookups in C', async () => {
    requireTool('gcc');
    const program = await compile('lookup', folder);
    const metadata = join(pool, 'metadata');
    // Half of them are not mapped.
    const keys = (2 * PAGES * PAGE) / 65536;
    const options = { metadata, device: 1, keys, seed: SEED, seconds: 0, count: 3000, cacheBlocks: 1024 };
    const ours = JSON.parse(await load('lookup.mjs', options));
    const theirs = JSON.parse(await runOk(program, [metadata, ...[1, keys, SEED, 0, 3000].map(String)]));
    expect([ours.count, ours.sum]).toEqual([theirs.count, theirs.sum]);
    expect(ours.sum).toBeGreaterThan(0);
  });

  it('measures, writes its figures to a file, and leaves nothing behind', async () => {
    const json = join(folder, 'out.json');
    const args = [
      '--rounds',
      '1',
      '--seconds',
      '0.1',
      '--size',
      '4',
      '--no-install',
      '--folder',
      folder,
      '--json',
      json,
    ];
    const output = await runOk(
      process.execPath,
      [join(ROOT, 'bench', 'run.mjs'), ...args, '--only', '^(portal-read-4k-1|ring-replay)$'],
      { timeoutMs: 100_000 },
    );
    expect(output).toContain('4 KiB random read, depth 1, median latency');
    const { results, machine } = JSON.parse(readFileSync(json, 'utf8'));
    expect(results.map(({ id }: { id: string }) => id)).toEqual(['portal-read-4k-1', 'ring-replay']);
    expect(results[0].sides[0].samples[0].iops).toBeGreaterThan(0);
    expect(machine.node).toBe(process.version);
    expect(leftovers()).toEqual([]);
  });

  it('leaves nothing behind when it is interrupted', async () => {
    const args = ['--seconds', '30', '--size', '4', '--no-install', '--folder', folder, '--only', '^portal-read-4k-1$'];
    const bench = new TestProcess(process.execPath, [join(ROOT, 'bench', 'run.mjs'), ...args]);
    await bench.waitForLine(/^commit /);
    requireTool('pgrep');
    const started = () => run('pgrep', ['-f', `serve ${folder}/thinlun-bench-`]);
    await expect.poll(async () => (await started()).stdout, { timeout: 30_000 }).not.toBe('');
    expect(leftovers()).toHaveLength(1);
    const servers = (await started()).stdout;
    bench.signalGroup('SIGINT');
    expect(await bench.waitForExit(10_000)).toEqual({ code: 130, signal: null });
    expect(leftovers()).toEqual([]);
    for (const pid of servers.trim().split('\n')) {
      await expect.poll(() => isRunning(Number(pid)), { timeout: 5000 }).toBe(false);
    }
  });
});

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
