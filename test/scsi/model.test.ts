import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { writeU16BE, writeU32BE, writeU64BE } from '../../src/base/bytes.ts';
import { LunOp, type LunRequest } from '../../src/block/lun-backend.ts';
import { cdb10, cdb16, Initiator, NO_DATA, Pending, pattern, type Result } from './support/initiator.ts';
import type { RamLun } from './support/ram-lun.ts';

/**
 * Data commands against a plain array: one after the other, and many at a time with completions in any order that a backend may choose.
 * Every command that is alone on its blocks, or is one request, takes effect at once: so at the moment when a task ends, the array changes.
 */
const BLOCKS = 64;

interface Step {
  kind: 'read' | 'write' | 'writeSame' | 'unmap' | 'orWrite' | 'compareAndWrite' | 'writeAndVerify' | 'verify';
  lba: number;
  blocks: number;
  /** 0: zeroes. */
  seed: number;
  /** COMPARE AND WRITE, VERIFY: whether what is compared is meant to be right. */
  right: boolean;
  flags: number;
}

const steps = (maxLength: number): fc.Arbitrary<Step[]> =>
  fc.array(
    fc
      .record({
        kind: fc.constantFrom(
          'read' as const,
          'write' as const,
          'writeSame' as const,
          'unmap' as const,
          'orWrite' as const,
          'compareAndWrite' as const,
          'writeAndVerify' as const,
          'verify' as const,
        ),
        lba: fc.nat(BLOCKS - 1),
        blocks: fc.integer({ min: 1, max: 12 }),
        seed: fc.nat(3),
        right: fc.boolean(),
        flags: fc.constantFrom(0, 0x08),
      })
      .map((step) => ({ ...step, blocks: Math.min(step.blocks, BLOCKS - step.lba) })),
    { minLength: 1, maxLength },
  );

class Model {
  readonly bytes: Uint8Array;
  readonly blockSize: number;

  constructor(blockSize: number) {
    this.blockSize = blockSize;
    this.bytes = new Uint8Array(BLOCKS * blockSize);
  }

  range(step: Step): Uint8Array {
    return this.bytes.subarray(step.lba * this.blockSize, (step.lba + step.blocks) * this.blockSize);
  }

  payload(step: Step, blocks: number): Uint8Array {
    return step.seed === 0 ? new Uint8Array(blocks * this.blockSize) : pattern(blocks * this.blockSize, step.seed);
  }
}

/** A step as CDB and Data-Out; `now` is what the model holds there when the command is sent. */
function build(model: Model, step: Step): { cdb: number[]; out: Uint8Array; expectedIn: number } {
  const { lba, blocks, flags } = step;
  const data = model.payload(step, blocks);
  const now = model.range(step).slice();
  if (!step.right) now[now.length - 1]! ^= 0xff;
  switch (step.kind) {
    case 'read':
      return { cdb: cdb10(0x28, lba, blocks, flags), out: NO_DATA, expectedIn: data.length };
    case 'write':
      return { cdb: cdb16(0x8a, lba, blocks, flags), out: data, expectedIn: 0 };
    case 'writeSame':
      return { cdb: cdb16(0x93, lba, blocks, flags), out: model.payload(step, 1), expectedIn: 0 };
    case 'orWrite':
      return { cdb: cdb16(0x8b, lba, blocks, flags), out: data, expectedIn: 0 };
    case 'writeAndVerify':
      return { cdb: cdb10(0x2e, lba, blocks, 0x02), out: data, expectedIn: 0 };
    case 'verify':
      return { cdb: cdb10(0x2f, lba, blocks, 0x02), out: now, expectedIn: 0 };
    case 'compareAndWrite': {
      const cdb = cdb16(0x89, lba, 0, flags);
      cdb[13] = blocks;
      const out = new Uint8Array(2 * data.length);
      out.set(now);
      out.set(data, data.length);
      return { cdb, out, expectedIn: 0 };
    }
    default: {
      const list = new Uint8Array(24);
      writeU16BE(list, 0, 22);
      writeU16BE(list, 2, 16);
      writeU64BE(list, 8, lba);
      writeU32BE(list, 16, blocks);
      return { cdb: [0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0], out: list, expectedIn: 0 };
    }
  }
}

