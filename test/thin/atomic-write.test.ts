import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { silentLogger } from '../../src/base/log.ts';
import { KIB, MIB } from '../../src/base/units.ts';
import { MemoryDevice } from '../../src/block/memory-device.ts';
import { MappingJournal } from '../../src/thin/mapping-journal.ts';
import { recover } from '../../src/thin/recovery.ts';
import { ThinDevice } from '../../src/thin/thin-device.ts';
import { expectBytes, LunClient, pattern } from '../support/lun-client.ts';
import { RecordingDevice, type Timeline } from '../support/recording-device.ts';
import { SeededRandom } from '../support/seeded-random.ts';
import { BLOCK, type Fixture, makePool } from './pool-fixture.ts';

const SIZE = 16 * BLOCK;
const folders: string[] = [];

afterEach(() => {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true });
});

function journalPath(): string {
  const folder = mkdtempSync(join(tmpdir(), 'thinlun-atomic-'));
  folders.push(folder);
  return join(folder, 'journal');
}

const openJournal = (path: string): MappingJournal => MappingJournal.open(path, 'this boot', silentLogger);

/** A pool on copies of what two devices hold. */
function reopen(metadataImage: Uint8Array, dataImage: Uint8Array): Fixture {
  const copyOf = (image: Uint8Array): MemoryDevice => {
    const device = new MemoryDevice(image.length);
    device.writeSync(0, image, 0, image.length);
    return device;
  };
  return makePool({ wrapMetadata: () => copyOf(metadataImage), wrapData: () => copyOf(dataImage) });
}

