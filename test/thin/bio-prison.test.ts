import { describe, expect, it } from 'vitest';
import { BioPrison } from '../../src/thin/bio-prison.ts';
import { IoQueue } from '../../src/thin/io-queue.ts';
import { ThinIo } from '../../src/thin/thin-io.ts';

const owner = { ioPhaseDone: (): void => {} };

describe('BioPrison', () => {
  it('finds a cell that overlaps and no cell that only touches', () => {
    const prison = new BioPrison();
    const cell = prison.hold(10, 20);
    expect(prison.find(19, 21)).toBe(cell);
    expect(prison.find(0, 11)).toBe(cell);
    expect(prison.find(20, 30)).toBeNull();
    expect(prison.find(0, 10)).toBeNull();
  });

  it('releases those who waited in the order in which they came', () => {
    const prison = new BioPrison();
    const cell = prison.hold(0, 1);
    const waiters = [new ThinIo(owner), new ThinIo(owner), new ThinIo(owner)];
    for (const io of waiters) cell.waiting.push(io);
    const released = new IoQueue();
    prison.release(cell, released);
    expect(prison.busy).toBe(false);
    expect([released.shift(), released.shift(), released.shift(), released.shift()]).toEqual([...waiters, null]);
  });

  it('keeps the other cells when one in the middle is released', () => {
    const prison = new BioPrison();
    const first = prison.hold(0, 1);
    const second = prison.hold(1, 2);
    const third = prison.hold(2, 3);
    prison.release(second, new IoQueue());
    expect(prison.find(1, 2)).toBeNull();
    prison.release(first, new IoQueue());
    expect(prison.find(2, 3)).toBe(third);
    expect(() => prison.release(first, new IoQueue())).toThrow('a released cell is live');
  });
});
