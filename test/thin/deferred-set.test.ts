import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { DeferredSet } from '../../src/thin/deferred-set.ts';

describe('DeferredSet', () => {
  it('says at once that nothing is to be waited for when nothing is under way', () => {
    const set = new DeferredSet();
    expect(set.drained(set.close())).toBe(true);
  });

  it('waits for what started before and not for what started after', () => {
    const set = new DeferredSet();
    const before = set.enter();
    const closed = set.close();
    const after = set.enter();
    expect(set.drained(closed)).toBe(false);
    set.leave(before);
    expect(set.drained(closed)).toBe(true);
    set.leave(after);
  });

  it('never says drained while something older is under way, however many epochs are open', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: 2 }), { maxLength: 400 }), (steps) => {
        const set = new DeferredSet();
        const open: { epoch: number; at: number }[] = [];
        const closed: { epoch: number; at: number }[] = [];
        steps.forEach((step, at) => {
          if (step === 0) open.push({ epoch: set.enter(), at });
          else if (step === 1 && open.length > 0) set.leave(open.splice((at * 7) % open.length, 1)[0]!.epoch);
          else if (step === 2) closed.push({ epoch: set.close(), at });
          for (const mark of closed) {
            if (open.some((io) => io.at < mark.at)) expect(set.drained(mark.epoch)).toBe(false);
          }
        });
        for (const io of open) set.leave(io.epoch);
        for (const mark of closed) expect(set.drained(mark.epoch)).toBe(true);
      }),
    );
  });
});
