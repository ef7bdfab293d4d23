import { describe, expect, it } from 'vitest';
import { MIB } from '../../src/base/units.ts';
import type { BlockDevice, IoCompletion } from '../../src/block/block-device.ts';
import { whileHeld } from '../../src/thin/thin-device.ts';
import { expectBytes, LunClient, pattern } from '../support/lun-client.ts';
import { SpyDevice } from '../support/spy-device.ts';
import { WrappedDevice } from '../support/wrapped-device.ts';
import { BLOCK, expectClean, makePool } from './pool-fixture.ts';

/** Lets every completion and microtask that is due run. */
function turns(count = 20): Promise<void> {
  return new Promise((resolve) => {
    const turn = (left: number): void => {
      if (left === 0) resolve();
      else setImmediate(turn, left - 1);
    };
    turn(count);
  });
}

function withSpy(): { wrap: (device: BlockDevice) => BlockDevice; spy: SpyDevice } {
  const holder = {
    wrap: (device: BlockDevice): BlockDevice => {
      holder.spy = new SpyDevice(device);
      return holder.spy;
    },
    spy: undefined as unknown as SpyDevice,
  };
  return holder;
}

describe('reads and writes', () => {
  it('reads an unmapped volume as zeroes without any I/O and without provisioning', async () => {
    const data = withSpy();
    const pool = makePool({ wrapData: data.wrap });
    const lun = pool.client(1, 10 * MIB);
    expectBytes(await lun.read(12345 * 512, 3 * BLOCK), new Uint8Array(3 * BLOCK));
    expect(data.spy.log).toEqual([]);
    expect(pool.metadata.freeDataBlocks).toBe(256);
  });

  it('zeroes what a first write leaves of its block', async () => {
    const data = withSpy();
    const pool = makePool({ wrapData: data.wrap });
    // The data device is dirty: blocks come with what others left in them.
    pool.data.writeSync(0, new Uint8Array(4 * BLOCK).fill(0xaa), 0, 4 * BLOCK);
    const lun = pool.client(1, 10 * MIB);
    await lun.write(BLOCK + 4096, pattern(512, 1));
    const block = await lun.read(BLOCK, BLOCK);
    expectBytes(block.subarray(4096, 4608), pattern(512, 1));
    expectBytes(block.subarray(0, 4096), new Uint8Array(4096));
    expectBytes(block.subarray(4608), new Uint8Array(BLOCK - 4608));
  });

  it('does not zero a block that the write covers', async () => {
    const data = withSpy();
    const pool = makePool({ wrapData: data.wrap });
    await pool.client(1, 10 * MIB).write(2 * BLOCK, pattern(3 * BLOCK, 2));
    expect(data.spy.log).toEqual([`write 0 ${3 * BLOCK}`]);
  });

  it('writes to a mapped block in place, without a change of the metadata', async () => {
    const pool = makePool();
    const lun = pool.client(1, 10 * MIB);
    await lun.write(0, pattern(BLOCK, 1));
    await lun.flush();
    const before = pool.metadata.stats;
    await lun.write(512, pattern(1024, 9));
    expect(pool.metadata.changed).toBe(false);
    expect(before).toBe(pool.metadata.stats);
    expectBytes((await lun.read(512, 1024)).subarray(0, 1024), pattern(1024, 9));
  });

  it('provisions a block once when two parts of it are written at the same time', async () => {
    const pool = makePool();
    const lun = pool.client(1, 10 * MIB);
    await Promise.all([0, 1, 2, 3].map((i) => lun.write(i * 4096, pattern(4096, i))));
    expect(pool.metadata.freeDataBlocks).toBe(255);
    for (let i = 0; i < 4; i++) expectBytes(await lun.read(i * 4096, 4096), pattern(4096, i));
  });

  it('refuses what is past the end of the volume and touches nothing', async () => {
    const pool = makePool();
    const lun = pool.client(1, BLOCK + 512);
    await expect(lun.write(BLOCK, new Uint8Array(1024))).rejects.toThrow('ENXIO');
    await expect(lun.read(BLOCK + 512, 512)).rejects.toThrow('ENXIO');
    await expect(lun.unmap(0, 2 * BLOCK)).rejects.toThrow('ENXIO');
    expect(pool.metadata.freeDataBlocks).toBe(256);
    await lun.write(BLOCK, new Uint8Array(512));
  });

  it('reports the map as extents', async () => {
    const pool = makePool();
    const lun = pool.client(1, 64 * BLOCK);
    for (const block of [2, 3, 7]) await lun.write(block * BLOCK, pattern(BLOCK, block));
    expect(await lun.extent(0, 64 * BLOCK)).toEqual({ mapped: false, length: 2 * BLOCK });
    expect(await lun.extent(2 * BLOCK + 512, 64 * BLOCK - 2 * BLOCK - 512)).toEqual({
      mapped: true,
      length: 2 * BLOCK - 512,
    });
    expect(await lun.extent(8 * BLOCK, 56 * BLOCK)).toEqual({ mapped: false, length: 56 * BLOCK });
  });

  it('maps what WRITE ZEROES covers, and it reads as zeroes', async () => {
    const pool = makePool();
    pool.data.writeSync(0, new Uint8Array(4 * BLOCK).fill(0xaa), 0, 4 * BLOCK);
    const lun = pool.client(1, 64 * BLOCK);
    await lun.writeZeroes(BLOCK - 512, 2 * BLOCK);
    expect(await lun.extent(0, 64 * BLOCK)).toEqual({ mapped: true, length: 3 * BLOCK });
    expectBytes(await lun.read(0, 3 * BLOCK), new Uint8Array(3 * BLOCK));
  });

  it('serves a pool whose metadata cache holds far fewer blocks than it needs', async () => {
    const pool = makePool({ cacheBlocks: 128, dataBlocks: 4096, metadataSize: 8 * MIB });
    const lun = pool.client(1, 65536 * BLOCK);
    const at = (i: number): number => ((i * 7919) % 65536) * BLOCK;
    for (let i = 0; i < 2000; i += 50) {
      await Promise.all(Array.from({ length: 50 }, (_, j) => lun.write(at(i + j), pattern(512, i + j))));
    }
    await lun.flush();
    const read = await Promise.all(Array.from({ length: 2000 }, (_, i) => lun.read(at(i), 512)));
    read.forEach((bytes, i) => {
      expectBytes(bytes, pattern(512, i));
    });
  });
});

