/**
 * A space map as it is on the device, compared with the references that there are. See persistent-data/bitmap.ts and
 * index-entry.ts for the layouts; this is another reading of them.
 */
import type { DamageReport, Invariant, Severity } from './damage.ts';
import type { BlockView, MetadataReader } from './metadata-reader.ts';
import { PAGE_BLOCKS, type ReferenceCounter } from './reference-counter.ts';
import type { NodeView, TreeVisitor } from './tree-walker.ts';

const BITMAP_HEADER = 16;
const OVERFLOW = 3;
/** From a bitmap's two bits, the lower first, to the count. */
const COUNT_OF_BITS: readonly number[] = [0, 2, 1, 3];

export interface SpaceMapFields {
  blockCount: number;
  allocatedCount: number;
  bitmapRoot: number;
  refCountRoot: number;
}

/** The four fields of a space map root. */
export function readSpaceMapFields(superblock: BlockView, offset: number): SpaceMapFields {
  return {
    blockCount: superblock.u64(offset),
    allocatedCount: superblock.u64(offset + 8),
    bitmapRoot: superblock.u64(offset + 16),
    refCountRoot: superblock.u64(offset + 24),
  };
}

/** Where a bitmap is, and what its index entry says of it. */
export interface IndexEntry {
  ordinal: number;
  block: number;
  freeCount: number;
  noneFreeBefore: number;
}

/** One entry of a bitmap block. */
export function bitmapEntry(bitmap: BlockView, entry: number): number {
  return COUNT_OF_BITS[(bitmap.bytes[BITMAP_HEADER + (entry >>> 2)]! >>> (2 * (entry & 3))) & 3]!;
}

/** Collects the entries of a data space map's index tree. */
export class IndexTreeVisitor implements TreeVisitor {
  readonly name = 'index tree';
  readonly valueSize = 16;
  readonly entries: IndexEntry[] = [];

  leaf(leaf: NodeView): void {
    for (let i = 0; i < leaf.count; i++) {
      const offset = leaf.valueOffset(i);
      const { block } = leaf;
      this.entries.push({
        ordinal: leaf.key(i),
        block: block.u64(offset),
        freeCount: block.u32(offset + 8),
        noneFreeBefore: block.u32(offset + 12),
      });
    }
  }
}

/** The entries of the metadata's index block. */
export function indexBlockEntries(index: BlockView, bitmapCount: number): IndexEntry[] {
  const entries: IndexEntry[] = [];
  for (let ordinal = 0; ordinal < bitmapCount; ordinal++) {
    const offset = 16 + 16 * ordinal;
    entries.push({
      ordinal,
      block: index.u64(offset),
      freeCount: index.u32(offset + 8),
      noneFreeBefore: index.u32(offset + 12),
    });
  }
  return entries;
}

/** Collects the counts of an overflow tree. */
export class OverflowVisitor implements TreeVisitor {
  readonly name = 'reference count tree';
  readonly valueSize = 4;
  readonly counts: Map<number, number> = new Map();

  leaf(leaf: NodeView): void {
    for (let i = 0; i < leaf.count; i++) this.counts.set(leaf.key(i), leaf.block.u32(leaf.valueOffset(i)));
  }
}

/** Compares a space map with `references`, bitmap by bitmap, and reports every difference as runs of blocks. */
export class SpaceMapCheck {
  /** Blocks with a count. */
  allocatedCount = 0;
  readonly #reader: MetadataReader;
  readonly #report: DamageReport;
  readonly #name: 'metadata' | 'data';
  readonly #fields: SpaceMapFields;
  /** Entries are taken out when a bitmap says that they are there. */
  readonly #overflow: Map<number, number>;
  readonly #references: ReferenceCounter;
  #run: { begin: number; end: number; count: number; expected: number } | null = null;

  constructor(
    reader: MetadataReader,
    report: DamageReport,
    name: 'metadata' | 'data',
    fields: SpaceMapFields,
    overflow: Map<number, number>,
    references: ReferenceCounter,
  ) {
    this.#reader = reader;
    this.#report = report;
    this.#name = name;
    this.#fields = fields;
    this.#overflow = overflow;
    this.#references = references;
  }