/** Does the step on the model and says what its result has to be. */
function apply(model: Model, step: Step, out: Uint8Array): Partial<Result> {
  const range = model.range(step);
  const good = { status: 0, residual: 0 };
  switch (step.kind) {
    case 'read':
      return { ...good, data: range.slice() };
    case 'write':
    case 'writeAndVerify':
      range.set(out);
      return good;
    case 'writeSame':
      for (let at = 0; at < range.length; at += out.length) range.set(out, at);
      return good;
    case 'unmap':
      range.fill(0);
      return good;
    case 'orWrite':
      for (let i = 0; i < range.length; i++) range[i]! |= out[i]!;
      return good;
    case 'verify':
      return Buffer.compare(range, out) === 0 ? good : { status: 2, sense: 'e/1d/00' };
    default:
      if (Buffer.compare(range, out.subarray(0, range.length)) !== 0) return { status: 2, sense: 'e/1d/00' };
      range.set(out.subarray(range.length));
      return good;
  }
}

function check(result: Result, expected: Partial<Result>): void {
  const { data, ...rest } = expected;
  expect(result).toMatchObject(rest);
  if (data) expect(Buffer.compare(result.data, data)).toBe(0);
}

/** Requests that may complete now: those that overlap none that was submitted earlier. */
function completable(lun: RamLun): number[] {
  const overlaps = (a: LunRequest, b: LunRequest): boolean =>
    a.op !== LunOp.FLUSH && b.op !== LunOp.FLUSH && a.offset < b.offset + b.length && b.offset < a.offset + a.length;
  return lun.queue.flatMap((request, i) =>
    lun.queue.slice(0, i).some((other) => overlaps(other, request)) ? [] : [i],
  );
}

describe.each([512, 4096] as const)('data commands on blocks of %i bytes', (blockSize) => {
  const make = (): Initiator => new Initiator({ logicalBlockSize: blockSize, sizeBytes: BLOCKS * blockSize });

  it('one after the other do what a plain array does', () => {
    fc.assert(
      fc.property(steps(30), fc.integer({ min: 1, max: 4 }), (list, pieces) => {
        const initiator = make();
        initiator.pieces = pieces;
        const model = new Model(blockSize);
        for (const step of list) {
          const { cdb, out, expectedIn } = build(model, step);
          check(initiator.send(cdb, out, expectedIn), apply(model, step, out));
          expect(Buffer.compare(initiator.lun.data, model.bytes)).toBe(0);
        }
      }),
      { numRuns: 60 },
    );
  });

  it('many at a time do what a plain array does in the order of their ends', () => {
    const order = fc.array(fc.nat(1000), { minLength: 10, maxLength: 40 });
    fc.assert(
      fc.property(steps(40), order, (list, choices) => {
        const initiator = make();
        const { lun, unit, nexus } = initiator;
        const model = new Model(blockSize);
        let next = 0;
        let choice = 0;
        let inFlight = 0;
        const choose = (bound: number): number => choices[choice++ % choices.length]! % bound;
        while (next < list.length || inFlight > 0) {
          if (next < list.length && inFlight < 8 && (lun.queue.length === 0 || choose(2) === 0)) {
            const step = list[next++]!;
            const { cdb, out, expectedIn } = build(model, step);
            const pending = new Pending(nexus);
            inFlight++;
            pending.onDone = () => {
              inFlight--;
              check(pending.result(), apply(model, step, out));
            };
            pending.start(unit, cdb, out, expectedIn);
          } else {
            const ready = completable(lun);
            expect(ready.length).toBeGreaterThan(0);
            lun.completeOne(ready[choose(ready.length)]!);
          }
        }
        expect(Buffer.compare(lun.data, model.bytes)).toBe(0);
      }),
      { numRuns: 150 },
    );
  });

  it('of one counter, COMPARE AND WRITE lets exactly one of many writers win each round', () => {
    const initiator = make();
    const { lun, unit, nexus } = initiator;
    for (let round = 0; round < 20; round++) {
      const old = pattern(blockSize, round);
      initiator.out(cdb10(0x2a, 3, 1), old);
      const writers = Array.from({ length: 6 }, (_, i) => {
        const out = new Uint8Array(2 * blockSize);
        out.set(old);
        out.set(pattern(blockSize, 100 + i), blockSize);
        const cdb = cdb16(0x89, 3, 0);
        cdb[13] = 1;
        const pending = new Pending(nexus);
        pending.start(unit, cdb, out, 0);
        return pending;
      });
      lun.drain();
      expect(writers.filter((pending) => pending.result().status === 0).length).toBe(1);
    }
  });
});
