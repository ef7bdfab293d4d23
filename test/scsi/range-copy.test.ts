import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { LunBackend } from '../../src/block/lun-backend.ts';
import { LunOp } from '../../src/block/lun-backend.ts';
import { LogicalUnit } from '../../src/scsi/logical-unit.ts';
import { CopyEnd, RangeCopy } from '../../src/scsi/range-copy.ts';
import type { UnitState } from '../../src/scsi/unit-state.ts';
import { CopyTarget, copyOut, cscd, lid1, naaOf, offsetSegment } from './support/copy.ts';
import { cdb10, cdb16, GOOD, MIB, type Pending, pattern, unitOptions } from './support/initiator.ts';
import { RamLun } from './support/ram-lun.ts';

/** A RAM disk that copies from nobody. */
class PlainLun extends RamLun {
  override copiesFrom(_source: LunBackend): boolean {
    return false;
  }
}

interface Outcome {
  ends: CopyEnd[];
  copied: number[];
  copy: RangeCopy;
}

function start(
  source: UnitState | null,
  from: number,
  destination: UnitState,
  to: number,
  length: number,
  mayGoOn: () => boolean = () => true,
): Outcome {
  const ends: CopyEnd[] = [];
  const copied: number[] = [];
  const copy = new RangeCopy({
    copyMayGoOn: mayGoOn,
    copyAdvanced: (bytes) => copied.push(bytes),
    copyEnded: (end) => ends.push(end),
  });
  copy.start(source, from, destination, to, length);
  return { ends, copied, copy };
}

const unitOn = (medium: RamLun): UnitState => new LogicalUnit(unitOptions(medium)).state;

describe('a copy that its destination does not offer', () => {
  it('reads and writes in pieces of a scratch buffer', () => {
    const [a, b] = [new PlainLun(MIB), new PlainLun(MIB)];
    a.data.set(pattern(MIB));
    const outcome = start(unitOn(a), 512, unitOn(b), 4096, 300 * 1024);
    while (a.queue.length + b.queue.length > 0) (a.queue.length > 0 ? a : b).drain();
    expect(outcome.ends).toEqual([CopyEnd.DONE]);
    // Pieces end at the destination's blocks.
    expect(outcome.copied).toEqual([126976, 131072, 49152]);
    expect(Buffer.compare(b.data.subarray(4096, 4096 + 300 * 1024), a.data.subarray(512, 512 + 300 * 1024))).toBe(0);
    expect(b.log.map(({ op }) => op)).toEqual([LunOp.WRITE, LunOp.WRITE, LunOp.WRITE]);
  });

  it('gives back what it holds when either side fails', () => {
    for (const [op, end] of [
      [LunOp.READ, CopyEnd.SOURCE_FAILED],
      [LunOp.WRITE, CopyEnd.DESTINATION_FAILED],
    ] as const) {
      const [a, b] = [new PlainLun(MIB), new PlainLun(MIB)];
      const [from, to] = [unitOn(a), unitOn(b)];
      (op === LunOp.READ ? a : b).failures.set(op, 'EIO');
      const outcome = start(from, 0, to, 0, 65536);
      a.drain();
      b.drain();
      expect(outcome.ends).toEqual([end]);
      expect(outcome.copy.failure).toBe(op === LunOp.READ ? 0x031100 : 0x030c00);
      for (const unit of [from, to]) {
        const holder = start(null, 0, unit, 0, MIB);
        (unit === from ? a : b).drain();
        expect(holder.ends).toEqual([CopyEnd.DONE]);
      }
    }
  });

  it('writes nothing when it was stopped while it read', () => {
    const [a, b] = [new PlainLun(MIB), new PlainLun(MIB)];
    let go = true;
    const outcome = start(unitOn(a), 0, unitOn(b), 0, 65536, () => go);
    go = false;
    a.drain();
    expect(outcome.ends).toEqual([CopyEnd.STOPPED]);
    expect(b.queue).toEqual([]);
  });
});

describe('a copy by reference', () => {
  it('goes in bounded steps that end at blocks of the destination', () => {
    const GIB = 1024 * MIB;
    const granularity = 192 * 1024;
    const lengths: number[] = [];
    const backend = {
      sizeBytes: 8 * GIB,
      readOnly: false,
      unmapGranularityBytes: granularity,
      unmappedReadsZeroes: true,
      copiesFrom: () => true,
      submit(request: Parameters<LunBackend['submit']>[0]): void {
        lengths.push(request.length);
        request.copied = request.length;
        queueMicrotask(() => request.owner.requestDone(request, null));
      },
    };
    const unit = new LogicalUnit({ ...unitOptions(new RamLun(MIB)), backend }).state;
    return new Promise<void>((resolve) => {
      const copy = new RangeCopy({
        copyMayGoOn: () => true,
        copyAdvanced: () => {},
        copyEnded: () => {
          expect(lengths.reduce((sum, each) => sum + each)).toBe(300 * MIB);
          expect(Math.max(...lengths)).toBeLessThanOrEqual(64 * MIB);
          let at = 512;
          for (const length of lengths.slice(0, -1)) {
            at += length;
            expect(at % granularity).toBe(0);
          }
          resolve();
        },
      });
      copy.start(unit, 4 * GIB, unit, 512, 300 * MIB);
    });
  });

  it('says how far it came when it fails', () => {
    const medium = new RamLun(MIB);
    const unit = unitOn(medium);
    medium.failures.set(LunOp.COPY, 'ENOSPC');
    const outcome = start(unit, 0, unit, 65536, 65536);
    medium.queue[0]!.copied = 4096;
    medium.drain();
    expect(outcome).toMatchObject({ ends: [CopyEnd.DESTINATION_FAILED], copied: [4096] });
    expect(outcome.copy.failure).toBe(0x072707);
  });

  it('sees that a volume has shrunk', () => {
    const medium = new RamLun(MIB);
    const unit = unitOn(medium);
    unit.blockCount = 100;
    expect(start(unit, 0, unit, 512 * 90, 512 * 11).ends).toEqual([CopyEnd.DESTINATION_FAILED]);
    expect(start(unit, 512 * 90, unit, 0, 512 * 11).ends).toEqual([CopyEnd.SOURCE_FAILED]);
    expect(medium.queue).toEqual([]);
  });
});

