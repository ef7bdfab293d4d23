import { readBuffer, writeBuffer } from './buffer-commands.ts';
import { Access, type CommandRow, During } from './command.ts';
import { early, LUN_BITS, long, row } from './command-row.ts';
import { Conflict } from './conflict.ts';
import { inquiry, inquiryOfAbsent } from './inquiry.ts';
import { logSense } from './log-pages.ts';
import { modeSelect, modeSense } from './mode-commands.ts';
import * as report from './report.ts';
import { reportOperationCodes, reportTaskManagement } from './report-support.ts';
import { sendDiagnostic } from './self-test.ts';
import { ServiceAction } from './spec.ts';
import { reportTargetPortGroups, setTargetPortGroups } from './target-port-groups.ts';

/** The primary commands (SPC-4) but those of reservations and copies. */
const { NONE, READ } = Access;

const INQUIRY_USAGE = '12 01 ff ff ff 00';
const REQUEST_SENSE_USAGE = '03 01 00 00 ff 00';
const REPORT_LUNS_USAGE = 'a0 00 ff 00 00 00 ff ff ff ff 00 00';

export const PRIMARY_ROWS: readonly CommandRow[] = [
  row('TEST UNIT READY', READ, '00 00 00 00 00 00', report.testUnitReady, {
    conflict: Conflict.RESERVED,
    ignoredBits: LUN_BITS,
  }),
  row('REQUEST SENSE', NONE, REQUEST_SENSE_USAGE, report.requestSense, early),
  row('INQUIRY', NONE, INQUIRY_USAGE, inquiry, early),
  row('MODE SELECT(6)', NONE, '15 11 00 00 ff 00', modeSelect, { conflict: Conflict.WRITE }),
  row('MODE SENSE(6)', NONE, '1a 08 ff ff ff 00', modeSense, { conflict: Conflict.READ }),
  row('SEND DIAGNOSTIC', READ, '1d 16 00 ff ff 00', sendDiagnostic, { ...long, conflict: Conflict.WRITE }),
  row('WRITE BUFFER', NONE, '3b 1f ff ff ff ff ff ff ff 00', writeBuffer, { conflict: Conflict.WRITE }),
  row('READ BUFFER(10)', NONE, '3c 1f ff ff ff ff ff ff ff 00', readBuffer, { conflict: Conflict.READ }),
  row('READ BUFFER(16)', NONE, '9b 1f ff ff ff ff ff ff ff ff ff ff ff ff ff 00', readBuffer, {
    conflict: Conflict.READ,
  }),
  row('LOG SENSE', NONE, '4d 00 ff ff 00 ff ff ff ff 00', logSense),
  row('MODE SELECT(10)', NONE, '55 11 00 00 00 00 00 ff ff 00', modeSelect, { conflict: Conflict.WRITE }),
  row('MODE SENSE(10)', NONE, '5a 18 ff ff 00 00 00 ff ff 00', modeSense, { conflict: Conflict.READ }),
  row('REPORT LUNS', NONE, REPORT_LUNS_USAGE, report.reportLuns, { ...early, ignoredBits: 0 }),
  row('REPORT SUPPORTED OPERATION CODES', NONE, 'a3 0c 87 ff ff ff ff ff ff ff 00 00', reportOperationCodes, {
    action: ServiceAction.REPORT_SUPPORTED_OPERATION_CODES,
    conflict: Conflict.READ,
    during: During.BOTH,
  }),
  row('REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS', NONE, 'a3 0d 80 00 00 00 ff ff ff ff 00 00', reportTaskManagement, {
    action: ServiceAction.REPORT_SUPPORTED_TASK_MANAGEMENT_FUNCTIONS,
    conflict: Conflict.READ,
    during: During.BOTH,
  }),
  row('REPORT TIMESTAMP', NONE, 'a3 0f 00 00 00 00 ff ff ff ff 00 00', report.reportTimestamp, {
    action: ServiceAction.REPORT_TIMESTAMP,
    during: During.BOTH,
  }),
  row('REPORT TARGET PORT GROUPS', NONE, 'a3 2a 00 00 00 00 ff ff ff ff 00 00', reportTargetPortGroups, {
    action: ServiceAction.REPORT_TARGET_PORT_GROUPS,
    during: During.BOTH,
  }),
  row('SET TARGET PORT GROUPS', NONE, 'a4 0a 00 00 00 00 ff ff ff ff 00 00', setTargetPortGroups, {
    action: ServiceAction.SET_TARGET_PORT_GROUPS,
    conflict: Conflict.WRITE,
    during: During.BOTH,
  }),
];

/** What a LUN without a unit answers (SAM-5 5.11); everything else there is LOGICAL UNIT NOT SUPPORTED. */
export const ABSENT_ROWS: readonly CommandRow[] = [
  row('REQUEST SENSE', NONE, REQUEST_SENSE_USAGE, report.requestSenseOfAbsent, early),
  row('INQUIRY', NONE, INQUIRY_USAGE, inquiryOfAbsent, early),
  row('REPORT LUNS', NONE, REPORT_LUNS_USAGE, report.reportLuns, { ...early, ignoredBits: 0 }),
];
