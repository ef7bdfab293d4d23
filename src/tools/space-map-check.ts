/**
 * A space map as it is on the device, compared with the references that there are. See persistent-data/bitmap.ts and
 * index-entry.ts for the layouts; this is another reading of them.
 */
import type { DamageReport, Invariant, Severity } from './damage.ts';
import type { BlockView, MetadataReader } from './metadata-reader.ts';
import type { OverflowCounts } from './overflow-counts.ts';
import { COUNT_OF_BITS, PAGE_BLOCKS, type ReferenceCounter } from './reference-counter.ts';
import type { IndexEntry, SpaceMapFields } from './space-map-fields.ts';
import type { Steps } from './steps.ts';

const BITMAP_HEADER_WORDS = 4;
const ENTRIES_PER_WORD = 16;
const PAGE_WORDS = PAGE_BLOCKS / ENTRIES_PER_WORD;
const LOWER_BITS = 0x55555555;
const OVERFLOW = 3;
const READ_AHEAD_BITMAPS = 64;

export type SpaceMapName = 'metadata' | 'data';

/** Blocks `[begin, end)` have a reference count of `count` and ought to have `expected`. */
export interface CountDifference {
  begin: number;
  end: number;
  count: number;
  expected: number;
}

/** What a space map is compared with, and who is told. */
export interface SpaceMapJudge {
  readonly reader: MetadataReader;
  readonly report: DamageReport;
  /** Null: the counts are not compared. */
  readonly references: ReferenceCounter | null;
  /** Every difference of counts, besides the report. */
  readonly onDifference?: ((name: SpaceMapName, difference: CountDifference) => void) | undefined;
}

/** One entry of a bitmap block. */
export function bitmapEntry(bitmap: BlockView, entry: number): number {
  return COUNT_OF_BITS[(bitmap.words[BITMAP_HEADER_WORDS + (entry >>> 4)]! >>> (2 * (entry & 15))) & 3]!;
}

/** Compares a space map with the references, bitmap by bitmap, and reports every difference as runs of blocks. */
export class SpaceMapCheck {
  /** Blocks with a count. */
  allocatedCount = 0;
  /** Every bitmap could be read: `allocatedCount` is right. */
  complete = true;
  readonly #judge: SpaceMapJudge;
  readonly #name: SpaceMapName;
  readonly #fields: SpaceMapFields;
  readonly #overflow: OverflowCounts;
  #run: CountDifference | null = null;
  // Of the bitmap at hand.
  #free = 0;
  #firstFree = 0;
  #beyond = 0;

  constructor(judge: SpaceMapJudge, name: SpaceMapName, fields: SpaceMapFields, overflow: OverflowCounts) {
    this.#judge = judge;
    this.#name = name;
    this.#fields = fields;
    this.#overflow = overflow;
  }

  /** A bitmap a step. */
  *check(entries: readonly IndexEntry[]): Steps<void> {
    const bitmapCount = Math.ceil(this.#fields.blockCount / PAGE_BLOCKS);
    const { readAhead, blockCount } = this.#judge.reader;
    let next = 0;
    for (let from = 0; from < entries.length; from += READ_AHEAD_BITMAPS) {
      const some = entries.slice(from, from + READ_AHEAD_BITMAPS);
      const numbers = some.map(({ block }) => block).filter((block) => block < blockCount);
      const ahead = readAhead === null ? null : readAhead.want(numbers);
      for (const entry of some) {
        yield;
        if (entry.ordinal >= bitmapCount) {
          this.#damage('index', 'error', entry.ordinal, entry.ordinal + 1, 'an index entry past the last bitmap');
          continue;
        }
        if (entry.ordinal > next) this.#missing(next, entry.ordinal);
        yield* this.#overflow.readTo((entry.ordinal + 1) * PAGE_BLOCKS);
        this.#checkBitmap(entry);
        next = entry.ordinal + 1;
      }
      if (ahead !== null) readAhead!.drop(ahead);
    }
    if (next < bitmapCount) this.#missing(next, bitmapCount);
    this.#endRun();
    yield* this.#overflow.readTo(Number.POSITIVE_INFINITY);
    if (this.complete) this.#overflow.takeBefore(Number.POSITIVE_INFINITY, this.#unasked);
    const { allocatedCount } = this.#fields;
    if (this.complete && allocatedCount !== this.allocatedCount) {
      const message = `its root says that ${allocatedCount} blocks are in use, its bitmaps say ${this.allocatedCount}`;
      this.#damage('allocated', 'error', null, null, message);
    }
  }

  #missing(begin: number, end: number): void {
    this.#damage('index', 'error', begin, end, 'bitmaps without an index entry');
    this.complete = false;
  }

