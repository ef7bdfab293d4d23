import { readU32BE, writeU16BE, writeU24BE, writeU32BE } from '../base/bytes.ts';
import { NO_INFORMATION, NO_SKS, type Sense, writeSense } from '../scsi/sense.ts';
import { MAX_SENSE_SIZE, type ScsiTask } from '../scsi/task.ts';
import type { CommandWindow } from './command-window.ts';
import type { IscsiTask } from './iscsi-task.ts';
import type { LoginReply } from './login.ts';
import type { Parameters } from './parameters.ts';
import { serialAdd } from './serial.ts';
import {
  AsyncEvent,
  CONTINUE,
  CommandResponse,
  DATA_IN_STATUS,
  FINAL,
  Field,
  Opcode,
  RESERVED_TAG,
  type RejectReason,
  ResidualFlag,
  TRANSIT,
  VERSION,
} from './spec.ts';
import type { TextAnswer } from './text-exchange.ts';
import type { Transmitter } from './transmitter.ts';

const GOOD = 0;

/** Puts together the PDUs that a target sends (RFC 7143 11) and counts StatSN. */
export class PduWriter {
  readonly transmitter: Transmitter;
  /** Null during login, where both numbers are the login's CmdSN. */
  window: CommandWindow | null = null;
  loginCmdSn = 0;
  /** StatSN of the next status. */
  statSn = 0;

  constructor(transmitter: Transmitter) {
    this.transmitter = transmitter;
  }

  /** Asynchronous message without sense data (RFC 7143 11.9). */
  asyncMessage(event: number, parameter1: number, parameter2: number, parameter3: number): void {
    const at = this.begin(Opcode.ASYNC_MESSAGE, FINAL, RESERVED_TAG, 0);
    const { bytes } = this.transmitter;
    bytes[at + Field.ASYNC_EVENT] = event;
    writeU16BE(bytes, at + 38, parameter1);
    writeU16BE(bytes, at + 40, parameter2);
    writeU16BE(bytes, at + 42, parameter3);
    this.endWithStatus(at);
  }

  /** Asynchronous message about `sense` (RFC 7143 11.9.1, 11.9.4), of the target as a whole. */
  scsiEvent(sense: Sense): void {
    const bytes = new Uint8Array(2 + MAX_SENSE_SIZE);
    const length = writeSense(bytes.subarray(2), false, sense, NO_INFORMATION, NO_SKS);
    bytes[1] = length;
    const at = this.begin(Opcode.ASYNC_MESSAGE, FINAL, RESERVED_TAG, 2 + length);
    this.transmitter.bytes[at + Field.ASYNC_EVENT] = AsyncEvent.SCSI;
    this.endWithStatus(at);
    this.data(bytes.subarray(0, 2 + length));
  }

  /** All that a task brings back. Memory that still has to be sent is given back when it is; the task does not own it any more. */
  taskResponse(task: IscsiTask, parameters: Parameters): void {
    if (task.dataInLength === 0) {
      this.scsiResponse(task);
      return;
    }
    this.dataIn(task, parameters.initiatorSegmentLength, parameters.maxBurstLength);
    if (task.status !== GOOD) this.scsiResponse(task);
    if (task.memoryCopied) return;
    this.transmitter.freeAfterwards(task.memoryOffset, task.memoryLength);
    task.memoryLength = 0;
  }

  /** The data of a task that ended, cut to what the initiator takes in one PDU, with its status when that is GOOD (RFC 7143 11.7). */
  private dataIn(task: IscsiTask, segmentLength: number, burstLength: number): void {
    const { transmitter } = this;
    const length = task.dataInLength;
    const withStatus = task.status === GOOD;
    let offset = 0;
    let burstEnd = burstLength;
    let copied = true;
    while (offset < length) {
      const take = Math.min(segmentLength, length - offset, burstEnd - offset);
      const last = offset + take === length;
      const burstEnds = offset + take === burstEnd;
      const status = last && withStatus;
      let flags = last || burstEnds ? FINAL : 0;
      if (burstEnds) burstEnd += burstLength;
      if (status) flags |= DATA_IN_STATUS | residualFlag(task);
      const at = this.begin(Opcode.DATA_IN, flags, task.tag, take);
      const { bytes } = transmitter;
      writeU32BE(bytes, at + Field.TRANSFER_TAG, RESERVED_TAG);
      writeU32BE(bytes, at + Field.DATA_SN, task.dataInCount++);
      writeU32BE(bytes, at + Field.BUFFER_OFFSET, offset);
      if (status) {
        writeU32BE(bytes, at + Field.STAT_SN, this.nextStatSn());
        writeU32BE(bytes, at + Field.RESIDUAL, Math.abs(task.residual));
      }
      transmitter.endHeader(at);
      copied = transmitter.sendMemory(task.memoryOffset + offset, take) && copied;
      transmitter.endData();
      offset += take;
    }
    task.memoryCopied = copied;
  }