describe('copies that cross', () => {
  it('wait for commands that have their blocks alone, and those for them', () => {
    const target = new CopyTarget();
    const zero = new Uint8Array(512);
    const both = Buffer.concat([zero, pattern(512)]);
    const caw = cdb16(0x89, 4, 0);
    caw[13] = 1;
    const locker = target.start(1, caw, both);
    const list = lid1([cscd(naaOf(0)), cscd(naaOf(1))], [offsetSegment(1, 0, 0, 0, 4096)]);
    const copy = target.start(0, copyOut(0, list.length), list);
    expect(target.media[0]!.queue).toEqual([]);
    target.drain();
    expect(locker.result()).toMatchObject(GOOD);
    expect(copy.result()).toMatchObject(GOOD);
    // All of the other command, or nothing.
    expect(target.media[0]!.data.slice(4 * 512, 5 * 512)).toEqual(pattern(512));
  });

  it.each([
    ['source', 'destination'],
    ['destination', 'source'],
  ])('do not wait for each other in a circle, whichever of %s and %s is locked first', (first) => {
    const target = new CopyTarget();
    const caw = (lun: number): Pending => {
      const cdb = cdb16(0x89, 0, 0);
      cdb[13] = 1;
      return target.start(lun, cdb, new Uint8Array(1024));
    };
    const copy = (from: number, to: number): Pending => {
      const list = lid1([cscd(naaOf(0)), cscd(naaOf(1))], [offsetSegment(from, 0, to, 0, 512)], {
        usage: 3,
        listId: 0,
      });
      return target.start(0, copyOut(0, list.length), list);
    };
    const [a, b] =
      first === 'source'
        ? [copy.bind(null, 0, 1), copy.bind(null, 1, 0)]
        : [copy.bind(null, 1, 0), copy.bind(null, 0, 1)];
    // At unit 1: one that has it alone, then b, another one, a. At unit 0: a, one that wants it alone, b.
    const all = [caw(1), b(), caw(1), a(), caw(0)];
    target.drain();
    for (const one of all) expect(one.result()).toMatchObject(GOOD);
  });

  /** Whatever the order of events, everything that was begun ends, and every byte is one that somebody wrote there. */
  it('all end, whatever else is under way', () => {
    const command = fc.record({
      kind: fc.constantFrom('copy', 'copy', 'copy', 'caw', 'write', 'orwrite', 'same'),
      lun: fc.nat(2),
      to: fc.nat(2),
      a: fc.nat(15),
      b: fc.nat(15),
      length: fc.integer({ min: 1, max: 6 }),
      abort: fc.nat(9),
    });
    fc.assert(
      fc.property(
        fc.array(command, { minLength: 5, maxLength: 40 }),
        fc.array(fc.nat(99)),
        fc.boolean(),
        (all, order, plain) => {
          const target = new CopyTarget([{}, {}, {}], 65536);
          if (plain) for (const medium of target.media) medium.copiesFrom = () => false;
          const cscds = [0, 1, 2].map((lun) => cscd(naaOf(lun)));
          const pending: Pending[] = [];
          let tick = 0;
          const progress = (): void => {
            const busy = target.media.filter(({ queue }) => queue.length > 0);
            if (busy.length === 0) return;
            const pick = order[tick++ % Math.max(order.length, 1)] ?? 0;
            const { queue } = busy[pick % busy.length]!;
            busy[pick % busy.length]!.completeOne(pick % queue.length);
          };
          for (const { kind, lun, to, a, b, length, abort } of all) {
            const data = new Uint8Array(512 * length).fill(tick + 1);
            let one: Pending;
            if (kind === 'copy') {
              const list = lid1(cscds, [offsetSegment(lun, a, to, b, 512 * length)], { usage: 3, listId: 0 });
              one = target.start((lun + to) % 3, copyOut(0, list.length), list);
            } else if (kind === 'caw') {
              const cdb = cdb16(0x89, a, 0);
              cdb[13] = length;
              one = target.start(lun, cdb, Buffer.concat([new Uint8Array(512 * length), data]));
            } else if (kind === 'same') {
              one = target.start(lun, cdb10(0x41, a, length), data.slice(0, 512));
            } else {
              one = target.start(lun, kind === 'write' ? cdb10(0x2a, a, length) : cdb16(0x8b, a, length), data);
            }
            if (abort === 0 && !one.isDone) one.task.aborted = true;
            pending.push(one);
            progress();
          }
          for (let left = 10_000; left > 0 && target.media.some(({ queue }) => queue.length > 0); left--) progress();
          expect(pending.every(({ isDone }) => isDone)).toBe(true);
          for (const one of pending) one.result();
        },
      ),
      { numRuns: 500 },
    );
  });
});
