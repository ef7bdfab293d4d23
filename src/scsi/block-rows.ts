import * as block from './block-commands.ts';
import { Access, type CommandHandler, type CommandRow, During } from './command.ts';
import { HOURS_TIMEOUT, LUN_BITS, long, row } from './command-row.ts';
import { compareAndWrite, orWrite } from './compare-and-write.ts';
import { Conflict } from './conflict.ts';
import { getLbaStatus } from './lba-status.ts';
import { preventAllow, startStopUnit } from './medium.ts';
import * as report from './report.ts';
import * as sanitize from './sanitize.ts';
import { SanitizeAction, ServiceAction, VariableLengthAction } from './spec.ts';
import { unmap } from './unmap.ts';
import { verify, writeAndVerify } from './verify.ts';
import { writeAtomic } from './write-atomic.ts';
import { writeSame } from './write-same.ts';

/** The commands of a direct access block device (SBC-4). */
const { NONE, READ, WRITE } = Access;

const wholeMedium = { timeout: HOURS_TIMEOUT, during: During.FAILURE };

export const BLOCK_ROWS: readonly CommandRow[] = [
  row('FORMAT UNIT', WRITE, '04 3f 00 00 00 00', sanitize.formatUnit, wholeMedium),
  row('REZERO UNIT', READ, '01 00 00 00 00 00', block.seek, { ignoredBits: LUN_BITS }),
  row('SEEK(6)', READ, '0b 1f ff ff 00 00', block.seek),
  row('SEEK(10)', READ, '2b 00 ff ff ff ff 00 00 00 00', block.seek),
  row('READ(6)', READ, '08 1f ff ff ff 00', block.read),
  row('WRITE(6)', WRITE, '0a 1f ff ff ff 00', block.write),
  row('START STOP UNIT', NONE, '1b 01 00 0f f7 00', startStopUnit, { ...long, conflict: Conflict.START }),
  row('READ CAPACITY(10)', READ, '25 00 00 00 00 00 00 00 00 00', report.readCapacity10, {
    conflict: Conflict.RESERVED,
  }),
  row('READ(10)', READ, '28 18 ff ff ff ff 3f ff ff 00', block.read),
  row('WRITE(10)', WRITE, '2a 18 ff ff ff ff 3f ff ff 00', block.write),
  row('WRITE AND VERIFY(10)', WRITE, '2e 12 ff ff ff ff 3f ff ff 00', writeAndVerify),
  row('VERIFY(10)', READ, '2f 16 ff ff ff ff 3f ff ff 00', verify, long),
  row('PRE-FETCH(10)', READ, '34 02 ff ff ff ff 3f ff ff 00', block.preFetch),
  row('SYNCHRONIZE CACHE(10)', READ, '35 06 ff ff ff ff 3f ff ff 00', block.synchronizeCache, {
    ...long,
    conflict: Conflict.WRITE,
  }),
  row('READ DEFECT DATA(10)', READ, '37 00 1f 00 00 00 00 ff ff 00', report.readDefectData10),
  row('WRITE SAME(10)', WRITE, '41 18 ff ff ff ff 3f ff ff 00', writeSame, long),
  row('UNMAP', WRITE, '42 01 00 00 00 00 3f ff ff 00', unmap, long),
  row('SANITIZE, OVERWRITE', WRITE, '48 a1 00 00 00 00 00 ff ff 00', sanitize.sanitizeOverwrite, {
    action: SanitizeAction.OVERWRITE,
    ...wholeMedium,
  }),
  row('SANITIZE, BLOCK ERASE', WRITE, '48 a2 00 00 00 00 00 00 00 00', sanitize.sanitizeErase, {
    action: SanitizeAction.BLOCK_ERASE,
    ...wholeMedium,
  }),
  row('SANITIZE, CRYPTOGRAPHIC ERASE', WRITE, '48 a3 00 00 00 00 00 00 00 00', sanitize.sanitizeErase, {
    action: SanitizeAction.CRYPTOGRAPHIC_ERASE,
    ...wholeMedium,
  }),
  row('SANITIZE, EXIT FAILURE MODE', WRITE, '48 bf 00 00 00 00 00 00 00 00', sanitize.sanitizeExitFailureMode, {
    action: SanitizeAction.EXIT_FAILURE_MODE,
    during: During.FAILURE,
  }),
  row('READ(16)', READ, '88 18 ff ff ff ff ff ff ff ff ff ff ff ff 3f 00', block.read),
  row('COMPARE AND WRITE', WRITE, '89 18 ff ff ff ff ff ff ff ff 00 00 00 ff 3f 00', compareAndWrite),
  row('WRITE(16)', WRITE, '8a 18 ff ff ff ff ff ff ff ff ff ff ff ff 3f 00', block.write),
  row('ORWRITE(16)', WRITE, '8b 18 ff ff ff ff ff ff ff ff ff ff ff ff 3f 00', orWrite),
  row('WRITE AND VERIFY(16)', WRITE, '8e 12 ff ff ff ff ff ff ff ff ff ff ff ff 3f 00', writeAndVerify),
  row('VERIFY(16)', READ, '8f 16 ff ff ff ff ff ff ff ff ff ff ff ff 3f 00', verify, long),
  row('PRE-FETCH(16)', READ, '90 02 ff ff ff ff ff ff ff ff ff ff ff ff 3f 00', block.preFetch),
  row('SYNCHRONIZE CACHE(16)', READ, '91 06 ff ff ff ff ff ff ff ff ff ff ff ff 3f 00', block.synchronizeCache, {
    ...long,
    conflict: Conflict.WRITE,
  }),
  row('WRITE SAME(16)', WRITE, '93 19 ff ff ff ff ff ff ff ff ff ff ff ff 3f 00', writeSame, long),
  row('WRITE ATOMIC(16)', WRITE, '9c 18 ff ff ff ff ff ff ff ff 00 00 ff ff 3f 00', writeAtomic),
  row('READ CAPACITY(16)', READ, '9e 10 00 00 00 00 00 00 00 00 ff ff ff ff 00 00', report.readCapacity16, {
    action: ServiceAction.READ_CAPACITY_16,
    conflict: Conflict.RESERVED,
  }),
  row('GET LBA STATUS(16)', READ, '9e 12 ff ff ff ff ff ff ff ff ff ff ff ff ff 00', getLbaStatus, {
    action: ServiceAction.GET_LBA_STATUS_16,
  }),
  row('READ(12)', READ, 'a8 18 ff ff ff ff ff ff ff ff 3f 00', block.read),
  row('WRITE(12)', WRITE, 'aa 18 ff ff ff ff ff ff ff ff 3f 00', block.write),
  row('WRITE AND VERIFY(12)', WRITE, 'ae 12 ff ff ff ff ff ff ff ff 3f 00', writeAndVerify),
  row('VERIFY(12)', READ, 'af 16 ff ff ff ff ff ff ff ff 3f 00', verify, long),
  row('READ DEFECT DATA(12)', READ, 'b7 1f 00 00 00 00 ff ff ff ff 00 00', report.readDefectData12),
];

