import { fdatasync, read, write } from 'node:fs';
import { native } from '../base/native.ts';
import type { BlockDevice } from './block-device.ts';
import { FileDeviceBase } from './file-device-base.ts';
import { type FileRequest, Step } from './file-request.ts';
import { IoQueue } from './io-request.ts';

const EOPNOTSUPP = -95;

/** A file or block device through node:fs and its thread pool: works everywhere, at several times the cost of io_uring. */
export class FsDevice extends FileDeviceBase implements BlockDevice {
  readonly #queued: IoQueue<FileRequest> = new IoQueue();

  protected override submitSteps(): void {
    for (let request = this.#queued.shift(); request !== null; request = this.#queued.shift()) this.startStep(request);
  }

  protected override queueStep(request: FileRequest): void {
    this.#queued.push(request);
  }

  protected override startStep(request: FileRequest): void {
    const { fd, memory, restMemoryOffset, pieceLength, restOffset } = request;
    if (request.step === Step.READ) read(fd, memory, restMemoryOffset, pieceLength, restOffset, request.onFs);
    else if (request.step === Step.WRITE) write(fd, memory, restMemoryOffset, pieceLength, restOffset, request.onFs);
    else if (request.step === Step.DATASYNC) fdatasync(fd, request.onFs);
    else startRange(request);
  }

  protected override releaseEngine(): void {}
}

/** Starts a step over a range that is neither read nor written, on the thread pool. */
export function startRange(request: FileRequest): void {
  const { fd, offset, length, onResult } = request;
  if (native === null || request.step === Step.UNSUPPORTED) setImmediate(onResult, EOPNOTSUPP);
  else if (request.step === Step.PUNCH_HOLE) native.rangeAsync('punch-hole', fd, offset, length, onResult);
  else if (request.step === Step.ZERO_RANGE) native.rangeAsync('zero-range', fd, offset, length, onResult);
  else if (request.step === Step.BLKDISCARD) native.rangeAsync('blkdiscard', fd, offset, length, onResult);
  else native.rangeAsync('blkzeroout', fd, offset, length, onResult);
}
