import type { Command } from 'commander';
import { formatSize } from '../base/units.ts';
import type { SessionMessage } from '../daemon/access-messages.ts';
import { describePortals } from '../daemon/connect-lines.ts';
import type { PoolMessage, ServerMessage } from '../daemon/control-messages.ts';
import { nameArgument, sizeArgument } from './arguments.ts';
import type { Output } from './output.ts';
import { addOptionFlags, describeOptions, type OptionFlags } from './pool-option-flags.ts';
import { addPoolRenumberCommand } from './pool-renumber.ts';
import { addPoolSetCommand } from './pool-set.ts';
import { type RunContext, UsageError } from './run-context.ts';
import { adviceForDevices, describeDevice, describeRefusal, describeTcmu } from './tcmu-lines.ts';
import { withPool } from './with-pool.ts';

interface GrowFlags {
  dataSize?: number;
  metadataSize?: number;
  json?: boolean;
}

export interface CreateFlags extends OptionFlags {
  dataSize?: number;
  blockSize?: number;
  metadataSize?: number;
  data?: string;
  metadata?: string;
  name?: string;
  json?: boolean;
}

export function addPoolCommands(program: Command, context: RunContext): void {
  const pool = program.command('pool').description('make a pool, look at it, make it larger');

  const createCommand = pool
    .command('create')
    .description('make a pool in a folder')
    .argument('<dir>', 'the folder; made if it is not there')
    .option('--data-size <size>', 'space for data, as in 10G; sparse, so it may be more than there is', sizeArgument)
    .option('--block-size <size>', 'unit of allocation: 64K (the default) to 1G, a multiple of 64K', sizeArgument)
    .option('--metadata-size <size>', 'space for metadata (default: 48 bytes a block, at least 2M)', sizeArgument)
    .option('--data <path>', 'a block device or file for the data, instead of a file in the folder')
    .option('--metadata <path>', 'a block device or file for the metadata, instead of a file in the folder')
    .option('--name <name>', "the pool's name (default: the folder's)", nameArgument);
  addOptionFlags(createCommand)
    .option('--json', 'print the new pool as JSON')
    .addHelpText(
      'after',
      `
Examples:
  thinlun pool create /srv/pool --data-size 100G
  thinlun pool create /srv/pool --data /dev/vg0/data --metadata /dev/vg0/metadata --block-size 256K
  thinlun pool create /srv/pool --data-size 20G --auto-extend-limit 200G`,
    )
    .action(async (dir: string, flags: CreateFlags) => (await import('./pool-create.ts')).create(context, dir, flags));

  addPoolSetCommand(pool, context);
  addPoolRenumberCommand(pool, context);

  pool
    .command('status')
    .description('show how full a pool is and how it does')
    .argument('<dir>', "the pool's folder")
    .option('--dm', "print the kernel's status lines of the pool and of each volume, as dmsetup status does")
    .option('--json', 'print as JSON; sizes are bytes')
    .addHelpText(
      'after',
      `
Examples:
  thinlun pool status /srv/pool
  thinlun pool status /srv/pool --json | jq .dataUsedBytes
  thinlun pool status /srv/pool --dm`,
    )
    .action(async (dir: string, flags: { dm?: boolean; json?: boolean }) => {
      if (flags.dm) {
        await printStatusLines(context.output, dir, flags.json ?? false);
        return;
      }
      const status = await withPool(dir, (open) => open.status(), { readOnlyFallback: true });
      if (flags.json) context.output.json(status);
      else printStatus(context.output, status);
    });

  pool
    .command('grow')
    .description('make a pool larger, online too; writes that wait for space go on')
    .argument('<dir>', "the pool's folder")
    .option('--data-size <size>', 'the new size of the data, as in 200G', sizeArgument)
    .option('--metadata-size <size>', 'the new size of the metadata, as in 64M', sizeArgument)
    .option('--json', 'print the pool as JSON')
    .addHelpText(
      'after',
      `
Files are made that large. A block device is made larger first, by its own means; then its new size is given here.

Examples:
  thinlun pool grow /srv/pool --data-size 200G
  thinlun pool grow /srv/pool --metadata-size 64M`,
    )
    .action(async (dir: string, flags: GrowFlags) => {
      const { dataSize: dataSizeBytes, metadataSize: metadataSizeBytes } = flags;
      if (dataSizeBytes === undefined && metadataSizeBytes === undefined) {
        throw new UsageError('pool grow: give --data-size, --metadata-size or both');
      }
      const status = await withPool(dir, (open) => open.grow({ dataSizeBytes, metadataSizeBytes }));
      if (flags.json) context.output.json(status);
      else {
        const sizes = `${formatSize(status.dataSizeBytes)} of data, ${formatSize(status.metadataSizeBytes)} of metadata`;
        context.output.line(`The pool "${status.name}" has ${sizes} now.`);
      }
    });
}

