import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type RangeHolder, RangeLock, RangeState } from '../../src/scsi/range-lock.ts';

class Holder implements RangeHolder {
  rangeBegin = 0;
  rangeEnd = 0;
  rangeExclusive = false;
  rangeState: RangeState = RangeState.NONE;
  rangePrevious: RangeHolder | null = null;
  rangeNext: RangeHolder | null = null;
  grants = 0;
  onGrant: () => void = () => {};
  rangeGranted(): void {
    this.grants++;
    this.onGrant();
  }
}

describe('a range lock', () => {
  it('lets shared holders overlap and keeps an exclusive one alone', () => {
    const lock = new RangeLock();
    const [a, b, c] = [new Holder(), new Holder(), new Holder()];
    expect(lock.acquire(a, 0, 10, false)).toBe(true);
    expect(lock.acquire(b, 5, 15, false)).toBe(true);
    expect(lock.acquire(c, 9, 10, true)).toBe(false);
    lock.release(a);
    expect(c.grants).toBe(0);
    lock.release(b);
    expect(c.grants).toBe(1);
  });

  it('does not make neighbours wait', () => {
    const lock = new RangeLock();
    const [a, b] = [new Holder(), new Holder()];
    expect(lock.acquire(a, 0, 10, true)).toBe(true);
    expect(lock.acquire(b, 10, 20, true)).toBe(true);
  });

  it('lets nobody overtake a waiting holder that he conflicts with', () => {
    const lock = new RangeLock();
    const [reader, writer, late, elsewhere] = [new Holder(), new Holder(), new Holder(), new Holder()];
    lock.acquire(reader, 0, 10, false);
    expect(lock.acquire(writer, 0, 4, true)).toBe(false);
    expect(lock.acquire(late, 3, 5, false)).toBe(false);
    expect(lock.acquire(elsewhere, 4, 6, false)).toBe(true);
    lock.release(reader);
    expect([writer.grants, late.grants]).toEqual([1, 0]);
    lock.release(writer);
    expect(late.grants).toBe(1);
  });

  it('copes with a holder that is done at once when granted and asks again', () => {
    const lock = new RangeLock();
    const [a, b, c] = [new Holder(), new Holder(), new Holder()];
    lock.acquire(a, 0, 10, true);
    lock.acquire(b, 0, 10, true);
    lock.acquire(c, 0, 10, true);
    let again = true;
    b.onGrant = () => {
      lock.release(b);
      if (again) {
        again = false;
        expect(lock.acquire(b, 0, 10, true)).toBe(false);
      }
    };
    c.onGrant = () => lock.release(c);
    lock.release(a);
    expect([b.grants, c.grants]).toEqual([2, 1]);
    expect(lock.acquire(new Holder(), 0, 10, true)).toBe(true);
  });

  it('is safe, fair and never stuck under any sequence of requests', () => {
    const step = fc.record({
      who: fc.nat(11),
      begin: fc.nat(20),
      length: fc.integer({ min: 1, max: 8 }),
      exclusive: fc.boolean(),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 120 }), (steps) => {
        const lock = new RangeLock();
        const holders = Array.from({ length: 12 }, () => new Holder());
        const held = new Set<Holder>();
        const order: Holder[] = [];
        for (const holder of holders) holder.onGrant = () => held.add(holder);
        const conflict = (x: Holder, y: Holder): boolean =>
          x !== y && (x.rangeExclusive || y.rangeExclusive) && x.rangeBegin < y.rangeEnd && y.rangeBegin < x.rangeEnd;
        const check = (): void => {
          for (const x of held) for (const y of held) expect(conflict(x, y)).toBe(false);
          // Who waits has a reason: a conflicting holder, or a conflicting one that waits longer.
          order.forEach((waiter, i) => {
            if (held.has(waiter)) return;
            const blocked =
              [...held].some((h) => conflict(h, waiter)) || order.slice(0, i).some((o) => conflict(o, waiter));
            expect(blocked).toBe(true);
          });
        };
        for (const { who, begin, length, exclusive } of steps) {
          const holder = holders[who]!;
          if (holder.rangeState === RangeState.NONE) {
            order.push(holder);
            if (lock.acquire(holder, begin, begin + length, exclusive)) held.add(holder);
          } else if (held.has(holder)) {
            held.delete(holder);
            order.splice(order.indexOf(holder), 1);
            lock.release(holder);
          }
          check();
        }
        while (held.size > 0) {
          const [holder] = held;
          held.delete(holder!);
          order.splice(order.indexOf(holder!), 1);
          lock.release(holder!);
          check();
        }
        expect(order).toEqual([]);
      }),
      { numRuns: 300 },
    );
  });
});
