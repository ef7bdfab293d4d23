import { readU32BE } from '../base/bytes.ts';
import { decodeLun } from '../scsi/lun.ts';
import { TaskAttribute } from '../scsi/task.ts';
import type { IscsiTask } from './iscsi-task.ts';
import type { Parameters } from './parameters.ts';
import type { PduParser } from './pdu-parser.ts';
import {
  AhsType,
  BASIC_CDB_SIZE,
  BHS_SIZE,
  CommandFlag,
  FINAL,
  Field,
  IMMEDIATE,
  IscsiCondition,
  PAD_SIZE,
  RESERVED_TAG,
  RejectReason,
} from './spec.ts';

/**
 * The SCSI command PDU (RFC 7143 11.3):
 *
 * ```
 *   0   |.|I| 0x01      |F|R|W|. .|ATTR | reserved                      |
 *   8   | LUN                                                           |
 *  16   | Initiator Task Tag                                            |
 *  20   | Expected Data Transfer Length                                 |
 *  24   | CmdSN                                                         |
 *  28   | ExpStatSN                                                     |
 *  32   | CDB, 16 bytes; the rest of a longer one in an additional header segment
 *  48   | AHSLength(2) | type 1 | reserved | CDB from its byte 16 on, padded
 * ```
 */
export function isFinal(parser: PduParser): boolean {
  return (parser.header[parser.headerAt + Field.FLAGS]! & FINAL) !== 0;
}

export function isImmediate(parser: PduParser): boolean {
  return (parser.header[parser.headerAt]! & IMMEDIATE) !== 0;
}

export function taskTag(parser: PduParser): number {
  return readU32BE(parser.header, parser.headerAt + Field.TASK_TAG);
}

/** Why the PDU at `parser` cannot be a command whatever the session, 0 when it can. */
export function refuseCommand(parser: PduParser): RejectReason | 0 {
  const flags = parser.header[parser.headerAt + Field.FLAGS]!;
  const write = (flags & CommandFlag.WRITE) !== 0;
  if (taskTag(parser) === RESERVED_TAG) return RejectReason.INVALID_PDU_FIELD;
  if (write && (flags & CommandFlag.READ) !== 0) return RejectReason.COMMAND_NOT_SUPPORTED;
  if (!write && ((flags & FINAL) === 0 || parser.dataLength > 0)) return RejectReason.PROTOCOL_ERROR;
  return 0;
}

/** By ATTR (RFC 7143 11.3.1): untagged, simple, ordered, head of queue, ACA, reserved. */
const ATTRIBUTES: readonly TaskAttribute[] = [
  TaskAttribute.SIMPLE,
  TaskAttribute.SIMPLE,
  TaskAttribute.ORDERED,
  TaskAttribute.HEAD_OF_QUEUE,
  TaskAttribute.ACA,
  TaskAttribute.SIMPLE,
  TaskAttribute.SIMPLE,
  TaskAttribute.SIMPLE,
];

/** What is wrong with the data that comes unasked, `dataLength` of it with the command: a condition of RFC 7143 11.4.7.2, or 0. */
export function wrongUnsolicited(
  parameters: Parameters,
  expectedLength: number,
  dataLength: number,
  final: boolean,
): IscsiCondition | 0 {
  const { initialR2T, immediateData, unsolicitedLength } = parameters;
  if ((dataLength > 0 && !immediateData) || (!final && initialR2T)) return IscsiCondition.UNEXPECTED_UNSOLICITED_DATA;
  return dataLength > Math.min(unsolicitedLength, expectedLength) ? IscsiCondition.INCORRECT_AMOUNT_OF_DATA : 0;
}

/** Takes the fields of the command at `parser` over into `task`. False: the additional header segments are not those of a command. */
export function readCommand(parser: PduParser, task: IscsiTask): boolean {
  const { header, headerAt: at } = parser;
  for (let i = 0; i < BASIC_CDB_SIZE; i++) task.cdb[i] = header[at + Field.CDB + i]!;
  task.cdbLength = BASIC_CDB_SIZE;
  if (parser.ahsLength > 0 && !readExtendedCdb(task, header, at + BHS_SIZE, parser.ahsLength)) return false;
  const flags = header[at + Field.FLAGS]!;
  const expectedLength = readU32BE(header, at + Field.EXPECTED_LENGTH);
  task.tag = taskTag(parser);
  task.attribute = ATTRIBUTES[flags & CommandFlag.ATTRIBUTE_MASK]!;
  task.immediate = isImmediate(parser);
  task.lunHigh = readU32BE(header, at + Field.LUN);
  task.lunLow = readU32BE(header, at + Field.LUN + 4);
  task.lun = decodeLun(header, at + Field.LUN);
  task.expectedDataOut = (flags & CommandFlag.WRITE) === 0 ? 0 : expectedLength;
  task.expectedDataIn = (flags & CommandFlag.READ) === 0 ? 0 : expectedLength;
  return true;
}

/** Appends the CDB bytes beyond the 16 of the header (RFC 7143 11.2.2.3). A bidirectional length is of no command that we have. */
function readExtendedCdb(task: IscsiTask, bytes: Uint8Array, begin: number, length: number): boolean {
  // AHSLength counts what follows the type: the reserved byte and the CDB.
  const cdbLength = bytes[begin]! * 256 + bytes[begin + 1]! - 1;
  if (bytes[begin + 2] !== AhsType.EXTENDED_CDB || cdbLength < 1) return false;
  if (4 + Math.ceil(cdbLength / PAD_SIZE) * PAD_SIZE !== length) return false;
  if (BASIC_CDB_SIZE + cdbLength > task.cdb.length) return false;
  for (let i = 0; i < cdbLength; i++) task.cdb[BASIC_CDB_SIZE + i] = bytes[begin + 4 + i]!;
  task.cdbLength = BASIC_CDB_SIZE + cdbLength;
  return true;
}
