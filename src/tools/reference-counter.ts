import { assert } from '../base/assert.ts';

/** Blocks of one page: as many as a bitmap counts. */
export const PAGE_BLOCKS = 16320;
const ENTRIES_PER_WORD = 16;
const MAX_BYTE = 255;
const THREE = 3;

/** What the two bits of a bitmap (the lower is the count's high bit) become when the count goes up; from 3 up they do not say. */
const NEXT_BITS: readonly number[] = [2, 3, 1];
/** From a bitmap's two bits to the count. */
export const COUNT_OF_BITS: readonly number[] = [0, 2, 1, 3];
/** From the count to a bitmap's two bits. */
export const BITS_OF_COUNT: readonly number[] = COUNT_OF_BITS;

/**
 * Counts of a page, as narrow as the largest of them allows: two bits a block, packed as in a bitmap block, then a byte, then a word.
 */
class Page {
  /** As in a bitmap; null when one of the counts is above 3. */
  bits: Uint32Array | null = new Uint32Array(PAGE_BLOCKS / ENTRIES_PER_WORD);
  #wide: Uint8Array | Uint32Array | null = null;

  add(entry: number): void {
    if (this.bits !== null) {
      const at = entry >>> 4;
      const shift = 2 * (entry & 15);
      const word = this.bits[at]!;
      const pair = (word >>> shift) & 3;
      if (pair !== THREE) {
        this.bits[at] = (word & ~(3 << shift)) | (NEXT_BITS[pair]! << shift);
        return;
      }
      this.#widen(new Uint8Array(PAGE_BLOCKS));
    }
    if (this.#wide instanceof Uint8Array && this.#wide[entry] === MAX_BYTE) this.#widen(new Uint32Array(PAGE_BLOCKS));
    this.#wide![entry]!++;
  }

  remove(entry: number): void {
    if (this.bits === null) {
      this.#wide![entry]!--;
      return;
    }
    const at = entry >>> 4;
    const shift = 2 * (entry & 15);
    const less = BITS_OF_COUNT[this.count(entry) - 1]!;
    this.bits[at] = (this.bits[at]! & ~(3 << shift)) | (less << shift);
  }

  count(entry: number): number {
    if (this.bits === null) return this.#wide![entry]!;
    return COUNT_OF_BITS[(this.bits[entry >>> 4]! >>> (2 * (entry & 15))) & 3]!;
  }

  #widen(wide: Uint8Array | Uint32Array): void {
    for (let entry = 0; entry < PAGE_BLOCKS; entry++) wide[entry] = this.count(entry);
    this.bits = null;
    this.#wide = wide;
  }
}

/**
 * Reference counts of any blocks, in pages that come with the first count in them: 4 KiB for 16320 blocks, unless one of them is
 * referred to more than three times.
 */
export class ReferenceCounter {
  readonly #pages: Map<number, Page> = new Map();
  #lastOrdinal = -1;
  #lastPage: Page | null = null;

  add(block: number): void {
    const ordinal = Math.floor(block / PAGE_BLOCKS);
    if (ordinal !== this.#lastOrdinal) {
      this.#lastOrdinal = ordinal;
      this.#lastPage = this.#pages.get(ordinal) ?? new Page();
      this.#pages.set(ordinal, this.#lastPage);
    }
    this.#lastPage!.add(block - ordinal * PAGE_BLOCKS);
  }

  /** Takes one reference back. */
  remove(block: number): void {
    assert(this.count(block) > 0, 'a reference is taken back that nobody had');
    this.#pages.get(Math.floor(block / PAGE_BLOCKS))!.remove(block % PAGE_BLOCKS);
  }

  count(block: number): number {
    return this.#pages.get(Math.floor(block / PAGE_BLOCKS))?.count(block % PAGE_BLOCKS) ?? 0;
  }

  /** Nothing in `[ordinal * PAGE_BLOCKS, (ordinal + 1) * PAGE_BLOCKS)` is referred to. */
  isEmpty(ordinal: number): boolean {
    return !this.#pages.has(ordinal);
  }

  /** The page's counts as the words of a bitmap, where none is above 3 and there are any. */
  bits(ordinal: number): Uint32Array | null {
    return this.#pages.get(ordinal)?.bits ?? null;
  }
}
