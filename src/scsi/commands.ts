import * as block from './block-commands.ts';
import { cdbLengthOf } from './cdb.ts';
import { Access, Attention, type CommandHandler, type CommandRow, type CommandTable } from './command.ts';
import { RowIndex } from './command-table.ts';
import { compareAndWrite, orWrite } from './compare-and-write.ts';
import { inquiry, inquiryOfAbsent } from './inquiry.ts';
import { getLbaStatus } from './lba-status.ts';
import { logSense } from './log-pages.ts';
import { preventAllow, startStopUnit } from './medium.ts';
import { modeSelect, modeSense } from './mode-pages.ts';
import * as report from './report.ts';
import { reportOperationCodes, reportTaskManagement } from './report-support.ts';
import { sendDiagnostic } from './self-test.ts';
import { ServiceAction } from './spec.ts';
import { reportTargetPortGroups } from './target-port-groups.ts';
import { unmap } from './unmap.ts';
import { verify, writeAndVerify } from './verify.ts';
import { WRITE_SAME_UNMAP, writeSame } from './write-same.ts';

/**
 * Every command of the logical unit, once. Dispatch, the checks of a CDB, REPORT SUPPORTED OPERATION CODES and docs/scsi-support.md come out of
 * this table; an opcode without a row here is not supported.
 *
 * The third column is the CDB usage data: the opcode, then for every byte the bits that may be set. Byte 1 of an opcode with service
 * actions holds the action instead. The control byte is 00: NACA is not supported (no NORMACA).
 */
const { NONE, READ, WRITE } = Access;

function row(
  name: string,
  access: Access,
  usage: string,
  handler: CommandHandler,
  options: { action?: number; timeout?: number; attention?: Attention; ignoredBits?: number } = {},
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
    recommendedTimeoutSeconds: options.timeout ?? DATA_TIMEOUT,
    handler,
  };
}

/** Seconds: what moves a bounded amount of data; what may walk over the whole medium or flush it. */
const DATA_TIMEOUT = 30;
const LONG_TIMEOUT = 300;
const long = { timeout: LONG_TIMEOUT };
/** SCSI-2 initiators put the LUN into byte 1 of what they send first. */
const LUN_BITS = 0xe0;

const INQUIRY_USAGE = '12 01 ff ff ff 00';
const REQUEST_SENSE_USAGE = '03 01 00 00 ff 00';
const REPORT_LUNS_USAGE = 'a0 00 ff 00 00 00 ff ff ff ff 00 00';
const early = { attention: Attention.IGNORE, ignoredBits: LUN_BITS };

const COMMON: readonly CommandRow[] = [
  row('TEST UNIT READY', READ, '00 00 00 00 00 00', report.testUnitReady, { ignoredBits: LUN_BITS }),
  row('REQUEST SENSE', NONE, REQUEST_SENSE_USAGE, report.requestSense, early),
  row('READ(6)', READ, '08 1f ff ff ff 00', block.read),
  row('WRITE(6)', WRITE, '0a 1f ff ff ff 00', block.write),
  row('INQUIRY', NONE, INQUIRY_USAGE, inquiry, early),
  row('MODE SELECT(6)', NONE, '15 11 00 00 ff 00', modeSelect),
  row('MODE SENSE(6)', NONE, '1a 08 ff ff ff 00', modeSense),
  row('START STOP UNIT', NONE, '1b 01 00 0f f7 00', startStopUnit, long),
  row('SEND DIAGNOSTIC', READ, '1d 16 00 ff ff 00', sendDiagnostic, long),
  row('READ CAPACITY(10)', READ, '25 00 00 00 00 00 00 00 00 00', report.readCapacity10),
  row('READ(10)', READ, '28 18 ff ff ff ff 3f ff ff 00', block.read),
  row('WRITE(10)', WRITE, '2a 18 ff ff ff ff 3f ff ff 00', block.write),
  row('WRITE AND VERIFY(10)', WRITE, '2e 12 ff ff ff ff 3f ff ff 00', writeAndVerify),
  row('VERIFY(10)', READ, '2f 16 ff ff ff ff 3f ff ff 00', verify, long),
  row('PRE-FETCH(10)', READ, '34 02 ff ff ff ff 3f ff ff 00', block.preFetch),
  row('SYNCHRONIZE CACHE(10)', READ, '35 06 ff ff ff ff 3f ff ff 00', block.synchronizeCache, long),
  row('READ DEFECT DATA(10)', READ, '37 00 1f 00 00 00 00 ff ff 00', report.readDefectData10),
  row('WRITE SAME(10)', WRITE, '41 08 ff ff ff ff 3f ff ff 00', writeSame, long),
  row('UNMAP', WRITE, '42 00 00 00 00 00 3f ff ff 00', unmap, long),
  row('LOG SENSE', NONE, '4d 00 ff ff 00 00 00 ff ff 00', logSense),
  row('MODE SELECT(10)', NONE, '55 11 00 00 00 00 00 ff ff 00', modeSelect),
  row('MODE SENSE(10)', NONE, '5a 18 ff ff 00 00 00 ff ff 00', modeSense),
  row('READ(16)', READ, '88 18 ff ff ff ff ff ff ff ff ff ff ff ff 3f 00', block.read),
  row('COMPARE AND WRITE', WRITE, '89 18 ff ff ff ff ff ff ff ff 00 00 00 ff 3f 00', compareAndWrite),
  row('WRITE(16)', WRITE, '8a 18 ff ff ff ff ff ff ff ff ff ff ff ff 3f 00', block.write),
  row('ORWRITE(16)', WRITE, '8b 18 ff ff ff ff ff ff ff ff ff ff ff ff 3f 00', orWrite),
  row('WRITE AND VERIFY(16)', WRITE, '8e 12 ff ff ff ff ff ff ff ff ff ff ff ff 3f 00', writeAndVerify),
  row('VERIFY(16)', READ, '8f 16 ff ff ff ff ff ff ff ff ff ff ff ff 3f 00', verify, long),
  row('PRE-FETCH(16)', READ, '90 02 ff ff ff ff ff ff ff ff ff ff ff ff 3f 00', block.preFetch),
  row('SYNCHRONIZE CACHE(16)', READ, '91 06 ff ff ff ff ff ff ff ff ff ff ff ff 3f 00', block.synchronizeCache, long),
  row('WRITE SAME(16)', WRITE, '93 09 ff ff ff ff ff ff ff ff ff ff ff ff 3f 00', writeSame, long),
  row('READ CAPACITY(16)', READ, '9e 10 00 00 00 00 00 00 00 00 ff ff ff ff 00 00', report.readCapacity16, {
    action: ServiceAction.READ_CAPACITY_16,
  }),
  row('GET LBA STATUS(16)', READ, '9e 12 ff ff ff ff ff ff ff ff ff ff ff ff 00 00', getLbaStatus, {
    action: ServiceAction.GET_LBA_STATUS_16,
  }),
  row('REPORT LUNS', NONE, REPORT_LUNS_USAGE, report.reportLuns, { attention: Attention.IGNORE }),
  row('REPORT SUPPORTED OPERATION CODES', NONE, 'a3 0c 87 ff ff ff ff ff ff ff 00 00', reportOperationCodes, {
    action: ServiceAction.REPORT_SUPPORTED_OPERATION_CODES,
  }),
  row('REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS', NONE, 'a3 0d 80 00 00 00 ff ff ff ff 00 00', reportTaskManagement, {
    action: ServiceAction.REPORT_SUPPORTED_TASK_MANAGEMENT_FUNCTIONS,
  }),
  row('READ(12)', READ, 'a8 18 ff ff ff ff ff ff ff ff 3f 00', block.read),
  row('WRITE(12)', WRITE, 'aa 18 ff ff ff ff ff ff ff ff 3f 00', block.write),
  row('WRITE AND VERIFY(12)', WRITE, 'ae 12 ff ff ff ff ff ff ff ff 3f 00', writeAndVerify),
  row('VERIFY(12)', READ, 'af 16 ff ff ff ff ff ff ff ff 3f 00', verify, long),
  row('READ DEFECT DATA(12)', READ, 'b7 1f 00 00 00 00 ff ff ff ff 00 00', report.readDefectData12),
];

