import { describe, expect, it } from 'vitest';
import { readU32BE, readU64BE } from '../../src/base/bytes.ts';
import { LunOp } from '../../src/block/lun-backend.ts';
import { cdb16, checkCondition, GOOD, Initiator, MIB } from './support/initiator.ts';

const getLbaStatus = (lba: number, length: number): number[] => cdb16(0x9e, lba, length, 0x12);

/** `[lba, blocks, provisioning status]` of every whole descriptor. */
function descriptors(data: Uint8Array): number[][] {
  const found: number[][] = [];
  for (let at = 8; at + 16 <= data.length; at += 16) {
    found.push([readU64BE(data, at), readU32BE(data, at + 8), data[at + 12]!]);
    expect([...data.slice(at + 13, at + 16)]).toEqual([0, 0, 0]);
  }
  return found;
}

describe('GET LBA STATUS', () => {
  const make = (): Initiator => {
    const initiator = new Initiator();
    // Granules of 8 KiB: 16 blocks.
    for (const granule of [2, 3, 10, 127]) initiator.lun.mapped.add(granule);
    return initiator;
  };
  const map = [
    [0, 32, 1],
    [32, 32, 0],
    [64, 96, 1],
    [160, 16, 0],
    [176, 1856, 1],
    [2032, 16, 0],
  ];

  it('describes the map from the block asked for to the end', () => {
    const { data, ...result } = make().in(getLbaStatus(0, 1024), 1024);
    expect(result).toMatchObject({ ...GOOD, residual: 1024 - 8 - 6 * 16 });
    expect(readU32BE(data, 0)).toBe(4 + 6 * 16);
    expect(descriptors(data)).toEqual(map);
  });

  it('reports only the blocks that are asked for, and says why it ends', () => {
    const initiator = make();
    const status = (type: number, length = 1024): { data: Uint8Array; found: number[][] } => {
      const cdb = getLbaStatus(0, length);
      cdb[14] = type;
      const { data, ...result } = initiator.in(cdb, 1024);
      expect(result).toMatchObject(GOOD);
      return { data, found: descriptors(data) };
    };
    const mapped = map.filter(([, , provisioning]) => provisioning === 0);
    const deallocated = map.filter(([, , provisioning]) => provisioning === 1);
    expect(status(0x01).found).toEqual(deallocated);
    expect(status(0x02).found).toEqual(mapped);
    expect(status(0x03).found).toEqual(deallocated);
    expect(status(0x04).found).toEqual([]);
    expect([...status(0x10).data]).toEqual([0, 0, 0, 4, 0, 0, 0, 7]);
    // No room; the end of the medium. And REPORT TYPE was looked at.
    expect(status(0x00, 40).data[7]).toBe(0x03);
    expect(status(0x00).data[7]).toBe(0x07);
    for (const type of [5, 0x0f, 0x11, 0xff]) {
      const cdb = getLbaStatus(0, 64);
      cdb[14] = type;
      expect(initiator.in(cdb, 64)).toMatchObject(checkCondition('5/24/00'));
    }
  });

  it('begins with the block asked for, inside an extent too', () => {
    expect(descriptors(make().in(getLbaStatus(33, 40), 40).data)).toEqual([
      [33, 31, 0],
      [64, 96, 1],
    ]);
    expect(descriptors(make().in(getLbaStatus(2047, 1024), 1024).data)).toEqual([[2047, 1, 0]]);
  });

  it('joins neighbours that the backend tells apart', () => {
    const initiator = make();
    const { lun } = initiator;
    const submit = lun.submit.bind(lun);
    lun.submit = (request) => {
      if (request.op === LunOp.EXTENT) request.length = Math.min(request.length, 4096);
      submit(request);
    };
    expect(descriptors(initiator.in(getLbaStatus(0, 1024), 1024).data)).toEqual(map);
  });

  it.each([0, 1, 4, 8, 20, 24])('looks for one extent when there is room for %i bytes', (length) => {
    const initiator = make();
    const full = initiator.in(getLbaStatus(0, 24), 24).data;
    expect(full.length).toBe(24);
    expect(readU32BE(full, 0)).toBe(20);
    const { data, residual } = initiator.in(getLbaStatus(0, length), length);
    expect(data).toEqual(full.slice(0, length));
    expect(residual).toBe(0);
  });

  it('keeps to the room that the initiator has and reports the overflow', () => {
    const { data, ...result } = make().in(getLbaStatus(0, 1024), 30);
    expect(result).toMatchObject({ ...GOOD, residual: 30 - 24 });
    expect(data.length).toBe(24);
    expect(descriptors(data)).toEqual([[0, 32, 1]]);
  });

  it('splits what does not fit 32 bits', () => {
    const initiator = new Initiator();
    initiator.unit.state.blockCount = 2 ** 33;
    initiator.lun.submit = (request) => {
      request.extentLength = request.length;
      request.extentMapped = false;
      initiator.lun.queue.push(request);
    };
    initiator.lun.completeOne = () => {
      const request = initiator.lun.queue.shift()!;
      request.owner.requestDone(request, null);
    };
    expect(descriptors(initiator.in(getLbaStatus(0, 1024), 1024).data)).toEqual([
      [0, 0xffffffff, 1],
      [0xffffffff, 0xffffffff, 1],
      [2 ** 33 - 2, 2, 1],
    ]);
    expect(descriptors(initiator.in(getLbaStatus(0, 24), 24).data)).toEqual([[0, 0xffffffff, 1]]);
  });

  it('checks the range', () => {
    const initiator = make();
    for (const lba of [MIB / 512, MIB / 512 + 1, 2 ** 52]) {
      expect(initiator.in(getLbaStatus(lba, 24), 24)).toMatchObject(checkCondition('5/21/00'));
    }
    const ones = getLbaStatus(0, 24);
    ones.fill(0xff, 2, 10);
    expect(initiator.in(ones, 24)).toMatchObject(checkCondition('5/21/00'));
  });

  it('fails when the map cannot be read', () => {
    const initiator = make();
    initiator.lun.failures.set(LunOp.EXTENT, 'EIO');
    expect(initiator.in(getLbaStatus(0, 24), 24)).toMatchObject({ ...checkCondition('3/11/00'), residual: 24 });
  });
});
