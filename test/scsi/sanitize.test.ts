import { describe, expect, it } from 'vitest';
import type { Clock } from '../../src/base/clock.ts';
import { LunOp } from '../../src/block/lun-backend.ts';
import { Nexus } from '../../src/scsi/nexus.ts';
import { Status } from '../../src/scsi/spec.ts';
import type { UnitMemory } from '../../src/scsi/unit-memory.ts';
import type { LogicalUnitOptions } from '../../src/scsi/unit-state.ts';
import { cdb10, checkCondition, GOOD, Initiator, NO_DATA, Pending, pattern, type Result } from './support/initiator.ts';

const OVERWRITE = 1;
const BLOCK_ERASE = 2;
const CRYPTO_ERASE = 3;
const EXIT_FAILURE_MODE = 0x1f;
const IMMED = 0x80;
const AUSE = 0x20;
const TEST_UNIT_READY = [0, 0, 0, 0, 0, 0];
const IN_PROGRESS = '2/04/1b';
const FAILED = '3/31/03';

const sanitize = (action: number, flags = 0, length = 0): number[] => [
  0x48,
  flags | action,
  0,
  0,
  0,
  0,
  0,
  length >> 8,
  length & 255,
  0,
];

const overwriteList = (first: number, bytes: readonly number[], length = bytes.length): Uint8Array =>
  Uint8Array.from([first, 0, length >> 8, length & 255, ...bytes]);

/** An initiator of a unit that is kept, as by its volume. */
function kept(options: Partial<LogicalUnitOptions> = {}): { initiator: Initiator; memories: UnitMemory[] } {
  const memories: UnitMemory[] = [];
  const keep = async (memory: UnitMemory): Promise<void> => void memories.push(memory);
  return { initiator: new Initiator({ keep, ...options }), memories };
}

