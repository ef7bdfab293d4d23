import { assert } from '../base/assert.ts';
import { IoQueue } from './io-queue.ts';

/**
 * A locked range of virtual blocks of one device, held by the request that changes how they are mapped: first write,
 * breaking of sharing, discard. Whoever else wants to write or discard there waits in `waiting` and begins again from the lookup.
 */
export class Cell {
  begin = 0;
  end = 0;
  /** Position among the live cells; -1 when free. */
  index = -1;
  /** Later ones of a device have a higher one. */
  order = 0;
  readonly waiting: IoQueue = new IoQueue();
}

/**
 * The cells of one device. Few are live at a time (at most the requests in flight that change mappings), so that a scan of
 * two plain fields each is cheaper than any tree. The kernel's bio prison, without its rule that cells stay inside 1024 blocks.
 */
export class BioPrison {
  private readonly live: Cell[] = [];
  private readonly spare: Cell[] = [];
  private taken = 0;

  get busy(): boolean {
    return this.live.length !== 0;
  }

  /** The cell that overlaps `[begin, end)`, or null. */
  find(begin: number, end: number): Cell | null {
    const live = this.live;
    for (let i = 0; i < live.length; i++) {
      const cell = live[i]!;
      if (cell.begin < end && begin < cell.end) return cell;
    }
    return null;
  }

  /** A cell that was there before `cell` and overlaps it, or null. */
  findOlder({ begin, end, order }: Cell): Cell | null {
    for (const cell of this.live) if (cell.begin < end && begin < cell.end && cell.order < order) return cell;
    return null;
  }

  /**
   * Locks `[begin, end)`. Where others have cells there already, whoever takes it waits for them (`findOlder`), and everybody else for it. Who
   * takes several at one moment, of any devices, waits for older ones only, and so never for somebody who waits for him.
   */
  hold(begin: number, end: number): Cell {
    assert(begin < end, 'a cell holds at least one block');
    const cell = this.spare.pop() ?? new Cell();
    cell.begin = begin;
    cell.end = end;
    cell.order = this.taken++;
    cell.index = this.live.length;
    this.live.push(cell);
    return cell;
  }

  /** Unlocks; moves those who waited to `released`, first come first. */
  release(cell: Cell, released: IoQueue): void {
    assert(this.live[cell.index] === cell, 'a released cell is live');
    const last = this.live.pop()!;
    if (last !== cell) {
      this.live[cell.index] = last;
      last.index = cell.index;
    }
    cell.index = -1;
    released.append(cell.waiting);
    this.spare.push(cell);
  }
}
