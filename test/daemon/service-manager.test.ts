import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterAll, afterEach, describe, expect, it } from 'vitest';
import { ServiceManager } from '../../src/daemon/service-manager.ts';
import { requireAddon } from '../support/native-addon.ts';
import { TestClock } from '../support/test-clock.ts';
import { requireTool } from '../support/tools.ts';
import { RecordingLogger } from './served-pool.ts';

/** Node cannot listen on a datagram socket of this family. */
const LISTENER = `
import socket, sys
name = sys.argv[1]
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind("\\0" + name[1:] if name[0] == "@" else name)
print("listening", flush=True)
while True: print(s.recv(4096).decode().replace("\\n", "|"), flush=True)
`;

describe('a service manager', () => {
  requireAddon();
  const python = requireTool('python3');
  const children: ChildProcess[] = [];
  const home = mkdtempSync(join(tmpdir(), 'thinlun-notify-'));
  afterEach(() => {
    for (const child of children.splice(0)) child.kill('SIGKILL');
  });
  afterAll(() => rmSync(home, { recursive: true }));

  /** The next message that comes to `address`. */
  async function listen(address: string): Promise<() => Promise<string>> {
    const child = spawn(python, ['-c', LISTENER, address], { stdio: ['ignore', 'pipe', 'inherit'] });
    children.push(child);
    const lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
    const next = async (): Promise<string> => (await lines.next()).value;
    expect(await next()).toBe('listening');
    return next;
  }

  it.each([['a path', join(home, 'socket')] as const, ['an abstract name', `@thinlun-test-${process.pid}`] as const])(
    'at %s hears when the server is ready, how it is, and that it ends',
    async (_what, address) => {
      const next = await listen(address);
      const clock = new TestClock();
      const logger = new RecordingLogger();
      const manager = new ServiceManager({ address, watchdogUs: 8_000_000, logger, clock });
      let status = 'Serving a';
      manager.ready(() => status);
      expect(await next()).toBe(`MAINPID=${process.pid}|READY=1|STATUS=Serving a`);
      expect(await next()).toBe('WATCHDOG=1');
      clock.advance(2000);
      expect(await next()).toBe('WATCHDOG=1');
      status = 'Serving a; 1 pools have failed';
      clock.advance(2000);
      expect(await next()).toBe('WATCHDOG=1');
      expect(await next()).toBe('STATUS=Serving a; 1 pools have failed');
      manager.stopping();
      expect(await next()).toBe('STOPPING=1|STATUS=Finishing what is in flight');
      expect(clock.timerCount).toBe(0);
      expect(logger.lines).toEqual([]);
    },
  );

  it('that is not there is complained of once', () => {
    const logger = new RecordingLogger();
    const clock = new TestClock();
    const manager = new ServiceManager({ address: join(home, 'nobody'), watchdogUs: 4_000_000, logger, clock });
    manager.ready(() => '');
    clock.advance(10_000);
    expect(logger.texts('warn')).toEqual(['the service manager cannot be told how the server is']);
  });

  it('is found in the environment, which our children do not inherit', async () => {
    const address = `@thinlun-environment-${process.pid}`;
    const next = await listen(address);
    const find = (environment: NodeJS.ProcessEnv): ServiceManager | null =>
      ServiceManager.fromEnvironment(environment, new RecordingLogger(), clock);
    const clock = new TestClock();
    expect(find({})).toBeNull();
    expect(find({ NOTIFY_SOCKET: 'vsock:2:1' })).toBeNull();
    const environment = { NOTIFY_SOCKET: address, WATCHDOG_USEC: '4000000', WATCHDOG_PID: `${process.pid}`, HOME: '/' };
    find(environment)!.ready(() => '');
    expect(environment).toEqual({ HOME: '/' });
    expect([await next(), await next()]).toEqual([`MAINPID=${process.pid}|READY=1|STATUS=`, 'WATCHDOG=1']);
    // Meant for another process: a shell that started us.
    find({ NOTIFY_SOCKET: address, WATCHDOG_USEC: '4000000', WATCHDOG_PID: '1' })!.ready(() => 'later');
    clock.advance(1000);
    expect([await next(), await next()]).toEqual([`MAINPID=${process.pid}|READY=1|STATUS=later`, 'WATCHDOG=1']);
  });
});
