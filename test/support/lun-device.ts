import type { Errno } from '../../src/base/errors.ts';
import type { BlockDevice, IoCompletion } from '../../src/block/block-device.ts';
import { type LunBackend, LunOp, LunRequest } from '../../src/block/lun-backend.ts';

/** A LUN as the device of something above it, such as another pool: for stacks. Has no synchronous I/O. */
export class LunDevice implements BlockDevice {
  readonly path = 'lun';
  readonly alignmentBytes = 1;
  readonly readOnly = false;
  readonly #backend: LunBackend;
  readonly #queued: LunRequest[] = [];

  constructor(backend: LunBackend) {
    this.#backend = backend;
  }

  get sizeBytes(): number {
    return this.#backend.sizeBytes;
  }

  get discardGranularityBytes(): number {
    return this.#backend.unmapGranularityBytes;
  }

  read(offset: number, memory: Uint8Array, memoryOffset: number, length: number, completion: IoCompletion): void {
    this.#queue(LunOp.READ, offset, length, completion).data.set(memory, memoryOffset, length);
  }

  write(offset: number, memory: Uint8Array, memoryOffset: number, length: number, completion: IoCompletion): void {
    this.#queue(LunOp.WRITE, offset, length, completion).data.set(memory, memoryOffset, length);
  }

  flush(completion: IoCompletion): void {
    this.#queue(LunOp.FLUSH, 0, 0, completion);
  }

  discard(offset: number, length: number, completion: IoCompletion): void {
    this.#queue(LunOp.UNMAP, offset, length, completion);
  }

  writeZeroes(offset: number, length: number, completion: IoCompletion): void {
    this.#queue(LunOp.WRITE_ZEROES, offset, length, completion);
  }

  copyCached(): boolean {
    return false;
  }

  submit(): void {
    for (const request of this.#queued.splice(0)) this.#backend.submit(request);
  }

  readSync(): void {
    throw new Error('no synchronous I/O on a LUN');
  }

  writeSync(): void {
    throw new Error('no synchronous I/O on a LUN');
  }

  flushSync(): void {
    throw new Error('no synchronous I/O on a LUN');
  }

  resize(): void {
    throw new Error('a LUN is not resized from above');
  }

  refreshSize(): number {
    return this.sizeBytes;
  }

  async close(): Promise<void> {}

  #queue(op: LunOp, offset: number, length: number, completion: IoCompletion): LunRequest {
    const request = new LunRequest({ requestDone: (_, error: Errno | null) => completion.ioDone(error) });
    Object.assign(request, { op, offset, length });
    this.#queued.push(request);
    return request;
  }
}
