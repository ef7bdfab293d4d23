import type { MetadataReader } from './metadata-reader.ts';
import { metadataError } from './pool-roots.ts';
import { NodeView, nodeDamage } from './tree-walker.ts';

const MAX_HEIGHT = 16;
const MAPPING_SIZE = 8;
const NO_END: number = Number.MAX_SAFE_INTEGER;

/** A leaf of a tree of mappings, with the keys `[begin, end)` that it may have. */
export interface LeafPlace {
  block: number;
  begin: number;
  end: number;
}

/** Finds the leaves of trees of mappings without reading them, and reads leaves. Throws EILSEQ at the first damage. */
export class LeafWalk {
  readonly #reader: MetadataReader;

  constructor(reader: MetadataReader) {
    this.#reader = reader;
  }

  /** The leaves below `root`, in the order of their keys. `path` is for messages. */
  *leaves(root: number, path: string): Iterable<LeafPlace> {
    const height = this.#height(root, path);
    yield* this.#below({ block: root, begin: 0, end: NO_END }, height, `${path} > block ${root}`);
  }

  /** Calls back with a leaf's entries, which are valid during the call. */
  read(place: LeafPlace, path: string, visit: (leaf: NodeView) => void): void {
    const here = `${path} > block ${place.block}`;
    const node = this.#acquire(place.block, here);
    if (!node.isLeaf) this.#fail(here, 'it is an internal node, expected a leaf');
    const { count } = node;
    if (count > 0 && (node.key(0) < place.begin || node.key(count - 1) >= place.end)) {
      const keys = `${node.key(0)} to ${node.key(count - 1)}`;
      this.#fail(here, `it has keys ${keys}, expected ${place.begin} to ${place.end - 1}`);
    }
    visit(node);
    this.#reader.release(node.block);
  }

  *#below(place: LeafPlace, height: number, path: string): Iterable<LeafPlace> {
    if (height === 1) {
      yield place;
      return;
    }
    const node = this.#acquire(place.block, path);
    if (node.isLeaf) this.#fail(path, 'not all of its leaves are on one level');
    if (node.key(0) < place.begin || node.key(node.count - 1) >= place.end) {
      this.#fail(path, `it has children for other keys than its parent says`);
    }
    for (let i = 0; i < node.count; i++) {
      const block = node.value64(i);
      if (block >= this.#reader.blockCount) {
        this.#fail(path, `its child ${i} is block ${block}, past the end (${this.#reader.blockCount} blocks)`);
      }
      const end = i + 1 < node.count ? node.key(i + 1) : place.end;
      const child = { block, begin: node.key(i), end };
      if (height === 2) yield child;
      else yield* this.#below(child, height - 1, `${path} > block ${block}`);
    }
    this.#reader.release(node.block);
  }

  #height(root: number, path: string): number {
    let block = root;
    for (let height = 1; height <= MAX_HEIGHT; height++) {
      const node = this.#acquire(block, `${path} > block ${block}`);
      const { isLeaf } = node;
      if (!isLeaf) block = node.value64(0);
      this.#reader.release(node.block);
      if (isLeaf) return height;
    }
    return this.#fail(path, `the tree is deeper than ${MAX_HEIGHT} levels`);
  }

  #acquire(number: number, path: string): NodeView {
    const view = this.#reader.acquire();
    const unreadable = this.#reader.read(number, 'node', view);
    if (unreadable !== null) this.#fail(path, unreadable);
    const node = new NodeView(view);
    node.set();
    const damage = nodeDamage(node, MAPPING_SIZE);
    if (damage !== null) this.#fail(path, damage);
    return node;
  }

  #fail(path: string, message: string): never {
    throw metadataError(this.#reader, `${path}: ${message}`);
  }
}
