import { BLOCK_ROWS, LONG_ROWS, REMOVABLE_ROWS } from './block-rows.ts';
import { flagsField } from './cdb.ts';
import type { CommandRow, CommandTable } from './command.ts';
import { RowIndex } from './command-table.ts';
import { COPY_ROWS } from './copy-rows.ts';
import { ABSENT_ROWS, PRIMARY_ROWS } from './primary-rows.ts';
import { RESERVATION_ROWS } from './reservation-rows.ts';
import { unmap } from './unmap.ts';
import { writeAtomic } from './write-atomic.ts';
import { UNMAP_BITS, writeSame } from './write-same.ts';

/**
 * Every command of the logical unit, once. Dispatch, the checks of a CDB, REPORT SUPPORTED OPERATION CODES and docs/scsi-support.md come out of
 * these tables; an opcode without a row is not supported.
 */
const COMMON: readonly CommandRow[] = [...PRIMARY_ROWS, ...BLOCK_ROWS, ...LONG_ROWS, ...COPY_ROWS];

/** By what the unit and its surroundings have. */
export interface CommandSet {
  /** Behind a `Target`, where reservations are the unit's. */
  readonly inTarget: CommandTable;
  /** Behind somebody else's, as under LIO. */
  readonly alone: CommandTable;
}

export const FIXED_COMMANDS: CommandSet = commandSet(COMMON);
export const REMOVABLE_COMMANDS: CommandSet = commandSet([...COMMON, ...REMOVABLE_ROWS]);

/** What a unit may have or not. */
export interface CommandFeatures {
  readonly removable: boolean;
  /** Its backend offers UNMAP. */
  readonly unmaps: boolean;
  /** Its backend offers atomic writes. */
  readonly atomic: boolean;
}

const sets = new Map<string, CommandSet>();

/** The commands of a unit; units with the same features share them. */
export function commandsOf({ removable, unmaps, atomic }: CommandFeatures): CommandSet {
  if (unmaps && atomic) return removable ? REMOVABLE_COMMANDS : FIXED_COMMANDS;
  const key = `${removable} ${unmaps} ${atomic}`;
  let set = sets.get(key);
  if (set === undefined) {
    let rows: readonly CommandRow[] = removable ? [...COMMON, ...REMOVABLE_ROWS] : COMMON;
    if (!unmaps) rows = withoutUnmap(rows);
    if (!atomic) rows = rows.filter(({ handler }) => handler !== writeAtomic);
    set = commandSet(rows);
    sets.set(key, set);
  }
  return set;
}

function commandSet(rows: readonly CommandRow[]): CommandSet {
  return { inTarget: new RowIndex([...rows, ...RESERVATION_ROWS]), alone: new RowIndex(rows) };
}

/** Neither UNMAP nor WRITE SAME with its UNMAP and ANCHOR bits. */
function withoutUnmap(rows: readonly CommandRow[]): CommandRow[] {
  return rows
    .filter(({ handler }) => handler !== unmap)
    .map((one) => {
      if (one.handler !== writeSame) return one;
      const usage = Uint8Array.from(one.usage);
      usage[flagsField(usage)]! &= ~UNMAP_BITS;
      return { ...one, usage };
    });
}

const ABSENT: CommandTable = new RowIndex(ABSENT_ROWS);

export const ABSENT_COMMANDS: CommandSet = { inTarget: ABSENT, alone: ABSENT };
