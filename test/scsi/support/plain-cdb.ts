import type { CommandRow } from '../../../src/scsi/command.ts';
import { Opcode } from '../../../src/scsi/spec.ts';

/** The CDB of a command with all its fields zero. */
export function plainCdb(row: CommandRow): number[] {
  const cdb = new Array<number>(row.cdbLength).fill(0);
  cdb[0] = row.opcode;
  setServiceAction(row, cdb);
  return cdb;
}

/** Makes `cdb` one of `row`, which has the opcode already. */
export function setServiceAction(row: CommandRow, cdb: number[] | Uint8Array): void {
  if (row.serviceAction < 0) return;
  if (row.opcode === Opcode.VARIABLE_LENGTH) {
    cdb[7] = row.cdbLength - 8;
    cdb[8] = row.serviceAction >>> 8;
    cdb[9] = row.serviceAction & 0xff;
  } else cdb[1] = (cdb[1]! & 0xe0) | row.serviceAction;
}
