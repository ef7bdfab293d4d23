import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach } from 'vitest';
import { monotonicClock } from '../../src/base/clock.ts';
import { type Logger, silentLogger } from '../../src/base/log.ts';
import { GIB } from '../../src/base/units.ts';
import type { DaemonLogger } from '../../src/daemon/daemon.ts';
import { PoolService } from '../../src/daemon/pool-service.ts';
import { VolumeExports } from '../../src/daemon/volume-exports.ts';
import type { Nexus } from '../../src/scsi/nexus.ts';
import type { Target } from '../../src/scsi/target.ts';
import { createPool as createPoolIn } from '../../src/thin/pool-create.ts';
import { Pending, type Result } from '../scsi/support/initiator.ts';

const cleanups: (() => unknown)[] = [];

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

export function atEnd(cleanup: () => unknown): void {
  cleanups.push(cleanup);
}

export interface LogLine {
  level: 'debug' | 'info' | 'warn' | 'error';
  fields: object;
  text: string;
}

/** Keeps what is logged. */
export class RecordingLogger implements DaemonLogger {
  readonly lines: LogLine[] = [];

  debug(fields: object, text: string): void {
    this.lines.push({ level: 'debug', fields, text });
  }

  info(fields: object, text: string): void {
    this.lines.push({ level: 'info', fields, text });
  }

  warn(fields: object, text: string): void {
    this.lines.push({ level: 'warn', fields, text });
  }

  error(fields: object, text: string): void {
    this.lines.push({ level: 'error', fields, text });
  }

  child(): RecordingLogger {
    return this;
  }

  texts(level: LogLine['level']): string[] {
    return this.lines.filter((line) => line.level === level).map((line) => line.text);
  }
}

/** A real pool of 1 GiB in a temporary folder. */
export async function createPool(name: string = 'pool'): Promise<string> {
  const parent = mkdtempSync(join(tmpdir(), 'thinlun-daemon-'));
  atEnd(() => rmSync(parent, { recursive: true, force: true }));
  const dir = join(parent, name);
  await createPoolIn(dir, { dataSizeBytes: GIB });
  return dir;
}

/** The pool opened and exported as the server does it. */
export async function openServed(
  dir: string,
  logger: Logger = silentLogger,
): Promise<{ service: PoolService; exports: VolumeExports }> {
  const service = await PoolService.open(dir, { logger, clock: monotonicClock });
  atEnd(() => service.close());
  const exports = new VolumeExports(service.pool, 'iqn.x:pool', [1], logger, service.reservations.file);
  service.exports = exports;
  return { service, exports };
}

export const TEST_UNIT_READY = [0x00, 0, 0, 0, 0, 0];
export const READ_CAPACITY_16 = [0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0];
export const READ_CAPACITY_10 = [0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/** One command without Data-Out, to its end. */
export async function send(
  target: Target,
  lun: number,
  nexus: Nexus,
  cdb: readonly number[],
  expectedIn = 0,
): Promise<Result> {
  const pending = new Pending(nexus);
  const server = {
    prepare: (task: Parameters<Target['prepare']>[0]) => target.prepare(task, lun),
    execute: (task: Parameters<Target['execute']>[0]) => target.execute(task),
  };
  await new Promise<void>((resolve) => {
    pending.onDone = resolve;
    pending.start(server, cdb, new Uint8Array(0), expectedIn);
    if (pending.isDone) resolve();
  });
  return pending.result();
}
