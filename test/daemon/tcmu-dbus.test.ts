import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { monotonicClock } from '../../src/base/clock.ts';
import { StorageError } from '../../src/base/errors.ts';
import { silentLogger } from '../../src/base/log.ts';
import { AdvisedError } from '../../src/daemon/advised-error.ts';
import { DbusConnection, type DbusMessage } from '../../src/daemon/dbus-connection.ts';
import { TcmuDbus } from '../../src/daemon/tcmu-dbus.ts';
import { requireTool } from '../support/tools.ts';

const run = promisify(execFile);
const DESTINATION = 'org.kernel.TCMUService1';
const HANDLER = '/org/kernel/TCMUService1/thin';

describe('the handler on the bus', () => {
  const dbusDaemon = requireTool('dbus-daemon');
  const gdbus = requireTool('gdbus');
  let folder: string;
  let address: string;
  let bus: ChildProcess | null = null;
  const open: { stop?(): void; close?(): void }[] = [];

  async function startBus(): Promise<void> {
    bus = spawn(dbusDaemon, [`--config-file=${join(folder, 'bus.conf')}`, '--nofork', '--print-address'], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    await once(bus.stdout!, 'data');
  }

  async function stopBus(): Promise<void> {
    if (bus === null) return;
    const ended = once(bus, 'exit');
    bus.kill();
    await ended;
    bus = null;
  }

  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), 'thinlun-bus-'));
    address = `unix:path=${join(folder, 'socket')}`;
    writeFileSync(
      join(folder, 'bus.conf'),
      `<busconfig><type>session</type><listen>${address}</listen><auth>EXTERNAL</auth><policy context="default">
      <allow send_destination="*"/><allow own="*"/><allow receive_sender="*"/><allow user="*"/></policy></busconfig>`,
    );
    await startBus();
  });

  afterEach(async () => {
    for (const one of open.splice(0)) {
      one.stop?.();
      one.close?.();
    }
    await stopBus();
    rmSync(folder, { recursive: true });
  });

  function service(
    check: (cfgstring: string) => void | Promise<void> = () => {},
    isServer: (pid: number) => boolean = () => false,
  ): TcmuDbus {
    const one = new TcmuDbus({
      subtype: 'thin',
      description: 'POOL/VOLUME',
      check,
      isServer,
      logger: silentLogger,
      clock: monotonicClock,
      busAddress: address,
    });
    open.push(one);
    return one;
  }

  async function call(path: string, method: string, ...args: string[]): Promise<string> {
    const common = ['call', '--address', address, '--dest', DESTINATION, '--timeout', '5'];
    const { stdout } = await run(gdbus, [...common, '--object-path', path, '--method', method, ...args]);
    return stdout.trim();
  }

  test('is found by targetcli and says how it is configured', async () => {
    expect(await service().start()).toBe('owner');
    expect(await call('/org/kernel/TCMUService1', 'org.freedesktop.DBus.ObjectManager.GetManagedObjects')).toBe(
      "({objectpath '/org/kernel/TCMUService1/thin': {'org.kernel.TCMUService1': {'ConfigDesc': <'POOL/VOLUME'>}}},)",
    );
    expect(await call(HANDLER, 'org.freedesktop.DBus.Properties.GetAll', DESTINATION)).toBe(
      "({'ConfigDesc': <'POOL/VOLUME'>},)",
    );
    expect(await call(HANDLER, 'org.freedesktop.DBus.Properties.Get', DESTINATION, 'ConfigDesc')).toBe(
      "(<'POOL/VOLUME'>,)",
    );
    const { stdout } = await run(gdbus, [
      'introspect',
      '--address',
      address,
      '--dest',
      DESTINATION,
      '--object-path',
      '/',
      '--recurse',
    ]);
    expect(stdout).toContain('CheckConfig');
  });

  test('checks a configuration and explains a refusal', async () => {
    const asked: string[] = [];
    await service((cfgstring) => {
      asked.push(cfgstring);
      if (cfgstring.startsWith('none/')) throw new StorageError('ENODEV', 'Cannot use "none": no such pool');
    }).start();
    const check = (text: string) => call(HANDLER, 'org.kernel.TCMUService1.CheckConfig', text);
    expect(await check('thin/pool/vol')).toBe("(true, '')");
    expect(await check('thin/none/vol')).toBe(`(false, 'Cannot use "none": no such pool')`);
    expect(asked).toEqual(['pool/vol', 'none/vol']);
    expect(await check('thin/a,b')).toMatch(/has the character ","/);
    expect(await check('thin/a b')).toMatch(/has the character " "/);
    expect(await check(`thin/${'x'.repeat(251)}`)).toMatch(/more than 255 bytes/);
    expect(asked).toHaveLength(2);
  });

  test('survives calls that make no sense', async () => {
    await service().start();
    const attempts: [string, string, ...string[]][] = [
      [HANDLER, 'org.freedesktop.DBus.Properties.Get'],
      [HANDLER, 'org.freedesktop.DBus.Properties.Get', DESTINATION, 'Nothing'],
      [HANDLER, 'org.freedesktop.DBus.Properties.Set', DESTINATION, 'ConfigDesc', "<'x'>"],
      [HANDLER, 'org.kernel.TCMUService1.CheckConfig'],
      [HANDLER, 'org.kernel.TCMUService1.UnregisterHandler', 'thin'],
      ['/nowhere', 'org.kernel.TCMUService1.CheckConfig', 'thin/a/b'],
      ['/org/kernel/TCMUService1', 'org.freedesktop.DBus.ObjectManager.constructor'],
    ];
    for (const [path, method, ...args] of attempts) {
      await expect(call(path, method, ...args)).rejects.toThrow(/Error/);
    }
    expect(await call(HANDLER, 'org.kernel.TCMUService1.CheckConfig', 'thin/a/b')).toBe("(true, '')");
  });

  /** A connection that plays tcmu-runner. */
  async function tcmuRunner(registered: unknown[][]): Promise<DbusConnection> {
    const connection = new DbusConnection(address, {
      call: (message: DbusMessage) => {
        registered.push([message.path, message.member, ...(message.body ?? [])]);
        return { signature: 'bs', body: [true, 'succeeded'] };
      },
      signal: () => {},
      closed: () => {},
    });
    open.push(connection);
    await connection.ready();
    await connection.callBus('RequestName', 'su', [DESTINATION, 4]);
    return connection;
  }

  test('registers with tcmu-runner where that owns the name, and takes the name when that ends', async () => {
    const registered: unknown[][] = [];
    const runner = await tcmuRunner(registered);
    const one = service();
    expect(await one.start()).toBe('guest');
    expect(registered).toEqual([
      ['/org/kernel/TCMUService1/HandlerManager1', 'RegisterHandler', 'thin', 'POOL/VOLUME'],
    ]);
    const [good] = await runner.call({
      destination: `${DESTINATION}.HandlerManager1.thin`,
      path: '/org/kernel/TCMUService1/HandlerManager1/thin',
      interface: DESTINATION,
      member: 'CheckConfig',
      signature: 's',
      body: ['pool/vol'],
    });
    expect(good).toBe(true);
    runner.close();
    await expect.poll(() => one.mode, { timeout: 5000 }).toBe('owner');
  });

  const ofUs = (pid: number): boolean => pid === process.pid;

  test('of several servers one has the name, and the next gets it when that ends', async () => {
    const asked: string[] = [];
    const make = (name: string): TcmuDbus => service(() => void asked.push(name), ofUs);
    const [a, b, c] = [make('a'), make('b'), make('c')];
    expect([await a.start(), await b.start(), await c.start()]).toEqual(['owner', 'queued', 'queued']);
    const check = (): Promise<string> => call(HANDLER, 'org.kernel.TCMUService1.CheckConfig', 'thin/pool/vol');
    await check();
    b.stop();
    a.stop();
    await expect.poll(() => c.mode, { timeout: 5000 }).toBe('owner');
    await check();
    expect(asked).toEqual(['a', 'c']);
  });

  test('of several servers beside tcmu-runner one is registered, and the next when that ends', async () => {
    const registered: unknown[][] = [];
    const runner = await tcmuRunner(registered);
    const [a, b] = [service(), service()];
    expect([await a.start(), await b.start()]).toEqual(['guest', 'guest']);
    expect(registered).toHaveLength(1);
    a.stop();
    await expect.poll(() => registered.length, { timeout: 5000 }).toBe(2);
    expect(b.mode).toBe('guest');
    runner.close();
    await expect.poll(() => b.mode, { timeout: 5000 }).toBe('owner');
  });

  test('says what can be done about a refusal', async () => {
    await service(() => {
      throw new AdvisedError('ENODEV', 'Cannot use "none/a": no pool "none" is served here', 'Serve it.');
    }).start();
    expect(await call(HANDLER, 'org.kernel.TCMUService1.CheckConfig', 'thin/none/a')).toBe(
      `(false, 'Cannot use "none/a": no pool "none" is served here. Serve it.')`,
    );
  });

  test('does without a bus, and comes back when there is one again', async () => {
    const one = service();
    await stopBus();
    expect(await one.start()).toBe('none');
    await startBus();
    await expect.poll(() => one.mode, { timeout: 10_000 }).toBe('owner');
    await stopBus();
    await expect.poll(() => one.mode, { timeout: 5000 }).toBe('none');
    await startBus();
    await expect.poll(() => one.mode, { timeout: 10_000 }).toBe('owner');
    one.stop();
    await expect(call(HANDLER, 'org.kernel.TCMUService1.CheckConfig', 'thin/a/b')).rejects.toThrow(/Error/);
  });
});
