const EMPTY = new Uint8Array(0);

/**
 * Where a command's data lies: a list of (offset, length) pieces of one arena. The arena is a slab of the portal or
 * the data area of a TCMU ring; pieces are plain numbers, so that a command allocates nothing and nothing that points into a
 * ring's data area outlives the command.
 *
 * The arrays keep their length between uses; `count` says how many pieces are valid.
 */
export class IoVector {
  /** The arena. Not owned. */
  memory: Uint8Array = EMPTY;
  /** Byte offsets into `memory`. */
  readonly offsets: number[] = [0];
  /** Byte lengths, each above zero. */
  readonly lengths: number[] = [0];
  /** Valid pieces. */
  count = 0;
  /** Sum of the valid lengths. */
  lengthBytes = 0;

  /** Forgets the pieces and the arena. */
  clear(): void {
    this.memory = EMPTY;
    this.count = 0;
    this.lengthBytes = 0;
  }

  /** Makes this the one piece `[offset, offset + length)` of `memory`. */
  set(memory: Uint8Array, offset: number, length: number): void {
    this.memory = memory;
    this.count = 0;
    this.lengthBytes = 0;
    this.push(offset, length);
  }

  /** Adds a piece of the arena; one of length zero is left out. */
  push(offset: number, length: number): void {
    if (length === 0) return;
    this.offsets[this.count] = offset;
    this.lengths[this.count] = length;
    this.count++;
    this.lengthBytes += length;
  }

  /** Makes this the part `[begin, begin + length)` of `source`, in the same arena. `source` is another vector and holds it. */
  setSlice(source: IoVector, begin: number, length: number): void {
    this.memory = source.memory;
    this.count = 0;
    this.lengthBytes = 0;
    if (source.count === 1) {
      // Nearly always.
      const left = source.lengthBytes - begin;
      if (left > 0) this.push(source.offsets[0]! + begin, Math.min(left, length));
      return;
    }
    let at = 0;
    for (let i = 0; i < source.count && this.lengthBytes < length; i++) {
      const pieceLength = source.lengths[i]!;
      const from = Math.max(begin - at, 0);
      if (from < pieceLength) {
        this.push(source.offsets[i]! + from, Math.min(pieceLength - from, length - this.lengthBytes));
      }
      at += pieceLength;
    }
  }

  /** Copies `[from, from + length)` of the vector's bytes into `target` at `targetAt`; returns the bytes copied. */
  copyTo(target: Uint8Array, targetAt: number, from: number, length: number): number {
    let at = 0;
    let copied = 0;
    for (let i = 0; i < this.count && copied < length; i++) {
      const pieceLength = this.lengths[i]!;
      const skip = Math.max(from - at, 0);
      if (skip < pieceLength) {
        const take = Math.min(pieceLength - skip, length - copied);
        const begin = this.offsets[i]! + skip;
        target.set(this.memory.subarray(begin, begin + take), targetAt + copied);
        copied += take;
      }
      at += pieceLength;
    }
    return copied;
  }

  /** Copies `source[sourceAt, sourceAt + length)` to the vector's bytes at `to`; returns the bytes copied. */
  copyFrom(source: Uint8Array, sourceAt: number, to: number, length: number): number {
    let at = 0;
    let copied = 0;
    for (let i = 0; i < this.count && copied < length; i++) {
      const pieceLength = this.lengths[i]!;
      const skip = Math.max(to - at, 0);
      if (skip < pieceLength) {
        const take = Math.min(pieceLength - skip, length - copied);
        this.memory.set(source.subarray(sourceAt + copied, sourceAt + copied + take), this.offsets[i]! + skip);
        copied += take;
      }
      at += pieceLength;
    }
    return copied;
  }

  /** Zeroes `[from, from + length)` of the vector's bytes. */
  zero(from: number, length: number): void {
    let at = 0;
    let done = 0;
    for (let i = 0; i < this.count && done < length; i++) {
      const pieceLength = this.lengths[i]!;
      const skip = Math.max(from - at, 0);
      if (skip < pieceLength) {
        const take = Math.min(pieceLength - skip, length - done);
        const begin = this.offsets[i]! + skip;
        this.memory.fill(0, begin, begin + take);
        done += take;
      }
      at += pieceLength;
    }
  }
}
