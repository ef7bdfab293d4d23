import { type Command, Option } from 'commander';
import { monotonicClock } from '../base/clock.ts';
import { formatSize } from '../base/units.ts';
import { connectLines } from '../daemon/connect-lines.ts';
import type { ReadyMessage } from '../daemon/control-messages.ts';
import { Daemon } from '../daemon/daemon.ts';
import { defaultDemoDir, ensureDemoPool } from '../daemon/demo-pool.ts';
import { createLogger, type LogLevel } from '../daemon/logger.ts';
import { formatPortal, isLoopback, type PortalAddress, parsePortal } from '../daemon/portal-address.ts';
import { logLevelArgument, portalArgument } from './arguments.ts';
import type { Output } from './output.ts';
import { type RunContext, UsageError } from './run-context.ts';
import { ServerLife } from './server-life.ts';

const DEFAULT_PORTAL = '127.0.0.1:3260';

interface ServeFlags {
  /** false with --no-portal. */
  portal: PortalAddress | false;
  tcmu?: boolean;
  logLevel: LogLevel;
  json?: boolean;
}

interface DemoFlags {
  dir: string;
  portal: PortalAddress;
  logLevel: LogLevel;
  json?: boolean;
}

export function addServeCommands(program: Command, context: RunContext): void {
  const logLevel = (): Option =>
    new Option('--log-level <level>', 'debug, info, warn, error or silent; the log goes to standard error')
      .argParser(logLevelArgument)
      .default('info' satisfies LogLevel);

  program
    .command('serve')
    .description('serve the volumes of pools as LUNs, until SIGTERM or SIGINT')
    .argument('<dir...>', "the pools' folders")
    .addOption(
      new Option('--portal <host:port>', 'where initiators reach the iSCSI portal; port 0: any free one')
        .argParser(portalArgument)
        .default(parsePortal(DEFAULT_PORTAL), DEFAULT_PORTAL),
    )
    .option('--no-portal', 'no iSCSI portal')
    .option(
      '--tcmu',
      "serve the backstores of LIO's /backstores/user:thin (needs root and a kernel with target_core_user)",
    )
    .addOption(logLevel())
    .option('--json', 'print one line of JSON when ready, instead of text')
    .addHelpText(
      'after',
      `
Prints a line that begins with "Ready" when initiators can connect. A pool that cannot be opened is left out; the exit
status is then 1 at the end. On SIGTERM or SIGINT it finishes what is in flight, commits and exits with 0; a second signal ends
it at once.

Examples:
  thinlun serve /srv/pool
  thinlun serve /srv/fast /srv/slow --portal 0.0.0.0:3260
  thinlun serve /srv/pool --no-portal --tcmu`,
    )
    .action((dirs: string[], flags: ServeFlags) => serve(context, dirs, flags));

  program
    .command('demo')
    .description('make a demo pool with one volume, if there is none, and serve it')
    .option('--dir <dir>', 'the folder of the pool', defaultDemoDir())
    .addOption(
      new Option('--portal <host:port>', 'where initiators reach the iSCSI portal')
        .argParser(portalArgument)
        .default(parsePortal(DEFAULT_PORTAL), DEFAULT_PORTAL),
    )
    .addOption(logLevel())
    .option('--json', 'print one line of JSON when ready, instead of text')
    .addHelpText(
      'after',
      `
Examples:
  thinlun demo
  thinlun demo --dir /tmp/demo --portal 127.0.0.1:13260`,
    )
    .action(async (flags: DemoFlags) => {
      const { dir } = flags;
      const made = await ensureDemoPool(dir, { logger: createLogger('warn'), clock: monotonicClock });
      if (made && !flags.json) context.output.line(`Made a demo pool of sparse files in ${dir}.\n`);
      await serve(context, [dir], flags);
    });
}

async function serve(context: RunContext, dirs: readonly string[], flags: ServeFlags): Promise<void> {
  const portal = flags.portal === false ? null : flags.portal;
  const tcmu = flags.tcmu ?? false;
  if (portal === null && !tcmu) throw new UsageError('There is nothing to serve on: --no-portal needs --tcmu');
  const logger = createLogger(flags.logLevel);
  const life = new ServerLife(logger);
  const daemon = await Daemon.start({ dirs, portal, tcmu, logger, clock: monotonicClock });
  if (portal !== null && !isLoopback(portal.host)) {
    logger.warn(
      { portal: formatPortal(portal) },
      'there is no authentication: whoever reaches the portal can read and write every volume',
    );
  }
  const ready = await daemon.ready();
  if (flags.json) process.stdout.write(`${JSON.stringify(ready)}\n`);
  else printReady(context.output, ready);
  await Promise.race([life.stopRequested, daemon.allFailed]);
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
  }
  if (ready.tcmu && first !== undefined) {
    const volume = `${first.name}/${first.volumes[0]?.name ?? 'VOLUME'}`;
    const size = first.volumes[0]?.sizeBytes ?? '1G';
    output.line('\nMake a LIO backstore of a volume:');
    output.line(`    sudo targetcli /backstores/user:thin create name=NAME size=${size} cfgstring=${volume}`);
  }
  const where = [...ready.portals.map((address) => `portal ${address}`), ...(ready.tcmu ? ['tcmu'] : [])];
  output.line(`\nReady: ${where.join(', ')}. Ctrl-C stops.`);
}
