import { resolve } from 'node:path';
import type { Command } from 'commander';
import { formatSize } from '../base/units.ts';
import type { SetVolumeMessage, VolumeMessage } from '../daemon/control-messages.ts';
import {
  logicalBlockSizeArgument,
  nameArgument,
  onOffArgument,
  physicalBlockSizeArgument,
  sizeArgument,
} from './arguments.ts';
import { addReservationCommands } from './reservation-commands.ts';
import { type RunContext, UsageError } from './run-context.ts';
import { addSnapshotCommands } from './snapshot-commands.ts';
import { withPool } from './with-pool.ts';

export function addVolumeCommands(program: Command, context: RunContext): void {
  const { output } = context;
  const volume = program.command('volume').description('make, list, snapshot, resize and delete the volumes of a pool');

  volume
    .command('create')
    .description('make a thin volume; a server that has the pool open serves it at once')
    .argument('<dir>', "the pool's folder")
    .argument('<name>', "the volume's name", nameArgument)
    .option('--size <size>', 'its size, as in 1G; takes no space until it is written', sizeArgument)
    .option('--external-origin <path>', 'a file or device that shows through until it is written over; never changed')
    .option('--logical-block-size <bytes>', '512 (the default) or 4096', logicalBlockSizeArgument)
    .option('--physical-block-size <bytes>', 'what initiators are told to align to (4K)', physicalBlockSizeArgument)
    .option('--removable', 'initiators may eject it')
    .option('--read-only', 'initiators see a write-protected disk')
    .option('--json', 'print the new volume as JSON')
    .addHelpText(
      'after',
      `
Examples:
  thinlun volume create /srv/pool web --size 20G
  thinlun volume create /srv/pool db --size 1T --logical-block-size 4096
  thinlun volume create /srv/pool vm1 --external-origin /srv/images/debian.raw`,
    )
    .action(async (dir: string, name: string, flags: CreateFlags) => {
      const { size: sizeBytes, logicalBlockSize, physicalBlockSize, removable, readOnly } = flags;
      const externalOrigin = flags.externalOrigin === undefined ? undefined : resolve(flags.externalOrigin);
      if (sizeBytes === undefined && externalOrigin === undefined) {
        throw new UsageError('volume create: say how large it is, with --size 1G');
      }
      const settings = { physicalBlockSize, removable, readOnly };
      const request = { name, sizeBytes, logicalBlockSize, externalOrigin, ...settings };
      const made = await withPool(dir, (pool) => pool.createVolume(request));
      if (flags.json) output.json(made);
      else output.line(`Created the volume "${made.name}": ${formatSize(made.sizeBytes)}, LUN ${made.lun}.`);
    });

  volume
    .command('list')
    .description('list the volumes of a pool')
    .argument('<dir>', "the pool's folder")
    .option('--json', 'print as JSON; sizes are bytes')
    .addHelpText(
      'after',
      `
Examples:
  thinlun volume list /srv/pool
  thinlun volume list /srv/pool --json | jq -r '.[].name'`,
    )
    .action(async (dir: string, flags: { json?: boolean }) => {
      const volumes = await withPool(dir, (pool) => pool.listVolumes(), { readOnlyFallback: true });
      if (flags.json) output.json(volumes);
      else if (volumes.length === 0) output.line('No volumes.');
      else {
        output.table(VOLUME_COLUMNS, volumes.map(volumeRow));
        for (const { name, externalOrigin } of volumes) {
          if (externalOrigin === null || externalOrigin.problem === null) continue;
          output.line(`\nThe external origin of "${name}" is not what it was: ${externalOrigin.problem}`);
        }
      }
    });

  addSnapshotCommands(volume, context);
  addReservationCommands(volume, context);

  volume
    .command('set')
    .description('set properties of a volume, at once and for good; initiators are told')
    .argument('<dir>', "the pool's folder")
    .argument('<name>', "the volume's name")
    .option('--read-only <on|off>', 'initiators see a write-protected disk', onOffArgument)
    .option('--removable <on|off>', 'initiators may eject it', onOffArgument)
    .option('--physical-block-size <bytes>', 'what initiators are told to align to', physicalBlockSizeArgument)
    .option('--json', 'print the volume as JSON')
    .addHelpText(
      'after',
      `
What was answered before a volume becomes read-only is in it, and durable.

Examples:
  thinlun volume set /srv/pool golden --read-only on
  thinlun volume set /srv/pool scratch --physical-block-size 64K --removable off`,
    )
    .action(async (dir: string, name: string, { json, ...request }: SetFlags) => {
      if (Object.keys(request).length === 0) throw new UsageError('volume set: say what to set, as in --read-only on');
      const set = await withPool(dir, (pool) => pool.setVolume(name, request));
      if (json) output.json(set);
      else {
        const access = set.readOnly ? 'read-only' : 'writable';
        const medium = set.removable ? 'removable' : 'fixed';
        const physical = formatSize(set.physicalBlockSize);
        output.line(`The volume "${set.name}" is ${access} and ${medium}, with physical blocks of ${physical}.`);
      }
    });

  volume
    .command('resize')
    .description('change the size of a volume; initiators are told')
    .argument('<dir>', "the pool's folder")
    .argument('<name>', "the volume's name")
    .requiredOption('--size <size>', 'its new size, as in 2G', sizeArgument)
    .option('--shrink', 'allow a smaller size: what lies past the new end is lost')
    .option('--json', 'print the volume as JSON')
    .addHelpText(
      'after',
      `
Examples:
  thinlun volume resize /srv/pool web --size 40G
  thinlun volume resize /srv/pool scratch --size 1G --shrink`,
    )
    .action(async (dir: string, name: string, flags: ResizeFlags) => {
      const request = { sizeBytes: flags.size, allowShrink: flags.shrink };
      const resized = await withPool(dir, (pool) => pool.resizeVolume(name, request));
      if (flags.json) output.json(resized);
      else output.line(`The volume "${resized.name}" has ${formatSize(resized.sizeBytes)} now.`);
    });

  volume
    .command('delete')
    .description('delete a volume with all its data, at once and without asking')
    .argument('<dir>', "the pool's folder")
    .argument('<name>', "the volume's name")
    .option('--json', 'print what was deleted as JSON')
    .addHelpText(
      'after',
      `
Initiators that use it lose it: their commands fail from then on.

Examples:
  thinlun volume delete /srv/pool scratch`,
    )
    .action(async (dir: string, name: string, flags: { json?: boolean }) => {
      await withPool(dir, (pool) => pool.deleteVolume(name));
      if (flags.json) output.json({ deleted: name });
      else output.line(`Deleted the volume "${name}".`);
    });
}

