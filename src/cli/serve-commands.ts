import { type Command, Option } from 'commander';
import { defaultDemoDir } from '../daemon/demo-dir.ts';
import type { LogLevel } from '../daemon/log-level.ts';
import { type PortalAddress, parsePortal } from '../daemon/portal-address.ts';
import { logLevelArgument, portalArgument } from './arguments.ts';
import { type RunContext, UsageError } from './run-context.ts';

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
    .action(async (dirs: string[], flags: ServeFlags) => {
      const { portal, tcmu = false, json = false, logLevel } = flags;
      if (portal === false && !tcmu) throw new UsageError('There is nothing to serve on: --no-portal needs --tcmu');
      // The server is most of the program: other commands do not load it.
      const { serve } = await import('./serve.ts');
      await serve(context, dirs, { portal: portal === false ? null : portal, tcmu, logLevel, json });
    });

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
      const { serveDemo } = await import('./serve.ts');
      await serveDemo(context, flags.dir, { ...flags, tcmu: false, json: flags.json ?? false });
    });
}
