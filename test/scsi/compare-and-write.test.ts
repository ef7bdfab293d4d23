import { describe, expect, it } from 'vitest';
import { LunOp } from '../../src/block/lun-backend.ts';
import { cdb10, cdb16, checkCondition, GOOD, Initiator, MIB, NO_DATA, Pending, pattern } from './support/initiator.ts';

const caw = (lba: number, blocks: number, flags = 0): number[] => {
  const cdb = cdb16(0x89, lba, 0, flags);
  cdb[13] = blocks;
  return cdb;
};

const both = (compare: Uint8Array, write: Uint8Array): Uint8Array => {
  const data = new Uint8Array(compare.length + write.length);
  data.set(compare);
  data.set(write, compare.length);
  return data;
};

describe.each([512, 4096] as const)('COMPARE AND WRITE with blocks of %i bytes', (blockSize) => {
  const limit = blockSize === 512 ? 255 : 32;

  it.each([1, 2, limit])('writes %i blocks when the medium has what was sent to compare', (blocks) => {
    const initiator = new Initiator({ logicalBlockSize: blockSize });
    const [old, next] = [pattern(blocks * blockSize, 1), pattern(blocks * blockSize, 2)];
    initiator.out(cdb10(0x2a, 1, blocks), old);
    initiator.pieces = 3;
    expect(initiator.out(caw(1, blocks), both(old, next))).toMatchObject({ ...GOOD, residual: 0 });
    expect(Buffer.compare(initiator.lun.data.subarray(blockSize, (1 + blocks) * blockSize), next)).toBe(0);
    const again = initiator.out(caw(1, blocks), both(old, next));
    expect(again).toMatchObject(checkCondition('e/1d/00'));
  });

  it('changes nothing on a miscompare and says where it is', () => {
    const initiator = new Initiator({ logicalBlockSize: blockSize });
    const old = pattern(2 * blockSize, 1);
    initiator.out(cdb10(0x2a, 0, 2), old);
    for (const at of [0, 1, blockSize - 1, blockSize, 2 * blockSize - 1]) {
      const compare = old.slice();
      compare[at]! ^= 0x10;
      const result = initiator.out(caw(0, 2), both(compare, pattern(2 * blockSize, 2)));
      expect(result).toMatchObject({ ...checkCondition('e/1d/00'), residual: 0 });
      expect(result.senseBytes[0]).toBe(0xf0);
      expect(Buffer.from(result.senseBytes).readUInt32BE(3)).toBe(at);
      expect(initiator.lun.data.slice(0, 2 * blockSize)).toEqual(old);
    }
  });

  it('compares unwritten blocks as zeroes', () => {
    const initiator = new Initiator({ logicalBlockSize: blockSize });
    const zero = new Uint8Array(blockSize);
    expect(initiator.out(caw(9, 1), both(pattern(blockSize), zero))).toMatchObject(checkCondition('e/1d/00'));
    expect(initiator.out(caw(9, 1), both(zero, pattern(blockSize)))).toMatchObject(GOOD);
  });

  it('refuses more blocks than it says in VPD page B0h', () => {
    const initiator = new Initiator({ logicalBlockSize: blockSize });
    expect(initiator.in([0x12, 1, 0xb0, 0, 64, 0], 64).data[5]).toBe(limit);
    if (limit === 255) return;
    const blocks = limit + 1;
    const result = initiator.out(caw(0, blocks), new Uint8Array(2 * blocks * blockSize));
    expect(result).toMatchObject({ ...checkCondition('5/24/00'), residual: 2 * blocks * blockSize });
    expect([...result.senseBytes.slice(15, 18)]).toEqual([0xc0, 0, 13]);
  });

  it('refuses Data-Out of another size', () => {
    const initiator = new Initiator({ logicalBlockSize: blockSize });
    for (const [blocks, length] of [
      [1, 4 * blockSize],
      [3, 4 * blockSize],
      [1, blockSize],
      [1, 0],
      [1, 2 * blockSize - 1],
    ] as const) {
      expect(initiator.out(caw(0, blocks), new Uint8Array(length))).toMatchObject(checkCondition('5/24/00'));
    }
    expect(initiator.lun.log).toEqual([]);
  });

  it('checks the range', () => {
    const initiator = new Initiator({ logicalBlockSize: blockSize });
    const end = MIB / blockSize;
    const data = new Uint8Array(4 * blockSize);
    expect(initiator.out(caw(end - 1, 2), data)).toMatchObject(checkCondition('5/21/00'));
    expect(initiator.out(caw(2 ** 52, 2), data)).toMatchObject(checkCondition('5/21/00'));
    expect(initiator.out(caw(end, 0), NO_DATA)).toMatchObject(checkCondition('5/21/00'));
    expect(initiator.out(caw(end - 1, 0), NO_DATA)).toMatchObject(GOOD);
  });
});