describe('discard', () => {
  it('unmaps whole blocks and zeroes the partial ones', async () => {
    const pool = makePool();
    const lun = pool.client(1, 64 * BLOCK);
    await lun.write(0, pattern(6 * BLOCK, 5));
    await lun.unmap(BLOCK - 1024, 3 * BLOCK + 2048);
    const bytes = await lun.read(0, 6 * BLOCK);
    const expected = pattern(6 * BLOCK, 5);
    expected.fill(0, BLOCK - 1024, 4 * BLOCK + 1024);
    expectBytes(bytes, expected);
    expect(pool.metadata.dataBlockCount - pool.metadata.freeDataBlocks).toBe(3);
  });

  it('does not provision what is unmapped already, at the edges either', async () => {
    const pool = makePool();
    const lun = pool.client(1, 64 * BLOCK);
    await lun.unmap(512, 10 * BLOCK);
    await lun.unmap(BLOCK + 512, 1024);
    expect(pool.metadata.freeDataBlocks).toBe(256);
  });

  it('unmaps the last block of a volume that ends inside it', async () => {
    const pool = makePool();
    const lun = pool.client(1, BLOCK + 4096);
    await lun.write(BLOCK, pattern(4096, 1));
    await lun.unmap(BLOCK, 4096);
    expect(pool.metadata.freeDataBlocks).toBe(256);
  });

  it('passes down to the data device only after the commit that frees the blocks', async () => {
    const data = withSpy();
    const pool = makePool({ wrapData: data.wrap });
    const lun = pool.client(1, 64 * BLOCK);
    await lun.write(0, pattern(4 * BLOCK, 5));
    await lun.flush();
    data.spy.log.length = 0;
    await lun.unmap(0, 2 * BLOCK);
    await turns();
    expect(data.spy.log).toEqual([]);
    await lun.flush();
    await turns();
    expect(data.spy.log).toEqual(['flush', `discard 0 ${2 * BLOCK}`]);
  });

  it('does not give a freed block to anyone while an older read of it is under way', async () => {
    const data = withSpy();
    const pool = makePool({ wrapData: data.wrap, dataBlocks: 1, discardPassdown: false });
    const one = pool.client(1, 64 * BLOCK);
    const two = pool.client(2, 64 * BLOCK);
    await one.write(0, pattern(BLOCK, 1));
    await one.flush();
    data.spy.hold = true;
    const late = one.read(0, BLOCK);
    await turns();
    await one.unmap(0, BLOCK);
    await one.flush();
    const write = two.write(0, pattern(BLOCK, 2));
    await turns();
    expect(data.spy.log.filter((entry) => entry.startsWith('write'))).toHaveLength(1);
    data.spy.let();
    expectBytes(await late, pattern(BLOCK, 1));
    await write;
    expectBytes(await two.read(0, BLOCK), pattern(BLOCK, 2));
    expectBytes(await one.read(0, BLOCK), new Uint8Array(BLOCK));
  });

  it('waits for a first write to the same block that came before', async () => {
    const data = withSpy();
    const pool = makePool({ wrapData: data.wrap });
    const lun = pool.client(1, 64 * BLOCK);
    data.spy.hold = true;
    const write = lun.write(0, pattern(512, 1));
    await turns();
    const unmap = lun.unmap(0, BLOCK);
    await turns();
    data.spy.let();
    await Promise.all([write, unmap]);
    expectBytes(await lun.read(0, 512), new Uint8Array(512));
    expect(pool.metadata.freeDataBlocks).toBe(256);
  });

  it('goes on in parts when thousands of blocks are mapped, and others have their turn', async () => {
    const pool = makePool({ dataBlocks: 12000, metadataSize: 8 * MIB });
    const lun = pool.client(1, 20000 * BLOCK);
    const other = pool.client(2, BLOCK);
    for (let i = 0; i < 10000; i += 1000) {
      await Promise.all(Array.from({ length: 1000 }, (_, j) => lun.write((i + j) * 2 * BLOCK, pattern(512, 1))));
    }
    await other.write(0, pattern(512, 2));
    const order: string[] = [];
    await Promise.all([
      lun.unmap(0, 20000 * BLOCK).then(() => order.push('unmap')),
      other.read(0, 512).then(() => order.push('read')),
    ]);
    expect(order).toEqual(['read', 'unmap']);
    expect(pool.metadata.dataBlockCount - pool.metadata.freeDataBlocks).toBe(1);
  });
});

