import type { CommandRow } from './command.ts';

/**
 * When a command of a nexus without the reservation is refused: SPC-4 table 66, SBC-4 table 13, and for RESERVE of SPC-2 that standard's table 10.
 *
 * ```
 *               RESERVE(6), (10)      Write Exclusive     Exclusive Access     of a registrant with Registrants Only
 *                                                                              and All Registrants
 *   NEVER       allowed               allowed             allowed              allowed
 *   RESERVED    conflict              allowed             allowed              allowed
 *   READ        conflict              allowed             conflict             allowed
 *   WRITE       conflict              conflict            conflict             allowed
 *   PERSISTENT  conflict, also of     allowed             allowed              allowed
 *               the holder
 *   START       conflict              WRITE, but allowed with START and no power condition
 *   PREVENT     WRITE, but allowed when it does not prevent
 * ```
 */
export const Conflict = { NEVER: 0, RESERVED: 1, READ: 2, WRITE: 3, PERSISTENT: 4, START: 5, PREVENT: 6 } as const;
export type Conflict = (typeof Conflict)[keyof typeof Conflict];

const of = (...kinds: Conflict[]): number => kinds.reduce<number>((bits, kind) => bits | (1 << kind), 0);

type RefusalName = 'NONE' | 'BY_RESERVE' | 'BY_OWN_RESERVE' | 'BY_WRITE_EXCLUSIVE' | 'BY_EXCLUSIVE_ACCESS';

/** What a nexus is refused: a bit for each `Conflict`. */
export const Refusals: Readonly<Record<RefusalName, number>> = {
  NONE: 0,
  /** Another nexus has it with RESERVE. */
  BY_RESERVE: of(
    Conflict.RESERVED,
    Conflict.READ,
    Conflict.WRITE,
    Conflict.PERSISTENT,
    Conflict.START,
    Conflict.PREVENT,
  ),
  /** The nexus itself has it with RESERVE. */
  BY_OWN_RESERVE: of(Conflict.PERSISTENT),
  BY_WRITE_EXCLUSIVE: of(Conflict.WRITE, Conflict.START, Conflict.PREVENT),
  BY_EXCLUSIVE_ACCESS: of(Conflict.READ, Conflict.WRITE, Conflict.START, Conflict.PREVENT),
};

/** Whether a nexus with these `refusals` may not have that command. */
export function isRefused(refusals: number, row: CommandRow, cdb: Uint8Array): boolean {
  const { conflict } = row;
  if (((refusals >>> conflict) & 1) === 0) return false;
  switch (conflict) {
    case Conflict.START:
      return refusals === Refusals.BY_RESERVE || (cdb[4]! & 0xf1) !== 0x01;
    case Conflict.PREVENT:
      return (cdb[4]! & 0x03) !== 0;
    default:
      return true;
  }
}
