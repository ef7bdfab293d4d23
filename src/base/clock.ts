/** Time as the layers below `daemon/` see it, so that tests can play it. */
export interface Clock {
  /** Milliseconds of a clock that never goes back; only differences mean something. */
  nowMs(): number;
  /** Calls `callback` once after `delayMs`. Does not keep the process alive by itself. */
  setTimer(delayMs: number, callback: () => void): Timer;
}

export interface Timer {
  /** The callback will not be called any more. May be called at any time. */
  cancel(): void;
}

/** The machine's monotonic clock. */
export const monotonicClock: Clock = {
  nowMs: () => performance.now(),
  setTimer(delayMs, callback) {
    const handle = setTimeout(callback, delayMs);
    handle.unref();
    return { cancel: () => clearTimeout(handle) };
  },
};
