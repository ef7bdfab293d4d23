import { mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';

/** Exit status after Ctrl-C. */
export const INTERRUPTED = 130;

/** A folder for the time of a run: it is gone afterwards, also after Ctrl-C. @param {string} parent */
export function scratchFolder(parent) {
  const folder = mkdtempSync(join(parent, 'thinlun-bench-'));
  // Registered at the end, so that it is the last of the exit hooks: by then what was started has been ended.
  const removeAtExit = () =>
    process.once('exit', () => rmSync(folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 50 }));
  const interrupted = () => {
    removeAtExit();
    process.exit(INTERRUPTED);
  };
  for (const signal of /** @type {const} */ (['SIGINT', 'SIGTERM', 'SIGHUP'])) process.once(signal, interrupted);
  return { folder, removeAtExit };
}
