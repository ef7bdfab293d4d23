import { describe, expect, it } from 'vitest';
import { LunOp } from '../../src/block/lun-backend.ts';
import { Access } from '../../src/scsi/command.ts';
import { MAX_SEGMENT_DESCRIPTORS } from '../../src/scsi/copy-limits.ts';
import {
  be,
  CopyTarget,
  copyAbort,
  copyOut,
  cscd,
  lid1,
  lid4,
  naaOf,
  offsetSegment,
  receive,
  segment,
} from './support/copy.ts';
import { cdb10, cdb16, checkCondition, GOOD, MIB, NO_DATA, pattern, type Result } from './support/initiator.ts';

const BLOCK = 512;
const BOTH = [cscd(naaOf(0)), cscd(naaOf(1))];

/** COMMAND-SPECIFIC INFORMATION and the sense key specific bytes of fixed sense data. */
const details = ({ senseBytes }: Result): number[] => [
  Buffer.from(senseBytes).readUInt32BE(8),
  ...senseBytes.slice(15, 18),
];

describe.each([
  ['LID1', 0, lid1],
  ['LID4', 1, lid4],
] as const)('EXTENDED COPY(%s)', (_name, action, list) => {
  const copy = (target: CopyTarget, lun: number, bytes: Uint8Array): Result =>
    target.send(lun, copyOut(action, bytes.length), bytes);

  it('copies between two units, whichever of them it comes to', () => {
    for (const lun of [0, 1]) {
      const target = new CopyTarget();
      const data = pattern(100 * BLOCK);
      target.media[0]!.data.set(data, 3 * BLOCK);
      expect(copy(target, lun, list(BOTH, [segment(0, 3, 1, 1000, 100)]))).toMatchObject({ ...GOOD, residual: 0 });
      expect(Buffer.compare(target.media[1]!.data.subarray(1000 * BLOCK, 1100 * BLOCK), data)).toBe(0);
      expect(target.media[1]!.log.map(({ op }) => op)).toEqual([LunOp.COPY]);
    }
  });

  it('copies within a unit, named by its designator or as the one that the command came to', () => {
    const target = new CopyTarget();
    const data = pattern(8 * BLOCK);
    target.media[0]!.data.set(data);
    const segments = [segment(0, 0, 0, 100, 8), segment(0xffff, 100, 0xffff, 200, 8)];
    expect(copy(target, 0, list([cscd(naaOf(0))], segments))).toMatchObject(GOOD);
    expect(target.media[0]!.data.slice(200 * BLOCK, 208 * BLOCK)).toEqual(data);
  });

  it('takes a list of segments one after the other', () => {
    const target = new CopyTarget();
    target.media[0]!.data.set(pattern(BLOCK));
    const segments = Array.from({ length: MAX_SEGMENT_DESCRIPTORS - 1 }, (_, i) => segment(0, i, 0, i + 1, 1));
    expect(copy(target, 0, list([cscd(naaOf(0))], [...segments, segment(0, 5, 0, 9, 0)]))).toMatchObject(GOOD);
    expect(target.media[0]!.data.slice((MAX_SEGMENT_DESCRIPTORS - 1) * BLOCK).slice(0, BLOCK)).toEqual(pattern(BLOCK));
  });

  it('takes segments with a length in bytes', () => {
    const target = new CopyTarget();
    target.media[0]!.data.set(pattern(2 * MIB));
    expect(copy(target, 1, list(BOTH, [offsetSegment(0, 0, 1, 2048, 2 * MIB)]))).toMatchObject(GOOD);
    expect(Buffer.compare(target.media[1]!.data.subarray(MIB, 3 * MIB), pattern(2 * MIB))).toBe(0);
  });

  it('does nothing without a parameter list, or with one that has no segments', () => {
    const target = new CopyTarget();
    expect(copy(target, 0, NO_DATA)).toMatchObject(GOOD);
    expect(copy(target, 0, list(BOTH, []))).toMatchObject(GOOD);
  });

  it('counts blocks of the source, or with DC those of the destination', () => {
    const target = new CopyTarget([{}, { logicalBlockSize: 4096 }]);
    target.media[0]!.data.set(pattern(8192));
    const cscds = [cscd(naaOf(0), 512), cscd(naaOf(1), 4096)];
    expect(copy(target, 0, list(cscds, [segment(0, 0, 1, 1, 8), segment(0, 8, 1, 2, 1, 0x02)]))).toMatchObject(GOOD);
    expect(target.media[1]!.data.slice(4096, 4096 + 8192)).toEqual(pattern(8192));
    const inexact = copy(target, 0, list(cscds, [segment(0, 0, 1, 1, 8), segment(0, 0, 1, 1, 9)]));
    expect(inexact).toMatchObject(checkCondition('a/26/0a'));
    expect(details(inexact)[0]).toBe(1);
  });

  it('says which segment went wrong, and where in it', () => {
    const target = new CopyTarget();
    const good = segment(0, 0, 1, 0, 1);
    const end = (4 * MIB) / BLOCK;
    const cases: [number[], string, number][] = [
      [segment(0, 0, 2, 0, 1), 'a/08/04', 6],
      [segment(0xc000, 0, 1, 0, 1), 'a/08/04', 4],
      [segment(0, end - 1, 1, 0, 2), 'a/00/00', 12],
      [segment(0, 0, 1, end, 1), 'a/00/00', 20],
      [segment(0, 0, 1, 2 ** 53, 1), 'a/00/00', 20],
      [segment(0, 0, 0, 1, 2), 'a/26/0c', 20],
    ];
    for (const [wrong, sense, field] of cases) {
      const result = copy(target, 0, list(BOTH, [good, wrong, good]));
      expect(result).toMatchObject(checkCondition(sense));
      expect(details(result)).toEqual([1, 0xa0, 0, field]);
    }
    expect(target.media[1]!.log.length).toBe(cases.length);
  });

  it('keeps what became of it for who asks, once', () => {
    const target = new CopyTarget();
    copy(target, 0, list(BOTH, [segment(0, 0, 1, 0, 16), segment(0, 0, 1, 0, 16)], { listId: 9 }));
    const status = receive(action === 0 ? 0 : 5, 9);
    const { data } = target.in(0, status);
    if (action === 0) expect([...data]).toEqual([0, 0, 0, 8, 1, 0, 2, 0, ...be(32 * BLOCK, 4)]);
    else {
      expect([...data.slice(0, 32)]).toEqual([
        ...[0, 0, 0, 28, action, 1, 0, 2, 0xff, 0xff, 0xff, 0xfe, 0, 0, 0, 0],
        ...be(32 * BLOCK, 8),
        ...[0, 2, 0, 0, 0, 0, 0, 0],
      ]);
    }
    // LID4 tells it until the identifier is used again.
    expect(target.in(0, status)).toMatchObject(action === 0 ? checkCondition('5/24/00') : GOOD);
  });

  it('keeps nothing of one without a list identifier', () => {
    const target = new CopyTarget();
    copy(target, 0, list(BOTH, [segment(0, 0, 1, 0, 1)], { listId: 0, usage: 3 }));
    expect(target.in(0, receive(0, 0))).toMatchObject(checkCondition('5/24/00'));
    expect(copy(target, 0, list(BOTH, [], { usage: 3 }))).toMatchObject(checkCondition('5/26/00'));
    expect(copy(target, 0, list(BOTH, [], { usage: 1 }))).toMatchObject(checkCondition('5/26/00'));
  });

  it('stops between two steps when COPY OPERATION ABORT asks', () => {
    const target = new CopyTarget([{}, {}]);
    const bytes = list(BOTH, [segment(0, 0, 1, 0, 1), segment(0, 0, 1, 1, 1)], { listId: 5 });
    const running = target.start(0, copyOut(action, bytes.length), bytes);
    expect(target.media[1]!.queue.length).toBe(1);
    expect(target.send(0, copyOut(action, bytes.length), bytes)).toBeDefined();
    expect(running.isDone).toBe(true);

    const again = target.start(0, copyOut(action, bytes.length), bytes);
    const same = target.start(0, copyOut(action, bytes.length), bytes);
    expect(same.result()).toMatchObject(checkCondition('5/00/16'));
    const abort = target.start(0, copyAbort(5));
    expect(abort.isDone).toBe(false);
    target.drain();
    expect(abort.result()).toMatchObject(GOOD);
    expect(again.result()).toMatchObject(checkCondition('a/2f/02'));
    const { data } = target.in(0, receive(5, 5));
    expect([data[5], ...data.slice(12, 15), data.length]).toEqual([0x60, 0x40, 0, 0, 32]);
    expect(target.in(0, copyAbort(5))).toMatchObject(checkCondition('5/24/00'));
  });

  it('ends as aborted when its task is', () => {
    const target = new CopyTarget();
    const bytes = list(BOTH, [segment(0, 0, 1, 0, 1), segment(0, 0, 1, 1, 1)]);
    const running = target.start(1, copyOut(action, bytes.length), bytes);
    running.task.aborted = true;
    target.drain();
    expect(running.result().status).toBe(0x40);
    expect(target.media[1]!.log.length).toBe(1);
    expect(target.send(0, cdb10(0x2a, 0, 1), pattern(BLOCK))).toMatchObject(GOOD);
    expect(target.send(1, cdb10(0x2a, 0, 1), pattern(BLOCK))).toMatchObject(GOOD);
  });
});

