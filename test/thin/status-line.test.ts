import { describe, expect, it } from 'vitest';
import { KIB } from '../../src/base/units.ts';
import { type PoolStatusFields, poolStatusLine, thinStatusLine } from '../../src/thin/status-line.ts';

/** What the kernel said of a fresh pool with 1024 blocks of 64 KiB and 8 MiB of metadata. */
const FRESH: PoolStatusFields = {
  mode: 'write',
  transactionId: 0,
  blockSizeBytes: 64 * KIB,
  usedMetadataBlocks: 213,
  metadataBlocks: 2048,
  usedDataBlocks: 0,
  dataBlocks: 1024,
  heldRoot: 0,
  ignoreDiscard: false,
  discardPassdown: true,
  failsWhenFull: false,
  needsCheck: false,
  metadataLowThresholdBlocks: 512,
};

describe('the status line of a pool', () => {
  it('is what the kernel prints, with the space at its end', () => {
    expect(poolStatusLine(FRESH)).toBe(
      '0 131072 thin-pool 0 213/2048 0/1024 - rw discard_passdown queue_if_no_space - 512 ',
    );
  });

  it.each([
    [{ mode: 'out-of-data-space' }, '213/2048 0/1024 - out_of_data_space discard_passdown queue_if_no_space - 512 '],
    [{ mode: 'out-of-metadata-space' }, '213/2048 0/1024 - ro discard_passdown queue_if_no_space - 512 '],
    [{ mode: 'read-only', needsCheck: true }, '- ro discard_passdown queue_if_no_space needs_check 512 '],
    [{ heldRoot: 77, transactionId: 5 }, 'thin-pool 5 213/2048 0/1024 77 rw discard_passdown queue_if_no_space - 512 '],
    [{ discardPassdown: false }, '- rw no_discard_passdown queue_if_no_space - 512 '],
    [{ ignoreDiscard: true, failsWhenFull: true }, '- rw ignore_discard error_if_no_space - 512 '],
    [{ mode: 'fail' }, '0 131072 thin-pool Fail'],
  ] as const)('of %j ends with %j', (fields, end) => {
    const line = poolStatusLine({ ...FRESH, ...fields });
    expect(line.slice(-end.length)).toBe(end);
  });
});

describe('the status line of a thin device', () => {
  const device = { mode: 'write', blockSizeBytes: 64 * KIB, sizeBytes: 64 * 1024 * KIB } as const;

  it('says how many sectors are mapped, and which is the last', () => {
    expect(thinStatusLine({ ...device, mappedBlocks: 6, highestMappedBlock: 100 })).toBe('0 131072 thin 768 12927');
    expect(thinStatusLine({ ...device, mappedBlocks: 0, highestMappedBlock: -1 })).toBe('0 131072 thin 0 -');
    expect(thinStatusLine({ ...device, mode: 'fail', mappedBlocks: 0, highestMappedBlock: -1 })).toBe(
      '0 131072 thin Fail',
    );
  });
});
