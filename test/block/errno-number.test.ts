import { expect, test } from 'vitest';
import { ERRNOS } from '../../src/base/errors.ts';
import { errnoFromNumber } from '../../src/block/errno-number.ts';

test('every errno that has a name here is found by its number, of either sign', () => {
  const found = new Set<string>();
  for (let number = 1; number < 200; number++) {
    expect(errnoFromNumber(-number)).toBe(errnoFromNumber(number));
    found.add(errnoFromNumber(number));
  }
  expect([...found].sort()).toEqual([...ERRNOS].sort());
  expect(errnoFromNumber(-28)).toBe('ENOSPC');
  expect(errnoFromNumber(-95)).toBe('EOPNOTSUPP');
});

test('what has no name here is EIO', () => {
  for (const number of [0, 4, 512, 99999]) expect(errnoFromNumber(number)).toBe('EIO');
});
