import { beforeAll, describe, expect, it } from 'vitest';
import { PoolMetadata } from '../../src/thin/pool-metadata.ts';
import { RunResult } from '../../src/thin/run-lookup.ts';
import type { ThinMetadata } from '../../src/thin/thin-metadata.ts';
import { expectClean } from '../support/metadata-judges.ts';
import { TestDevice } from '../support/test-device.ts';

/**
 * What operations cost in metadata blocks, exactly: a cost that grows is a mistake or a decision, never an accident. The trees have
 * two levels with 1,000 mappings and three with 1,000,000.
 */
/** Not enough for all nodes of a million mappings. */
const CACHE_BLOCKS = 4096;
const SMALL = 1000;
const LARGE = 1_000_000;
const DATA_BLOCKS = 2_000_000;

interface Cost {
  /** Blocks written by the commit, the superblock with them. */
  written: number;
  /** Blocks read from the device. */
  read: number;
}

const images = new Map<number, Uint8Array>();

function image(mappings: number): Uint8Array {
  const device = new TestDevice(32 << 20);
  const pool = PoolMetadata.format(device, {
    dataBlockSizeBytes: 65536,
    dataBlockCount: DATA_BLOCKS,
    cacheBlocks: 8192,
  });
  pool.createThin(1);
  const thin = pool.openThin(1);
  for (let block = 0; block < mappings; block++) {
    pool.insert(thin, block, pool.allocateDataBlock());
    if (pool.dirtyBlocks * 2 > pool.cacheBlocks) pool.commitSync();
  }
  pool.commitSync();
  return device.memory;
}

beforeAll(() => {
  for (const mappings of [SMALL, LARGE]) images.set(mappings, image(mappings));
});

class Subject {
  readonly device: TestDevice;
  pool: PoolMetadata;

  constructor(mappings: number) {
    this.device = new TestDevice(images.get(mappings)!.slice());
    this.pool = PoolMetadata.open(this.device, { cacheBlocks: CACHE_BLOCKS });
  }

  /** Of `work` and its commit, nothing being cached before. */
  cold(work: (pool: PoolMetadata) => void): Cost {
    this.pool.commitSync();
    this.pool.close();
    this.pool = PoolMetadata.open(this.device, { cacheBlocks: CACHE_BLOCKS });
    return this.cost(work);
  }

  cost(work: (pool: PoolMetadata) => void): Cost {
    const { stats } = this.pool;
    const { writes, misses } = stats;
    work(this.pool);
    this.pool.commitSync();
    return { written: stats.writes - writes, read: stats.misses - misses };
  }

  thin(id: number, work: (thin: ThinMetadata) => void): (pool: PoolMetadata) => void {
    return (pool) => {
      const thin = pool.openThin(id);
      work(thin);
      pool.closeThin(thin);
    };
  }

  write(id: number, ...blocks: number[]): (pool: PoolMetadata) => void {
    return this.thin(id, (thin) => {
      for (const block of blocks) this.pool.insert(thin, block, this.pool.allocateDataBlock());
    });
  }

  discard(id: number, begin: number, end: number): (pool: PoolMetadata) => void {
    return this.thin(id, (thin) => {
      for (let at = begin; at < end; ) at = this.pool.removeRange(thin, at, end, 100_000);
    });
  }
}

/** The same on both sizes. */
function onBoth(measure: (subject: Subject, mappings: number) => Cost): { small: Cost; large: Cost } {
  const small = new Subject(SMALL);
  const large = new Subject(LARGE);
  const costs = { small: measure(small, SMALL), large: measure(large, LARGE) };
  expectClean(small.device);
  return costs;
}