  /** An entry of the overflow tree that no bitmap has asked for. */
  readonly #unasked = (block: number, count: number): void => {
    const where = block < this.#fields.blockCount ? 'and the bitmap says less than 3' : 'for a block past the end';
    this.#damage('overflow', 'error', block, block + 1, `the overflow tree has a count of ${count}, ${where}`);
  };

  #checkBitmap(entry: IndexEntry): void {
    const { reader } = this.#judge;
    const bitmap = reader.acquire();
    const first = entry.ordinal * PAGE_BLOCKS;
    const unreadable = reader.read(entry.block, 'bitmap', bitmap);
    if (unreadable === null) {
      this.#overflow.takeBefore(first, this.#unasked);
      this.#checkEntries(entry, bitmap, first);
      this.#overflow.takeBefore(first + PAGE_BLOCKS, this.#unasked);
    } else {
      this.#damage('block', 'error', first, Math.min(first + PAGE_BLOCKS, this.#fields.blockCount), unreadable);
      this.#overflow.takeBefore(first + PAGE_BLOCKS, () => {});
      this.complete = false;
    }
    reader.release(bitmap);
  }

  #checkEntries(index: IndexEntry, bitmap: BlockView, first: number): void {
    const within = Math.min(this.#fields.blockCount - first, PAGE_BLOCKS);
    const { references } = this.#judge;
    const empty = references === null || references.isEmpty(index.ordinal);
    const expected = references === null ? null : references.bits(index.ordinal);
    this.#free = 0;
    this.#firstFree = PAGE_BLOCKS;
    this.#beyond = 0;
    for (let word = 0; word < PAGE_WORDS; word++) {
      const bits = bitmap.words[BITMAP_HEADER_WORDS + word]!;
      const free = ~(bits | (bits >>> 1)) & LOWER_BITS;
      if (free !== 0) {
        if (this.#firstFree === PAGE_BLOCKS) this.#firstFree = word * ENTRIES_PER_WORD + lowestPair(free);
        this.#free += free === LOWER_BITS ? ENTRIES_PER_WORD : countBits(free);
      }
      const begin = word * ENTRIES_PER_WORD;
      const overflows = (bits & (bits >>> 1) & LOWER_BITS) !== 0;
      const wanted = expected !== null ? expected[word] : empty ? 0 : -1;
      // Of most words there is no more to say.
      if (begin + ENTRIES_PER_WORD <= within && !overflows && (wanted === bits || references === null)) {
        this.allocatedCount += ENTRIES_PER_WORD - countBits(free);
      } else {
        for (let i = begin; i < begin + ENTRIES_PER_WORD; i++) this.#checkEntry(bitmap, i, first, within);
      }
    }
    const end = first + within;
    if (this.#beyond > 0) this.#damage('tail', 'error', end, null, `${this.#beyond} blocks past the end have a count`);
    if (index.freeCount !== this.#free) {
      const message = `the index says that ${index.freeCount} entries of the bitmap are free, there are ${this.#free}`;
      this.#damage('index', 'warning', first, end, message);
    }
    if (index.noneFreeBefore > this.#firstFree) {
      const message = `the index says that nothing before entry ${index.noneFreeBefore} is free, ${this.#firstFree} is`;
      this.#damage('index', 'warning', first, end, message);
    }
  }

  #checkEntry(bitmap: BlockView, entry: number, first: number, within: number): void {
    const bits = bitmapEntry(bitmap, entry);
    if (entry >= within) {
      if (bits !== 0) this.#beyond++;
      return;
    }
    if (bits !== 0) this.allocatedCount++;
    const block = first + entry;
    let count = bits;
    if (bits === OVERFLOW) {
      this.#overflow.takeBefore(block, this.#unasked);
      const overflow = this.#overflow.take(block);
      if (overflow === null) {
        this.#damage('overflow', 'error', block, block + 1, 'the bitmap says 3 or more, the overflow tree nothing');
      } else if (overflow < OVERFLOW) {
        const message = `the overflow tree has a count of ${overflow}, expected 3 or more`;
        this.#damage('overflow', 'error', block, block + 1, message);
      }
      count = overflow ?? bits;
    }
    if (this.#judge.references !== null) this.#compare(block, count, this.#judge.references.count(block));
  }

  #compare(block: number, count: number, expected: number): void {
    if (count === expected) return;
    const run = this.#run;
    if (run !== null && run.end === block && run.count === count && run.expected === expected) {
      run.end++;
      return;
    }
    this.#endRun();
    this.#run = { begin: block, end: block + 1, count, expected };
  }

  #endRun(): void {
    const run = this.#run;
    this.#run = null;
    if (run === null) return;
    this.#judge.onDifference?.(this.#name, run);
    const invariant = this.#name === 'metadata' ? 'metadata-count' : 'data-count';
    // Too high a count keeps a block for ever; too low a one hands it out while it is in use.
    const severity = run.count > run.expected ? 'leak' : 'error';
    const message = `a reference count of ${run.count}, expected ${run.expected}`;
    this.#damage(invariant, severity, run.begin, run.end, message);
  }

  #damage(invariant: Invariant, severity: Severity, begin: number | null, end: number | null, message: string): void {
    this.#judge.report({ invariant, severity, path: `superblock > ${this.#name} space map`, begin, end, message });
  }
}

/** Of a word with bits in `LOWER_BITS` only. */
function countBits(word: number): number {
  let pairs = (word & 0x11111111) + ((word >>> 2) & 0x11111111);
  pairs = (pairs & 0x0f0f0f0f) + ((pairs >>> 4) & 0x0f0f0f0f);
  return (Math.imul(pairs, 0x01010101) >>> 24) & 0xff;
}

/** Which pair of bits has the lowest bit of a word with bits in `LOWER_BITS` only. */
function lowestPair(word: number): number {
  return (31 - Math.clz32(word & -word)) >>> 1;
}