  /** SCSI response with status and sense data (RFC 7143 11.4). */
  private scsiResponse(task: IscsiTask): void {
    const { transmitter } = this;
    const { senseLength } = task;
    const dataLength = senseLength > 0 ? 2 + senseLength : 0;
    const at = this.begin(Opcode.SCSI_RESPONSE, FINAL | residualFlag(task), task.tag, dataLength);
    const { bytes } = transmitter;
    bytes[at + Field.RESPONSE] = CommandResponse.COMPLETED_AT_TARGET;
    bytes[at + Field.STATUS] = task.status;
    writeU32BE(bytes, at + Field.STAT_SN, this.nextStatSn());
    writeU32BE(bytes, at + Field.EXP_DATA_SN, task.dataInCount + task.r2tLast);
    writeU32BE(bytes, at + Field.RESIDUAL, Math.abs(task.residual));
    transmitter.endHeader(at);
    if (dataLength > 0) {
      LENGTH_OF_SENSE[1] = senseLength;
      transmitter.copyData(LENGTH_OF_SENSE, 0, 2);
      transmitter.copyData(task.sense, 0, senseLength);
      transmitter.endData();
    }
  }

  /** Ready to transfer (RFC 7143 11.8). */
  r2t(task: IscsiTask, transferTag: number, offset: number, length: number): void {
    const at = this.begin(Opcode.R2T, FINAL, task.tag, 0);
    const { bytes } = this.transmitter;
    writeU32BE(bytes, at + Field.LUN, task.lunHigh);
    writeU32BE(bytes, at + Field.LUN + 4, task.lunLow);
    writeU32BE(bytes, at + Field.TRANSFER_TAG, transferTag);
    writeU32BE(bytes, at + Field.STAT_SN, this.statSn);
    writeU32BE(bytes, at + Field.R2T_SN, task.r2tLast);
    writeU32BE(bytes, at + Field.BUFFER_OFFSET, offset);
    writeU32BE(bytes, at + Field.DESIRED_LENGTH, length);
    this.transmitter.endHeader(at);
  }

  /** The answer to a ping, with its data (RFC 7143 11.19). */
  nopIn(tag: number, data: Uint8Array): void {
    const at = this.begin(Opcode.NOP_IN, FINAL, tag, data.length);
    writeU32BE(this.transmitter.bytes, at + Field.TRANSFER_TAG, RESERVED_TAG);
    this.endWithStatus(at);
    this.data(data);
  }

  /** A NOP-In that asks for an answer with `transferTag`. StatSN is the next one and does not advance. */
  ping(transferTag: number): void {
    this.nopInWithoutTask(transferTag);
  }

  /** A NOP-In that asks for nothing: tells ExpCmdSN and MaxCmdSN. StatSN is the next one and does not advance. */
  windowUpdate(): void {
    this.nopInWithoutTask(RESERVED_TAG);
  }

  private nopInWithoutTask(transferTag: number): void {
    const at = this.begin(Opcode.NOP_IN, FINAL, RESERVED_TAG, 0);
    writeU32BE(this.transmitter.bytes, at + Field.TRANSFER_TAG, transferTag);
    writeU32BE(this.transmitter.bytes, at + Field.STAT_SN, this.statSn);
    this.transmitter.endHeader(at);
  }

