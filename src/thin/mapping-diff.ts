import { StorageError } from '../base/errors.ts';
import { BLOCK_WORDS } from '../persistent-data/block.ts';
import { childAt, entryCount, isLeaf, keyAt, lowerBound, valueAt } from '../persistent-data/btree-node.ts';

/** More levels than any tree has. */
const MAX_HEIGHT = 16;

/** In place of a root: a device that maps nothing. */
export const NO_TREE = -1;

/** Where the nodes of mapping trees come from. */
export interface DiffNodes {
  /**
   * Copies node `number` into `words`, checked: its checksum, its shape, values of 8 bytes. False when it is not there yet: the call is
   * made again when it is. Throws `StorageError` for damage.
   */
  read(number: number, words: Uint32Array): boolean;
}

/** What `MappingDiff.next` has found. */
export const DiffStep = {
  /** A virtual block that only the left device maps; `key` and `leftBlock` say what. */
  leftOnly: 1,
  rightOnly: 2,
  /** Both map it, to different data blocks. */
  different: 3,
  /** Both map it to the same data block. Only when asked for. */
  same: 4,
  /** A node is not there yet: call again. */
  wait: 5,
  end: 6,
} as const;
export type DiffStep = (typeof DiffStep)[keyof typeof DiffStep];

export interface DiffOptions {
  /** Where to begin. */
  begin?: number;
  /** Report what is the same, too: then everything is read. Without it nothing below a shared node is. */
  same?: boolean;
}

/**
 * The difference between the mappings of two devices of one pool, block by block in ascending order.
 *
 * Nodes that both trees share are not read, so it costs what differs: about a leaf and the path to it for each place where one of the two
 * has been written since the other was taken of it. The trees must not change meanwhile. Times are not compared: the same data block
 * holds the same data.
 */
export class MappingDiff {
  /** The virtual block of the last step. */
  key = 0;
  leftBlock = 0;
  rightBlock = 0;
  readonly #nodes: DiffNodes;
  readonly #left: Cursor;
  readonly #right: Cursor;
  readonly #reportSame: boolean;
  /** Depth of the left cursor's frame below which everything is shared; -1: nothing is. */
  #sharedDepth = -1;
  #measured = false;

  constructor(nodes: DiffNodes, leftRoot: number, rightRoot: number, options: DiffOptions = {}) {
    const begin = options.begin ?? 0;
    this.#nodes = nodes;
    this.#left = new Cursor(leftRoot, begin);
    this.#right = new Cursor(rightRoot, begin);
    this.#reportSame = options.same ?? false;
  }

