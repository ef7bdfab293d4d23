import type { Errno } from '../base/errors.ts';
import { LunOp, LunRequest, type LunRequestOwner } from '../block/lun-backend.ts';
import { COPY_STEP_BYTES } from './copy-limits.ts';
import { type RangeHolder, RangeState } from './range-lock.ts';
import type { ScratchUser } from './scratch-pool.ts';
import { FAILURE_SENSE, LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE, type Sense } from './sense.ts';
import type { UnitState } from './unit-state.ts';

export interface RangeCopyOwner {
  /** Asked before anything is read or written, and after each step, before its bytes count; false ends the copy as STOPPED. */
  copyMayGoOn(): boolean;
  /** `bytes` more have been copied. */
  copyAdvanced(bytes: number): void;
  /** Called once per `start`, possibly before it returns. */
  copyEnded(end: CopyEnd): void;
}

export const CopyEnd = { DONE: 0, STOPPED: 1, SOURCE_FAILED: 2, DESTINATION_FAILED: 3 } as const;
export type CopyEnd = (typeof CopyEnd)[keyof typeof CopyEnd];

const Phase = { FIRST_RANGE: 0, SECOND_RANGE: 1, SCRATCH: 2, READ: 3, WRITTEN: 4 } as const;
type Phase = (typeof Phase)[keyof typeof Phase];

/** A range that a copy holds. */
class HeldRange implements RangeHolder {
  rangeBegin = 0;
  rangeEnd = 0;
  rangeExclusive = false;
  rangeState: RangeState = RangeState.NONE;
  rangePrevious: RangeHolder | null = null;
  rangeNext: RangeHolder | null = null;
  readonly rangeGranted: () => void;

  constructor(rangeGranted: () => void) {
    this.rangeGranted = rangeGranted;
  }

  /** Holds the blocks that `[begin, end)`, in bytes, touches; false when it has to wait. */
  acquire(unit: UnitState, begin: number, end: number): boolean {
    return unit.ranges.acquire(this, Math.floor(begin / unit.blockSize), Math.ceil(end / unit.blockSize), false);
  }
}

/**
 * Copies bytes from one logical unit to one, the same or another, or zeroes: by COPY of the backend where it is offered, else through scratch
 * memory. It goes in bounded steps, so that others have their turn, and it can be stopped between any two of them.
 *
 * A step is like a READ and a WRITE together: it holds both ranges shared. Two copies that cross cannot lock each other out: units are locked in
 * one order for all, and within a unit both ranges are one lock.
 */
export class RangeCopy implements LunRequestOwner, ScratchUser {
  scratch: Uint8Array | null = null;
  scratchNext: ScratchUser | null = null;
  /** Why it failed. */
  failure: Sense = 0;
  readonly #owner: RangeCopyOwner;
  readonly #request: LunRequest = new LunRequest(this);
  readonly #first: HeldRange = new HeldRange(() => this.#go());
  readonly #second: HeldRange = new HeldRange(() => this.#go());
  #phase: Phase = Phase.FIRST_RANGE;
  #source: UnitState | null = null;
  #sourceOffset = 0;
  #destination!: UnitState;
  #destinationOffset = 0;
  #left = 0;
  #stepBytes = 0;
  #byReference = false;

  constructor(owner: RangeCopyOwner) {
    this.#owner = owner;
  }

  /**
   * Offsets and length are bytes and multiples of 512; ranges of one unit do not overlap. Without a source, zeroes are written, by UNMAP where
   * that does it.
   */
  start(
    source: UnitState | null,
    sourceOffset: number,
    destination: UnitState,
    destinationOffset: number,
    length: number,
  ): void {
    this.#source = source;
    this.#sourceOffset = sourceOffset;
    this.#destination = destination;
    this.#destinationOffset = destinationOffset;
    this.#left = length;
    this.#byReference = source !== null && destination.backend.copiesFrom(source.backend);
    this.#nextStep();
  }

  requestDone(request: LunRequest, error: Errno | null): void {
    request.data.clear();
    request.source = null;
    const unmapRefused = request.op === LunOp.UNMAP && (error === 'EROFS' || error === 'ENOSPC');
    if (unmapRefused) {
      this.#submitRange(LunOp.WRITE_ZEROES);
    } else if (error !== null) {
      const ofSource = request.op === LunOp.READ;
      if (request.op === LunOp.COPY) this.#owner.copyAdvanced(request.copied);
      this.failure = ofSource ? FAILURE_SENSE[error].read : FAILURE_SENSE[error].write;
      this.#end(ofSource ? CopyEnd.SOURCE_FAILED : CopyEnd.DESTINATION_FAILED);
    } else {
      this.#go();
    }
  }

  scratchGranted(): void {
    this.#go();
  }

