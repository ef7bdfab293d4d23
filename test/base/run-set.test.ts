import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { RunSet } from '../../src/base/run-set.ts';

const SPACE = 60;

function runsOf(set: RunSet): [number, number][] {
  const runs: [number, number][] = [];
  set.forEach((begin, end) => {
    runs.push([begin, end]);
  });
  return runs;
}

/** What the set must say, from a plain array of flags. */
function runsOfFlags(flags: readonly boolean[]): [number, number][] {
  const runs: [number, number][] = [];
  flags.forEach((flag, i) => {
    if (!flag) return;
    const last = runs.at(-1);
    if (last && last[1] === i) last[1]++;
    else runs.push([i, i + 1]);
  });
  return runs;
}

describe('RunSet', () => {
  it('does what an array of flags does', () => {
    const step = fc.record({ add: fc.boolean(), begin: fc.nat(SPACE), length: fc.nat(15) });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const set = new RunSet();
        const flags: boolean[] = new Array(SPACE + 20).fill(false);
        for (const { add, begin, length } of steps) {
          if (add) set.add(begin, begin + length);
          else set.remove(begin, begin + length);
          flags.fill(add, begin, begin + length);
        }
        expect(runsOf(set)).toEqual(runsOfFlags(flags));
        expect(set.count).toBe(flags.filter(Boolean).length);
        expect(set.runCount).toBe(runsOf(set).length);
        for (let i = 0; i < flags.length; i++) {
          expect(set.has(i)).toBe(flags[i]);
          const outside = flags.indexOf(false, i);
          expect(set.nextOutside(i)).toBe(outside < 0 ? flags.length : outside);
          const inside = flags.indexOf(true, i);
          expect(set.nextInside(i)).toBe(inside < 0 ? Infinity : inside);
        }
      }),
    );
  });

  it('takes all of another, which is empty then', () => {
    const runs = fc.array(fc.record({ begin: fc.nat(SPACE), length: fc.nat(15) }), { maxLength: 12 });
    fc.assert(
      fc.property(runs, runs, (mine, theirs) => {
        const [set, other] = [new RunSet(), new RunSet()];
        const flags: boolean[] = new Array(SPACE + 20).fill(false);
        for (const { begin, length } of mine) set.add(begin, begin + length);
        for (const { begin, length } of theirs) other.add(begin, begin + length);
        for (const { begin, length } of [...mine, ...theirs]) flags.fill(true, begin, begin + length);
        set.takeAll(other);
        expect([runsOf(set), runsOf(other)]).toEqual([runsOfFlags(flags), []]);
        expect([set.count, other.count]).toEqual([flags.filter(Boolean).length, 0]);
        other.add(3, 5);
        expect(runsOf(set)).toEqual(runsOfFlags(flags));
      }),
    );
  });

  it('keeps tens of thousands of runs in any order of arrival', () => {
    const set = new RunSet();
    const count = 50_000;
    let at = 1;
    for (let i = 0; i < count; i++) {
      at = (at * 48271) % 2147483647;
      const block = (at % count) * 2;
      set.add(block, block + 1);
      set.add(i * 2, i * 2 + 1);
    }
    expect(set.runCount).toBe(count);
    expect(set.count).toBe(count);
    expect(runsOf(set).every(([begin, end], i) => begin === i * 2 && end === begin + 1)).toBe(true);
    for (let i = 0; i < count; i += 3) set.remove(i * 2, i * 2 + 1);
    expect(set.runCount).toBe(count - Math.ceil(count / 3));
    set.add(0, count * 2);
    expect(runsOf(set)).toEqual([[0, count * 2]]);
    set.clear();
    expect(set.count).toBe(0);
    expect(set.nextOutside(7)).toBe(7);
  });

  it('holds block numbers beyond 32 bits', () => {
    const set = new RunSet();
    set.add(2 ** 40 - 2, 2 ** 40);
    set.add(2 ** 40, 2 ** 40 + 3);
    expect(runsOf(set)).toEqual([[2 ** 40 - 2, 2 ** 40 + 3]]);
    expect(set.nextOutside(2 ** 40)).toBe(2 ** 40 + 3);
  });
});
