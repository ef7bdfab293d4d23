import { expect, test } from 'vitest';
import { KIB, MIB } from '../../src/base/units.ts';
import type { BlockDevice } from '../../src/block/block-device.ts';
import { LunOp } from '../../src/block/lun-backend.ts';
import { MemoryDevice } from '../../src/block/memory-device.ts';
import type { EngineOptions } from '../../src/thin/engine-options.ts';
import { ThinDevice, whileHeld } from '../../src/thin/thin-device.ts';
import { COPY_LUN_SIZE, lunCopyContract } from '../contracts/lun-copy.ts';
import { FaultyDevice } from '../support/faulty-device.ts';
import { unsharedForTheKernel } from '../support/kernel-sharing.ts';
import { expectBytes, LunClient, pattern } from '../support/lun-client.ts';
import { contentsOf } from '../support/metadata-judges.ts';
import { SpyDevice } from '../support/spy-device.ts';
import { BLOCK, type Fixture, makePool } from './pool-fixture.ts';

for (const zeroNewBlocks of [true, false]) {
  lunCopyContract(
    `a thin volume that ${zeroNewBlocks ? 'zeroes' : 'does not zero'} new blocks`,
    async () => {
      const pool = makePool({ zeroNewBlocks });
      const other = makePool();
      const luns = [1, 2].map((id) => pool.volume(id, COPY_LUN_SIZE)) as [ThinDevice, ThinDevice];
      return {
        luns,
        stranger: other.volume(1, COPY_LUN_SIZE),
        async close() {
          if (pool.metadata.changed) await pool.engine.commits.commit();
          expect(unsharedForTheKernel(contentsOf(pool.metadataDevice))).toEqual([]);
          await pool.close();
          await other.close();
        },
      };
    },
    { runs: 60, unmappedIsUndefined: !zeroNewBlocks },
  );
}

const SIZE = 64 * BLOCK;

interface Two {
  pool: Fixture;
  data: SpyDevice;
  /** Whose first 16 blocks hold `bytes`. */
  from: LunClient;
  source: ThinDevice;
  to: LunClient;
  target: ThinDevice;
  bytes: Uint8Array;
}

async function twoVolumes(options: Parameters<typeof makePool>[0] & Partial<EngineOptions> = {}): Promise<Two> {
  let data!: SpyDevice;
  const wrapData = (device: BlockDevice): BlockDevice => {
    data = new SpyDevice(device);
    return data;
  };
  const pool = makePool({ ...options, wrapData });
  const source = pool.volume(1, SIZE);
  const target = pool.volume(2, SIZE);
  const [from, to] = [new LunClient(source), new LunClient(target)];
  const bytes = pattern(16 * BLOCK, 1);
  await from.write(0, bytes);
  data.log.length = 0;
  return { pool, data, from, source, to, target, bytes };
}

async function turns(count = 5): Promise<void> {
  for (let i = 0; i < count; i++) await new Promise((resolve) => setImmediate(resolve));
}

/** Whether a promise has settled, after a while. */
async function isDone(promise: Promise<unknown>): Promise<boolean> {
  let done = false;
  const settled = (): unknown => (done = true);
  promise.then(settled, settled);
  await turns();
  return done;
}

const used = ({ metadata }: Fixture): number => metadata.dataBlockCount - metadata.freeDataBlocks;

test('a copy of whole blocks moves no data, takes no block and writes only metadata', async () => {
  const { pool, data, source, to, bytes } = await twoVolumes();
  await to.copy(source, 0, 8 * BLOCK, 16 * BLOCK);
  expect(data.log).toEqual([]);
  expect(used(pool)).toBe(16);
  expect(pool.engine.rangeCopier.stats).toEqual({ sharedBlocks: 16, movedBytes: 0 });
  expectBytes(await to.read(8 * BLOCK, 16 * BLOCK), bytes);
});

test('a copy moves only the parts of blocks at its two ends', async () => {
  const { pool, source, to, bytes } = await twoVolumes();
  await to.copy(source, BLOCK - 4096, 5 * BLOCK - 4096, 8 * BLOCK + 5120);
  expect(pool.engine.rangeCopier.stats).toEqual({ sharedBlocks: 8, movedBytes: 5120 });
  expectBytes(await to.read(5 * BLOCK - 4096, 8 * BLOCK + 5120), bytes.subarray(BLOCK - 4096, 9 * BLOCK + 1024));
  expect(used(pool)).toBe(18);
});

