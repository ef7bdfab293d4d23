import { assert } from '../base/assert.ts';
import { KIB, roundUp } from '../base/units.ts';
import { alignedMemory } from './aligned-memory.ts';

const GRANULE_SIZE = 4 * KIB;
const NONE = -1;
/** Single granules that were given back last and are handed out next, as they are. */
const KEPT_SINGLES = 256;

/**
 * A bounded arena that hands out contiguous ranges in granules of 4 KiB: memory for data in flight.
 *
 * A buddy allocator: free blocks of 2^k granules at multiples of 2^k, in one list for each k. What a range does not need of
 * its power of two is given back at once, so that nothing is lost beyond the last granule. Allocating and freeing take at most a
 * few dozen steps and allocate nothing on the heap. Who is handed -1 waits until something is freed.
 *
 * Most ranges are one granule. A few of those are kept aside instead of being merged with their buddies, which the next one would split again; they are merged
 * when a range cannot be had otherwise.
 */
export class SlabPool {
  /** The arena, aligned for O_DIRECT. Contents of a fresh range are unspecified. */
  readonly memory: Uint8Array;
  readonly sizeBytes: number;
  readonly granuleBytes: number = GRANULE_SIZE;
  readonly #granuleCount: number;
  /** First block of the list for order k, or NONE. */
  readonly #first: Int32Array;
  readonly #next: Int32Array;
  readonly #previous: Int32Array;
  /** Order of the free block that begins at a granule, or NONE. */
  readonly #order: Int8Array;
  /** 1 for every granule that is handed out. */
  readonly #used: Uint8Array;
  #usedGranules = 0;
  /** Free, and in no list. */
  readonly #kept: Int32Array = new Int32Array(KEPT_SINGLES);
  #keptCount = 0;

  /** `sizeBytes` is rounded up to granules. Pages take RAM when they are first used. */
  constructor(sizeBytes: number) {
    assert(Number.isSafeInteger(sizeBytes) && sizeBytes > 0, 'size of a slab pool is not a whole number above zero');
    this.sizeBytes = roundUp(sizeBytes, GRANULE_SIZE);
    this.memory = alignedMemory(this.sizeBytes);
    const count = this.sizeBytes / GRANULE_SIZE;
    assert(count < 2 ** 30, 'a slab pool of 4 TiB or more');
    this.#granuleCount = count;
    this.#first = new Int32Array(31).fill(NONE);
    this.#next = new Int32Array(count);
    this.#previous = new Int32Array(count);
    this.#order = new Int8Array(count).fill(NONE);
    this.#used = new Uint8Array(count);
    this.#release(0, count);
  }

  get usedBytes(): number {
    return this.#usedGranules * GRANULE_SIZE;
  }

  /** Offset of `lengthBytes` contiguous bytes in `memory`, a multiple of 4 KiB; -1 when there is no such run at the moment. */
  allocate(lengthBytes: number): number {
    assert(lengthBytes > 0, 'an empty range was asked of a slab pool');
    const need = Math.ceil(lengthBytes / GRANULE_SIZE);
    if (need > this.#granuleCount - this.#usedGranules) return -1;
    let at = NONE;
    if (need === 1 && this.#keptCount > 0) at = this.#kept[--this.#keptCount]!;
    else {
      at = this.#split(need);
      if (at === NONE && this.#keptCount > 0) {
        this.#mergeKept();
        at = this.#split(need);
      }
      if (at === NONE) return -1;
    }
    if (need === 1) this.#used[at] = 1;
    else this.#used.fill(1, at, at + need);
    this.#usedGranules += need;
    return at * GRANULE_SIZE;
  }

  /** Takes `need` granules out of the smallest free block that has them; NONE: there is none. */
  #split(need: number): number {
    const wanted = 32 - Math.clz32(need - 1);
    for (let order = wanted; order < 31; order++) {
      const at = this.#first[order]!;
      if (at === NONE) continue;
      this.#unlink(at);
      this.#release(at + need, (1 << order) - need);
      return at;
    }
    return NONE;
  }

  /** Gives back a range as it was handed out, or any part of it in whole granules. */
  free(offset: number, lengthBytes: number): void {
    const at = offset / GRANULE_SIZE;
    const count = Math.ceil(lengthBytes / GRANULE_SIZE);
    assert(Number.isInteger(at) && count > 0 && at >= 0 && at + count <= this.#granuleCount, 'free of a strange range');
    assert(this.#used[at] === 1 && this.#used[at + count - 1] === 1, 'free of what is not handed out');
    this.#usedGranules -= count;
    if (count === 1) {
      this.#used[at] = 0;
      if (this.#keptCount < KEPT_SINGLES) this.#kept[this.#keptCount++] = at;
      else this.#release(at, 1);
    } else {
      this.#used.fill(0, at, at + count);
      this.#release(at, count);
    }
  }

  #mergeKept(): void {
    while (this.#keptCount > 0) this.#release(this.#kept[--this.#keptCount]!, 1);
  }

  /** Makes `[at, at + count)` free: in the largest blocks that begin where they may, each merged with its buddies. */
  #release(at: number, count: number): void {
    let begin = at;
    let left = count;
    while (left > 0) {
      const fits = 31 - Math.clz32(left);
      const aligned = begin === 0 ? fits : 31 - Math.clz32(begin & -begin);
      const order = Math.min(fits, aligned);
      this.#merge(begin, order);
      begin += 1 << order;
      left -= 1 << order;
    }
  }

  #merge(at: number, order: number): void {
    let begin = at;
    let size = order;
    while (size < 30) {
      const buddy = begin ^ (1 << size);
      if (buddy >= this.#granuleCount || this.#order[buddy] !== size) break;
      this.#unlink(buddy);
      begin = Math.min(begin, buddy);
      size++;
    }
    const head = this.#first[size]!;
    this.#order[begin] = size;
    this.#next[begin] = head;
    this.#previous[begin] = NONE;
    if (head !== NONE) this.#previous[head] = begin;
    this.#first[size] = begin;
  }

  #unlink(at: number): void {
    const order = this.#order[at]!;
    const next = this.#next[at]!;
    const previous = this.#previous[at]!;
    if (previous === NONE) this.#first[order] = next;
    else this.#next[previous] = next;
    if (next !== NONE) this.#previous[next] = previous;
    this.#order[at] = NONE;
  }
}
