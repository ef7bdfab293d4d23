import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { PoolMetadata } from '../../src/thin/pool-metadata.ts';
import { contentsOf, expectClean } from '../support/metadata-judges.ts';
import { PoolModel } from '../support/pool-model.ts';
import { TestDevice } from '../support/test-device.ts';
import type { PoolContents } from '../support/thin-xml.ts';

const SECTOR = 512;

/** One for each different contents. */
function fingerprint(devices: PoolContents['devices']): string {
  const hash = createHash('sha1');
  for (const [id, device] of devices) {
    const { mappedBlocks, creationTime, snapshottedTime } = device;
    const numbers = [id, mappedBlocks, creationTime, snapshottedTime];
    const blocks = [...device.mappings.keys()].sort((a, b) => a - b);
    for (const block of blocks) {
      const { dataBlock, time } = device.mappings.get(block)!;
      numbers.push(block, dataBlock, time);
    }
    hash.update(Float64Array.from(numbers));
  }
  return hash.digest('hex');
}

interface Write {
  offset: number;
  bytes: Uint8Array;
}

/** Everything that reached a device, in order: a write, or null for a flush. */
type Log = (Write | null)[];

function record(device: TestDevice): Log {
  const log: Log = [];
  device.hook = ({ kind, offset, bytes }) => {
    if (kind === 'write') log.push({ offset, bytes: bytes.slice() });
    else if (kind === 'flush') log.push(null);
    return null;
  };
  return log;
}

/** A small generator, so that a failure can be repeated. */
function randomly(seed: number): (limit: number) => number {
  let state = seed;
  return (limit) => {
    state = (state * 48271) % 2147483647;
    return state % limit;
  };
}

/** Writes some of the sectors: power failed in the middle. */
function writeTorn(memory: Uint8Array, { offset, bytes }: Write, random: (limit: number) => number): void {
  for (let at = 0; at < bytes.length; at += SECTOR) {
    if (random(2) === 0) memory.set(bytes.subarray(at, at + SECTOR), offset + at);
  }
}

/** One or two devices and a snapshot, changed a little in each of several commits. */
async function workload(model: PoolModel, commit: () => Promise<void>, size: number): Promise<void> {
  model.create(1);
  model.write(1, 0, 3 * size);
  await commit();
  model.snapshot(2, 1);
  model.write(1, size, 2 * size);
  await commit();
  model.remove(1, 0, size + 3, 5);
  model.create(3);
  model.write(3, 100, 100 + size);
  await commit();
  model.delete(2);
  await commit();
  model.snapshot(4, 3);
  model.snapshot(5, 3);
  model.snapshot(6, 3);
  model.write(3, 100, 104);
  await commit();
  model.delete(4);
  model.write(5, 5000, 5000 + size);
  model.remove(5, 100, 103, 1);
  await commit();
}

function commitInSteps(pool: PoolMetadata): Promise<void> {
  pool.prepareCommit();
  return new Promise((resolve, reject) => {
    const failed = (error: unknown): void => reject(new Error(String(error)));
    pool.writeBlocks({
      ioDone: (error) => {
        if (error !== null) return failed(error);
        pool.writeSuperblock({ ioDone: (late) => (late === null ? resolve() : failed(late)) });
      },
    });
  });
}

describe.each([
  ['small transactions, in steps', 4, 256, 1000],
  ['small transactions, at once', 4, 256, 1000],
  ['transactions larger than the cache', 9000, 2048, 60_000],
])('a crash during %s', (title, size, blockCount, dataBlockCount) => {
  it('finds the last commit or the one that was being written, whole', async () => {
    const device = new TestDevice(blockCount * 4096);
    const pool = PoolMetadata.format(device, { dataBlockSizeBytes: 65536, dataBlockCount, cacheBlocks: 128 });
    const start = device.memory.slice();
    const log = record(device);
    const model = new PoolModel(pool);
    const states: { after: number; found: string }[] = [{ after: 0, found: fingerprint(model.contents) }];
    const commit = async (): Promise<void> => {
      if (!title.includes('at once')) await commitInSteps(pool);
      else pool.commitSync();
      model.committed();
      states.push({ after: log.length, found: fingerprint(model.contents) });
    };
    await workload(model, commit, size);

    const random = randomly(4711);
    const durable = new TestDevice(start);
    let pending: Write[] = [];
    // Every boundary of a small run, some of a large one.
    const stride = size > 1000 ? Math.ceil(log.length / 20) : 1;
    for (let at = 0; at <= log.length; at++) {
      if (at % stride === 0 || (size < 1000 && log[at] === null)) {
        const done = states.findLastIndex((state) => state.after <= at);
        const allowed = states.slice(done, done + 2).map((state) => state.found);
        for (const landed of ['none', 'all', 'some'] as const) {
          const crashed = new TestDevice(durable.memory.slice());
          for (const write of pending) {
            if (landed === 'all') crashed.memory.set(write.bytes, write.offset);
            else if (landed === 'some') writeTorn(crashed.memory, write, random);
          }
          expectClean(crashed);
          const found = fingerprint(contentsOf(crashed).devices);
          expect(allowed).toContain(found);
          if (landed === 'none') expect(found).toBe(allowed[0]);
          // And it can be gone on with.
          const again = PoolMetadata.open(crashed, { cacheBlocks: 128 });
          again.createThin(1000);
          again.commitSync();
          expectClean(crashed);
        }
      }
      const event = log[at];
      if (event === undefined) break;
      if (event !== null) {
        pending.push(event);
        continue;
      }
      for (const write of pending) durable.memory.set(write.bytes, write.offset);
      pending = [];
    }
    expect(pool.stats.evictionWrites > 0).toBe(size > 1000);
  });
});

describe('a failing device', () => {
  const run = async (failAt: number, kind: string, lasting: boolean): Promise<boolean> => {
    const device = new TestDevice(1 << 20);
    let pool = PoolMetadata.format(device, { dataBlockSizeBytes: 65536, dataBlockCount: 1000, cacheBlocks: 128 });
    const model = new PoolModel(pool);
    let count = 0;
    let failed = false;
    device.hook = (event) => {
      if (event.kind !== kind) return null;
      if (++count === failAt) failed = true;
      return count === failAt || (lasting && count > failAt) ? 'EIO' : null;
    };
    const commit = async (): Promise<void> => {
      await commitInSteps(pool);
      model.committed();
      // So that blocks are read again.
      pool.close();
      pool = PoolMetadata.open(device, { cacheBlocks: 128 });
      model.pool = pool;
    };
    try {
      await workload(model, commit, 4);
    } catch {
      expect(failed).toBe(true);
    }
    device.hook = null;
    if (!failed) return false;
    const allowed = [model.contents, model.pendingContents];
    // A pool whose opening failed is not there to be aborted.
    if (!lasting && kind !== 'read') {
      pool.abort();
      expect(pool.mustAbort).toBe(false);
    } else {
      pool = PoolMetadata.open(device, { cacheBlocks: 128 });
    }
    expectClean(device);
    expect(allowed).toContainEqual(contentsOf(device).devices);
    pool.createThin(77);
    pool.insert(pool.openThin(77), 1, pool.allocateDataBlock());
    await commitInSteps(pool);
    expectClean(device);
    return true;
  };

  it.each(['write', 'flush', 'read'])(
    'loses nothing of the last commit, whichever %s fails, once or for good',
    async (kind) => {
      for (const lasting of [false, true]) {
        let failAt = 1;
        while (await run(failAt, kind, lasting)) failAt++;
        expect(failAt).toBeGreaterThan(kind === 'flush' ? 10 : 30);
      }
    },
  );
});
