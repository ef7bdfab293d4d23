import { Opcode } from './spec.ts';

/**
 * Commands that write nothing and change the unit for everybody: not for who may only read it. Resets and aborts are let through: initiators cannot do
 * without them.
 */
const CHANGES_UNIT: ReadonlySet<number> = new Set([
  Opcode.MODE_SELECT_6,
  Opcode.MODE_SELECT_10,
  Opcode.START_STOP_UNIT,
  Opcode.PREVENT_ALLOW_MEDIUM_REMOVAL,
  Opcode.RESERVE_6,
  Opcode.RESERVE_10,
  Opcode.PERSISTENT_RESERVE_OUT,
]);

/** Whether a nexus that may only read is refused a command that does not write to the medium. */
export function changesUnit(opcode: number): boolean {
  return CHANGES_UNIT.has(opcode);
}
