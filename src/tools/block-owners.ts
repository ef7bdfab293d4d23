import type { BlockView, MetadataReader } from './metadata-reader.ts';
import { bitmapEntry } from './space-map-check.ts';
import { indexBlockEntries } from './space-map-fields.ts';
import { magicDamage, readSuperblockFields, type SuperblockFields } from './superblock-check.ts';
import { NodeView } from './tree-walker.ts';

/** Trees by what their values are. */
export type TreeKind = 'device roots' | 'mappings' | 'details' | 'data index' | 'data counts' | 'metadata counts';

/** One way from the superblock to a block. */
export interface BlockOwner {
  /** For people: `device 5`, `details`, `the metadata bitmaps`. */
  name: string;
  /** Null when it is no node. */
  tree: TreeKind | null;
  isRoot: boolean;
}

const MAX_HEIGHT = 16;
const BITMAP_BLOCKS = 16320;
const METADATA_BITMAPS = 'metadata bitmaps';

/**
 * Finds out what a metadata block is used for: every tree (every device) that leads to it. Reads internal nodes only, each once for each tree;
 * what is damaged it leaves out.
 */
export class BlockOwners {
  readonly #reader: MetadataReader;
  readonly #wanted: number;
  readonly #owners: BlockOwner[] = [];

  constructor(reader: MetadataReader, wanted: number) {
    this.#reader = reader;
    this.#wanted = wanted;
  }

  find(): BlockOwner[] {
    const live = this.#superblock(0);
    if (this.#wanted === 0) this.#add('the superblock', null, true);
    if (live === null) return this.#owners;
    this.#spaceMaps(live);
    this.#devices(live, '');
    if (live.heldRoot !== 0) {
      if (live.heldRoot === this.#wanted) this.#add('the metadata snapshot', null, true);
      const held = this.#superblock(live.heldRoot);
      if (held !== null) this.#devices(held, ' of the metadata snapshot');
    }
    return this.#owners;
  }

  /** How often the metadata's space map says that the block is used: 3 stands for more; null when that cannot be read. */
  count(): number | null {
    const live = this.#superblock(0);
    if (live === null || this.#wanted >= live.metadataSpaceMap.blockCount) return null;
    const ordinal = Math.floor(this.#wanted / BITMAP_BLOCKS);
    return this.#withBlock(live.metadataSpaceMap.bitmapRoot, 'index', (index) => {
      const { block } = indexBlockEntries(index, ordinal + 1)[ordinal]!;
      return this.#withBlock(block, 'bitmap', (bitmap) => bitmapEntry(bitmap, this.#wanted % BITMAP_BLOCKS));
    });
  }

  #add(name: string, tree: TreeKind | null, isRoot: boolean): void {
    this.#owners.push({ name, tree, isRoot });
  }

  #superblock(number: number): SuperblockFields | null {
    return this.#withBlock(number, 'superblock', (view) =>
      magicDamage(view) === null ? readSuperblockFields(view) : null,
    );
  }

  #spaceMaps({ metadataSpaceMap, dataSpaceMap }: SuperblockFields): void {
    if (metadataSpaceMap.bitmapRoot === this.#wanted) this.#add(`the index of the ${METADATA_BITMAPS}`, null, true);
    const bitmapCount = Math.min(255, Math.ceil(metadataSpaceMap.blockCount / BITMAP_BLOCKS));
    this.#withBlock(metadataSpaceMap.bitmapRoot, 'index', (index) => {
      for (const { block, ordinal } of indexBlockEntries(index, bitmapCount)) {
        if (block === this.#wanted) this.#add(`the ${METADATA_BITMAPS} (number ${ordinal})`, null, false);
      }
      return null;
    });
    this.#tree(metadataSpaceMap.refCountRoot, 'the counts of metadata blocks above 2', 'metadata counts');
    this.#tree(dataSpaceMap.refCountRoot, 'the counts of data blocks above 2', 'data counts');
    this.#tree(dataSpaceMap.bitmapRoot, 'the index of the data bitmaps', 'data index', (leaf, i) => {
      if (leaf.value64(i) === this.#wanted) this.#add(`the data bitmaps (number ${leaf.key(i)})`, null, false);
    });
  }

  #devices({ mappingRoot, detailsRoot }: SuperblockFields, where: string): void {
    this.#tree(detailsRoot, `the device details${where}`, 'details');
    this.#tree(mappingRoot, `the device roots${where}`, 'device roots', (leaf, i) => {
      this.#tree(leaf.value64(i), `device ${leaf.key(i)}${where}`, 'mappings');
    });
  }

  /** Looks for the block in a tree; `visit` is called for every entry of its leaves. */
  #tree(root: number, name: string, tree: TreeKind, visit?: (leaf: NodeView, index: number) => void): void {
    const height = visit === undefined ? this.#height(root) : MAX_HEIGHT;
    if (this.#search(root, height, visit)) this.#add(name, tree, root === this.#wanted);
  }

  /** Nodes of `height` 1 are leaves, and not read unless they are to be visited. */
  #search(number: number, height: number, visit?: (leaf: NodeView, index: number) => void): boolean {
    let found = number === this.#wanted;
    if (height <= 1) return found;
    this.#withBlock(number, 'node', (view) => {
      const node = nodeOf(view);
      for (let i = 0; i < node.count; i++) {
        if (node.isLeaf) visit?.(node, i);
        else if (this.#search(node.value64(i), height - 1, visit)) found = true;
      }
      return null;
    });
    return found;
  }

  #height(root: number): number {
    let height = 0;
    for (let number: number | null = root; number !== null && height < MAX_HEIGHT; height++) {
      number = this.#withBlock(number, 'node', (view) => (nodeOf(view).isLeaf ? null : nodeOf(view).value64(0)));
    }
    return height;
  }

  #withBlock<T>(
    number: number,
    type: 'superblock' | 'node' | 'index' | 'bitmap',
    use: (view: BlockView) => T,
  ): T | null {
    const view = this.#reader.acquire();
    try {
      return this.#reader.read(number, type, view) === null ? use(view) : null;
    } finally {
      this.#reader.release(view);
    }
  }
}

function nodeOf(view: BlockView): NodeView {
  const node = new NodeView(view);
  node.set();
  // A count that does not fit is damage; what fits is shown.
  node.count = Math.min(node.count, Math.floor((4096 - 32) / (8 + Math.max(node.valueSize, 4))));
  return node;
}