/** Flushes end when they are let. */
class HeldFlushes extends WrappedDevice {
  hold = false;
  readonly #held: (() => void)[] = [];

  override flush(completion: IoCompletion): void {
    const go = (): void => this.inner.flush(completion);
    if (this.hold) this.#held.push(go);
    else go();
  }

  letOne(): void {
    this.#held.shift()?.();
    this.inner.submit();
  }
}

describe('commits', () => {
  it('come one second after a change, without anyone asking', async () => {
    const pool = makePool();
    const lun = pool.client(1, 64 * BLOCK);
    await pool.engine.commits.commit();
    await lun.write(0, pattern(512, 1));
    await turns();
    expect(pool.metadata.changed).toBe(true);
    pool.clock.advance(999);
    await turns();
    expect(pool.metadata.changed).toBe(true);
    pool.clock.advance(1);
    await turns();
    expect(pool.metadata.changed).toBe(false);
  });

  it('flush the data device before the superblock is written', async () => {
    const log: string[] = [];
    const tell = (name: string) => (device: BlockDevice) =>
      new SpyDevice(device, (entry) => log.push(`${name} ${entry.split(' ').slice(0, 2).join(' ')}`));
    const pool = makePool({ wrapData: tell('data'), wrapMetadata: tell('metadata') });
    const lun = pool.client(1, 64 * BLOCK);
    await lun.write(0, pattern(BLOCK, 1));
    await lun.flush();
    const superblock = log.lastIndexOf('metadata write 0');
    expect(superblock).toBeGreaterThan(log.indexOf('data flush'));
    expect(log.indexOf('data flush')).toBeGreaterThan(log.indexOf('data write 0'));
    expect(log.slice(0, superblock)).toContain('metadata flush');
    expect(log.slice(superblock)).toContain('metadata flush');
  });

  it('flush much new data once before, while writes that need blocks go on, and again with the metadata', async () => {
    const log: string[] = [];
    const held: HeldFlushes[] = [];
    const tell = (name: string) => (device: BlockDevice) =>
      new SpyDevice(device, (entry) => log.push(`${name} ${entry}`));
    const pool = makePool({
      dataBlocks: 1200,
      wrapData: (device) => {
        held.push(new HeldFlushes(device));
        return tell('data')(held[0]!);
      },
      wrapMetadata: tell('metadata'),
    });
    const [data] = held;
    const lun = pool.client(1, 1100 * BLOCK);
    await pool.engine.commits.commit();
    await lun.write(0, pattern(600 * BLOCK, 1));
    log.length = 0;
    data!.hold = true;
    let flushed = false;
    const flush = lun.flush().then(() => {
      flushed = true;
    });
    await turns();
    expect(log).toEqual(['data flush']);
    await lun.write(700 * BLOCK, pattern(BLOCK, 2));
    data!.letOne();
    await turns();
    const second = log.indexOf('data flush', 1);
    expect(second).toBeGreaterThan(log.findIndex((entry) => entry.startsWith('data write')));
    expect(log.slice(second).some((entry) => entry.startsWith('metadata write'))).toBe(true);
    // What is being committed does not change any more.
    const late = lun.write(701 * BLOCK, pattern(BLOCK, 3));
    await turns();
    expect(log.some((entry) => entry.startsWith('metadata write 0 '))).toBe(false);
    expect(flushed).toBe(false);
    data!.hold = false;
    data!.letOne();
    await Promise.all([flush, late]);
    expectBytes(await lun.read(700 * BLOCK, BLOCK), pattern(BLOCK, 2));
    await lun.write(702 * BLOCK, pattern(BLOCK, 4));
    log.length = 0;
    await lun.flush();
    expect(log.filter((entry) => entry === 'data flush')).toEqual(['data flush']);
  });

  it('do not begin where much new data fails to be flushed before', async () => {
    const data = withSpy();
    const pool = makePool({ dataBlocks: 1200, wrapData: data.wrap });
    const lun = pool.client(1, 1100 * BLOCK);
    await lun.write(0, pattern(512, 1), true);
    await lun.write(BLOCK, pattern(600 * BLOCK, 2));
    data.spy.fail.set('flush', 'EIO');
    const { commits } = pool.engine.commits.stats;
    await expect(lun.flush()).rejects.toThrow('EIO');
    data.spy.fail.delete('flush');
    expect(pool.engine.commits.stats.commits).toBe(commits);
    expect(pool.engine.space.mode).toBe('read-only');
    expectBytes(await lun.read(0, 512), pattern(512, 1));
    expectBytes(await lun.read(BLOCK, 512), new Uint8Array(512));
    await expect(lun.flush()).rejects.toThrow('EIO');
  });

  it('are shared by flushes that wait together', async () => {
    const pool = makePool();
    const lun = pool.client(1, 64 * BLOCK);
    await pool.engine.commits.commit();
    const before = pool.engine.commits.stats.commits;
    await lun.write(0, pattern(512, 1));
    await Promise.all(Array.from({ length: 20 }, () => lun.flush()));
    expect(pool.engine.commits.stats.commits).toBe(before + 1);
  });

  it('let a write with FUA be answered only when it is durable', async () => {
    const pool = makePool();
    const lun = pool.client(1, 64 * BLOCK);
    await lun.write(0, pattern(512, 1), true);
    expect(pool.metadata.changed).toBe(false);
  });

  it('that fail abort the transaction: read-only, needs_check, and the flush says EIO', async () => {
    const metadata = withSpy();
    const pool = makePool({ wrapMetadata: metadata.wrap });
    const lun = pool.client(1, 64 * BLOCK);
    await lun.write(0, pattern(512, 1));
    await lun.flush();
    await lun.write(BLOCK, pattern(512, 2));
    metadata.spy.fail.set('write', 'EIO');
    await expect(lun.flush()).rejects.toThrow('EIO');
    metadata.spy.fail.clear();
    expect(pool.engine.space.mode).toBe('read-only');
    expect(pool.metadata.needsCheck).toBe(true);
    expectBytes(await lun.read(0, 512), pattern(512, 1));
    expectBytes(await lun.read(BLOCK, 512), new Uint8Array(512));
    await expect(lun.write(5 * BLOCK, pattern(512, 2))).rejects.toThrow('EROFS');
    await lun.write(0, pattern(512, 3));
    expectBytes(await lun.read(0, 512), pattern(512, 3));
  });

  it('whose data flush fails lose nothing that was committed and acknowledge nothing that was not', async () => {
    const data = withSpy();
    const pool = makePool({ wrapData: data.wrap });
    const lun = pool.client(1, 64 * BLOCK);
    await lun.write(0, pattern(512, 1), true);
    await lun.write(BLOCK, pattern(512, 2));
    data.spy.fail.set('flush', 'EIO');
    await expect(lun.flush()).rejects.toThrow('EIO');
    expect(pool.engine.space.mode).toBe('read-only');
    expectBytes(await lun.read(0, 512), pattern(512, 1));
    await expect(pool.engine.commits.flushAll()).rejects.toMatchObject({ code: 'EIO' });
    data.spy.fail.delete('flush');
  });

  it.each(['with', 'without'])(
    'whose data flush fails, %s a change of the metadata, are told to every volume, and to whoever else uses it',
    async (changes) => {
      const data = withSpy();
      const pool = makePool({ wrapData: data.wrap });
      const [one, two] = [pool.client(1, 64 * BLOCK), pool.client(2, 64 * BLOCK)];
      for (const lun of [one, two]) await lun.write(0, pattern(512, 1), true);
      // In place: nothing but the data device knows of it. The system drops what it could not write, and forgets that it has.
      for (const lun of [one, two]) await lun.write(0, pattern(512, 2));
      if (changes === 'with') await one.write(BLOCK, pattern(512, 3));
      data.spy.fail.set('flush', 'EIO');
      await expect(one.flush()).rejects.toThrow('EIO');
      data.spy.fail.delete('flush');
      for (const lun of [two, one, two, one]) await expect(lun.flush()).rejects.toThrow('EIO');
    },
  );
});