describe('COMPARE AND WRITE', () => {
  it('with FUA writes durably', () => {
    const initiator = new Initiator();
    const zero = new Uint8Array(512);
    initiator.out(caw(0, 1), both(zero, zero));
    initiator.out(caw(0, 1, 0x18), both(zero, zero));
    const writes = initiator.lun.log.filter(({ op }) => op === LunOp.WRITE);
    expect(writes.map(({ fua }) => fua)).toEqual([false, true]);
  });

  it('lets no other write come between its read and its write', () => {
    const initiator = new Initiator();
    const { lun, unit, nexus } = initiator;
    const [a, b] = [pattern(512, 1), pattern(512, 2)];
    const locker = new Pending(nexus);
    const writer = new Pending(nexus);
    const reader = new Pending(nexus);
    locker.start(unit, caw(4, 1), both(new Uint8Array(512), a), 0);
    expect(lun.queue.length).toBe(1);
    writer.start(unit, cdb10(0x2a, 4, 1), b, 0);
    reader.start(unit, cdb10(0x28, 3, 3), NO_DATA, 3 * 512);
    expect(lun.queue.length).toBe(1);
    lun.drain();
    expect(locker.result()).toMatchObject(GOOD);
    expect(writer.result()).toMatchObject(GOOD);
    expect(reader.result().data.slice(512, 1024)).toEqual(b);
    expect(lun.log.map(({ op }) => op)).toEqual([LunOp.READ, LunOp.WRITE, LunOp.WRITE, LunOp.READ]);
  });

  it('waits for writes in flight and lets blocks elsewhere be', () => {
    const initiator = new Initiator();
    const { lun, unit, nexus } = initiator;
    const writer = new Pending(nexus);
    const locker = new Pending(nexus);
    const elsewhere = new Pending(nexus);
    writer.start(unit, cdb10(0x2a, 0, 8), pattern(8 * 512, 1), 0);
    locker.start(unit, caw(7, 1), both(pattern(8 * 512, 1).slice(7 * 512), pattern(512, 2)), 0);
    elsewhere.start(unit, cdb10(0x2a, 8, 1), pattern(512, 3), 0);
    expect(lun.queue.length).toBe(2);
    lun.drain();
    for (const pending of [writer, locker, elsewhere]) expect(pending.result()).toMatchObject(GOOD);
  });

  it('writes nothing once its task is aborted, and lets go of its blocks', () => {
    const initiator = new Initiator();
    const { lun, unit, nexus } = initiator;
    const locker = new Pending(nexus);
    locker.start(unit, caw(0, 1), both(new Uint8Array(512), pattern(512, 1)), 0);
    locker.task.aborted = true;
    lun.drain();
    expect(locker.result()).toMatchObject({ status: 0x40, residual: 0 });
    expect(lun.data.slice(0, 512)).toEqual(new Uint8Array(512));
    expect(initiator.out(cdb10(0x2a, 0, 1), pattern(512, 1))).toMatchObject(GOOD);
  });

  it('that wait for blocks or scratch memory all get their turn', () => {
    const initiator = new Initiator();
    const { lun, unit, nexus } = initiator;
    const zero = new Uint8Array(512);
    const lockers = Array.from({ length: 40 }, (_, i) => {
      const pending = new Pending(nexus);
      pending.start(unit, caw(i % 20, 1), both(zero, pattern(512, i)), 0);
      return pending;
    });
    for (const i of [3, 9, 25]) lockers[i]!.task.aborted = true;
    lun.drain();
    const results = lockers.map((pending) => pending.result());
    expect(results.filter(({ status }) => status === 0x40).length).toBe(3);
    expect(results.filter(({ status }) => status === 0).length).toBe(20);
    expect(results.filter(({ sense }) => sense === 'e/1d/00').length).toBe(17);
  });
});

describe('ORWRITE', () => {
  it('sets bits and clears none, over several scratch buffers', () => {
    const initiator = new Initiator();
    initiator.pieces = 3;
    const blocks = 700;
    const [old, bits] = [pattern(blocks * 512, 1), pattern(blocks * 512, 2)];
    initiator.out(cdb16(0x8a, 5, blocks), old);
    expect(initiator.out(cdb16(0x8b, 5, blocks), bits)).toMatchObject({ ...GOOD, residual: 0 });
    const expected = old.map((byte, i) => byte | bits[i]!);
    expect(Buffer.compare(initiator.lun.data.subarray(5 * 512, (5 + blocks) * 512), expected)).toBe(0);
  });

  it('checks range and protection and takes FUA', () => {
    const initiator = new Initiator();
    const block = new Uint8Array(512);
    expect(initiator.out(cdb16(0x8b, 2048, 1), block)).toMatchObject(checkCondition('5/21/00'));
    expect(initiator.out(cdb16(0x8b, 2048, 0))).toMatchObject(checkCondition('5/21/00'));
    expect(initiator.out(cdb16(0x8b, 0, 0))).toMatchObject(GOOD);
    expect(initiator.out(cdb16(0x8b, 0, 1, 0x20), block)).toMatchObject(checkCondition('5/24/00'));
    expect(initiator.out(cdb16(0x8b, 0, 1, 0x18), block)).toMatchObject(GOOD);
    expect(initiator.lun.log.at(-1)).toMatchObject({ op: LunOp.WRITE, fua: true });
  });
});
