import type { IoVector } from '../block/io-vector.ts';

/** What commands that look into their data do with it. None of it is on the path of READ and WRITE. */

/** Offset of the first byte in which `[from, from + length)` of `vector` and the first `length` bytes of `bytes` differ; -1 when none does. */
export function firstDifference(vector: IoVector, from: number, bytes: Uint8Array, length: number): number {
  let at = 0;
  let done = 0;
  for (let i = 0; i < vector.count && done < length; i++) {
    const pieceLength = vector.lengths[i]!;
    const skip = Math.max(from - at, 0);
    if (skip < pieceLength) {
      const take = Math.min(pieceLength - skip, length - done);
      const begin = vector.offsets[i]! + skip;
      const ours = vector.memory.subarray(begin, begin + take);
      const theirs = bytes.subarray(done, done + take);
      if (Buffer.compare(ours, theirs) !== 0) {
        let j = 0;
        while (ours[j] === theirs[j]) j++;
        return done + j;
      }
      done += take;
    }
    at += pieceLength;
  }
  return -1;
}

/** Sets every bit in the first `length` bytes of `bytes` that is set in `[from, from + length)` of `vector`. */
export function orBytes(vector: IoVector, from: number, bytes: Uint8Array, length: number): void {
  let at = 0;
  let done = 0;
  const { memory } = vector;
  for (let i = 0; i < vector.count && done < length; i++) {
    const pieceLength = vector.lengths[i]!;
    const skip = Math.max(from - at, 0);
    if (skip < pieceLength) {
      const take = Math.min(pieceLength - skip, length - done);
      const begin = vector.offsets[i]! + skip;
      for (let j = 0; j < take; j++) bytes[done + j]! |= memory[begin + j]!;
      done += take;
    }
    at += pieceLength;
  }
}

/** True when all bytes of `vector` are zero. */
export function isZero(vector: IoVector): boolean {
  const { memory } = vector;
  for (let i = 0; i < vector.count; i++) {
    const begin = vector.offsets[i]!;
    const end = begin + vector.lengths[i]!;
    for (let j = begin; j < end; j++) if (memory[j] !== 0) return false;
  }
  return true;
}

/** Repeats the first `unit` bytes of `bytes` up to `length`. */
export function repeatBytes(bytes: Uint8Array, unit: number, length: number): void {
  for (let filled = unit; filled < length; filled *= 2) bytes.copyWithin(filled, 0, Math.min(filled, length - filled));
}
