import type { Clock } from '../base/clock.ts';
import type { Errno } from '../base/errors.ts';
import { MIB } from '../base/units.ts';
import { alignedMemory } from '../block/aligned-memory.ts';
import { type LunBackend, LunOp, LunRequest, type LunRequestOwner } from '../block/lun-backend.ts';
import { repeatBytes } from './data-bytes.ts';
import { type RangeHolder, type RangeLock, RangeState } from './range-lock.ts';
import {
  FORMAT_COMMAND_FAILED,
  FORMAT_IN_PROGRESS,
  INTERNAL_TARGET_FAILURE,
  NO_SKS,
  NOT_READY_CAUSE_NOT_REPORTABLE,
  progressIndication,
  SANITIZE_COMMAND_FAILED,
  SANITIZE_IN_PROGRESS,
  type Sense,
} from './sense.ts';
import type { UnfinishedOperation, UnitMemory } from './unit-memory.ts';

/** The command that waits for the end of an operation. */
export interface OperationWaiter {
  readonly task: { readonly aborted: boolean };
  finish(): void;
  fail(sense: Sense): void;
  endAborted(): void;
}

/** The unit that it is done to. */
export interface OperationSubject {
  readonly backend: LunBackend;
  readonly blockSize: number;
  readonly blockCount: number;
  readonly ranges: RangeLock;
  readonly clock: Clock | null;
  changing(offset: number, length: number): void;
  operation: MediumOperation | null;
  memory: UnitMemory;
  keep(memory: UnitMemory, kept: () => void, failed: () => void): void;
}

/** Bytes of one request that overwrites, and that unmaps. */
const OVERWRITE_SIZE = MIB;
const UNMAP_SIZE: number = 256 * MIB;
/** Bytes that are overwritten in a millisecond at most: the rest of what the device can do is for those who work. */
const OVERWRITE_RATE = (192 * MIB) / 1000;
const MAX_PROGRESS = 0xffff;

/**
 * SANITIZE or FORMAT UNIT at work, from its begin to a good end: over everything that the medium holds, request by request, alone on the medium. It
 * goes on whatever happens to the command, to initiators and to the process: the unit keeps that it was begun, and begins again. While it is there, the unit refuses other
 * commands; when it has failed, all but a new attempt.
 */
export class MediumOperation implements LunRequestOwner, RangeHolder {
  readonly unfinished: UnfinishedOperation;
  rangeBegin = 0;
  rangeEnd = 0;
  rangeExclusive = false;
  rangeState: RangeState = RangeState.NONE;
  rangePrevious: RangeHolder | null = null;
  rangeNext: RangeHolder | null = null;
  readonly #unit: OperationSubject;
  readonly #request: LunRequest = new LunRequest(this);
  #waiter: OperationWaiter | null = null;
  #failed: boolean;
  #pass = 0;
  #position = 0;
  #pattern: Uint8Array | null = null;
  #begunMs = 0;

  constructor(unit: OperationSubject, unfinished: UnfinishedOperation) {
    this.#unit = unit;
    this.unfinished = unfinished;
    this.#failed = unfinished.failed;
  }

  /** Begins; `waiter` ends when it ends, or with `immediately` as soon as it is kept that it has begun. */
  static begin(
    unit: OperationSubject,
    unfinished: UnfinishedOperation,
    waiter: OperationWaiter,
    immediately: boolean,
  ): void {
    const before = unit.operation;
    const operation = new MediumOperation(unit, unfinished);
    unit.operation = operation;
    unit.keep(
      { ...unit.memory, operation: unfinished },
      () => {
        if (immediately) waiter.finish();
        else operation.#waiter = waiter;
        operation.start();
      },
      () => {
        unit.operation = before;
        waiter.fail(INTERNAL_TARGET_FAILURE);
      },
    );
  }

  get failed(): boolean {
    return this.#failed;
  }

  /** Why other commands are refused. */
  get sense(): Sense {
    if (this.unfinished.command === 'format') return this.#failed ? FORMAT_COMMAND_FAILED : FORMAT_IN_PROGRESS;
    return this.#failed ? SANITIZE_COMMAND_FAILED : SANITIZE_IN_PROGRESS;
  }

