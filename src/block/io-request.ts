import { assert } from '../base/assert.ts';
import type { BlockDevice, IoCompletion } from './block-device.ts';

/** What an `IoRequest` asks for. */
export const IoOp = { READ: 0, WRITE: 1, FLUSH: 2, DISCARD: 3, WRITE_ZEROES: 4, COPY: 5 } as const;
export type IoOp = (typeof IoOp)[keyof typeof IoOp];

const NOTHING = new Uint8Array(0);
const NOBODY: IoCompletion = { ioDone: () => assert(false, 'a request that nobody made was completed') };

/** One queued operation of a device. Pooled: see `IoQueue`. */
export class IoRequest {
  op: IoOp = IoOp.READ;
  offset = 0;
  length = 0;
  memory: Uint8Array = NOTHING;
  memoryOffset = 0;
  completion: IoCompletion = NOBODY;
  next: this | null = null;

  set(op: IoOp, offset: number, length: number, completion: IoCompletion): this {
    this.op = op;
    this.offset = offset;
    this.length = length;
    this.completion = completion;
    return this;
  }

  setMemory(memory: Uint8Array, memoryOffset: number): this {
    this.memory = memory;
    this.memoryOffset = memoryOffset;
    return this;
  }

  /** Forgets memory and completion, so that a pooled request keeps nothing alive. */
  clear(): void {
    this.memory = NOTHING;
    this.completion = NOBODY;
    this.next = null;
  }
}

/** First in, first out; links through `next`, so that a request is in one queue at most. Allocates nothing. */
export class IoQueue<T extends { next: T | null }> {
  #head: T | null = null;
  #tail: T | null = null;
  count = 0;

  /** What `shift` takes next. */
  get first(): T | null {
    return this.#head;
  }

  push(request: T): void {
    request.next = null;
    if (this.#tail === null) this.#head = request;
    else this.#tail.next = request;
    this.#tail = request;
    this.count++;
  }

  shift(): T | null {
    const request = this.#head;
    if (request === null) return null;
    this.#head = request.next;
    if (this.#head === null) this.#tail = null;
    request.next = null;
    this.count--;
    return request;
  }
}

/** Asserts the contract of `BlockDevice` on a range of the device. */
export function assertRange(device: BlockDevice, offset: number, length: number): void {
  assert(Number.isSafeInteger(offset) && offset >= 0, 'I/O at an offset that is not a whole number');
  assert(Number.isSafeInteger(length) && length > 0, 'I/O of a length that is not a whole number above zero');
  assert(offset + length <= device.sizeBytes, 'I/O past the end of the device');
  const { alignmentBytes } = device;
  assert(
    alignmentBytes === 1 || (offset % alignmentBytes === 0 && length % alignmentBytes === 0),
    "I/O that is not aligned to the device's sectors",
  );
}

/** Asserts the contract of `BlockDevice` on a range of memory. */
export function assertMemory(memory: Uint8Array, memoryOffset: number, length: number): void {
  assert(Number.isSafeInteger(memoryOffset) && memoryOffset >= 0, 'I/O at a memory offset that is not a whole number');
  assert(memoryOffset + length <= memory.length, 'I/O past the end of its memory');
}

/** Asserts that the device may be changed. */
export function assertWritable(device: BlockDevice): void {
  assert(!device.readOnly, 'a change of a device that was opened read-only');
}
