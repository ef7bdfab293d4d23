import { existsSync, mkdirSync, readdirSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { parse } from '../../src/base/schema.ts';
import { type ReadyMessage, readySchema } from '../../src/daemon/ready-message.ts';
import { run, type TestProcess } from '../support/processes.mjs';
import {
  createPool,
  createVolume,
  serve,
  start,
  statusOf,
  temporaryFolder,
  thinlun,
  thinlunJson,
  volumesOf,
} from './command.ts';

const ready = (server: TestProcess): ReadyMessage => parse(readySchema, JSON.parse(server.stdout.toString()));

/** Has the program run `code` before anything else: for what cannot be provoked from outside. */
function preload(code: string): { env: Record<string, string> } {
  const module = `import net from 'node:net'; ${code}`;
  return { env: { NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(module)}` } };
}

function connects(address: string): Promise<boolean> {
  const [, host, port] = /^(.*):(\d+)$/.exec(address)!;
  return new Promise((resolve) => {
    const socket = connect(Number(port), host!.replace(/[[\]]/g, ''));
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false));
    socket.once('connect', () => socket.destroy());
  });
}

describe('serve', () => {
  it('says in one JSON line what it serves and where', async () => {
    const dir = await createPool('a');
    await createVolume(dir, 'v');
    const server = await serve([dir, '--json']);
    expect(server.stdout.toString().split('\n')).toHaveLength(2);
    const message = ready(server);
    expect(message).toMatchObject({ pid: server.pid, tcmu: false, failed: [] });
    expect(message.pools).toMatchObject([
      {
        name: 'a',
        directory: dir,
        target: 'iqn.2026-11.io.thinlun:a',
        mode: 'write',
        volumes: [{ name: 'v', lun: 0 }],
      },
    ]);
    expect(await connects(message.portals[0]!)).toBe(true);
    expect(await server.stop()).toEqual({ code: 0, signal: null });
    expect(await connects(message.portals[0]!)).toBe(false);
    expect(readdirSync(dir)).not.toContain('control.sock');
  });

  it('says to people how to connect', async () => {
    const dir = await createPool('a');
    await createVolume(dir, 'v');
    const server = await serve([dir]);
    const text = server.stdout.toString();
    const [, address] = /^Ready: portal (\S+)\. /m.exec(text)!;
    const target = 'iqn.2026-11.io.thinlun:a';
    for (const line of [
      'LUN 0  v  1 GiB',
      `sudo iscsiadm -m discovery -t sendtargets -p ${address}`,
      `sudo iscsiadm -m node -T ${target} -p ${address} --login`,
      `qemu-img info iscsi://${address}/${target}/0`,
      `iscsi-ls -s iscsi://${address}`,
    ]) {
      expect(text).toContain(line);
    }
  });

  it('listens on IPv6, too', async () => {
    const dir = await createPool();
    const server = start(['serve', dir, '--portal', '[::1]:0', '--json']);
    await server.waitForLine(/^\{"event":"ready"/);
    expect(ready(server).portals[0]).toMatch(/^\[::1\]:\d+$/);
    expect(await connects(ready(server).portals[0]!)).toBe(true);
  });

  it('listens on several portals in two portal groups, and says so', async () => {
    const dir = await createPool();
    await createVolume(dir, 'v');
    const portals = ['--portal', '127.0.0.1:0', '--portal', '127.0.0.2:0,2', '--portal', '[::1]:0,2'];
    const server = start(['serve', dir, '--json', ...portals]);
    await server.waitForLine(/^\{"event":"ready"/);
    const message = ready(server);
    expect(message.portals).toHaveLength(3);
    expect(message.portalGroups).toEqual([
      { tag: 1, portals: [message.portals[0]] },
      { tag: 2, portals: message.portals.slice(1) },
    ]);
    for (const portal of message.portals) expect(await connects(portal)).toBe(true);
    expect((await statusOf(dir)).server).toMatchObject({ portalGroups: message.portalGroups });
    const [first, second, third] = message.portals;
    expect((await thinlun(['pool', 'status', dir])).stdout).toContain(`${first},1, ${second},2, ${third},2`);
  });

  it('takes all IPv4 and all IPv6 addresses at one port', async () => {
    const dir = await createPool();
    const probe = createServer().listen(0, '127.0.0.1');
    await new Promise((resolve) => probe.once('listening', resolve));
    const { port } = probe.address() as { port: number };
    await new Promise((resolve) => probe.close(resolve));
    const server = start(['serve', dir, '--json', '--portal', `[::]:${port}`, '--portal', `0.0.0.0:${port}`]);
    await server.waitForLine(/^\{"event":"ready"/);
    expect(ready(server).portals).toEqual([`[::]:${port}`, `0.0.0.0:${port}`]);
    expect([await connects(`127.0.0.1:${port}`), await connects(`[::1]:${port}`)]).toEqual([true, true]);
  });

  it('serves several pools, and goes on without one that cannot be opened', async () => {
    const good = await createPool('good');
    const other = await createPool('other');
    const server = await serve([good, '/nonexistent', other, '--json']);
    const message = ready(server);
    expect(message.pools.map(({ name }) => name)).toEqual(['good', 'other']);
    expect(message.failed).toMatchObject([{ directory: '/nonexistent', code: 'ENOENT' }]);
    expect(server.stderr.toString()).toMatch(/"level":50.*there is no such folder/);
    for (const dir of [good, other]) {
      expect((await statusOf(dir)).server!.pid).toBe(server.pid);
    }
    expect(await server.stop()).toEqual({ code: 1, signal: null });
  });

  it('ends at once when it has no pool to serve', async () => {
    const result = await thinlun(['serve', '/nonexistent', '--portal', '127.0.0.1:0']);
    expect(result).toMatchObject({ code: 1, stdout: '' });
    expect(result.stderr).toMatch(
      /^thinlun: Cannot open the pool "\/nonexistent": there is no such folder\n {2}Make a pool/,
    );
  });

  it('refuses two pools whose targets would have the same name', async () => {
    const first = await createPool('same');
    const second = await createPool('SAME');
    const server = await serve([first, second, '--json']);
    expect(ready(server).pools).toHaveLength(1);
    expect(ready(server).failed).toMatchObject([{ directory: second, code: 'EEXIST' }]);
    // The one that was left out is free for others.
    expect((await statusOf(second)).server).toBeNull();
  });

  it('refuses a port that is in use, and gives the pool back', async () => {
    const dir = await createPool();
    const other = createServer().listen(0, '127.0.0.1');
    await new Promise((resolve) => other.once('listening', resolve));
    const { port } = other.address() as { port: number };
    const result = await thinlun(['serve', dir, '--portal', `127.0.0.1:${port}`]);
    other.close();
    expect(result).toMatchObject({ code: 1, stdout: '' });
    expect(result.stderr).toMatch(
      new RegExp(
        `^thinlun: Cannot listen on 127\\.0\\.0\\.1:${port}: another program listens there\n {2}Choose another port`,
      ),
    );
    expect((await statusOf(dir)).server).toBeNull();
  });

  it.each([
    ['an address of another machine', '192.0.2.1:0', /this machine has no such address/],
    ['a name that nobody knows', 'nobody.invalid:0', /this machine has no such address/],
  ])('refuses %s', async (_what, portal, reason) => {
    const dir = await createPool();
    const result = await thinlun(['serve', dir, '--portal', portal]);
    expect(result.code).toBe(1);
    expect(result.stderr).toMatch(reason);
  });

  it('refuses a pool that is served already, and says by whom', async () => {
    const dir = await createPool();
    const server = await serve([dir]);
    const result = await thinlun(['serve', dir, '--portal', '127.0.0.1:0']);
    expect(result).toMatchObject({ code: 1, stdout: '' });
    expect(result.stderr).toMatch(new RegExp(`process ${server.pid} serves it already\n {2}.*kill ${server.pid}`));
    expect((await statusOf(dir)).server!.pid).toBe(server.pid);
  });

  it('warns when everybody can reach it', async () => {
    const dir = await createPool();
    const server = start(['serve', dir, '--portal', '0.0.0.0:0']);
    await server.waitForLine(/^Ready: /);
    expect(server.stderr.toString()).toMatch(/"level":40.*whoever reaches the portal can read and write every volume/);
    expect(server.stdout.toString()).toMatch(/iscsi-ls -s iscsi:\/\/127\.0\.0\.1:\d+/);
  });

  it('works in a folder whose path is longer than a socket address', async () => {
    const long = join(temporaryFolder(), 'x'.repeat(120), 'y'.repeat(120));
    mkdirSync(long, { recursive: true });
    const dir = join(long, 'p');
    await thinlunJson('pool', 'create', dir, '--data-size', '1G');
    const server = await serve([dir]);
    expect(await createVolume(dir, 'v')).toMatchObject({ lun: 0 });
    expect(await server.stop()).toEqual({ code: 0, signal: null });
    expect(readdirSync(dir)).not.toContain('control.sock');
  });

  it('goes on when nobody reads its output any more', async () => {
    const dir = await createPool();
    const command = join(import.meta.dirname, '../../bin/thinlun');
    const script = `"$0" serve "$1" --portal 127.0.0.1:0 2>&1 | head -n 1`;
    const { TestProcess } = await import('../support/processes.mjs');
    const pipe = new TestProcess('bash', ['-c', script, command, dir]);
    try {
      let pid: number | undefined;
      for (let i = 0; i < 100 && pid === undefined; i++) {
        await sleep(50);
        pid = (await statusOf(dir)).server?.pid;
      }
      process.kill(pid!, 'SIGUSR1'); // One more line for the log that has no reader.
      expect(await createVolume(dir, 'v')).toMatchObject({ lun: 0 });
    } finally {
      await pipe.stop();
    }
  });
});

describe('a server', () => {
  it.each(['SIGTERM', 'SIGINT'] as const)('ends well on %s: nothing is left, everything is kept', async (signal) => {
    const dir = await createPool();
    const server = await serve([dir]);
    await createVolume(dir, 'v');
    process.kill(server.pid, signal);
    expect(await server.waitForExit(10_000)).toEqual({ code: 0, signal: null });
    expect(readdirSync(dir).sort()).toEqual(['data', 'metadata', 'pool.json']);
    expect(await volumesOf(dir)).toMatchObject([{ name: 'v' }]);
  });

  it('ends at once on a second signal, and takes two in a moment for one', async () => {
    const dir = await createPool();
    // Whatever listens never ends, so an orderly end would take for ever.
    const server = await serve([dir], preload('net.Server.prototype.close = function () { return this; };'));
    process.kill(server.pid, 'SIGINT');
    process.kill(server.pid, 'SIGINT');
    await server.waitForLine(/stopping/);
    await server.waitForLine(/still finishing/);
    expect(server.exitStatus).toBeNull();
    process.kill(server.pid, 'SIGTERM');
    expect(await server.waitForExit(5_000)).toEqual({ code: 143, signal: null });
  });

  it('ends at once, with its stack in the log, when something is thrown that nobody catches', async () => {
    const dir = await createPool();
    await createVolume(dir, 'v');
    const server = await serve(
      [dir],
      preload('process.on("SIGUSR2", () => setImmediate(() => { throw new Error("boom"); }));'),
    );
    process.kill(server.pid, 'SIGUSR2');
    expect(await server.waitForExit(5_000)).toEqual({ code: 1, signal: null });
    expect(server.stderr.toString()).toMatch(/"level":50.*"message":"boom".*"stack":.*a mistake in thinlun/);
    expect(await volumesOf(dir)).toMatchObject([{ name: 'v' }]);
  });

  it('that is asked to stop while it starts, stops', async () => {
    const dir = await createPool();
    const server = start(['serve', dir, '--portal', '127.0.0.1:0']);
    for (let i = 0; i < 400 && !existsSync(join(dir, 'control.sock')); i++) await sleep(5);
    process.kill(server.pid, 'SIGTERM');
    expect(await server.waitForExit(10_000)).toEqual({ code: 0, signal: null });
  });

  it('goes on as a new process after SIGHUP', async () => {
    const dir = await createPool();
    const server = await serve([dir]);
    process.kill(server.pid, 'SIGHUP');
    await server.waitForLine(/handed over to another process/, 60_000);
    const { pid } = (await statusOf(dir)).server!;
    expect(pid).not.toBe(server.pid);
    process.kill(pid, 'SIGTERM');
    // It has the output of the first one, which has ended when both have.
    expect(await server.waitForExit(30_000)).toEqual({ code: 0, signal: null });
    expect(await statusOf(dir)).toMatchObject({ server: null });
  });

  it('opens no debugger on SIGUSR1', async () => {
    const dir = await createPool();
    const server = await serve([dir]);
    process.kill(server.pid, 'SIGUSR1');
    await server.waitForLine(/SIGUSR1/);
    expect(server.describeOutput()).not.toMatch(/Debugger/);
    expect((await statusOf(dir)).server!.pid).toBe(server.pid);
    expect(await server.stop()).toEqual({ code: 0, signal: null });
  });

  it('that was killed leaves a socket that disturbs neither commands nor the next server', async () => {
    const dir = await createPool();
    const first = await serve([dir]);
    await createVolume(dir, 'v');
    await first.kill();
    expect(existsSync(join(dir, 'control.sock'))).toBe(true);
    expect(await statusOf(dir)).toMatchObject({ server: null, volumeCount: 1 });
    await createVolume(dir, 'w');
    const second = await serve([dir, '--json']);
    expect(ready(second).pools[0]!.volumes.map(({ name }) => name)).toEqual(['v', 'w']);
    expect((await statusOf(dir)).server!.pid).toBe(second.pid);
  });

  it('that is just ending is waited for', async () => {
    const dir = await createPool();
    const server = await serve([dir]);
    process.kill(server.pid, 'SIGTERM');
    const made = await createVolume(dir, 'v');
    expect(made).toMatchObject({ name: 'v' });
    expect(await server.waitForExit(10_000)).toEqual({ code: 0, signal: null });
    expect(await volumesOf(dir)).toMatchObject([{ name: 'v' }]);
  });

  it('that holds the pool but does not answer is named as what is in the way', async () => {
    const dir = await createPool();
    const holder = await run(
      'flock',
      ['--nonblock', dir, process.execPath, join(import.meta.dirname, '../../bin/thinlun'), 'pool', 'status', dir],
      { timeoutMs: 30_000 },
    );
    expect(holder.code).toBe(1);
    expect(holder.stderr).toMatch(/another process has it open\n {2}.*control socket/);
  });
});
