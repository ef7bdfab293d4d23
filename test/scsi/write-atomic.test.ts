import { describe, expect, it } from 'vitest';
import { readU32BE } from '../../src/base/bytes.ts';
import { LunOp } from '../../src/block/lun-backend.ts';
import { FIXED_COMMANDS } from '../../src/scsi/commands.ts';
import { LogicalUnit } from '../../src/scsi/logical-unit.ts';
import { cdb10, checkCondition, GOOD, Initiator, NO_DATA, Pending, pattern, unitOptions } from './support/initiator.ts';
import { RamLun } from './support/ram-lun.ts';

const MAX_BLOCKS = 2048;

const writeAtomic = (lba: number, blocks: number, flags = 0, boundary = 0): number[] => {
  const cdb = Buffer.alloc(16);
  cdb.set([0x9c, flags]);
  cdb.writeBigUInt64BE(BigInt(lba), 2);
  cdb.writeUInt16BE(boundary, 10);
  cdb.writeUInt16BE(blocks, 12);
  return [...cdb];
};

describe('WRITE ATOMIC(16)', () => {
  it('is one atomic write of the backend, alone on its blocks', () => {
    const initiator = new Initiator();
    const reader = new Pending(initiator.nexus);
    const atomic: boolean[] = [];
    initiator.lun.beforeEffect = (request) => atomic.push(request.atomic);
    initiator.pending.start(initiator.unit, writeAtomic(3, 20), pattern(20 * 512), 0);
    reader.start(initiator.unit, cdb10(0x28, 10, 1), NO_DATA, 512);
    expect(initiator.lun.queue.map(({ op }) => op)).toEqual([LunOp.WRITE]);
    initiator.lun.drain();
    expect(initiator.pending.result()).toMatchObject(GOOD);
    expect(reader.result().data).toEqual(pattern(20 * 512).slice(7 * 512, 8 * 512));
    initiator.out(cdb10(0x2a, 0, 1), pattern(512));
    expect(atomic).toEqual([true, false, false]);
  });

  it('begins at a physical block and writes whole ones, and the block limits say so', () => {
    const initiator = new Initiator({ logicalBlocksPerPhysicalBlockExponent: 3 });
    const limits = initiator.in([0x12, 1, 0xb0, 0, 0xff, 0], 255).data;
    expect([44, 48, 52].map((at) => readU32BE(limits, at))).toEqual([MAX_BLOCKS, 8, 8]);
    expect(initiator.out(writeAtomic(8, 16), pattern(16 * 512))).toMatchObject(GOOD);
    expect(initiator.out(writeAtomic(8, 0), NO_DATA)).toMatchObject(GOOD);
    expect(initiator.out(writeAtomic(9, 8), pattern(8 * 512))).toMatchObject(checkCondition('5/24/00'));
    expect(initiator.out(writeAtomic(8, 9), pattern(9 * 512))).toMatchObject(checkCondition('5/24/00'));
  });

  it('is durable with FUA, and without a write cache', () => {
    const initiator = new Initiator();
    initiator.out(writeAtomic(0, 1, 0x18), pattern(512));
    initiator.out(writeAtomic(0, 1), pattern(512));
    const through = new Initiator({ writeCache: false });
    through.out(writeAtomic(0, 1), pattern(512));
    expect([...initiator.lun.log, ...through.lun.log].map(({ fua }) => fua)).toEqual([true, false, true]);
  });

  it('is refused past the end, above the limit, with a boundary, protection, or too little data', () => {
    const initiator = new Initiator({ sizeBytes: 4 * 1024 * 1024 });
    const last = 8192;
    for (const [lba, blocks] of [
      [last, 0],
      [last - 1, 2],
      [Number.MAX_SAFE_INTEGER, 1],
    ] as const) {
      expect(initiator.out(writeAtomic(lba, blocks), pattern(blocks * 512))).toMatchObject(checkCondition('5/21/00'));
    }
    const long = pattern((MAX_BLOCKS + 1) * 512);
    expect(initiator.out(writeAtomic(0, MAX_BLOCKS + 1), long)).toMatchObject(checkCondition('5/24/00'));
    expect(initiator.out(writeAtomic(0, 2, 0, 1), pattern(1024))).toMatchObject(checkCondition('5/24/00'));
    expect(initiator.out(writeAtomic(0, 2, 0x20), pattern(1024))).toMatchObject(checkCondition('5/24/00'));
    const short = initiator.out(writeAtomic(0, 2), pattern(512));
    expect(short).toMatchObject({ ...checkCondition('5/0e/03'), residual: -512 });
    expect(initiator.out(writeAtomic(0, 0))).toMatchObject(GOOD);
    expect(initiator.lun.log).toEqual([]);
    expect(initiator.out(writeAtomic(7, MAX_BLOCKS), long.slice(512))).toMatchObject(GOOD);
  });

  it('has its limit in VPD page B0h, and is not there where the backend does not offer it', () => {
    const limits = (initiator: Initiator): number[] => {
      const { data } = initiator.in([0x12, 1, 0xb0, 0, 64, 0], 64);
      return [44, 48, 52, 56, 60].map((at) => readU32BE(data, at));
    };
    expect(limits(new Initiator())).toEqual([MAX_BLOCKS, 0, 0, 0, 0]);
    expect(limits(new Initiator({ logicalBlockSize: 4096 }))[0]).toBe(256);
    expect(limits(new Initiator({ maxTransferBytes: 65536 }))[0]).toBe(128);
    expect(FIXED_COMMANDS.alone.find(0x9c, 0)).not.toBeNull();
    const lun = new RamLun(65536);
    lun.atomicWriteBytes = 0;
    const unit = new LogicalUnit(unitOptions(lun));
    const pending = new Pending(new Initiator().nexus);
    pending.start(unit, writeAtomic(0, 1), pattern(512), 0);
    expect(pending.result()).toMatchObject(checkCondition('5/20/00'));
  });
});
