import type { MetadataWriter } from './metadata-writer.ts';

const HEADER_SIZE = 32;
const CHILD_SIZE = 8;
const INTERNAL = 1;
const LEAF = 2;

/** Entries that a node has room for. */
export function maxEntries(valueSize: number): number {
  return Math.floor((4096 - HEADER_SIZE) / (8 + valueSize) / 3) * 3;
}

/** Is told of each node that a level writes. */
type NodeReport = (firstKey: number, block: number, count: number) => void;

/**
 * Fills the nodes of one level of a b-tree from its entries in ascending order. So much is kept back that the last two nodes can be
 * balanced: no node of a level that has more than one is less than half full.
 */
export class LevelBuilder {
  /** Where `push` says, the value of the new entry goes. */
  readonly values: DataView;
  readonly #writer: MetadataWriter;
  readonly #flags: number;
  readonly #valueSize: number;
  readonly #max: number;
  readonly #report: NodeReport;
  readonly #keys: Float64Array;
  #count = 0;

  constructor(writer: MetadataWriter, isLeaf: boolean, valueSize: number, report: NodeReport) {
    this.#writer = writer;
    this.#flags = isLeaf ? LEAF : INTERNAL;
    this.#valueSize = valueSize;
    this.#max = maxEntries(valueSize);
    this.#report = report;
    this.#keys = new Float64Array(2 * this.#max);
    this.values = new DataView(new ArrayBuffer(2 * this.#max * valueSize));
  }

  /** Entries that are in no node yet. */
  get pendingCount(): number {
    return this.#count;
  }

  /** Adds an entry; returns where in `values` its value goes. */
  push(key: number): number {
    if (this.#count === 2 * this.#max) this.#emit(this.#max);
    this.#keys[this.#count] = key;
    return this.#count++ * this.#valueSize;
  }

  /** Writes what is pending: one node, or two halves. */
  flush(): void {
    if (this.#count > this.#max) this.#emit(Math.floor(this.#count / 2));
    if (this.#count > 0) this.#emit(this.#count);
  }

  /** Takes out what is pending: keys, and the two words of their values. For values of 8 bytes. */
  takePending(): [key: number, low: number, high: number][] {
    const taken = Array.from({ length: this.#count }, (_, i): [number, number, number] => [
      this.#keys[i]!,
      this.values.getUint32(8 * i, true),
      this.values.getUint32(8 * i + 4, true),
    ]);
    this.#count = 0;
    return taken;
  }

  /** Writes a node without entries. */
  emitEmpty(): void {
    this.#emit(0);
  }

  #emit(count: number): void {
    const keys = this.#keys;
    const size = this.#valueSize;
    const block = this.#writer.append('node', (draft) => {
      draft.setU32(4, this.#flags);
      draft.setU32(16, count);
      draft.setU32(20, this.#max);
      draft.setU32(24, size);
      for (let i = 0; i < count; i++) draft.setU64(HEADER_SIZE + 8 * i, keys[i]!);
      const valuesAt = HEADER_SIZE + 8 * this.#max;
      for (let i = 0; i < count * size; i += 4) draft.setU32(valuesAt + i, this.values.getUint32(i, true));
    });
    const firstKey = count === 0 ? 0 : keys[0]!;
    keys.copyWithin(0, count, this.#count);
    const bytes = new Uint8Array(this.values.buffer);
    bytes.copyWithin(0, count * size, this.#count * size);
    this.#count -= count;
    this.#report(firstKey, block, count);
  }
}

/** The levels above the leaves of one tree, which grow while leaves come. Memory: two nodes a level. */
export class InternalLevels {
  readonly #writer: MetadataWriter;
  readonly #levels: LevelBuilder[] = [];
  /** Of each level from the leaves up: the nodes so far, and the first of them. */
  readonly #nodes: { count: number; firstKey: number; firstBlock: number }[] = [];

  constructor(writer: MetadataWriter) {
    this.#writer = writer;
  }

  /** Leaves so far. */
  get leafCount(): number {
    return this.#nodes[0]?.count ?? 0;
  }

  addLeaf(firstKey: number, block: number): void {
    this.#addNode(0, firstKey, block);
  }

  /** Writes what is left; returns the root. At least one leaf must have come. */
  end(): number {
    let depth = 0;
    for (; this.#nodes[depth]!.count > 1; depth++) this.#levels[depth]!.flush();
    return this.#nodes[depth]!.firstBlock;
  }

  #addNode(depth: number, firstKey: number, block: number): void {
    const nodes = this.#nodes[depth];
    if (nodes === undefined) {
      this.#nodes[depth] = { count: 1, firstKey, firstBlock: block };
      return;
    }
    // A level comes into being with the second node below it.
    if (nodes.count === 1) this.#pushChild(depth, nodes.firstKey, nodes.firstBlock);
    nodes.count++;
    this.#pushChild(depth, firstKey, block);
  }

  #pushChild(depth: number, key: number, block: number): void {
    this.#levels[depth] ??= new LevelBuilder(this.#writer, false, CHILD_SIZE, (firstKey, node) =>
      this.#addNode(depth + 1, firstKey, node),
    );
    const level = this.#levels[depth]!;
    const at = level.push(key);
    level.values.setUint32(at, block, true);
    level.values.setUint32(at + 4, 0, true);
  }
}

/** Builds a whole b-tree from entries in ascending order. */
export class TreeBuilder {
  readonly #leaves: LevelBuilder;
  readonly #above: InternalLevels;

  constructor(writer: MetadataWriter, valueSize: number) {
    const above = new InternalLevels(writer);
    this.#above = above;
    this.#leaves = new LevelBuilder(writer, true, valueSize, (key, block) => above.addLeaf(key, block));
  }

  /** The value is given as words of 32 bits. */
  push(key: number, ...words: readonly number[]): void {
    const at = this.#leaves.push(key);
    for (const [i, word] of words.entries()) this.#leaves.values.setUint32(at + 4 * i, word, true);
  }

  /** Returns the root. */
  end(): number {
    this.#leaves.flush();
    if (this.#above.leafCount === 0) this.#leaves.emitEmpty();
    return this.#above.end();
  }
}