  #nextStep(): void {
    if (this.#left === 0) {
      this.#end(CopyEnd.DONE);
      return;
    }
    this.#stepBytes = this.#stepLength();
    this.#phase = Phase.FIRST_RANGE;
    this.#lockFirst();
  }

  /** What one step does: up to a boundary of the destination's blocks, so that those can be shared whole. */
  #stepLength(): number {
    const most = this.#source === null || this.#byReference ? COPY_STEP_BYTES : this.#destination.scratch.sizeBytes;
    if (this.#left <= most) return this.#left;
    const granularity = Math.max(this.#destination.backend.unmapGranularityBytes, 512);
    const begin = this.#destinationOffset;
    const end = Math.floor((begin + most) / granularity) * granularity;
    if (end > begin) return end - begin;
    // The blocks are longer than a step: a whole one is shared at once, of others a part is copied.
    return this.#byReference && begin % granularity === 0 && this.#left >= granularity ? granularity : most;
  }

  #lockFirst(): void {
    const source = this.#source;
    const destination = this.#destination;
    const from = this.#sourceOffset;
    const to = this.#destinationOffset;
    const length = this.#stepBytes;
    let held: boolean;
    if (source === null) {
      held = this.#first.acquire(destination, to, to + length);
    } else if (source === destination) {
      held = this.#first.acquire(destination, Math.min(from, to), Math.max(from, to) + length);
    } else if (source.lockOrder < destination.lockOrder) {
      held = this.#first.acquire(source, from, from + length);
    } else {
      held = this.#first.acquire(destination, to, to + length);
    }
    if (held) this.#go();
  }

  /** True when nothing is to be waited for. */
  #lockSecond(): boolean {
    const source = this.#source;
    const destination = this.#destination;
    if (source === null || source === destination) return true;
    return source.lockOrder < destination.lockOrder
      ? this.#second.acquire(destination, this.#destinationOffset, this.#destinationOffset + this.#stepBytes)
      : this.#second.acquire(source, this.#sourceOffset, this.#sourceOffset + this.#stepBytes);
  }

  #go(): void {
    if (!this.#owner.copyMayGoOn()) {
      this.#end(CopyEnd.STOPPED);
      return;
    }
    switch (this.#phase) {
      case Phase.FIRST_RANGE:
        this.#phase = Phase.SECOND_RANGE;
        if (this.#lockSecond()) this.#go();
        return;
      case Phase.SECOND_RANGE:
        this.#begin();
        return;
      case Phase.SCRATCH: {
        this.#phase = Phase.READ;
        const request = this.#request;
        request.data.set(this.scratch!, 0, this.#stepBytes);
        request.op = LunOp.READ;
        request.offset = this.#sourceOffset;
        request.length = this.#stepBytes;
        request.fua = false;
        this.#source!.backend.submit(request);
        return;
      }
      case Phase.READ:
        this.#request.data.set(this.scratch!, 0, this.#stepBytes);
        this.#submitRange(LunOp.WRITE);
        return;
      case Phase.WRITTEN: {
        this.#release();
        const bytes = this.#stepBytes;
        this.#sourceOffset += bytes;
        this.#destinationOffset += bytes;
        this.#left -= bytes;
        this.#owner.copyAdvanced(bytes);
        this.#nextStep();
      }
    }
  }

  /** Everything is locked: the step's first request. */
  #begin(): void {
    const source = this.#source;
    const destination = this.#destination;
    // A volume may have shrunk since.
    if (source !== null && this.#sourceOffset + this.#stepBytes > source.blockCount * source.blockSize) {
      this.failure = LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE;
      this.#end(CopyEnd.SOURCE_FAILED);
    } else if (this.#destinationOffset + this.#stepBytes > destination.blockCount * destination.blockSize) {
      this.failure = LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE;
      this.#end(CopyEnd.DESTINATION_FAILED);
    } else if (source === null) {
      this.#submitRange(
        destination.backend.unmappedReadsZeroes && destination.unmaps ? LunOp.UNMAP : LunOp.WRITE_ZEROES,
      );
    } else if (this.#byReference) {
      this.#request.source = source.backend;
      this.#request.sourceOffset = this.#sourceOffset;
      this.#submitRange(LunOp.COPY);
    } else {
      this.#phase = Phase.SCRATCH;
      if (destination.scratch.acquire(this)) this.#go();
    }
  }

  /** Changes the destination. */
  #submitRange(op: LunOp): void {
    const request = this.#request;
    const destination = this.#destination;
    this.#phase = Phase.WRITTEN;
    request.op = op;
    request.offset = this.#destinationOffset;
    request.length = this.#stepBytes;
    request.fua = !destination.writeCache;
    destination.changing(request.offset, request.length);
    // That may have revoked the token that this copy is for.
    if (this.#owner.copyMayGoOn()) destination.backend.submit(request);
    else this.#end(CopyEnd.STOPPED);
  }

  #release(): void {
    const source = this.#source;
    const destination = this.#destination;
    destination.scratch.release(this);
    const firstIsSource = source !== null && source.lockOrder < destination.lockOrder;
    (firstIsSource ? source : destination).ranges.release(this.#first);
    if (source !== null && source !== destination) (firstIsSource ? destination : source).ranges.release(this.#second);
  }

  #end(end: CopyEnd): void {
    this.#release();
    this.#owner.copyEnded(end);
  }
}
