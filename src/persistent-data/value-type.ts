import type { ReadonlyWords } from './block.ts';

/** What a tree's values mean, beyond their words. */
export interface ValueType {
  /** For messages: `mapping tree`. */
  readonly treeName: string;
  /** Bytes, a multiple of 4. */
  readonly sizeBytes: number;
  /** A leaf that holds `count` values from `words[at]` on was duplicated: what they refer to has one more reference. */
  increment(words: ReadonlyWords, at: number, count: number): void;
  /** `count` values from `words[at]` on are dropped: removed, overwritten, or the tree is deleted. */
  decrement(words: ReadonlyWords, at: number, count: number): void;
  /** Whether the value at `words[at]` refers to the same thing as `value`: overwriting one by the other drops nothing. */
  refersToSame(words: ReadonlyWords, at: number, value: ReadonlyWords): boolean;
  /** What is wrong with the `count` values from `words[at]` on, in a leaf that was just read; null when nothing is. */
  damage(words: ReadonlyWords, at: number, count: number): string | null;
}

/** Values that refer to nothing. */
export function plainValues(treeName: string, sizeBytes: number): ValueType {
  return {
    treeName,
    sizeBytes,
    increment: () => {},
    decrement: () => {},
    refersToSame: () => true,
    damage: () => null,
  };
}
