import { describe, expect, it } from 'vitest';
import { ERRNOS } from '../../src/base/errors.ts';
import { FAILURE_SENSE, fieldPointer, NO_INFORMATION, NO_SKS, writeSense } from '../../src/scsi/sense.ts';

function sense(descriptor: boolean, code: number, information = NO_INFORMATION, sks = NO_SKS): number[] {
  const out = new Uint8Array(96).fill(0xee);
  const length = writeSense(out, descriptor, code, information, sks);
  expect(out.subarray(length).every((byte) => byte === 0xee || byte === 0)).toBe(true);
  return [...out.subarray(0, length)];
}

describe('sense data', () => {
  it('in fixed format has 18 bytes with key, code and qualifier', () => {
    expect(sense(false, 0x052400)).toEqual([0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x24, 0, 0, 0, 0, 0]);
  });

  it('in fixed format says VALID with an INFORMATION of 32 bits and leaves out a longer one', () => {
    expect(sense(false, 0x0e1d00, 0x01020304).slice(0, 7)).toEqual([0xf0, 0, 0x0e, 1, 2, 3, 4]);
    expect(sense(false, 0x0e1d00, 2 ** 32).slice(0, 7)).toEqual([0x70, 0, 0x0e, 0, 0, 0, 0]);
    expect(sense(false, 0x0e1d00, 0).slice(0, 7)).toEqual([0xf0, 0, 0x0e, 0, 0, 0, 0]);
  });

  it('in descriptor format has descriptors for INFORMATION and the field pointer', () => {
    expect(sense(true, 0x052100)).toEqual([0x72, 5, 0x21, 0, 0, 0, 0, 0]);
    expect(sense(true, 0x0e1d00, 2 ** 40 + 5, fieldPointer(true, 0x0102, 3))).toEqual([
      0x72, 0x0e, 0x1d, 0, 0, 0, 0, 20, 0, 10, 0x80, 0, 0, 0, 1, 0, 0, 0, 0, 5, 2, 6, 0, 0, 0xcb, 1, 2, 0,
    ]);
  });

  it('points at fields of the CDB and of the parameter list, with and without a bit', () => {
    expect(sense(false, 0x052400, NO_INFORMATION, fieldPointer(true, 2, -1)).slice(15)).toEqual([0xc0, 0, 2]);
    expect(sense(false, 0x052400, NO_INFORMATION, fieldPointer(true, 1, 0)).slice(15)).toEqual([0xc8, 0, 1]);
    expect(sense(false, 0x052600, NO_INFORMATION, fieldPointer(false, 300, 7)).slice(15)).toEqual([0x8f, 1, 44]);
  });
});

describe('the failure table', () => {
  it('gives every errno an error that an initiator does not take for success', () => {
    for (const errno of ERRNOS) {
      for (const code of [FAILURE_SENSE[errno].read, FAILURE_SENSE[errno].write]) {
        expect([2, 3, 4, 5, 7, 0xb]).toContain(code >>> 16);
        expect((code >>> 8) & 0xff).toBeGreaterThan(0);
      }
    }
  });

  it('says what initiators act on', () => {
    expect(FAILURE_SENSE.ENOSPC.write).toBe(0x072707);
    expect(FAILURE_SENSE.EROFS.write).toBe(0x072700);
    expect(FAILURE_SENSE.EIO).toEqual({ read: 0x031100, write: 0x030c00 });
    expect(FAILURE_SENSE.ENXIO.read).toBe(0x052100);
  });
});
