import { type Command, Option } from 'commander';
import { defaultDemoDir } from '../daemon/demo-dir.ts';
import type { LogLevel } from '../daemon/log-level.ts';
import { DEFAULT_PORTAL, type ServedPortal } from '../daemon/portal-address.ts';
import { logLevelArgument, portalArgument } from './arguments.ts';
import { type RunContext, UsageError } from './run-context.ts';

interface ServeFlags {
  /** false with --no-portal. */
  portal?: ServedPortal[] | false;
  tcmu?: boolean;
  takeover?: boolean;
  logLevel: LogLevel;
  json?: boolean;
}

interface DemoFlags {
  dir: string;
  portal?: ServedPortal[];
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
      new Option(
        '--portal <host:port[,tag]>',
        `where initiators reach the iSCSI portal; again for more of them; port 0: any free one; tag: of its portal group, 1 unless given (default: ${DEFAULT_PORTAL})`,
      ).argParser(portalArgument),
    )
    .option('--no-portal', 'no iSCSI portal')
    .option(
      '--tcmu',
      "serve the backstores of LIO's /backstores/user:thin (needs root and a kernel with target_core_user)",
    )
    .option(
      '--takeover',
      'take over from the server that serves these pools: initiators notice a pause, no more; it serves where and as that one does',
    )
    .addOption(logLevel())
    .option('--json', 'print one line of JSON when ready, instead of text')
    .addHelpText(
      'after',
      `
Prints a line that begins with "Ready" when initiators can connect. A pool that cannot be opened is left out; the exit
status is then 1 at the end. On SIGTERM or SIGINT it finishes what is in flight, commits and exits with 0; a second signal ends
it at once. SIGHUP lets a service go on as a new process of the program as it is installed now.

With --takeover the new process goes on with sessions, devices and reservations of the running one; how long initiators have waited
is printed. When it cannot, the running one goes on. Pools that nobody serves yet may be added; without a server it starts as usual.

Examples:
  thinlun serve /srv/pool
  thinlun serve /srv/fast /srv/slow --portal 0.0.0.0:3260
  thinlun serve /srv/pool --portal 10.0.0.1,1 --portal 10.0.1.1,2
  thinlun serve /srv/pool --no-portal --tcmu
  thinlun serve /srv/pool --takeover`,
    )
    .action(async (dirs: string[], flags: ServeFlags) => {
      const { portal, tcmu, json = false, logLevel, takeover = false } = flags;
      if (portal === false && !tcmu && !takeover)
        throw new UsageError('There is nothing to serve on: --no-portal needs --tcmu');
      // The server is most of the program: other commands do not load it.
      const { serve } = await import('./serve.ts');
      const portals = portal === false ? [] : (portal ?? null);
      await serve(context, dirs, { portals, tcmu: tcmu ?? null, takeover, logLevel, json });
    });

  program
    .command('demo')
    .description('make a demo pool with one volume, if there is none, and serve it')
    .option('--dir <dir>', 'the folder of the pool', defaultDemoDir())
    .addOption(
      new Option(
        '--portal <host:port[,tag]>',
        `where initiators reach the iSCSI portal; again for more of them (default: ${DEFAULT_PORTAL})`,
      ).argParser(portalArgument),
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
      const { dir, portal, logLevel, json = false } = flags;
      await serveDemo(context, dir, { portals: portal ?? null, tcmu: false, takeover: false, logLevel, json });
    });
}
