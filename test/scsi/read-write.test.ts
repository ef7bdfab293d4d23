import { describe, expect, it } from 'vitest';
import { LunOp } from '../../src/block/lun-backend.ts';
import {
  cdb6,
  cdb10,
  cdb12,
  cdb16,
  checkCondition,
  GOOD,
  Initiator,
  MIB,
  NO_DATA,
  pattern,
} from './support/initiator.ts';

describe.each([512, 4096] as const)('READ and WRITE with blocks of %i bytes', (blockSize) => {
  const make = () => new Initiator({ logicalBlockSize: blockSize });

  it.each([
    ['6', cdb6(0x0a, 3, 2), cdb6(0x08, 3, 2)],
    ['10', cdb10(0x2a, 3, 2), cdb10(0x28, 3, 2)],
    ['12', cdb12(0xaa, 3, 2), cdb12(0xa8, 3, 2)],
    ['16', cdb16(0x8a, 3, 2), cdb16(0x88, 3, 2)],
  ])('(%s) return what was written', (_name, writeCdb, readCdb) => {
    const initiator = make();
    const data = pattern(2 * blockSize);
    expect(initiator.out(writeCdb, data)).toMatchObject({ ...GOOD, residual: 0 });
    expect(initiator.lun.data.slice(3 * blockSize, 5 * blockSize)).toEqual(data);
    expect(initiator.in(readCdb, data.length)).toMatchObject({ ...GOOD, residual: 0, data });
  });

  it('scatter and gather over several pieces of memory', () => {
    const initiator = make();
    initiator.pieces = 3;
    const data = pattern(7 * blockSize);
    expect(initiator.out(cdb10(0x2a, 1, 7), data)).toMatchObject(GOOD);
    expect(initiator.in(cdb10(0x28, 1, 7), data.length)).toMatchObject({ ...GOOD, data });
  });

  it('move nothing when the transfer length is zero', () => {
    const initiator = make();
    expect(initiator.in(cdb10(0x28, 0, 0), 0)).toMatchObject({ ...GOOD, residual: 0 });
    expect(initiator.out(cdb16(0x8a, 0, 0))).toMatchObject({ ...GOOD, residual: 0 });
    expect(initiator.lun.log).toEqual([]);
  });

  it('reach the last block and not the one behind it', () => {
    const initiator = make();
    const last = MIB / blockSize - 1;
    expect(initiator.in(cdb10(0x28, last, 1), blockSize)).toMatchObject(GOOD);
    for (const [lba, count] of [
      [last, 2],
      [last + 1, 1],
      [last + 1, 0],
      [0, last + 2],
      [0xffffffff, 1],
      [0x80000000, 1],
    ] as const) {
      const expected = checkCondition('5/21/00');
      expect(initiator.in(cdb10(0x28, lba, count), blockSize)).toMatchObject({ ...expected, residual: blockSize });
      expect(initiator.in(cdb12(0xa8, lba, count), blockSize)).toMatchObject(expected);
      expect(initiator.out(cdb16(0x8a, lba, count), new Uint8Array(blockSize))).toMatchObject(expected);
    }
  });

  it('do not wrap around at 2^64', () => {
    const initiator = make();
    const ones = [0x88, 0, ...new Array(8).fill(0xff), 0, 0, 0, 2, 0, 0];
    expect(initiator.in(ones, blockSize)).toMatchObject(checkCondition('5/21/00'));
    const long = [0x88, 0, ...new Array(8).fill(0xff), 0xff, 0xff, 0xff, 0xff, 0, 0];
    expect(initiator.in(long, blockSize)).toMatchObject(checkCondition('5/21/00'));
  });

  it('report what the initiator announced too much or too little as residual', () => {
    const initiator = make();
    const data = pattern(3 * blockSize);
    initiator.lun.data.set(data, 0);
    expect(initiator.in(cdb10(0x28, 0, 1), 2 * blockSize)).toMatchObject({
      ...GOOD,
      residual: blockSize,
      data: data.slice(0, blockSize),
    });
    expect(initiator.in(cdb10(0x28, 0, 3), 2 * blockSize)).toMatchObject({
      ...GOOD,
      residual: -blockSize,
      data: data.slice(0, 2 * blockSize),
    });
    expect(initiator.in(cdb10(0x28, 0, 3), blockSize + 100)).toMatchObject({
      ...GOOD,
      residual: 100 - 2 * blockSize,
      data: data.slice(0, blockSize + 100),
    });
    expect(initiator.in(cdb10(0x28, 0, 1), 0)).toMatchObject({ ...GOOD, residual: -blockSize, data: NO_DATA });
  });

  it('write whole blocks of what the initiator announced', () => {
    const initiator = make();
    const data = pattern(2 * blockSize, 2);
    expect(initiator.out(cdb10(0x2a, 0, 2), data, blockSize)).toMatchObject({
      ...GOOD,
      residual: -blockSize,
      dataOutLength: blockSize,
    });
    expect(initiator.lun.data.slice(0, blockSize)).toEqual(data.slice(0, blockSize));
    expect(initiator.lun.data.slice(blockSize, 2 * blockSize).every((byte) => byte === 0)).toBe(true);
    expect(initiator.out(cdb10(0x2a, 5, 1), data, 2 * blockSize)).toMatchObject({ ...GOOD, residual: blockSize });
    expect(initiator.out(cdb10(0x2a, 5, 1), NO_DATA, 0)).toMatchObject({ ...GOOD, residual: -blockSize });
  });

  it('refuse to write a part of a block, and say how much was missing', () => {
    const initiator = make();
    for (const [blocks, announced] of [
      [1, 200],
      [2, blockSize + 200],
    ] as const) {
      expect(initiator.out(cdb10(0x2a, 0, blocks), pattern(announced), announced)).toMatchObject({
        ...checkCondition('5/0e/03'),
        residual: announced - blocks * blockSize,
        dataOutLength: 0,
      });
    }
    expect(initiator.lun.log).toEqual([]);
  });

  it('that were announced the other way move nothing', () => {
    const initiator = make();
    expect(initiator.out(cdb10(0x28, 0, 1), pattern(blockSize))).toMatchObject({ ...GOOD, residual: -blockSize });
    expect(initiator.in(cdb10(0x2a, 0, 1), blockSize)).toMatchObject({ ...GOOD, residual: -blockSize, data: NO_DATA });
    expect(initiator.lun.log).toEqual([]);
  });

  it('with FUA reach the medium', () => {
    const initiator = make();
    initiator.out(cdb10(0x2a, 0, 1, 0x08), new Uint8Array(blockSize));
    initiator.out(cdb10(0x2a, 0, 1, 0x10), new Uint8Array(blockSize));
    initiator.in(cdb10(0x28, 0, 1, 0x08), blockSize);
    expect(initiator.lun.log.map(({ op, fua }) => [op, fua])).toEqual([
      [LunOp.WRITE, true],
      [LunOp.WRITE, false],
      [LunOp.FLUSH, false],
      [LunOp.READ, false],
    ]);
  });

  it('refuse protection information, pointing at the field', () => {
    const initiator = make();
    const { senseBytes, ...result } = initiator.in(cdb10(0x28, 0, 1, 0x20), blockSize);
    expect(result).toMatchObject(checkCondition('5/24/00'));
    expect([...senseBytes.slice(15, 18)]).toEqual([0xcd, 0, 1]);
  });
});

