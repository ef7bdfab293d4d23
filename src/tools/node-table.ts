import type { ReferenceCounter } from './reference-counter.ts';
import { type NodeKind, type NodeRegistry, NodeSight, type Subtree } from './tree-walker.ts';

const FIRST_CAPACITY = 1024;
const ABSENT = 0;

/**
 * Which metadata blocks a check has met as nodes, and what is under those that it may meet again: in arrays, as there can be
 * millions.
 */
export class NodeTable implements NodeRegistry {
  readonly #references: ReferenceCounter;
  /** By block: the kind of its tree; 0: not met. */
  #kinds: Uint8Array = new Uint8Array(0);
  /** By block: 1 when it is worth remembering at the first sight. */
  #shared: Uint8Array = new Uint8Array(0);
  /** By block: position + 1 in the arrays below. */
  #positions: Uint32Array = new Uint32Array(0);
  #count = 0;
  #entryCounts: Float64Array = new Float64Array(FIRST_CAPACITY);
  #firstKeys: Float64Array = new Float64Array(FIRST_CAPACITY);
  #lastKeys: Float64Array = new Float64Array(FIRST_CAPACITY);
  /** Height, and 128 when it is complete. */
  #heights: Uint8Array = new Uint8Array(FIRST_CAPACITY);

  /** `references` counts the nodes' parents, too. */
  constructor(references: ReferenceCounter) {
    this.#references = references;
  }

  /** Before the first node is met. */
  resize(blockCount: number): void {
    this.#kinds = new Uint8Array(blockCount);
    this.#shared = new Uint8Array(blockCount);
    this.#positions = new Uint32Array(blockCount);
  }

  /** Several parents are to be expected. */
  expectAgain(block: number): void {
    if (block < this.#shared.length) this.#shared[block] = 1;
  }

  meet(block: number, kind: NodeKind): NodeSight {
    if (block >= this.#kinds.length) return NodeSight.first;
    this.#references.add(block);
    const before = this.#kinds[block]!;
    if (before === ABSENT) {
      this.#kinds[block] = kind;
      return NodeSight.first;
    }
    return before === kind ? NodeSight.again : NodeSight.elsewhere;
  }

  isMet(block: number): boolean {
    return block < this.#kinds.length && this.#kinds[block] !== ABSENT;
  }

  find(block: number): Subtree | null {
    const position = block < this.#positions.length ? this.#positions[block]! - 1 : -1;
    if (position < 0) return null;
    const height = this.#heights[position]!;
    return {
      entryCount: this.#entryCounts[position]!,
      firstKey: this.#firstKeys[position]!,
      lastKey: this.#lastKeys[position]!,
      height: height & 127,
      complete: height >= 128,
    };
  }

  remember(block: number, subtree: Subtree, again: boolean): void {
    if (block >= this.#positions.length || !(again || this.#shared[block] === 1)) return;
    if (this.#count === this.#heights.length) this.#grow();
    const position = this.#count++;
    this.#entryCounts[position] = subtree.entryCount;
    this.#firstKeys[position] = subtree.firstKey;
    this.#lastKeys[position] = subtree.lastKey;
    this.#heights[position] = subtree.height + (subtree.complete ? 128 : 0);
    this.#positions[block] = position + 1;
  }

  #grow(): void {
    const capacity = this.#heights.length * 2;
    this.#entryCounts = copy(this.#entryCounts, new Float64Array(capacity));
    this.#firstKeys = copy(this.#firstKeys, new Float64Array(capacity));
    this.#lastKeys = copy(this.#lastKeys, new Float64Array(capacity));
    this.#heights = copy(this.#heights, new Uint8Array(capacity));
  }
}

function copy<T extends Float64Array | Uint8Array>(from: T, to: T): T {
  to.set(from);
  return to;
}
