import { describe, expect, it } from 'vitest';
import { quantity, table } from '../../bench/lib/format.mjs';
import { readCollection, summarize } from '../../bench/lib/garbage.mjs';
import { evaluate, iopsOf, type Sample, type SideResult } from '../../bench/lib/measure.mjs';
import { type Profile, selfTimes } from '../../bench/lib/profile.mjs';
import { caveats, figureTable } from '../../bench/lib/report.mjs';

const MB = 2 ** 20;

const figure = {
  id: 'x',
  what: 'reads',
  against: 'peer',
  ours: 'a',
  theirs: 'b',
  unit: 'iops' as const,
  value: iopsOf,
  target: { atLeast: 2 },
};
const side = (name: string, values: number[], rest: Sample = {}): SideResult => ({
  name,
  samples: values.map((iops) => ({ iops, ...rest })),
});

describe('the report of a benchmark', () => {
  it('writes quantities with three digits and a unit', () => {
    expect(quantity(123_456, 'iops')).toBe('123 k/s');
    expect(quantity(0.0123, 's')).toBe('12.3 ms');
    expect(quantity(2.5e9, 'bytes/s')).toBe('2500 MB/s');
    expect(quantity(400 * MB, 'bytes')).toBe('400 MiB');
    expect(
      table([
        ['a', 'b'],
        ['long', '1'],
      ]),
    ).toBe('a     b\nlong  1');
  });

  it('has the ratio and whether the target is reached', () => {
    const sides = [side('a', [300, 301, 302]), side('b', [100, 100, 100])];
    const text = figureTable([{ id: 'x', title: 'x', plot: {}, sides, figures: [evaluate(figure, sides)] }]);
    expect(text).toMatch(/reads.*301 \/s.*100 \/s.*3\.01x\s+>= 2\.00x\s+reached\s+peer/);
  });

  it('has NOISY in the place of a ratio that would prove nothing', () => {
    const sides = [side('a', [300, 100, 900, 50, 700]), side('b', [100, 100, 100, 100, 100])];
    const results = [{ id: 'x', title: 'x', plot: {}, sides, figures: [evaluate(figure, sides)] }];
    expect(figureTable(results)).toMatch(/NOISY/);
    expect(figureTable(results)).not.toMatch(/\d\.\d\dx\s+>=|reached|missed/);
    expect(caveats(results).join()).toMatch(/1 figures are NOISY/);
  });

  it('marks the side where the load generator was the limit, and work of others', () => {
    const sides = [side('a', [1, 1, 1], { clientCores: 0.97 }), side('b', [1, 1, 1], { otherCores: 1.2 })];
    expect(evaluate(figure, sides).remarks).toEqual(['client-bound: a', 'others used 1.2 cores: b']);
  });

  it('leaves out what has no peer here', () => {
    expect(evaluate(figure, [side('a', [1, 1, 1])]).verdict).toBe('left out');
  });
});

describe("what V8's traces say", () => {
  const line = (at: number, before: number, after: number): string =>
    `[412:0x7f1]     ${at} ms: Scavenge ${before.toFixed(1)} (40.0) -> ${after.toFixed(1)} (40.0) MB, 0.8 / 0.0 ms  (average mu = 1.000, current mu = 1.000) allocation failure;`;

  it('is read: when, how much, how long', () => {
    expect(readCollection(line(1500, 20, 5))).toEqual({
      atMs: 1500,
      isMinor: true,
      beforeBytes: 20 * MB,
      afterBytes: 5 * MB,
      ms: 0.8,
    });
    const major = readCollection(
      '[1:0x1] 99 ms: Mark-Compact (reduce) 4.0 (6.0) -> 3.5 (6.0) MB, 2.5 / 0.0 ms  (average mu)',
    );
    expect(major).toMatchObject({ isMinor: false, ms: 2.5 });
    expect(readCollection('Ready')).toBeNull();
  });

  it('gives the bytes that were allocated for a command', () => {
    const collections = [line(1000, 20, 4), line(2000, 20, 4), line(3000, 20, 4)].map((text) => readCollection(text)!);
    const { bytesPerCommand, minor, commands } = summarize(collections, 1000, 60);
    expect(bytesPerCommand).toBeCloseTo((32 * MB) / 2000);
    expect([minor, commands]).toEqual([3, 60_000]);
    expect(summarize(collections.slice(0, 1), 1000, 60).bytesPerCommand).toBeNull();
  });

  it('gives self time by module and function, within the load alone', () => {
    const frame = (id: number, functionName: string, url: string): Profile['nodes'][number] => ({
      id,
      callFrame: { functionName, url, lineNumber: 9 },
    });
    const profile = {
      nodes: [frame(1, 'run', 'file:///p/dist/thin/pool.js'), frame(2, '(idle)', ''), frame(3, 'writev', '')],
      startTime: 1000,
      samples: [1, 1, 2, 3, 1],
      timeDeltas: [100, 100, 100, 50, 1000],
    };
    const times = selfTimes(profile, '/p', 0, 1400);
    expect([times.busyUs, times.idleUs]).toEqual([250, 100]);
    expect(times.modules).toEqual([
      { name: 'thin/pool.js', us: 200 },
      { name: 'V8, kernel and addon', us: 50 },
    ]);
    expect(times.functions[0]).toEqual({ name: 'run  thin/pool.js:10', us: 200 });
  });
});
