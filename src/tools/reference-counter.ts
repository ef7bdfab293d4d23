import { assert } from '../base/assert.ts';

/** Blocks of one page: as many as a bitmap counts. */
export const PAGE_BLOCKS = 16320;
const LARGE = 255;

/** Reference counts of any blocks: a byte each, in pages that come with the first count in them. */
export class ReferenceCounter {
  readonly #pages: Map<number, Uint8Array> = new Map();
  /** Counts of `LARGE` and more. */
  readonly #large: Map<number, number> = new Map();

  /** Returns the count before. */
  add(block: number): number {
    const ordinal = Math.floor(block / PAGE_BLOCKS);
    let page = this.#pages.get(ordinal);
    if (page === undefined) {
      page = new Uint8Array(PAGE_BLOCKS);
      this.#pages.set(ordinal, page);
    }
    const at = block % PAGE_BLOCKS;
    const before = page[at]!;
    if (before < LARGE - 1) {
      page[at] = before + 1;
      return before;
    }
    const large = this.#large.get(block) ?? before;
    page[at] = LARGE;
    this.#large.set(block, large + 1);
    return large;
  }

  /** Takes one reference back. The count must be above 0. */
  remove(block: number): void {
    const page = this.#pages.get(Math.floor(block / PAGE_BLOCKS));
    const at = block % PAGE_BLOCKS;
    const count = this.count(block);
    assert(page !== undefined && count > 0, 'a reference is taken back that nobody had');
    if (count > LARGE) {
      this.#large.set(block, count - 1);
      return;
    }
    this.#large.delete(block);
    page[at] = count - 1;
  }

  /** The counts of `[ordinal * PAGE_BLOCKS, (ordinal + 1) * PAGE_BLOCKS)`, 255 standing for more; null when all are 0. */
  page(ordinal: number): Uint8Array | null {
    return this.#pages.get(ordinal) ?? null;
  }

  count(block: number): number {
    const count = this.#pages.get(Math.floor(block / PAGE_BLOCKS))?.[block % PAGE_BLOCKS] ?? 0;
    return count < LARGE ? count : this.#large.get(block)!;
  }
}
