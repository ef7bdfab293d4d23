import { expect, test } from 'vitest';
import { LongReads } from '../../src/block/long-reads.ts';

/** One batch with long reads in `slots`, of which those in `done` had ended when the call returned. */
function batch(reads: LongReads, slots: readonly number[], done: readonly number[]): void {
  for (const slot of slots) reads.begin(slot);
  const pairs = done.flatMap((slot) => [slot, 65536]);
  reads.settle(Int32Array.from([...pairs, 0, 0, 1, 0]), done.length);
}

test('half of a batch is done aside once a whole batch came out of the page cache', () => {
  const reads = new LongReads(8, true);
  expect(reads.aside(8)).toBe(0);
  batch(reads, [0, 1, 2], [0, 1, 2, 5]);
  expect([8, 3, 2, 1, 0].map((count) => reads.aside(count))).toEqual([4, 1, 1, 0, 0]);
});

test('none is after a batch in which one had to wait, until another was there as a whole', () => {
  const reads = new LongReads(8, true);
  batch(reads, [0, 1], [1, 0]);
  batch(reads, [6, 7], [6]);
  expect(reads.aside(8)).toBe(0);
  // 7 ends later, in a batch that it is not of.
  batch(reads, [0], [7]);
  expect(reads.aside(8)).toBe(0);
  batch(reads, [1], [1]);
  expect(reads.aside(8)).toBe(4);
});

test('a batch without long reads says nothing', () => {
  const reads = new LongReads(8, true);
  batch(reads, [], [3]);
  expect(reads.aside(8)).toBe(0);
  batch(reads, [1], [1]);
  batch(reads, [], []);
  expect(reads.aside(8)).toBe(4);
});

test('nobody would do them where there is one processor', () => {
  const reads = new LongReads(8, false);
  batch(reads, [1], [1]);
  expect(reads.aside(8)).toBe(0);
});
