import fc from 'fast-check';
import { beforeEach, describe, expect, it } from 'vitest';
import { type OpenOptions, PoolMetadata } from '../../src/thin/pool-metadata.ts';
import { RunResult } from '../../src/thin/run-lookup.ts';
import { unsharedForTheKernel } from '../support/kernel-sharing.ts';
import { contentsOf, expectClean, expectThinCheck } from '../support/metadata-judges.ts';
import { TestDevice } from '../support/test-device.ts';

const BLOCKS = 600;

/** Who wrote what is in a block. */
interface Written {
  device: number;
  block: number;
  sequence: number;
}

type Contents = Map<number, Map<number, Written>>;

/**
 * A pool, the contents of its data blocks, and what devices ought to hold. Writes go where `lookupRunForWrite` says. After a crash a
 * device may hold what itself has written after the commit, but never what another one has.
 */
class World {
  device: TestDevice = new TestDevice(2 << 20);
  pool: PoolMetadata;
  inPlace = 0;
  copied = 0;
  moved = 0;
  readonly #data: (Written | undefined)[] = [];
  #live: Contents = new Map();
  #committed: Contents = new Map();
  #sequence = 0;
  readonly #result = new RunResult();
  readonly #options: OpenOptions;
  /** What the journal would have of this transaction, and what devices held after each change. */
  #journal: { replay: (pool: PoolMetadata) => void; live: Contents }[] = [];

  constructor(options: OpenOptions = {}) {
    this.#options = options;
    PoolMetadata.format(this.device, { dataBlockSizeBytes: 65536, dataBlockCount: 40_000 }).close();
    this.pool = PoolMetadata.open(this.device, options);
  }

  create(id: number): void {
    this.pool.createThin(id);
    this.#live.set(id, new Map());
  }

  snap(id: number, origin: number): void {
    this.pool.createSnap(id, origin);
    this.#live.set(id, new Map(this.#live.get(origin)));
  }

  write(id: number, begin: number, end: number): void {
    const thin = this.pool.openThin(id);
    for (let block = begin; block < end; block++) {
      const what = { device: id, block, sequence: this.#sequence++ };
      this.pool.lookupRunForWrite(thin, block, end, this.#result, false);
      if (this.#result.mapped && !this.#result.shared) {
        this.#data[this.#result.dataBlock] = what;
        this.inPlace++;
      } else {
        const dataBlock = this.pool.allocateDataBlock();
        this.#data[dataBlock] = what;
        this.pool.insert(thin, block, dataBlock);
        this.copied++;
        this.#live.get(id)!.set(block, what);
        this.#note((pool) => {
          pool.claimDataBlock(dataBlock);
          pool.insert(pool.openThin(id), block, dataBlock);
        });
      }
      this.#live.get(id)!.set(block, what);
    }
    this.pool.closeThin(thin);
  }

  discard(id: number, begin: number, end: number): void {
    const thin = this.pool.openThin(id);
    this.pool.removeRange(thin, begin, end, 100_000);
    this.pool.closeThin(thin);
    for (let block = begin; block < end; block++) this.#live.get(id)!.delete(block);
    this.#note((pool) => pool.removeRange(pool.openThin(id), begin, end, 100_000));
  }

