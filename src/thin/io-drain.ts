import type { DeferredSet } from './deferred-set.ts';
import { IoQueue } from './io-queue.ts';
import type { ThinIo } from './thin-io.ts';

/**
 * Requests with a cell that wait for the device I/O that had started before they took it. Writes in place hold no cell: what is on its way to a block must
 * have arrived before the block is copied or shared. What comes later waits for the cell. Reads go on.
 */
export class IoDrain {
  readonly #deferred: DeferredSet;
  readonly #resume: (io: ThinIo) => void;
  readonly #waiting: IoQueue = new IoQueue();

  /** `resume` goes on with a request whose turn has come, in the phase that it has. */
  constructor(deferred: DeferredSet, resume: (io: ThinIo) => void) {
    this.#deferred = deferred;
    this.#resume = resume;
  }

  get waiting(): boolean {
    return this.#waiting.count !== 0;
  }

  /** True: all I/O that had started is over. False: `io` waits for it. */
  enter(io: ThinIo): boolean {
    io.epoch = this.#deferred.close();
    if (this.#deferred.drained(io.epoch)) return true;
    this.#waiting.push(io);
    return false;
  }

  /** Some device I/O has ended. */
  ioEnded(): void {
    for (let left = this.#waiting.count; left > 0; left--) {
      const io = this.#waiting.shift()!;
      if (this.#deferred.drained(io.epoch)) this.#resume(io);
      else this.#waiting.push(io);
    }
  }
}
