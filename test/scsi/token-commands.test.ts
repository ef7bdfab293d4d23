import { beforeEach, describe, expect, it } from 'vitest';
import { LunOp } from '../../src/block/lun-backend.ts';
import { Access } from '../../src/scsi/command.ts';
import { MAX_TOKEN_BYTES, MAX_TOKENS } from '../../src/scsi/copy-limits.ts';
import { RodType } from '../../src/scsi/rod-token.ts';
import {
  be,
  CopyTarget,
  copyAbort,
  copyOut,
  lid1,
  populateList,
  receive,
  segment,
  writeList,
  zeroToken,
} from './support/copy.ts';
import { cdb10, cdb16, checkCondition, GOOD, MIB, NO_DATA, pattern } from './support/initiator.ts';

const BLOCK = 512;
const REVOKED = checkCondition('5/23/06');

describe('a ROD token', () => {
  let target: CopyTarget;

  beforeEach(() => {
    target = new CopyTarget();
    target.media[0]!.data.set(pattern(4 * MIB));
  });

  it('carries what it represents to another unit', () => {
    const token = target.token(0, [
      [8, 8],
      [100, 50],
    ]);
    const list = writeList(token, [
      [1000, 50],
      [0, 8],
    ]);
    expect(target.writeUsing(1, list)).toMatchObject({ ...GOOD, residual: 0 });
    const source = target.media[0]!.data;
    const wanted = Buffer.concat([source.slice(8 * BLOCK, 16 * BLOCK), source.slice(100 * BLOCK, 150 * BLOCK)]);
    const { data } = target.media[1]!;
    const got = Buffer.concat([data.slice(1000 * BLOCK, 1050 * BLOCK), data.slice(0, 8 * BLOCK)]);
    expect(got.equals(wanted)).toBe(true);
  });

  it('is written from any offset, more than once, and also to its own unit', () => {
    const token = target.token(0, [[0, 64]]);
    expect(target.writeUsing(1, writeList(token, [[0, 4]], { offset: 60 }))).toMatchObject(GOOD);
    expect(target.writeUsing(0, writeList(token, [[500, 64]]))).toMatchObject(GOOD);
    const { data } = target.media[0]!;
    expect(target.media[1]!.data.slice(0, 4 * BLOCK)).toEqual(data.slice(60 * BLOCK, 64 * BLOCK));
    expect(data.slice(500 * BLOCK, 564 * BLOCK)).toEqual(data.slice(0, 64 * BLOCK));
    for (const offset of [64, 65, 2 ** 52]) {
      expect(target.writeUsing(1, writeList(token, [[0, 1]], { offset }))).toMatchObject(checkCondition('5/26/00'));
    }
  });

  it('with less than was asked for is written as far as it goes, the last block filled up with zeroes', () => {
    const mixed = new CopyTarget([{}, { logicalBlockSize: 4096 }]);
    mixed.media[0]!.data.set(pattern(MIB));
    mixed.media[1]!.data.fill(0xee);
    const token = mixed.token(0, [[0, 12]]);
    expect(
      mixed.writeUsing(
        1,
        writeList(token, [
          [0, 1],
          [4, 9],
        ]),
        5,
      ),
    ).toMatchObject(GOOD);
    const { data } = mixed.media[1]!;
    expect(data.slice(0, 4096)).toEqual(pattern(MIB).slice(0, 4096));
    expect(data.slice(4 * 4096, 4 * 4096 + 2048)).toEqual(pattern(MIB).slice(4096, 6144));
    expect(data.slice(4 * 4096 + 2048, 5 * 4096)).toEqual(new Uint8Array(2048));
    expect([data[4096], data[5 * 4096]]).toEqual([0xee, 0xee]);
    const told = mixed.in(1, receive(7, 5)).data;
    expect([told[5], ...told.slice(16, 24)]).toEqual([3, ...be(2, 8)]);
  });

  it('goes between units with blocks of different sizes', () => {
    const mixed = new CopyTarget([{}, { logicalBlockSize: 4096 }]);
    mixed.media[0]!.data.set(pattern(MIB));
    const token = mixed.token(0, [
      [3, 8],
      [20, 24],
    ]);
    expect(mixed.writeUsing(1, writeList(token, [[2, 3]], { offset: 1 }))).toMatchObject(GOOD);
    expect(mixed.media[1]!.data.slice(2 * 4096, 5 * 4096)).toEqual(pattern(MIB).slice(20 * BLOCK, 44 * BLOCK));
  });

  it('is 512 bytes that nobody can guess, and says what it is', () => {
    const [a, b] = [target.token(0, [[0, 8]]), target.token(0, [[0, 8]], { type: RodType.ANY_POINT_IN_TIME })];
    expect([...a.slice(0, 8)]).toEqual([...be(RodType.CHANGE_VULNERABLE, 4), 0, 0, 0x01, 0xf8]);
    expect(b.slice(0, 4)).toEqual(a.slice(0, 4));
    expect([...a.slice(16, 24)]).toEqual([0xe4, 0, 0, 0, 1, 3, 0, 16]);
    expect([...a.slice(48, 64)]).toEqual(be(8 * BLOCK, 16));
    expect(a.slice(256)).not.toEqual(b.slice(256));
    expect(new Set(a.slice(256)).size).toBeGreaterThan(50);
    // Whoever knows all but a bit has nothing.
    for (const at of [8, 15, 16, 20, 24, 128, 256, 511]) {
      const forged = a.slice();
      forged[at]! ^= 1;
      const result = target.writeUsing(1, writeList(forged, [[0, 8]]));
      expect(result).toMatchObject(checkCondition('5/23/04'));
    }
    expect(target.writeUsing(1, writeList(a.with(0, 1), [[0, 8]]))).toMatchObject(checkCondition('5/23/01'));
    expect(target.writeUsing(1, writeList(a.with(7, 0), [[0, 8]]))).toMatchObject(checkCondition('5/23/0a'));
    expect(target.media[1]!.log).toEqual([]);
  });

  it('ends when what it represents is changed, by any command that does', () => {
    const block = pattern(BLOCK, 3);
    const changes: [string, () => unknown][] = [
      ['WRITE', () => target.send(0, cdb10(0x2a, 15, 1), block)],
      ['UNMAP', () => target.send(0, [0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0], unmapList(9, 1))],
      ['WRITE SAME', () => target.send(0, cdb16(0x93, 8, 1), block)],
      ['ORWRITE', () => target.send(0, cdb16(0x8b, 8, 1), block)],
      ['WRITE AND VERIFY', () => target.send(0, cdb10(0x2e, 8, 1), block)],
      ['EXTENDED COPY', () => target.copy(0, lid1([], [segment(0xffff, 0, 0xffff, 10, 1)]))],
      ['WRITE USING TOKEN', () => target.writeUsing(0, writeList(zeroToken(), [[15, 1]]))],
      ['a rollback', () => target.units[0]!.contentChanged()],
    ];
    for (const [name, change] of changes) {
      while (target.send(0, [0, 0, 0, 0, 0, 0]).status !== 0);
      const token = target.token(0, [[8, 8]]);
      const elsewhere = target.token(0, [[1000, 8]]);
      change();
      expect(target.writeUsing(1, writeList(token, [[0, 8]])), name).toMatchObject(REVOKED);
      if (name !== 'a rollback') expect(target.writeUsing(1, writeList(elsewhere, [[0, 8]])), name).toMatchObject(GOOD);
    }
    expect(target.send(0, cdb10(0x28, 7, 1), NO_DATA, BLOCK)).toMatchObject(checkCondition('6/28/00'));
  });

  it('is not made while something else is put into the unit', () => {
    const token = target.token(0, [[8, 8]]);
    target.units[0]!.contentChanging();
    expect(target.writeUsing(1, writeList(token, [[0, 8]]))).toMatchObject(REVOKED);
    expect(target.populate(0, populateList([[8, 8]]))).toMatchObject(checkCondition('b/55/0d'));
    target.units[0]!.contentSettled();
    expect(target.writeUsing(1, writeList(target.token(0, [[8, 8]]), [[0, 8]]))).toMatchObject(GOOD);
  });

  it('lives on when its blocks are read, or others are written', () => {
    const token = target.token(0, [[8, 8]]);
    target.send(0, cdb10(0x28, 8, 8), NO_DATA, 8 * BLOCK);
    target.send(0, cdb10(0x2a, 7, 1), pattern(BLOCK));
    target.send(0, cdb10(0x2a, 16, 1), pattern(BLOCK));
    target.send(1, cdb10(0x2a, 8, 1), pattern(BLOCK));
    target.send(0, cdb10(0x35, 0, 0));
    expect(target.writeUsing(1, writeList(token, [[0, 8]]))).toMatchObject(GOOD);
  });

  it('that is revoked in the middle of a copy ends the copy', () => {
    const token = target.token(0, [[0, 8]]);
    const list = writeList(token, [[0, 8]]);
    const running = target.start(1, copyOut(0x11, list.length, 1), list);
    const writer = target.start(0, cdb10(0x2a, 7, 1), pattern(BLOCK, 9));
    // Either of the two may be first; the copy is not to be trusted.
    target.drain();
    expect(writer.result()).toMatchObject(GOOD);
    expect(running.result()).toMatchObject(REVOKED);
    expect([...target.in(1, receive(7, 1)).data.slice(5, 6)]).toEqual([2]);
  });

  it('that its own copy would change is revoked before anything is written', () => {
    const token = target.token(0, [[0, 8]]);
    expect(target.writeUsing(0, writeList(token, [[4, 8]]))).toMatchObject(REVOKED);
    expect(target.media[0]!.data.slice(0, 16 * BLOCK)).toEqual(pattern(4 * MIB).slice(0, 16 * BLOCK));
  });

  it('waits for writes that had begun before it was made', () => {
    const writer = target.start(0, cdb10(0x2a, 4, 1), pattern(BLOCK, 2));
    const list = populateList([[0, 8]]);
    const making = target.start(0, copyOut(0x10, list.length, 1), list);
    expect(making.isDone).toBe(false);
    // One that begins now is not waited for: it ends the token.
    target.drain();
    expect(writer.result()).toMatchObject(GOOD);
    expect(making.result()).toMatchObject(GOOD);
    const token = target.in(0, receive(7, 1)).data.slice(38);
    expect(target.writeUsing(1, writeList(token, [[0, 8]]))).toMatchObject(GOOD);
    expect(target.media[1]!.data.slice(4 * BLOCK, 5 * BLOCK)).toEqual(pattern(BLOCK, 2));
  });

  it('is not made when a write comes while it is', () => {
    const first = target.start(0, cdb10(0x2a, 4, 1), pattern(BLOCK, 2));
    const list = populateList([
      [4, 1],
      [6, 1],
    ]);
    const making = target.start(0, copyOut(0x10, list.length, 1), list);
    const second = target.start(0, cdb10(0x2a, 6, 1), pattern(BLOCK, 2));
    target.drain();
    for (const writer of [first, second]) expect(writer.result()).toMatchObject(GOOD);
    expect(making.result()).toMatchObject(REVOKED);
  });

  it('of a POPULATE TOKEN that was aborted is nobody’s', () => {
    const writer = target.start(0, cdb10(0x2a, 4, 1), pattern(BLOCK, 2));
    const list = populateList([[0, 8]]);
    const making = target.start(0, copyOut(0x10, list.length, 1), list);
    making.task.aborted = true;
    target.drain();
    expect(making.result().status).toBe(0x40);
    expect(writer.result()).toMatchObject(GOOD);
    expect(target.units[0]!.state.tokens.live).toBe(0);
    const { data } = target.in(0, receive(7, 1));
    expect([data[5], data.length]).toEqual([0x60, 36]);
  });

  it('ends some time after its last use', () => {
    const token = target.token(0, [[0, 8]]);
    const long = target.token(0, [[0, 8]], { timeout: 600 });
    target.clock.ms += 59_000;
    expect(target.writeUsing(1, writeList(token, [[0, 8]]))).toMatchObject(GOOD);
    target.clock.ms += 59_000;
    expect(target.writeUsing(1, writeList(token, [[0, 8]]))).toMatchObject(GOOD);
    target.clock.ms += 61_000;
    expect(target.writeUsing(1, writeList(token, [[0, 8]]))).toMatchObject(checkCondition('5/23/07'));
    expect(target.writeUsing(1, writeList(long, [[0, 8]]))).toMatchObject(GOOD);
  });

  it('ends when it is deleted', () => {
    const token = target.token(0, [[0, 8]]);
    expect(target.writeUsing(1, writeList(token, [[0, 8]], { deletes: true }))).toMatchObject(GOOD);
    expect(target.writeUsing(1, writeList(token, [[0, 8]]))).toMatchObject(checkCondition('5/23/09'));
  });

  it('makes room for newer ones, longest unused first', () => {
    const first = target.token(0, [[0, 8]]);
    target.clock.ms++;
    const second = target.token(0, [[0, 8]]);
    for (let i = 2; i < MAX_TOKENS; i++) target.token(0, [[0, 8]]);
    target.clock.ms++;
    expect(target.writeUsing(1, writeList(first, [[0, 8]]))).toMatchObject(GOOD);
    const last = target.token(0, [[0, 8]]);
    expect(target.writeUsing(1, writeList(second, [[0, 8]]))).toMatchObject(checkCondition('5/23/04'));
    for (const token of [first, last]) expect(target.writeUsing(1, writeList(token, [[0, 8]]))).toMatchObject(GOOD);
    expect(target.units[0]!.state.tokens.live).toBe(MAX_TOKENS);
  });

  it('is of use only to who may read the unit that it is of, and write the other', () => {
    const rights = [Access.NONE, Access.WRITE, Access.READ];
    const all = new CopyTarget([{}, {}, {}]);
    const guest = all.login({ of: (lun) => rights[lun]! });
    const token = all.token(0, [[0, 8]]);
    const readable = all.token(2, [[0, 8]]);
    expect(all.writeUsing(1, writeList(token, [[0, 8]]), 1, guest)).toMatchObject(checkCondition('5/23/04'));
    expect(all.writeUsing(1, writeList(readable, [[0, 8]]), 1, guest)).toMatchObject(GOOD);
    expect(all.writeUsing(2, writeList(readable, [[100, 8]]), 1, guest)).toMatchObject(checkCondition('7/27/00'));
    rights[2] = Access.NONE;
    all.target.accessChanged(guest);
    while (all.send(1, [0, 0, 0, 0, 0, 0], NO_DATA, 0, guest).status !== 0);
    expect(all.writeUsing(1, writeList(readable, [[0, 8]]), 1, guest)).toMatchObject(checkCondition('5/23/04'));
    expect(all.writeUsing(1, writeList(token, [[0, 8]]))).toMatchObject(GOOD);
  });

  it('is refused what a reservation of its source refuses', () => {
    const other = target.login();
    const token = target.token(0, [[0, 8]]);
    const key = Uint8Array.from([...be(0, 8), ...be(0xabc, 8), ...new Array(8).fill(0)]);
    const reserve = Uint8Array.from([...be(0xabc, 8), ...be(0, 8), ...new Array(8).fill(0)]);
    target.send(0, [0x5f, 0x00, 0, 0, 0, 0, 0, 0, 24, 0], key, 0, other);
    target.send(0, [0x5f, 0x01, 3, 0, 0, 0, 0, 0, 24, 0], reserve, 0, other);
    expect(target.writeUsing(1, writeList(token, [[0, 8]])).status).toBe(0x18);
    expect(target.populate(0, populateList([[0, 8]])).status).toBe(0x18);
    expect(target.writeUsing(1, writeList(token, [[0, 8]]), 1, other)).toMatchObject(GOOD);
  });

  it('is told of to all, but not so that they could use it', () => {
    target.token(0, [[0, 8]]);
    const token = target.token(0, [[0, 8]]);
    const { data } = target.in(0, [0x84, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0]);
    expect([...data.slice(0, 4)]).toEqual(be(4 + 2 * 96, 4));
    expect(data.slice(8 + 96)).toEqual(token.slice(0, 96));
    expect(target.in(1, [0x84, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0]).data.length).toBe(8);
  });
});