  /** In steps of `limit` mappings. */
  copy(
    from: number,
    sourceBegin: number,
    to: number,
    begin: number,
    length: number,
    limit = 100,
    keepsSource = false,
  ): void {
    const source = this.pool.openThin(from);
    const target = this.pool.openThin(to);
    const end = begin + length;
    for (let at = begin; at < end; ) {
      const first = at;
      const firstSource = sourceBegin + (first - begin);
      while (!this.pool.learnShared(target, 50)) {}
      const range = { source, sourceBegin: firstSource, target, begin: first, end, keepsSource };
      try {
        at = this.pool.shareRange(range, limit);
      } catch (error) {
        expect(error).toMatchObject({ code: 'EEXIST' });
        this.#move(from, firstSource, to, first);
        at = first + 1;
        continue;
      }
      expect(at).toBeGreaterThan(first);
      const stop = at;
      for (let block = first; block < stop; block++) {
        const what = this.#live.get(from)!.get(sourceBegin + (block - begin));
        if (what === undefined) this.#live.get(to)!.delete(block);
        else this.#live.get(to)!.set(block, what);
      }
      this.#note((pool) => {
        const again = { sourceBegin: firstSource, begin: first, end: stop, keepsSource: false, isReplay: true };
        const reached = pool.shareRange({ source: pool.openThin(from), target: pool.openThin(to), ...again }, 100_000);
        expect(reached).toBe(stop);
      });
    }
    this.pool.closeThin(source);
    this.pool.closeThin(target);
  }

  /** What cannot be shared is read and written. */
  #move(from: number, sourceBlock: number, to: number, block: number): void {
    this.moved++;
    const what = this.#live.get(from)!.get(sourceBlock)!;
    const dataBlock = this.pool.allocateDataBlock();
    this.#data[dataBlock] = what;
    const thin = this.pool.openThin(to);
    this.pool.insert(thin, block, dataBlock);
    this.pool.closeThin(thin);
    this.#live.get(to)!.set(block, what);
    this.#note((pool) => {
      pool.claimDataBlock(dataBlock);
      pool.insert(pool.openThin(to), block, dataBlock);
    });
  }

  #note(replay: (pool: PoolMetadata) => void): void {
    this.#journal.push({ replay, live: copyOf(this.#live) });
  }

  delete(id: number): void {
    while (!this.pool.deleteThinStep(id, 1)) {}
    this.#live.delete(id);
  }

  commit(): void {
    this.pool.commitSync();
    this.#committed = copyOf(this.#live);
    this.#journal = [];
  }

  reserve(): void {
    if (this.pool.heldRoot !== 0) this.pool.releaseSnapshot();
    this.commit();
    this.pool.reserveSnapshot();
    this.commit();
  }

  /** What is on the devices, opened by somebody else. */
  expectCrashSafe(): void {
    const crashed = PoolMetadata.open(this.device);
    expect(crashed.thinIds()).toEqual([...this.#committed.keys()].sort((a, b) => a - b));
    this.#expect(crashed, this.#committed, (found, id, block, expected) => {
      if (found?.device === id && found.block === block && found.sequence >= expected.sequence) return;
      expect(found).toEqual(expected);
    });
    crashed.close();
  }

  /** The process is killed, and of its journal so much is there as had been appended: whatever that is, no device shows what another one wrote later. */
  expectKillSafe(): void {
    const { length } = this.#journal;
    const ends = new Set([1, 2, Math.floor(length / 3), Math.floor(length / 2), length - 2, length - 1, length]);
    for (const end of ends) {
      if (end < 1 || end > length) continue;
      const killed = PoolMetadata.open(new TestDevice(this.device.memory.slice()), this.#options);
      for (const { replay } of this.#journal.slice(0, end)) replay(killed);
      const alive = new Map([...this.#journal[end - 1]!.live].filter(([id]) => this.#live.has(id)));
      this.#expect(killed, alive, (found, id, block, expected) => {
        if (found?.device === id && found.block === block && found.sequence >= expected.sequence) return;
        expect(found).toEqual(expected);
      });
      killed.commitSync();
      killed.close();
    }
  }

  expectKernelSharing(): void {
    expect(unsharedForTheKernel(contentsOf(this.device))).toEqual([]);
  }

  expectLive(): void {
    this.#expect(this.pool, this.#live, (found, _id, _block, expected) => expect(found).toBe(expected));
  }

  #expect(
    pool: PoolMetadata,
    contents: Contents,
    judge: (found: Written | undefined, id: number, block: number, expected: Written) => void,
  ): void {
    expect(pool.thinIds()).toEqual(expect.arrayContaining([...contents.keys()]));
    for (const [id, blocks] of contents) {
      const thin = pool.openThin(id);
      expect(thin.mappedBlocks).toBe(blocks.size);
      for (const [block, expected] of blocks) {
        pool.lookupRun(thin, block, block + 1, this.#result, false);
        expect(this.#result.mapped).toBe(true);
        judge(this.#data[this.#result.dataBlock], id, block, expected);
      }
      pool.closeThin(thin);
    }
  }

  /** How many of the device's next writes over the range stay in place. */
  inPlaceOver(id: number, begin: number, end: number): number {
    const before = this.inPlace;
    this.write(id, begin, end);
    return this.inPlace - before;
  }

  reopen(): void {
    this.commit();
    this.pool.close();
    this.pool = PoolMetadata.open(this.device, this.#options);
  }
}

function copyOf(contents: Contents): Contents {
  return new Map([...contents].map(([id, blocks]) => [id, new Map(blocks)]));
}

let world: World;
beforeEach(() => {
  world = new World();
});

describe('a write to a block that was shared once', () => {
  it('stays in place when the other side has copied the block', () => {
    world.create(1);
    world.write(1, 0, 10);
    world.commit();
    world.snap(2, 1);
    world.commit();
    world.write(1, 0, 1);
    world.commit();
    // The snapshot's old block is its own now. Its neighbours are still shared.
    expect(world.inPlaceOver(2, 0, 2)).toBe(1);
    world.expectLive();
    world.commit();
    expectClean(world.device);
  });

  it('stays in place when the other side is gone, and the commit that took it away is durable', () => {
    world.create(1);
    world.write(1, 0, 500);
    world.snap(2, 1);
    world.commit();
    world.delete(2);
    // A crash now would bring the snapshot back.
    expect(world.inPlaceOver(1, 0, 10)).toBe(0);
    world.expectCrashSafe();
    world.commit();
    expect(world.inPlaceOver(1, 10, 500)).toBe(490);
    expect(world.inPlaceOver(1, 0, 500)).toBe(500);
  });

  it('goes elsewhere while a metadata snapshot holds it', () => {
    world.create(1);
    world.write(1, 0, 300);
    world.snap(2, 1);
    world.commit();
    world.delete(2);
    world.reserve();
    expect(world.inPlaceOver(1, 0, 300)).toBe(0);
    world.commit();
    world.pool.releaseSnapshot();
    world.commit();
    expect(world.inPlaceOver(1, 0, 300)).toBe(300);
  });

  it('goes elsewhere in the transaction that took the snapshot, and where no commit has parted the two', () => {
    world.create(1);
    world.write(1, 0, 10);
    world.commit();
    world.snap(2, 1);
    world.write(1, 0, 10);
    // The snapshot has the blocks alone, but the last commit has them in the origin.
    expect(world.inPlaceOver(2, 0, 10)).toBe(0);
    world.expectCrashSafe();
    world.commit();
    world.expectLive();
    expect(world.inPlaceOver(2, 0, 10)).toBe(10);
  });

  it('goes elsewhere always when the pool is to go by time alone', () => {
    const kernel = new World({ exactSharing: false });
    kernel.create(1);
    kernel.write(1, 0, 10);
    kernel.snap(2, 1);
    kernel.commit();
    kernel.delete(2);
    kernel.commit();
    expect(kernel.inPlaceOver(1, 0, 10)).toBe(0);
    expect(kernel.inPlaceOver(1, 0, 10)).toBe(10);
  });

  it('is found out without blocking, or not at all', () => {
    world.create(1);
    world.write(1, 0, 500);
    world.snap(2, 1);
    world.commit();
    world.delete(2);
    world.reopen();
    const { pool } = world;
    const thin = pool.openThin(1);
    const reads = pool.stats.blockingReads;
    const result = new RunResult();
    expect(pool.lookupRunForWrite(thin, 0, 500, result, true)).toBe(false);
    expect(pool.stats.blockingReads).toBe(reads);
    for (let i = 0; i < 10 && !pool.lookupRunForWrite(thin, 0, 500, result, true); i++) {
      expect(pool.lookupRunForWrite(thin, 0, 1, result, false)).toBe(true);
    }
    expect(result).toMatchObject({ mapped: true, shared: false });
    pool.closeThin(thin);
  });
});

describe('a copy by reference', () => {
  it('moves nothing, and both sides write elsewhere afterwards, until one is left', () => {
    world.create(1);
    world.create(2);
    world.write(1, 0, 300);
    world.commit();
    world.copy(1, 0, 2, 100, 300);
    world.expectLive();
    world.commit();
    world.expectKernelSharing();
    expect(world.inPlaceOver(1, 0, 100)).toBe(0);
    expect(world.inPlaceOver(2, 250, 300)).toBe(0);
    world.commit();
    // Blocks 0 to 100 are device 2's alone, and 150 to 200 are device 1's.
    expect(world.inPlaceOver(2, 100, 200)).toBe(100);
    expect(world.inPlaceOver(1, 150, 200)).toBe(50);
    expect(world.inPlaceOver(1, 200, 300)).toBe(0);
    world.expectLive();
    world.commit();
    expectClean(world.device);
    expectThinCheck(world.device);
  });

  it('leaves blocks beside it alone: those that were never shared are not taken for shared ones', () => {
    world.create(1);
    world.snap(2, 1);
    world.write(1, 0, 300);
    world.create(3);
    world.write(3, 0, 300);
    world.commit();
    const kernel = PoolMetadata.open(world.device, { exactSharing: false });
    const before = kernel.time;
    kernel.close();
    world.copy(1, 100, 3, 100, 100);
    expect(world.pool.time).toBe(before);
    world.commit();
    const result = new RunResult();
    for (const id of [1, 3]) {
      const thin = world.pool.openThin(id);
      for (const [begin, end, shared] of [
        [0, 100, false],
        [100, 200, true],
        [200, 300, false],
      ] as const) {
        for (let at: number = begin; at < end; at = result.end) {
          world.pool.lookupRun(thin, at, end, result, false);
          expect(result).toMatchObject({ mapped: true, shared });
        }
      }
      world.pool.closeThin(thin);
    }
  });

  it('leaves out what the target has already, wherever it has it from', () => {
    world.create(1);
    world.create(2);
    world.write(1, 0, 50);
    world.commit();
    world.copy(1, 0, 2, 0, 20);
    world.copy(1, 10, 2, 100, 20);
    expect(world.moved).toBe(10);
    // The same once more is there already.
    world.copy(1, 0, 2, 0, 20);
    expect(world.moved).toBe(10);
    world.commit();
    world.snap(3, 2);
    world.commit();
    world.write(3, 0, 5);
    world.copy(3, 0, 2, 200, 20);
    expect(world.moved).toBe(25);
    // What the target had copied before, and its source has from it.
    world.copy(2, 100, 1, 200, 20);
    expect(world.moved).toBe(35);
    world.commit();
    world.expectKernelSharing();
    world.expectLive();
    expectThinCheck(world.device);
  });

  it('knows what its target shares as a source', () => {
    world.create(1);
    world.create(2);
    world.create(3);
    world.write(1, 0, 10);
    world.write(3, 0, 10);
    world.commit();
    world.copy(3, 0, 1, 50, 10);
    world.copy(1, 0, 2, 0, 10);
    world.copy(2, 0, 1, 20, 10);
    expect(world.moved).toBe(10);
    world.commit();
    world.expectKernelSharing();
  });

  it('takes what the target had away, and what the source has not', () => {
    world.create(1);
    world.create(2);
    world.write(1, 10, 20);
    world.write(2, 0, 100);
    world.commit();
    expect(world.pool.freeDataBlocks).toBe(40_000 - 110);
    world.copy(1, 0, 2, 0, 50);
    world.commit();
    expect(world.pool.freeDataBlocks).toBe(40_000 - 60);
    world.expectLive();
    expectClean(world.device);
  });

  it('does not change the tree of a source that is to be left alone, and takes one time for it', () => {
    world.create(1);
    world.create(2);
    world.write(1, 0, 300);
    world.commit();
    const thin = world.pool.openThin(1);
    const { root } = thin;
    // The target gets a time of its own before.
    world.copy(1, 500, 2, 500, 1);
    const { time } = world.pool;
    world.copy(1, 0, 2, 0, 300, 100, true);
    world.create(3);
    world.copy(1, 0, 3, 300, 300, 100, true);
    expect(thin.root).toBe(root);
    expect(world.pool.time).toBe(time + 1);
    world.commit();
    world.expectKernelSharing();
    world.expectLive();
    world.pool.closeThin(thin);
  });

  it('is not undone by a crash that brings back who had the block before', () => {
    world.create(1);
    world.create(2);
    world.write(1, 0, 10);
    world.commit();
    world.copy(1, 0, 2, 0, 10);
    world.discard(1, 0, 10);
    // Every count is one, now and in the last commit, and the two are not of the same device.
    expect(world.inPlaceOver(2, 0, 10)).toBe(0);
    world.expectCrashSafe();
    world.expectKillSafe();
    world.commit();
    expect(world.inPlaceOver(2, 0, 10)).toBe(10);
  });

  it('is not written to by its source when a killed process had not noted that the target has gone', () => {
    world.create(1);
    world.create(2);
    world.write(1, 0, 10);
    world.commit();
    world.copy(1, 0, 2, 0, 10);
    world.discard(2, 0, 10);
    expect(world.inPlaceOver(1, 0, 10)).toBe(0);
    world.expectKillSafe();
  });

  it('counts references beyond what a bitmap holds, up and down', () => {
    world.create(1);
    world.write(1, 0, 100);
    for (let id = 2; id < 8; id++) {
      world.create(id);
      world.copy(1, 0, id, id, 100);
    }
    world.commit();
    const thin = world.pool.openThin(1);
    const result = new RunResult();
    world.pool.lookupRun(thin, 0, 1, result, false);
    expect(world.pool.dataBlockReferences(result.dataBlock)).toBe(7);
    world.pool.closeThin(thin);
    expectClean(world.device);
    expectThinCheck(world.device);
    for (let id = 1; id < 7; id++) world.delete(id);
    world.commit();
    expect(world.pool.dataBlockReferences(result.dataBlock)).toBe(1);
    world.expectLive();
    expectClean(world.device);
  });
});

describe('writes to devices that share blocks in every way', () => {
  const device = fc.nat(5);
  const place = fc.record({ begin: fc.nat(BLOCKS - 60), length: fc.integer({ min: 1, max: 60 }) });
  const limit = fc.constantFrom(1, 7, 1000);
  const copy = fc.record({
    op: fc.constant('copy' as const),
    device,
    from: device,
    at: fc.nat(BLOCKS - 60),
    place,
    limit,
  });
  const step = fc.oneof(
    { weight: 6, arbitrary: fc.record({ op: fc.constant('write' as const), device, place }) },
    { weight: 5, arbitrary: copy },
    { weight: 3, arbitrary: fc.record({ op: fc.constant('snap' as const), device }) },
    { weight: 2, arbitrary: fc.record({ op: fc.constant('discard' as const), device, place }) },
    { weight: 2, arbitrary: fc.record({ op: fc.constant('delete' as const), device }) },
    { weight: 1, arbitrary: fc.record({ op: fc.constantFrom('reserve' as const, 'release' as const), device }) },
    { weight: 4, arbitrary: fc.record({ op: fc.constantFrom('commit' as const, 'crash' as const), device }) },
  );

  it('never change what another device holds, now or after a crash', () => {
    fc.assert(
      fc.property(fc.array(step, { minLength: 10, maxLength: 60 }), (steps) => {
        world = new World();
        world.create(0);
        world.write(0, 0, BLOCKS);
        let next = 1;
        for (const one of steps) {
          const ids = world.pool.thinIds();
          const id = ids[one.device % ids.length]!;
          if (one.op === 'write') world.write(id, one.place.begin, one.place.begin + one.place.length);
          else if (one.op === 'copy') copyToAnother(ids[one.from % ids.length]!, id, one);
          else if (one.op === 'snap') world.snap(next++, id);
          else if (one.op === 'discard') world.discard(id, one.place.begin, one.place.begin + one.place.length);
          else if (one.op === 'delete' && ids.length > 1) world.delete(id);
          else if (one.op === 'commit') world.commit();
          else if (one.op === 'crash') world.expectCrashSafe();
          else if (one.op === 'reserve') world.reserve();
          else if (one.op === 'release' && world.pool.heldRoot !== 0) world.pool.releaseSnapshot();
        }
        world.expectCrashSafe();
        world.expectLive();
        world.commit();
        world.expectCrashSafe();
        world.expectKernelSharing();
        expectClean(world.device);
      }),
      { numRuns: 20 },
    );
  });

  it('never change what another device holds, wherever the journal of a killed process ends', () => {
    const one = fc.oneof(
      { weight: 6, arbitrary: fc.record({ op: fc.constant('write' as const), device, place }) },
      { weight: 6, arbitrary: copy },
      { weight: 3, arbitrary: fc.record({ op: fc.constant('discard' as const), device, place }) },
      { weight: 1, arbitrary: fc.record({ op: fc.constantFrom('delete' as const, 'snap' as const), device }) },
      { weight: 1, arbitrary: fc.record({ op: fc.constant('commit' as const), device }) },
    );
    fc.assert(
      fc.property(fc.array(one, { minLength: 10, maxLength: 40 }), (steps) => {
        world = new World();
        for (let id = 0; id < 3; id++) world.create(id);
        world.write(0, 0, BLOCKS / 2);
        world.commit();
        let next = 3;
        for (const step of steps) {
          const ids = world.pool.thinIds();
          const id = ids[step.device % ids.length]!;
          if (step.op === 'write') world.write(id, step.place.begin, step.place.begin + step.place.length);
          else if (step.op === 'copy') copyToAnother(ids[step.from % ids.length]!, id, step);
          else if (step.op === 'discard') world.discard(id, step.place.begin, step.place.begin + step.place.length);
          else if (step.op === 'delete' && ids.length > 1) world.delete(id);
          else if (step.op === 'snap') {
            // Comes with its commit, before anything else is done.
            world.snap(next++, id);
            world.commit();
          } else if (step.op === 'commit') {
            world.expectKillSafe();
            world.commit();
            world.expectKernelSharing();
          }
        }
        world.expectKillSafe();
        world.expectCrashSafe();
      }),
      { numRuns: 20 },
    );
  });

  function copyToAnother(
    from: number,
    to: number,
    { at, place: { begin, length }, limit }: { at: number; place: { begin: number; length: number }; limit: number },
  ): void {
    if (from === to) return;
    world.copy(from, at, to, begin, length, limit, (at + begin) % 5 === 0);
  }
});
