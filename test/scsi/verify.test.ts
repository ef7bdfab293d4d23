import { describe, expect, it } from 'vitest';
import { LunOp } from '../../src/block/lun-backend.ts';
import { cdb10, cdb12, cdb16, checkCondition, GOOD, Initiator, MIB, NO_DATA, pattern } from './support/initiator.ts';

const BYTCHK_ALL = 0x02;
const BYTCHK_ONE = 0x06;

/** INFORMATION of fixed sense data, -1 without VALID. */
function information(sense: Uint8Array): number {
  return (sense[0]! & 0x80) === 0 ? -1 : Buffer.from(sense).readUInt32BE(3);
}

describe.each([512, 4096] as const)('VERIFY with blocks of %i bytes', (blockSize) => {
  const make = (): Initiator => {
    const initiator = new Initiator({ logicalBlockSize: blockSize });
    initiator.out(cdb10(0x2a, 0, 64), pattern(64 * blockSize, 3));
    initiator.lun.log.length = 0;
    return initiator;
  };
  const content = pattern(64 * blockSize, 3);

  it.each([
    ['10', cdb10(0x2f, 3, 5, BYTCHK_ALL)],
    ['12', cdb12(0xaf, 3, 5, BYTCHK_ALL)],
    ['16', cdb16(0x8f, 3, 5, BYTCHK_ALL)],
  ])('(%s) compares with Data-Out', (_name, cdb) => {
    const initiator = make();
    const data = content.slice(3 * blockSize, 8 * blockSize);
    expect(initiator.out(cdb, data)).toMatchObject({ ...GOOD, residual: 0, dataOutLength: data.length });
    for (const at of [0, 1, blockSize, data.length - 1]) {
      const wrong = data.slice();
      wrong[at]! ^= 1;
      const result = initiator.out(cdb, wrong);
      expect(result).toMatchObject(checkCondition('e/1d/00'));
      expect(information(result.senseBytes)).toBe(3 + Math.floor(at / blockSize));
    }
  });

  it('compares over scattered memory and several scratch buffers', () => {
    const initiator = new Initiator({ logicalBlockSize: blockSize });
    initiator.pieces = 3;
    const data = pattern(600 * 1024, 4);
    const blocks = data.length / blockSize;
    initiator.out(cdb10(0x2a, 1, blocks), data);
    expect(initiator.out(cdb10(0x2f, 1, blocks, BYTCHK_ALL), data)).toMatchObject(GOOD);
    data[500_000]! ^= 0x80;
    const result = initiator.out(cdb10(0x2f, 1, blocks, BYTCHK_ALL), data);
    expect(result).toMatchObject(checkCondition('e/1d/00'));
    expect(information(result.senseBytes)).toBe(1 + Math.floor(500_000 / blockSize));
  });

  it('with BYTCHK 11b compares every block with the one sent', () => {
    const initiator = make();
    const block = pattern(blockSize, 9);
    for (const lba of [10, 11, 12]) initiator.out(cdb10(0x2a, lba, 1), block);
    expect(initiator.out(cdb10(0x2f, 10, 3, BYTCHK_ONE), block)).toMatchObject({ ...GOOD, dataOutLength: blockSize });
    const result = initiator.out(cdb10(0x2f, 10, 4, BYTCHK_ONE), block);
    expect(result).toMatchObject(checkCondition('e/1d/00'));
    expect(information(result.senseBytes)).toBe(13);
    expect(initiator.out(cdb10(0x2f, 10, 3, BYTCHK_ONE), block, blockSize - 1)).toMatchObject(
      checkCondition('5/24/00'),
    );
    expect(initiator.out(cdb10(0x2f, 10, 0, BYTCHK_ONE), block)).toMatchObject({ ...GOOD, residual: blockSize });
  });

  it('with BYTCHK 00b reads what is mapped and takes no data', () => {
    const initiator = make();
    const result = initiator.out(cdb10(0x2f, 0, MIB / blockSize), content.slice(0, blockSize));
    expect(result).toMatchObject({ ...GOOD, residual: blockSize, dataOutLength: 0 });
    expect(initiator.lun.log.map(({ op, length }) => [op, length])).toEqual([
      [LunOp.FLUSH, 0],
      [LunOp.EXTENT, MIB],
      ...(blockSize === 512
        ? [[LunOp.READ, 64 * 512]]
        : [
            [LunOp.READ, 131072],
            [LunOp.EXTENT, MIB - 131072],
            [LunOp.READ, 131072],
          ]),
      [LunOp.EXTENT, MIB - 64 * blockSize],
    ]);
  });

  it('refuses BYTCHK 10b and protection information', () => {
    const initiator = make();
    const reserved = initiator.out(cdb10(0x2f, 0, 1, 0x04));
    expect(reserved).toMatchObject(checkCondition('5/24/00'));
    expect([...reserved.senseBytes.slice(15, 18)]).toEqual([0xca, 0, 1]);
    for (let i = 1; i < 8; i++) {
      expect(initiator.out(cdb10(0x2f, 0, 1, i << 5))).toMatchObject(checkCondition('5/24/00'));
      expect(initiator.out(cdb16(0x8f, 0, 1, i << 5))).toMatchObject(checkCondition('5/24/00'));
    }
  });

  it('checks the range, also with no blocks to verify', () => {
    const initiator = make();
    const end = MIB / blockSize;
    expect(initiator.out(cdb10(0x2f, 0, 0, BYTCHK_ALL))).toMatchObject(GOOD);
    for (const [lba, count] of [
      [end, 0],
      [end + 1, 0],
      [end - 1, 2],
      [0x80000000, 0],
      [0xffffffff, 1],
    ] as const) {
      for (const flags of [0, BYTCHK_ALL, BYTCHK_ONE]) {
        expect(initiator.out(cdb10(0x2f, lba, count, flags))).toMatchObject(checkCondition('5/21/00'));
      }
    }
  });

  it('verifies the whole blocks of what the initiator announced', () => {
    const initiator = make();
    const wrongLater = content.slice(0, 2 * blockSize);
    wrongLater[blockSize]! ^= 1;
    expect(initiator.out(cdb10(0x2f, 0, 2, BYTCHK_ALL), wrongLater, blockSize)).toMatchObject({
      ...GOOD,
      residual: -blockSize,
      dataOutLength: blockSize,
    });
    expect(initiator.out(cdb10(0x2f, 0, 2, BYTCHK_ALL), wrongLater, blockSize + 1)).toMatchObject({
      ...checkCondition('5/0e/03'),
      residual: 1 - blockSize,
    });
  });
});

