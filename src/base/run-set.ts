import { assert } from './assert.ts';

/** Runs in one chunk. Small enough that shifting half of it costs little, large enough that there are few chunks. */
const CHUNK_RUNS = 512;

class Chunk {
  readonly begins: Float64Array = new Float64Array(CHUNK_RUNS);
  readonly ends: Float64Array = new Float64Array(CHUNK_RUNS);
  length = 0;
}

/**
 * A set of block numbers, kept as sorted half-open runs; neighbours are merged.
 *
 * Two levels (an array of sorted chunks) keep additions in any order cheap with a million runs. Memory is 16 bytes a run.
 */
export class RunSet {
  #chunks: Chunk[] = [];
  /** An emptied chunk, for a set that goes to and fro between nothing and something. */
  #spare: Chunk | null = null;
  #count = 0;
  #runCount = 0;
  // Where the last search ended.
  #chunkAt = 0;
  #runAt = 0;

  /** Block numbers in the set. */
  get count(): number {
    return this.#count;
  }

  /** Runs in the set. */
  get runCount(): number {
    return this.#runCount;
  }

  /** Adds `[begin, end)`; what is there already stays. */
  add(begin: number, end: number): void {
    assert(begin >= 0 && end >= begin, 'RunSet.add: a run ends at or behind its begin');
    if (begin === end) return;
    let from = begin;
    let to = end;
    this.#seek(begin);
    let chunk = this.#chunks[this.#chunkAt];
    // Growing one run in place is the common case: blocks are freed and taken in order.
    if (chunk !== undefined && chunk.begins[this.#runAt]! <= end && this.#beginAfter() > end) {
      const at = this.#runAt;
      this.#count -= chunk.ends[at]! - chunk.begins[at]!;
      chunk.begins[at] = Math.min(begin, chunk.begins[at]!);
      chunk.ends[at] = Math.max(end, chunk.ends[at]!);
      this.#count += chunk.ends[at]! - chunk.begins[at]!;
      return;
    }
    while (chunk !== undefined && chunk.begins[this.#runAt]! <= end) {
      from = Math.min(from, chunk.begins[this.#runAt]!);
      to = Math.max(to, chunk.ends[this.#runAt]!);
      this.#removeHere();
      chunk = this.#chunks[this.#chunkAt];
    }
    this.#insertHere(from, to);
  }

  /** Takes `[begin, end)` out; what is not there is no matter. */
  remove(begin: number, end: number): void {
    assert(begin >= 0 && end >= begin, 'RunSet.remove: a run ends at or behind its begin');
    if (begin === end) return;
    this.#seek(begin + 1);
    for (;;) {
      const chunk = this.#chunks[this.#chunkAt];
      if (chunk === undefined) return;
      const runBegin = chunk.begins[this.#runAt]!;
      const runEnd = chunk.ends[this.#runAt]!;
      if (runBegin >= end) return;
      this.#removeHere();
      if (runEnd > end) this.#insertHere(end, runEnd);
      if (runBegin < begin) {
        this.#insertHere(runBegin, begin);
        this.#next();
      }
      if (runEnd >= end) return;
    }
  }

  has(block: number): boolean {
    this.#seek(block + 1);
    const chunk = this.#chunks[this.#chunkAt];
    return chunk !== undefined && chunk.begins[this.#runAt]! <= block;
  }

  /** The smallest block number at or behind `block` that is not in the set. */
  nextOutside(block: number): number {
    if (this.#runCount === 0) return block;
    this.#seek(block + 1);
    const chunk = this.#chunks[this.#chunkAt];
    return chunk !== undefined && chunk.begins[this.#runAt]! <= block ? chunk.ends[this.#runAt]! : block;
  }

  /** The smallest block number at or behind `block` that is in the set; infinite when there is none. */
  nextInside(block: number): number {
    if (this.#runCount === 0) return Number.POSITIVE_INFINITY;
    this.#seek(block + 1);
    const chunk = this.#chunks[this.#chunkAt];
    return chunk === undefined ? Number.POSITIVE_INFINITY : Math.max(block, chunk.begins[this.#runAt]!);
  }

  /** Calls `visit` for every run in ascending order. The set must not change meanwhile. */
  forEach(visit: (begin: number, end: number) => void): void {
    for (const chunk of this.#chunks) {
      for (let i = 0; i < chunk.length; i++) visit(chunk.begins[i]!, chunk.ends[i]!);
    }
  }

  /** Takes everything out of `other`; an empty set takes it at no cost. */
  takeAll(other: RunSet): void {
    if (this.#runCount > 0) {
      other.forEach((begin, end) => {
        this.add(begin, end);
      });
    } else {
      this.#chunks = other.#chunks;
      this.#count = other.#count;
      this.#runCount = other.#runCount;
    }
    other.clear();
  }

  clear(): void {
    this.#chunks = [];
    this.#count = 0;
    this.#runCount = 0;
  }

  /** Stands on the first run that ends at or behind `value`, or behind the last run. */
  #seek(value: number): void {
    let low = 0;
    let high = this.#chunks.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const chunk = this.#chunks[middle]!;
      if (chunk.ends[chunk.length - 1]! < value) low = middle + 1;
      else high = middle;
    }
    this.#chunkAt = low;
    this.#runAt = 0;
    const chunk = this.#chunks[low];
    if (chunk === undefined) return;
    low = 0;
    high = chunk.length - 1;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (chunk.ends[middle]! < value) low = middle + 1;
      else high = middle;
    }
    this.#runAt = low;
  }

  #next(): void {
    this.#runAt++;
    if (this.#runAt < this.#chunks[this.#chunkAt]!.length) return;
    this.#chunkAt++;
    this.#runAt = 0;
  }

  #beginAfter(): number {
    const chunk = this.#chunks[this.#chunkAt]!;
    if (this.#runAt + 1 < chunk.length) return chunk.begins[this.#runAt + 1]!;
    return this.#chunks[this.#chunkAt + 1]?.begins[0] ?? Number.POSITIVE_INFINITY;
  }

  /** Removes the run stood on; stands on the one behind it. */
  #removeHere(): void {
    const chunk = this.#chunks[this.#chunkAt]!;
    const at = this.#runAt;
    this.#count -= chunk.ends[at]! - chunk.begins[at]!;
    this.#runCount--;
    chunk.begins.copyWithin(at, at + 1, chunk.length);
    chunk.ends.copyWithin(at, at + 1, chunk.length);
    chunk.length--;
    if (chunk.length === 0) {
      this.#spare = chunk;
      this.#chunks.splice(this.#chunkAt, 1);
      this.#runAt = 0;
    } else if (at === chunk.length) {
      this.#chunkAt++;
      this.#runAt = 0;
    }
  }

  #newChunk(): Chunk {
    const chunk = this.#spare ?? new Chunk();
    this.#spare = null;
    return chunk;
  }

  /** Inserts a run in front of the one stood on; stands on the new one. */
  #insertHere(begin: number, end: number): void {
    // In front of a chunk's first run is also behind the last run of the chunk before: append there while it has room.
    if (this.#runAt === 0 && this.#chunkAt > 0 && this.#chunks[this.#chunkAt - 1]!.length < CHUNK_RUNS) {
      this.#chunkAt--;
      this.#runAt = this.#chunks[this.#chunkAt]!.length;
    } else if (this.#chunks[this.#chunkAt] === undefined) {
      this.#chunks.push(this.#newChunk());
    }
    let chunk = this.#chunks[this.#chunkAt]!;
    if (chunk.length === CHUNK_RUNS) {
      const half = CHUNK_RUNS / 2;
      const right = this.#newChunk();
      right.begins.set(chunk.begins.subarray(half));
      right.ends.set(chunk.ends.subarray(half));
      right.length = CHUNK_RUNS - half;
      chunk.length = half;
      this.#chunks.splice(this.#chunkAt + 1, 0, right);
      if (this.#runAt > half) {
        this.#chunkAt++;
        this.#runAt -= half;
        chunk = right;
      }
    }
    const at = this.#runAt;
    chunk.begins.copyWithin(at + 1, at, chunk.length);
    chunk.ends.copyWithin(at + 1, at, chunk.length);
    chunk.begins[at] = begin;
    chunk.ends[at] = end;
    chunk.length++;
    this.#count += end - begin;
    this.#runCount++;
  }
}
