import { assert } from '../base/assert.ts';
import {
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  FALLOC_FL_ZERO_RANGE,
  type NativeRing,
  native,
  RingOp,
  RingRow,
} from '../base/native.ts';
import { type FileRequest, Step } from './file-request.ts';
import { IoQueue } from './io-request.ts';
import { LONG_READ_SIZE, LongReads } from './long-reads.ts';

/** Operations in flight at once, of all devices; what comes on top waits here. The second where locked memory is scarce. */
const RING_ENTRIES = [1024, 128];
/** How far back the table of a batch's memories is searched before an entry is repeated. */
const MEMORY_SEARCH = 4;
/** Times that completions are taken in one go while there are more. Then the event loop has its turn. */
const MAX_ROUNDS = 8;
/**
 * Times in a turn of the event loop that `submit()` delivers what is done already. Whoever awaits one cached read after the other would
 * otherwise go on in microtasks for ever, and no timer or socket would have a turn.
 */
const MAX_INLINE = 64;

const NOTHING = new Uint8Array(0);

/** Constants of this module are in the compiled code, those of another are loaded for each request. */
const { SLOT, OP, FD, OFFSET, LENGTH, MEMORY, MEMORY_OFFSET, MODE, SIZE: ROW_SIZE } = RingRow;
const { READ, WRITE, DATASYNC, PUNCH_HOLE, ZERO_RANGE } = Step;

/**
 * The io_uring of this event loop, shared by all devices on it: what they submit in one turn goes down in one system call, and comes
 * back in one callback.
 *
 * Completions of what the page cache had are there when the call returns; they are delivered before `submit()` returns. What is
 * submitted from inside a completion is started when all of the batch have been delivered, so `submit()` does not recurse.
 */
export class Uring {
  readonly #ring: NativeRing;
  readonly #entries: number;
  readonly #waiting: IoQueue<FileRequest> = new IoQueue();
  readonly #requests: (FileRequest | null)[];
  readonly #freeSlots: Int32Array;
  #freeCount: number;
  readonly #memories: Uint8Array[];
  #memoryCount = 0;
  readonly #longReads: LongReads;
  #delivering = false;
  #inlineLeft = MAX_INLINE;
  #retryScheduled = false;
  #users = 0;
  #closed = false;

  static #shared: Uring | null = null;

  /** The ring of this event loop, for one more user; null where there cannot be one. */
  static acquire(): Uring | null {
    Uring.#shared ??= Uring.#create();
    if (Uring.#shared !== null) Uring.#shared.#users++;
    return Uring.#shared;
  }

  static #create(): Uring | null {
    if (native === null) return null;
    for (const entries of RING_ENTRIES) {
      try {
        return new Uring(entries);
      } catch {
        // Not permitted, not known to this kernel, or too large: the caller has another way.
      }
    }
    return null;
  }

