import { assert } from '../base/assert.ts';
import type { Errno } from '../base/errors.ts';
import { KIB, MIB } from '../base/units.ts';
import { IoQueue } from './io-request.ts';
import type { IoVector } from './io-vector.ts';
import { type LunBackend, LunOp, type LunRequest } from './lun-backend.ts';
import { SparseMemory } from './sparse-memory.ts';

export interface MemoryLunOptions {
  /** Default 64 KiB; also what RAM is taken in. */
  unmapGranularityBytes?: number;
  readOnly?: boolean;
}

/**
 * A RAM disk, thinly provisioned: what SCSI is tested on. Requests run one after the other in the order of submission,
 * in a later turn of the event loop.
 */
export class MemoryLun implements LunBackend {
  readonly readOnly: boolean;
  readonly unmapGranularityBytes: number;
  readonly unmappedReadsZeroes = true;
  readonly atomicWriteBytes: number = MIB;
  readonly #contents: SparseMemory;
  readonly #queued: IoQueue<LunRequest> = new IoQueue();
  readonly #run: () => void = () => this.#complete();
  #sizeBytes: number;
  #scheduled = false;

  constructor(sizeBytes: number, options: MemoryLunOptions = {}) {
    assert(Number.isSafeInteger(sizeBytes) && sizeBytes > 0, 'size of a LUN is not a whole number above zero');
    this.#sizeBytes = sizeBytes;
    this.readOnly = options.readOnly ?? false;
    this.unmapGranularityBytes = options.unmapGranularityBytes ?? 64 * KIB;
    this.#contents = new SparseMemory(this.unmapGranularityBytes);
  }

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  /** RAM that the contents take. */
  get allocatedBytes(): number {
    return this.#contents.allocatedBytes;
  }

  /** Grows or shrinks; what is cut off is gone. The logical unit is not told. */
  resize(sizeBytes: number): void {
    assert(Number.isSafeInteger(sizeBytes) && sizeBytes > 0, 'size of a LUN is not a whole number above zero');
    this.#contents.truncate(sizeBytes);
    this.#sizeBytes = sizeBytes;
  }

  copiesFrom(source: LunBackend): boolean {
    return source instanceof MemoryLun;
  }

  submit(request: LunRequest): void {
    this.#queued.push(request);
    this.#schedule();
  }

  #schedule(): void {
    if (this.#scheduled || this.#queued.count === 0) return;
    this.#scheduled = true;
    setImmediate(this.#run);
  }

  #complete(): void {
    this.#scheduled = false;
    try {
      for (let left = this.#queued.count; left > 0; left--) {
        const request = this.#queued.shift()!;
        request.owner.requestDone(request, this.#perform(request));
      }
    } finally {
      this.#schedule();
    }
  }

  #perform(request: LunRequest): Errno | null {
    const { op, offset, length, data } = request;
    if (op === LunOp.FLUSH) return null;
    if (offset + length > this.#sizeBytes) return 'ENXIO';
    if (op === LunOp.EXTENT) {
      this.#extent(request);
      return null;
    }
    if (op === LunOp.READ) {
      this.#read(data, offset);
      return null;
    }
    if (this.readOnly) return 'EROFS';
    if (op === LunOp.WRITE) this.#write(data, offset);
    else if (op === LunOp.COPY) return this.#copy(request);
    else if (op === LunOp.UNMAP) this.#contents.drop(offset, length);
    else this.#contents.zero(offset, length);
    return null;
  }

  #read(data: IoVector, offset: number): void {
    let at = offset;
    for (let i = 0; i < data.count; i++) {
      this.#contents.read(at, data.memory, data.offsets[i]!, data.lengths[i]!);
      at += data.lengths[i]!;
    }
  }

  #write(data: IoVector, offset: number): void {
    let at = offset;
    for (let i = 0; i < data.count; i++) {
      this.#contents.write(at, data.memory, data.offsets[i]!, data.lengths[i]!);
      at += data.lengths[i]!;
    }
  }

  #copy(request: LunRequest): Errno | null {
    const { offset, length, source, sourceOffset } = request;
    request.copied = 0;
    if (!(source instanceof MemoryLun)) return 'EINVAL';
    if (sourceOffset + length > source.#sizeBytes) return 'ENXIO';
    if (source === this && sourceOffset < offset + length && offset < sourceOffset + length) return 'EINVAL';
    this.#contents.copy(source.#contents, sourceOffset, offset, length);
    request.copied = length;
    return null;
  }

  #extent(request: LunRequest): void {
    const { offset, length } = request;
    request.extentMapped = this.#contents.exists(offset);
    request.extentLength = this.#contents.sameUntil(offset, offset + length) - offset;
  }
}
