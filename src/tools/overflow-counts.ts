import type { Steps } from './steps.ts';
import type { NodeView, TreeVisitor } from './tree-walker.ts';

/** Collects the counts of an overflow tree, for one who goes through the blocks in ascending order: only as many are read as he needs. */
export class OverflowCounts implements TreeVisitor {
  readonly name = 'reference count tree';
  readonly valueSize = 4;
  readonly kind: number;
  /** In ascending order, if the tree is in order. */
  #blocks: number[] = [];
  #counts: number[] = [];
  /** Those before it have been taken. */
  #head = 0;
  #source: Steps<unknown> | null = null;

  constructor(kind: number) {
    this.kind = kind;
  }

  /** The walk that calls `leaf`. */
  set source(walk: Steps<unknown>) {
    this.#source = walk;
  }

  leaf(leaf: NodeView): void {
    if (this.#head > 0) {
      this.#blocks = this.#blocks.slice(this.#head);
      this.#counts = this.#counts.slice(this.#head);
      this.#head = 0;
    }
    for (let i = 0; i < leaf.count; i++) {
      this.#blocks.push(leaf.key(i));
      this.#counts.push(leaf.block.u32(leaf.valueOffset(i)));
    }
  }

  /** Reads on until every count of a block below `end` is there. */
  *readTo(end: number): Steps<void> {
    while (this.#source !== null && (this.#blocks.at(-1) ?? 0) < end) {
      if (this.#source.next().done) this.#source = null;
      yield;
    }
  }

  /** The count of the block, if it is the next; null when it has none. */
  take(block: number): number | null {
    return this.#blocks[this.#head] === block ? this.#counts[this.#head++]! : null;
  }

  /** Takes all counts of blocks below `end`. */
  takeBefore(end: number, visit: (block: number, count: number) => void): void {
    while (this.#head < this.#blocks.length && this.#blocks[this.#head]! < end) {
      visit(this.#blocks[this.#head]!, this.#counts[this.#head]!);
      this.#head++;
    }
  }
}
