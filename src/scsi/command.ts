import { assert } from '../base/assert.ts';
import type { Errno } from '../base/errors.ts';
import { LunOp, LunRequest, type LunRequestOwner } from '../block/lun-backend.ts';
import { type Conflict, isRefused } from './conflict.ts';
import type { CopyRecord } from './copy-records.ts';
import type { LunInventory } from './lun-inventory.ts';
import { type RangeHolder, RangeState } from './range-lock.ts';
import { changesUnit } from './read-only-nexus.ts';
import type { RodToken } from './rod-tokens.ts';
import type { ScratchUser } from './scratch-pool.ts';
import {
  FAILURE_SENSE,
  fieldPointer,
  INVALID_FIELD_IN_CDB,
  INVALID_FIELD_IN_COMMAND_INFORMATION_UNIT,
  INVALID_FIELD_IN_PARAMETER_LIST,
  LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE,
  MEDIUM_NOT_PRESENT,
  NO_INFORMATION,
  NO_SKS,
  type Sense,
  SOFTWARE_WRITE_PROTECTED,
  WRITE_PROTECTED,
  writeSense,
} from './sense.ts';
import { Status } from './spec.ts';
import type { ScsiTask } from './task.ts';
import { type AbortWaiter, MemberState, type TaskSetMember } from './task-set.ts';
import type { NexusState, UnitState } from './unit-state.ts';

/** What the rows of a table do; the functions see one command each. */
export interface CommandHandler {
  /**
   * Checks the CDB and says what the command transfers: `transferIn` or `transferOut`. Returns false after `command.check...()`.
   */
  prepare(command: Command): boolean;
  /** Starts it; every path ends in `finish()`, now or in a later `step`. */
  execute(command: Command): void;
  /** The next step of a command that submitted a request or waited for a range or scratch memory. */
  step(command: Command): void;
}

/** What a command does to the medium; decides the checks before it. */
export const Access = { NONE: 0, READ: 1, WRITE: 2 } as const;
export type Access = (typeof Access)[keyof typeof Access];

/** Unit attention rules (SAM-5 5.14.4): REPORT ends the command with it; IGNORE leaves it pending. */
export const Attention = { REPORT: 0, IGNORE: 1 } as const;
export type Attention = (typeof Attention)[keyof typeof Attention];

/** Whether a command is done while SANITIZE or FORMAT UNIT is at work, or has failed. */
export const During = { NEITHER: 0, FAILURE: 1, BOTH: 2 } as const;
export type During = (typeof During)[keyof typeof During];

export interface CommandRow {
  readonly name: string;
  readonly opcode: number;
  /** -1 for an opcode without service actions. */
  readonly serviceAction: number;
  readonly cdbLength: number;
  /** CDB usage data (SPC-4 6.35.3): `cdbLength` bytes; bits that are zero must be zero in a CDB. */
  readonly usage: Uint8Array;
  /** Bits of byte 1 that are not checked though they mean nothing: the LUN of SCSI-2 initiators. */
  readonly ignoredBits: number;
  readonly access: Access;
  readonly attention: Attention;
  readonly during: During;
  /** When a reservation of another nexus refuses it. */
  readonly conflict: Conflict;
  readonly recommendedTimeoutSeconds: number;
  readonly handler: CommandHandler;
}

export interface CommandTable {
  readonly rows: readonly CommandRow[];
  /** `serviceAction` is looked at only where the opcode has service actions. Null: not supported. */
  find(opcode: number, serviceAction: number): CommandRow | null;
  hasServiceActions(opcode: number): boolean;
}

/** By `LunOp`: whether it changes what the medium holds. */
const CHANGES: readonly boolean[] = [false, true, false, true, true, false, true];

/**
 * The engine's state of one task, kept at `task.engine` and used again with it. It owns one `LunRequest` that serves all steps. Holds at
 * most one range and one scratch buffer, given back by `finish`.
 */
