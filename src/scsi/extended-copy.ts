import { readU32BE } from '../base/bytes.ts';
import type { Command, CommandHandler } from './command.ts';
import { copyRefusal, findByDesignator, overlap } from './copy-access.ts';
import {
  type CopyList,
  LID1,
  LID4,
  type ListFormat,
  ListIdUsage,
  ListRefusal,
  maxListLength,
  readCopyList,
  SegmentType,
} from './copy-list.ts';
import { CopyRecord } from './copy-records.ts';
import { CopyEnd, RangeCopy, type RangeCopyOwner } from './range-copy.ts';
import {
  addCommandSpecific,
  COPY_ABORTED,
  COPY_CLEARED_BY_DEVICE_SERVER,
  INCORRECT_COPY_TARGET_DEVICE_TYPE,
  INVALID_OPERATION_FOR_COPY_SOURCE_OR_DESTINATION,
  NO_INFORMATION,
  NO_SENSE,
  NO_SKS,
  PARAMETER_LIST_LENGTH_ERROR,
  type Sense,
  segmentPointer,
  THIRD_PARTY_DEVICE_FAILURE,
  UNEXPECTED_INEXACT_SEGMENT,
  UNREACHABLE_COPY_TARGET,
} from './sense.ts';
import { DIRECT_ACCESS_BLOCK_DEVICE } from './spec.ts';
import type { UnitState } from './unit-state.ts';

/**
 * EXTENDED COPY (SPC-4 6.4), LID1 and LID4. The form of the whole parameter list is checked first; then segment after segment is carried out, and
 * what is wrong with one ends the command with COPY ABORTED and the number of the segment.
 */
const LIST_LENGTH_FIELD = 10;

/** CSCD ID of the unit that the command came to. */
const THIS_UNIT = 0xffff;
/** Fields of segment descriptors. */
const SOURCE = 4;
const DESTINATION = 6;
const BYTES = 8;
const BLOCKS = 10;
const SOURCE_LBA = 12;
const DESTINATION_LBA = 20;
const SOURCE_OFFSET = 28;
const DESTINATION_OFFSET = 30;
const DC = 0x02;
const TUR = 0x01;

export const extendedCopyLid1: CommandHandler = extendedCopy(LID1);
export const extendedCopyLid4: CommandHandler = extendedCopy(LID4);

function extendedCopy(format: ListFormat): CommandHandler {
  return {
    prepare(command: Command): boolean {
      const { task } = command;
      const length = readU32BE(task.cdb, LIST_LENGTH_FIELD);
      const isWrong = length < format.headerLength || length > maxListLength(format) || task.expectedDataOut < length;
      if (length > 0 && isWrong) return command.check(PARAMETER_LIST_LENGTH_ERROR);
      return command.transferOut(length);
    },

    execute(command: Command): void {
      if (command.task.dataOutLength === 0) {
        command.finish();
        return;
      }
      const list = readCopyList(command, format);
      if (list instanceof ListRefusal) {
        command.fail(list.sense, NO_INFORMATION, list.sks);
        return;
      }
      const copies = list.usage === ListIdUsage.NONE ? null : (command.nexusState?.copies ?? null);
      const refusal = copies?.refusal(list.listId) ?? NO_SENSE;
      if (refusal !== NO_SENSE) {
        command.fail(refusal);
        return;
      }
      const record = new CopyRecord(list.listId, command.row.serviceAction);
      copies?.keep(record);
      command.copy = record;
      new SegmentCopier(command, list, record).run();
    },

    step(): void {},
  };
}

/** Carries out the segments of one command. */
class SegmentCopier implements RangeCopyOwner {
  readonly #command: Command;
  readonly #list: CopyList;
  readonly #record: CopyRecord;
  readonly #copy: RangeCopy = new RangeCopy(this);
  #source!: UnitState;
  #destination!: UnitState;
  #sourceRefusal: Sense = NO_SENSE;
  #destinationRefusal: Sense = NO_SENSE;

  constructor(command: Command, list: CopyList, record: CopyRecord) {
    this.#command = command;
    this.#list = list;
    this.#record = record;
  }

  /** Goes on with the next segment. */
  run(): void {
    while (this.#record.segments < this.#list.segments.length) {
      if (this.#isStopped()) {
        this.#endStopped();
        return;
      }
      const isWaiting =
        this.#list.segmentByte(this.#record.segments, 0) === SegmentType.VERIFY ? this.#verify() : this.#copySegment();
      if (isWaiting) return;
      this.#record.segments++;
    }
    this.#command.finish();
  }

