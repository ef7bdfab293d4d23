/** Steps of 0.1 us up to 10 ms, and of 10 us up to 10 s above. */
const FINE_PER_US = 10;
const FINE_LIMIT_US = 10_000;
const FINE = FINE_PER_US * FINE_LIMIT_US;
const COARSE_US = 10;
const COARSE = 10_000_000 / COARSE_US;

/** Latencies of millions of commands in a few megabytes. */
export class LatencyHistogram {
  #counts = new Uint32Array(FINE + COARSE);
  count = 0;
  #sumUs = 0;

  /** @param {number} us */
  add(us) {
    const index = us < FINE_LIMIT_US ? Math.floor(us * FINE_PER_US) : FINE + Math.floor(us / COARSE_US);
    this.#counts[Math.min(Math.max(index, 0), FINE + COARSE - 1)]++;
    this.count++;
    this.#sumUs += us;
  }

  /** Microseconds, to the step. @param {number} share */
  percentile(share) {
    const wanted = Math.max(1, Math.ceil(this.count * share));
    let seen = 0;
    for (let i = 0; i < FINE + COARSE && this.count > 0; i++) {
      seen += this.#counts[i] ?? 0;
      if (seen >= wanted) return i < FINE ? (i + 1) / FINE_PER_US : (i - FINE + 1) * COARSE_US;
    }
    return 0;
  }

  /** What a sample says of it. */
  describe() {
    return {
      mean: this.count === 0 ? 0 : this.#sumUs / this.count,
      p50: this.percentile(0.5),
      p90: this.percentile(0.9),
      p99: this.percentile(0.99),
      p999: this.percentile(0.999),
    };
  }
}
