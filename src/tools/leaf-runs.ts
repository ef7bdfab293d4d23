const HEAD = 1;
const TAIL = 2;
const SEEN = 4;
const SHARED = 8;

/**
 * Which runs of leaves devices share. Each device is a sequence of leaves; a *run* is a longest part that no sequence enters or leaves in
 * its middle, so every sequence is a sequence of whole runs.
 *
 * Memory: nine bytes for each metadata block, whatever the number of devices.
 */
export class LeafRuns {
  /** Of each leaf, one that comes before it and one that comes after it; 0 for none. */
  readonly #before: Uint32Array;
  readonly #after: Uint32Array;
  readonly #flags: Uint8Array;
  #last = 0;
  #leafCount = 0;

  constructor(metadataBlockCount: number) {
    this.#before = new Uint32Array(metadataBlockCount);
    this.#after = new Uint32Array(metadataBlockCount);
    this.#flags = new Uint8Array(metadataBlockCount);
  }

  /** Different leaves met. */
  get leafCount(): number {
    return this.#leafCount;
  }

  /** The next leaf of a device. */
  add(leaf: number): void {
    const flags = this.#flags;
    const last = this.#last;
    if ((flags[leaf]! & SEEN) !== 0) flags[leaf]! |= SHARED;
    else this.#leafCount++;
    flags[leaf]! |= SEEN;
    this.#last = leaf;
    if (last === 0) {
      flags[leaf]! |= HEAD;
      return;
    }
    if (this.#before[leaf] === 0) this.#before[leaf] = last;
    else if (this.#before[leaf] !== last) flags[leaf]! |= HEAD;
    const after = this.#after[last]!;
    if (after === 0) {
      this.#after[last] = leaf;
    } else if (after !== leaf) {
      flags[last]! |= TAIL;
      flags[leaf]! |= HEAD;
    }
  }

  /** The end of a device. */
  endSequence(): void {
    if (this.#last !== 0) this.#flags[this.#last]! |= TAIL;
    this.#last = 0;
  }

  /** After the last device: what follows the end of a run begins another. */
  finish(): void {
    const flags = this.#flags;
    for (let leaf = 0; leaf < flags.length; leaf++) {
      if ((flags[leaf]! & TAIL) !== 0 && this.#after[leaf] !== 0) flags[this.#after[leaf]!]! |= HEAD;
    }
  }

  isHead(leaf: number): boolean {
    return (this.#flags[leaf]! & HEAD) !== 0;
  }

  /** Whether more than one device has it. */
  isShared(leaf: number): boolean {
    return (this.#flags[leaf]! & SHARED) !== 0;
  }

  /** The first leaves of the runs that are shared, ascending. */
  *sharedHeads(): Iterable<number> {
    for (let leaf = 0; leaf < this.#flags.length; leaf++) {
      if ((this.#flags[leaf]! & (HEAD | SHARED)) === (HEAD | SHARED)) yield leaf;
    }
  }

  /** The leaf that follows in the same run; 0 at its end. */
  next(leaf: number): number {
    const after = this.#after[leaf]!;
    return (this.#flags[leaf]! & TAIL) !== 0 || after === 0 || this.isHead(after) ? 0 : after;
  }
}
