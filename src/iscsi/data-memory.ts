import { assert } from '../base/assert.ts';
import { SlabPool } from '../block/slab.ts';

/** Who waits for memory; retries what it was refused. */
export interface MemoryUser {
  /**
   * Memory may be there. Returns false when the user was refused again because there is not enough for anybody, true when it has what it wanted or
   * waits for what it holds itself.
   */
  memoryFreed(): boolean;
}

/** Part of the memory that only data on its way in may use; see `MemoryAccount.allocateUrgent`. */
const URGENT_SHARE = 1 / 4;

/**
 * The memory that holds the data of all commands between socket and medium: one slab, an account for each connection, and a line for those
 * who were refused. First come, first served: while somebody waits, nobody else gets any.
 */
export class DataMemory {
  readonly memory: Uint8Array;
  /** The same memory, for sockets. */
  readonly buffer: Buffer;
  private readonly pool: SlabPool;
  private readonly regularBytes: number;
  private readonly waiting: MemoryUser[] = [];
  private scheduled = false;
  private serving = false;
  private readonly serveLater: () => void = () => this.serve();

  constructor(sizeBytes: number) {
    this.pool = new SlabPool(sizeBytes);
    this.memory = this.pool.memory;
    this.buffer = Buffer.from(this.memory.buffer, this.memory.byteOffset, this.memory.byteLength);
    this.regularBytes = sizeBytes * (1 - URGENT_SHARE);
  }

  get usedBytes(): number {
    return this.pool.usedBytes;
  }

  get waitingUsers(): number {
    return this.waiting.length;
  }

  /** Called by accounts. */
  allocate(lengthBytes: number, urgent: boolean): number {
    if (!urgent) {
      if (this.waiting.length > 0 && !this.serving) return -1;
      if (this.pool.usedBytes + lengthBytes > this.regularBytes) return -1;
    }
    return this.pool.allocate(lengthBytes);
  }

  /** Called by accounts. */
  free(offset: number, lengthBytes: number): void {
    this.pool.free(offset, lengthBytes);
    if (this.waiting.length > 0 && !this.scheduled) {
      this.scheduled = true;
      process.nextTick(this.serveLater);
    }
  }

  /** Puts `user` at the end of the line, once. */
  wait(user: MemoryUser): void {
    if (!this.waiting.includes(user)) this.waiting.push(user);
  }

  /** Takes `user` out of the line. */
  leave(user: MemoryUser): void {
    const index = this.waiting.indexOf(user);
    if (index >= 0) this.waiting.splice(index, 1);
  }

  private serve(): void {
    this.scheduled = false;
    this.serving = true;
    try {
      // Users that are not done wait again; `length` bounds one round.
      for (let left = this.waiting.length; left > 0; left--) {
        const user = this.waiting[0];
        if (user === undefined) return;
        if (!user.memoryFreed()) return;
        // It waits for its own, or is done: whoever is next may try.
        if (this.waiting[0] === user) this.waiting.shift();
      }
    } finally {
      this.serving = false;
    }
  }
}

/** What one connection holds of the memory, with an upper bound. */
export class MemoryAccount {
  usedBytes = 0;
  readonly shared: DataMemory;
  private readonly limitBytes: number;

  constructor(shared: DataMemory, limitBytes: number) {
    this.shared = shared;
    this.limitBytes = limitBytes;
  }

  /** Longest range that this account can ever have. */
  get longestBytes(): number {
    return this.limitBytes;
  }

  /** Offset of a contiguous range, -1 when there is none now: wait for `MemoryUser.memoryFreed`, or for `free` of an own range. */
  allocate(lengthBytes: number): number {
    if (this.usedBytes + lengthBytes > this.limitBytes) return -1;
    return this.took(this.shared.allocate(lengthBytes, false), lengthBytes);
  }

  /**
   * The same for data that is already on its way and for which the stream would have to stand still: past the line, past the bound. How much of it one
   * connection can cause is bounded by its command window and FirstBurstLength.
   */
  allocateUrgent(lengthBytes: number): number {
    return this.took(this.shared.allocate(lengthBytes, true), lengthBytes);
  }

  /** Whether a refusal of this many bytes was for what the account holds itself. */
  overdrawn(lengthBytes: number): boolean {
    return this.usedBytes + lengthBytes > this.limitBytes;
  }

  free(offset: number, lengthBytes: number): void {
    assert(this.usedBytes >= lengthBytes, 'an account gives back what it took');
    this.usedBytes -= lengthBytes;
    this.shared.free(offset, lengthBytes);
  }

  private took(offset: number, lengthBytes: number): number {
    if (offset >= 0) this.usedBytes += lengthBytes;
    return offset;
  }
}
