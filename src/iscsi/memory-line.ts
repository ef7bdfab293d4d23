import { assert } from '../base/assert.ts';
import type { MemoryAccount, MemoryUser } from './data-memory.ts';
import type { IscsiTask } from './iscsi-task.ts';
import type { PduParser } from './pdu-parser.ts';

export interface MemoryLineOwner {
  /** `task` has left the line with all the memory that it needs. */
  memoryGranted(task: IscsiTask): void;
  /** `task` has left the line because no memory will ever come: nobody holds any, and what there is lies in pieces. */
  memoryDenied(task: IscsiTask): void;
  /** Memory may be there for what blocks the input. Returns false when it still does. */
  unblock(): boolean;
  /** Tasks that were granted memory may wait for data that comes behind what blocks the input: that has to give up. */
  letDataThrough(): void;
}

/** Gets and gives back the memory of one connection's tasks; those for which there is none wait here, first come first served. */
export class MemoryLine implements MemoryUser {
  private readonly account: MemoryAccount;
  private readonly owner: MemoryLineOwner;
  private first: IscsiTask | null = null;
  private last: IscsiTask | null = null;
  /** Refused for what this connection holds itself: tried again when some of that is freed. */
  private waitsForOwn = false;
  private closed = false;

  constructor(account: MemoryAccount, owner: MemoryLineOwner) {
    this.account = account;
    this.owner = owner;
  }

  /** The longest data that a task can have. */
  get longestBytes(): number {
    return this.account.limitBytes;
  }

  /** Gets all the memory that the task still needs. False: there is not enough, or others were first. */
  take(task: IscsiTask): boolean {
    if (this.first !== null && this.first !== task) return false;
    const need = missing(task);
    if (need <= 0) return true;
    const offset = this.account.allocate(need);
    if (offset < 0) return false;
    const { memory } = this.account.shared;
    if (task.memoryLength > 0) {
      task.restOffset = offset;
      task.restLength = need;
      task.dataOut.push(offset, need);
      return true;
    }
    task.memoryOffset = offset;
    task.memoryLength = need;
    if (task.dataInLength > 0) task.dataIn.set(memory, offset, need);
    else task.dataOut.set(memory, offset, need);
    return true;
  }

  /** Gets room for the first `length` bytes of a write, past the line. */
  takeUrgently(task: IscsiTask, length: number): boolean {
    const offset = this.account.allocateUrgent(length);
    if (offset < 0) return false;
    task.memoryOffset = offset;
    task.memoryLength = length;
    task.memoryUrgent = true;
    task.dataOut.set(this.account.shared.memory, offset, length);
    return true;
  }

  /** All the data of a write comes with its command and stays where it comes in. False: it cannot, and needs memory. */
  takeInPlace(task: IscsiTask, parser: PduParser): boolean {
    const { place } = parser;
    if (place === null || parser.dataLength !== task.dataOutLength) return false;
    task.chunk = place.use();
    task.dataOut.set(place.bytes, parser.dataAt, parser.dataLength);
    parser.leaveInPlace();
    return true;
  }

  free(task: IscsiTask): void {
    task.chunk?.release();
    task.chunk = null;
    if (task.memoryLength > 0) {
      if (task.memoryUrgent) this.account.freeUrgent(task.memoryOffset, task.memoryLength);
      else this.account.free(task.memoryOffset, task.memoryLength);
    }
    if (task.restLength > 0) this.account.free(task.restOffset, task.restLength);
    task.memoryLength = 0;
    task.restLength = 0;
    task.dataIn.clear();
    task.dataOut.clear();
    this.ownMemoryFreed();
  }

  /** Puts a task that was refused at the end of the line. */
  stand(task: IscsiTask): void {
    task.nextInLine = null;
    if (this.last === null) this.first = task;
    else this.last.nextInLine = task;
    this.last = task;
    if (this.first === task) this.waitForFirst();
  }

  /** Takes a task out of the line. */
  leave(task: IscsiTask): void {
    let previous: IscsiTask | null = null;
    for (let each = this.first; each !== task; each = each.nextInLine) {
      assert(each !== null, 'a task that waits is in the line');
      previous = each;
    }
    if (previous === null) this.first = task.nextInLine;
    else previous.nextInLine = task.nextInLine;
    if (this.last === task) this.last = previous;
    task.nextInLine = null;
  }

  /** The input is blocked: `unblock` is called when memory may be there. */
  waitForInput(): void {
    this.waitsForOwn = true;
    this.account.shared.wait(this);
  }

  memoryFreed(): boolean {
    const served = this.serveLine();
    // Also when the line still waits: what was granted may need data that comes behind what blocks the input.
    const open = this.owner.unblock();
    if (!served) return false;
    if (this.first === null) return open;
    // Something that came in meanwhile stands in the line.
    if (!this.account.isOverdrawnBy(missing(this.first))) return false;
    this.waitsForOwn = true;
    return true;
  }

  /** False: the first of the line waits for memory that others hold. */
  private serveLine(): boolean {
    for (let task = this.first; task !== null; task = this.first) {
      if (this.take(task)) {
        this.leave(task);
        this.owner.memoryGranted(task);
      } else if (this.account.isOverdrawnBy(missing(task))) {
        this.waitsForOwn = true;
        this.owner.letDataThrough();
        return true;
      } else if (this.account.shared.isRegularFree) {
        this.leave(task);
        this.owner.memoryDenied(task);
      } else {
        this.owner.letDataThrough();
        return false;
      }
    }
    return true;
  }

  /** Some of the memory that this connection holds has been given back. */
  ownMemoryFreed(): void {
    if (!this.waitsForOwn || this.closed) return;
    this.waitsForOwn = false;
    this.account.shared.wait(this);
    this.account.shared.serveSoon();
  }

  /** Nothing waits any more. */
  close(): void {
    this.closed = true;
    this.account.shared.leave(this);
  }

  private waitForFirst(): void {
    if (this.account.isOverdrawnBy(missing(this.first!))) this.waitsForOwn = true;
    else {
      this.account.shared.wait(this);
      if (this.account.shared.isRegularFree) this.account.shared.serveSoon();
    }
  }
}

/** Bytes of memory that a task needs and does not have. */
function missing(task: IscsiTask): number {
  return Math.max(task.dataInLength, task.dataOutLength) - task.memoryLength - task.restLength;
}
