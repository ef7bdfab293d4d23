import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { BLOCK_WORDS } from '../../src/persistent-data/block.ts';
import { initLeaf, lowerBound, maxEntriesFor, setEntryCount, setKey } from '../../src/persistent-data/btree-node.ts';

const VALUE_SIZE = 8;
const MAX_ENTRIES = maxEntriesFor(VALUE_SIZE);
const MAX_KEY = Number.MAX_SAFE_INTEGER;

function leafWith(keys: readonly number[]): Uint32Array {
  const words = new Uint32Array(BLOCK_WORDS).fill(0xffffffff);
  initLeaf(words, VALUE_SIZE);
  setEntryCount(words, keys.length);
  for (const [index, key] of keys.entries()) setKey(words, index, key);
  return words;
}

/** Keys of a node, and what they are: evenly spread or not, with or without gaps, far apart or above 2^32. */
const keyLists: fc.Arbitrary<number[]> = fc.oneof(
  fc.uniqueArray(fc.maxSafeNat(), { maxLength: MAX_ENTRIES }),
  fc.uniqueArray(fc.nat(500), { maxLength: MAX_ENTRIES }),
  fc
    .tuple(fc.maxSafeNat(), fc.array(fc.oneof(fc.constant(1), fc.nat(5), fc.nat(2 ** 40)), { maxLength: MAX_ENTRIES }))
    .map(([first, gaps]) => {
      const keys = [Math.min(first, MAX_KEY)];
      for (const gap of gaps.slice(1)) keys.push(Math.min(MAX_KEY, keys.at(-1)! + Math.max(gap, 1)));
      return [...new Set(keys)];
    }),
);

describe('the search in a node', () => {
  it('finds the greatest key at or below a key, however the keys are spread', () => {
    fc.assert(
      fc.property(keyLists, fc.array(fc.maxSafeNat(), { maxLength: 10 }), (unsorted, others) => {
        const keys = unsorted.sort((a, b) => a - b);
        const words = leafWith(keys);
        const near = keys.flatMap((key) => [Math.max(key - 1, 0), key, Math.min(key + 1, MAX_KEY)]);
        for (const key of [0, ...near, ...others, MAX_KEY]) {
          expect(lowerBound(words, key)).toBe(keys.findLastIndex((one) => one <= key));
        }
      }),
    );
  });

  it('finds every key of a full node whose keys grow like powers', () => {
    const keys = Array.from({ length: MAX_ENTRIES }, (_, i) => Math.floor(1.15 ** i) + i);
    const words = leafWith(keys);
    for (const [index, key] of keys.entries()) {
      expect(lowerBound(words, key)).toBe(index);
      expect(lowerBound(words, key - 1)).toBe(keys.findLastIndex((one) => one <= key - 1));
    }
  });
});
