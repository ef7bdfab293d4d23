import { assert } from '../base/assert.ts';
import type { IscsiTask } from './iscsi-task.ts';

/**
 * The tasks of a session by their Initiator Task Tag: open addressing with a fixed number of places, so that a command costs no allocation (a `Map`
 * keeps tombstones and rehashes). At most half of the places are in use.
 */
export class TaskTable {
  private readonly places: (IscsiTask | null)[];
  private readonly mask: number;
  private readonly capacity: number;
  count = 0;

  constructor(capacity: number) {
    let size = 16;
    while (size < capacity * 2) size *= 2;
    this.capacity = capacity;
    this.mask = size - 1;
    this.places = new Array<IscsiTask | null>(size).fill(null);
  }

  get isFull(): boolean {
    return this.count >= this.capacity;
  }

  get(tag: number): IscsiTask | null {
    for (let i = this.home(tag); ; i = (i + 1) & this.mask) {
      const task = this.places[i]!;
      if (task === null || task.tag === tag) return task;
    }
  }

  /** Its tag is not in the table. */
  add(task: IscsiTask): void {
    assert(this.count < this.capacity, 'the task table has room');
    let i = this.home(task.tag);
    while (this.places[i] !== null) {
      assert(this.places[i]!.tag !== task.tag, 'a tag is in the table once');
      i = (i + 1) & this.mask;
    }
    this.places[i] = task;
    this.count++;
  }

  remove(task: IscsiTask): void {
    let hole = this.home(task.tag);
    while (this.places[hole] !== task) {
      assert(this.places[hole] !== null, 'a task that is removed is in the table');
      hole = (hole + 1) & this.mask;
    }
    this.count--;
    // Closes the gap: whatever of the run behind it may stand here moves up.
    for (let i = (hole + 1) & this.mask; ; i = (i + 1) & this.mask) {
      const task = this.places[i]!;
      if (task === null) break;
      if (((i - this.home(task.tag)) & this.mask) >= ((i - hole) & this.mask)) {
        this.places[hole] = task;
        hole = i;
      }
    }
    this.places[hole] = null;
  }

  /** All tasks, in no order; the caller may change the table meanwhile. */
  list(): IscsiTask[] {
    return this.places.filter((task) => task !== null);
  }

  /** Initiators count tags up, or use a few bits as an index and others as an age. */
  private home(tag: number): number {
    return (Math.imul(tag, 0x9e3779b1) >>> 16) & this.mask;
  }
}