  /** `information`: the three bytes of additional response information (RFC 7144), 0 for most functions. */
  taskManagementResponse(tag: number, response: number, information: number): void {
    const at = this.begin(Opcode.TASK_MANAGEMENT_RESPONSE, FINAL, tag, 0);
    const { bytes } = this.transmitter;
    bytes[at + Field.RESPONSE] = response;
    writeU24BE(bytes, at + Field.RESPONSE_INFORMATION, information);
    this.endWithStatus(at);
  }

  textResponse(tag: number, answer: TextAnswer): void {
    const flags = (answer.final ? FINAL : 0) | (answer.continues ? CONTINUE : 0);
    const at = this.begin(Opcode.TEXT_RESPONSE, flags, tag, answer.text.length);
    writeU32BE(this.transmitter.bytes, at + Field.TRANSFER_TAG, answer.transferTag);
    this.endWithStatus(at);
    this.data(answer.text);
  }

  logoutResponse(tag: number, response: number): void {
    const at = this.begin(Opcode.LOGOUT_RESPONSE, FINAL, tag, 0);
    this.transmitter.bytes[at + Field.RESPONSE] = response;
    this.endWithStatus(at);
  }

  /** `header` is the rejected one with its additional segments (RFC 7143 11.17). */
  reject(reason: RejectReason, header: Uint8Array): void {
    const at = this.begin(Opcode.REJECT, FINAL, RESERVED_TAG, header.length);
    this.transmitter.bytes[at + Field.RESPONSE] = reason;
    this.endWithStatus(at);
    this.data(header);
  }

  /** `isid` and the tag are copied from the request's header at `requestAt` of `request`. */
  loginResponse(reply: LoginReply, tsih: number, request: Uint8Array, requestAt: number): void {
    const flags =
      (reply.transit ? TRANSIT : 0) | (reply.continues ? CONTINUE : 0) | (reply.currentStage << 2) | reply.nextStage;
    const at = this.begin(
      Opcode.LOGIN_RESPONSE,
      flags,
      readU32BE(request, requestAt + Field.TASK_TAG),
      reply.text.length,
    );
    const { bytes } = this.transmitter;
    bytes[at + 2] = VERSION;
    bytes[at + 3] = VERSION;
    for (let i = 0; i < 6; i++) bytes[at + Field.ISID + i] = request[requestAt + Field.ISID + i]!;
    writeU16BE(bytes, at + Field.TSIH, tsih);
    writeU16BE(bytes, at + Field.STATUS_CLASS, reply.status);
    this.endWithStatus(at);
    this.data(reply.text);
  }

  private data(bytes: Uint8Array): void {
    if (bytes.length === 0) return;
    this.transmitter.copyData(bytes, 0, bytes.length);
    this.transmitter.endData();
  }

  /** Opcode, flags, tag, ExpCmdSN and MaxCmdSN; the other fields are zero. */
  private begin(opcode: number, flags: number, tag: number, dataLength: number): number {
    const { transmitter, window } = this;
    const at = transmitter.beginPdu(dataLength);
    const { bytes } = transmitter;
    bytes[at] = opcode;
    bytes[at + Field.FLAGS] = flags;
    writeU32BE(bytes, at + Field.TASK_TAG, tag);
    if (window === null) {
      writeU32BE(bytes, at + Field.EXP_CMD_SN, this.loginCmdSn);
      writeU32BE(bytes, at + Field.MAX_CMD_SN, this.loginCmdSn);
    } else {
      writeU32BE(bytes, at + Field.EXP_CMD_SN, window.expCmdSn);
      writeU32BE(bytes, at + Field.MAX_CMD_SN, window.maxCmdSn);
    }
    return at;
  }

  private endWithStatus(at: number): void {
    writeU32BE(this.transmitter.bytes, at + Field.STAT_SN, this.nextStatSn());
    this.transmitter.endHeader(at);
  }

  private nextStatSn(): number {
    const { statSn } = this;
    this.statSn = serialAdd(statSn, 1);
    return statSn;
  }
}

const LENGTH_OF_SENSE = new Uint8Array(2);

function residualFlag(task: ScsiTask): number {
  if (task.residual === 0) return 0;
  return task.residual > 0 ? ResidualFlag.UNDERFLOW : ResidualFlag.OVERFLOW;
}