describe('a first write whose data is still under way', () => {
  it('leaves nothing behind in what a commit makes durable meanwhile', async () => {
    const data = withSpy();
    const pool = makePool({ wrapData: data.wrap });
    const lun = pool.client(1, 64 * BLOCK);
    await pool.engine.commits.commit();
    data.spy.hold = true;
    const write = lun.write(0, pattern(512, 1));
    await turns();
    pool.metadata.createThin(2);
    await pool.engine.commits.commit();
    // What a crash at this moment would leave.
    expectClean(pool.metadataDevice);
    expect(pool.metadata.freeDataBlocks).toBe(255);
    data.spy.let();
    await write;
    expectBytes(await lun.read(0, 512), pattern(512, 1));
  });
});

describe('failures of the data device', () => {
  it('leave the block unmapped when a first write fails, and give its data block back', async () => {
    const data = withSpy();
    const pool = makePool({ wrapData: data.wrap });
    const lun = pool.client(1, 64 * BLOCK);
    data.spy.fail.set('write', 'EIO');
    await expect(lun.write(0, pattern(512, 1))).rejects.toThrow('EIO');
    data.spy.fail.clear();
    expect(await lun.extent(0, BLOCK)).toEqual({ mapped: false, length: BLOCK });
    await lun.flush();
    expect(pool.metadata.freeDataBlocks).toBe(256);
    await lun.write(0, pattern(512, 1));
    expectBytes(await lun.read(0, 512), pattern(512, 1));
  });

  it('are answered to the read that met them', async () => {
    const data = withSpy();
    const pool = makePool({ wrapData: data.wrap });
    const lun = pool.client(1, 64 * BLOCK);
    await lun.write(0, pattern(BLOCK, 1));
    data.spy.fail.set('read', 'EIO');
    await expect(lun.read(0, 512)).rejects.toThrow('EIO');
  });
});

