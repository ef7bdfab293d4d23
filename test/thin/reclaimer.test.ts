import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { RunSet } from '../../src/base/run-set.ts';
import type { BlockDevice, IoCompletion } from '../../src/block/block-device.ts';
import { DeferredSet } from '../../src/thin/deferred-set.ts';
import { Reclaimer } from '../../src/thin/reclaimer.ts';

const BLOCK_SIZE = 65536;

/** A reclaimer over a device whose discards end when the test says so. */
class World {
  readonly deferred: DeferredSet = new DeferredSet();
  readonly withheld: RunSet[] = [];
  readonly pending: { begin: number; end: number; completion: IoCompletion }[] = [];
  readonly reclaimer: Reclaimer;
  released = 0;

  constructor(passdown: boolean) {
    const device = {
      discardGranularityBytes: 4096,
      discard: (offset: number, length: number, completion: IoCompletion) => {
        const begin = offset / BLOCK_SIZE;
        this.pending.push({ begin, end: begin + length / BLOCK_SIZE, completion });
      },
      submit: () => {},
    };
    this.reclaimer = new Reclaimer(
      device as unknown as BlockDevice,
      BLOCK_SIZE,
      this.deferred,
      this.withheld,
      passdown,
      () => {
        this.released++;
      },
    );
  }

  /** A commit that freed these runs. */
  commit(runs: readonly (readonly [begin: number, end: number])[]): void {
    const freed = new RunSet();
    for (const [begin, end] of runs) freed.add(begin, end);
    this.reclaimer.take(freed);
    expect(freed.count).toBe(0);
    this.reclaimer.run();
  }

  discardEnds(index: number): void {
    this.pending.splice(index, 1)[0]!.completion.ioDone(null);
  }

  get withheldCount(): number {
    return this.withheld.reduce((sum, { count }) => sum + count, 0);
  }
}

/** Every other block: as many runs as blocks. */
function strewn(count: number): [number, number][] {
  return Array.from({ length: count }, (_, i) => [2 * i, 2 * i + 1]);
}

describe('the reclaimer', () => {
  it('takes what a commit has freed as it is, however many runs that are, also when it has some already', () => {
    const world = new World(true);
    world.commit([[900_000, 900_001]]);
    const freed = new RunSet();
    for (const [begin, end] of strewn(100_000)) freed.add(begin, end);
    let visited = 0;
    freed.forEach = () => {
      visited++;
    };
    world.reclaimer.take(freed);
    expect({ visited, left: freed.count, withheld: world.withheldCount }).toEqual({
      visited: 0,
      left: 0,
      withheld: 100_001,
    });
  });

  it('keeps few sets, whatever comes: small commits that follow each other share one', () => {
    const world = new World(true);
    for (let i = 0; i < 1000; i++) world.commit([[10 * i, 10 * i + 3]]);
    expect(world.withheld.length).toBe(2);
    expect(world.withheldCount).toBe(3000);
    while (world.pending.length > 0) world.discardEnds(0);
    expect(world.withheld).toEqual([]);
    expect(world.reclaimer.stats.discardedBlocks).toBe(3000);
    expect(world.reclaimer.busy).toBe(false);
  });

  it('gives back at once what is not passed down, but for discards that are under way', () => {
    const world = new World(true);
    world.commit(strewn(10_000));
    expect(world.pending.length).toBe(32);
    world.reclaimer.setPassdown(false);
    world.reclaimer.run();
    expect(world.withheldCount).toBe(32);
    while (world.pending.length > 0) world.discardEnds(world.pending.length - 1);
    expect([world.withheld, world.reclaimer.busy]).toEqual([[], false]);
    expect(world.reclaimer.stats.discards).toBe(32);
  });

  it('holds back every block until I/O of before and its own discard have ended, and discards it once', () => {
    const step = fc.oneof(
      {
        weight: 3,
        arbitrary: fc.record({ kind: fc.constant('free'), at: fc.nat(39), length: fc.integer({ min: 1, max: 6 }) }),
      },
      fc.record({ kind: fc.constantFrom('end', 'enter', 'leave', 'trim'), at: fc.nat(39), length: fc.constant(1) }),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 80 }), (steps) => {
        const world = new World(true);
        const epochs: { epoch: number; held: Set<number> }[] = [];
        /** Freed and not back; true: its discard has begun. */
        const away = new Map<number, boolean>();
        const look = (): void => {
          for (const { begin, end } of world.pending) {
            for (let block = begin; block < end; block++) away.set(block, true);
          }
          const withheld = new Set<number>();
          for (const set of world.withheld) {
            set.forEach((begin, end) => {
              for (let block = begin; block < end; block++) withheld.add(block);
            });
          }
          expect([...withheld].sort()).toEqual([...away.keys()].sort());
          // Whoever was writing when a block was freed may be writing to it still.
          for (const { held } of epochs) for (const block of held) expect(away.get(block)).toBe(false);
        };
        const endOne = (at: number): void => {
          const index = at % world.pending.length;
          const { begin, end } = world.pending[index]!;
          for (let block = begin; block < end; block++) away.delete(block);
          world.discardEnds(index);
        };
        for (const { kind, at, length } of steps) {
          if (kind === 'enter') epochs.push({ epoch: world.deferred.enter(), held: new Set() });
          else if (kind === 'leave' && epochs.length > 0) {
            world.deferred.leave(epochs.splice(at % epochs.length, 1)[0]!.epoch);
            world.reclaimer.run();
          } else if (kind === 'end' && world.pending.length > 0) endOne(at);
          else if (kind === 'free' || kind === 'trim') {
            const blocks = Array.from({ length }, (_, i) => at + i).filter((block) => !away.has(block));
            for (const block of blocks) {
              away.set(block, false);
              for (const { held } of epochs) held.add(block);
            }
            const runs = blocks.map((block): [number, number] => [block, block + 1]);
            if (kind === 'free') world.commit(runs);
            else if (runs.length > 0) {
              world.reclaimer.trim(runs.map(([begin, end]) => ({ begin, end })));
              world.reclaimer.run();
            }
          }
          look();
        }
        for (const { epoch } of epochs.splice(0)) world.deferred.leave(epoch);
        world.reclaimer.run();
        while (world.pending.length > 0) {
          look();
          endOne(0);
        }
        expect([away.size, world.withheld.length, world.reclaimer.busy]).toEqual([0, 0, false]);
      }),
    );
  });
});
