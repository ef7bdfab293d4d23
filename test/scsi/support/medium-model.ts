/** The value of a block of which nothing is known. */
export const ANYTHING = -1;

interface Write {
  /** What every byte of the block becomes, or ANYTHING. */
  readonly value: number;
  readonly begin: number;
  /** Infinity while it is under way. */
  end: number;
}

/** A write under way, or a read with all that it may return. */
export interface Access {
  readonly block: number;
  readonly count: number;
  readonly writes: Write[];
  /** Of each block: the values that it had, or may have had, at some time since the begin. */
  readonly seen: Set<number>[];
}

/**
 * A plain model of a medium under concurrent commands: each block is a register. A write takes effect at some moment between its begin and its end, one that did not
 * succeed perhaps never; a read returns what was there at some moment between its begin and its end.
 */
export class MediumModel {
  readonly #blocks: Write[][];
  readonly #reads: Set<Access> = new Set();
  #time = 0;
  /** Blocks of reads of which something was known. */
  checked = 0;

  /** Starts with what `data` holds. */
  constructor(data: Uint8Array, blockSize: number) {
    this.#blocks = [];
    for (let at = 0; at < data.length; at += blockSize) {
      const bytes = data.subarray(at, at + blockSize);
      const value = bytes.every((byte) => byte === bytes[0]) ? bytes[0]! : ANYTHING;
      this.#blocks.push([{ value, begin: 0, end: 0 }]);
    }
  }

  beginWrite(block: number, count: number, value: number): Access {
    const begin = ++this.#time;
    const writes: Write[] = [];
    for (let i = 0; i < count; i++) {
      const write = { value, begin, end: Number.POSITIVE_INFINITY };
      this.#blocks[block + i]?.push(write);
      writes.push(write);
    }
    for (const read of this.#reads) {
      for (let i = Math.max(block, read.block); i < Math.min(block + count, read.block + read.count); i++) {
        read.seen[i - read.block]!.add(value);
      }
    }
    return { block, count, writes, seen: [] };
  }

  endWrite(access: Access, certain: boolean): void {
    const end = ++this.#time;
    access.writes.forEach((write, i) => {
      write.end = end;
      const block = access.block + i;
      // What had ended before a write began that has taken effect is gone.
      if (certain)
        this.#blocks[block] = this.#blocks[block]!.filter((other) => other === write || other.end > write.begin);
    });
  }

  beginRead(block: number, count: number): Access {
    const seen = Array.from({ length: count }, (_, i) => new Set(this.#blocks[block + i]!.map(({ value }) => value)));
    const access = { block, count, writes: [], seen };
    this.#reads.add(access);
    return access;
  }

  /** The first block of `data` that holds what it never can have held, or -1; `data` may end early. */
  endRead(access: Access, data: Uint8Array, blockSize: number): number {
    this.#reads.delete(access);
    for (let at = 0; at < data.length; at += blockSize) {
      const values = access.seen[at / blockSize]!;
      if (values.has(ANYTHING)) continue;
      this.checked++;
      const bytes = data.subarray(at, at + blockSize);
      if (!values.has(bytes[0]!) || bytes.some((byte) => byte !== bytes[0])) return access.block + at / blockSize;
    }
    return -1;
  }

  /** A read came to nothing. */
  forget(access: Access): void {
    this.#reads.delete(access);
  }

  /** One value that `block` may hold. */
  guess(block: number): number {
    return Math.max(0, this.#blocks[block]?.at(-1)?.value ?? 0);
  }
}
