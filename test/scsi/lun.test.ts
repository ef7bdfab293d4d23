import { describe, expect, it } from 'vitest';
import { decodeLun, encodeLun, MAX_LUN, NO_LUN } from '../../src/scsi/lun.ts';

describe('a logical unit number', () => {
  it('comes back from its eight bytes', () => {
    for (let lun = 0; lun <= MAX_LUN; lun++) {
      const bytes = new Uint8Array(10).fill(0xff);
      encodeLun(lun, bytes, 1);
      expect(decodeLun(bytes, 1)).toBe(lun);
    }
  });

  it('is a peripheral device below 256 and flat space from there', () => {
    const bytes = new Uint8Array(8);
    encodeLun(255, bytes, 0);
    expect([...bytes]).toEqual([0, 255, 0, 0, 0, 0, 0, 0]);
    encodeLun(256, bytes, 0);
    expect([...bytes]).toEqual([0x41, 0, 0, 0, 0, 0, 0, 0]);
  });

  it('is none for buses, levels and extended addressing', () => {
    for (const bytes of [
      [1, 0, 0, 0, 0, 0, 0, 0],
      [0x80, 0, 0, 0, 0, 0, 0, 0],
      [0xc1, 1, 0, 0, 0, 0, 0, 0],
      [0, 1, 0, 2, 0, 0, 0, 0],
      [0, 1, 0, 0, 0, 0, 0, 1],
    ]) {
      expect(decodeLun(Uint8Array.from(bytes), 0)).toBe(NO_LUN);
    }
  });
});
