import type { ThinIo } from './thin-io.ts';

/** A FIFO of requests, linked through themselves: a request is in at most one. */
export class IoQueue {
  private head: ThinIo | null = null;
  private tail: ThinIo | null = null;
  count = 0;

  push(io: ThinIo): void {
    io.next = null;
    if (this.tail === null) this.head = io;
    else this.tail.next = io;
    this.tail = io;
    this.count++;
  }

  shift(): ThinIo | null {
    const io = this.head;
    if (io === null) return null;
    this.head = io.next;
    if (this.head === null) this.tail = null;
    io.next = null;
    this.count--;
    return io;
  }

  /** Moves all of `other` to the end of this one. */
  append(other: IoQueue): void {
    if (other.head === null) return;
    if (this.tail === null) this.head = other.head;
    else this.tail.next = other.head;
    this.tail = other.tail;
    this.count += other.count;
    other.head = null;
    other.tail = null;
    other.count = 0;
  }
}
