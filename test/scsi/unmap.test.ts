import { describe, expect, it } from 'vitest';
import { writeU16BE, writeU32BE, writeU64BE } from '../../src/base/bytes.ts';
import { LunOp } from '../../src/block/lun-backend.ts';
import { cdb10, checkCondition, GOOD, Initiator, MIB, pattern } from './support/initiator.ts';

function unmapList(...ranges: (readonly [number, number])[]): Uint8Array {
  const list = new Uint8Array(8 + 16 * ranges.length);
  writeU16BE(list, 0, list.length - 2);
  writeU16BE(list, 2, 16 * ranges.length);
  ranges.forEach(([lba, count], i) => {
    writeU64BE(list, 8 + 16 * i, lba);
    writeU32BE(list, 16 + 16 * i, count);
  });
  return list;
}

const unmapCdb = (length: number, flags = 0): number[] => [0x42, flags, 0, 0, 0, 0, 0, length >> 8, length & 255, 0];

describe('UNMAP', () => {
  const unmap = (initiator: Initiator, ...ranges: (readonly [number, number])[]) => {
    const list = unmapList(...ranges);
    return initiator.out(unmapCdb(list.length), list);
  };

  it('makes its blocks read as zeroes and gives whole granules back', () => {
    const initiator = new Initiator();
    initiator.out(cdb10(0x2a, 0, 128), pattern(128 * 512));
    expect(unmap(initiator, [3, 60])).toMatchObject({ ...GOOD, residual: 0 });
    expect(initiator.lun.data.subarray(3 * 512, 63 * 512).every((byte) => byte === 0)).toBe(true);
    expect(initiator.lun.data.slice(63 * 512, 128 * 512)).toEqual(pattern(128 * 512).slice(63 * 512));
    expect([...initiator.lun.mapped].sort((a, b) => a - b)).toEqual([0, 3, 4, 5, 6, 7]);
  });

  it('does one descriptor after the other, overlapping or not, and skips empty ones', () => {
    const initiator = new Initiator();
    expect(unmap(initiator, [0, 16], [100, 0], [8, 16], [MIB / 512, 0], [40, 1])).toMatchObject(GOOD);
    expect(initiator.lun.log).toEqual([
      { op: LunOp.UNMAP, offset: 0, length: 8192, fua: false },
      { op: LunOp.UNMAP, offset: 4096, length: 8192, fua: false },
      { op: LunOp.UNMAP, offset: 20480, length: 512, fua: false },
    ]);
  });

  it('takes no descriptors, and up to the number that VPD page B0h says', () => {
    const initiator = new Initiator();
    expect(initiator.out(unmapCdb(0))).toMatchObject(GOOD);
    expect(unmap(initiator)).toMatchObject(GOOD);
    const many = Array.from({ length: 256 }, (_, i) => [i, 1] as const);
    expect(unmap(initiator, ...many)).toMatchObject(GOOD);
    expect(initiator.lun.log.length).toBe(256);
    const result = unmap(initiator, ...many, [0, 1]);
    expect(result).toMatchObject(checkCondition('5/26/00'));
    expect([...result.senseBytes.slice(15, 18)]).toEqual([0x80, 0, 2]);
  });

  it('unmaps nothing when one descriptor is out of range', () => {
    const initiator = new Initiator();
    for (const bad of [
      [MIB / 512, 1],
      [MIB / 512 + 1, 0],
      [MIB / 512 - 1, 2],
      [2 ** 52, 0xffffffff],
      [0, 0xffffffff],
    ] as const) {
      expect(unmap(initiator, [0, 8], bad)).toMatchObject(checkCondition('5/21/00'));
    }
    const list = unmapList([0, 1]);
    list.fill(0xff, 8, 20);
    expect(initiator.out(unmapCdb(24), list)).toMatchObject(checkCondition('5/21/00'));
    expect(initiator.lun.log).toEqual([]);
  });

  it('ignores what does not fill a descriptor', () => {
    const initiator = new Initiator();
    const list = new Uint8Array(8 + 31);
    list.set(unmapList([16, 16]));
    writeU16BE(list, 0, list.length - 2);
    writeU16BE(list, 2, 31);
    list.fill(0xff, 24);
    expect(initiator.out(unmapCdb(list.length), list)).toMatchObject(GOOD);
    expect(initiator.lun.log.length).toBe(1);
  });

  it('refuses lists whose lengths do not agree', () => {
    const initiator = new Initiator();
    const list = unmapList([0, 1]);
    expect(initiator.out(unmapCdb(7), list)).toMatchObject(checkCondition('5/1a/00'));
    expect(initiator.out(unmapCdb(24), list.slice(0, 23))).toMatchObject({
      ...checkCondition('5/1a/00'),
      residual: 23,
    });
    expect(initiator.out(unmapCdb(23), list)).toMatchObject(checkCondition('5/26/00'));
    const short = unmapList([0, 1]);
    writeU16BE(short, 0, 21);
    expect(initiator.out(unmapCdb(24), short)).toMatchObject(checkCondition('5/26/00'));
    expect(initiator.lun.log).toEqual([]);
  });

  it('with ANCHOR zeroes the blocks and leaves them mapped', () => {
    const initiator = new Initiator();
    initiator.lun.data.fill(7);
    expect(initiator.out(unmapCdb(24, 1), unmapList([3, 20]))).toMatchObject(GOOD);
    expect(initiator.lun.log.map(({ op }) => op)).toEqual([LunOp.WRITE_ZEROES]);
    expect(initiator.lun.data.slice(3 * 512, 23 * 512).every((byte) => byte === 0)).toBe(true);
    expect([...initiator.lun.mapped]).toEqual([0, 1]);
  });

  it('is refused on a write-protected unit', () => {
    const initiator = new Initiator();
    initiator.lun.readOnly = true;
    expect(unmap(initiator, [0, 1])).toMatchObject(checkCondition('7/27/00'));
  });

  it('fails as a whole when the backend does', () => {
    const initiator = new Initiator();
    initiator.lun.failures.set(LunOp.UNMAP, 'EIO');
    expect(unmap(initiator, [0, 1], [2, 1])).toMatchObject(checkCondition('3/0c/00'));
    expect(initiator.lun.log.length).toBe(1);
  });

  it('without a write cache is durable', () => {
    const initiator = new Initiator({ writeCache: false });
    unmap(initiator, [0, 1], [2, 1]);
    expect(initiator.lun.log.map(({ op }) => op)).toEqual([LunOp.UNMAP, LunOp.UNMAP, LunOp.FLUSH]);
  });
});