async function printStatusLines(output: Output, dir: string, json: boolean): Promise<void> {
  const lines = await withPool(dir, (open) => open.statusLines(), { readOnlyFallback: true });
  if (json) output.json(lines);
  else for (const { name, line } of [lines.pool, ...lines.volumes]) output.line(`${name}: ${line}`);
}

function printStatus(output: Output, status: PoolMessage): void {
  const { server } = status;
  const usage = (used: number, size: number): string =>
    `${formatSize(used)} of ${formatSize(size)} used (${((used / size) * 100).toFixed(1)}%)`;
  const low = status.dataIsLow ? `; down to the low-water mark of ${formatSize(status.lowWaterBytes)}` : '';
  const features = describeOptions(status);
  output.fields([
    ['pool', `${status.name} (${status.uuid})`],
    ['folder', status.directory],
    ['mode', status.needsCheck ? `${status.mode}, needs check` : status.mode],
    ['data', `${usage(status.dataUsedBytes, status.dataSizeBytes)}${low}`],
    ['metadata', `${usage(status.metadataUsedBytes, status.metadataSizeBytes)}${status.metadataIsLow ? '; low' : ''}`],
    ['block size', formatSize(status.blockSizeBytes)],
    ...(features === '' ? [] : ([['features', features]] as const)),
    ['volumes', volumeCount(status)],
    ['transaction', String(status.transactionId)],
    ['access', describeAccess(status)],
    ['server', server === null ? 'none' : `process ${server.pid}, thinlun ${server.version}`],
    ...(server === null
      ? []
      : ([
          ['target', server.target],
          ['portal', describePortals(server).join(', ') || 'none'],
          ['tcmu', describeTcmu(server)],
          ...(server.tcmuDevices?.devices ?? []).map((device) => ['backstore', describeDevice(device)] as const),
          ...(server.tcmuDevices?.refusals ?? []).map((refusal) => ['refused', describeRefusal(refusal)] as const),
          ['protection', describeProtection(server)],
          ...server.sessions.map((session) => ['session', describeSession(session)] as const),
        ] as const)),
  ]);
  if (status.needsCheck || status.mode !== 'write') output.line(adviceFor(status));
  const advice = adviceForDevices(server);
  if (advice !== null) output.line(advice);
}

function adviceFor(status: PoolMessage): string {
  const { directory, mode, failsWhenFull, options } = status;
  if (status.needsCheck) {
    return `\nAn earlier failure left the metadata in need of a check: run "thinlun check ${directory}".`;
  }
  if (mode === 'out-of-data-space') {
    const writes = failsWhenFull ? 'writes that need some fail' : 'writes that need some wait';
    return `\nThere is no data space left: ${writes}. Grow the pool, delete a volume, or trim inside the initiators (fstrim).`;
  }
  if (mode === 'out-of-metadata-space') {
    return '\nThere is no metadata space left: writes that need some fail. Grow the metadata, or delete a volume.';
  }
  if (mode === 'read-only' && options.readOnly) {
    return `\nThe pool is set read-only: "thinlun pool set ${directory} --read-only off" takes that back.`;
  }
  return `\nThe pool takes no writes: look at the log of its server, and run "thinlun check ${directory}".`;
}

function describeProtection({ protection }: ServerMessage): string {
  if (protection === null) return 'none';
  const { ioFlusher, lockedBytes, swap } = protection;
  return [
    ioFlusher ? 'IO_FLUSHER' : 'no IO_FLUSHER',
    `${formatSize(lockedBytes)} of program locked`,
    swap === 'possible' ? 'may be swapped out' : swap === 'excluded' ? 'kept out of swap' : 'no swap',
  ].join(', ');
}

function describeAccess({ access, directory }: PoolMessage): string {
  if (access.problem !== null) return `nobody: ${access.problem}`;
  if (access.open) return 'open to all';
  const { entryCount } = access;
  return `${entryCount === 1 ? '1 entry' : `${entryCount} entries`}; see "thinlun access list ${directory}"`;
}

function describeSession({ initiator, user, authentication, volumes }: SessionMessage): string {
  const who = user === null ? 'authentication: none' : `${authentication} as ${user}`;
  const seen = volumes.length > 3 ? `${volumes.length} volumes` : volumes.join(', ') || 'no volumes';
  return `${initiator} (${who}; ${seen})`;
}

function volumeCount({ volumeCount, deletedVolumeCount, deletedBytes }: PoolMessage): string {
  if (deletedVolumeCount === 0) return String(volumeCount);
  return `${volumeCount}; ${deletedVolumeCount} more being deleted, ${formatSize(deletedBytes)} to go`;
}