describe('VERIFY', () => {
  it('reports a medium that cannot be read', () => {
    const initiator = new Initiator();
    initiator.out(cdb10(0x2a, 0, 1), new Uint8Array(512));
    initiator.lun.failures.set(LunOp.READ, 'EIO');
    expect(initiator.out(cdb10(0x2f, 0, 1))).toMatchObject(checkCondition('3/11/00'));
  });

  it('refuses more Data-Out than the maximum transfer length but verifies any length without', () => {
    const initiator = new Initiator({ maxTransferBytes: 4096 });
    expect(initiator.out(cdb10(0x2f, 0, 9, BYTCHK_ALL), new Uint8Array(9 * 512))).toMatchObject(
      checkCondition('5/24/00'),
    );
    expect(initiator.out(cdb10(0x2f, 0, 2048))).toMatchObject(GOOD);
  });
});

describe('WRITE AND VERIFY', () => {
  it.each([
    ['10', cdb10(0x2e, 7, 4), cdb10(0x2e, 7, 4, BYTCHK_ALL)],
    ['12', cdb12(0xae, 7, 4), cdb12(0xae, 7, 4, BYTCHK_ALL)],
    ['16', cdb16(0x8e, 7, 4), cdb16(0x8e, 7, 4, BYTCHK_ALL)],
  ])('(%s) writes to the medium and reads back', (_name, plain, compared) => {
    for (const cdb of [plain, compared]) {
      const initiator = new Initiator();
      const data = pattern(4 * 512, 5);
      expect(initiator.out(cdb, data)).toMatchObject({ ...GOOD, residual: 0 });
      expect(initiator.lun.data.slice(7 * 512, 11 * 512)).toEqual(data);
      expect(initiator.lun.log[0]).toMatchObject({ op: LunOp.WRITE, fua: true });
      expect(initiator.lun.log.at(cdb === plain ? -1 : 1)).toMatchObject({ op: LunOp.READ });
    }
  });

  it('reports a medium that does not keep what was written', () => {
    const initiator = new Initiator();
    initiator.lun.beforeEffect = (request) => {
      if (request.op === LunOp.READ) initiator.lun.data[512 * 8]! ^= 1;
    };
    const result = initiator.out(cdb10(0x2e, 7, 4, BYTCHK_ALL), pattern(4 * 512, 5));
    expect(result).toMatchObject(checkCondition('e/1d/00'));
    expect(information(result.senseBytes)).toBe(8);
  });

  it('reports residuals as WRITE does', () => {
    const initiator = new Initiator();
    const data = pattern(1024, 6);
    expect(initiator.out(cdb10(0x2e, 0, 2), data, 512)).toMatchObject({ ...GOOD, residual: -512, dataOutLength: 512 });
    expect(initiator.out(cdb10(0x2e, 0, 2), data, 700)).toMatchObject({ ...checkCondition('5/0e/03'), residual: -324 });
    expect(initiator.out(cdb10(0x2e, 0, 1), data)).toMatchObject({ ...GOOD, residual: 512, dataOutLength: 512 });
    expect(initiator.out(cdb10(0x2e, 0, 1), NO_DATA)).toMatchObject({ ...GOOD, residual: -512 });
  });

  it('refuses flags that it does not have', () => {
    const initiator = new Initiator();
    for (const flags of [0x04, 0x08, 0x20, 0x01]) {
      expect(initiator.out(cdb10(0x2e, 0, 1, flags), new Uint8Array(512))).toMatchObject(checkCondition('5/24/00'));
    }
  });
});
