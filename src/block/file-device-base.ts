import { closeSync } from 'node:fs';
import { assert } from '../base/assert.ts';
import { type Errno, wrapError } from '../base/errors.ts';
import { native } from '../base/native.ts';
import type { BlockDevice, IoCompletion } from './block-device.ts';
import { CachedCopies } from './cached-copies.ts';
import { type DeviceFile, readFully, refreshFileSize, resizeFile, syncFile, writeFully } from './device-file.ts';
import { errnoFromNumber } from './errno-number.ts';
import { FileRequest, Step, type StepOwner, ZEROES } from './file-request.ts';
import { assertMemory, assertRange, assertWritable, IoOp, IoQueue } from './io-request.ts';

const EINTR = -4;
const EAGAIN = -11;
const ENOSYS = -38;
const EOPNOTSUPP = -95;
/** A device that says "again" this often without a byte moved does not work. */
const MAX_ATTEMPTS = 100;

/**
 * What devices on a file descriptor have in common: the contract's checks, pooled requests, going on after a short read or
 * write, the ways to zero a range, synchronous I/O, the end. What differs is how a step is started.
 */
export abstract class FileDeviceBase implements BlockDevice, StepOwner {
  protected readonly file: DeviceFile;
  /** Null where the page cache is passed by, and where there is no addon. */
  readonly #copies: CachedCopies | null;
  readonly #pool: IoQueue<FileRequest> = new IoQueue();
  #zeroRange = true;
  #punchHole = true;
  #unfinished = 0;
  #closing: Promise<void> | null = null;
  #drained: (() => void) | null = null;

  constructor(file: DeviceFile) {
    this.file = file;
    this.#copies = native === null || file.alignmentBytes > 1 ? null : new CachedCopies(file.fd);
  }

  /** Queues the request's current step. Never completes it before returning. */
  protected abstract queueStep(request: FileRequest): void;
  /** Starts a step at once: the request goes on, its submit() is past. */
  protected abstract startStep(request: FileRequest): void;
  /** Starts what `queueStep` was given. */
  protected abstract submitSteps(): void;
  /** Everything has ended; the file is about to be closed. */
  protected abstract releaseEngine(): void;

  get path(): string {
    return this.file.path;
  }

  get sizeBytes(): number {
    return this.file.sizeBytes;
  }

  get alignmentBytes(): number {
    return this.file.alignmentBytes;
  }

  get readOnly(): boolean {
    return this.file.readOnly;
  }

  get discardGranularityBytes(): number {
    return this.file.discardGranularityBytes;
  }

  read(offset: number, memory: Uint8Array, memoryOffset: number, length: number, completion: IoCompletion): void {
    assertRange(this, offset, length);
    assertMemory(memory, memoryOffset, length);
    this.#queue(IoOp.READ, offset, length, memory, memoryOffset, Step.READ, completion);
  }

  write(offset: number, memory: Uint8Array, memoryOffset: number, length: number, completion: IoCompletion): void {
    assertWritable(this);
    assertRange(this, offset, length);
    assertMemory(memory, memoryOffset, length);
    this.#queue(IoOp.WRITE, offset, length, memory, memoryOffset, Step.WRITE, completion);
  }

  flush(completion: IoCompletion): void {
    this.#queue(IoOp.FLUSH, 0, 0, ZEROES, 0, Step.DATASYNC, completion);
  }

  discard(offset: number, length: number, completion: IoCompletion): void {
    assertWritable(this);
    assertRange(this, offset, length);
    const step =
      this.discardGranularityBytes === 0
        ? Step.UNSUPPORTED
        : this.file.isBlockDevice
          ? Step.BLKDISCARD
          : Step.PUNCH_HOLE;
    this.#queue(IoOp.DISCARD, offset, length, ZEROES, 0, step, completion);
  }

  writeZeroes(offset: number, length: number, completion: IoCompletion): void {
    assertWritable(this);
    assertRange(this, offset, length);
    this.#queue(IoOp.WRITE_ZEROES, offset, length, ZEROES, 0, this.#zeroStep(), completion);
  }