  private constructor(entries: number) {
    this.#ring = native!.createRing(entries, (count) => {
      this.#inlineLeft = MAX_INLINE;
      this.#completed(count);
    });
    this.#entries = entries;
    this.#requests = new Array<FileRequest | null>(entries).fill(null);
    this.#memories = new Array<Uint8Array>(entries).fill(NOTHING);
    this.#longReads = new LongReads(entries);
    this.#freeSlots = Int32Array.from({ length: entries }, (_, i) => entries - 1 - i);
    this.#freeCount = entries;
  }

  /** The user's requests have all ended. */
  release(): void {
    this.#users--;
    if (this.#users > 0) return;
    assert(this.#freeCount === this.#entries && this.#waiting.count === 0, 'a ring is released with requests in it');
    Uring.#shared = null;
    this.#closed = true;
    this.#ring.close();
  }

  /** Queues a READ, WRITE, DATASYNC, PUNCH_HOLE or ZERO_RANGE step; `request.owner` is told. */
  queue(request: FileRequest): void {
    this.#waiting.push(request);
  }

  /** A request goes on with another step: by itself, as its `submit()` is past. */
  continue(request: FileRequest): void {
    this.#waiting.push(request);
    this.submit();
  }

  /** Starts what is queued, as far as the ring has room, and delivers what is done already. */
  submit(): void {
    if (this.#waiting.count === 0 || this.#delivering) return;
    const reaps = this.#inlineLeft > 0;
    this.#start(reaps);
    if (!reaps) return;
    this.#inlineLeft--;
    this.#completed(this.#reap());
  }

  /** Takes what has completed; returns the number of pairs. */
  #reap(): number {
    const pairs = this.#ring.reap();
    this.#longReads.settle(this.#ring.results, pairs);
    return pairs;
  }

  /** `reaps`: the caller reaps afterwards, which is all that tells of what was done at once. */
  #start(reaps: boolean): void {
    let count = 0;
    const aside = reaps ? this.#longReads.aside(this.#waiting.count) : 0;
    while (this.#waiting.count > 0 && this.#freeCount > 0) {
      this.#fill(this.#waiting.shift()!, count, reaps, count < aside);
      count++;
    }
    if (count === 0) return;
    const left = this.#ring.submit(count, this.#memories, this.#memoryCount);
    this.#memories.fill(NOTHING, 0, this.#memoryCount);
    this.#memoryCount = 0;
    if (left > 0) this.#retryLater();
  }

  #fill(request: FileRequest, row: number, reaps: boolean, aside: boolean): void {
    const { queue } = this.#ring;
    const slot = this.#freeSlots[--this.#freeCount]!;
    this.#requests[slot] = request;
    const at = row * ROW_SIZE;
    const { step } = request;
    queue[at + SLOT] = slot;
    queue[at + FD] = request.fd;
    if (step === READ || step === WRITE) {
      const length = request.pieceLength;
      if (step === WRITE) queue[at + OP] = reaps && request.isQuick ? RingOp.WRITE_AT_ONCE : RingOp.WRITE;
      else if (length < LONG_READ_SIZE || !request.isCached) queue[at + OP] = RingOp.READ;
      else if (aside) queue[at + OP] = RingOp.READ_ASIDE;
      else {
        queue[at + OP] = RingOp.READ;
        if (reaps) this.#longReads.begin(slot);
      }
      queue[at + OFFSET] = request.restOffset;
      queue[at + LENGTH] = length;
      queue[at + MEMORY] = this.#memoryIndex(request.memory);
      queue[at + MEMORY_OFFSET] = request.restMemoryOffset;
    } else if (step === DATASYNC) {
      queue[at + OP] = RingOp.DATASYNC;
    } else {
      queue[at + OP] = reaps && step === ZERO_RANGE ? RingOp.ZERO_AT_ONCE : RingOp.FALLOCATE;
      queue[at + OFFSET] = request.offset;
      queue[at + LENGTH] = request.length;
      queue[at + MODE] = FALLOC_FL_KEEP_SIZE | (step === PUNCH_HOLE ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE);
    }
  }

  #memoryIndex(memory: Uint8Array): number {
    const end = this.#memoryCount;
    for (let i = end - 1; i >= 0 && i >= end - MEMORY_SEARCH; i--) if (this.#memories[i] === memory) return i;
    this.#memories[end] = memory;
    this.#memoryCount = end + 1;
    return end;
  }

  /** The kernel was short of memory: what it did not take stays in the ring and is offered again. */
  #retryLater(): void {
    if (this.#retryScheduled) return;
    this.#retryScheduled = true;
    setImmediate(() => {
      this.#retryScheduled = false;
      if (!this.#closed && this.#ring.submit(0, this.#memories, 0) > 0) this.#retryLater();
    });
  }

  /** Delivers `count` pairs of results, then what has come in the meantime, for a while. */
  #completed(count: number): void {
    this.#delivering = true;
    try {
      for (let round = 1, pairs = count; pairs > 0; round++) {
        this.#deliver(this.#ring.results, pairs);
        const again = round < MAX_ROUNDS;
        if (this.#waiting.count > 0) this.#start(again);
        pairs = again ? this.#reap() : 0;
      }
    } finally {
      this.#delivering = false;
      if (this.#waiting.count > 0 && this.#freeCount > 0) setImmediate(() => this.submit());
    }
  }

  #deliver(results: Int32Array, pairs: number): void {
    const end = 2 * pairs;
    let at = 0;
    try {
      while (at < end) {
        const slot = results[at]!;
        const result = results[at + 1]!;
        at += 2;
        const request = this.#requests[slot]!;
        this.#requests[slot] = null;
        this.#freeSlots[this.#freeCount++] = slot;
        request.owner.stepDone(request, result);
      }
    } finally {
      // A completion threw. It stops what it belongs to; the others of the batch have nothing to do with it.
      if (at < end) this.#deliverLater(results.slice(at, end));
    }
  }

  #deliverLater(results: Int32Array): void {
    setImmediate(() => {
      this.#deliver(results, results.length / 2);
      this.submit();
    });
  }
}
