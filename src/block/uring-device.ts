import type { BlockDevice } from './block-device.ts';
import type { DeviceFile } from './device-file.ts';
import { FileDeviceBase } from './file-device-base.ts';
import { type FileRequest, Step } from './file-request.ts';
import { startRange } from './fs-device.ts';
import type { Uring } from './uring.ts';

/** A file or block device through io_uring. Completions of what the page cache had come before `submit()` returns. */
export class UringDevice extends FileDeviceBase implements BlockDevice {
  readonly #ring: Uring;

  /** `ring` was acquired for this device, which releases it. */
  constructor(file: DeviceFile, ring: Uring) {
    super(file);
    this.#ring = ring;
  }

  protected override submitSteps(): void {
    this.#ring.submit();
  }

  protected override queueStep(request: FileRequest): void {
    // The ioctls of block devices are not for the ring. They are rare and begin at once.
    if (request.step >= Step.BLKDISCARD) startRange(request);
    else this.#ring.queue(request);
  }

  protected override startStep(request: FileRequest): void {
    if (request.step >= Step.BLKDISCARD) startRange(request);
    else this.#ring.continue(request);
  }

  protected override releaseEngine(): void {
    this.#ring.release();
  }
}
