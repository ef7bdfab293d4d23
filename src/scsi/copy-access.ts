import { equalBytes } from '../base/bytes.ts';
import type { Command } from './command.ts';
import { Conflict } from './conflict.ts';
import type { Designator } from './copy-list.ts';
import { MEDIUM_NOT_PRESENT, NO_SENSE, NOT_READY_CAUSE_NOT_REPORTABLE, type Sense, WRITE_PROTECTED } from './sense.ts';
import type { UnitState } from './unit-state.ts';

/** What a copy may touch: nothing that its nexus could not read and write itself. */

/** The answer to a command that would have to end with RESERVATION CONFLICT; not a sense code of the standards. */
export const RESERVED: Sense = -1;

/** Why the nexus of `command` may not read (or, for a destination, write) `unit` now; NO_SENSE when it may. */
export function copyRefusal(command: Command, unit: UnitState, isDestination: boolean): Sense {
  const { nexus } = command.task;
  const its = unit.nexuses.get(nexus);
  // It was there when the copy began.
  if (its === undefined && unit !== command.unit) return NOT_READY_CAUSE_NOT_REPORTABLE;
  if (unit.reservations.refuses(nexus, isDestination ? Conflict.WRITE : Conflict.READ)) return RESERVED;
  if (unit.operation !== null) return unit.operation.sense;
  if (!unit.mediumPresent) return MEDIUM_NOT_PRESENT;
  if (isDestination && (unit.writeProtected || its?.readOnly === true)) return WRITE_PROTECTED;
  return NO_SENSE;
}

const BINARY = 1;
const ASCII = 2;
const T10_VENDOR = 1;
const NAA = 3;

/** The unit that the nexus of `command` knows by `designator`; null when there is none for it. */
export function findByDesignator(command: Command, designator: Designator): UnitState | null {
  const { inventory, task } = command;
  if (designator.association !== 0) return null;
  if (designator.type === NAA && designator.codeSet === BINARY) {
    return inventory.find(task.nexus, designator.bytes)?.state ?? null;
  }
  if (designator.type !== T10_VENDOR || designator.codeSet !== ASCII) return null;
  for (const lun of inventory.luns(task.nexus)) {
    const unit = inventory.unit(task.nexus, lun)?.state;
    if (unit === undefined) continue;
    const name = `${unit.vendor.padEnd(8)}${unit.designation}`;
    if (equalBytes(Buffer.from(name, 'latin1'), designator.bytes)) return unit;
  }
  return null;
}

/** Bytes `[a, a + length)` and `[b, b + length)` have some in common. */
export function overlap(a: number, b: number, length: number): boolean {
  return a < b + length && b < a + length;
}