test('a copy that begins elsewhere in a block moves what is mapped, in pieces, and nothing for holes', async () => {
  const { pool, from, source, to, bytes } = await twoVolumes();
  await from.unmap(4 * BLOCK, 4 * BLOCK);
  bytes.fill(0, 4 * BLOCK, 8 * BLOCK);
  await to.copy(source, 0, 512, 16 * BLOCK);
  expect(pool.engine.rangeCopier.stats).toEqual({ sharedBlocks: 0, movedBytes: 12 * BLOCK });
  expectBytes(await to.read(512, 16 * BLOCK), bytes);
  expect((await to.extent(6 * BLOCK, BLOCK)).mapped).toBe(false);
});

test('the last block of a volume that is cut off is moved, so that growth does not show what lies behind the end', async () => {
  const { pool, source, bytes } = await twoVolumes();
  const small = pool.volume(3, 2 * BLOCK + 4096);
  const lun = new LunClient(small);
  await lun.copy(source, 0, 0, 2 * BLOCK + 4096);
  small.sizeBytes = 3 * BLOCK;
  const expected = new Uint8Array(3 * BLOCK);
  expected.set(bytes.subarray(0, 2 * BLOCK + 4096));
  expectBytes(await lun.read(0, 3 * BLOCK), expected);
});

test('a write in place that was on its way to the source is waited for, and is in the copy for good', async () => {
  const { data, from, source, to, bytes } = await twoVolumes();
  data.hold = true;
  const write = from.write(BLOCK, new Uint8Array(512).fill(7));
  await turns();
  const copy = to.copy(source, 0, 0, 4 * BLOCK);
  expect(await isDone(copy)).toBe(false);
  // One that comes now waits for the copy, and is not in it.
  const later = from.write(2 * BLOCK, new Uint8Array(512).fill(9));
  data.let();
  await Promise.all([write, copy]);
  bytes.fill(7, BLOCK, BLOCK + 512);
  expectBytes(await to.read(0, 4 * BLOCK), bytes.subarray(0, 4 * BLOCK));
  await later;
  expectBytes(await to.read(0, 4 * BLOCK), bytes.subarray(0, 4 * BLOCK));
  bytes.fill(9, 2 * BLOCK, 2 * BLOCK + 512);
  expectBytes(await from.read(0, 4 * BLOCK), bytes.subarray(0, 4 * BLOCK));
});

test('a first write and a discard that were there before are waited for, on both sides', async () => {
  const { data, from, source, to } = await twoVolumes();
  data.hold = true;
  const write = from.write(20 * BLOCK, new Uint8Array(BLOCK).fill(3));
  const other = to.write(5 * BLOCK, new Uint8Array(512).fill(4));
  const discard = from.unmap(BLOCK + 512, BLOCK);
  await turns();
  const copies = [to.copy(source, 20 * BLOCK, 0, BLOCK), to.copy(source, BLOCK, 5 * BLOCK, 2 * BLOCK)];
  for (const copy of copies) expect(await isDone(copy)).toBe(false);
  data.let();
  await Promise.all([write, other, discard, ...copies]);
  expectBytes(await to.read(0, BLOCK), new Uint8Array(BLOCK).fill(3));
  expectBytes(await to.read(5 * BLOCK, 2 * BLOCK), await from.read(BLOCK, 2 * BLOCK));
});

test('a read that was on its way to what is replaced gets what was there', async () => {
  const { pool, data, source, to } = await twoVolumes();
  const before = pattern(4 * BLOCK, 5);
  await to.write(0, before);
  data.hold = true;
  const read = to.read(0, 4 * BLOCK);
  await turns();
  const copy = to.copy(source, 0, 0, 4 * BLOCK);
  await turns();
  data.let();
  await copy;
  expectBytes(await read, before);
  await to.flush();
  await turns();
  expect(used(pool)).toBe(16);
});

test('a copy waits while one of its volumes is held, and a snapshot does not wait for all of a copy', async () => {
  for (const index of [0, 1]) {
    const { source, target, to, bytes } = await twoVolumes();
    let copy!: Promise<unknown>;
    await whileHeld([[source, target][index]!], async () => {
      copy = to.copy(source, 0, 0, 16 * BLOCK);
      expect(await isDone(copy)).toBe(false);
      expect([source.inFlight, target.inFlight]).toEqual([0, 0]);
    });
    await copy;
    expectBytes(await to.read(0, 16 * BLOCK), bytes);
  }
});

