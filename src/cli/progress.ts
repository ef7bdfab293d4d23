import { SingleBar } from 'cli-progress';
import { standardError } from './output.ts';

const BAR_WIDTH = 30;
/** What is done by then needs no bar. */
const DELAY_MS = 300;

/** How far a long work is. */
export interface Progress {
  /** `done` of `total`, in whatever is counted. Cheap: call it as often as you like; the bar is drawn a few times a second. */
  update(done: number, total: number): void;
  /** Removes the bar. Goes into a `finally`; may be called twice. */
  end(): void;
}

/** A bar on standard error; nothing at all when that is no terminal, or when the user asked for quiet. */
export function createProgress(title: string, options: { quiet?: boolean | undefined } = {}): Progress {
  if (options.quiet || !standardError().isTTY) return { update: () => {}, end: () => {} };
  const bar = new SingleBar({
    format: `${title} [{bar}] {percentage}%  {eta_formatted}`,
    barsize: BAR_WIDTH,
    stream: standardError(),
    hideCursor: false,
    clearOnComplete: true,
    // The end of the process is the command's business.
    gracefulExit: false,
    // Work that does not let the event loop run draws by itself.
    synchronousUpdate: true,
  });
  let started = false;
  const begin = performance.now();
  return {
    update: (done, total) => {
      if (!started) {
        if (performance.now() - begin < DELAY_MS) return;
        bar.start(total, done);
        started = true;
        return;
      }
      bar.setTotal(total);
      bar.update(done);
    },
    end: () => {
      if (started) bar.stop();
      started = false;
    },
  };
}
