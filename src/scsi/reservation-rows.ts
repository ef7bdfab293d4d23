import { Access, type CommandHandler, type CommandRow } from './command.ts';
import { LUN_BITS, row } from './command-row.ts';
import { Conflict } from './conflict.ts';
import * as reserveIn from './persistent-reserve-in.ts';
import * as reserveOut from './persistent-reserve-out.ts';
import { release, reserve } from './reserve.ts';
import { PersistentReserveIn as In, PersistentReserveOut as Out } from './spec.ts';

/** The commands of reservations (SPC-4 6.15, 6.16; SPC-2 7.16, 7.17, 7.21, 7.22). Under LIO the kernel has them. */
const hex = (action: number): string => action.toString(16).padStart(2, '0');

function read(name: string, action: number, handler: CommandHandler): CommandRow {
  const usage = `5e ${hex(action)} 00 00 00 00 00 ff ff 00`;
  return row(`PERSISTENT RESERVE IN, ${name}`, Access.NONE, usage, handler, { action, conflict: Conflict.PERSISTENT });
}

function change(name: string, action: number, handler: CommandHandler): CommandRow {
  const usage = `5f ${hex(action)} ff 00 00 ff ff ff ff 00`;
  return row(`PERSISTENT RESERVE OUT, ${name}`, Access.NONE, usage, handler, { action, conflict: Conflict.PERSISTENT });
}

/** They decide themselves. */
const legacy = { conflict: Conflict.NEVER, ignoredBits: LUN_BITS };

export const RESERVATION_ROWS: readonly CommandRow[] = [
  row('RESERVE(6)', Access.NONE, '16 00 00 00 00 00', reserve, legacy),
  row('RELEASE(6)', Access.NONE, '17 00 00 00 00 00', release, legacy),
  row('RESERVE(10)', Access.NONE, '56 00 00 00 00 00 00 00 00 00', reserve, legacy),
  row('RELEASE(10)', Access.NONE, '57 00 00 00 00 00 00 00 00 00', release, legacy),
  read('READ KEYS', In.READ_KEYS, reserveIn.readKeys),
  read('READ RESERVATION', In.READ_RESERVATION, reserveIn.readReservation),
  read('REPORT CAPABILITIES', In.REPORT_CAPABILITIES, reserveIn.reportCapabilities),
  read('READ FULL STATUS', In.READ_FULL_STATUS, reserveIn.readFullStatus),
  change('REGISTER', Out.REGISTER, reserveOut.registerKey),
  change('RESERVE', Out.RESERVE, reserveOut.reserveUnit),
  change('RELEASE', Out.RELEASE, reserveOut.releaseUnit),
  change('CLEAR', Out.CLEAR, reserveOut.clearAll),
  change('PREEMPT', Out.PREEMPT, reserveOut.preemptKey),
  change('PREEMPT AND ABORT', Out.PREEMPT_AND_ABORT, reserveOut.preemptKey),
  change('REGISTER AND IGNORE EXISTING KEY', Out.REGISTER_AND_IGNORE_EXISTING_KEY, reserveOut.registerAndIgnore),
  change('REGISTER AND MOVE', Out.REGISTER_AND_MOVE, reserveOut.moveReservation),
];