export class Command implements LunRequestOwner, TaskSetMember, RangeHolder, ScratchUser {
  readonly task: ScsiTask;
  unit: UnitState;
  row: CommandRow;
  table: CommandTable;
  inventory: LunInventory;
  /** Null for a nexus that was never attached. */
  nexusState: NexusState | null = null;

  /** First logical block and number of blocks of commands that name them. */
  lba = 0;
  blocks = 0;
  /** The handler's own: where it is, and up to what. */
  phase = 0;
  position = 0;
  end = 0;
  count = 0;
  flag = false;
  /** The request was an UNMAP, and it cannot be done, or not all of it, for now. */
  unmapRefused = false;
  /** Of a third-party copy that this command began. */
  copy: CopyRecord | null = null;
  /** Of a POPULATE TOKEN under way: nobody has it yet. */
  token: RodToken | null = null;
  /** A few bytes for headers and descriptors. */
  readonly bytes: Uint8Array = new Uint8Array(32);
  readonly request: LunRequest;

  setState: MemberState = MemberState.NONE;
  setPrevious: TaskSetMember | null = null;
  setNext: TaskSetMember | null = null;
  abortWaiters: AbortWaiter[] | null = null;

  rangeBegin = 0;
  rangeEnd = 0;
  rangeExclusive = false;
  rangeState: RangeState = RangeState.NONE;
  rangePrevious: RangeHolder | null = null;
  rangeNext: RangeHolder | null = null;
  scratch: Uint8Array | null = null;
  scratchNext: ScratchUser | null = null;

  constructor(task: ScsiTask, unit: UnitState, row: CommandRow, table: CommandTable, inventory: LunInventory) {
    this.task = task;
    this.unit = unit;
    this.row = row;
    this.table = table;
    this.inventory = inventory;
    this.request = new LunRequest(this);
  }

  /** Whether the medium takes no writes of this nexus. */
  get writeProtected(): boolean {
    return this.unit.writeProtected || this.nexusState?.readOnly === true;
  }

  // --- what the command transfers, said by prepare ---

  /** The command moves nothing. */
  transferNone(): true {
    const { task } = this;
    task.residual = task.expectedDataIn + task.expectedDataOut;
    return true;
  }

  /** The command returns up to `lengthBytes`; said again, with no more, when it is known how much it is. */
  transferIn(lengthBytes: number): true {
    const { task } = this;
    task.dataInLength = Math.min(lengthBytes, task.expectedDataIn);
    // What was announced the other way counts only when nothing is to be returned.
    task.residual = task.expectedDataIn - lengthBytes + (lengthBytes === 0 ? task.expectedDataOut : 0);
    return true;
  }

  /** The command ends with `finishReply`; `limit` is the ALLOCATION LENGTH, which may ask for more than any reply has. */
  transferReply(limit: number): true {
    return this.transferIn(Math.min(limit, this.unit.reply.length));
  }

  /**
   * The command takes `lengthBytes` of whole blocks. Of an initiator that announced less, what it announced is taken if these are whole blocks,
   * otherwise the command is refused (as FCP-4 9.4.2 offers and libiscsi asks): false after CHECK CONDITION.
   */
  transferOutBlocks(lengthBytes: number): boolean {
    const { task } = this;
    const got = Math.min(lengthBytes, task.expectedDataOut);
    return got % this.unit.blockSize === 0 ? this.transferOut(lengthBytes) : this.#checkExpected(lengthBytes);
  }

  /** The command takes `lengthBytes`. False after CHECK CONDITION, where less was announced and the initiator could not be told. */
  transferOut(lengthBytes: number): boolean {
    const { task } = this;
    if (lengthBytes === 0) return this.transferNone();
    if (lengthBytes > task.expectedDataOut && !task.tellsOverflow) return this.#checkExpected(lengthBytes);
    task.dataOutLength = Math.min(lengthBytes, task.expectedDataOut);
    task.residual = task.expectedDataOut - lengthBytes;
    return true;
  }

