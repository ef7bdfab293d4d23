import type { Errno } from '../base/errors.ts';
import type { IoCompletion } from '../block/block-device.ts';
import type { LunRequest } from '../block/lun-backend.ts';
import type { Cell } from './bio-prison.ts';
import type { ThinDevice } from './thin-device.ts';

/** What happens to a `ThinIo` next when its device I/O has ended, or when what it waited for is there. */
export const Phase = {
  /** Look up the mapping and go on from there. */
  MAP: 0,
  /** Data of new blocks is down: insert their mappings. */
  INSERT: 1,
  /** In-place I/O is under way; nothing but the answer is left. */
  TRANSFER: 2,
  /** Remove mappings of a discarded range, a bounded number at a time. */
  REMOVE: 3,
  /** A copy has locked its ranges: wait for those who were there before. */
  CLAIM: 4,
  /** Share blocks of a range, a bounded number at a time. */
  SHARE: 5,
} as const;
export type Phase = (typeof Phase)[keyof typeof Phase];

export interface ThinIoOwner {
  /** All device I/O of `io` has ended. */
  ioPhaseDone(io: ThinIo): void;
}

/**
 * One request on its way through the pool. Pooled; its arrays keep their length between uses.
 *
 * The *step* is the byte range that is worked on: the whole request for reads and writes; for a discard first the partial blocks at
 * the two ends (zeroed), then the whole blocks between them (unmapped).
 */
export class ThinIo implements IoCompletion {
  request!: LunRequest;
  device!: ThinDevice;
  phase: Phase = Phase.MAP;
  error: Errno | null = null;
  /** Device operations under way, and one while they are being queued. */
  pending = 0;
  /** Lookups that found metadata not cached. */
  misses = 0;
  /** A commit was asked for because metadata space was short. */
  triedCommit = false;
  /** Of the deferred set; -1 when it has not entered. */
  epoch = -1;
  cell: Cell | null = null;
  /** Of a copy: the device that it copies from, and the range locked there. */
  source: ThinDevice | null = null;
  sourceCell: Cell | null = null;

  stepBegin = 0;
  stepEnd = 0;
  /** The step stores zeroes instead of the request's data. */
  zero = false;
  /** Unmapped blocks stay unmapped: they read as zeroes already. */
  skipUnmapped = false;
  /** Whole blocks of a discard that are still mapped, or of a copy that are still to be shared: `[removeBegin, removeEnd)`. */
  removeBegin = 0;
  removeEnd = 0;

  /** The mapping of the step: runs of virtual blocks that end (exclusive) at `runEnd`, from data block `runData`, -1 for a hole. */
  readonly runEnd: number[] = [];
  readonly runData: number[] = [];
  readonly runShared: boolean[] = [];
  runCount = 0;

  /** Data blocks allocated for this request, and the virtual blocks they will stand for. */
  readonly newVirtual: number[] = [];
  readonly newData: number[] = [];
  newCount = 0;

  /** How far the request's memory has been handed to the device. */
  pieceIndex = 0;
  pieceUsed = 0;

  next: ThinIo | null = null;
  private readonly owner: ThinIoOwner;

  constructor(owner: ThinIoOwner) {
    this.owner = owner;
  }

  reset(device: ThinDevice, request: LunRequest): void {
    this.device = device;
    this.request = request;
    this.phase = Phase.MAP;
    this.error = null;
    this.pending = 0;
    this.misses = 0;
    this.triedCommit = false;
    this.epoch = -1;
    this.cell = null;
    this.source = null;
    this.sourceCell = null;
    this.stepBegin = request.offset;
    this.stepEnd = request.offset + request.length;
    this.zero = false;
    this.skipUnmapped = false;
    this.removeBegin = 0;
    this.removeEnd = 0;
    this.runCount = 0;
    this.newCount = 0;
    this.pieceIndex = 0;
    this.pieceUsed = 0;
  }

  ioDone(error: Errno | null): void {
    if (error !== null && this.error === null) this.error = error;
    if (--this.pending === 0) this.owner.ioPhaseDone(this);
  }
}
