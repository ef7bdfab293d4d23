import { assert } from '../base/assert.ts';

/** Bytes in RAM that exist only where something was written: chunks by index. What is not there reads as zeroes. Not bounded by itself. */
export class SparseMemory {
  readonly chunkSizeBytes: number;
  readonly #chunks: Map<number, Uint8Array> = new Map();

  constructor(chunkSizeBytes: number) {
    assert(Number.isSafeInteger(chunkSizeBytes) && chunkSizeBytes > 0, 'chunk size is not a whole number above zero');
    this.chunkSizeBytes = chunkSizeBytes;
  }

  get allocatedBytes(): number {
    return this.#chunks.size * this.chunkSizeBytes;
  }

  read(offset: number, target: Uint8Array, targetAt: number, length: number): void {
    for (let done = 0; done < length; ) {
      const { chunk, at, take } = this.#piece(offset + done, length - done);
      if (chunk === undefined) target.fill(0, targetAt + done, targetAt + done + take);
      else target.set(chunk.subarray(at, at + take), targetAt + done);
      done += take;
    }
  }

  write(offset: number, source: Uint8Array, sourceAt: number, length: number): void {
    for (let done = 0; done < length; ) {
      const { index, chunk, at, take } = this.#piece(offset + done, length - done);
      (chunk ?? this.#add(index)).set(source.subarray(sourceAt + done, sourceAt + done + take), at);
      done += take;
    }
  }

  /** The range reads as zeroes and exists. */
  zero(offset: number, length: number): void {
    for (let done = 0; done < length; ) {
      const { index, chunk, at, take } = this.#piece(offset + done, length - done);
      (chunk ?? this.#add(index)).fill(0, at, at + take);
      done += take;
    }
  }

  /** The range reads as zeroes; whole chunks cease to exist. */
  drop(offset: number, length: number): void {
    for (let done = 0; done < length; ) {
      const { index, chunk, at, take } = this.#piece(offset + done, length - done);
      if (take === this.chunkSizeBytes) this.#chunks.delete(index);
      else chunk?.fill(0, at, at + take);
      done += take;
    }
  }

  /** `[offset, +length)` holds what `[sourceOffset, +length)` of `source` does. Whole chunks that do not exist there cease to exist. The ranges do not overlap. */
  copy(source: SparseMemory, sourceOffset: number, offset: number, length: number): void {
    for (let done = 0; done < length; ) {
      const { chunk, at, take } = source.#piece(sourceOffset + done, length - done);
      if (chunk === undefined) this.drop(offset + done, take);
      else this.write(offset + done, chunk, at, take);
      done += take;
    }
  }

  /** Whether the chunk that holds `offset` exists. */
  exists(offset: number): boolean {
    return this.#chunks.has(Math.floor(offset / this.chunkSizeBytes));
  }

  /** How far from `begin`, at most to `end`, chunks exist or not as the one at `begin`. */
  sameUntil(begin: number, end: number): number {
    const size = this.chunkSizeBytes;
    const exists = this.exists(begin);
    const first = Math.floor(begin / size);
    const last = Math.ceil(end / size);
    let index = first + 1;
    if (!exists && this.#chunks.size < last - first) {
      // Fewer chunks than places to look at: a large hole costs no more than a full disk.
      index = last;
      for (const key of this.#chunks.keys()) if (key > first && key < index) index = key;
    } else {
      while (index < last && this.#chunks.has(index) === exists) index++;
    }
    return Math.min(index * size, end);
  }

  /** Drops everything from `offset` on. */
  truncate(offset: number): void {
    for (const [index, chunk] of this.#chunks) {
      const begin = index * this.chunkSizeBytes;
      if (begin >= offset) this.#chunks.delete(index);
      else if (begin + this.chunkSizeBytes > offset) chunk.fill(0, offset - begin);
    }
  }

  #piece(offset: number, length: number): { index: number; chunk: Uint8Array | undefined; at: number; take: number } {
    const index = Math.floor(offset / this.chunkSizeBytes);
    const at = offset - index * this.chunkSizeBytes;
    return { index, chunk: this.#chunks.get(index), at, take: Math.min(this.chunkSizeBytes - at, length) };
  }

  #add(index: number): Uint8Array {
    const chunk = new Uint8Array(this.chunkSizeBytes);
    this.#chunks.set(index, chunk);
    return chunk;
  }
}
