import { beforeEach, describe, expect, it } from 'vitest';
import { MIB } from '../../src/base/units.ts';
import { PoolMetadata } from '../../src/thin/pool-metadata.ts';
import { expectClean } from '../support/metadata-judges.ts';
import { PoolModel } from '../support/pool-model.ts';
import { SeededRandom } from '../support/seeded-random.ts';
import { TestDevice } from '../support/test-device.ts';

const DATA_BLOCKS = 20_000;
const VOLUME = 4000;
/** Operations between commits. */
const COMMIT_INTERVAL = 1000;

let device: TestDevice;
let pool: PoolMetadata;
let model: PoolModel;
let random: SeededRandom;

beforeEach(() => {
  device = new TestDevice(16 * MIB);
  pool = PoolMetadata.format(device, { dataBlockSizeBytes: 65536, dataBlockCount: DATA_BLOCKS });
  model = new PoolModel(pool);
  random = new SeededRandom();
});

/** Everything is as it should be after a commit. */
function commitAndCheck(): void {
  model.commit();
  expectClean(device);
  expect(pool.dataBlockCount - pool.freeDataBlocks).toBe(model.usedDataBlocks);
}

/** Writes `blocks` of the device, one after the other. */
function provision(id: number, blocks: readonly number[]): void {
  blocks.forEach((block, i) => {
    model.write(id, block, block + 1);
    if (i % COMMIT_INTERVAL === COMMIT_INTERVAL - 1) commitAndCheck();
  });
  commitAndCheck();
}

function linear(count: number): number[] {
  return Array.from({ length: count }, (_, i) => i);
}

function scattered(count: number): number[] {
  return linear(count).map((i) => (i * 7919) % VOLUME);
}

function inRuns(count: number): number[] {
  return linear(count / 20).flatMap((run) => linear(20).map((i) => ((run * 37) % (VOLUME / 20)) * 20 + i));
}

describe('thinp', () => {
  it('thinp/create: an empty pool is in order', () => {
    commitAndCheck();
    expect(pool.thinIds()).toEqual([]);
  });

  it('thinp/create-delete-many-thins', () => {
    for (let id = 0; id < 1000; id++) model.create(id);
    commitAndCheck();
    for (let id = 0; id < 1000; id++) model.delete(id);
    commitAndCheck();
    expect(pool.thinIds()).toEqual([]);
  });

  it('thinp/create-rolling-snaps: each generation lives for ten', () => {
    model.create(0);
    for (let id = 1; id < 300; id++) {
      model.snapshot(id, id - 1);
      if (id > 10) model.delete(id - 11);
      if (id % 50 === 0) commitAndCheck();
    }
    commitAndCheck();
  });

  it.each([
    ['thinp/provision-single-thin/linear', linear],
    ['thinp/provision-single-thin/random', scattered],
    ['thinp/provision-single-thin/runs', inRuns],
  ])('%s', (_, blocks) => {
    model.create(0);
    provision(0, blocks(VOLUME));
    model.expectLookups(VOLUME);
  });

  it('thinp/snaps/recursive: each is taken of the one before, and changed', () => {
    model.create(0);
    model.write(0, 0, 1000);
    for (let id = 1; id < 40; id++) {
      model.snapshot(id, id - 1);
      for (let i = 0; i < 20; i++) {
        const block = random.below(1000);
        model.write(id, block, block + 1);
      }
      if (id % 10 === 0) commitAndCheck();
    }
    commitAndCheck();
    model.expectLookups(1000);
  });

  it('thinp/snaps/rolling: ten of one origin, the oldest goes when one comes', () => {
    model.create(0);
    model.write(0, 0, 2000);
    for (let id = 1; id < 60; id++) {
      model.snapshot(id, 0);
      for (let i = 0; i < 50; i++) {
        const block = random.below(2000);
        model.write(0, block, block + 1);
      }
      if (id > 10) model.delete(id - 10);
      if (id % 10 === 0) commitAndCheck();
    }
    commitAndCheck();
    model.expectLookups(2000);
  });

  it('thinp/discard/runs: in random order, to the last mapping', () => {
    model.create(0);
    model.write(0, 0, VOLUME);
    commitAndCheck();
    for (let run = 0; run < VOLUME / 40; run++) {
      const begin = ((run * 37) % (VOLUME / 40)) * 40;
      model.remove(0, begin, begin + 40, 1000);
      if (run % 25 === 24) commitAndCheck();
    }
    commitAndCheck();
    expect(model.usedDataBlocks).toBe(0);
  });

  it('thinp/discard/rolling: a window of mappings that goes over the device', () => {
    model.create(0);
    for (let begin = 0; begin < VOLUME; begin += 100) {
      model.write(0, begin, begin + 100);
      if (begin >= 1000) model.remove(0, begin - 1000, begin - 900, 1000);
      if (begin % 1000 === 0) commitAndCheck();
    }
    commitAndCheck();
    expect(model.usedDataBlocks).toBe(1000);
  });

  it('thinp/delete-frees-blocks: a full pool has room again when a device is deleted', () => {
    const half = DATA_BLOCKS / 2;
    for (const id of [0, 1]) {
      model.create(id);
      model.write(id, 0, half);
    }
    commitAndCheck();
    expect(() => pool.allocateDataBlock()).toThrow(expect.objectContaining({ code: 'ENOSPC' }));
    model.delete(1);
    commitAndCheck();
    model.create(2);
    model.write(2, 0, half);
    commitAndCheck();
  });

  it('thinp/fragmentation/thins: devices that are written in turns', () => {
    for (let id = 0; id < 8; id++) model.create(id);
    for (let block = 0; block < 500; block++) for (let id = 0; id < 8; id++) model.write(id, block, block + 1);
    commitAndCheck();
    for (let id = 0; id < 8; id += 2) model.delete(id);
    commitAndCheck();
    for (let id = 1; id < 8; id += 2) model.write(id, 500, 900);
    commitAndCheck();
    model.expectLookups(900);
  });

  it('thinp/fragmentation/snapshots: snapshots of a device that is written all over', () => {
    model.create(0);
    model.write(0, 0, 1000);
    for (let id = 1; id < 9; id++) {
      model.snapshot(id, 0);
      for (const block of scattered(100)) model.write(0, block, block + 1);
      commitAndCheck();
    }
    for (let id = 1; id < 9; id += 2) model.delete(id);
    commitAndCheck();
    model.expectLookups(VOLUME);
  });

  it('thinp/delete/large: every block of the pool in one device', () => {
    model.create(0);
    model.write(0, 0, DATA_BLOCKS);
    commitAndCheck();
    model.delete(0);
    commitAndCheck();
    expect(pool.freeDataBlocks).toBe(DATA_BLOCKS);
  });
});
