import fc from 'fast-check';
import { beforeEach, describe, expect, it } from 'vitest';
import { type OpenOptions, PoolMetadata } from '../../src/thin/pool-metadata.ts';
import { RunResult } from '../../src/thin/run-lookup.ts';
import { expectClean } from '../support/metadata-judges.ts';
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
  readonly #data: (Written | undefined)[] = [];
  #live: Contents = new Map();
  #committed: Contents = new Map();
  #sequence = 0;
  readonly #result = new RunResult();
  readonly #options: OpenOptions;

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
  }

  delete(id: number): void {
    while (!this.pool.deleteThinStep(id, 1)) {}
    this.#live.delete(id);
  }

  commit(): void {
    this.pool.commitSync();
    this.#committed = new Map([...this.#live].map(([id, blocks]) => [id, new Map(blocks)]));
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
    this.#expect(crashed, this.#committed, (found, id, block, expected) => {
      if (found?.device === id && found.block === block && found.sequence >= expected.sequence) return;
      expect(found).toEqual(expected);
    });
    crashed.close();
  }

  expectLive(): void {
    this.#expect(this.pool, this.#live, (found, _id, _block, expected) => expect(found).toBe(expected));
  }

  #expect(
    pool: PoolMetadata,
    contents: Contents,
    judge: (found: Written | undefined, id: number, block: number, expected: Written) => void,
  ): void {
    expect(pool.thinIds()).toEqual([...contents.keys()].sort((a, b) => a - b));
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

describe('writes to devices that share blocks in every way', () => {
  const device = fc.nat(5);
  const place = fc.record({ begin: fc.nat(BLOCKS - 60), length: fc.integer({ min: 1, max: 60 }) });
  const step = fc.oneof(
    { weight: 6, arbitrary: fc.record({ op: fc.constant('write' as const), device, place }) },
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
        expectClean(world.device);
      }),
      { numRuns: 20 },
    );
  });
});
