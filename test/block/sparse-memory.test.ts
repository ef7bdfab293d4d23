import { expect, test } from 'vitest';
import { KIB } from '../../src/base/units.ts';
import { SparseMemory } from '../../src/block/sparse-memory.ts';

const page = new Uint8Array(4 * KIB).fill(1);

test('takes memory for what was written and gives it back in whole chunks', () => {
  const memory = new SparseMemory(4 * KIB);
  memory.write(10 * KIB, page, 0, 4 * KIB);
  expect(memory.allocatedBytes).toBe(8 * KIB);
  memory.drop(8 * KIB, 5 * KIB);
  expect(memory.allocatedBytes).toBe(4 * KIB);
  memory.zero(0, 1);
  expect(memory.exists(4095)).toBe(true);
  expect(memory.exists(4096)).toBe(false);
});

test('says how far existing and missing chunks go, in small and in huge ranges', () => {
  const memory = new SparseMemory(4 * KIB);
  for (const chunk of [2, 3, 4, 7]) memory.write(chunk * 4 * KIB, page, 0, 1);
  const until = (begin: number, end: number): number => memory.sameUntil(begin * 4 * KIB, end * 4 * KIB) / (4 * KIB);
  for (const end of [100, 2 ** 38]) {
    expect(until(0, end)).toBe(2);
    expect(until(2, end)).toBe(5);
    expect(until(5.5, end)).toBe(7);
    expect(until(8, end)).toBe(end);
  }
  expect(until(2, 2.5)).toBe(2.5);
  expect(until(0, 1)).toBe(1);
});

test('what was cut off reads as zeroes when it is reached again', () => {
  const memory = new SparseMemory(4 * KIB);
  memory.write(0, page, 0, 4 * KIB);
  memory.truncate(100);
  const read = new Uint8Array(4 * KIB);
  memory.read(0, read, 0, 4 * KIB);
  expect(read).toEqual(new Uint8Array(4 * KIB).fill(1, 0, 100));
});
