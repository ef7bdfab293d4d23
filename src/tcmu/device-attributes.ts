import { messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { ConfigfsDevice } from './configfs.ts';

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
