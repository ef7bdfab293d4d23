import { constants } from 'node:os';
import { isatty } from 'node:tty';
import { monotonicClock } from '../base/clock.ts';
import type { Logger } from '../base/log.ts';

const REMINDER_MS = 5_000;
/** Ctrl-C below npm arrives twice, from the terminal and from npm: that is one wish. */
const SAME_WISH_MS = 500;

/**
 * The signals of a server process. The first SIGTERM or SIGINT asks for an orderly end, a second one ends at once: nothing that
 * was flushed is lost by that. SIGHUP means the terminal is gone, if there was one, and ends orderly too; to a service it means that it is
 * to go on as another process. SIGUSR1 would make Node open a debugger's port; here it does nothing.
 */
export class ServerLife {
  /** Resolves with the signal's name. */
  readonly stopRequested: Promise<NodeJS.Signals>;
  readonly #logger: Logger;
  /** When the first signal came; null before. */
  #requestedMs: number | null = null;
  #request: (signal: NodeJS.Signals) => void = () => {};
  /** What SIGHUP of a service does. */
  onReload: () => void = () => {};

  constructor(logger: Logger) {
    this.#logger = logger;
    this.stopRequested = new Promise((resolve) => {
      this.#request = resolve;
    });
    for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => this.#stop(signal));
    const onTerminal = isatty(0) || isatty(1) || isatty(2);
    process.on('SIGHUP', () => {
      if (onTerminal) this.#stop('SIGHUP');
      else this.onReload();
    });
    process.on('SIGUSR1', () => logger.info({}, 'SIGUSR1 does nothing'));
    // What is thrown where nobody catches it is our own mistake, and whose state it has spoiled is not known. Pools are as at
    // their last commit when they are opened again; going on, or committing now, could make it worse.
    process.on('uncaughtException', (error) => {
      logger.error({ err: error }, 'a mistake in thinlun: the process ends at once, everything flushed is kept');
      process.exit(1);
    });
  }

  /** Waits for `stopped`, and says so every few seconds while that takes. */
  async stopping(stopped: Promise<void>): Promise<void> {
    const reminder = setInterval(() => {
      this.#logger.warn({}, 'still finishing what is in flight; a second signal ends at once');
    }, REMINDER_MS);
    try {
      await stopped;
    } finally {
      clearInterval(reminder);
    }
  }

  #stop(signal: NodeJS.Signals): void {
    const nowMs = monotonicClock.nowMs();
    if (this.#requestedMs === null) {
      this.#requestedMs = nowMs;
      this.#logger.info({ signal }, 'stopping: finishing what is in flight');
      this.#request(signal);
    } else if (nowMs - this.#requestedMs >= SAME_WISH_MS) {
      this.#logger.warn({ signal }, 'ended at once; everything flushed is kept');
      process.exit(128 + constants.signals[signal]);
    }
  }
}
