import { monotonicClock } from '../base/clock.ts';
import { formatSize } from '../base/units.ts';
import { connectLines, describePortals } from '../daemon/connect-lines.ts';
import type { ReadyMessage } from '../daemon/control-messages.ts';
import { Daemon } from '../daemon/daemon.ts';
import { ensureDemoPool } from '../daemon/demo-pool.ts';
import type { LogLevel } from '../daemon/log-level.ts';
import { createLogger } from '../daemon/logger.ts';
import { parsePortal, type ServedPortal } from '../daemon/portal-address.ts';
import { protectProcess } from '../daemon/process-protection.ts';
import { ServiceManager } from '../daemon/service-manager.ts';
import type { Output } from './output.ts';
import type { RunContext } from './run-context.ts';
import { ServerLife } from './server-life.ts';

export interface ServeOptions {
  portals: readonly ServedPortal[];
  tcmu: boolean;
  logLevel: LogLevel;
  json: boolean;
}

/** Makes the demo pool unless it is there, and serves it. */
export async function serveDemo(context: RunContext, dir: string, options: ServeOptions): Promise<void> {
  const made = await ensureDemoPool(dir, { logger: createLogger('warn'), clock: monotonicClock });
  if (made && !options.json) context.output.line(`Made a demo pool of sparse files in ${dir}.\n`);
  await serve(context, [dir], options);
}

/** Serves pools until a signal, or the failure of the last of them, ends it. */
export async function serve(context: RunContext, dirs: readonly string[], options: ServeOptions): Promise<void> {
  const { portals, tcmu } = options;
  const logger = createLogger(options.logLevel);
  const life = new ServerLife(logger);
  const protection = protectProcess({ logger, localDisks: tcmu });
  const manager = ServiceManager.fromEnvironment(process.env, logger, monotonicClock);
  const daemon = await Daemon.start({ dirs, portals, tcmu, protection, logger, clock: monotonicClock });
  const ready = await daemon.ready();
  if (options.json) process.stdout.write(`${JSON.stringify(ready)}\n`);
  else printReady(context.output, ready);
  manager?.ready(() => daemon.summary());
  await Promise.race([life.stopRequested, daemon.allFailed]);
  manager?.stopping();
  await life.stopping(daemon.stop());
  logger.info({}, 'stopped');
  context.exitCode = daemon.failures.length > 0 ? 1 : 0;
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
    const volume = `${first.name}/${first.volumes[0]?.name ?? 'VOLUME'}`;
    const size = first.volumes[0]?.sizeBytes ?? '1G';
    output.line('\nMake a LIO backstore of a volume:');
    output.line(`    sudo targetcli /backstores/user:thin create name=NAME size=${size} cfgstring=${volume}`);
  }
  const where = [...describePortals(ready).map((address) => `portal ${address}`), ...(ready.tcmu ? ['tcmu'] : [])];
  output.line(`\nReady: ${where.join(', ')}. Ctrl-C stops.`);
}
