import { assert } from '../base/assert.ts';
import { KIB } from '../base/units.ts';
import type { BlockDevice, IoCompletion } from './block-device.ts';
import { assertMemory, assertRange, assertWritable, IoOp, IoQueue, IoRequest } from './io-request.ts';
import { SparseMemory } from './sparse-memory.ts';

/** Times in a turn of the event loop that an `inline` device completes inside `submit()`. */
const MAX_INLINE = 64;

export interface MemoryDeviceOptions {
  /** For messages. Default `memory`. */
  path?: string;
  /** Default 1. */
  alignmentBytes?: number;
  readOnly?: boolean;
  /** Complete inside `submit()` what is submitted outside of a completion, as io_uring does with what is in the page cache. */
  inline?: boolean;
}

/**
 * A device in RAM that takes space only where it was written: for tests and demos. Operations take effect one after the other,
 * in the order in which they were queued, in a later turn of the event loop than their `submit()`; a test that hands over memory
 * and then touches it is found out.
 */
export class MemoryDevice implements BlockDevice {
  readonly path: string;
  readonly alignmentBytes: number;
  readonly readOnly: boolean;
  readonly discardGranularityBytes: number = 4 * KIB;
  readonly #contents: SparseMemory = new SparseMemory(4 * KIB);
  readonly #queued: IoQueue<IoRequest> = new IoQueue();
  readonly #submitted: IoQueue<IoRequest> = new IoQueue();
  readonly #pool: IoQueue<IoRequest> = new IoQueue();
  readonly #run: () => void = () => {
    this.#scheduled = false;
    this.#inlineLeft = MAX_INLINE;
    this.#complete();
  };
  #sizeBytes: number;
  readonly #inline: boolean;
  #inlineLeft = MAX_INLINE;
  #scheduled = false;
  #completing = false;
  #closed = false;
  #drained: (() => void) | null = null;

  constructor(sizeBytes: number, options: MemoryDeviceOptions = {}) {
    assert(Number.isSafeInteger(sizeBytes) && sizeBytes >= 0, 'size of a device is not a whole number');
    this.#sizeBytes = sizeBytes;
    this.path = options.path ?? 'memory';
    this.alignmentBytes = options.alignmentBytes ?? 1;
    this.readOnly = options.readOnly ?? false;
    this.#inline = options.inline ?? false;
  }

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  /** RAM that the contents take. */
  get allocatedBytes(): number {
    return this.#contents.allocatedBytes;
  }

  read(offset: number, memory: Uint8Array, memoryOffset: number, length: number, completion: IoCompletion): void {
    assertMemory(memory, memoryOffset, length);
    this.#queue(IoOp.READ, offset, length, completion).setMemory(memory, memoryOffset);
  }

  write(offset: number, memory: Uint8Array, memoryOffset: number, length: number, completion: IoCompletion): void {
    assertWritable(this);
    assertMemory(memory, memoryOffset, length);
    this.#queue(IoOp.WRITE, offset, length, completion).setMemory(memory, memoryOffset);
  }

  flush(completion: IoCompletion): void {
    this.#enqueue(IoOp.FLUSH, 0, 0, completion);
  }

  discard(offset: number, length: number, completion: IoCompletion): void {
    assertWritable(this);
    this.#queue(IoOp.DISCARD, offset, length, completion);
  }

  writeZeroes(offset: number, length: number, completion: IoCompletion): void {
    assertWritable(this);
    this.#queue(IoOp.WRITE_ZEROES, offset, length, completion);
  }

  copyCached(): boolean {
    return false;
  }

  submit(): void {
    for (let request = this.#queued.shift(); request !== null; request = this.#queued.shift()) {
      this.#submitted.push(request);
    }
    if (this.#inline && !this.#completing && this.#inlineLeft > 0) {
      this.#inlineLeft--;
      this.#complete();
    } else {
      this.#schedule();
    }
  }

  readSync(offset: number, memory: Uint8Array, memoryOffset: number, length: number): void {
    assertRange(this, offset, length);
    assertMemory(memory, memoryOffset, length);
    this.#contents.read(offset, memory, memoryOffset, length);
  }

  writeSync(offset: number, memory: Uint8Array, memoryOffset: number, length: number): void {
    assertWritable(this);
    assertRange(this, offset, length);
    assertMemory(memory, memoryOffset, length);
    this.#contents.write(offset, memory, memoryOffset, length);
  }

  flushSync(): void {
    assert(!this.#closed, 'use of a closed device');
  }

  resize(sizeBytes: number): void {
    assertWritable(this);
    assert(Number.isSafeInteger(sizeBytes) && sizeBytes >= 0, 'size of a device is not a whole number');
    this.#contents.truncate(sizeBytes);
    this.#sizeBytes = sizeBytes;
  }

  refreshSize(): number {
    return this.#sizeBytes;
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.submit();
    this.#closed = true;
    if (this.#scheduled || this.#completing) {
      await new Promise<void>((resolve) => {
        this.#drained = resolve;
      });
    }
  }

  #queue(op: IoOp, offset: number, length: number, completion: IoCompletion): IoRequest {
    assertRange(this, offset, length);
    return this.#enqueue(op, offset, length, completion);
  }

  #enqueue(op: IoOp, offset: number, length: number, completion: IoCompletion): IoRequest {
    assert(!this.#closed, 'use of a closed device');
    const request = (this.#pool.shift() ?? new IoRequest()).set(op, offset, length, completion);
    this.#queued.push(request);
    return request;
  }

  #schedule(): void {
    if (this.#scheduled || this.#completing || this.#submitted.count === 0) return;
    this.#scheduled = true;
    setImmediate(this.#run);
  }

  /** Ends what was submitted before this turn; what its completions submit waits for the next. */
  #complete(): void {
    this.#completing = true;
    try {
      for (let left = this.#submitted.count; left > 0; left--) {
        const request = this.#submitted.shift()!;
        this.#perform(request);
        const { completion } = request;
        request.clear();
        this.#pool.push(request);
        completion.ioDone(null);
      }
    } finally {
      this.#completing = false;
      this.#schedule();
      if (!this.#scheduled) this.#drained?.();
    }
  }

  #perform(request: IoRequest): void {
    const { op, offset, length, memory, memoryOffset } = request;
    if (op === IoOp.READ) this.#contents.read(offset, memory, memoryOffset, length);
    else if (op === IoOp.WRITE) this.#contents.write(offset, memory, memoryOffset, length);
    else if (op === IoOp.DISCARD) this.#contents.drop(offset, length);
    else if (op === IoOp.WRITE_ZEROES) this.#contents.zero(offset, length);
  }
}