describe('a snapshot', () => {
  it('writes as many blocks of 1,000,000 mappings as of 1,000, and reads as many', () => {
    const { small, large } = onBoth((subject) => subject.cold((pool) => pool.createSnap(2, 1)));
    expect({ small, large }).toEqual({ small: { written: 5, read: 2 }, large: { written: 5, read: 2 } });
  });

  it('of a snapshot of a snapshot, a hundred times, costs the same each time', () => {
    const subject = new Subject(LARGE);
    const costs = Array.from({ length: 100 }, (_, i) => subject.cost((pool) => pool.createSnap(2 + i, 1 + i)));
    // The superblock, both top-level trees, a bitmap and the index; from the second on also the node with the counts above two.
    expect(costs.map(({ written }) => written)).toEqual([5, ...Array.from({ length: 99 }, () => 6)]);
  });
});

describe('a write', () => {
  it('to a new block writes the path to it', () => {
    const { small, large } = onBoth((subject, mappings) => subject.cold(subject.write(1, mappings + 1000)));
    expect({ small, large }).toEqual({ small: { written: 9, read: 5 }, large: { written: 10, read: 6 } });
  });

  it('to a mapped block elsewhere writes the path and both bitmaps', () => {
    const { small, large } = onBoth((subject) => subject.cold(subject.write(1, 500)));
    expect({ small, large }).toEqual({ small: { written: 9, read: 5 }, large: { written: 11, read: 7 } });
  });

  it('that breaks sharing copies the path once', () => {
    const first = onBoth((subject) => {
      subject.pool.createSnap(2, 1);
      return subject.cold(subject.write(1, 500));
    });
    const second = onBoth((subject) => {
      subject.pool.createSnap(2, 1);
      subject.write(1, 500)(subject.pool);
      return subject.cold(subject.write(1, 501));
    });
    expect(first).toEqual({ small: { written: 9, read: 5 }, large: { written: 11, read: 7 } });
    expect(second).toEqual({ small: { written: 9, read: 5 }, large: { written: 11, read: 7 } });
  });

  it('that stays in place writes nothing', () => {
    const { small, large } = onBoth((subject) => {
      subject.pool.createSnap(2, 1);
      subject.pool.commitSync();
      subject.pool.deleteThin(2);
      return subject.cold(
        subject.thin(1, (thin) => {
          const result = new RunResult();
          subject.pool.lookupRunForWrite(thin, 10, 11, result, false);
          expect(result.shared).toBe(false);
        }),
      );
    });
    expect({ small, large }).toEqual({ small: { written: 0, read: 5 }, large: { written: 0, read: 6 } });
  });
});

describe('a deletion', () => {
  it('of a device that shares everything costs the same whatever its size', () => {
    const { small, large } = onBoth((subject) => {
      subject.pool.createSnap(2, 1);
      return subject.cold((pool) => pool.deleteThin(2));
    });
    expect({ small, large }).toEqual({ small: { written: 5, read: 2 }, large: { written: 5, read: 2 } });
  });

  it('of a device that shares all but one block reads one leaf', () => {
    const { small, large } = onBoth((subject) => {
      subject.pool.createSnap(2, 1);
      subject.write(2, 500)(subject.pool);
      return subject.cold((pool) => expect(pool.deleteThinStep(2, 24)).toBe(true));
    });
    expect({ small, large }).toEqual({ small: { written: 7, read: 6 }, large: { written: 8, read: 8 } });
  });

  it('of 1,000,000 mappings reads each leaf once, and writes paths and bitmaps', () => {
    const subject = new Subject(LARGE);
    let steps = 0;
    const all: Cost = subject.cold((pool) => {
      for (steps = 1; !pool.deleteThinStep(1, 24); steps++) {}
    });
    // 4,049 leaves and 60 nodes above them; 62 bitmaps of the data.
    expect({ steps, ...all }).toEqual({ steps: 259, written: 68, read: 4118 });
    expectClean(subject.device);
  });
});

