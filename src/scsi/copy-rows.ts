import { Access, type CommandRow } from './command.ts';
import { long, row } from './command-row.ts';
import { Conflict } from './conflict.ts';
import { extendedCopyLid1, extendedCopyLid4 } from './extended-copy.ts';
import * as receive from './receive-copy.ts';
import { CopyIn, CopyOut } from './spec.ts';
import { populateToken, writeUsingToken } from './token-commands.ts';

/** The third-party copy commands (SPC-4 5.17). A copy may touch other units than the one it came to: what it may do there is looked at when it does. */
const { NONE, READ, WRITE } = Access;
const writes = { ...long, conflict: Conflict.WRITE };

const LIST_OUT = '00 00 00 00 00 00 00 00 ff ff ff ff 00 00';
const TOKEN_OUT = '00 00 00 00 ff ff ff ff ff ff ff ff 3f 00';
const LID1_IN = 'ff 00 00 00 00 00 00 00 ff ff ff ff 00 00';
const LID4_IN = 'ff ff ff ff 00 00 00 00 ff ff ff ff 00 00';

export const COPY_ROWS: readonly CommandRow[] = [
  row('EXTENDED COPY(LID1)', READ, `83 00 ${LIST_OUT}`, extendedCopyLid1, {
    ...writes,
    action: CopyOut.EXTENDED_COPY_LID1,
  }),
  row('EXTENDED COPY(LID4)', READ, `83 01 ${LIST_OUT}`, extendedCopyLid4, {
    ...writes,
    action: CopyOut.EXTENDED_COPY_LID4,
  }),
  row('POPULATE TOKEN', READ, `83 10 ${TOKEN_OUT}`, populateToken, { action: CopyOut.POPULATE_TOKEN }),
  row('WRITE USING TOKEN', WRITE, `83 11 ${TOKEN_OUT}`, writeUsingToken, {
    ...long,
    action: CopyOut.WRITE_USING_TOKEN,
  }),
  row('COPY OPERATION ABORT', NONE, '83 1c ff ff ff ff 00 00 00 00 00 00 00 00 00 00', receive.copyOperationAbort, {
    action: CopyOut.COPY_OPERATION_ABORT,
  }),
  row('RECEIVE COPY STATUS(LID1)', NONE, `84 00 ${LID1_IN}`, receive.receiveCopyStatus1, {
    action: CopyIn.RECEIVE_COPY_STATUS_LID1,
  }),
  row('RECEIVE COPY OPERATING PARAMETERS', NONE, `84 03 ${LID1_IN}`, receive.receiveOperatingParameters, {
    action: CopyIn.RECEIVE_COPY_OPERATING_PARAMETERS,
  }),
  row('RECEIVE COPY FAILURE DETAILS(LID1)', NONE, `84 04 ${LID1_IN}`, receive.receiveCopyFailureDetails, {
    action: CopyIn.RECEIVE_COPY_FAILURE_DETAILS_LID1,
  }),
  row('RECEIVE COPY STATUS(LID4)', NONE, `84 05 ${LID4_IN}`, receive.receiveCopyStatus4, {
    action: CopyIn.RECEIVE_COPY_STATUS_LID4,
  }),
  row('RECEIVE ROD TOKEN INFORMATION', NONE, `84 07 ${LID4_IN}`, receive.receiveTokenInformation, {
    action: CopyIn.RECEIVE_ROD_TOKEN_INFORMATION,
  }),
  row('REPORT ALL ROD TOKENS', NONE, '84 08 00 00 00 00 00 00 00 00 ff ff ff ff 00 00', receive.reportAllTokens, {
    action: CopyIn.REPORT_ALL_ROD_TOKENS,
  }),
];
