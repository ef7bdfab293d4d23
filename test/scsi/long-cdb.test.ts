import { describe, expect, it } from 'vitest';
import { writeU32BE, writeU64BE } from '../../src/base/bytes.ts';
import { LunOp } from '../../src/block/lun-backend.ts';
import { VariableLengthAction as Action } from '../../src/scsi/spec.ts';
import { cdb10, checkCondition, GOOD, Initiator, pattern } from './support/initiator.ts';

/** A variable-length CDB of 32 bytes. */
function cdb32(action: number, lba: number, blocks: number, flags = 0): Uint8Array {
  const cdb = new Uint8Array(32);
  cdb.set([0x7f, 0, 0, 0, 0, 0, 0, 0x18, 0, action, flags]);
  writeU64BE(cdb, 12, lba);
  writeU32BE(cdb, 28, blocks);
  return cdb;
}

describe('commands with CDBs of 32 bytes', () => {
  it('read and write the same blocks as the shorter ones', () => {
    const initiator = new Initiator();
    const data = pattern(5 * 512);
    expect(initiator.out(cdb32(Action.WRITE_32, 7, 5), data)).toMatchObject(GOOD);
    expect(initiator.in(cdb10(0x28, 7, 5), 5 * 512).data).toEqual(data);
    expect(initiator.in(cdb32(Action.READ_32, 7, 5), 5 * 512).data).toEqual(data);
    expect(initiator.out(cdb32(Action.WRITE_AND_VERIFY_32, 20, 5), data)).toMatchObject(GOOD);
    expect(initiator.in(cdb32(Action.READ_32, 20, 5), 5 * 512).data).toEqual(data);
  });

  it('ignore the tags of protection information', () => {
    const initiator = new Initiator();
    const cdb = cdb32(Action.WRITE_32, 1, 1).fill(0xff, 20, 28);
    expect(initiator.out(cdb, pattern(512))).toMatchObject(GOOD);
    expect(initiator.lun.log).toMatchObject([{ op: LunOp.WRITE, offset: 512, length: 512 }]);
  });

  it('have their flags in byte 10', () => {
    const initiator = new Initiator();
    initiator.out(cdb32(Action.WRITE_32, 0, 1, 0x08), pattern(512));
    initiator.in(cdb32(Action.READ_32, 0, 1, 0x08), 512);
    expect(initiator.lun.log.map(({ op, fua }) => [op, fua])).toEqual([
      [LunOp.WRITE, true],
      [LunOp.FLUSH, false],
      [LunOp.READ, false],
    ]);
    expect(initiator.out(cdb32(Action.VERIFY_32, 0, 1, 0x02), pattern(512))).toMatchObject(GOOD);
    const different = initiator.out(cdb32(Action.VERIFY_32, 0, 1, 0x02), pattern(512, 2));
    expect(different).toMatchObject(checkCondition('e/1d/00'));
    expect(initiator.out(cdb32(Action.WRITE_SAME_32, 0, 16, 0x08), new Uint8Array(512))).toMatchObject(GOOD);
    expect(initiator.lun.log.at(-1)).toMatchObject({ op: LunOp.UNMAP, offset: 0, length: 8192 });
    expect(initiator.out(cdb32(Action.WRITE_SAME_32, 0, 16, 0x01))).toMatchObject(GOOD);
    expect(initiator.lun.log.at(-1)).toMatchObject({ op: LunOp.WRITE_ZEROES, offset: 0, length: 8192 });
    const anchor = initiator.out(cdb32(Action.WRITE_SAME_32, 0, 16, 0x10), new Uint8Array(512));
    expect(anchor).toMatchObject(checkCondition('5/24/00'));
    expect([...anchor.senseBytes.slice(15, 18)]).toEqual([0xcc, 0, 10]);
  });

  it('end at the end of the medium', () => {
    const initiator = new Initiator();
    for (const [lba, blocks] of [
      [2048, 0],
      [2047, 2],
      [2 ** 63, 1],
      [0, 2049],
    ] as const) {
      for (const action of Object.values(Action)) {
        const length = blocks * 512;
        const result =
          action === Action.READ_32
            ? initiator.in(cdb32(action, lba, blocks), length)
            : initiator.out(cdb32(action, lba, blocks), new Uint8Array(length));
        expect(result).toMatchObject(checkCondition('5/21/00'));
      }
    }
  });

  it('are refused with another length, another action, or protection information', () => {
    const initiator = new Initiator();
    const wrong = (change: (cdb: Uint8Array) => void): number[] => {
      const cdb = cdb32(Action.READ_32, 0, 1);
      change(cdb);
      const result = initiator.in(cdb, 512);
      expect(result).toMatchObject(checkCondition('5/24/00'));
      return [...result.senseBytes.slice(15, 18)];
    };
    for (const length of [0, 0x17, 0x19, 0xf8]) expect(wrong((cdb) => (cdb[7] = length))).toEqual([0xc0, 0, 7]);
    for (const action of [0, 3, 0x0e, 0x12]) expect(wrong((cdb) => (cdb[9] = action))).toEqual([0xc0, 0, 8]);
    expect(wrong((cdb) => (cdb[8] = 1))).toEqual([0xc0, 0, 8]);
    expect(wrong((cdb) => (cdb[10] = 0x20))).toEqual([0xcd, 0, 10]);
    expect(wrong((cdb) => (cdb[1] = 4))).toEqual([0xca, 0, 1]);
    expect(initiator.in(cdb32(Action.READ_32, 0, 1).slice(0, 16), 512)).toMatchObject(checkCondition('5/24/00'));
    expect(initiator.lun.log).toEqual([]);
  });
});

describe('commands of SCSI-2 that move nothing', () => {
  it('are answered for blocks that are there', () => {
    const initiator = new Initiator();
    for (const cdb of [
      [0x01, 0, 0, 0, 0, 0],
      [0x0b, 0, 7, 0xff, 0, 0],
      [0x2b, 0, 0, 0, 7, 0xff, 0, 0, 0, 0],
    ]) {
      expect(initiator.out(cdb)).toMatchObject(GOOD);
    }
    expect(initiator.out([0x0b, 0, 8, 0, 0, 0])).toMatchObject(checkCondition('5/21/00'));
    expect(initiator.out([0x2b, 0, 0, 0, 8, 0, 0, 0, 0, 0])).toMatchObject(checkCondition('5/21/00'));
    expect(initiator.lun.log).toEqual([]);
  });
});
