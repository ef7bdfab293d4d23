import { assert } from '../base/assert.ts';

/** A command that has or wants a range of a `RangeLock`. The fields are the lock's; the command only implements `rangeGranted`. */
export interface RangeHolder {
  rangeBegin: number;
  rangeEnd: number;
  rangeExclusive: boolean;
  rangeState: RangeState;
  rangePrevious: RangeHolder | null;
  rangeNext: RangeHolder | null;
  /** The range is held now. Called once per `acquire` that returned false. */
  rangeGranted(): void;
}

export const RangeState = { NONE: 0, HELD: 1, WAITING: 2 } as const;
export type RangeState = (typeof RangeState)[keyof typeof RangeState];

/** A doubly linked list through the holders themselves. */
class HolderList {
  first: RangeHolder | null = null;
  last: RangeHolder | null = null;

  push(holder: RangeHolder): void {
    holder.rangePrevious = this.last;
    holder.rangeNext = null;
    if (this.last) this.last.rangeNext = holder;
    else this.first = holder;
    this.last = holder;
  }

  remove(holder: RangeHolder): void {
    if (holder.rangePrevious) holder.rangePrevious.rangeNext = holder.rangeNext;
    else this.first = holder.rangeNext;
    if (holder.rangeNext) holder.rangeNext.rangePrevious = holder.rangePrevious;
    else this.last = holder.rangePrevious;
    holder.rangePrevious = null;
    holder.rangeNext = null;
  }

  /** True when one of the holders before `stop` conflicts with `holder`. */
  conflicts(holder: RangeHolder, stop: RangeHolder | null): boolean {
    for (let other = this.first; other !== stop && other; other = other.rangeNext) {
      if (
        (holder.rangeExclusive || other.rangeExclusive) &&
        other.rangeBegin < holder.rangeEnd &&
        holder.rangeBegin < other.rangeEnd
      ) {
        return true;
      }
    }
    return false;
  }
}

/**
 * Keeps commands of several steps (COMPARE AND WRITE) alone on their blocks: plain reads and writes hold their range shared (the
 * backend orders those by itself), commands of several steps hold it exclusively. First come, first served: nobody overtakes a waiting
 * holder that he conflicts with, so nobody starves. As long as no one is or waits exclusive, `acquire` and `release` cost a list link.
 *
 * A command holds one range at a time and waits for nothing that needs another range while it holds it, so there is no deadlock.
 */
export class RangeLock {
  readonly #held = new HolderList();
  readonly #waiting = new HolderList();
  /** Exclusive holders and exclusive waiters together. */
  #exclusiveCount = 0;
  #granting = false;
  #grantAgain = false;

  /** True: `holder` has `[begin, end)` now. False: it waits, and `rangeGranted` is called when it has it. */
  acquire(holder: RangeHolder, begin: number, end: number, exclusive: boolean): boolean {
    assert(holder.rangeState === RangeState.NONE, 'a command holds at most one range');
    holder.rangeBegin = begin;
    holder.rangeEnd = end;
    holder.rangeExclusive = exclusive;
    const mayConflict = exclusive || this.#exclusiveCount > 0;
    if (exclusive) this.#exclusiveCount++;
    if (mayConflict && (this.#held.conflicts(holder, null) || this.#waiting.conflicts(holder, null))) {
      holder.rangeState = RangeState.WAITING;
      this.#waiting.push(holder);
      return false;
    }
    holder.rangeState = RangeState.HELD;
    this.#held.push(holder);
    return true;
  }

  /** Gives back the range of `holder`; does nothing when it has none. */
  release(holder: RangeHolder): void {
    if (holder.rangeState === RangeState.NONE) return;
    assert(holder.rangeState === RangeState.HELD, 'a waiting command does not release');
    holder.rangeState = RangeState.NONE;
    this.#held.remove(holder);
    if (holder.rangeExclusive) this.#exclusiveCount--;
    if (this.#waiting.first) this.#grant();
  }

  /** Lets every waiting holder go on that conflicts neither with a holder nor with one that waits longer. */
  #grant(): void {
    if (this.#granting) {
      this.#grantAgain = true;
      return;
    }
    this.#granting = true;
    do {
      this.#grantAgain = false;
      let holder = this.#waiting.first;
      while (holder) {
        const next: RangeHolder | null = holder.rangeNext;
        if (!this.#held.conflicts(holder, null) && !this.#waiting.conflicts(holder, holder)) {
          this.#waiting.remove(holder);
          holder.rangeState = RangeState.HELD;
          this.#held.push(holder);
          holder.rangeGranted();
          // The one granted may have ended, released and even queued again: look at the list from its begin.
          if (this.#grantAgain) break;
        }
        holder = next;
      }
    } while (this.#grantAgain);
    this.#granting = false;
  }
}
