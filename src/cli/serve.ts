import { monotonicClock } from '../base/clock.ts';
import type { Logger } from '../base/log.ts';
import { formatSize } from '../base/units.ts';
import { connectLines, describePortals } from '../daemon/connect-lines.ts';
import { Daemon, type DaemonOptions } from '../daemon/daemon.ts';
import { hasTaken, untilDismissed } from '../daemon/handover.ts';
import type { LogLevel } from '../daemon/log-level.ts';
import { createLogger } from '../daemon/logger.ts';
import { DEFAULT_PORTAL, parsePortal, parseServedPortal, type ServedPortal } from '../daemon/portal-address.ts';
import { protectProcess } from '../daemon/process-protection.ts';
import type { ReadyMessage } from '../daemon/ready-message.ts';
import { ServiceManager } from '../daemon/service-manager.ts';
import type { Takeover, TakeoverWishes } from '../daemon/takeover.ts';
import type { Output } from './output.ts';
import type { RunContext } from './run-context.ts';
import { ServerLife } from './server-life.ts';
import { Succession } from './succession.ts';
import { COMMAND_ACCESS } from './with-pool.ts';

export interface ServeOptions {
  /** Null: what is usual, or with `takeover` where the running server is. */
  portals: readonly ServedPortal[] | null;
  /** Null: no, or with `takeover` as the running server. */
  tcmu: boolean | null;
  /** Go on from a running server of the pools. */
  takeover: boolean;
  logLevel: LogLevel;
  json: boolean;
}

/** Makes the demo pool unless it is there, and serves it. */
export async function serveDemo(context: RunContext, dir: string, options: ServeOptions): Promise<void> {
  const { ensureDemoPool } = await import('../daemon/demo-pool.ts');
  const made = await ensureDemoPool(dir, COMMAND_ACCESS);
  if (made && !options.json) context.output.line(`Made a demo pool of sparse files in ${dir}.\n`);
  await serve(context, [dir], options);
}

/** Serves pools until a signal, or the failure of the last of them, ends it, or another process takes over. */
export async function serve(context: RunContext, dirs: readonly string[], options: ServeOptions): Promise<void> {
  const logger = createLogger(options.logLevel);
  const life = new ServerLife(logger);
  const manager = ServiceManager.fromEnvironment(process.env, logger, monotonicClock);
  const succession = new Succession(logger, manager);
  const takeover = options.takeover ? await findTakeover(dirs, options, logger) : null;
  const { portals, tcmu } = takeover?.running ?? {
    portals: options.portals ?? [parseServedPortal(DEFAULT_PORTAL)],
    tcmu: options.tcmu ?? false,
  };
  const protection = protectProcess({ logger, localDisks: tcmu });
  const checkSuccessor = (pid: number): void => succession.check(pid);
  const serving = { dirs, portals, tcmu, protection, checkSuccessor, logger, clock: monotonicClock };
  let daemon = await startFrom(takeover, serving);
  const ready = await daemon.ready();
  if (options.json) process.stdout.write(`${JSON.stringify(ready)}\n`);
  else printReady(context.output, ready);
  manager?.ready(() => daemon.summary());
  takeover?.close();
  life.onReload = () => succession.begin();
  for (;;) {
    const given = await Promise.race([life.stopRequested, daemon.allFailed, daemon.givenAway]);
    if (typeof given !== 'object') break;
    const old = daemon;
    if (await hasTaken(given, logger)) {
      manager?.left();
      await old.stop();
      await untilDismissed(given);
      logger.info({ pid: given.pid }, 'handed over to another process');
      return;
    }
    const predecessor = { canGoOn: false, begin: async () => given.inheritance, taken: async () => {} };
    daemon = await Daemon.start({ ...serving, predecessor });
    await old.stop();
  }
  manager?.stopping();
  await life.stopping(daemon.stop());
  logger.info({}, 'stopped');
  context.exitCode = daemon.failures.length > 0 ? 1 : 0;
}

/** The running server of the pools; null where there is none. */
async function findTakeover(dirs: readonly string[], wishes: TakeoverWishes, logger: Logger): Promise<Takeover | null> {
  const { Takeover } = await import('../daemon/takeover.ts');
  const takeover = await Takeover.prepare(dirs, wishes);
  if (takeover === null) logger.info({}, 'there is no server to take over from: starting as usual');
  else {
    const { pid, version } = takeover.running;
    logger.info({ pid, version }, 'taking over from a running server');
  }
  return takeover;
}

async function startFrom(takeover: Takeover | null, options: DaemonOptions): Promise<Daemon> {
  if (takeover === null) return Daemon.start(options);
  try {
    return await Daemon.start({ ...options, predecessor: takeover });
  } catch (error) {
    await takeover.failed(error);
    throw error;
  }
}

function printReady(output: Output, ready: ReadyMessage): void {
  for (const pool of ready.pools) {
    output.line(`Pool ${pool.name} (${pool.directory}), target ${pool.target}`);
    if (pool.volumes.length === 0) {
      output.line(`  no volumes yet: thinlun volume create ${pool.directory} NAME --size 1G`);
    }
    for (const volume of pool.volumes) {
      output.line(`  LUN ${volume.lun}  ${volume.name}  ${formatSize(volume.sizeBytes)}`);
    }
  }
  for (const { directory, message } of ready.failed) output.line(`Left out: ${directory}: ${message}`);
  const [portal] = ready.portals;
  const first = ready.pools[0];
  if (portal !== undefined && first !== undefined) {
    output.line('\nConnect from this machine:');
    const lines = connectLines(parsePortal(portal), first.target, first.volumes[0]?.lun ?? null);
    for (const { program, commands } of lines) {
      output.line(`  ${program}`);
      for (const command of commands) output.line(`    ${command}`);
    }
    if (!first.access.open) {
      output.line(`  Only who is in the access list is let in: see "thinlun access list ${first.directory}".`);
    }
  }
  if (ready.tcmu && first !== undefined) {
    const known = first.volumes[0];
    const volume = `${first.name}/${known?.name ?? 'VOLUME'}`;
    const size = known?.sizeBytes ?? '1G';
    const more = known === undefined ? '' : ` wwn=${known.serial}`;
    output.line('\nMake a LIO backstore of a volume:');
    output.line(
      `    sudo targetcli /backstores/user:thin create name=NAME size=${size} cfgstring=${volume} hw_max_sectors=2048${more}`,
    );
  }
  if (ready.takeover !== null) {
    const { pid, pauseMs, sessions, devices } = ready.takeover;
    const kept = [counted(sessions, 'session'), counted(devices, 'device')].flatMap((each) => each ?? []);
    const goOn = kept.length === 0 ? '' : `, ${kept.join(' and ')} go on`;
    output.line(`\nTook over from process ${pid}: initiators have waited ${pauseMs} ms${goOn}.`);
  }
  const where = [...describePortals(ready).map((address) => `portal ${address}`), ...(ready.tcmu ? ['tcmu'] : [])];
  output.line(`\nReady: ${where.join(', ')}. Ctrl-C stops.`);
}

function counted(count: number, what: string): string | null {
  return count === 0 ? null : `${count} ${what}${count === 1 ? '' : 's'}`;
}