  check(entries: readonly IndexEntry[]): void {
    const bitmapCount = Math.ceil(this.#fields.blockCount / PAGE_BLOCKS);
    let next = 0;
    let complete = true;
    for (const entry of entries) {
      if (entry.ordinal >= bitmapCount) {
        this.#damage('index', 'error', entry.ordinal, entry.ordinal + 1, 'an index entry past the last bitmap');
        continue;
      }
      if (entry.ordinal !== next) complete = this.#missing(next, entry.ordinal);
      if (!this.#checkBitmap(entry)) complete = false;
      next = entry.ordinal + 1;
    }
    if (next < bitmapCount) complete = this.#missing(next, bitmapCount);
    this.#endRun();
    const { allocatedCount } = this.#fields;
    if (complete) for (const [block, count] of this.#overflow) this.#unasked(block, count);
    if (complete && allocatedCount !== this.allocatedCount) {
      const message = `its root says that ${allocatedCount} blocks are in use, its bitmaps say ${this.allocatedCount}`;
      this.#damage('allocated', 'error', null, null, message);
    }
  }

  #missing(begin: number, end: number): boolean {
    this.#damage('index', 'error', begin, end, 'bitmaps without an index entry');
    return false;
  }

  /** An entry of the overflow tree that no bitmap has asked for. */
  #unasked(block: number, count: number): void {
    const where = block < this.#fields.blockCount ? 'and the bitmap says less than 3' : 'for a block past the end';
    this.#damage('overflow', 'error', block, block + 1, `the overflow tree has a count of ${count}, ${where}`);
  }

  /** False when the bitmap cannot be read. */
  #checkBitmap(entry: IndexEntry): boolean {
    const bitmap = this.#reader.acquire();
    const first = entry.ordinal * PAGE_BLOCKS;
    const unreadable = this.#reader.read(entry.block, 'bitmap', bitmap);
    if (unreadable === null) this.#checkEntries(entry, bitmap, first);
    else this.#damage('block', 'error', first, Math.min(first + PAGE_BLOCKS, this.#fields.blockCount), unreadable);
    this.#reader.release(bitmap);
    return unreadable === null;
  }

  #checkEntries(index: IndexEntry, bitmap: BlockView, first: number): void {
    const within = Math.min(this.#fields.blockCount - first, PAGE_BLOCKS);
    let free = 0;
    let firstFree = PAGE_BLOCKS;
    let beyond = 0;
    const expected = this.#references.page(index.ordinal);
    const { bytes } = bitmap;
    for (let i = 0; i < PAGE_BLOCKS; i++) {
      const byte = bytes[BITMAP_HEADER + (i >>> 2)]!;
      // Four free entries that nothing refers to: most of a large device.
      if (byte === 0 && expected === null && (i & 3) === 0) {
        free += 4;
        if (firstFree === PAGE_BLOCKS) firstFree = i;
        i += 3;
        continue;
      }
      const bits = COUNT_OF_BITS[(byte >>> (2 * (i & 3))) & 3]!;
      if (bits === 0) {
        free++;
        if (firstFree === PAGE_BLOCKS) firstFree = i;
      } else if (i >= within) {
        beyond++;
      } else {
        this.allocatedCount++;
      }
      const same = bits < OVERFLOW && bits === (expected === null ? 0 : expected[i]);
      if (!same && i < within) this.#compare(first + i, bits);
    }
    const end = first + within;
    if (beyond > 0) this.#damage('tail', 'error', end, null, `${beyond} blocks past the end have a count`);
    if (index.freeCount !== free) {
      const message = `the index says that ${index.freeCount} entries of the bitmap are free, there are ${free}`;
      this.#damage('index', 'warning', first, end, message);
    }
    if (index.noneFreeBefore > firstFree) {
      const message = `the index says that nothing before entry ${index.noneFreeBefore} is free, ${firstFree} is`;
      this.#damage('index', 'warning', first, end, message);
    }
  }

  #compare(block: number, bits: number): void {
    let count = bits;
    if (bits === OVERFLOW) {
      const overflow = this.#overflow.get(block);
      if (overflow === undefined) {
        this.#damage('overflow', 'error', block, block + 1, 'the bitmap says 3 or more, the overflow tree nothing');
      } else if (overflow < OVERFLOW) {
        const message = `the overflow tree has a count of ${overflow}, expected 3 or more`;
        this.#damage('overflow', 'error', block, block + 1, message);
      }
      count = overflow ?? bits;
      this.#overflow.delete(block);
    }
    const expected = this.#references.count(block);
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
    const invariant = this.#name === 'metadata' ? 'metadata-count' : 'data-count';
    // Too high a count keeps a block for ever; too low a one hands it out while it is in use.
    const severity = run.count > run.expected ? 'leak' : 'error';
    const message = `a reference count of ${run.count}, expected ${run.expected}`;
    this.#damage(invariant, severity, run.begin, run.end, message);
  }

  #damage(invariant: Invariant, severity: Severity, begin: number | null, end: number | null, message: string): void {
    this.#report({ invariant, severity, path: `superblock > ${this.#name} space map`, begin, end, message });
  }
}