const unmapList = (lba: number, blocks: number): Uint8Array =>
  Uint8Array.from([0, 22, 0, 16, 0, 0, 0, 0, ...be(lba, 8), ...be(blocks, 4), 0, 0, 0, 0]);

describe('the well-known token of zeroes', () => {
  it('unmaps where that reads as zeroes, and writes zeroes where it does not or cannot be done', () => {
    const target = new CopyTarget();
    const medium = target.media[1]!;
    const list = writeList(zeroToken(), [[16, 100]]);
    const wipe = (): LunOp[] => {
      medium.data.set(pattern(MIB));
      medium.log.length = 0;
      expect(target.writeUsing(1, list)).toMatchObject(GOOD);
      expect(medium.data.slice(16 * BLOCK, 116 * BLOCK)).toEqual(new Uint8Array(100 * BLOCK));
      expect(medium.data[116 * BLOCK]).toBe(pattern(MIB)[116 * BLOCK]);
      return medium.log.map(({ op }) => op);
    };
    expect(wipe()).toEqual([LunOp.UNMAP]);
    medium.failures.set(LunOp.UNMAP, 'EROFS');
    expect(wipe()).toEqual([LunOp.UNMAP, LunOp.WRITE_ZEROES]);
    medium.unmappedReadsZeroes = false;
    expect(wipe()).toEqual([LunOp.WRITE_ZEROES]);
  });
});

