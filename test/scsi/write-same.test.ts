import { describe, expect, it } from 'vitest';
import { LunOp } from '../../src/block/lun-backend.ts';
import { cdb10, cdb16, checkCondition, GOOD, Initiator, MIB, NO_DATA, Pending, pattern } from './support/initiator.ts';

const UNMAP = 0x08;
const NDOB = 0x01;
const ANCHOR = 0x10;

describe.each([512, 4096] as const)('WRITE SAME with blocks of %i bytes', (blockSize) => {
  const end = MIB / blockSize;
  const make = (options = {}): Initiator => new Initiator({ logicalBlockSize: blockSize, ...options });
  const zero = new Uint8Array(blockSize);

  it.each([
    ['10', (lba: number, count: number) => cdb10(0x41, lba, count)],
    ['16', (lba: number, count: number) => cdb16(0x93, lba, count)],
  ])('(%s) writes its block over the range', (_name, cdb) => {
    const initiator = make();
    const block = pattern(blockSize, 3);
    for (const [lba, count] of [
      [0, 1],
      [end - 1, 1],
      [3, 130],
    ] as const) {
      initiator.lun.data.fill(0xee);
      expect(initiator.out(cdb(lba, count), block)).toMatchObject({ ...GOOD, residual: 0, dataOutLength: blockSize });
      for (let i = 0; i < end; i++) {
        const is = initiator.lun.data.subarray(i * blockSize, (i + 1) * blockSize);
        const inside = i >= lba && i < lba + count;
        expect(inside ? Buffer.compare(is, block) === 0 : is.every((byte) => byte === 0xee)).toBe(true);
      }
    }
  });

  it('writes zeroes as one request that leaves the blocks mapped', () => {
    const initiator = make();
    expect(initiator.out(cdb10(0x41, 2, 100), zero)).toMatchObject(GOOD);
    expect(initiator.lun.log).toEqual([
      { op: LunOp.WRITE_ZEROES, offset: 2 * blockSize, length: 100 * blockSize, fua: false },
    ]);
  });

  it('with UNMAP and zeroes unmaps as one request', () => {
    const initiator = make();
    expect(initiator.out(cdb10(0x41, 2, 100, UNMAP), zero)).toMatchObject(GOOD);
    expect(initiator.lun.log).toEqual([
      { op: LunOp.UNMAP, offset: 2 * blockSize, length: 100 * blockSize, fua: false },
    ]);
  });

  it('with UNMAP and a block that is not zero writes it', () => {
    const initiator = make();
    const block = new Uint8Array(blockSize);
    block[blockSize - 1] = 1;
    expect(initiator.out(cdb16(0x93, 0, 3, UNMAP), block)).toMatchObject(GOOD);
    expect(initiator.lun.data[3 * blockSize - 1]).toBe(1);
    expect(initiator.lun.log.map(({ op }) => op)).toEqual([LunOp.WRITE]);
  });

  it('(16) with NDOB takes no block and means zeroes', () => {
    const initiator = make();
    initiator.lun.data.fill(0xee);
    expect(initiator.out(cdb16(0x93, 4, 4, NDOB))).toMatchObject({ ...GOOD, residual: 0 });
    expect(initiator.out(cdb16(0x93, 8, 4, NDOB | UNMAP), zero)).toMatchObject({
      ...GOOD,
      residual: blockSize,
      dataOutLength: 0,
    });
    expect(initiator.lun.log.map(({ op }) => op)).toEqual([LunOp.WRITE_ZEROES, LunOp.UNMAP]);
    expect(initiator.lun.data.subarray(4 * blockSize, 12 * blockSize).every((byte) => byte === 0)).toBe(true);
  });

  it('(10) does not know NDOB', () => {
    expect(make().out(cdb10(0x41, 0, 1, NDOB))).toMatchObject(checkCondition('5/24/00'));
  });

  it('of no blocks goes up to the end', () => {
    const initiator = make();
    expect(initiator.out(cdb10(0x41, end - 5, 0, UNMAP), zero)).toMatchObject(GOOD);
    expect(initiator.out(cdb16(0x93, 0, 0), zero)).toMatchObject(GOOD);
    expect(initiator.lun.log.map(({ offset, length }) => [offset, length])).toEqual([
      [(end - 5) * blockSize, 5 * blockSize],
      [0, MIB],
    ]);
  });

  it('refuses more than the maximum write same length, said or implied', () => {
    const initiator = make({ maxWriteSameBytes: 16 * blockSize });
    expect(initiator.out(cdb16(0x93, 0, 16), zero)).toMatchObject(GOOD);
    expect(initiator.out(cdb16(0x93, end - 16, 0), zero)).toMatchObject(GOOD);
    const result = initiator.out(cdb16(0x93, 0, 17), zero);
    expect(result).toMatchObject({ ...checkCondition('5/24/00'), residual: blockSize });
    expect([...result.senseBytes.slice(15, 18)]).toEqual([0xc0, 0, 10]);
    expect(initiator.out(cdb10(0x41, end - 17, 0), zero)).toMatchObject(checkCondition('5/24/00'));
  });

  it('checks the range', () => {
    const initiator = make();
    for (const [lba, count] of [
      [end, 0],
      [end + 1, 0],
      [end, 1],
      [end - 1, 2],
      [0x80000000, 0],
      [0xffffffff, 0],
    ] as const) {
      expect(initiator.out(cdb10(0x41, lba, count), zero)).toMatchObject(checkCondition('5/21/00'));
      expect(initiator.out(cdb16(0x93, lba, count), zero)).toMatchObject(checkCondition('5/21/00'));
    }
  });

  it('refuses Data-Out that is not one block', () => {
    const initiator = make();
    for (const length of [0, blockSize / 2, blockSize + 1, 2 * blockSize]) {
      expect(initiator.out(cdb10(0x41, 0, 1, UNMAP), new Uint8Array(length))).toMatchObject(checkCondition('5/24/00'));
    }
    expect(initiator.lun.log).toEqual([]);
  });

  it('with ANCHOR and UNMAP zeroes the blocks and leaves them mapped', () => {
    const initiator = make();
    initiator.lun.data.fill(9, 0, 3 * blockSize);
    for (const cdb of [cdb10(0x41, 0, 1, ANCHOR | UNMAP), cdb16(0x93, 1, 1, ANCHOR | UNMAP)]) {
      expect(initiator.out(cdb, zero)).toMatchObject(GOOD);
    }
    expect(initiator.lun.log.map(({ op }) => op)).toEqual([LunOp.WRITE_ZEROES, LunOp.WRITE_ZEROES]);
    expect(initiator.lun.data.slice(0, 2 * blockSize).every((byte) => byte === 0)).toBe(true);
    expect(initiator.lun.data[2 * blockSize]).toBe(9);
  });

  it('refuses ANCHOR without UNMAP, and protection information', () => {
    const initiator = make();
    for (const flags of [ANCHOR, 0x20, 0x40, 0x80, 0x02, 0x04]) {
      expect(initiator.out(cdb10(0x41, 0, 1, flags), zero)).toMatchObject(checkCondition('5/24/00'));
      expect(initiator.out(cdb16(0x93, 0, 1, flags), zero)).toMatchObject(checkCondition('5/24/00'));
    }
  });

  it('without a write cache is durable', () => {
    const initiator = make({ writeCache: false });
    initiator.out(cdb10(0x41, 0, 1), zero);
    initiator.out(cdb10(0x41, 0, 1, UNMAP), zero);
    initiator.out(cdb10(0x41, 0, 1), pattern(blockSize));
    expect(initiator.lun.log.map(({ op, fua }) => [op, fua])).toEqual([
      [LunOp.WRITE_ZEROES, true],
      [LunOp.UNMAP, true],
      [LunOp.FLUSH, false],
      [LunOp.WRITE, true],
    ]);
  });

  it('stops between two pieces when its task is aborted', () => {
    const initiator = make();
    const { pending, unit, lun } = initiator;
    pending.start(unit, cdb16(0x93, 0, end), pattern(blockSize), 0);
    lun.completeOne(0);
    pending.task.aborted = true;
    lun.drain();
    expect(pending.result().status).toBe(0x40);
    expect(lun.log.length).toBe(2);
  });

  it('of several pieces is seen before or after it, not between', () => {
    const initiator = make();
    const { pending, unit, lun, nexus } = initiator;
    const block = pattern(blockSize, 7);
    pending.start(unit, cdb16(0x93, 0, end), block, 0);
    const reader = new Pending(nexus);
    reader.start(unit, cdb10(0x28, 0, end), NO_DATA, MIB);
    lun.completeOne(0);
    expect(lun.queue.length).toBe(1);
    lun.drain();
    const { data } = reader.result();
    for (let at = 0; at < MIB; at += blockSize) {
      if (Buffer.compare(data.subarray(at, at + blockSize), block) !== 0) expect.fail(`torn at ${at}`);
    }
  });

  it('is refused before its data is looked at on a write-protected unit', () => {
    const initiator = make();
    initiator.lun.readOnly = true;
    expect(initiator.out(cdb10(0x41, 0, 1, UNMAP), NO_DATA)).toMatchObject(checkCondition('7/27/00'));
  });
});
