import { describe, expect, it } from 'vitest';
import { readU32BE } from '../../src/base/bytes.ts';
import { FixedFrontEnd, maxTransferBlocks, SILENT_FRONT_END, tpgsOf } from '../../src/scsi/front-end.ts';
import { Nexus } from '../../src/scsi/nexus.ts';
import {
  cdb6,
  cdb10,
  cdb16,
  checkCondition,
  GOOD,
  Initiator,
  MIB,
  NO_DATA,
  Pending,
  pattern,
} from './support/initiator.ts';

const KIB = 1024;
const blockLimits = (initiator: Initiator): Uint8Array => initiator.in([0x12, 1, 0xb0, 0, 64, 0], 64).data;

describe('the largest transfer of a front end', () => {
  it('is what VPD page B0h says, for each of the nexuses of one unit its own', () => {
    const portal = new Initiator({ sizeBytes: 16 * MIB });
    const lio = new Nexus('tcmu,i,vol', '', 0, new FixedFrontEnd([], 64 * KIB));
    portal.unit.attach(lio, false);
    const pending = new Pending(lio);
    pending.start(portal.unit, [0x12, 1, 0xb0, 0, 64, 0], NO_DATA, 64);
    expect(readU32BE(blockLimits(portal), 8)).toBe((8 * MIB) / 512);
    expect(readU32BE(pending.result().data, 8)).toBe(128);
    pending.start(portal.unit, cdb10(0x28, 0, 129), NO_DATA, 129 * 512);
    expect(pending.result()).toMatchObject(checkCondition('5/24/00'));
    expect(portal.in(cdb10(0x28, 0, 129), 129 * 512)).toMatchObject(GOOD);
  });

  it.each([
    ['READ(6)', cdb6(0x08, 0, 0), 4],
    ['READ(10)', cdb10(0x28, 0, 65), 7],
    ['READ(16)', cdb16(0x88, 0, 65), 10],
    ['WRITE(10)', cdb10(0x2a, 0, 65), 7],
    ['WRITE(16)', cdb16(0x8a, 0, 65), 10],
    ['WRITE AND VERIFY(10)', cdb10(0x2e, 0, 65), 7],
    ['ORWRITE(16)', cdb16(0x8b, 0, 65), 10],
    ['VERIFY(10) with data', cdb10(0x2f, 0, 65, 2), 7],
    ['WRITE ATOMIC(16)', [0x9c, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 65, 0, 0], 12],
    ['COMPARE AND WRITE', [0x89, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 33, 0, 0], 13],
  ])('refuses a longer %s, pointing at its length', (_name, cdb, field) => {
    const initiator = new Initiator({ maxTransferBytes: 32 * KIB });
    const isRead = [0x08, 0x28, 0x88].includes(cdb[0]!);
    const result = isRead ? initiator.in(cdb, MIB) : initiator.out(cdb, new Uint8Array(66 * 512));
    expect(result).toMatchObject({ ...checkCondition('5/24/00'), residual: isRead ? MIB : 66 * 512 });
    expect([...result.senseBytes.slice(15, 18)]).toEqual([0xc0, 0, field]);
    expect(initiator.lun.log).toEqual([]);
  });

  it('lets what is as long through', () => {
    const initiator = new Initiator({ maxTransferBytes: 32 * KIB });
    expect(initiator.out(cdb10(0x2a, 0, 64), pattern(32 * KIB))).toMatchObject(GOOD);
    expect(initiator.in(cdb10(0x28, 0, 64), 32 * KIB)).toMatchObject({ ...GOOD, data: pattern(32 * KIB) });
    const compare = [0x89, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0];
    const half = pattern(16 * KIB);
    expect(initiator.out(compare, Buffer.concat([half, half]))).toMatchObject(GOOD);
  });

  it('bounds what else page B0h says of lengths', () => {
    const limits = (maxTransferBytes: number, options = {}): number[] => {
      const data = blockLimits(new Initiator({ maxTransferBytes, ...options }));
      // COMPARE AND WRITE, transfer, optimal transfer, atomic
      return [data[5]!, readU32BE(data, 8), readU32BE(data, 12), readU32BE(data, 44)];
    };
    const granularity = { unmapGranularityBytes: 64 * KIB };
    expect(limits(8 * MIB)).toEqual([255, 16384, 2048, 2048]);
    expect(limits(64 * KIB, granularity)).toEqual([64, 128, 128, 128]);
    // A multiple of the pool's blocks, where one fits
    expect(limits(500 * KIB, granularity)).toEqual([255, 1000, 896, 1000]);
    expect(limits(32 * KIB, granularity)).toEqual([32, 64, 64, 64]);
    // One block of COMPARE AND WRITE goes always
    expect(limits(512)).toEqual([1, 1, 1, 1]);
    // Atomic writes of whole physical blocks do not fit
    expect(limits(2 * KIB, { logicalBlocksPerPhysicalBlockExponent: 3 })[3]).toBe(0);
  });

  it('does not bound WRITE SAME, which transfers one block', () => {
    const initiator = new Initiator({ maxTransferBytes: 4096 });
    expect(initiator.out(cdb16(0x93, 0, 1024), new Uint8Array(512))).toMatchObject(GOOD);
  });

  it('has at most as many blocks as the field holds', () => {
    expect(maxTransferBlocks(new FixedFrontEnd([], 2 ** 50), 512)).toBe(0xffffffff);
  });
});

describe('the names of a unit', () => {
  it('are the same by every front end', () => {
    const portal = new Initiator();
    const lio = new Nexus('tcmu,i,vol', '', 0, new FixedFrontEnd([], 64 * KIB));
    portal.unit.attach(lio, false);
    const pending = new Pending(lio);
    const page = (code: number): [Uint8Array, Uint8Array] => {
      pending.start(portal.unit, [0x12, 1, code, 0, 255, 0], NO_DATA, 255);
      return [portal.in([0x12, 1, code, 0, 255, 0], 255).data, pending.result().data];
    };
    const [serial, serialByLio] = page(0x80);
    expect(serialByLio).toEqual(serial);
    const [names, namesByLio] = page(0x83);
    // NAA and T10 vendor; what follows is of the port, which nobody knows here
    expect(namesByLio.length).toBe(4 + 20 + 4 + 8 + 'pool/volume'.length);
    expect(namesByLio.slice(4)).toEqual(names.slice(4, namesByLio.length));
    pending.start(portal.unit, [0x12, 0, 0, 0, 96, 0], NO_DATA, 96);
    expect(pending.result().data).toEqual(portal.in([0x12, 0, 0, 0, 96, 0], 96).data);
  });
});

describe('a front end that says nothing', () => {
  it('has no groups and no ports', () => {
    expect(tpgsOf(SILENT_FRONT_END)).toBe(0);
    expect([SILENT_FRONT_END.ports, SILENT_FRONT_END.groups, SILENT_FRONT_END.ownGroup]).toEqual([[], [], -1]);
  });
});
