/** `NAMED`: in a notice that is being read, and not waiting. */
const Mark = { NONE: 0, WAITING: 1, ABORTED: 2, NAMED: 3 } as const;
const ID_COUNT = 65536;

/** Which commands of a ring, by their ids, wait on it having been seen, and which of them are not to begin any more. */
export class AbortMarks {
  readonly #marks: Uint8Array = new Uint8Array(ID_COUNT);

  /** A command waits on the ring. */
  waits(id: number): void {
    this.#marks[id] = Mark.WAITING;
  }

  /** It waits and was aborted. */
  isAborted(id: number): boolean {
    return this.#marks[id] === Mark.ABORTED;
  }

  /** It is taken from the ring; true when it was aborted while it waited. */
  takes(id: number): boolean {
    const aborted = this.#marks[id] === Mark.ABORTED;
    this.#marks[id] = Mark.NONE;
    return aborted;
  }

  /** The ids `[begin, end)` of `halves` are to be aborted: what waits is marked, of the others `isNamed` is true until `forget`. */
  name(halves: Uint16Array, begin: number, end: number): void {
    const marks = this.#marks;
    for (let i = begin; i < end; i++) {
      const id = halves[i]!;
      if (marks[id] === Mark.WAITING) marks[id] = Mark.ABORTED;
      else if (marks[id] === Mark.NONE) marks[id] = Mark.NAMED;
    }
  }

  isNamed(id: number): boolean {
    return this.#marks[id] === Mark.NAMED;
  }

  forget(halves: Uint16Array, begin: number, end: number): void {
    for (let i = begin; i < end; i++) if (this.#marks[halves[i]!] === Mark.NAMED) this.#marks[halves[i]!] = Mark.NONE;
  }
}
