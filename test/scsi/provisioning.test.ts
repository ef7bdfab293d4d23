import { describe, expect, it } from 'vitest';
import { readU16BE, readU32BE, writeU16BE, writeU32BE } from '../../src/base/bytes.ts';
import { LunOp } from '../../src/block/lun-backend.ts';
import { cdb10, checkCondition, GOOD, Initiator, MIB, pattern } from './support/initiator.ts';

const B0 = [0x12, 1, 0xb0, 0, 255, 0];
const B2 = [0x12, 1, 0xb2, 0, 255, 0];
const READ_CAPACITY_16 = [0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0];
const GET_LBA_STATUS = [0x9e, 0x12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 24, 0, 0];
const supported = (opcode: number): number[] => [0xa3, 0x0c, 1, opcode, 0, 0, 0, 0, 1, 0, 0, 0];

const UNMAP_LIST = new Uint8Array(24);
writeU16BE(UNMAP_LIST, 0, 22);
writeU16BE(UNMAP_LIST, 2, 16);
writeU32BE(UNMAP_LIST, 16, 16);
const UNMAP = [0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0];
const WRITE_SAME_10 = (unmap: boolean): number[] => [0x41, unmap ? 8 : 0, 0, 0, 0, 0, 0, 0, 16, 0];
const WRITE_SAME_16 = (unmap: boolean): number[] => [0x93, unmap ? 8 : 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0];
const ZEROES = new Uint8Array(512);

describe('a unit whose backend does not offer UNMAP', () => {
  const make = (): Initiator => new Initiator({ unmapGranularityBytes: 0 });

  it('is not thin for its initiators', () => {
    const initiator = make();
    expect([...initiator.in(B2, 255).data.slice(4)]).toEqual([0, 0, 0, 0]);
    expect(initiator.in(READ_CAPACITY_16, 32).data[14]).toBe(0);
    const limits = initiator.in(B0, 255).data;
    expect([20, 24, 28, 32].map((at) => readU32BE(limits, at))).toEqual([0, 0, 0, 0]);
    expect(readU32BE(limits, 12)).toBe(2048);
  });

  it('does not know UNMAP, and WRITE SAME not with UNMAP', () => {
    const initiator = make();
    expect(initiator.out(UNMAP, UNMAP_LIST)).toMatchObject(checkCondition('5/20/00'));
    for (const cdb of [WRITE_SAME_10(true), WRITE_SAME_16(true)]) {
      const result = initiator.out(cdb, ZEROES);
      expect(result).toMatchObject(checkCondition('5/24/00'));
      expect([...result.senseBytes.slice(15, 18)]).toEqual([0xcb, 0, 1]);
    }
    expect(initiator.lun.log).toEqual([]);
    for (const cdb of [WRITE_SAME_10(false), WRITE_SAME_16(false)]) {
      expect(initiator.out(cdb, ZEROES)).toMatchObject(GOOD);
    }
  });

  it('says so in REPORT SUPPORTED OPERATION CODES', () => {
    const initiator = make();
    const offered = new Initiator();
    expect(offered.in(supported(0x42), 256).data[1]! & 7).toBe(3);
    expect(initiator.in(supported(0x42), 256).data[1]! & 7).toBe(1);
    expect(offered.in(supported(0x41), 256).data[5]).toBe(0x18);
    expect(initiator.in(supported(0x41), 256).data[5]).toBe(0);
  });

  it('still answers GET LBA STATUS, and everything else', () => {
    const initiator = make();
    expect(initiator.out(cdb10(0x2a, 0, 16), pattern(16 * 512))).toMatchObject(GOOD);
    expect(initiator.in(GET_LBA_STATUS, 24)).toMatchObject(GOOD);
  });
});

describe('a unit whose unmapped blocks may read as anything', () => {
  const make = (): Initiator => {
    const initiator = new Initiator();
    initiator.lun.unmappedReadsZeroes = false;
    return initiator;
  };

  it('is thin, without LBPRZ', () => {
    const initiator = make();
    expect([...initiator.in(B2, 255).data.slice(4)]).toEqual([0, 0xe2, 2, 0]);
    expect(initiator.in(READ_CAPACITY_16, 32).data[14]).toBe(0x80);
  });

  it('unmaps, and writes zeroes where they have to be zeroes', () => {
    const initiator = make();
    expect(initiator.out(UNMAP, UNMAP_LIST)).toMatchObject(GOOD);
    expect(initiator.out(WRITE_SAME_16(true), ZEROES)).toMatchObject(GOOD);
    expect(initiator.lun.log.map(({ op }) => op)).toEqual([LunOp.UNMAP, LunOp.WRITE_ZEROES]);
  });
});

describe.each(['EROFS', 'ENOSPC'] as const)('a unit that cannot unmap at the moment (%s)', (errno) => {
  const make = (): Initiator => {
    const initiator = new Initiator();
    initiator.out(cdb10(0x2a, 0, 16), pattern(16 * 512));
    initiator.lun.log.length = 0;
    initiator.lun.failures.set(LunOp.UNMAP, errno);
    return initiator;
  };

  it('lets UNMAP do nothing', () => {
    const initiator = make();
    expect(initiator.out(UNMAP, UNMAP_LIST)).toMatchObject(GOOD);
    expect(initiator.lun.data.slice(0, 16 * 512)).toEqual(pattern(16 * 512));
  });

  it('writes the zeroes of WRITE SAME instead, or says why not', () => {
    const initiator = make();
    expect(initiator.out(WRITE_SAME_16(true), ZEROES)).toMatchObject(GOOD);
    expect(initiator.lun.log.map(({ op }) => op)).toEqual([LunOp.UNMAP, LunOp.WRITE_ZEROES]);
    expect(initiator.lun.data.slice(0, 16 * 512)).toEqual(new Uint8Array(16 * 512));
    initiator.lun.failures.set(LunOp.WRITE_ZEROES, 'EROFS');
    expect(initiator.out(WRITE_SAME_16(true), ZEROES)).toMatchObject(checkCondition('7/27/00'));
    initiator.lun.failures.set(LunOp.UNMAP, 'EIO');
    expect(initiator.out(UNMAP, UNMAP_LIST).sense).toMatch(/^[34]\//);
  });
});

describe('block limits', () => {
  it.each([
    // granularity in KiB, OPTIMAL TRANSFER LENGTH GRANULARITY, OPTIMAL TRANSFER LENGTH, OPTIMAL UNMAP GRANULARITY
    [64, 128, 2048, 128],
    [192, 384, 1920, 384],
    [448, 896, 1792, 896],
    [5 * 1024 + 64, 10368, 10368, 10368],
    [32 * 1024, 0, 2048, 65536],
    [1024 * 1024, 0, 2048, 2097152],
  ])('of blocks of %i KiB fit them', (kib, transferGranularity, transfer, unmapGranularity) => {
    const initiator = new Initiator({ unmapGranularityBytes: kib * 1024, maxTransferBytes: 8 * MIB });
    const limits = initiator.in(B0, 255).data;
    expect([readU16BE(limits, 6), readU32BE(limits, 12), readU32BE(limits, 28)]).toEqual([
      transferGranularity,
      transfer,
      unmapGranularity,
    ]);
  });
});
