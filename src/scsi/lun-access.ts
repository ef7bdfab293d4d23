import { Access } from './command.ts';

/** What one initiator may do at the LUNs of a target. May say something else later: see `Target.accessChanged`. */
export interface LunAccess {
  /** NONE: for this initiator the LUN is not there. READ: it is write-protected. */
  of(lun: number): Access;
}

/** Of an initiator that nothing is kept from. */
export const FULL_ACCESS: LunAccess = { of: () => Access.WRITE };
