import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { CommandWindow } from '../../src/iscsi/command-window.ts';
import { serialAdd, serialBefore, serialDistance } from '../../src/iscsi/serial.ts';

describe('serial numbers', () => {
  it('compare around the end of their range', () => {
    fc.assert(
      fc.property(fc.nat(0xffffffff), fc.integer({ min: 1, max: 0x7fffffff }), (a, distance) => {
        const b = serialAdd(a, distance);
        expect(serialBefore(a, b)).toBe(true);
        expect(serialBefore(b, a)).toBe(false);
        expect(serialDistance(a, b)).toBe(distance);
        expect(serialAdd(b, -distance)).toBe(a);
      }),
    );
    expect(serialBefore(5, 5)).toBe(false);
  });
});

describe('the command window', () => {
  it('never goes back, never holds more than its size, and takes exactly what it says', () => {
    const start = fc.oneof(fc.nat(0xffffffff), fc.constant(0xfffffff0));
    fc.assert(
      fc.property(start, fc.array(fc.boolean(), { maxLength: 100 }), (expCmdSn, steps) => {
        const window = new CommandWindow(expCmdSn, 8);
        let { maxCmdSn } = window;
        for (const comes of steps) {
          if (comes && window.contains(window.expCmdSn)) {
            window.advance();
            window.outstanding++;
          } else if (!comes && window.outstanding > 0) window.outstanding--;
          expect(serialBefore(window.maxCmdSn, maxCmdSn)).toBe(false);
          maxCmdSn = window.maxCmdSn;
          expect(window.isClosed).toBe(window.outstanding === 8);
          expect(window.outstanding).toBeLessThanOrEqual(8);
          const open = serialDistance(window.expCmdSn, serialAdd(maxCmdSn, 1));
          for (let i = -2; i < 12; i++) {
            expect(window.contains(serialAdd(window.expCmdSn, i))).toBe(i >= 0 && i < open);
          }
        }
      }),
    );
  });
});