describe('EXTENDED COPY', () => {
  it('writes durably where the write cache is off', () => {
    const target = new CopyTarget([{}, { writeCache: false }]);
    target.copy(0, lid1(BOTH, [segment(0, 0, 1, 0, 1)]));
    expect(target.media[1]!.log).toMatchObject([{ op: LunOp.COPY, fua: true }]);
  });

  it('finds a unit by its T10 vendor designator', () => {
    const target = new CopyTarget([{ designation: 'a' }, { designation: 'b' }]);
    target.media[0]!.data.set(pattern(BLOCK));
    const named = ['THINLUN a', 'THINLUN b'].map((name) => cscd(Buffer.from(name), 512, 1, 2));
    expect(target.copy(0, lid1(named, [segment(0, 0, 1, 0, 1)]))).toMatchObject(GOOD);
    expect(target.media[1]!.data.slice(0, BLOCK)).toEqual(pattern(BLOCK));
    const others = [Buffer.from('THINLUN c'), Buffer.from('THINLUN'), new Uint8Array(0)];
    for (const other of others) {
      const result = target.copy(0, lid1([named[0]!, cscd(other, 512, 1, 2)], [segment(0, 0, 1, 0, 1)]));
      expect(result).toMatchObject(checkCondition('a/08/04'));
    }
  });

  it('refuses designators that name no unit, and units that are not what the descriptor says', () => {
    const target = new CopyTarget();
    const wrong: [number[], string][] = [
      [cscd(naaOf(7)), 'a/08/04'],
      [cscd(naaOf(1).subarray(0, 15)), 'a/08/04'],
      [cscd(naaOf(1), 512, 2), 'a/08/04'],
      [cscd(naaOf(1), 512, 0x13), 'a/08/04'],
      [cscd(naaOf(1), 4096), 'a/0d/03'],
      [cscd(naaOf(1)).with(1, 1), 'a/0d/03'],
    ];
    for (const [descriptor, sense] of wrong) {
      const result = target.copy(0, lid1([cscd(naaOf(0)), descriptor], [segment(0, 0, 1, 0, 1)]));
      expect(result).toMatchObject(checkCondition(sense));
    }
    expect(target.media[1]!.log).toEqual([]);
    expect(target.copy(0, lid1([cscd(naaOf(0)), cscd(naaOf(1), 0)], [segment(0, 0, 1, 0, 1)]))).toMatchObject(GOOD);
  });

  it("CVE-2020-28374, CVE-2021-3139 (LIO, tcmu-runner: somebody else's LUN by descriptor): reaches no unit that its initiator may not use itself", () => {
    const target = new CopyTarget([{}, {}, {}]);
    const secret = pattern(BLOCK, 5);
    target.media[1]!.data.set(secret);
    target.media[2]!.data.set(secret);
    const rights = [Access.WRITE, Access.NONE, Access.READ];
    const guest = target.login({ of: (lun) => rights[lun]! });
    const all = [0, 1, 2].map((lun) => cscd(naaOf(lun)));
    const tries: [number[], string][] = [
      [segment(1, 0, 0, 0, 1), 'a/08/04'],
      [segment(0, 0, 1, 0, 1), 'a/08/04'],
      [segment(1, 0, 1, 5, 1), 'a/08/04'],
      [segment(0, 0, 2, 0, 1), 'a/0d/01'],
      [[0x07, 0, 0, 8, ...be(1, 2), 0, 0, 1, 0, 0, 0], 'a/08/04'],
    ];
    for (const [one, sense] of tries) {
      expect(target.copy(0, lid1(all, [one]), guest)).toMatchObject(checkCondition(sense));
    }
    expect(target.copy(0, lid1(all, [segment(2, 0, 0, 0, 1)]), guest)).toMatchObject(GOOD);
    expect(target.media[1]!.log).toEqual([]);
    expect(target.media[1]!.data.slice(0, BLOCK)).toEqual(secret);
    expect(target.media[2]!.data.slice(0, BLOCK)).toEqual(secret);
  });

  it('stops when access to a unit is taken away in the middle', () => {
    const target = new CopyTarget();
    const rights = new Map([
      [0, Access.WRITE as Access],
      [1, Access.WRITE as Access],
    ]);
    const guest = target.login({ of: (lun) => rights.get(lun)! });
    const bytes = lid1(BOTH, [segment(0, 0, 1, 0, 1), segment(0, 0, 1, 1, 1)]);
    const running = target.start(0, copyOut(0, bytes.length), bytes, 0, guest);
    rights.set(1, Access.NONE);
    target.target.accessChanged(guest);
    target.drain();
    expect(running.result()).toMatchObject(checkCondition('a/0d/01'));
    expect(target.media[1]!.log.length).toBe(1);
  });

  it('is refused what a reservation of another nexus refuses', () => {
    const target = new CopyTarget();
    const other = target.login();
    const list = lid1(BOTH, [segment(0, 0, 1, 0, 1)]);
    const back = lid1(BOTH, [segment(1, 0, 0, 0, 1)]);
    const key = Uint8Array.from([...be(0, 8), ...be(0xabc, 8), ...new Array(8).fill(0)]);
    const reserve = Uint8Array.from([...be(0xabc, 8), ...be(0, 8), ...new Array(8).fill(0)]);
    expect(target.send(1, [0x5f, 0x00, 0, 0, 0, 0, 0, 0, 24, 0], key, 0, other)).toMatchObject(GOOD);
    // Write exclusive: a source it may be.
    expect(target.send(1, [0x5f, 0x01, 1, 0, 0, 0, 0, 0, 24, 0], reserve, 0, other)).toMatchObject(GOOD);
    expect(target.copy(0, list)).toMatchObject(checkCondition('a/0d/01'));
    expect(target.copy(0, back)).toMatchObject(GOOD);
    expect(target.copy(1, back).status).toBe(0x18);
    expect(target.send(1, [0x5f, 0x02, 1, 0, 0, 0, 0, 0, 24, 0], reserve, 0, other)).toMatchObject(GOOD);
    expect(target.send(1, [0x5f, 0x01, 3, 0, 0, 0, 0, 0, 24, 0], reserve, 0, other)).toMatchObject(GOOD);
    expect(target.copy(0, back)).toMatchObject(checkCondition('a/0d/01'));
    expect(target.copy(0, list, other)).toMatchObject(GOOD);
  });

  it('says that a device failed, and keeps the details until they are asked for', () => {
    const target = new CopyTarget();
    target.media[1]!.failures.set(LunOp.COPY, 'ENOSPC');
    const result = target.copy(0, lid1(BOTH, [segment(0, 0, 1, 0, 1)], { listId: 3 }));
    expect(result).toMatchObject(checkCondition('a/0d/01'));
    expect(details(result)).toEqual([0, 0xa0, 0, 6]);
    expect([...target.in(0, receive(0, 3)).data.slice(4, 7)]).toEqual([2, 0, 1]);
    const { data } = target.in(0, receive(4, 3));
    expect(data[56]).toBe(2);
    expect(data.slice(60)).toEqual(result.senseBytes);
    const status = target.in(0, receive(5, 3)).data;
    expect([...status.slice(4, 6), ...status.slice(12, 15), ...status.slice(24, 26)]).toEqual([0, 2, 2, 20, 18, 0, 1]);
    expect(status.slice(32, 50)).toEqual(result.senseBytes);
    expect(target.in(0, receive(4, 3))).toMatchObject(checkCondition('5/24/00'));
  });

  it('puts the segment into descriptor format sense data, too', () => {
    const target = new CopyTarget();
    target.units[0]!.state.descriptorSense = true;
    const { senseBytes } = target.copy(0, lid1(BOTH, [segment(0, 0, 1, 0, 1), segment(0, 0, 9, 0, 1)]));
    expect([...senseBytes.slice(0, 8)]).toEqual([0x72, 0xa, 8, 4, 0, 0, 0, 20]);
    expect([...senseBytes.slice(8)]).toEqual([2, 6, 0, 0, 0xa0, 0, 6, 0, 1, 10, 0, 0, ...be(1, 8)]);
  });

  it('verifies that a device is ready', () => {
    const target = new CopyTarget([{}, { removable: true }]);
    const verify = (tur: number): number[] => [0x07, 0, 0, 8, ...be(1, 2), 0, 0, tur, 0, 0, 0];
    expect(target.copy(0, lid1(BOTH, [verify(1)]))).toMatchObject(GOOD);
    target.units[1]!.state.mediumPresent = false;
    expect(target.copy(0, lid1(BOTH, [verify(0)]))).toMatchObject(GOOD);
    expect(target.copy(0, lid1(BOTH, [verify(1)]))).toMatchObject(checkCondition('a/0d/01'));
    expect(target.copy(0, lid1(BOTH, [segment(1, 0, 0, 0, 1)]))).toMatchObject(checkCondition('a/0d/01'));
  });

  it('is refused by a write-protected destination', () => {
    const target = new CopyTarget();
    target.media[1]!.readOnly = true;
    expect(target.copy(0, lid1(BOTH, [segment(0, 0, 1, 0, 1)]))).toMatchObject(checkCondition('a/0d/01'));
    expect(target.copy(1, lid1(BOTH, [segment(1, 0, 0, 0, 1)]))).toMatchObject(GOOD);
  });

  it('tells other nexuses nothing of its list identifiers', () => {
    const target = new CopyTarget();
    const other = target.login();
    target.copy(0, lid1(BOTH, [segment(0, 0, 1, 0, 1)], { listId: 3 }));
    expect(target.in(0, receive(0, 3), 64, other)).toMatchObject(checkCondition('5/24/00'));
    expect(target.in(1, receive(0, 3))).toMatchObject(checkCondition('5/24/00'));
    target.target.reset(other, () => {});
    while (target.send(0, [0, 0, 0, 0, 0, 0]).status !== 0);
    expect(target.in(0, receive(0, 3))).toMatchObject(checkCondition('5/24/00'));
  });

  it('keeps the newest of many', () => {
    const target = new CopyTarget();
    for (let listId = 0; listId < 100; listId++) target.copy(0, lid1(BOTH, [segment(0, 0, 1, 0, 1)], { listId }));
    const known = Array.from({ length: 100 }, (_, listId) => target.in(0, receive(0, listId)).status === 0);
    expect(known.indexOf(true)).toBe(36);
    expect(known.filter(Boolean).length).toBe(64);
  });

  it('works for a unit that stands alone, with itself only', () => {
    const target = new CopyTarget();
    const alone = target.units[0]!;
    const pending = target.start(0, [0, 0, 0, 0, 0, 0]);
    const list = lid1(BOTH, [segment(0, 0, 0, 100, 1), segment(0, 0, 1, 0, 1)]);
    pending.start(alone, copyOut(0, list.length), list, 0);
    target.drain();
    expect(pending.result()).toMatchObject(checkCondition('a/08/04'));
    expect(target.media[0]!.log.length).toBe(1);
    expect(target.media[1]!.log.length).toBe(0);
  });

  it('answers VMware: the limits, and a clone in segments of 4 MiB', () => {
    const target = new CopyTarget([{}, {}], 16 * MIB);
    const { data } = target.in(0, receive(3, 0));
    expect([...data.slice(0, 16)]).toEqual([0, 0, 0, 44, 1, 0, 0, 0, 0, 64, 0, 64, 0, 0, 0x10, 0]);
    expect([...data.slice(44)]).toEqual([0x02, 0x07, 0x0a, 0xe4]);
    target.media[0]!.data.set(pattern(12 * MIB));
    for (let at = 0; at < 12 * MIB; at += 4 * MIB) {
      const list = lid1(BOTH, [segment(0, at / BLOCK, 1, at / BLOCK, (4 * MIB) / BLOCK)], { listId: 0, usage: 3 });
      expect(target.copy(1, list)).toMatchObject(GOOD);
    }
    expect(Buffer.compare(target.media[1]!.data.subarray(0, 12 * MIB), pattern(12 * MIB))).toBe(0);
    expect(target.in(1, cdb16(0x88, 0, 8), 4096).data).toEqual(pattern(12 * MIB).slice(0, 4096));
  });
});
