import type { Errno } from '../base/errors.ts';
import { IoVector } from './io-vector.ts';

/** What a `LunRequest` asks for. */
export const LunOp = { READ: 0, WRITE: 1, FLUSH: 2, UNMAP: 3, WRITE_ZEROES: 4, EXTENT: 5, COPY: 6 } as const;
export type LunOp = (typeof LunOp)[keyof typeof LunOp];

export interface LunRequestOwner {
  /** `error` is null on success. Called once per submitted request, never from inside `submit()` itself. */
  requestDone(request: LunRequest, error: Errno | null): void;
}

/**
 * One request to a `LunBackend`. Pooled: the owner fills it in, submits it, and has it back when `requestDone` is called;
 * in between it belongs to the backend.
 *
 * | op | fields | effect |
 * |---|---|---|
 * | READ | offset, length, data | fills `data` |
 * | WRITE | offset, length, data, fua, atomic | stores `data`; with `fua` it is durable when done; with `atomic` all of it or nothing is there after whatever failure |
 * | FLUSH | | every request that was done before is durable when done |
 * | UNMAP | offset, length | gives back whole blocks of the backend and zeroes the rest: with `unmappedReadsZeroes` the range reads as zeroes |
 * | WRITE_ZEROES | offset, length, fua | the range reads as zeroes and stays (or becomes) mapped |
 * | EXTENT | offset, length | sets `extentLength` and `extentMapped`: how far from `offset`, at most `length`, the map says the same; what is not mapped holds nothing but zeroes |
 * | COPY | offset, length, source, sourceOffset, fua | the range holds what the range at `sourceOffset` of `source` holds; blocks that are not mapped there need not be mapped here. `copied` bytes from the beginning are certain, also on an error |
 *
 * COPY is for a source that `copiesFrom` says yes to. What is written to either range meanwhile is copied or not, as of any two requests that overlap. It may copy by
 * reference. EINVAL for another source, and where the two ranges overlap.
 *
 * Errors: ENOSPC (no space; of UNMAP: a part of a block could not be zeroed), EROFS (of UNMAP: the map cannot change now), EIO, ENXIO (past the end), ESHUTDOWN (closing).
 */
export class LunRequest {
  op: LunOp = LunOp.READ;
  /** Bytes. */
  offset = 0;
  /** Bytes; equals `data.lengthBytes` for READ and WRITE. */
  length = 0;
  fua = false;
  atomic = false;
  readonly data: IoVector = new IoVector();
  extentLength = 0;
  extentMapped = false;
  source: LunBackend | null = null;
  /** Bytes. */
  sourceOffset = 0;
  copied = 0;
  /** See `LunBackend.giveUp`; the owner takes it back before it submits the request again. */
  givenUp = false;
  owner: LunRequestOwner;
  /** For whoever has the request at the moment. */
  next: LunRequest | null = null;

  constructor(owner: LunRequestOwner) {
    this.owner = owner;
  }
}

/** The space of thin provisioning, now. */
export interface ProvisioningResources {
  /** What the unit has mapped. */
  readonly usedBytes: number;
  /** What it can still map, perhaps in common with others. */
  readonly availableBytes: number;
  /** `availableBytes` at which the administrator is warned; 0: never. */
  readonly lowWaterBytes: number;
}

/**
 * What a logical unit stands on: a thin volume, a RAM disk, a file.
 *
 * `submit` only queues; the backend starts everything queued in a turn of the event loop at the end of that turn, so that what
 * arrives as a batch goes down as a batch. Requests that overlap while both are in flight may take effect in either order, as on
 * any disk with simple tasks; a request that was done before another was submitted comes before it.
 */
export interface LunBackend {
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  /** UNMAP gives back multiples of this, at multiples of this; 0 where it is not offered, for as long as the backend lives. */
  readonly unmapGranularityBytes: number;
  /** What was unmapped reads as zeroes; otherwise what it reads as is not defined. */
  readonly unmappedReadsZeroes: boolean;
  /** The longest WRITE that can be atomic, wherever it begins; left out: none. */
  readonly atomicWriteBytes?: number;
  /** Left out where it is not known. */
  readonly resources?: ProvisioningResources;
  /** COPY from `source`, which may be this one, is offered: without data I/O where that can be. Otherwise whoever copies reads and writes. */
  copiesFrom(source: LunBackend): boolean;
  submit(request: LunRequest): void;
  /**
   * `request` is `givenUp` now: nobody waits for what it does. If it cannot go on for want of space, it is done soon, with ENOSPC; else as if nothing had been said. Left out:
   * none waits like that.
   */
  giveUp?(request: LunRequest): void;
}
