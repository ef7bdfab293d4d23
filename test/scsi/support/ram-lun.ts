import { assert } from '../../../src/base/assert.ts';
import type { Errno } from '../../../src/base/errors.ts';
import { type LunBackend, LunOp, type LunRequest, type ProvisioningResources } from '../../../src/block/lun-backend.ts';

/**
 * A RAM disk with a map, strict about what it is asked: a request outside the disk, of a wrong shape or of bytes that are no sectors fails the test.
 * Requests take effect in the order of submission and complete when the test says so.
 */
export class RamLun implements LunBackend {
  sizeBytes: number;
  readOnly = false;
  readonly unmapGranularityBytes: number;
  unmappedReadsZeroes = true;
  atomicWriteBytes = 1024 * 1024;
  resources?: ProvisioningResources;
  data: Uint8Array;
  readonly mapped: Set<number> = new Set();
  /** Set: the next requests of that operation fail with it. */
  readonly failures: Map<LunOp, Errno> = new Map();
  readonly log: { op: LunOp; offset: number; length: number; fua: boolean }[] = [];
  readonly queue: LunRequest[] = [];
  /** Called before each request takes effect. */
  beforeEffect: ((request: LunRequest) => void) | null = null;

  constructor(sizeBytes: number, unmapGranularityBytes = 8192) {
    this.sizeBytes = sizeBytes;
    this.unmapGranularityBytes = unmapGranularityBytes;
    this.data = new Uint8Array(sizeBytes);
  }

  copiesFrom(source: LunBackend): boolean {
    return source instanceof RamLun;
  }

  submit(request: LunRequest): void {
    const { op, offset, length, data, source, sourceOffset } = request;
    if (op !== LunOp.FLUSH) {
      assert(Number.isSafeInteger(offset) && Number.isSafeInteger(length), 'whole numbers');
      assert(offset >= 0 && length > 0 && offset + length <= this.sizeBytes, 'inside the disk');
      assert(offset % 512 === 0 && length % 512 === 0, 'whole sectors');
    }
    if (op === LunOp.READ || op === LunOp.WRITE) {
      let sum = 0;
      for (let i = 0; i < data.count; i++) {
        assert(data.offsets[i]! >= 0 && data.lengths[i]! > 0, 'a piece has bytes');
        assert(data.offsets[i]! + data.lengths[i]! <= data.memory.length, 'a piece lies in its arena');
        sum += data.lengths[i]!;
      }
      assert(sum === length && data.lengthBytes === length, 'the data has the length of the request');
    }
    if (op === LunOp.COPY) {
      assert(source instanceof RamLun && sourceOffset >= 0, 'another RAM disk');
      assert(sourceOffset + length <= source.sizeBytes && sourceOffset % 512 === 0, 'sectors inside its source');
      assert(
        source !== this || sourceOffset + length <= offset || offset + length <= sourceOffset,
        'ranges do not overlap',
      );
    }
    assert(!this.queue.includes(request), 'a request is submitted once');
    this.queue.push(request);
  }

  /** Completes what is queued, and what that queues, until nothing is left. */
  drain(): void {
    while (this.queue.length > 0) this.completeOne(0);
  }

  /** Completes the queued request at `index`. What was queued before and overlaps must have been completed by the caller's choice of order. */
  completeOne(index: number): void {
    const request = this.queue.splice(index, 1)[0]!;
    this.log.push({ op: request.op, offset: request.offset, length: request.length, fua: request.fua });
    const failure = this.failures.get(request.op);
    if (failure !== undefined) {
      request.owner.requestDone(request, failure);
      return;
    }
    this.beforeEffect?.(request);
    this.#apply(request);
    request.owner.requestDone(request, null);
  }

  #apply(request: LunRequest): void {
    const { op, offset, length, data } = request;
    const g = this.unmapGranularityBytes || 8192;
    switch (op) {
      case LunOp.READ:
        data.copyFrom(this.data, offset, 0, length);
        break;
      case LunOp.WRITE:
        data.copyTo(this.data, offset, 0, length);
        this.#map(offset, length);
        break;
      case LunOp.WRITE_ZEROES:
        this.data.fill(0, offset, offset + length);
        this.#map(offset, length);
        break;
      case LunOp.UNMAP:
        this.data.fill(0, offset, offset + length);
        for (let i = Math.ceil(offset / g); (i + 1) * g <= offset + length; i++) this.mapped.delete(i);
        break;
      case LunOp.EXTENT: {
        const first = Math.floor(offset / g);
        request.extentMapped = this.mapped.has(first);
        let i = first;
        while (i * g < offset + length && this.mapped.has(i) === request.extentMapped) i++;
        request.extentLength = Math.min(i * g - offset, length);
        break;
      }
      case LunOp.COPY:
        this.#copy(request, request.source as RamLun);
        break;
      case LunOp.FLUSH:
        break;
    }
  }

  #copy(request: LunRequest, source: RamLun): void {
    const { offset, length, sourceOffset } = request;
    this.data.set(source.data.subarray(sourceOffset, sourceOffset + length), offset);
    this.#map(offset, length);
    request.copied = length;
  }

  #map(offset: number, length: number): void {
    const g = this.unmapGranularityBytes || 8192;
    for (let i = Math.floor(offset / g); i * g < offset + length; i++) this.mapped.add(i);
  }

  resize(sizeBytes: number): void {
    const data = new Uint8Array(sizeBytes);
    data.set(this.data.subarray(0, Math.min(sizeBytes, this.sizeBytes)));
    this.data = data;
    this.sizeBytes = sizeBytes;
  }
}
