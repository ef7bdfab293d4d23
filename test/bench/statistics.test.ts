import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { LatencyHistogram } from '../../bench/lib/latency.mjs';
import { Random } from '../../bench/lib/random.mjs';
import { judge, MAX_SPREAD, quantile, summary } from '../../bench/lib/statistics.mjs';

describe('the statistics of a benchmark', () => {
  it('interpolates quantiles between the samples', () => {
    expect([0, 0.25, 0.5, 0.75, 1].map((share) => quantile([1, 2, 3, 4, 5], share))).toEqual([1, 2, 3, 4, 5]);
    expect(quantile([10, 20], 0.5)).toBe(15);
    expect(quantile([7], 0.9)).toBe(7);
  });

  it('gives the same summary whatever the order of the samples, with the median between the extremes', () => {
    fc.assert(
      fc.property(fc.array(fc.double({ min: 1, max: 1e9, noNaN: true }), { minLength: 1, maxLength: 9 }), (values) => {
        const found = summary(values);
        expect(summary([...values].reverse())).toEqual(found);
        expect(found.min).toBe(Math.min(...values));
        expect(found.max).toBe(Math.max(...values));
        expect(found.median).toBeGreaterThanOrEqual(found.min);
        expect(found.median).toBeLessThanOrEqual(found.max);
      }),
    );
  });

  it('does not call a side noisy for one sample of five that went astray', () => {
    expect(summary([100, 101, 99, 100, 20]).spread).toBeLessThan(MAX_SPREAD);
    expect(summary([100, 60, 99, 140, 20]).spread).toBeGreaterThan(MAX_SPREAD);
  });

  it('refuses a ratio and a verdict when the rounds do not agree', () => {
    const calm = [100, 101, 99, 100, 100];
    const noisy = [100, 50, 150, 20, 300];
    expect(judge(calm, noisy, { atLeast: 1 })).toEqual({ ratio: null, verdict: 'noisy' });
    expect(judge(noisy, calm, { atLeast: 1 })).toEqual({ ratio: null, verdict: 'noisy' });
    expect(judge(noisy, null, { atMost: 1000 })).toEqual({ ratio: null, verdict: 'noisy' });
    expect(judge(calm, [0, 0, 0, 0, 0], { atLeast: 1 })).toEqual({ ratio: null, verdict: 'noisy' });
  });

  it('compares round by round, so that a machine that slows down for both sides changes nothing', () => {
    const ours = [300, 240, 150, 150, 120];
    const theirs = [100, 80, 50, 50, 40];
    expect(summary(ours).spread).toBeGreaterThan(MAX_SPREAD);
    expect(judge(ours, theirs, { atLeast: 3 })).toEqual({ ratio: 3, verdict: 'reached' });
    expect(judge(ours, [...theirs].reverse(), { atLeast: 1 }).verdict).toBe('noisy');
  });

  it('says whether a target is reached, from above or from below, with a peer or without', () => {
    const [ours, theirs] = [
      [300, 300, 300],
      [100, 100, 100],
    ];
    expect(judge(ours, theirs, { atLeast: 3 })).toEqual({ ratio: 3, verdict: 'reached' });
    expect(judge(ours, theirs, { atLeast: 3.1 })).toEqual({ ratio: 3, verdict: 'missed' });
    expect(judge(theirs, ours, { atMost: 0.5 }).verdict).toBe('reached');
    expect(judge(ours, theirs, { atMost: 0.5 }).verdict).toBe('missed');
    expect(judge(ours, null, { atMost: 400 })).toEqual({ ratio: null, verdict: 'reached' });
    expect(judge(ours, null, { atMost: 200 }).verdict).toBe('missed');
    expect(judge(ours, theirs, {}).verdict).toBe('no target');
  });

  it('reaches nothing with fewer rounds than make a spread', () => {
    expect(judge([300, 300], [100, 100], { atLeast: 1 })).toEqual({ ratio: 3, verdict: 'few rounds' });
  });

  it('finds the percentiles of latencies to a step of the histogram', () => {
    const histogram = new LatencyHistogram();
    for (let us = 1; us <= 1000; us++) histogram.add(us);
    histogram.add(2e6);
    const { p50, p90, p99, mean } = histogram.describe();
    expect(p50).toBeCloseTo(501, 0);
    expect(p90).toBeCloseTo(901, 0);
    expect(p99).toBeCloseTo(991, 0);
    expect(mean).toBeCloseTo((500_500 + 2e6) / 1001, 3);
    expect(histogram.percentile(1)).toBeGreaterThanOrEqual(2e6);
    expect(new LatencyHistogram().describe()).toEqual({ mean: 0, p50: 0, p90: 0, p99: 0, p999: 0 });
  });

  it('shuffles into the same order for the same seed, and loses nothing', () => {
    const list = (seed: number): number[] => new Random(seed).shuffle(Array.from({ length: 1000 }, (_, i) => i));
    expect(list(7)).toEqual(list(7));
    expect(list(7)).not.toEqual(list(8));
    expect(list(7).sort((a, b) => a - b)).toEqual(Array.from({ length: 1000 }, (_, i) => i));
  });
});