  copyMayGoOn(): boolean {
    if (this.#isStopped()) return false;
    this.#sourceRefusal = copyRefusal(this.#command, this.#source, false);
    this.#destinationRefusal = copyRefusal(this.#command, this.#destination, true);
    return this.#sourceRefusal === NO_SENSE && this.#destinationRefusal === NO_SENSE;
  }

  copyAdvanced(bytes: number): void {
    this.#record.operations++;
    this.#record.bytes += bytes;
  }

  copyEnded(end: CopyEnd): void {
    switch (end) {
      case CopyEnd.DONE:
        this.#record.segments++;
        this.run();
        break;
      case CopyEnd.STOPPED:
        if (this.#isStopped()) this.#endStopped();
        else this.#fail(THIRD_PARTY_DEVICE_FAILURE, this.#sourceRefusal !== NO_SENSE ? SOURCE : DESTINATION);
        break;
      default:
        this.#fail(THIRD_PARTY_DEVICE_FAILURE, end === CopyEnd.SOURCE_FAILED ? SOURCE : DESTINATION);
    }
  }

  #isStopped(): boolean {
    return this.#command.task.aborted || this.#record.abortRequested;
  }

  #endStopped(): void {
    const { task } = this.#command;
    this.#record.isTerminated = true;
    if (task.aborted) this.#command.endAborted();
    else this.#fail(COPY_CLEARED_BY_DEVICE_SERVER, -1);
  }

  /** `field` is what was wrong in the segment descriptor; -1: nothing. Returns true: the command has ended. */
  #fail(sense: Sense, field: number): true {
    const command = this.#command;
    const { task } = command;
    command.check(sense, NO_INFORMATION, field < 0 ? NO_SKS : segmentPointer(true, field));
    task.senseLength = addCommandSpecific(task.sense, task.senseLength, this.#record.segments);
    command.finish();
    return true;
  }

  /** The unit that `field` of the segment names; null after the command has ended. */
  #unit(field: number): UnitState | null {
    const list = this.#list;
    const index = list.segmentU16(this.#record.segments, field);
    if (index === THIS_UNIT) return this.#command.unit;
    if (index >= list.cscdCount) {
      this.#fail(UNREACHABLE_COPY_TARGET, field);
      return null;
    }
    const unit = findByDesignator(this.#command, list.designator(index));
    if (unit === null) {
      this.#fail(UNREACHABLE_COPY_TARGET, field);
      return null;
    }
    const blockLength = list.diskBlockLength(index);
    const isOfItsType = list.peripheralType(index) === DIRECT_ACCESS_BLOCK_DEVICE;
    if (!isOfItsType || (blockLength !== 0 && blockLength !== unit.blockSize)) {
      this.#fail(INCORRECT_COPY_TARGET_DEVICE_TYPE, field);
      return null;
    }
    return unit;
  }

  /** 07h: whether the device is ready. True when the command has ended. */
  #verify(): boolean {
    const unit = this.#unit(SOURCE);
    if (unit === null) return true;
    const asks = (this.#list.segmentByte(this.#record.segments, BYTES) & TUR) !== 0;
    return (
      asks && copyRefusal(this.#command, unit, false) !== NO_SENSE && this.#fail(THIRD_PARTY_DEVICE_FAILURE, SOURCE)
    );
  }

  /** 02h and 0Ah. True when the copy has begun or the command has ended. */
  #copySegment(): boolean {
    const list = this.#list;
    const at = this.#record.segments;
    const source = this.#unit(SOURCE);
    const destination = source && this.#unit(DESTINATION);
    if (source === null || destination === null) return true;
    this.#source = source;
    this.#destination = destination;
    let length: number;
    let from = list.segmentU64(at, SOURCE_LBA) * source.blockSize;
    let to = list.segmentU64(at, DESTINATION_LBA) * destination.blockSize;
    if (list.segmentByte(at, 0) === SegmentType.BLOCK_TO_BLOCK) {
      const counts = (list.segmentByte(at, 1) & DC) !== 0 ? destination : source;
      length = list.segmentU16(at, BLOCKS) * counts.blockSize;
    } else {
      length = list.segmentU32(at, BYTES);
      const offset = list.segmentU16(at, SOURCE_OFFSET);
      const destinationOffset = list.segmentU16(at, DESTINATION_OFFSET);
      // What does not end with a block would have to be padded or kept for the next segment.
      if (offset % source.blockSize !== 0) return this.#fail(UNEXPECTED_INEXACT_SEGMENT, SOURCE_OFFSET);
      if (destinationOffset % destination.blockSize !== 0) {
        return this.#fail(UNEXPECTED_INEXACT_SEGMENT, DESTINATION_OFFSET);
      }
      from += offset;
      to += destinationOffset;
    }
    if (length % source.blockSize !== 0 || length % destination.blockSize !== 0) {
      return this.#fail(UNEXPECTED_INEXACT_SEGMENT, BYTES);
    }
    // Nothing is rounded here: a sum from 2^53 on is past the end of every unit.
    if (from + length > source.blockCount * source.blockSize) return this.#fail(COPY_ABORTED, SOURCE_LBA);
    if (to + length > destination.blockCount * destination.blockSize) return this.#fail(COPY_ABORTED, DESTINATION_LBA);
    if (length === 0) return false;
    if (source === destination && overlap(from, to, length)) {
      return this.#fail(INVALID_OPERATION_FOR_COPY_SOURCE_OR_DESTINATION, DESTINATION_LBA);
    }
    this.#copy.start(source, from, destination, to, length);
    return true;
  }
}
