import { describe, expect, it } from 'vitest';
import { readU32BE, readU64BE } from '../../src/base/bytes.ts';
import { UnitAttention } from '../../src/scsi/unit-attention.ts';
import { checkCondition, GOOD, Initiator, MIB, senseText } from './support/initiator.ts';

const capacity16 = (length: number): number[] => [0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, length, 0, 0];

describe('TEST UNIT READY', () => {
  it('is GOOD and takes what was announced as residual', () => {
    const initiator = new Initiator();
    expect(initiator.in([0, 0, 0, 0, 0, 0], 0)).toMatchObject({ ...GOOD, residual: 0 });
    expect(initiator.in([0, 0, 0, 0, 0, 0], 77)).toMatchObject({ ...GOOD, residual: 77 });
    expect(initiator.out([0, 0, 0, 0, 0, 0], new Uint8Array(33))).toMatchObject({
      ...GOOD,
      residual: 33,
      dataOutLength: 0,
    });
  });
});

describe('REQUEST SENSE', () => {
  it('returns no sense in fixed and in descriptor format', () => {
    const initiator = new Initiator();
    const fixed = initiator.in([3, 0, 0, 0, 252, 0], 252);
    expect(fixed).toMatchObject({ ...GOOD, residual: 252 - 18 });
    expect([fixed.data[0], senseText(fixed.data)]).toEqual([0x70, '0/00/00']);
    const descriptor = initiator.in([3, 1, 0, 0, 252, 0], 252);
    expect([descriptor.data.length, descriptor.data[0], senseText(descriptor.data)]).toEqual([8, 0x72, '0/00/00']);
  });

  it('returns a unit attention as data and clears it', () => {
    const initiator = new Initiator();
    initiator.unit.raiseAttention(initiator.nexus, UnitAttention.CAPACITY_CHANGED);
    expect(senseText(initiator.in([3, 0, 0, 0, 18, 0], 18).data)).toBe('6/2a/09');
    expect(initiator.in([0, 0, 0, 0, 0, 0], 0)).toMatchObject(GOOD);
  });
});

describe('READ CAPACITY', () => {
  it('(10) and (16) return the last block and the block length', () => {
    for (const blockSize of [512, 4096] as const) {
      const initiator = new Initiator({ logicalBlockSize: blockSize, logicalBlocksPerPhysicalBlockExponent: 3 });
      const ten = initiator.in([0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], 8);
      expect(ten).toMatchObject({ ...GOOD, residual: 0 });
      expect([readU32BE(ten.data, 0), readU32BE(ten.data, 4)]).toEqual([MIB / blockSize - 1, blockSize]);
      const sixteen = initiator.in(capacity16(32), 32);
      expect(sixteen).toMatchObject({ ...GOOD, residual: 0 });
      expect([readU64BE(sixteen.data, 0), readU32BE(sixteen.data, 8)]).toEqual([MIB / blockSize - 1, blockSize]);
      expect([...sixteen.data.slice(12)]).toEqual([0, 3, 0xc0, ...new Array(17).fill(0)]);
    }
  });

  it('(10) says FFFFFFFFh when the last block does not fit', () => {
    const initiator = new Initiator();
    const { state } = initiator.unit;
    for (const [blocks, expected] of [
      [2 ** 32, 0xffffffff],
      [2 ** 32 + 1, 0xffffffff],
      [2 ** 32 - 1, 0xfffffffe],
      [2 ** 44, 0xffffffff],
    ] as const) {
      state.blockCount = blocks;
      expect(readU32BE(initiator.in([0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], 8).data, 0)).toBe(expected);
      expect(readU64BE(initiator.in(capacity16(32), 32).data, 0)).toBe(blocks - 1);
    }
  });

  it.each([0, 1, 12, 15, 31])('(16) cuts its data to an allocation length of %i', (length) => {
    expect(new Initiator().in(capacity16(length), length)).toMatchObject({ ...GOOD, residual: 0 });
  });

  it('(10) refuses the obsolete PMI and address', () => {
    const initiator = new Initiator();
    expect(initiator.in([0x25, 0, 0, 0, 0, 0, 0, 0, 1, 0], 8)).toMatchObject(checkCondition('5/24/00'));
    expect(initiator.in([0x25, 0, 1, 0, 0, 0, 0, 0, 0, 0], 8)).toMatchObject(checkCondition('5/24/00'));
  });
});

describe('REPORT LUNS of a unit that stands alone', () => {
  const reportLuns = (select: number, length: number): number[] => [0xa0, 0, select, 0, 0, 0, 0, 0, 0, length, 0, 0];

  it('lists LUN 0', () => {
    const initiator = new Initiator();
    for (const select of [0, 2]) {
      expect([...initiator.in(reportLuns(select, 64), 64).data]).toEqual([0, 0, 0, 8, ...new Array(12).fill(0)]);
    }
    expect([...initiator.in(reportLuns(1, 64), 64).data]).toEqual(new Array(8).fill(0));
    expect(initiator.in(reportLuns(3, 64), 64)).toMatchObject(checkCondition('5/24/00'));
  });

  it('says how long the list is however little of it is asked for', () => {
    expect([...new Initiator().in(reportLuns(0, 4), 16).data]).toEqual([0, 0, 0, 8]);
  });
});

describe('READ DEFECT DATA', () => {
  it('returns empty lists in the format asked for', () => {
    const initiator = new Initiator();
    expect([...initiator.in([0x37, 0, 0x1d, 0, 0, 0, 0, 0, 32, 0], 32).data]).toEqual([0, 0x1d, 0, 0]);
    expect([...initiator.in([0xb7, 0x1d, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0], 32).data]).toEqual([
      0, 0x1d, 0, 0, 0, 0, 0, 0,
    ]);
  });
});

describe('REPORT TIMESTAMP', () => {
  it('tells the time since the begin, in milliseconds', () => {
    const clock = { nowMs: () => 2 ** 40 + 5.75, setTimer: () => ({ cancel: () => {} }) };
    const timestamp = [0xa3, 0x0f, 0, 0, 0, 0, 0, 0, 0, 12, 0, 0];
    const { data } = new Initiator({ clock }).in(timestamp, 12);
    expect([...data]).toEqual([0, 10, 0, 0, 1, 0, 0, 0, 0, 5, 0, 0]);
    expect(new Initiator().in(timestamp, 12).data.length).toBe(12);
  });
});

describe('SEND DIAGNOSTIC', () => {
  it('does the default self-test and nothing else', () => {
    const initiator = new Initiator();
    expect(initiator.out([0x1d, 0x04, 0, 0, 0, 0])).toMatchObject(GOOD);
    expect(initiator.lun.log.length).toBe(2);
    expect(initiator.out([0x1d, 0x00, 0, 0, 0, 0])).toMatchObject(checkCondition('5/24/00'));
    expect(initiator.out([0x1d, 0x24, 0, 0, 0, 0])).toMatchObject(checkCondition('5/24/00'));
    expect(initiator.out([0x1d, 0x14, 0, 0, 8, 0], new Uint8Array(8))).toMatchObject(checkCondition('5/24/00'));
  });

  it('fails when the medium does', () => {
    const initiator = new Initiator();
    initiator.lun.failures.set(0, 'EIO');
    expect(initiator.out([0x1d, 0x04, 0, 0, 0, 0])).toMatchObject(checkCondition('3/11/00'));
  });
});
