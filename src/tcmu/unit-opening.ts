import type { Timer } from '../base/clock.ts';
import { StorageError } from '../base/errors.ts';
import type { LogicalUnit } from '../scsi/logical-unit.ts';
import type { ConfigfsDevice } from './configfs.ts';
import type { TcmuHandlerOptions } from './handler-options.ts';
import type { UioEntry } from './uio.ts';

/** An answer to ADDED keeps a thread of the kernel in D state: after this long it is a no. */
export const RESOLVE_TIMEOUT_MS = 20_000;

/** The unit that a device stands on, for `release` later. `isNew`: see `TcmuDeviceInfo`. Rejects with a `StorageError`, also when it takes too long. */
export async function openUnit(
  options: TcmuHandlerOptions,
  entry: UioEntry,
  sizeBytes: number,
  configfs: ConfigfsDevice,
  isNew: boolean,
): Promise<LogicalUnit> {
  const { cfgstring, device: name } = entry.name;
  const blockSizeBytes = await configfs.readNumber('hw_block_size');
  let late = false;
  let timer: Timer | null = null;
  const timeout = new Promise<never>((_resolve, reject) => {
    timer = options.clock.setTimer(RESOLVE_TIMEOUT_MS, () => {
      late = true;
      reject(new StorageError('EAGAIN', `Cannot open ${cfgstring}: not ready after ${RESOLVE_TIMEOUT_MS / 1000} s`));
    });
  });
  const opening = options.resolve(cfgstring, sizeBytes, { name, minor: entry.minor, blockSizeBytes, isNew });
  opening.then(
    (unit) => late && options.release(cfgstring, unit, name),
    () => {},
  );
  try {
    return await Promise.race([opening, timeout]);
  } finally {
    (timer as Timer | null)?.cancel();
  }
}