test('a volume is closed when the copies from it and to it have been answered', async () => {
  for (const index of [0, 1]) {
    const { data, from, source, target, to } = await twoVolumes();
    data.hold = true;
    const write = from.write(0, new Uint8Array(512));
    await turns();
    let answered = false;
    const copy = to.copy(source, 0, 0, 16 * BLOCK).finally(() => {
      answered = true;
    });
    const moving = to.copy(source, 0, 16 * BLOCK + 512, 24 * BLOCK);
    const refused = expect(Promise.all([copy, moving])).rejects.toThrow('ESHUTDOWN');
    await turns();
    const close = [source, target][index]!.close().then(() => expect(answered).toBe(true));
    data.let();
    await Promise.all([write, close, refused]);
  }
});

test('a copy to a read-only volume is refused; from one it leaves its tree as it is', async () => {
  const { pool, source, target, to, bytes } = await twoVolumes();
  target.readOnly = true;
  await expect(to.copy(source, 0, 0, BLOCK)).rejects.toThrow('EROFS');
  target.readOnly = false;
  await pool.engine.commits.commit();
  source.readOnly = true;
  const { root } = source.thin;
  await to.copy(source, 0, 0, 16 * BLOCK);
  expect(source.thin.root).toBe(root);
  expectBytes(await to.read(0, 16 * BLOCK), bytes);
  await pool.engine.commits.commit();
  expect(unsharedForTheKernel(contentsOf(pool.metadataDevice))).toEqual([]);
});

test('a copy from a read-only volume is moved when the pool has used up its times', async () => {
  const { pool, source, to, bytes } = await twoVolumes();
  const { transaction } = pool.metadata as unknown as { transaction: { superblock: { time: number } } };
  transaction.superblock.time = 2 ** 24 - 1;
  source.readOnly = true;
  await to.copy(source, 0, 0, 16 * BLOCK);
  expect(pool.engine.rangeCopier.stats).toEqual({ sharedBlocks: 0, movedBytes: 16 * BLOCK });
  expectBytes(await to.read(0, 16 * BLOCK), bytes);
});

test('out of data space whole blocks are copied, and the ends as far as there is space', async () => {
  const { pool, source, to, bytes } = await twoVolumes({ dataBlocks: 17, errorIfNoSpace: true });
  await expect(to.write(0, new Uint8Array(4 * BLOCK))).rejects.toThrow('ENOSPC');
  expect(pool.engine.space.mode).toBe('out-of-data-space');
  await to.copy(source, 0, 0, 8 * BLOCK);
  expectBytes(await to.read(0, 8 * BLOCK), bytes.subarray(0, 8 * BLOCK));
  // The block that the copy took the place of is free after a commit.
  await to.flush();
  await turns();
  expect(pool.engine.space.mode).toBe('write');
  let request = { copied: -1 };
  const copy = to.submit((one) => {
    Object.assign(one, {
      op: LunOp.COPY,
      source,
      sourceOffset: 8 * BLOCK + 512,
      offset: 16 * BLOCK + 512,
      length: 3 * BLOCK,
    });
    request = one;
  });
  await expect(copy).rejects.toThrow('ENOSPC');
  expect(request.copied).toBe(3 * BLOCK - 512);
  expectBytes(await to.read(16 * BLOCK + 512, 3 * BLOCK - 512), bytes.subarray(8 * BLOCK + 512, 11 * BLOCK));
});

test('a pool that is read-only refuses a copy', async () => {
  const { pool, source, to } = await twoVolumes();
  pool.engine.space.setMode('read-only', 'for the test');
  await expect(to.copy(source, 0, 0, BLOCK)).rejects.toThrow('EROFS');
});

test('a copy with FUA is durable when it is answered', async () => {
  const { pool, source, to } = await twoVolumes();
  const before = pool.engine.commits.stats.commits;
  await to.copy(source, 0, 0, BLOCK, true);
  expect(pool.engine.commits.stats.commits).toBe(before + 1);
  expect(contentsOf(pool.metadataDevice).devices.get(2)!.mappings.size).toBe(1);
});

test('out of metadata space a copy fails with the blocks before being there, and goes on later', async () => {
  const pool = makePool({ dataBlocks: 260, metadataSize: 80 * 4096 });
  const size = 250 * BLOCK;
  const source = pool.volume(1, size);
  await new LunClient(source).write(0, pattern(size, 1));
  let failed: { copied: number } | null = null;
  let id = 2;
  let target!: ThinDevice;
  for (; failed === null && id < 100; id++) {
    target = pool.volume(id, size);
    let request!: { copied: number };
    const copy = new LunClient(target).submit((one) => {
      Object.assign(one, { op: LunOp.COPY, source, length: size });
      request = one;
    });
    await copy.catch((error) => {
      expect(error.message).toBe('ENOSPC');
      failed = request;
    });
    expect(target.thin.mappedBlocks).toBe(request.copied / BLOCK);
  }
  expect(failed).not.toBeNull();
  expect(pool.metadata.mustAbort).toBe(false);
  await pool.engine.commits.commit();
  expect(pool.metadata.freeMetadataBlocksWithReserve).toBeGreaterThan(0);
  pool.metadataDevice.resize(4 * MIB);
  await pool.engine.mutate(() => pool.metadata.resizeMetadata(), true);
  pool.engine.space.grown(0);
  const lun = new LunClient(target);
  await lun.copy(source, 0, 0, size);
  expectBytes(await lun.read(0, size), pattern(size, 1));
});