  next(): DiffStep {
    const left = this.#left;
    const right = this.#right;
    if (!this.#measured && !this.#measure()) return DiffStep.wait;
    for (;;) {
      left.settle();
      right.settle();
      if (this.#sharedDepth >= 0) {
        if (left.depth > this.#sharedDepth) {
          if (left.atEntry) return this.#take(DiffStep.same, left, left);
          if (!left.descend(this.#nodes)) return DiffStep.wait;
          continue;
        }
        this.#sharedDepth = -1;
      }
      if (left.ended && right.ended) return DiffStep.end;
      if (right.ended || (!left.ended && left.key < right.key)) {
        if (left.atEntry) return this.#take(DiffStep.leftOnly, left, null);
        if (!left.descend(this.#nodes)) return DiffStep.wait;
      } else if (left.ended || right.key < left.key) {
        if (right.atEntry) return this.#take(DiffStep.rightOnly, null, right);
        if (!right.descend(this.#nodes)) return DiffStep.wait;
      } else if (left.atEntry && right.atEntry) {
        const same = left.dataBlock === right.dataBlock;
        if (!same || this.#reportSame) return this.#take(same ? DiffStep.same : DiffStep.different, left, right);
        left.index++;
        right.index++;
      } else if (left.level === right.level && left.child === right.child) {
        if (!this.#reportSame) left.index++;
        else if (left.descend(this.#nodes)) this.#sharedDepth = left.depth - 1;
        else return DiffStep.wait;
        right.index++;
      } else {
        // The higher one, so that two nodes of the same level meet.
        const higher = left.level >= right.level ? left : right;
        if (!higher.descend(this.#nodes)) return DiffStep.wait;
      }
    }
  }

  #measure(): boolean {
    this.#measured = this.#left.measure(this.#nodes) && this.#right.measure(this.#nodes);
    return this.#measured;
  }

  #take(step: DiffStep, left: Cursor | null, right: Cursor | null): DiffStep {
    const first = (left ?? right)!;
    this.key = first.takenKey();
    if (left !== null) this.leftBlock = left.dataBlock;
    if (right !== null) this.rightBlock = right.dataBlock;
    if (left !== null) left.index++;
    if (right !== null && right !== left) {
      if (left !== null) right.takenKey();
      right.index++;
    }
    return step;
  }
}

/** One level of the path to where a cursor is. */
class Frame {
  readonly words: Uint32Array = new Uint32Array(BLOCK_WORDS);
  index = 0;
}

/** A place in a tree: an entry of a leaf, or of an internal node whose child has not been looked at. */
class Cursor {
  /** Index of the current frame; -1 at the end. Frame 0 is above the root and has it as its only child. */
  depth = 0;
  readonly #root: number;
  readonly #begin: number;
  readonly #frames: Frame[] = [new Frame()];
  /** Levels of nodes. */
  #height = 0;
  #measuring: number;
  #lastKey = -1;

  constructor(root: number, begin: number) {
    this.#root = root;
    this.#begin = begin;
    this.#measuring = root;
    if (root === NO_TREE) this.depth = -1;
  }

  get ended(): boolean {
    return this.depth < 0;
  }

  get index(): number {
    return this.#frames[this.depth]!.index;
  }

  set index(index: number) {
    this.#frames[this.depth]!.index = index;
  }

  /** At the mapping of one block. */
  get atEntry(): boolean {
    return this.depth === this.#height;
  }

  /** How far the current entry is above the mappings. */
  get level(): number {
    return this.#height - this.depth;
  }

  /** No key below the current entry is smaller. */
  get key(): number {
    if (this.depth === 0) return 0;
    const { words, index } = this.#frames[this.depth]!;
    return keyAt(words, index);
  }

  /** The node below the current entry. */
  get child(): number {
    if (this.depth === 0) return this.#root;
    const { words, index } = this.#frames[this.depth]!;
    return childAt(words, index);
  }

  /** What the current entry maps to: the value without its 24 bits of time. */
  get dataBlock(): number {
    const { words, index } = this.#frames[this.depth]!;
    const at = valueAt(words, index);
    return words[at + 1]! * 256 + (words[at]! >>> 24);
  }

  /** The key of an entry that is reported: above all before it. */
  takenKey(): number {
    const { key } = this;
    if (key <= this.#lastKey) throw damaged(this.#root, `key ${key} comes after ${this.#lastKey}`);
    this.#lastKey = key;
    return key;
  }

  /** Finds out how high the tree is; false: a node is not there yet. */
  measure(nodes: DiffNodes): boolean {
    const { words } = this.#frames[0]!;
    while (this.#measuring >= 0) {
      if (!nodes.read(this.#measuring, words)) return false;
      if (++this.#height > MAX_HEIGHT) throw damaged(this.#root, `it is deeper than ${MAX_HEIGHT} levels`);
      this.#measuring = isLeaf(words) ? -1 : childAt(words, 0);
    }
    return true;
  }

  /** Leaves nodes whose entries are all done. */
  settle(): void {
    while (this.depth > 0) {
      const { words, index } = this.#frames[this.depth]!;
      if (index < entryCount(words)) return;
      this.depth--;
    }
    if (this.depth === 0 && this.#frames[0]!.index > 0) this.depth = -1;
  }

  /** Goes to the first entry of the child that is not before the beginning; false: the node is not there yet. */
  descend(nodes: DiffNodes): boolean {
    let frame = this.#frames[this.depth + 1];
    if (frame === undefined) {
      frame = new Frame();
      this.#frames.push(frame);
    }
    const { words } = frame;
    if (!nodes.read(this.child, words)) return false;
    const leaf = isLeaf(words);
    if (leaf !== (this.depth + 1 === this.#height)) throw damaged(this.#root, 'its leaves are not on one level');
    const at = lowerBound(words, this.#begin);
    frame.index = Math.max(0, at);
    if (leaf && at >= 0 && keyAt(words, at) < this.#begin) frame.index = at + 1;
    this.index++;
    this.depth++;
    return true;
  }
}

function damaged(root: number, reason: string): StorageError {
  return new StorageError('EILSEQ', `Cannot compare the mapping tree at block ${root}: ${reason}`);
}