describe('an atomic write', () => {
  it('reads back like any other, over mapped blocks, holes and snapshots, wherever it begins', async () => {
    const random = new SeededRandom();
    const pool = makePool();
    const client = pool.client(1, SIZE);
    const model = new Uint8Array(SIZE);
    let snapshot: Uint8Array | null = null;
    for (let i = 0; i < 60; i++) {
      const offset = 512 * random.below(SIZE / 512);
      const length = Math.min(512 * (1 + random.below(6 * 128)), SIZE - offset, MIB);
      const bytes = pattern(length, i);
      if (random.below(4) === 0) await client.unmap(offset, length).then(() => model.fill(0, offset, offset + length));
      else {
        await (random.below(3) === 0 ? client.write(offset, bytes) : client.writeAtomic(offset, bytes, i % 7 === 0));
        model.set(bytes, offset);
      }
      if (i === 30) {
        await client.flush();
        await pool.engine.mutate(() => pool.metadata.createSnap(2, 1));
        snapshot = model.slice();
      }
      expectBytes(await client.read(0, SIZE), model);
    }
    expectBytes(await pool.client(2, SIZE).read(0, SIZE), snapshot!);
  });

  it('takes new blocks, and gives the old ones back', async () => {
    const pool = makePool();
    const client = pool.client(1, SIZE);
    await client.write(0, pattern(4 * BLOCK, 1));
    await client.flush();
    const free = pool.metadata.freeDataBlocks;
    for (let i = 0; i < 10; i++) await client.writeAtomic(BLOCK / 2, pattern(3 * BLOCK, i), true);
    await client.flush();
    expect(pool.metadata.freeDataBlocks + pool.metadata.freed.count).toBe(free);
  });

  it('keeps what is on its way to other parts of its blocks, and is kept by what comes later', async () => {
    const random = new SeededRandom();
    const pool = makePool();
    const client = pool.client(1, SIZE);
    await client.write(0, pattern(SIZE, 1));
    const model = pattern(SIZE, 1);
    for (let round = 0; round < 30; round++) {
      // Sectors that are all different, so that the order does not matter.
      const parts = Array.from({ length: 16 }, (_, i) => [
        i * BLOCK + 512 * random.below(64),
        512 * (1 + random.below(64)),
      ]);
      await Promise.all(
        parts.map(([offset, length], i) => {
          const bytes = pattern(length!, round * 16 + i);
          model.set(bytes, offset!);
          return random.below(2) === 0 ? client.write(offset!, bytes) : client.writeAtomic(offset!, bytes);
        }),
      );
      const whole = pattern(6 * BLOCK, round);
      const at = 512 * random.below((SIZE - whole.length) / 512);
      const before = client.write(Math.max(0, at - 512), pattern(512, 777));
      if (at > 0) model.set(pattern(512, 777), at - 512);
      const atomic = client.writeAtomic(at, whole);
      await Promise.all([before, atomic]);
      if (at === 0) await client.write(0, whole);
      model.set(whole, at);
      expectBytes(await client.read(0, SIZE), model);
    }
  });

  it('that finds too little space changes nothing, and lets others have what is there', async () => {
    const pool = makePool({ dataBlocks: 8 });
    const client = pool.client(1, SIZE);
    await client.write(0, pattern(5 * BLOCK, 1));
    await client.flush();
    await expect(client.writeAtomic(0, pattern(4 * BLOCK, 2))).rejects.toThrow('ENOSPC');
    expectBytes(await client.read(0, 5 * BLOCK), pattern(5 * BLOCK, 1));
    expect(pool.engine.space.mode).toBe('write');
    await client.writeAtomic(0, pattern(3 * BLOCK, 3));
    expectBytes(await client.read(0, 3 * BLOCK), pattern(3 * BLOCK, 3));
  });

  it('is refused by a pool that is full when none comes, and done when some does', async () => {
    const pool = makePool({ dataBlocks: 4 });
    const client = pool.client(1, SIZE);
    const other = pool.client(2, SIZE);
    await client.write(0, pattern(2 * BLOCK, 1));
    await other.write(0, pattern(2 * BLOCK, 1));
    await client.flush();
    const waiting = client.writeAtomic(0, pattern(BLOCK, 2));
    await new Promise((resolve) => setImmediate(resolve));
    await other.unmap(0, 2 * BLOCK);
    await other.flush();
    await waiting;
    expectBytes(await client.read(0, BLOCK), pattern(BLOCK, 2));
  });

  it('is there whole or not at all after a power failure at any moment, with any of what was not flushed lost', async () => {
    const timeline: Timeline = { now: 0 };
    let metadata: RecordingDevice | null = null;
    let data: RecordingDevice | null = null;
    const pool = makePool({
      dataBlocks: 64,
      wrapMetadata: (device) => (metadata = new RecordingDevice(device, timeline)),
      wrapData: (device) => (data = new RecordingDevice(device, timeline)),
    });
    const client = pool.client(1, SIZE);
    await client.write(0, pattern(SIZE, 1));
    await client.flush();
    const begin = timeline.now;
    const OFFSET = 3 * BLOCK + 5 * KIB;
    const LENGTH = 5 * BLOCK + 512;
    const versions = [pattern(SIZE, 1).subarray(OFFSET, OFFSET + LENGTH)];
    for (let i = 2; i <= 5; i++) {
      const next = pattern(LENGTH, i);
      versions.push(next);
      const writes = [client.writeAtomic(OFFSET, next, i % 2 === 0), client.write(0, pattern(BLOCK, i))];
      await Promise.all(writes);
      if (i === 3) await client.flush();
    }
    await client.flush();
    const end = timeline.now;
    const random = new SeededRandom();
    const seen = new Set<number>();
    for (let position = begin; position <= end; position += 1 + random.below(3)) {
      const survives = (): boolean => random.below(2) === 0;
      const crashed = reopen(metadata!.imageAt(position, survives), data!.imageAt(position, survives));
      const found = await new LunClient(crashed.volume(1, SIZE)).read(OFFSET, LENGTH);
      const version = versions.findIndex((bytes) => Buffer.compare(bytes, found) === 0);
      expect(version, `position ${position}, seed ${random.seed}`).toBeGreaterThanOrEqual(0);
      seen.add(version);
      await crashed.close();
    }
    expect(seen.has(0) && seen.has(4)).toBe(true);
  });

  it('is there whole or not at all after the process was killed in the middle of noting it', async () => {
    const path = journalPath();
    const journal = openJournal(path);
    const pool = makePool({ journal, dataBlocks: 64 });
    journal.begin(pool.metadata.committedIdentity);
    const client = pool.client(1, SIZE);
    await client.write(0, pattern(SIZE, 1));
    await client.flush();
    await client.writeAtomic(BLOCK / 2, pattern(4 * BLOCK, 2));
    const images = [pool.metadataDevice, pool.data].map((device) => {
      const image = new Uint8Array(device.sizeBytes);
      device.readSync(0, image, 0, image.length);
      return image;
    });
    const { readFileSync, writeFileSync } = await import('node:fs');
    const noted = readFileSync(path);
    const found = new Set<string>();
    for (let length = 4096; length <= 4096 + 8 * 32; length += 8) {
      const copy = journalPath();
      writeFileSync(copy, noted.subarray(0, length));
      const crashed = reopen(images[0]!, images[1]!);
      const again = openJournal(copy);
      await recover(crashed.engine, again, silentLogger);
      const device = new ThinDevice(crashed.engine, crashed.metadata.openThin(1), SIZE);
      const bytes = await new LunClient(device).read(BLOCK / 2, 4 * BLOCK);
      const isOld = Buffer.compare(bytes, pattern(SIZE, 1).subarray(BLOCK / 2, BLOCK / 2 + 4 * BLOCK)) === 0;
      if (!isOld) expectBytes(bytes, pattern(4 * BLOCK, 2));
      found.add(isOld ? 'old' : 'new');
      again.remove();
      await crashed.close();
    }
    expect([...found]).toEqual(['old', 'new']);
    journal.remove();
  });

  it('is not offered where blocks are too large to be copied for it', () => {
    expect(makePool().volume(1, SIZE).atomicWriteBytes).toBe(MIB);
    expect(makePool({ blockSizeBytes: 2 * MIB, dataBlocks: 4 }).volume(1, MIB).atomicWriteBytes).toBe(0);
  });
});