describe('data space', () => {
  it('tells once when the low-water mark is reached', async () => {
    const pool = makePool({ dataBlocks: 8, lowWaterBlocks: 4 });
    const lun = pool.client(1, 64 * BLOCK);
    await lun.write(0, pattern(3 * BLOCK, 1));
    expect(pool.events).toEqual([]);
    await lun.write(3 * BLOCK, pattern(2 * BLOCK, 1));
    expect(pool.events).toEqual([{ kind: 'low-water', freeBlocks: 3, lowWaterBlocks: 4 }]);
  });

  it('queues writes when it is out, fails them after the timeout, and reads go on', async () => {
    const pool = makePool({ dataBlocks: 4 });
    const lun = pool.client(1, 64 * BLOCK);
    await lun.write(0, pattern(4 * BLOCK, 1));
    const waiting = lun.write(10 * BLOCK, pattern(512, 1));
    const outcome = expect(waiting).rejects.toThrow('ENOSPC');
    await turns();
    expect(pool.engine.space.mode).toBe('out-of-data-space');
    expectBytes(await lun.read(0, 4 * BLOCK), pattern(4 * BLOCK, 1));
    await lun.write(0, pattern(512, 7));
    await lun.flush();
    pool.clock.advance(60_000);
    await outcome;
    await expect(lun.write(11 * BLOCK, pattern(512, 1))).rejects.toThrow('ENOSPC');
    await lun.flush();
  });

  it('lets queued writes go on when a discard has made room', async () => {
    const pool = makePool({ dataBlocks: 4 });
    const lun = pool.client(1, 64 * BLOCK);
    await lun.write(0, pattern(4 * BLOCK, 1));
    const waiting = lun.write(10 * BLOCK, pattern(512, 3));
    await turns();
    await lun.unmap(0, 2 * BLOCK);
    pool.clock.advance(1000);
    await waiting;
    expect(pool.engine.space.mode).toBe('write');
    expectBytes(await lun.read(10 * BLOCK, 512), pattern(512, 3));
  });

  it('errors at once where the pool was told so, and uses what space there is first', async () => {
    const pool = makePool({ dataBlocks: 4, errorIfNoSpace: true });
    const lun = pool.client(1, 64 * BLOCK);
    await expect(lun.write(0, pattern(6 * BLOCK, 1))).rejects.toThrow('ENOSPC');
    expectBytes(await lun.read(0, 4 * BLOCK), pattern(6 * BLOCK, 1).subarray(0, 4 * BLOCK));
    expect(pool.metadata.freeDataBlocks).toBe(0);
    await expect(lun.write(20 * BLOCK, pattern(512, 1))).rejects.toThrow('ENOSPC');
  });

  it('hands out blocks that only this transaction freed after a commit of its own accord', async () => {
    const pool = makePool({ dataBlocks: 4, errorIfNoSpace: true });
    const lun = pool.client(1, 64 * BLOCK);
    await lun.write(0, pattern(4 * BLOCK, 1));
    await lun.flush();
    await lun.unmap(0, 4 * BLOCK);
    await lun.write(8 * BLOCK, pattern(4 * BLOCK, 2));
    expectBytes(await lun.read(8 * BLOCK, 4 * BLOCK), pattern(4 * BLOCK, 2));
    expect(pool.engine.space.mode).toBe('write');
  });
});

describe('a held device', () => {
  it('answers what came before, and keeps what comes meanwhile', async () => {
    const pool = makePool();
    const device = pool.volume(1, 64 * BLOCK);
    const lun = new LunClient(device);
    const before = lun.write(0, pattern(512, 1));
    let during: Promise<void> = Promise.resolve();
    await whileHeld([device], async () => {
      await before;
      during = lun.write(0, pattern(512, 2));
      await turns();
      expect(device.inFlight).toBe(0);
    });
    await during;
    expectBytes(await lun.read(0, 512), pattern(512, 2));
  });
});
