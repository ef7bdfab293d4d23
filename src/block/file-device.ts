import type { BlockDevice } from './block-device.ts';
import { type DeviceFileOptions, openDeviceFile } from './device-file.ts';
import { FsDevice } from './fs-device.ts';
import { Uring } from './uring.ts';
import { UringDevice } from './uring-device.ts';

export interface FileDeviceOptions extends DeviceFileOptions {
  /** `fs` never uses io_uring. Default: io_uring where the addon and the kernel allow it. */
  engine?: 'best' | 'fs';
}

/**
 * Opens a file or block device. Throws `StorageError`: ENOENT, EACCES, EBUSY (`exclusive`), EEXIST (`create`), ENOTBLK (neither a file nor a
 * block device), ... Memory for I/O on a device with `alignmentBytes` above 1 comes from `alignedMemory()` or a map.
 */
export function openBlockDevice(path: string, options: FileDeviceOptions = {}): BlockDevice {
  const file = openDeviceFile(path, options);
  const ring = options.engine === 'fs' ? null : Uring.acquire();
  return ring === null ? new FsDevice(file) : new UringDevice(file, ring);
}