  /** What was announced of Data-Out does not do. */
  #checkExpected(lengthBytes: number): false {
    const { task } = this;
    this.check(INVALID_FIELD_IN_COMMAND_INFORMATION_UNIT);
    task.residual = task.expectedDataOut - lengthBytes;
    return false;
  }

  // --- CHECK CONDITION: in prepare `return command.check(...)`, in later steps `command.fail(...)` ---

  /** Sets RESERVATION CONFLICT: see `refuse`. */
  conflict(): false {
    return this.refuse(Status.RESERVATION_CONFLICT);
  }

  /** Sets a status that has no sense data; nothing is returned. False, so that prepare can return it. */
  refuse(status: number): false {
    const { task } = this;
    task.status = status;
    task.senseLength = 0;
    task.dataInLength = 0;
    task.residual = task.expectedDataIn + task.expectedDataOut - task.dataOutLength;
    return false;
  }

  /** Sets CHECK CONDITION with `sense`; false, so that prepare can return it. */
  check(sense: Sense, information: number = NO_INFORMATION, sks: number = NO_SKS): false {
    const { task } = this;
    task.status = Status.CHECK_CONDITION;
    task.senseLength = writeSense(task.sense, this.unit.descriptorSense, sense, information, sks);
    task.residual = task.expectedDataIn + task.expectedDataOut - task.dataOutLength;
    task.dataInLength = 0;
    return false;
  }

  /** What reservations refuse to the nexus. */
  get refusals(): number {
    const { nexusState } = this;
    return nexusState === null ? this.unit.reservations.refusalsOf(this.task.nexus) : nexusState.refusals;
  }

  /** INVALID FIELD IN CDB, pointing at `byte` and, unless -1, at its most significant wrong `bit`. */
  checkCdb(byte: number, bit: number = -1): false {
    return this.check(INVALID_FIELD_IN_CDB, NO_INFORMATION, fieldPointer(true, byte, bit));
  }

  fail(sense: Sense, information: number = NO_INFORMATION, sks: number = NO_SKS): void {
    this.check(sense, information, sks);
    this.finish();
  }

  /** INVALID FIELD IN PARAMETER LIST, pointing at `byte` of it and, unless -1, at `bit`. */
  failParameter(byte: number, bit: number = -1): void {
    this.fail(INVALID_FIELD_IN_PARAMETER_LIST, NO_INFORMATION, fieldPointer(false, byte, bit));
  }

  /** What can be wrong with the medium. False after CHECK CONDITION. */
  checkAccess(): boolean {
    const { unit } = this;
    const { access, during } = this.row;
    const { operation } = unit;
    if (operation !== null && during < (operation.failed ? During.FAILURE : During.BOTH)) {
      return this.check(operation.sense, NO_INFORMATION, operation.sks);
    }
    if (access !== Access.NONE && !unit.mediumPresent) return this.check(MEDIUM_NOT_PRESENT);
    const mayNotWrite = this.nexusState?.readOnly === true;
    if (mayNotWrite && changesUnit(this.row.opcode)) return this.check(WRITE_PROTECTED);
    if (access === Access.WRITE && this.writeProtected) {
      const forGood = unit.backend.readOnly || mayNotWrite;
      return this.check(forGood ? WRITE_PROTECTED : SOFTWARE_WRITE_PROTECTED);
    }
    return true;
  }

  /** The task has its status: gives everything back and tells the owner. The command may be in use again when this returns. */
  finish(): void {
    const { task, unit, abortWaiters } = this;
    this.abortWaiters = null;
    unit.scratch.release(this);
    unit.ranges.release(this);
    if (this.copy !== null) this.#endCopy();
    unit.taskSet.leave(this);
    task.owner.taskDone(task);
    if (abortWaiters !== null) for (const waiter of abortWaiters) waiter.taskEnded();
    unit.taskSet.advance();
  }

  // --- the task set ---

  begin(waited: boolean): void {
    const { refusals } = this;
    // A reservation may have come while the data did: a node that was fenced meanwhile must not write.
    const conflicts = refusals !== 0 && isRefused(refusals, this.row, this.task.cdb);
    if (conflicts) this.conflict();
    if (conflicts || ((waited || this.unit.operation !== null) && !this.checkAccess())) this.finish();
    else this.row.handler.execute(this);
  }

  /** The task has been aborted: ends it so, now. */
  endAborted(): void {
    this.refuse(Status.TASK_ABORTED);
    this.finish();
  }

  hurry(): void {
    this.request.givenUp = true;
    this.unit.backend.giveUp?.(this.request);
  }

  // --- data ---

  /**
   * Returns the first `length` bytes of the unit's reply buffer, cut to what the task has room for, and ends with GOOD.
   * `limit` is the ALLOCATION LENGTH.
   */
  finishReply(length: number, limit: number): void {
    const { task, unit } = this;
    assert(length <= unit.reply.length, 'a reply fits its buffer');
    this.transferIn(Math.min(length, limit));
    task.dataIn.copyFrom(unit.reply, 0, 0, task.dataInLength);
    this.finish();
  }

  // --- steps ---

  /** Holds the blocks `[lba, lba + blocks)`; goes on at the row's `step` when it has them. */
  lock(exclusive: boolean): void {
    if (this.unit.ranges.acquire(this, this.lba, this.lba + this.blocks, exclusive)) this.#step();
  }

  /** Gives the range back before the end. */
  unlock(): void {
    this.unit.ranges.release(this);
  }

  /** Gets a scratch buffer; goes on at the row's `step` when it has it. */
  needScratch(): void {
    if (this.unit.scratch.acquire(this)) this.#step();
  }

  rangeGranted(): void {
    this.#step();
  }

  /** What the command waited for outside of the engine has happened: goes on at the row's `step`. */
  resume(): void {
    this.#step();
  }

  scratchGranted(): void {
    this.#step();
  }

  /** Queues a READ or WRITE of `lengthBytes` at byte `offset` from or to `request.data`, which the caller has set. */
  submitTransfer(op: typeof LunOp.READ | typeof LunOp.WRITE, offset: number, fua: boolean, atomic = false): void {
    const { request } = this;
    request.op = op;
    request.offset = offset;
    request.length = request.data.lengthBytes;
    request.fua = fua;
    request.atomic = atomic;
    this.#submit();
  }

  /** Queues a request without data. */
  submitRange(op: LunOp, offset: number, length: number, fua: boolean): void {
    const { request } = this;
    request.op = op;
    request.offset = offset;
    request.length = length;
    request.fua = fua;
    request.data.clear();
    this.#submit();
  }

  requestDone(request: LunRequest, error: Errno | null): void {
    request.data.clear();
    // UNMAP asks and does not demand: as in the kernel, a pool whose map cannot change lets it do nothing.
    this.unmapRefused = (error === 'EROFS' || error === 'ENOSPC') && request.op === LunOp.UNMAP;
    if (error !== null && !this.unmapRefused && !this.task.aborted) {
      const failure = FAILURE_SENSE[error];
      this.fail(request.op === LunOp.READ || request.op === LunOp.EXTENT ? failure.read : failure.write);
    } else {
      this.#step();
    }
  }

  #submit(): void {
    const { request, unit } = this;
    request.givenUp = false;
    // A volume may have shrunk since the CDB was checked, also between two steps.
    if (request.op !== LunOp.FLUSH && request.offset + request.length > unit.blockCount * unit.blockSize) {
      this.fail(LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE);
    } else {
      if (unit.tokens.live !== 0 && CHANGES[request.op]) unit.changing(request.offset, request.length);
      unit.backend.submit(request);
    }
  }

  #endCopy(): void {
    const copy = this.copy!;
    this.copy = null;
    if (this.token !== null) this.unit.tokens.delete(this.token);
    this.token = null;
    copy.commandEnded(this.task);
  }

  #step(): void {
    if (this.task.aborted) this.endAborted();
    else this.row.handler.step(this);
  }
}
