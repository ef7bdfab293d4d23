/**
 * Writes space maps from reference counts. See persistent-data/bitmap.ts and index-entry.ts for the layouts; this is another writing of them.
 */
import type { BlockDraft, MetadataWriter } from './metadata-writer.ts';
import { BITS_OF_COUNT, PAGE_BLOCKS, type ReferenceCounter } from './reference-counter.ts';
import type { SpaceMapFields } from './space-map-fields.ts';
import { TreeBuilder } from './tree-builder.ts';

const BITMAP_HEADER = 16;
const INDEX_HEADER = 16;
const INDEX_ENTRY_SIZE = 16;
const COUNT_SIZE = 4;
const OVERFLOW = 3;

interface BitmapPlace {
  block: number;
  freeCount: number;
  noneFreeBefore: number;
}

/** Writes the data space map. */
export function writeDataSpaceMap(
  writer: MetadataWriter,
  blockCount: number,
  counts: ReferenceCounter,
): SpaceMapFields {
  const index = new TreeBuilder(writer, INDEX_ENTRY_SIZE);
  const overflow = new OverflowBuilder(writer);
  const bitmapCount = Math.ceil(blockCount / PAGE_BLOCKS);
  let allocatedCount = 0;
  for (let ordinal = 0; ordinal < bitmapCount; ordinal++) {
    const first = ordinal * PAGE_BLOCKS;
    const touched = !counts.isEmpty(ordinal);
    const place = writeBitmap(writer, touched ? (entry) => counts.count(first + entry) : null);
    if (touched) overflow.addPage(first, (block) => counts.count(block));
    allocatedCount += PAGE_BLOCKS - place.freeCount;
    index.push(ordinal, place.block, 0, place.freeCount, place.noneFreeBefore);
  }
  return { blockCount, allocatedCount, bitmapRoot: index.end(), refCountRoot: overflow.end() };
}

/**
 * Writes the metadata space map, which counts itself: nothing may be appended after it. `countOf` has the counts of the blocks
 * before it.
 */
export function writeMetadataSpaceMap(writer: MetadataWriter, countOf: (block: number) => number): SpaceMapFields {
  const { blockCount } = writer;
  const end = writer.next;
  const overflow = new OverflowBuilder(writer);
  for (let first = 0; first < end; first += PAGE_BLOCKS) {
    overflow.addPage(first, (block) => (block < end ? countOf(block) : 0));
  }
  const refCountRoot = overflow.end();
  const bitmapCount = Math.ceil(blockCount / PAGE_BLOCKS);
  const bitmapRoot = writer.next + bitmapCount;
  const places: BitmapPlace[] = [];
  let allocatedCount = 0;
  for (let ordinal = 0; ordinal < bitmapCount; ordinal++) {
    const first = ordinal * PAGE_BLOCKS;
    const count = (entry: number): number => {
      const block = first + entry;
      if (block < end) return countOf(block);
      return block <= bitmapRoot ? 1 : 0;
    };
    const place = writeBitmap(writer, first <= bitmapRoot ? count : null);
    allocatedCount += PAGE_BLOCKS - place.freeCount;
    places.push(place);
  }
  writer.append('index', (draft) => {
    for (const [ordinal, place] of places.entries()) {
      const at = INDEX_HEADER + INDEX_ENTRY_SIZE * ordinal;
      draft.setU64(at, place.block);
      draft.setU32(at + 8, place.freeCount);
      draft.setU32(at + 12, place.noneFreeBefore);
    }
  });
  return { blockCount, allocatedCount, bitmapRoot, refCountRoot };
}

/** The four fields of a space map root. */
export function writeSpaceMapFields(draft: BlockDraft, offset: number, fields: SpaceMapFields): void {
  draft.setU64(offset, fields.blockCount);
  draft.setU64(offset + 8, fields.allocatedCount);
  draft.setU64(offset + 16, fields.bitmapRoot);
  draft.setU64(offset + 24, fields.refCountRoot);
}

/** `countOf` null: nothing is in use. */
function writeBitmap(writer: MetadataWriter, countOf: ((entry: number) => number) | null): BitmapPlace {
  let freeCount = PAGE_BLOCKS;
  let noneFreeBefore = countOf === null ? 0 : PAGE_BLOCKS;
  const block = writer.append('bitmap', (draft) => {
    if (countOf === null) return;
    for (let entry = 0; entry < PAGE_BLOCKS; entry++) {
      const count = countOf(entry);
      if (count === 0) {
        noneFreeBefore = Math.min(noneFreeBefore, entry);
        continue;
      }
      freeCount--;
      const at = BITMAP_HEADER + (entry >>> 2);
      const bits = BITS_OF_COUNT[Math.min(count, OVERFLOW)]!;
      draft.view.setUint8(at, draft.view.getUint8(at) | (bits << (2 * (entry & 3))));
    }
  });
  return { block, freeCount, noneFreeBefore };
}

/** The tree of counts of 3 and more. */
class OverflowBuilder {
  readonly #tree: TreeBuilder;

  constructor(writer: MetadataWriter) {
    this.#tree = new TreeBuilder(writer, COUNT_SIZE);
  }

  addPage(first: number, countOf: (block: number) => number): void {
    for (let block = first; block < first + PAGE_BLOCKS; block++) {
      const count = countOf(block);
      if (count >= OVERFLOW) this.#tree.push(block, count);
    }
  }

  end(): number {
    return this.#tree.end();
  }
}