  /** Sense key specific bytes that go with it. */
  get sks(): number {
    if (this.#failed) return NO_SKS;
    const passes = this.#pass + this.#position / this.#end;
    return progressIndication(
      Math.min(MAX_PROGRESS, Math.floor((passes / this.unfinished.passes) * (MAX_PROGRESS + 1))),
    );
  }

  /** Waits until what is in flight is answered, and does it. */
  start(): void {
    const { ranges } = this.#unit;
    if (ranges.acquire(this, 0, Number.MAX_SAFE_INTEGER, true)) this.rangeGranted();
  }

  rangeGranted(): void {
    this.#unit.changing(0, Number.MAX_SAFE_INTEGER);
    const { pattern } = this.unfinished;
    if (pattern !== null) this.#pattern = fillBlocks(Buffer.from(pattern, 'hex'), this.#unit.blockSize);
    this.#begunMs = this.#unit.clock?.nowMs() ?? 0;
    this.#next();
  }

  requestDone(request: LunRequest, error: Errno | null): void {
    request.data.clear();
    if (error === 'ESHUTDOWN') this.#stop();
    else if (error !== null) this.#fail();
    else if (request.op === LunOp.FLUSH) this.#succeed();
    else if (request.op === LunOp.EXTENT) {
      if (request.extentMapped) this.#submit(LunOp.UNMAP, Math.min(request.extentLength, UNMAP_SIZE));
      else this.#advance(request.extentLength);
    } else this.#advance(request.length);
  }

  /** Bytes of the medium; a volume may be resized meanwhile. */
  get #end(): number {
    return this.#unit.blockCount * this.#unit.blockSize;
  }

  #advance(length: number): void {
    this.#position += length;
    const { clock } = this.#unit;
    const aheadMs = clock === null || this.#pattern === null ? 0 : this.#aheadMs(clock);
    if (aheadMs >= 1) clock!.setTimer(aheadMs, () => this.#next());
    else this.#next();
  }

  #aheadMs(clock: Clock): number {
    const done = this.#pass * this.#end + this.#position;
    return this.#begunMs + done / OVERWRITE_RATE - clock.nowMs();
  }

  #next(): void {
    if (this.#waiter?.task.aborted) {
      const waiter = this.#waiter;
      this.#waiter = null;
      waiter.endAborted();
    }
    const end = this.#end;
    if (this.#position >= end && this.#pass + 1 < this.unfinished.passes) {
      this.#pass++;
      this.#position = 0;
      if (this.unfinished.inverts) invert(this.#pattern!);
    }
    const left = end - this.#position;
    if (left <= 0) this.#submit(LunOp.FLUSH, 0);
    else if (this.#pattern === null) this.#submit(LunOp.EXTENT, left);
    else {
      const length = Math.min(left, OVERWRITE_SIZE);
      this.#request.data.set(this.#pattern, 0, length);
      this.#submit(LunOp.WRITE, length);
    }
  }

  #submit(op: LunOp, length: number): void {
    const request = this.#request;
    request.op = op;
    request.offset = op === LunOp.FLUSH ? 0 : this.#position;
    request.length = length;
    request.fua = false;
    this.#unit.backend.submit(request);
  }

  #succeed(): void {
    const unit = this.#unit;
    unit.keep(
      { ...unit.memory, operation: null },
      () => {
        unit.operation = null;
        this.#release()?.finish();
      },
      () => this.#fail(),
    );
  }

  /** The volume is being closed: the next process begins again. */
  #stop(): void {
    this.#release()?.fail(NOT_READY_CAUSE_NOT_REPORTABLE);
  }

  #fail(): void {
    const unit = this.#unit;
    this.#failed = true;
    const failed = { ...this.unfinished, failed: true };
    // Where that cannot be kept, the next process tries again.
    const nothing = (): void => {};
    unit.keep({ ...unit.memory, operation: failed }, nothing, nothing);
    this.#release()?.fail(this.sense);
  }

  #release(): OperationWaiter | null {
    const waiter = this.#waiter;
    this.#waiter = null;
    this.#pattern = null;
    this.#unit.ranges.release(this);
    if (waiter?.task.aborted) {
      waiter.endAborted();
      return null;
    }
    return waiter;
  }
}

/** Every block begins with the pattern and repeats it. */
function fillBlocks(pattern: Uint8Array, blockSize: number): Uint8Array {
  const bytes = alignedMemory(OVERWRITE_SIZE);
  bytes.set(pattern);
  repeatBytes(bytes, pattern.length, blockSize);
  repeatBytes(bytes, blockSize, OVERWRITE_SIZE);
  return bytes;
}

function invert(bytes: Uint8Array): void {
  for (let i = 0; i < bytes.length; i++) bytes[i]! ^= 0xff;
}
