import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach } from 'vitest';
import { monotonicClock } from '../../src/base/clock.ts';
import { silentLogger } from '../../src/base/log.ts';
import { GIB } from '../../src/base/units.ts';
import type { PoolMessage, VolumeMessage } from '../../src/daemon/control-messages.ts';
import { usePool } from '../../src/daemon/pool-access.ts';
import type { PoolControl } from '../../src/daemon/pool-control.ts';
import { createPool as createPoolIn } from '../../src/thin/pool-create.ts';
import { type RunResult, run, TestProcess } from '../support/processes.mjs';

export const ROOT: string = dirname(dirname(import.meta.dirname));
export const COMMAND: string = join(ROOT, 'bin', 'thinlun');

type CommandOptions = NonNullable<ConstructorParameters<typeof TestProcess>[2]>;

/** Runs `bin/thinlun` to its end, as a user does; any exit status is a result. */
export function thinlun(args: readonly string[], options: CommandOptions = {}): Promise<RunResult> {
  return run(COMMAND, args, options);
}

/** Runs `bin/thinlun --json`, which must succeed; the parsed standard output. */
export async function thinlunJson(...args: readonly string[]): Promise<unknown> {
  const result = await thinlun([...args, '--json']);
  if (result.code !== 0) throw new Error(`thinlun ${args.join(' ')}: ${result.code}\n${result.stderr}`);
  return JSON.parse(result.stdout);
}

/** Starts `bin/thinlun`; ended after the test, whatever happens. */
export function start(args: readonly string[], options: CommandOptions = {}): TestProcess {
  const child = new TestProcess(COMMAND, args, options);
  cleanups.push(() => child.kill());
  return child;
}

/** Starts `serve` on a free port and waits until it is ready. */
export async function serve(args: readonly string[], options: CommandOptions = {}): Promise<TestProcess> {
  const child = start(
    ['serve', ...args, ...(args.includes('--no-portal') ? [] : ['--portal', '127.0.0.1:0'])],
    options,
  );
  await child.waitForLine(/^(?:Ready: |\{"event":"ready")/);
  return child;
}

/** A folder that is there until the test ends. */
export function temporaryFolder(): string {
  const path = mkdtempSync(join(tmpdir(), 'thinlun-cli-'));
  cleanups.push(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

/** A new pool of 1 GiB in a folder of its own. */
export async function createPool(name: string = 'pool'): Promise<string> {
  const dir = join(temporaryFolder(), name);
  await createPoolIn(dir, { dataSizeBytes: GIB });
  return dir;
}

/** What a command would do, without the start of a program: for the parts of a test that are not its subject. */
export function withPool<T>(dir: string, work: (pool: PoolControl) => Promise<T>): Promise<T> {
  return usePool(dir, { makeLogger: async () => silentLogger, clock: monotonicClock }, work);
}

export function statusOf(dir: string): Promise<PoolMessage> {
  return withPool(dir, (pool) => pool.status());
}

export function volumesOf(dir: string): Promise<VolumeMessage[]> {
  return withPool(dir, (pool) => pool.listVolumes());
}

export function createVolume(dir: string, name: string): Promise<VolumeMessage> {
  return withPool(dir, (pool) => pool.createVolume({ name, sizeBytes: GIB }));
}

const cleanups: (() => unknown)[] = [];

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});