/** Another nexus that sends commands while something is under way. */
function bystander(initiator: Initiator): (cdb: readonly number[], length?: number) => Result {
  const nexus = new Nexus('iqn.2026-01.test:other,i,0x2', initiator.nexus.targetPort, 1);
  initiator.unit.attach(nexus, false);
  const pending = new Pending(nexus);
  return (cdb, length = 0) => {
    pending.start(initiator.unit, cdb, NO_DATA, length);
    return pending.result();
  };
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

describe('SANITIZE', () => {
  it.each([
    ['BLOCK ERASE', BLOCK_ERASE],
    ['CRYPTOGRAPHIC ERASE', CRYPTO_ERASE],
  ])('%s unmaps everything that is mapped, and nothing else', (_name, action) => {
    const initiator = new Initiator();
    initiator.out(cdb10(0x2a, 100, 64), pattern(64 * 512));
    initiator.lun.log.length = 0;
    expect(initiator.out(sanitize(action))).toMatchObject(GOOD);
    expect(initiator.lun.data.every((byte) => byte === 0)).toBe(true);
    expect(initiator.lun.mapped.size).toBe(0);
    const unmapped = initiator.lun.log.filter(({ op }) => op === LunOp.UNMAP);
    expect(unmapped.map(({ offset, length }) => [offset, length])).toEqual([[6 * 8192, 5 * 8192]]);
    expect(initiator.lun.log.at(-1)!.op).toBe(LunOp.FLUSH);
    expect(initiator.out(TEST_UNIT_READY)).toMatchObject(GOOD);
  });

  it.each([
    ['once', 0x01, (i: number) => [0xaa, 0x55, 0x01][(i % 512) % 3]!],
    ['three times', 0x03, (i: number) => [0xaa, 0x55, 0x01][(i % 512) % 3]!],
    ['twice, inverted the second time', 0x82, (i: number) => 0xff ^ [0xaa, 0x55, 0x01][(i % 512) % 3]!],
  ])('OVERWRITE writes its pattern to every block %s', (_name, first, expected) => {
    const initiator = new Initiator();
    const list = overwriteList(first, [0xaa, 0x55, 0x01]);
    expect(initiator.out(sanitize(OVERWRITE, 0, list.length), list)).toMatchObject(GOOD);
    expect(initiator.lun.data.every((byte, i) => byte === expected(i))).toBe(true);
    const written = initiator.lun.log.reduce((sum, { op, length }) => sum + (op === LunOp.WRITE ? length : 0), 0);
    expect(written).toBe((first & 0x1f) * initiator.lun.sizeBytes);
  });

  it.each([
    ['no pattern', overwriteList(1, []), '5/24/00'],
    ['more than a block', overwriteList(1, new Array(513).fill(1)), '5/24/00'],
    ['no passes', overwriteList(0, [1]), '5/24/00'],
    ['a pattern of no bytes', overwriteList(1, [1], 0), '5/24/00'],
    ['a pattern that is not there', overwriteList(1, [1], 2), '5/24/00'],
    ['TEST', overwriteList(0x21, [1]), '5/24/00'],
    ['a reserved byte', Uint8Array.from([1, 1, 0, 1, 1]), '5/26/00'],
  ])('OVERWRITE is refused with %s, and nothing is done', (_name, list, sense) => {
    const initiator = new Initiator();
    expect(initiator.out(sanitize(OVERWRITE, 0, list.length), list)).toMatchObject(checkCondition(sense));
    expect(initiator.lun.log).toEqual([]);
    expect(initiator.out(TEST_UNIT_READY)).toMatchObject(GOOD);
  });

  it('refuses unknown actions, reserved bits, write protection and a medium that is not there', () => {
    const initiator = new Initiator({ removable: true });
    for (const action of [0, 4, 5, 0x1e]) {
      expect(initiator.out(sanitize(action))).toMatchObject(checkCondition('5/24/00'));
    }
    expect(initiator.out(sanitize(BLOCK_ERASE, 0x40))).toMatchObject(checkCondition('5/24/00'));
    expect(initiator.out(sanitize(BLOCK_ERASE, 0, 4), new Uint8Array(4))).toMatchObject(checkCondition('5/24/00'));
    initiator.lun.readOnly = true;
    expect(initiator.out(sanitize(BLOCK_ERASE))).toMatchObject(checkCondition('7/27/00'));
    initiator.lun.readOnly = false;
    initiator.out([0x1b, 0, 0, 0, 2, 0]);
    expect(initiator.out(sanitize(BLOCK_ERASE))).toMatchObject(checkCondition('2/3a/00'));
  });

  it('with IMMED is answered at once; others are refused meanwhile and hear how far it is', () => {
    const initiator = new Initiator();
    const other = bystander(initiator);
    for (const granule of [10, 60, 120]) initiator.lun.mapped.add(granule);
    initiator.pending.start(initiator.unit, sanitize(BLOCK_ERASE, IMMED), NO_DATA, 0);
    expect(initiator.pending.result()).toMatchObject(GOOD);
    const progress: number[] = [];
    while (initiator.lun.queue.length > 0) {
      const refused = other(TEST_UNIT_READY);
      expect(refused).toMatchObject(checkCondition(IN_PROGRESS));
      expect(refused.senseBytes[15]).toBe(0x80);
      progress.push(refused.senseBytes[16]! * 256 + refused.senseBytes[17]!);
      const sense = other([3, 0, 0, 0, 252, 0], 252);
      expect([...sense.data.slice(15, 18)]).toEqual([...refused.senseBytes.slice(15, 18)]);
      expect(sense.data[12]! * 256 + sense.data[13]!).toBe(0x041b);
      expect(other([0x12, 0, 0, 0, 96, 0], 96)).toMatchObject(GOOD);
      expect(other([0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0], 16)).toMatchObject(GOOD);
      for (const cdb of [cdb10(0x28, 0, 1), [0x1a, 8, 0x3f, 0, 255, 0], [0x1b, 0, 0, 0, 1, 0], sanitize(BLOCK_ERASE)]) {
        expect(other(cdb, 512)).toMatchObject(checkCondition(IN_PROGRESS));
      }
      initiator.lun.completeOne(0);
    }
    expect(progress.at(-1)!).toBeGreaterThan(0xff00);
    expect([...progress].sort((a, b) => a - b)).toEqual(progress);
    expect(other(TEST_UNIT_READY)).toMatchObject(GOOD);
  });

  it('waits for what is under way, and what was let in before it came is refused', () => {
    const initiator = new Initiator();
    const early = new Pending(initiator.nexus);
    const late = new Pending(initiator.nexus);
    early.start(initiator.unit, cdb10(0x2a, 0, 1), pattern(512), 0);
    const { task } = late;
    task.cdb.set(cdb10(0x2a, 8, 1));
    task.cdbLength = 10;
    task.expectedDataOut = 512;
    expect(initiator.unit.prepare(task)).toBe(true);
    initiator.pending.start(initiator.unit, sanitize(BLOCK_ERASE), NO_DATA, 0);
    expect(initiator.lun.queue.map(({ op }) => op)).toEqual([LunOp.WRITE]);
    initiator.unit.execute(task);
    expect([late.doneCount, task.status]).toEqual([1, Status.CHECK_CONDITION]);
    initiator.lun.drain();
    expect(early.result()).toMatchObject(GOOD);
    expect(initiator.pending.result()).toMatchObject(GOOD);
    expect(initiator.lun.data.every((byte) => byte === 0)).toBe(true);
  });

  it('goes on when its command is aborted and when the unit is reset', () => {
    const initiator = new Initiator();
    const other = bystander(initiator);
    const list = overwriteList(1, [0x77]);
    const { pending, unit, lun } = initiator;
    pending.start(unit, sanitize(OVERWRITE, 0, list.length), list, 0);
    unit.abort(pending.task);
    let resets = 0;
    unit.reset(null, () => resets++);
    lun.completeOne(0);
    expect([pending.doneCount, pending.task.status, resets]).toEqual([1, Status.TASK_ABORTED, 1]);
    expect(other(TEST_UNIT_READY).sense).toMatch(/^6/);
    lun.drain();
    expect(lun.data.every((byte) => byte === 0x77)).toBe(true);
    expect(other(TEST_UNIT_READY)).toMatchObject(GOOD);
  });

  it('that fails leaves a unit that only another attempt, or AUSE and EXIT FAILURE MODE, make usable again', async () => {
    const { initiator, memories } = kept();
    const run = async (cdb: readonly number[], data: Uint8Array = NO_DATA): Promise<Result> => {
      initiator.pending.start(initiator.unit, cdb, data, 0);
      for (let i = 0; i < 4; i++) {
        await turn();
        initiator.lun.drain();
      }
      return initiator.pending.result();
    };
    expect(await run(sanitize(EXIT_FAILURE_MODE))).toMatchObject(checkCondition('5/24/00'));
    initiator.lun.mapped.add(3);
    initiator.lun.failures.set(LunOp.UNMAP, 'EIO');
    expect(await run(sanitize(BLOCK_ERASE))).toMatchObject(checkCondition(FAILED));
    expect(memories.at(-1)!.operation).toMatchObject({ failed: true, mayBeGivenUp: false });
    expect(await run(TEST_UNIT_READY)).toMatchObject(checkCondition(FAILED));
    expect(await run([0x04, 0, 0, 0, 0, 0])).toMatchObject(checkCondition(FAILED));
    expect(await run(sanitize(EXIT_FAILURE_MODE))).toMatchObject(checkCondition('5/24/00'));
    expect(await run(sanitize(BLOCK_ERASE, AUSE))).toMatchObject(checkCondition(FAILED));
    expect(await run(sanitize(EXIT_FAILURE_MODE))).toMatchObject(GOOD);
    expect(memories.at(-1)!.operation).toBeNull();
    expect(await run(TEST_UNIT_READY)).toMatchObject(GOOD);
    expect(await run(sanitize(BLOCK_ERASE))).toMatchObject(checkCondition(FAILED));
    initiator.lun.failures.clear();
    expect(await run(sanitize(BLOCK_ERASE))).toMatchObject(GOOD);
    expect(memories.at(-1)!.operation).toBeNull();
  });

  it('is kept before anything is erased, and begins again in the next process', async () => {
    const { initiator, memories } = kept();
    const list = overwriteList(1, [0x31, 0x32]);
    initiator.pending.start(initiator.unit, sanitize(OVERWRITE, IMMED, list.length), list, 0);
    expect(initiator.lun.queue).toEqual([]);
    expect(memories.at(-1)!.operation).toMatchObject({ command: 'sanitize', pattern: '3132', failed: false });
    await turn();
    expect(initiator.pending.result()).toMatchObject(GOOD);
    initiator.lun.completeOne(0);

    const next = kept({ memory: memories.at(-1)! });
    next.initiator.pending.start(next.initiator.unit, TEST_UNIT_READY, NO_DATA, 0);
    expect(next.initiator.pending.result()).toMatchObject(checkCondition(IN_PROGRESS));
    next.initiator.lun.drain();
    await turn();
    expect(next.initiator.lun.data.every((byte, i) => byte === 0x31 + (i % 2))).toBe(true);
    expect(next.memories.at(-1)!.operation).toBeNull();
    expect(next.initiator.out(TEST_UNIT_READY)).toMatchObject(GOOD);
  });

  it('does nothing when it cannot be kept that it has begun', async () => {
    const initiator = new Initiator({ keep: () => Promise.reject(new Error('no')) });
    initiator.pending.start(initiator.unit, sanitize(BLOCK_ERASE), NO_DATA, 0);
    await turn();
    expect(initiator.pending.result()).toMatchObject(checkCondition('4/44/00'));
    expect(initiator.lun.log).toEqual([]);
    expect(initiator.out(TEST_UNIT_READY)).toMatchObject(GOOD);
  });

  it('leaves the device to others: it overwrites no more than so much in a time', () => {
    const timers: { at: number; callback: () => void }[] = [];
    let now = 1000;
    const clock: Clock = {
      nowMs: () => now,
      setTimer: (delayMs, callback) => {
        timers.push({ at: now + delayMs, callback });
        return { cancel: () => {} };
      },
    };
    const initiator = new Initiator({ sizeBytes: 4 * 1024 * 1024, clock });
    const list = overwriteList(1, [1]);
    initiator.pending.start(initiator.unit, sanitize(OVERWRITE, 0, list.length), list, 0);
    while (!initiator.pending.isDone) {
      initiator.lun.drain();
      const timer = timers.shift();
      if (timer === undefined) continue;
      now = timer.at;
      timer.callback();
    }
    expect(initiator.pending.result()).toMatchObject(GOOD);
    expect(now - 1000).toBeCloseTo((4 * 1000) / 192, 5);
  });

  it('takes the size that the medium has when it comes to its end', () => {
    const initiator = new Initiator();
    for (let granule = 0; granule < 128; granule++) initiator.lun.mapped.add(granule);
    initiator.lun.data.fill(1);
    initiator.pending.start(initiator.unit, sanitize(BLOCK_ERASE), NO_DATA, 0);
    initiator.lun.completeOne(0);
    initiator.lun.resize(2 * 1024 * 1024);
    initiator.lun.data.fill(2, 1024 * 1024);
    initiator.unit.capacityChanged();
    for (let granule = 128; granule < 256; granule++) initiator.lun.mapped.add(granule);
    initiator.lun.drain();
    expect(initiator.pending.result()).toMatchObject(GOOD);
    expect(initiator.lun.data.every((byte) => byte === 0)).toBe(true);
  });
});

describe('FORMAT UNIT', () => {
  const format = (flags: number): number[] => [0x04, flags, 0, 0, 0, 0];
  const FMTDATA = 0x10;
  const LONGLIST = 0x20;

  it('unmaps everything', () => {
    const initiator = new Initiator();
    for (const [flags, list] of [
      [0, []],
      [FMTDATA, [0, 0, 0, 0]],
      [FMTDATA, [0, 0x80, 0, 0]],
      [FMTDATA | 0x0f, [0, 0xe2, 0, 0]],
      [FMTDATA | LONGLIST, [0, 0x82, 0, 0, 0, 0, 0, 0]],
    ] as const) {
      initiator.out(cdb10(0x2a, 5, 30), pattern(30 * 512));
      expect(initiator.out(format(flags), Uint8Array.from(list))).toMatchObject(GOOD);
      expect(initiator.lun.mapped.size).toBe(0);
      expect(initiator.lun.data.every((byte) => byte === 0)).toBe(true);
    }
  });

  it.each([
    ['protection information', 0xd0, [0, 0, 0, 0], '5/24/00'],
    ['options without a list', 0x20, [], '5/24/00'],
    ['half a header', FMTDATA, [0, 0], '5/1a/00'],
    ['a protection field', FMTDATA, [1, 0, 0, 0], '5/26/00'],
    ['options that FOV does not make valid', FMTDATA, [0, 0x40, 0, 0], '5/26/00'],
    ['an initialization pattern', FMTDATA, [0, 0x88, 0, 0], '5/26/00'],
    ['stopping on errors', FMTDATA, [0, 0x90, 0, 0], '5/26/00'],
    ['a defect list', FMTDATA, [0, 0, 0, 8], '5/26/00'],
    ['a long defect list', FMTDATA | LONGLIST, [0, 0, 0, 0, 0, 0, 0, 8], '5/26/00'],
    ['a protection interval', FMTDATA | LONGLIST, [0, 0, 0, 1, 0, 0, 0, 0], '5/26/00'],
  ])('is refused with %s, and nothing is done', (_name, flags, list, sense) => {
    const initiator = new Initiator();
    expect(initiator.out(format(flags), Uint8Array.from(list))).toMatchObject(checkCondition(sense));
    expect(initiator.lun.log).toEqual([]);
  });

  it('is in progress, and fails, in its own words', () => {
    const initiator = new Initiator();
    const other = bystander(initiator);
    initiator.lun.mapped.add(0);
    initiator.lun.failures.set(LunOp.UNMAP, 'ENOSPC');
    initiator.pending.start(initiator.unit, format(FMTDATA), Uint8Array.from([0, 2, 0, 0]), 0);
    expect(initiator.pending.result()).toMatchObject(GOOD);
    expect(other(TEST_UNIT_READY)).toMatchObject(checkCondition('2/04/04'));
    initiator.lun.drain();
    expect(other(TEST_UNIT_READY)).toMatchObject(checkCondition('3/31/01'));
    initiator.lun.failures.clear();
    expect(initiator.out(format(0))).toMatchObject(GOOD);
    expect(other(TEST_UNIT_READY)).toMatchObject(GOOD);
  });
});
