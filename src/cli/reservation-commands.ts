import type { Command } from 'commander';
import { StorageError } from '../base/errors.ts';
import type { NexusMessage, VolumeReservationsMessage } from '../daemon/reservation-messages.ts';
import type { Output } from './output.ts';
import type { RunContext } from './run-context.ts';
import { withPool } from './with-pool.ts';

/** `thinlun volume reservations` and its `clear`, below the command `volume`. */
export function addReservationCommands(volume: Command, { output }: RunContext): void {
  const reservations = volume
    .command('reservations')
    .description('show which initiators have registered with a volume, and who holds it reserved')
    .argument('<dir>', "the pool's folder")
    .argument('[name]', "the volume's name; without it all volumes that have any")
    .option('--json', 'print as JSON, volumes without any included')
    .addHelpText(
      'after',
      `
Cluster software uses reservations to keep a node that has failed from writing. A server knows all of them; without one, only those
that outlive it are shown (APTPL).

Examples:
  thinlun volume reservations /srv/pool
  thinlun volume reservations /srv/pool shared
  thinlun volume reservations clear /srv/pool shared --initiator iqn.1993-08.org.debian:01:node2`,
    )
    .action(async (dir: string, name: string | undefined, flags: { json?: boolean }) => {
      const all = await withPool(dir, (pool) => pool.listReservations(), { readOnlyFallback: true });
      const wanted = name === undefined ? all : all.filter(({ volume: its }) => its === name);
      if (name !== undefined && wanted.length === 0) {
        throw new StorageError('ENOENT', `There is no volume "${name}" in the pool "${dir}"`);
      }
      if (flags.json) output.json(wanted);
      else print(output, wanted);
    });

  reservations
    .command('clear')
    .description('take registrations and reservations of a volume away, as of a node that will not come back')
    .argument('<dir>', "the pool's folder")
    .argument('<name>', "the volume's name")
    .option('--initiator <iqn>', 'only those of this initiator')
    .option('--force', 'though an initiator that loses them is logged in')
    .option('--json', 'print what is left as JSON')
    .addHelpText(
      'after',
      `
They may be all that keeps two nodes from writing at once: make sure that at most one does. Initiators are told.

Examples:
  thinlun volume reservations clear /srv/pool shared --initiator iqn.1993-08.org.debian:01:node2
  thinlun volume reservations clear /srv/pool shared --force`,
    )
    .action(async (dir: string, name: string, { initiator, force, json }: ClearFlags) => {
      const left = await withPool(dir, (pool) => pool.clearReservations(name, { initiator, force }));
      if (json) output.json(left);
      else if (isFree(left))
        output.line(`Nobody has registered with the volume "${name}" any more, and nobody holds it.`);
      else print(output, [left]);
    });
}

interface ClearFlags {
  initiator?: string;
  force?: boolean;
  json?: boolean;
}

const COLUMNS = [
  { title: 'VOLUME' },
  { title: 'RESERVATION' },
  { title: 'HOLDS' },
  { title: 'KEY' },
  { title: 'INITIATOR' },
  { title: 'ISID' },
  { title: 'PORT', right: true },
  { title: 'LOGGED IN' },
  { title: 'KEPT' },
];

function isFree({ registrants, reservedBy }: VolumeReservationsMessage): boolean {
  return registrants.length === 0 && reservedBy === null;
}

function print(output: Output, volumes: readonly VolumeReservationsMessage[]): void {
  const rows = volumes.flatMap(rowsOf);
  if (rows.length === 0) output.line('No registrations and no reservations.');
  else output.table(COLUMNS, rows);
}

function rowsOf({ volume, type, survivesRestart, registrants, reservedBy }: VolumeReservationsMessage): string[][] {
  const kept = survivesRestart ? 'yes' : 'no';
  const rows = registrants.map((registrant) => {
    const { key, holdsReservation } = registrant;
    return [volume, type ?? '-', holdsReservation ? 'yes' : 'no', key, ...nexusCells(registrant), kept];
  });
  if (reservedBy !== null) rows.push([volume, 'RESERVE', 'yes', '-', ...nexusCells(reservedBy), 'no']);
  return rows;
}

function nexusCells({ initiator, isid, targetPort, loggedIn }: NexusMessage): string[] {
  const present = loggedIn === null ? '-' : loggedIn ? 'yes' : 'no';
  return [initiator, isid, String(targetPort), present];
}