const REMOVABLE: readonly CommandRow[] = [row('PREVENT ALLOW MEDIUM REMOVAL', NONE, '1e 00 00 00 03 00', preventAllow)];

const TARGET: readonly CommandRow[] = [
  row('REPORT TARGET PORT GROUPS', NONE, 'a3 2a 00 00 00 00 ff ff ff ff 00 00', reportTargetPortGroups, {
    action: ServiceAction.REPORT_TARGET_PORT_GROUPS,
  }),
];

/** By what the unit and its surroundings have. */
export interface CommandSet {
  /** Behind a `Target`, which answers for its ports. */
  readonly inTarget: CommandTable;
  /** Behind somebody else's, as under LIO. */
  readonly alone: CommandTable;
}

export const FIXED_COMMANDS: CommandSet = commandSet(COMMON);
export const REMOVABLE_COMMANDS: CommandSet = commandSet([...COMMON, ...REMOVABLE]);
const FIXED_WITHOUT_UNMAP = commandSet(withoutUnmap(COMMON));
const REMOVABLE_WITHOUT_UNMAP = commandSet(withoutUnmap([...COMMON, ...REMOVABLE]));

/** The commands of a unit. `unmaps`: its backend offers UNMAP. */
export function commandsOf(removable: boolean, unmaps: boolean): CommandSet {
  if (unmaps) return removable ? REMOVABLE_COMMANDS : FIXED_COMMANDS;
  return removable ? REMOVABLE_WITHOUT_UNMAP : FIXED_WITHOUT_UNMAP;
}

function commandSet(rows: readonly CommandRow[]): CommandSet {
  return { inTarget: new RowIndex([...rows, ...TARGET]), alone: new RowIndex(rows) };
}

/** Neither UNMAP nor WRITE SAME with its UNMAP bit. */
function withoutUnmap(rows: readonly CommandRow[]): CommandRow[] {
  return rows
    .filter(({ handler }) => handler !== unmap)
    .map((one) => {
      if (one.handler !== writeSame) return one;
      const usage = Uint8Array.from(one.usage);
      usage[1]! &= ~WRITE_SAME_UNMAP;
      return { ...one, usage };
    });
}

/** What a LUN without a unit answers (SAM-5 5.11); everything else there is LOGICAL UNIT NOT SUPPORTED. */
const ABSENT: CommandTable = new RowIndex([
  row('REQUEST SENSE', NONE, REQUEST_SENSE_USAGE, report.requestSenseOfAbsent, early),
  row('INQUIRY', NONE, INQUIRY_USAGE, inquiryOfAbsent, early),
  row('REPORT LUNS', NONE, REPORT_LUNS_USAGE, report.reportLuns, { attention: Attention.IGNORE }),
]);

export const ABSENT_COMMANDS: CommandSet = { inTarget: ABSENT, alone: ABSENT };