interface CreateFlags {
  size?: number;
  externalOrigin?: string;
  logicalBlockSize?: 512 | 4096;
  physicalBlockSize?: number;
  removable?: boolean;
  readOnly?: boolean;
  json?: boolean;
}

interface SetFlags extends SetVolumeMessage {
  json?: boolean;
}

interface ResizeFlags {
  size: number;
  shrink?: boolean;
  json?: boolean;
}

const VOLUME_COLUMNS = [
  { title: 'NAME' },
  { title: 'LUN', right: true },
  { title: 'SIZE', right: true },
  { title: 'MAPPED', right: true },
  { title: 'BLOCK', right: true },
  { title: 'ACCESS' },
  { title: 'ORIGIN' },
  { title: 'SERIAL' },
  { title: 'BACKSTORES' },
];

function volumeRow(volume: VolumeMessage): string[] {
  return [
    volume.name,
    String(volume.lun),
    formatSize(volume.sizeBytes),
    formatSize(volume.mappedBytes),
    String(volume.logicalBlockSize),
    accessOf(volume),
    volume.origin ?? volume.externalOrigin?.path ?? '-',
    volume.serial,
    volume.backstores.join(',') || '-',
  ];
}

function accessOf({ readOnly, removable, receivedBytes }: VolumeMessage): string {
  if (receivedBytes !== null) return 'receiving';
  return `${readOnly ? 'ro' : 'rw'}${removable ? ',removable' : ''}`;
}