describe('a discard', () => {
  it('of one block writes the path to it', () => {
    const { small, large } = onBoth((subject) => subject.cold(subject.discard(1, 500, 501)));
    expect({ small, large }).toEqual({ small: { written: 9, read: 5 }, large: { written: 10, read: 6 } });
  });

  it('of everything reads each leaf once', () => {
    const { small, large } = onBoth((subject, mappings) => subject.cold(subject.discard(1, 0, mappings)));
    expect({ small, large }).toEqual({ small: { written: 8, read: 9 }, large: { written: 69, read: 4118 } });
  });

  it('of everything that a snapshot shares copies no leaf', () => {
    const { small, large } = onBoth((subject, mappings) => {
      subject.pool.createSnap(2, 1);
      return subject.cold(subject.discard(2, 0, mappings));
    });
    expect({ small, large }).toEqual({ small: { written: 6, read: 8 }, large: { written: 16, read: 4065 } });
  });
});

describe('a copy by reference', () => {
  const copy =
    (begin: number, length: number, id: number) =>
    (pool: PoolMetadata): void => {
      const [source, target] = [pool.openThin(1), pool.openThin(id)];
      while (!pool.learnShared(target, 4096)) {}
      const end = begin + length;
      for (let at = begin; at < end; ) {
        at = pool.shareRange({ source, sourceBegin: at, target, begin: at, end, keepsSource: false }, 2048);
      }
      pool.closeThin(source);
      pool.closeThin(target);
    };

  it('of a block writes the path to it, and to its count', () => {
    const create = (subject: Subject): void => [2, 3].forEach((id) => void subject.pool.createThin(id));
    const { small, large } = onBoth((subject) => {
      create(subject);
      return subject.cold(copy(500, 1, 2));
    });
    const again = onBoth((subject) => {
      create(subject);
      copy(500, 1, 2)(subject.pool);
      return subject.cold(copy(500, 1, 3));
    });
    expect({ small, large, again }).toEqual({
      small: { written: 8, read: 6 },
      large: { written: 8, read: 7 },
      // The count is above two from now on: the other tree of the space map.
      again: { small: { written: 9, read: 7 }, large: { written: 9, read: 8 } },
    });
  });

  it('of 100,000 blocks writes the leaves that they fill', () => {
    const subject = new Subject(LARGE);
    subject.pool.createThin(2);
    subject.pool.createThin(3);
    const first = subject.cold(copy(0, 100_000, 2));
    const second = subject.cold(copy(0, 100_000, 3));
    // 397 leaves of the source are read, as many written; then 299 more with the counts above two.
    expect({ first, second }).toEqual({ first: { written: 420, read: 417 }, second: { written: 727, read: 418 } });
    expectClean(subject.device);
  });
});

describe('a commit', () => {
  it('of nothing writes nothing', () => {
    expect(new Subject(LARGE).cost(() => {})).toEqual({ written: 0, read: 0 });
  });

  it('costs the same on a device sixteen times as large', () => {
    const costs = [4, 64].map((mebibytes) => {
      const device = new TestDevice(mebibytes << 20);
      const pool = PoolMetadata.format(device, { dataBlockSizeBytes: 65536, dataBlockCount: 10_000 });
      pool.createThin(1);
      pool.commitSync();
      const { writes } = pool.stats;
      const thin = pool.openThin(1);
      for (let i = 0; i < 100; i++) pool.insert(thin, i, pool.allocateDataBlock());
      pool.commitSync();
      return pool.stats.writes - writes;
    });
    expect(costs).toEqual([8, 8]);
  });

  it('of a metadata snapshot costs the same whatever it holds', () => {
    const reserved = onBoth((subject) => subject.cold((pool) => pool.reserveSnapshot()));
    const released = onBoth((subject) => {
      subject.pool.reserveSnapshot();
      return subject.cold((pool) => pool.releaseSnapshot());
    });
    expect(reserved).toEqual({ small: { written: 4, read: 0 }, large: { written: 4, read: 0 } });
    expect(released).toEqual({ small: { written: 3, read: 1 }, large: { written: 3, read: 1 } });
  });
});
