import { assert } from '../base/assert.ts';
import { roundUp } from '../base/units.ts';
import { SlabPool } from '../block/slab.ts';

/** Who waits for memory; retries what it was refused. */
export interface MemoryUser {
  /**
   * Memory may be there. Returns false when the user was refused again because there is not enough for anybody, true when it has what it wanted or
   * waits for what it holds itself.
   */
  memoryFreed(): boolean;
}

/** Part of the memory for data that comes unasked; see `MemoryAccount.allocateUrgent`. */
const URGENT_SHARE = 1 / 4;

/**
 * The memory that holds the data of all commands between socket and medium: one slab, an account for each connection, and a line for those
 * who were refused. First come, first served: while somebody waits, nobody else gets any.
 *
 * Regular memory is only ever held by a command that needs no more of it, so what is held comes back and the line moves. Urgent memory may be held by
 * a command that waits for regular memory; it has a share of its own, so that it cannot stop the line.
 */
export class DataMemory {
  readonly memory: Uint8Array;
  /** The same memory, for sockets. */
  readonly buffer: Buffer;
  private readonly pool: SlabPool;
  private readonly regularBytes: number;
  private readonly urgentBytes: number;
  private regularUsed = 0;
  private urgentUsed = 0;
  private readonly waiting: MemoryUser[] = [];
  /** How often somebody in the line got what it waited for. */
  servedCount = 0;
  private scheduled = false;
  private serving = false;
  private readonly serveLater: () => void = () => this.serve();

  constructor(sizeBytes: number) {
    this.pool = new SlabPool(sizeBytes);
    this.memory = this.pool.memory;
    this.buffer = Buffer.from(this.memory.buffer, this.memory.byteOffset, this.memory.byteLength);
    this.urgentBytes = sizeBytes * URGENT_SHARE;
    this.regularBytes = sizeBytes - this.urgentBytes;
  }

  get usedBytes(): number {
    return this.pool.usedBytes;
  }

  /** Nobody holds regular memory: who is refused now would wait for ever. */
  get isRegularFree(): boolean {
    return this.regularUsed === 0;
  }

  /** Regular memory that nobody holds. */
  get regularFreeBytes(): number {
    return this.regularBytes - this.regularUsed;
  }

  /** Users in the line. */
  get waitingCount(): number {
    return this.waiting.length;
  }

  /** Called by accounts. */
  allocate(lengthBytes: number, urgent: boolean): number {
    const cost = roundUp(lengthBytes, this.pool.granuleBytes);
    if (urgent) {
      if (this.urgentUsed + cost > this.urgentBytes) return -1;
    } else {
      if (this.waiting.length > 0 && !this.serving) return -1;
      if (this.regularUsed + cost > this.regularBytes) return -1;
    }
    const offset = this.pool.allocate(lengthBytes);
    if (offset < 0) return -1;
    if (urgent) this.urgentUsed += cost;
    else this.regularUsed += cost;
    return offset;
  }

  /** Called by accounts. */
  free(offset: number, lengthBytes: number, urgent: boolean): void {
    this.pool.free(offset, lengthBytes);
    const cost = roundUp(lengthBytes, this.pool.granuleBytes);
    if (urgent) this.urgentUsed -= cost;
    else this.regularUsed -= cost;
    if (this.waiting.length > 0) this.serveSoon();
  }

  /** Puts `user` at the end of the line, once. */
  wait(user: MemoryUser): void {
    if (!this.waiting.includes(user)) this.waiting.push(user);
  }

  /** Takes `user` out of the line. */
  leave(user: MemoryUser): void {
    const index = this.waiting.indexOf(user);
    if (index < 0) return;
    this.waiting.splice(index, 1);
    this.serveSoon();
  }

  /** Serves the line at the end of this turn of the event loop. */
  serveSoon(): void {
    if (this.scheduled) return;
    this.scheduled = true;
    process.nextTick(this.serveLater);
  }

  private serve(): void {
    this.scheduled = false;
    this.serving = true;
    try {
      for (let left = this.waiting.length; left > 0; left--) {
        const user = this.waiting[0];
        if (user === undefined || !user.memoryFreed()) return;
        this.servedCount++;
        // Done, or it waits for its own: the next one may try. (It may have left by itself.)
        if (this.waiting[0] === user) this.waiting.shift();
      }
    } finally {
      this.serving = false;
    }
  }
}

/** What one connection holds of the memory, with an upper bound on the regular kind. */
export class MemoryAccount {
  readonly shared: DataMemory;
  /** Longest range that this account can ever have. */
  readonly limitBytes: number;
  private regularUsed = 0;
  private urgentUsed = 0;

  constructor(shared: DataMemory, limitBytes: number) {
    this.shared = shared;
    this.limitBytes = limitBytes;
  }

  get usedBytes(): number {
    return this.regularUsed + this.urgentUsed;
  }

  /** Offset of a contiguous range, -1 when there is none now: wait for `MemoryUser.memoryFreed`, or for `free` of an own range. */
  allocate(lengthBytes: number): number {
    if (this.isOverdrawnBy(lengthBytes)) return -1;
    const offset = this.shared.allocate(lengthBytes, false);
    if (offset >= 0) this.regularUsed += lengthBytes;
    return offset;
  }

  /**
   * The same for data that is already on its way and for which the stream would have to stand still: past the line, past the bound. How much of it one
   * connection can cause is bounded by its command window and FirstBurstLength.
   */
  allocateUrgent(lengthBytes: number): number {
    const offset = this.shared.allocate(lengthBytes, true);
    if (offset >= 0) this.urgentUsed += lengthBytes;
    return offset;
  }

  /**
   * Whether a refusal of this many bytes was for what the account holds itself: more than its limit, or, when it holds something already, more than half of what nobody holds. So
   * the more connections want much, the less each of them gets, and something is always left for one more.
   */
  isOverdrawnBy(lengthBytes: number): boolean {
    const held = this.regularUsed;
    return held + lengthBytes > this.limitBytes || (held > 0 && held + lengthBytes > this.shared.regularFreeBytes / 2);
  }

  /** Gives back a range of `allocate`. */
  free(offset: number, lengthBytes: number): void {
    this.regularUsed -= lengthBytes;
    assert(this.regularUsed >= 0, 'an account gives back what it took');
    this.shared.free(offset, lengthBytes, false);
  }

  /** Gives back a range of `allocateUrgent`. */
  freeUrgent(offset: number, lengthBytes: number): void {
    this.urgentUsed -= lengthBytes;
    assert(this.urgentUsed >= 0, 'an account gives back what it took');
    this.shared.free(offset, lengthBytes, true);
  }
}
