import { constants } from 'node:os';
import { StorageError } from '../base/errors.ts';
import type { RunContext } from './run-context.ts';

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/**
 * Runs work that has something to put in order when it is stopped: the first signal rejects `stopped` and the work ends as it sees fit;
 * a second one ends the process at once. The exit status is the shell's for that signal.
 */
export async function interruptible<T>(context: RunContext, work: (stopped: Promise<never>) => Promise<T>): Promise<T> {
  let stop: (error: Error) => void = () => {};
  const stopped = new Promise<never>((_, reject) => {
    stop = reject;
  });
  stopped.catch(() => {});
  const handlers = SIGNALS.map((signal) => ({
    signal,
    handler: () => {
      context.failureCode = 128 + constants.signals[signal];
      stop(new StorageError('ESHUTDOWN', `Stopped by ${signal}`));
      for (const { signal: other } of handlers) process.removeAllListeners(other);
    },
  }));
  for (const { signal, handler } of handlers) process.once(signal, handler);
  try {
    return await work(stopped);
  } finally {
    for (const { signal, handler } of handlers) process.off(signal, handler);
  }
}
