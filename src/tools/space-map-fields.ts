/** A space map's root and index, read. See persistent-data/index-entry.ts for the layouts. */
import type { BlockView } from './metadata-reader.ts';
import type { NodeView, TreeVisitor } from './tree-walker.ts';

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

/** Collects the entries of a data space map's index tree. */
export class IndexTreeVisitor implements TreeVisitor {
  readonly name = 'index tree';
  readonly valueSize = 16;
  readonly kind: number;
  readonly entries: IndexEntry[] = [];

  constructor(kind: number) {
    this.kind = kind;
  }

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