test('a volume that was copied to, and has nothing of it any more, is shared with again', async () => {
  const { pool, source, to, target, bytes } = await twoVolumes({ dataBlocks: 128 });
  await to.copy(source, 0, 0, 16 * BLOCK);
  await to.write(0, new Uint8Array(16 * BLOCK));
  await to.flush();
  const { stats } = pool.engine.rangeCopier;
  for (let at = 16; at < 64; at += 16) await to.copy(source, 0, at * BLOCK, 16 * BLOCK);
  // At first it is looked for, and not there; then it is.
  expect(stats).toEqual({ sharedBlocks: 32, movedBytes: 32 * BLOCK });
  for (let at = 16; at < 64; at += 16) expectBytes(await to.read(at * BLOCK, 16 * BLOCK), bytes);
  expect(target.thin.mappedBlocks).toBe(64);
});

test('a copy inside a volume moves what is mapped', async () => {
  const { pool, from, source, bytes } = await twoVolumes();
  await from.copy(source, 0, 32 * BLOCK, 24 * BLOCK);
  expect(pool.engine.rangeCopier.stats).toEqual({ sharedBlocks: 0, movedBytes: 16 * BLOCK });
  expectBytes(await from.read(32 * BLOCK, 16 * BLOCK), bytes);
  expect(await from.extent(48 * BLOCK, 8 * BLOCK)).toEqual({ mapped: false, length: 8 * BLOCK });
});

test('a copy whose commit fails is undone, and says so', async () => {
  let faulty!: FaultyDevice;
  const pool = makePool({
    wrapMetadata: (device) => {
      faulty = new FaultyDevice(device);
      return faulty;
    },
  });
  const source = pool.volume(1, 4096 * BLOCK);
  const target = pool.volume(2, 4096 * BLOCK);
  const [from, to] = [new LunClient(source), new LunClient(target)];
  await from.write(0, pattern(64 * BLOCK, 1));
  await to.copy(source, 0, 0, 64 * BLOCK);
  await to.flush();
  faulty.failNth('write', 1, 'EIO');
  let request!: { copied: number };
  const copy = to.submit((one) => {
    Object.assign(one, { op: LunOp.COPY, source, offset: 64 * BLOCK, length: 64 * BLOCK, fua: true });
    request = one;
  });
  await expect(copy).rejects.toThrow('EIO');
  expect(request.copied).toBe(0);
  pool.broken = true;
  expect((await to.extent(64 * BLOCK, 64 * BLOCK)).mapped).toBe(false);
  expectBytes(await to.read(0, 64 * BLOCK), pattern(64 * BLOCK, 1));
});

test('copies of large holes take time for what is mapped only', async () => {
  const pool = makePool();
  const size = 2 ** 20 * MIB;
  const [source, target] = [pool.volume(1, size), pool.volume(2, size)];
  const [from, to] = [new LunClient(source), new LunClient(target)];
  await from.write(size / 2, pattern(BLOCK, 1));
  await to.write(size / 4, pattern(BLOCK, 2));
  const { copied } = await to.copy(source, 0, 0, size);
  expect(copied).toBe(size);
  expect(await to.extent(0, size)).toEqual({ mapped: false, length: size / 2 });
  expectBytes(await to.read(size / 2, BLOCK), pattern(BLOCK, 1));
});

test('a volume over an image is not offered: what it has not mapped shows the image', async () => {
  const { pool, source } = await twoVolumes();
  pool.metadata.createThin(9);
  const origin = { device: new MemoryDevice(64 * KIB), sizeBytes: 64 * KIB, queued: false };
  const overlay = new ThinDevice(pool.engine, pool.metadata.openThin(9), SIZE, origin);
  expect([overlay.copiesFrom(source), source.copiesFrom(overlay), overlay.copiesFrom(overlay)]).toEqual([
    false,
    false,
    false,
  ]);
  await expect(new LunClient(overlay).copy(source, 0, 0, BLOCK)).rejects.toThrow('EINVAL');
});
