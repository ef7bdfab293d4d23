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

  /** The counts of `[ordinal * PAGE_BLOCKS, (ordinal + 1) * PAGE_BLOCKS)`, 255 standing for more; null when all are 0. */
  page(ordinal: number): Uint8Array | null {
    return this.#pages.get(ordinal) ?? null;
  }

  count(block: number): number {
    const count = this.#pages.get(Math.floor(block / PAGE_BLOCKS))?.[block % PAGE_BLOCKS] ?? 0;
    return count < LARGE ? count : this.#large.get(block)!;
  }
}