describe('POPULATE TOKEN and WRITE USING TOKEN', () => {
  it('say what they have done', () => {
    const target = new CopyTarget();
    const token = target.token(0, [[0, 16]]);
    target.populate(0, populateList([[0, 16]]), 3);
    expect([...target.in(0, receive(7, 3)).data.slice(0, 38)]).toEqual([
      ...be(546, 4),
      ...[0x10, 1, 0, 0, 0xff, 0xff, 0xff, 0xfe, 0, 0, 0, 0xf1],
      ...be(16, 8),
      ...[0, 0, 0, 0, 0, 0, 0, 0],
      ...be(514, 4),
      ...[0, 0],
    ]);
    target.writeUsing(1, writeList(token, [[0, 5]]), 4);
    const { data } = target.in(1, receive(7, 4));
    expect([...data]).toEqual([
      ...be(32, 4),
      ...[0x11, 1, 0, 1, 0xff, 0xff, 0xff, 0xfe, 0, 0, 0, 0xf1],
      ...be(5, 8),
      ...[0, 0, 0, 0, 0, 0, 0, 0],
      ...[0, 0, 0, 0],
    ]);
    expect(target.in(1, receive(7, 4))).toMatchObject(checkCondition('5/24/00'));
  });

  it('keep what did not fit until there is room', () => {
    const target = new CopyTarget();
    target.populate(0, populateList([[0, 16]]), 3);
    expect(target.in(0, receive(7, 3, 4)).data).toEqual(Uint8Array.from(be(546, 4)));
    expect(target.in(0, receive(7, 3, 512)).data.length).toBe(512);
    expect(target.in(0, receive(7, 3, 550)).data.length).toBe(550);
    expect(target.in(0, receive(7, 3))).toMatchObject(checkCondition('5/24/00'));
  });

  it('say what went wrong', () => {
    const target = new CopyTarget();
    const token = target.token(0, [[0, 16]]);
    target.media[1]!.failures.set(LunOp.COPY, 'ENOSPC');
    const result = target.writeUsing(1, writeList(token, [[0, 16]]), 4);
    expect(result).toMatchObject(checkCondition('7/27/07'));
    const { data } = target.in(1, receive(7, 4));
    expect([data[5], data[12], data[13], data[14]]).toEqual([2, 2, 20, 18]);
    expect(data.slice(32, 50)).toEqual(result.senseBytes);
  });

  it('are stopped by COPY OPERATION ABORT', () => {
    const target = new CopyTarget();
    const token = target.token(0, [
      [0, 8],
      [16, 8],
    ]);
    const list = writeList(token, [[0, 16]]);
    const running = target.start(1, copyOut(0x11, list.length, 4), list);
    const abort = target.start(1, copyAbort(4));
    target.drain();
    expect(abort.result()).toMatchObject(GOOD);
    expect(running.result()).toMatchObject(checkCondition('a/2f/02'));
    expect(target.media[1]!.log.length).toBe(1);
    expect(target.in(1, receive(7, 4)).data[5]).toBe(0x60);
  });

  it('ignore ranges that are cut off, and refuse lists without one', () => {
    const target = new CopyTarget();
    const ranges = [
      [0, 8],
      [8, 8],
    ] as const;
    const token = target.token(0, [[0, 16]]);
    for (const [action, list] of [
      [0x10, populateList(ranges)],
      [0x11, writeList(token, ranges)],
    ] as const) {
      const header = list.length - 32;
      for (let length = 1; length < list.length; length++) {
        const result = target.send(1, copyOut(action, length), list.slice(0, length));
        const expected = length < header ? checkCondition('5/1a/00') : GOOD;
        expect(result, `${length} bytes`).toMatchObject(expected);
        if (length < header) continue;
        const count = target.in(1, receive(7, 0)).data.slice(16, 24);
        expect([...count], `${length} bytes`).toEqual(be(8 * Math.floor((length - header) / 16), 8));
      }
      expect(target.send(1, copyOut(action, list.length), list)).toMatchObject(GOOD);
      expect(target.send(1, copyOut(action, 0))).toMatchObject(GOOD);
      expect(target.send(1, copyOut(action, 2 ** 32 - 1), list)).toMatchObject(checkCondition('5/1a/00'));
      const rangesAt = action === 0x10 ? 14 : 534;
      for (const at of [0, 1, rangesAt, rangesAt + 1]) {
        for (let value = 0; value < 256; value++) {
          const { sense } = target.send(1, copyOut(action, list.length), list.with(at, value));
          expect(['', '5/1a/00', '5/26/00', '5/26/08']).toContain(sense);
        }
      }
    }
  });

  it('check their ranges', () => {
    const target = new CopyTarget();
    const end = (4 * MIB) / BLOCK;
    const wrong: [readonly (readonly [number, number])[], string][] = [
      [[[end, 1]], '5/21/00'],
      [[[end - 1, 2]], '5/21/00'],
      [[[2 ** 53, 1]], '5/21/00'],
      [
        [
          [0, 4],
          [3, 1],
        ],
        '5/26/00',
      ],
      [new Array(65).fill([0, 0]), '5/26/08'],
      [new Array(4000).fill([0, 0]), '5/26/08'],
    ];
    for (const [ranges, sense] of wrong) {
      expect(target.populate(0, populateList(ranges))).toMatchObject(checkCondition(sense));
      expect(target.writeUsing(0, writeList(zeroToken(), ranges))).toMatchObject(checkCondition(sense));
    }
    expect(target.populate(0, populateList([[0, 1]], { timeout: 601 }))).toMatchObject(checkCondition('5/26/00'));
    for (const type of [0x00800000, 0x00800002, 0x00010000]) {
      expect(target.populate(0, populateList([[0, 1]], { type }))).toMatchObject(checkCondition('5/26/00'));
    }
    // Nothing may be asked for.
    expect(target.writeUsing(0, writeList(zeroToken(), [[5, 0]]))).toMatchObject(GOOD);
    expect(target.writeUsing(0, writeList(target.token(0, [[5, 0]]), [[5, 1]]))).toMatchObject(
      checkCondition('5/26/00'),
    );
    const most = Array.from({ length: 64 }, (_, i) => [i, i % 2] as const);
    expect(target.populate(0, populateList(most))).toMatchObject(GOOD);
    expect(target.media[0]!.log).toEqual([]);
  });

  it('say their limits in VPD page 8Fh', () => {
    const target = new CopyTarget([{ logicalBlockSize: 4096 }]);
    const { data } = target.in(0, [0x12, 1, 0x8f, 4, 0, 0], 1024);
    const types: number[] = [];
    let at = 4;
    while (at < data.length) {
      types.push(data[at]! * 256 + data[at + 1]!);
      expect(data[at + 3]! % 4).toBe(0);
      at += 4 + data[at + 2]! * 256 + data[at + 3]!;
    }
    expect(at).toBe(data.length);
    expect(data[2]! * 256 + data[3]!).toBe(data.length - 4);
    expect(types).toEqual([0x0000, 0x0001, 0x0004, 0x0008, 0x000c, 0x0106, 0x0108, 0x8001]);
    // Block device ROD token limits
    expect([...data.slice(4, 8)]).toEqual([0, 0, 0, 0x20]);
    expect([...data.slice(14, 24)]).toEqual([0, 64, ...be(600, 4), ...be(60, 4)]);
    expect([...data.slice(24, 32)]).toEqual(be(MAX_TOKEN_BYTES / 4096, 8));
    // Supported commands
    expect([...data.slice(44, 59)]).toEqual([15, 0x83, 5, 0, 1, 0x10, 0x11, 0x1c, 0x84, 6, 0, 3, 4, 5, 7]);
  });
});