/** Group number, service action, flags; the tags of protection information (from byte 20 on) mean nothing without it. */
const usage32 = (action: number, flags: string): string =>
  `7f 00 00 00 00 00 3f 18 00 ${action.toString(16)} ${flags} 00 ff ff ff ff ff ff ff ff ff ff ff ff ff ff ff ff ff ff ff ff`;

function row32(name: string, access: Access, action: number, flags: string, handler: CommandHandler): CommandRow {
  return row(name, access, usage32(action, flags), handler, { action, ...long });
}

export const LONG_ROWS: readonly CommandRow[] = [
  row32('READ(32)', READ, VariableLengthAction.READ_32, '18', block.read),
  row32('VERIFY(32)', READ, VariableLengthAction.VERIFY_32, '16', verify),
  row32('WRITE(32)', WRITE, VariableLengthAction.WRITE_32, '18', block.write),
  row32('WRITE AND VERIFY(32)', WRITE, VariableLengthAction.WRITE_AND_VERIFY_32, '12', writeAndVerify),
  row32('WRITE SAME(32)', WRITE, VariableLengthAction.WRITE_SAME_32, '19', writeSame),
];

export const REMOVABLE_ROWS: readonly CommandRow[] = [
  row('PREVENT ALLOW MEDIUM REMOVAL', NONE, '1e 00 00 00 03 00', preventAllow, { conflict: Conflict.PREVENT }),
];
