import type { Clock } from '../base/clock.ts';
import { messageOf, StorageError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { ConfigfsDevice, TcmuPaths } from './configfs.ts';
import { readUioEntry, type UioEntry } from './uio.ts';

/** Between the answer to ADDED and the moment when the thread that waited for it has gone on. */
const ENABLE_TIMEOUT_MS = 10_000;
const ENABLE_LOOK_MS = 5;

/** Aborts are to be told to us, which can be set only while nothing exports the device. */
export async function setAttributes(configfs: ConfigfsDevice, waits: boolean, logger: Logger): Promise<void> {
  const { path } = configfs;
  await configfs.write('attrib/tmr_notification', '1').catch((error: unknown) => {
    logger.debug({ path, reason: messageOf(error) }, 'no notice of aborts');
  });
  await setWaiting(configfs, waits);
}

/** Whether the kernel waits for answers about this device. -1 is its owner's wish that it does not, and stays. */
export async function setWaiting(configfs: ConfigfsDevice, waits: boolean): Promise<void> {
  const now = await configfs.readNumber('nl_reply_supported');
  if (now >= 0 && now !== Number(waits)) await configfs.write('attrib/nl_reply_supported', waits ? '1' : '0');
}

/**
 * Resolves when a new device has been made for good: before, it must not be mapped. When its creation fails, since another process has refused it
 * or has released all that wait, the kernel frees the ring whoever has it mapped, and the next touch of the map is a fault inside the kernel.
 * Throws ENODEV when it has failed; EAGAIN after 10 s.
 */
export async function untilEnabled(
  configfs: ConfigfsDevice,
  entry: UioEntry,
  paths: TcmuPaths,
  clock: Clock,
): Promise<void> {
  const end = clock.nowMs() + ENABLE_TIMEOUT_MS;
  while (readUioEntry(paths, entry.minor)?.uioName === entry.uioName) {
    if (await configfs.isEnabled()) return;
    if (clock.nowMs() >= end) {
      throw new StorageError('EAGAIN', `Cannot serve ${entry.uioName}: its creation has not ended`);
    }
    await new Promise<void>((resolve) => void clock.setTimer(ENABLE_LOOK_MS, resolve));
  }
  throw new StorageError(
    'ENODEV',
    `Cannot serve ${entry.uioName}: it is gone again; another TCMU handler has refused it, or has started in this moment`,
  );
}
