import type { Errno } from '../../src/base/errors.ts';
import { StorageError } from '../../src/base/errors.ts';
import type { BlockDevice, IoCompletion } from '../../src/block/block-device.ts';

/** A request that a test may let fail or record. */
export interface DeviceEvent {
  kind: 'read' | 'write' | 'flush';
  offset: number;
  length: number;
  /** What is being written; valid during the call. */
  bytes: Uint8Array;
}

const NO_BYTES = new Uint8Array(0);

/**
 * A block device in memory for metadata tests. Synchronous and asynchronous requests take the same path, so that a hook sees each
 * of them in order; asynchronous ones complete from the event loop.
 */
export class TestDevice implements BlockDevice {
  readonly path: string = 'test-device';
  readonly alignmentBytes: number = 1;
  readOnly = false;
  readonly discardGranularityBytes: number = 0;
  memory: Uint8Array;
  /** Called before each request; what it returns is the request's error. */
  hook: ((event: DeviceEvent) => Errno | null) | null = null;
  readonly #queue: (() => void)[] = [];

  constructor(memory: Uint8Array | number) {
    this.memory = typeof memory === 'number' ? new Uint8Array(memory) : memory;
  }

  get sizeBytes(): number {
    return this.memory.length;
  }

  read(offset: number, memory: Uint8Array, memoryOffset: number, length: number, completion: IoCompletion): void {
    this.#queue.push(() => completion.ioDone(this.#read(offset, memory, memoryOffset, length)));
  }

  write(offset: number, memory: Uint8Array, memoryOffset: number, length: number, completion: IoCompletion): void {
    this.#queue.push(() => completion.ioDone(this.#write(offset, memory, memoryOffset, length)));
  }

  flush(completion: IoCompletion): void {
    this.#queue.push(() => completion.ioDone(this.#event('flush', 0, 0, NO_BYTES)));
  }

  discard(): void {
    throw new Error('not for metadata');
  }

  writeZeroes(): void {
    throw new Error('not for metadata');
  }

  copyCached(): boolean {
    return false;
  }

  submit(): void {
    for (const request of this.#queue.splice(0)) setImmediate(request);
  }

  readSync(offset: number, memory: Uint8Array, memoryOffset: number, length: number): void {
    fail(this.#read(offset, memory, memoryOffset, length));
  }

  writeSync(offset: number, memory: Uint8Array, memoryOffset: number, length: number): void {
    fail(this.#write(offset, memory, memoryOffset, length));
  }

  flushSync(): void {
    fail(this.#event('flush', 0, 0, NO_BYTES));
  }

  resize(sizeBytes: number): void {
    const memory = new Uint8Array(sizeBytes);
    memory.set(this.memory.subarray(0, sizeBytes));
    this.memory = memory;
  }

  refreshSize(): number {
    return this.sizeBytes;
  }

  async close(): Promise<void> {}

  #read(offset: number, memory: Uint8Array, memoryOffset: number, length: number): Errno | null {
    const error = this.#event('read', offset, length, NO_BYTES);
    if (error === null) memory.set(this.memory.subarray(offset, offset + length), memoryOffset);
    return error;
  }

  #write(offset: number, memory: Uint8Array, memoryOffset: number, length: number): Errno | null {
    const bytes = memory.subarray(memoryOffset, memoryOffset + length);
    const error = this.#event('write', offset, length, bytes);
    if (error === null) this.memory.set(bytes, offset);
    return error;
  }

  #event(kind: DeviceEvent['kind'], offset: number, length: number, bytes: Uint8Array): Errno | null {
    if (offset < 0 || offset + length > this.sizeBytes) throw new Error(`request past the end: ${offset} + ${length}`);
    return this.hook === null ? null : this.hook({ kind, offset, length, bytes });
  }
}

function fail(error: Errno | null): void {
  if (error !== null) throw new StorageError(error, 'injected');
}
