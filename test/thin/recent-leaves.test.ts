import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { ReadableBlock } from '../../src/persistent-data/block.ts';
import { RecentLeaves } from '../../src/thin/recent-leaves.ts';

const WORDS = new Uint32Array(0);

function leafAt(number: number): { -readonly [K in keyof ReadableBlock]: ReadableBlock[K] } {
  return { number, words: WORDS, judgedAs: null };
}

describe('the leaves of recent lookups', () => {
  it('never name a leaf for a key that it does not cover, and always the one that was added last for a key', () => {
    // Leaves of a tree: leaf i covers the keys from bounds[i] to bounds[i + 1].
    const trees = fc.uniqueArray(fc.oneof(fc.nat(2000), fc.maxSafeNat()), { minLength: 1, maxLength: 40 });
    const keys = fc.array(fc.oneof(fc.nat(3000), fc.maxSafeNat()), { maxLength: 60 });
    fc.assert(
      fc.property(trees, keys, fc.nat(), (unsorted, lookups, clearAt) => {
        const bounds = [0, ...unsorted.sort((a, b) => a - b)];
        const blocks = bounds.map((_, i) => leafAt(i));
        const leaves = new RecentLeaves();
        for (const [i, key] of lookups.entries()) {
          const index = bounds.findLastIndex((bound) => bound <= key);
          const end = bounds[index + 1] ?? Number.POSITIVE_INFINITY;
          if (i === clearAt % 60) {
            leaves.clear();
            for (const one of lookups) expect(leaves.find(one)).toBeNull();
          }
          const found = leaves.find(key);
          if (found === null) leaves.add(key, blocks[index]!, bounds[index]!, end);
          else expect(found).toBe(blocks[index]);
          expect(leaves.find(key)).toBe(blocks[index]);
          expect(leaves.end).toBe(end);
        }
      }),
    );
  });

  it('do not count any more when their slot of the cache holds another block', () => {
    const leaves = new RecentLeaves();
    const leaf = leafAt(7);
    leaves.add(3, leaf, 0, 10);
    expect(leaves.find(9)).toBe(leaf);
    leaf.number = 8;
    expect(leaves.find(9)).toBeNull();
  });
});
