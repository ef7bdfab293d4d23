import { cdbLengthOf } from './cdb.ts';
import { Access, Attention, type CommandHandler, type CommandRow, During } from './command.ts';
import { Conflict } from './conflict.ts';

/**
 * What makes the rows of the command tables. The third column of a row is the CDB usage data: the opcode, then for every byte the bits that may be
 * set. Byte 1 of an opcode with service actions holds the action instead. The control byte is 00: NACA is not supported (no NORMACA).
 */

export interface RowOptions {
  /** Service action. */
  readonly action?: number;
  /** Seconds. */
  readonly timeout?: number;
  readonly attention?: Attention;
  readonly during?: During;
  /** By default what the access needs: NONE conflicts with RESERVE only. */
  readonly conflict?: Conflict;
  /** See `CommandRow`. */
  readonly ignoredBits?: number;
}

/** Seconds: what moves a bounded amount of data; what may walk over the whole medium or flush it. */
const DATA_TIMEOUT = 30;
const LONG_TIMEOUT = 300;
export const long: RowOptions = { timeout: LONG_TIMEOUT };
/** SCSI-2 initiators put the LUN into byte 1 of what they send first. */
export const LUN_BITS = 0xe0;
/** What is answered whatever attention waits. */
export const early: RowOptions = {
  attention: Attention.IGNORE,
  conflict: Conflict.NEVER,
  during: During.BOTH,
  ignoredBits: LUN_BITS,
};

const CONFLICT_OF: Readonly<Record<Access, Conflict>> = {
  [Access.NONE]: Conflict.RESERVED,
  [Access.READ]: Conflict.READ,
  [Access.WRITE]: Conflict.WRITE,
};
/** What may take as long as it takes to go over the whole medium. */
export const HOURS_TIMEOUT: number = 24 * 3600;

export function row(
  name: string,
  access: Access,
  usage: string,
  handler: CommandHandler,
  options: RowOptions = {},
): CommandRow {
  const bytes = Uint8Array.from(usage.split(' '), (text) => Number.parseInt(text, 16));
  return {
    name,
    opcode: bytes[0]!,
    serviceAction: options.action ?? -1,
    cdbLength: cdbLengthOf(bytes[0]!),
    usage: bytes,
    ignoredBits: options.ignoredBits ?? 0,
    access,
    attention: options.attention ?? Attention.REPORT,
    during: options.during ?? During.NEITHER,
    conflict: options.conflict ?? CONFLICT_OF[access],
    recommendedTimeoutSeconds: options.timeout ?? DATA_TIMEOUT,
    handler,
  };
}