  copyCached(
    source: number,
    target: number,
    length: number,
    memory: Uint8Array,
    memoryOffset: number,
    keepAt: number,
    keepLength: number,
    completion: IoCompletion,
  ): boolean {
    assertWritable(this);
    assertRange(this, source, length);
    assertRange(this, target, length);
    assertMemory(memory, memoryOffset, length);
    if (this.#copies === null) return false;
    const request = this.#request(IoOp.COPY, target, length, memory, memoryOffset, Step.COPY, completion);
    request.source = source;
    request.keepAt = keepAt;
    request.keepLength = keepLength;
    this.#copies.queue(request);
    return true;
  }

  submit(): void {
    this.#copies?.submit();
    this.submitSteps();
  }

  readSync(offset: number, memory: Uint8Array, memoryOffset: number, length: number): void {
    this.#assertOpen();
    assertRange(this, offset, length);
    assertMemory(memory, memoryOffset, length);
    readFully(this.file, offset, memory, memoryOffset, length);
  }

  writeSync(offset: number, memory: Uint8Array, memoryOffset: number, length: number): void {
    this.#assertOpen();
    assertWritable(this);
    assertRange(this, offset, length);
    assertMemory(memory, memoryOffset, length);
    writeFully(this.file, offset, memory, memoryOffset, length);
  }

  flushSync(): void {
    this.#assertOpen();
    syncFile(this.file);
  }

  resize(sizeBytes: number): void {
    this.#assertOpen();
    assertWritable(this);
    resizeFile(this.file, sizeBytes);
  }

  refreshSize(): number {
    this.#assertOpen();
    return refreshFileSize(this.file);
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  stepDone(request: FileRequest, result: number): void {
    if (result < 0) this.#stepFailed(request, result);
    else if (request.step !== Step.READ && request.step !== Step.WRITE) this.#finish(request, null);
    else if (result === 0) this.#finish(request, 'EIO');
    else {
      request.done += result;
      request.attempts = 0;
      if (request.done >= request.length) this.#finish(request, null);
      else this.startStep(request);
    }
  }

  /** The best way to zero a range that is not known to fail here. */
  #zeroStep(): Step {
    if (native !== null && this.file.isBlockDevice && this.#zeroRange) return Step.BLKZEROOUT;
    if (native !== null && !this.file.isBlockDevice && this.#zeroRange) return Step.ZERO_RANGE;
    if (native !== null && !this.file.isBlockDevice && this.#punchHole) return Step.PUNCH_HOLE;
    return Step.WRITE;
  }

  #stepFailed(request: FileRequest, result: number): void {
    if ((result === EINTR || result === EAGAIN) && request.op !== IoOp.COPY && request.attempts < MAX_ATTEMPTS) {
      request.attempts++;
      this.startStep(request);
    } else if (
      request.op === IoOp.WRITE_ZEROES &&
      (result === EOPNOTSUPP || result === ENOSYS) &&
      request.step !== Step.WRITE
    ) {
      if (request.step === Step.PUNCH_HOLE) this.#punchHole = false;
      else this.#zeroRange = false;
      request.step = this.#zeroStep();
      this.startStep(request);
    } else {
      this.#finish(request, errnoFromNumber(result));
    }
  }

  #queue(
    op: IoOp,
    offset: number,
    length: number,
    memory: Uint8Array,
    memoryOffset: number,
    step: Step,
    completion: IoCompletion,
  ): void {
    this.queueStep(this.#request(op, offset, length, memory, memoryOffset, step, completion));
  }

  #request(
    op: IoOp,
    offset: number,
    length: number,
    memory: Uint8Array,
    memoryOffset: number,
    step: Step,
    completion: IoCompletion,
  ): FileRequest {
    this.#assertOpen();
    const request = this.#pool.shift() ?? new FileRequest(this, this.file.fd, this.file.alignmentBytes === 1);
    request.set(op, offset, length, completion).setMemory(memory, memoryOffset);
    request.step = step;
    request.done = 0;
    request.attempts = 0;
    this.#unfinished++;
    return request;
  }

  #finish(request: FileRequest, error: Errno | null): void {
    const { completion } = request;
    request.clear();
    this.#pool.push(request);
    this.#unfinished--;
    if (this.#drained !== null && this.#unfinished === 0) this.#drained();
    completion.ioDone(error);
  }

  #assertOpen(): void {
    assert(this.#closing === null, 'use of a closed device');
  }

  async #close(): Promise<void> {
    this.submit();
    // Waits in any case: close() may be called by a completion, and the engine that delivers it must outlive that.
    await new Promise<void>((resolve) => {
      if (this.#unfinished === 0) resolve();
      else this.#drained = resolve;
    });
    this.releaseEngine();
    try {
      closeSync(this.file.fd);
    } catch (error) {
      throw wrapError(`Cannot close "${this.path}"`, error);
    }
  }
}
