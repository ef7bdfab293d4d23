import { alignedMemory } from '../block/aligned-memory.ts';
import type { MetadataWriter } from './metadata-writer.ts';
import type { ReferenceCounter } from './reference-counter.ts';
import { InternalLevels, LevelBuilder, maxEntries } from './tree-builder.ts';

const BLOCK_SIZE = 4096;
const MAPPING_SIZE = 8;
const MAX: number = maxEntries(MAPPING_SIZE);
/** A leaf that is not the root has at least so many entries. */
const MIN: number = MAX / 3;
const KEYS = 32;
const VALUES: number = KEYS + 8 * MAX;

/** A leaf that more than one tree may use. */
export interface SharedLeaf {
  readonly block: number;
  readonly firstKey: number;
  readonly lastKey: number;
  readonly count: number;
  /** Trees that use it: its reference count. */
  uses: number;
}

/** Builds the leaves of a definition: mappings in ascending order, each counted once for all trees that will use them. */
export class SharedLeavesBuilder {
  readonly leaves: SharedLeaf[] = [];
  readonly #level: LevelBuilder;
  readonly #dataCounts: ReferenceCounter;
  readonly #lastKeys: number[] = [];

  constructor(writer: MetadataWriter, dataCounts: ReferenceCounter) {
    this.#dataCounts = dataCounts;
    this.#level = new LevelBuilder(writer, true, MAPPING_SIZE, (firstKey, block, count) => {
      const lastKey = this.#lastKeys[count - 1]!;
      this.#lastKeys.splice(0, count);
      this.leaves.push({ block, firstKey, lastKey, count, uses: 0 });
    });
  }

  push(key: number, dataBlock: number, time: number): void {
    pushMapping(this.#level, key, dataBlock, time);
    this.#lastKeys.push(key);
    this.#dataCounts.add(dataBlock);
  }

  end(): readonly SharedLeaf[] {
    this.#level.flush();
    if (this.leaves.length === 0) this.#level.emitEmpty();
    return this.leaves;
  }
}

/**
 * Builds a device's tree from mappings and from leaves that it shares, in ascending order. No internal nodes are shared. A leaf that would leave
 * its neighbours less than a third full is not shared; its mappings are copied.
 */
export class MappingTreeBuilder {
  readonly #writer: MetadataWriter;
  readonly #dataCounts: ReferenceCounter;
  readonly #level: LevelBuilder;
  readonly #above: InternalLevels;
  /** The last shared leaf: it stands before what is pending, which may still need its mappings. */
  #held: SharedLeaf | null = null;

  constructor(writer: MetadataWriter, dataCounts: ReferenceCounter) {
    const above = new InternalLevels(writer);
    this.#writer = writer;
    this.#dataCounts = dataCounts;
    this.#above = above;
    this.#level = new LevelBuilder(writer, true, MAPPING_SIZE, (key, block) => above.addLeaf(key, block));
  }

  push(key: number, dataBlock: number, time: number): void {
    if (this.#held !== null && this.#held.count < MIN) this.#copyHeld();
    this.#pushOwn(key, dataBlock, time);
    if (this.#level.pendingCount >= MIN) this.#releaseHeld();
  }

  pushLeaf(leaf: SharedLeaf): void {
    if (leaf.count === 0 && !this.#isEmpty) return;
    if (this.#held !== null && this.#held.count < MIN) this.#copyHeld();
    const { pendingCount } = this.#level;
    if (this.#isEmpty || (leaf.count >= MIN && (pendingCount === 0 || pendingCount >= MIN))) {
      this.#releaseHeld();
      this.#level.flush();
      this.#held = leaf;
      return;
    }
    this.#copy(leaf);
    if (this.#level.pendingCount >= MIN) this.#releaseHeld();
  }

  /** Returns the root. */
  end(): number {
    if (this.#held !== null && this.#level.pendingCount > 0) this.#rebalance(this.#held);
    this.#releaseHeld();
    this.#level.flush();
    if (this.#above.leafCount === 0) this.#level.emitEmpty();
    return this.#above.end();
  }

  get #isEmpty(): boolean {
    return this.#held === null && this.#level.pendingCount === 0 && this.#above.leafCount === 0;
  }

  #pushOwn(key: number, dataBlock: number, time: number): void {
    pushMapping(this.#level, key, dataBlock, time);
    this.#dataCounts.add(dataBlock);
  }

  #releaseHeld(): void {
    const held = this.#held;
    if (held === null) return;
    this.#held = null;
    held.uses++;
    this.#above.addLeaf(held.firstKey, held.block);
  }

  /** Only while nothing is pending. */
  #copyHeld(): void {
    const held = this.#held!;
    this.#held = null;
    this.#copy(held);
  }

  /** What is pending is too little for a leaf: the held leaf's mappings go before it. */
  #rebalance(held: SharedLeaf): void {
    this.#held = null;
    const pending = this.#level.takePending();
    this.#copy(held);
    for (const [key, low, high] of pending) {
      const at = this.#level.push(key);
      this.#level.values.setUint32(at, low, true);
      this.#level.values.setUint32(at + 4, high, true);
    }
  }

  #copy(leaf: SharedLeaf): void {
    readLeaf(this.#writer, leaf, (key, dataBlock, time) => this.#pushOwn(key, dataBlock, time));
  }
}

/** Gives back the data blocks of leaves that no tree uses. */
export function dropUnused(writer: MetadataWriter, dataCounts: ReferenceCounter, leaves: Iterable<SharedLeaf>): void {
  for (const leaf of leaves) {
    if (leaf.uses === 0) readLeaf(writer, leaf, (_, dataBlock) => dataCounts.remove(dataBlock));
  }
}

function pushMapping(level: LevelBuilder, key: number, dataBlock: number, time: number): void {
  const at = level.push(key);
  // A mapping is the data block's 40 bits above the time's 24.
  level.values.setUint32(at, (dataBlock % 256) * 2 ** 24 + time, true);
  level.values.setUint32(at + 4, Math.floor(dataBlock / 256), true);
}

function readLeaf(
  writer: MetadataWriter,
  leaf: SharedLeaf,
  visit: (key: number, dataBlock: number, time: number) => void,
): void {
  const bytes = alignedMemory(BLOCK_SIZE);
  writer.read(leaf.block, bytes);
  const view = new DataView(bytes.buffer, bytes.byteOffset, BLOCK_SIZE);
  for (let i = 0; i < leaf.count; i++) {
    const key = view.getUint32(KEYS + 8 * i, true) + view.getUint32(KEYS + 8 * i + 4, true) * 2 ** 32;
    const low = view.getUint32(VALUES + 8 * i, true);
    const high = view.getUint32(VALUES + 8 * i + 4, true);
    visit(key, high * 256 + Math.floor(low / 2 ** 24), low % 2 ** 24);
  }
}
