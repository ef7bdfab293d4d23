import type { ReadableBlock } from '../persistent-data/block.ts';

/** Keys that share a place: a leaf of a mapping tree has 84 to 252 of them where no volume has holes. */
const PLACE_KEYS = 64;
/** So that the leaves of 2 GiB in a row are found, with data blocks of 64 KiB. A power of two. */
const PLACES = 512;

/** Of each place, in one line of the processor's cache. */
const NUMBER = 0;
const BEGIN = 1;
const END = 2;
const AGE = 3;
const FIELDS = 4;

/** Of trees in which nothing was looked up, such as those of volumes that are only listed. Never written to. */
const NO_LEAVES: readonly (ReadableBlock | null)[] = new Array<ReadableBlock | null>(PLACES).fill(null);
const NO_FIELDS: Float64Array = new Float64Array(PLACES * FIELDS);

/**
 * Leaves of one tree in which lookups have ended, by the keys that were looked up: a lookup that finds its leaf here needs no nodes above it. A leaf is pinned by nothing:
 * it counts while its block is where it was. 20 KiB, from the first one on.
 */
export class RecentLeaves {
  /** Set by `find`: every key of the tree to the right of the leaf is at or above it. */
  end = 0;
  #leaves = NO_LEAVES as (ReadableBlock | null)[];
  #fields: Float64Array = NO_FIELDS;
  /** What is of another age was forgotten. */
  #age = 1;

  /** The leaf that covers `key`; null: not known. Valid until the next block is read or created. */
  find(key: number): ReadableBlock | null {
    const place = placeOf(key);
    const at = place * FIELDS;
    const fields = this.#fields;
    const end = fields[at + END]!;
    if (key >= end || key < fields[at + BEGIN]! || fields[at + AGE] !== this.#age) return null;
    const leaf = this.#leaves[place]!;
    if (leaf.number !== fields[at + NUMBER]) return null;
    this.end = end;
    return leaf;
  }

  /** `leaf` covers the keys `[begin, end)`, one of which is `key`. */
  add(key: number, leaf: ReadableBlock, begin: number, end: number): void {
    if (this.#fields === NO_FIELDS) {
      this.#leaves = NO_LEAVES.slice();
      this.#fields = NO_FIELDS.slice();
    }
    const place = placeOf(key);
    const at = place * FIELDS;
    const fields = this.#fields;
    this.#leaves[place] = leaf;
    fields[at + NUMBER] = leaf.number;
    fields[at + BEGIN] = begin;
    fields[at + END] = end;
    fields[at + AGE] = this.#age;
    this.end = end;
  }

  /** The tree changes. */
  clear(): void {
    this.#age++;
  }
}

/** Also of keys above 2^32. */
function placeOf(key: number): number {
  return (key / PLACE_KEYS) & (PLACES - 1);
}