describe('READ and WRITE', () => {
  it('(6) with a transfer length of zero move 256 blocks', () => {
    const initiator = new Initiator();
    const data = pattern(256 * 512);
    expect(initiator.out(cdb6(0x0a, 1, 0), data)).toMatchObject({ ...GOOD, residual: 0 });
    const { data: returned, ...result } = initiator.in(cdb6(0x08, 1, 0), data.length);
    expect(result).toMatchObject(GOOD);
    expect(Buffer.compare(returned, data)).toBe(0);
  });

  it('refuse more than the maximum transfer length', () => {
    const initiator = new Initiator({ maxTransferBytes: 8192 });
    expect(initiator.in(cdb10(0x28, 0, 16), 8192)).toMatchObject(GOOD);
    const result = initiator.in(cdb10(0x28, 0, 17), 8704);
    expect(result).toMatchObject({ ...checkCondition('5/24/00'), residual: 8704 });
    expect([...result.senseBytes.slice(15, 18)]).toEqual([0xc0, 0, 7]);
  });

  it('turn failures of the backend into sense data', () => {
    const initiator = new Initiator();
    initiator.lun.failures.set(LunOp.READ, 'EIO');
    initiator.lun.failures.set(LunOp.WRITE, 'EIO');
    expect(initiator.in(cdb10(0x28, 0, 1), 512)).toMatchObject({ ...checkCondition('3/11/00'), data: NO_DATA });
    expect(initiator.out(cdb10(0x2a, 0, 1), new Uint8Array(512))).toMatchObject(checkCondition('3/0c/00'));
    initiator.lun.failures.set(LunOp.WRITE, 'ENOSPC');
    expect(initiator.out(cdb10(0x2a, 0, 1), new Uint8Array(512))).toMatchObject(checkCondition('7/27/07'));
    initiator.lun.failures.set(LunOp.WRITE, 'EROFS');
    expect(initiator.out(cdb10(0x2a, 0, 1), new Uint8Array(512))).toMatchObject(checkCondition('7/27/00'));
  });

  it('refuse to write on a read-only backend', () => {
    const initiator = new Initiator();
    initiator.lun.readOnly = true;
    expect(initiator.out(cdb10(0x2a, 0, 1), new Uint8Array(512))).toMatchObject({
      ...checkCondition('7/27/00'),
      dataOutLength: 0,
      residual: 512,
    });
    expect(initiator.in(cdb10(0x28, 0, 1), 512)).toMatchObject(GOOD);
  });

  it('without a write cache make every write durable', () => {
    const initiator = new Initiator({ writeCache: false });
    initiator.out(cdb10(0x2a, 0, 1), new Uint8Array(512));
    expect(initiator.lun.log[0]!.fua).toBe(true);
  });

  it('end an aborted task without going on', () => {
    const initiator = new Initiator();
    const { pending, unit, lun } = initiator;
    pending.start(unit, cdb10(0x28, 0, 1, 0x08), NO_DATA, 512);
    pending.task.aborted = true;
    lun.drain();
    expect(pending.result()).toMatchObject({ status: 0x40, data: NO_DATA, residual: 512 });
    expect(lun.log.map(({ op }) => op)).toEqual([LunOp.FLUSH]);
  });
});
