import { assert } from '../base/assert.ts';

const EPOCHS = 64;

/**
 * Answers "has all I/O that had started before then ended?". I/O enters the current epoch when it starts and leaves that
 * epoch when it ends. Epochs are consecutive numbers; at most 64 are told apart, further ones share the newest.
 */
export class DeferredSet {
  private readonly counts = new Float64Array(EPOCHS);
  private newest = 0;
  private oldest = 0;

  /** Begins a piece of I/O; returns the epoch that its end must name. */
  enter(): number {
    this.counts[this.newest % EPOCHS]!++;
    return this.newest;
  }

  leave(epoch: number): void {
    assert(epoch >= this.oldest && epoch <= this.newest, 'I/O leaves an epoch that is open');
    const left = --this.counts[epoch % EPOCHS]!;
    assert(left >= 0, 'as much I/O leaves an epoch as entered it');
    while (this.oldest < this.newest && this.counts[this.oldest % EPOCHS] === 0) this.oldest++;
  }

  /** Closes the current epoch; `drained` of the returned number says when all I/O started before now has ended. */
  close(): number {
    if (this.oldest === this.newest && this.counts[this.newest % EPOCHS] === 0) return this.newest - 1;
    const closed = this.newest;
    if (this.newest - this.oldest < EPOCHS - 1) this.newest++;
    return closed;
  }

  drained(epoch: number): boolean {
    return epoch < this.oldest || (epoch === this.oldest && epoch === this.newest && this.counts[epoch % EPOCHS] === 0);
  }
}
