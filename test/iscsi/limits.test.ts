import { describe, expect, it } from 'vitest';
import { checkLimits, DEFAULT_LIMITS, type PortalLimits } from '../../src/iscsi/limits.ts';

describe('limits', () => {
  it('keep their promises to each other by default', () => {
    expect(checkLimits(DEFAULT_LIMITS)).toBe(DEFAULT_LIMITS);
    // What one connection can send unasked fits into the part of the memory that is for it.
    const { commandWindow, immediateCommands, firstBurstLength, slabBytes } = DEFAULT_LIMITS;
    expect((commandWindow + immediateCommands) * firstBurstLength).toBeLessThanOrEqual(slabBytes / 4);
  });

  it.each<[string, Partial<PortalLimits>]>([
    ['more logins than connections', { loginsInProgress: 300 }],
    ['more sessions than handles', { sessions: 65_535 }],
    ['no commands', { commandWindow: 0 }],
    ['PDUs below the default', { maxRecvDataSegmentLength: 4096 }],
    ['PDUs above what a header can say', { maxRecvDataSegmentLength: 2 ** 24, heldBytes: 2 ** 25 }],
    ['a burst below 512', { maxBurstLength: 256, firstBurstLength: 256 }],
    ['a first burst above a burst', { firstBurstLength: 2 ** 21 }],
    ['no R2T', { maxOutstandingR2T: 0 }],
    ['a connection that may hold more than half', { slabBytesPerConnection: 2 ** 26 }],
    ['a connection that cannot hold a burst', { slabBytesPerConnection: 2 ** 19 }],
    ['no room for one PDU that is held', { heldBytes: 1000 }],
    ['texts shorter than a PDU', { textBytes: 1000 }],
  ])('with %s are refused', (_what, change) => {
    expect(() => checkLimits({ ...DEFAULT_LIMITS, ...change })).toThrow('limits: ');
  });
});
