import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { BlockDevice } from '../../src/block/block-device.ts';
import { MemoryDevice } from '../../src/block/memory-device.ts';
import { Catalogue } from '../../src/thin/catalogue.ts';
import { Pool } from '../../src/thin/pool.ts';
import { PoolMetadata } from '../../src/thin/pool-metadata.ts';
import { DEFAULT_POOL_OPTIONS } from '../../src/thin/pool-options.ts';
import { contentsOf, expectClean } from '../support/metadata-judges.ts';
import { RecordedFolder } from '../support/recorded-folder.ts';
import { RecordingDevice } from '../support/recording-device.ts';
import { SeededRandom } from '../support/seeded-random.ts';
import { SimulatedDevice } from '../support/simulated-device.ts';
import { ManualClock } from '../thin/pool-fixture.ts';

const BLOCK_SIZE = 65536;
const DATA_BLOCKS = 70_000;
const METADATA_SIZE = 1600 * 4096;
const MAPPINGS = 40_000;
/** Of these the snapshot has blocks of its own. */
const REWRITTEN = 24_000;

let dir: string;

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'thinlun-deletion-'));
});

afterEach(() => rmSync(dir, { recursive: true }));

/** A pool with a big device 1, and a snapshot of it that shares a part of its leaves. */
function makeBigDevices(device: BlockDevice): void {
  const metadata = PoolMetadata.format(device, { dataBlockSizeBytes: BLOCK_SIZE, dataBlockCount: DATA_BLOCKS });
  const map = (id: number, count: number): void => {
    const thin = metadata.openThin(id);
    for (let i = 0; i < count; i++) metadata.insert(thin, i * 2, metadata.allocateDataBlock());
    metadata.closeThin(thin);
    metadata.commitSync();
  };
  metadata.createThin(1);
  map(1, MAPPINGS);
  metadata.createSnap(2, 1);
  map(2, REWRITTEN);
  metadata.close();
}

/** Opens the pool in `folder`, does `work`, and lets everything in the background come to its end. */
async function withPool<T>(folder: string, metadata: BlockDevice, work: (pool: Pool) => Promise<T>): Promise<T> {
  const clock = new ManualClock();
  const data = new MemoryDevice(DATA_BLOCKS * BLOCK_SIZE, { path: join(folder, 'data') });
  let isDone = false;
  const time = (async () => {
    while (!isDone) {
      await new Promise((resolve) => setImmediate(resolve));
      clock.advance(10);
    }
  })();
  try {
    const pool = await Pool.open(folder, {
      clock,
      openDevice: (_, file) => (file === 'metadata' ? metadata : data),
      bootId: () => folder,
    });
    const result = await work(pool);
    await pool.deletionsEnded();
    await pool.close();
    return result;
  } finally {
    isDone = true;
    await time;
  }
}

describe('the deletion of a big volume', () => {
  it('goes on after a crash at any moment of it, and the snapshot keeps all that it has', {
    timeout: 240_000,
  }, async () => {
    const random = new SeededRandom();
    const raw = new SimulatedDevice(join(dir, 'metadata'), METADATA_SIZE, random);
    makeBigDevices(raw);
    const uuid = '8a8ce4a6-6b4f-4d0f-9d1c-111111111111';
    Catalogue.create(dir, { uuid, name: 'big', blockSizeBytes: BLOCK_SIZE, options: DEFAULT_POOL_OPTIONS });
    // Names for the two devices.
    await withPool(dir, raw, async () => {});
    const snapshot = contentsOf(raw).devices.get(2)!.mappings;
    const timeline = { now: 0 };
    const recording = new RecordingDevice(raw, timeline);
    const folder = new RecordedFolder(dir, timeline);
    try {
      await withPool(dir, recording, async (pool) => {
        await pool.deleteVolume('thin-1');
        let isEnded = false;
        const end = pool.deletionsEnded().then(() => {
          isEnded = true;
        });
        while (!isEnded) await pool.commit();
        await end;
      });
    } finally {
      folder.stop();
    }
    expect([...contentsOf(raw).devices.keys()]).toEqual([2]);
    // It was done in steps, with commits between them.
    expect(recording.flushes.length).toBeGreaterThan(5);

    const moments = [0, timeline.now, ...recording.flushes.flatMap(({ begunAt, doneAt }) => [begunAt, doneAt + 1])];
    for (let i = 0; i < 12; i++) moments.push(random.below(timeline.now));
    const seen = new Set<string>();
    for (const moment of moments.sort((a, b) => a - b)) {
      const salt = random.below(2 ** 31);
      const survives = (_: unknown, sector: number): boolean =>
        ((Math.imul(sector >> 3, 0x9e3779b1) ^ salt) & 64) !== 0;
      const metadata = new SimulatedDevice(join(dir, 'metadata'), recording.imageAt(moment, survives));
      const where = `THINLUN_SEED=${random.seed}, a crash at ${moment}`;
      expectClean(metadata);
      const left = contentsOf(metadata).devices;
      expect(left.get(2)!.mappings, where).toEqual(snapshot);
      seen.add(`${left.get(1)?.mappedBlocks}`);

      const crashed = join(dir, 'crashed');
      mkdirSync(crashed);
      for (const [name, bytes] of folder.afterPowerFailure(moment, random)) writeFileSync(join(crashed, name), bytes);
      const names = await withPool(crashed, metadata, async (pool) => pool.volumes().map(({ name }) => name));
      rmSync(crashed, { recursive: true });
      expectClean(metadata);
      const { devices } = contentsOf(metadata);
      expect(devices.get(2)!.mappings, where).toEqual(snapshot);
      // The volume is there with everything, or gone with everything.
      expect(devices.get(1)?.mappings.size ?? 0, where).toBe(names.includes('thin-1') ? MAPPINGS : 0);
    }
    // Whole, some of it, gone.
    expect(seen.size).toBeGreaterThan(2);
  });
});
