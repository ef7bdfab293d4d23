import type { Clock } from '../../src/base/clock.ts';

/** A clock that stands still until a test moves it. */
export class TestClock implements Clock {
  private now = 0;
  private readonly timers: Set<{ at: number; callback: () => void }> = new Set();

  nowMs(): number {
    return this.now;
  }

  setTimer(delayMs: number, callback: () => void): { cancel: () => void } {
    const timer = { at: this.now + delayMs, callback };
    this.timers.add(timer);
    return { cancel: () => this.timers.delete(timer) };
  }

  get timerCount(): number {
    return this.timers.size;
  }

  advance(ms: number): void {
    const end = this.now + ms;
    for (;;) {
      const next = [...this.timers].filter((timer) => timer.at <= end).sort((a, b) => a.at - b.at)[0];
      if (next === undefined) break;
      this.timers.delete(next);
      this.now = next.at;
      next.callback();
    }
    this.now = end;
  }
}
