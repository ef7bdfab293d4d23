import { MAX_DEPTH } from '../persistent-data/btree-spine.ts';
import type { PoolReader } from './pool-reader.ts';
import { ReferenceCounter } from './reference-counter.ts';
import { dataBlockOf } from './thin-visitors.ts';

/** `done` of `total` nodes. */
export type ScanProgress = (done: number, total: number) => void;

/**
 * Counts the data blocks of each device that no other device has. Reads every node twice at most, however many devices share it; memory:
 * a byte for each metadata block and each data block in use.
 */
export function countExclusive(pool: PoolReader, progress: ScanProgress): Map<number, number> {
  return new ExclusiveScan(pool, progress).run();
}

class ExclusiveScan {
  readonly #pool: PoolReader;
  readonly #progress: ScanProgress;
  readonly #nodes: ReferenceCounter = new ReferenceCounter();
  readonly #data: ReferenceCounter = new ReferenceCounter();

  constructor(pool: PoolReader, progress: ScanProgress) {
    this.#pool = pool;
    this.#progress = progress;
  }

  run(): Map<number, number> {
    const { devices } = this.#pool;
    for (const { root } of devices) this.#count(root);
    return new Map(devices.map(({ id, root }) => [id, this.#exclusive(root)]));
  }

  /** Counts the references to a node, and on the first those that are in it. */
  #count(number: number): void {
    const met = this.#nodes.count(number) > 0;
    this.#nodes.add(number);
    if (met) return;
    const node = this.#node(number);
    for (let i = 0; i < node.count; i++) {
      if (node.isLeaf) this.#data.add(dataBlockOf(node, i));
      else this.#count(node.value64(i));
    }
    this.#pool.release(node);
  }

  #exclusive(number: number): number {
    if (this.#nodes.count(number) > 1) return 0;
    const node = this.#node(number);
    let count = 0;
    for (let i = 0; i < node.count; i++) {
      if (!node.isLeaf) count += this.#exclusive(node.value64(i));
      else if (this.#data.count(dataBlockOf(node, i)) === 1) count++;
    }
    this.#pool.release(node);
    return count;
  }

  #node(number: number): ReturnType<PoolReader['node']> {
    const { reader, live } = this.#pool;
    this.#progress(reader.readCount, 2 * live.metadataSpaceMap.allocatedCount);
    return this.#pool.node(number);
  }
}

/** The highest virtual block with a mapping; 0 also when there is none, as thin_ls has it. */
export function highestBlock(pool: PoolReader, { root }: { readonly root: number }): number {
  let number = root;
  for (let depth = 0; ; depth++) {
    if (depth >= MAX_DEPTH) throw pool.damaged(`the tree at block ${root} leads back into itself`);
    const node = pool.node(number);
    const { isLeaf, count } = node;
    const value = isLeaf ? (count > 0 ? node.key(count - 1) : 0) : node.value64(count - 1);
    pool.release(node);
    if (isLeaf) return value;
    number = value;
  }
}
