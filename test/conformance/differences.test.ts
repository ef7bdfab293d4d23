import { describe, expect, it } from 'vitest';
import { differences, versionOrder } from './differences.mjs';
import { parse } from './report.mjs';

const testsOf = (texts: Record<string, string>): Map<string, ReturnType<typeof parse>> =>
  new Map(Object.entries(texts).map(([name, text]) => [name, parse(text)]));
const record = { tool: '', profiles: new Map([['A', testsOf({ one: 'pass', two: 'skip: no', three: 'pass' })]]) };
const compare = (texts: Record<string, string>, whole = true, id = 'A'): ReturnType<typeof differences> =>
  differences([{ profile: { id }, results: testsOf(texts) }], record, whole);

describe('a run', () => {
  it('like the record has no differences', () => {
    const same = { one: 'pass', two: 'skip: for another reason', three: 'pass' };
    expect(compare(same)).toEqual({ worse: [], better: [], unknown: [] });
  });

  it.each(['fail: it', 'skip: not implemented', 'empty', 'timeout', 'crash', 'tool: it', 'refused'])(
    'is worse with %s in place of a pass',
    (told) => {
      expect(compare({ one: told, two: 'skip: no', three: 'pass' }).worse).toHaveLength(1);
    },
  );

  it('is better where it passes, which hides nothing that is worse', () => {
    expect(compare({ one: 'fail: x', two: 'pass', three: 'pass' })).toEqual({
      worse: ['A one: was pass, is fail: x'],
      better: ['A two: was skip, is pass (take it over with --write)'],
      unknown: [],
    });
  });

  it('has tests and profiles that the record has not, and the reverse', () => {
    expect(compare({ one: 'pass', four: 'fail: x' }).unknown).toEqual([
      'A four: not in the record',
      'A two: is not there any more',
      'A three: is not there any more',
    ]);
    expect(compare({ one: 'pass' }, false).unknown).toEqual([]);
    expect(compare({ one: 'pass' }, true, 'Z').unknown).toEqual(['profile Z: not in the record']);
  });
});

describe('a version', () => {
  it.each([
    ['libiscsi-bin 1.20.0-4+b2', 'libiscsi-bin 1.20.0-4+b3', 0],
    ['libiscsi-bin 1.19.0-3', 'libiscsi-bin 1.20.0-4+b2', -1],
    ['1.20.3-35-g65ebd14', 'libiscsi-bin 1.20.0-4+b2', 1],
    ['1.20', '1.20.0', 0],
    ['1.9.0', '1.20.0', -1],
  ])('%s against %s: %i', (a, b, sign) => {
    expect(Math.sign(versionOrder(a, b))).toBe(sign);
    expect(Math.sign(versionOrder(b, a))).toBe(sign === 0 ? 0 : -sign);
  });
});
