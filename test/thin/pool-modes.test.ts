import { describe, expect, it } from 'vitest';
import { MIB } from '../../src/base/units.ts';
import { LunOp, type LunRequest } from '../../src/block/lun-backend.ts';
import type { EngineSettings } from '../../src/thin/engine-options.ts';
import type { PoolMode } from '../../src/thin/pool-mode.ts';
import { FaultyDevice } from '../support/faulty-device.ts';
import { expectBytes, type LunClient, pattern } from '../support/lun-client.ts';
import { BLOCK, type Fixture, makePool } from './pool-fixture.ts';

const SETTINGS: EngineSettings = {
  lowWaterBlocks: 0,
  noSpaceTimeoutMs: 60_000,
  errorIfNoSpace: false,
  readOnly: false,
  ignoreDiscard: false,
  discardPassdown: true,
  zeroNewBlocks: true,
};

function turns(count = 20): Promise<void> {
  return new Promise((resolve) => {
    const turn = (left: number): void => {
      if (left === 0) resolve();
      else setImmediate(turn, left - 1);
    };
    turn(count);
  });
}

/** What the pool answers to everything that can be asked of a volume whose block 0 is mapped, and no other. */
async function answers(lun: LunClient): Promise<Record<string, string>> {
  const outcome = (call: Promise<unknown>): Promise<string> =>
    call.then(
      () => 'done',
      (error: Error) => error.message,
    );
  return {
    readMapped: await outcome(lun.read(0, 512)),
    readUnmapped: await outcome(lun.read(20 * BLOCK, 512)),
    writeMapped: await outcome(lun.write(0, pattern(512, 1))),
    writeUnmapped: await outcome(lun.write(21 * BLOCK, pattern(512, 1))),
    flush: await outcome(lun.flush()),
    unmapUnmapped: await outcome(lun.unmap(22 * BLOCK, BLOCK)),
    extent: await outcome(lun.extent(0, BLOCK)),
  };
}

const EVERYTHING_DONE = {
  readMapped: 'done',
  readUnmapped: 'done',
  writeMapped: 'done',
  writeUnmapped: 'done',
  flush: 'done',
  unmapUnmapped: 'done',
  extent: 'done',
};

function modes(pool: Fixture): PoolMode[] {
  return pool.events.flatMap((event) => (event.kind === 'mode' ? [event.mode] : []));
}

/** A pool that has used up its metadata but for the reserve, by devices 10 and up; device 1 has its first block mapped. */
async function outOfMetadata(): Promise<{ pool: Fixture; lun: LunClient }> {
  const pool = makePool();
  const lun = pool.client(1, 2 ** 36);
  await lun.write(0, pattern(512, 1));
  for (let id = 10; pool.engine.space.mode === 'write'; id += 10) {
    await pool.engine.mutate(() => {
      for (let i = 0; i < 10; i++) pool.metadata.createThin(id + i);
    });
  }
  return { pool, lun };
}

describe('in mode', () => {
  it('write, everything is done', async () => {
    const pool = makePool();
    const lun = pool.client(1, 64 * BLOCK);
    await lun.write(0, pattern(512, 1));
    expect(await answers(lun)).toEqual(EVERYTHING_DONE);
  });

  it('out of data space, only what needs a new block fails; a flush never does', async () => {
    const pool = makePool({ dataBlocks: 8, errorIfNoSpace: true });
    const lun = pool.client(1, 64 * BLOCK);
    await lun.write(0, pattern(8 * BLOCK, 1));
    expect(await answers(lun)).toEqual({ ...EVERYTHING_DONE, writeUnmapped: 'ENOSPC' });
    expect(pool.engine.space.mode).toBe('out-of-data-space');
    // A volume with nothing mapped at block 0: the kernel's quirk.
    await pool.client(2, BLOCK).flush();
  });

  it('out of metadata space, what needs some fails; what gives some back is done, within the reserve', async () => {
    const { pool, lun } = await outOfMetadata();
    expect(await answers(lun)).toEqual({ ...EVERYTHING_DONE, writeUnmapped: 'ENOSPC' });
    expect(pool.engine.space.mode).toBe('out-of-metadata-space');
    await expect(pool.engine.mutate(() => pool.metadata.createThin(2))).rejects.toMatchObject({ code: 'ENOSPC' });
    await lun.unmap(0, BLOCK);
    expect(await lun.extent(0, BLOCK)).toEqual({ mapped: false, length: BLOCK });
    await pool.engine.mutate(() => {
      for (let id = 10; id < 30; id++) pool.metadata.deleteThin(id);
    }, true);
    expect(pool.engine.space.mode).toBe('write');
    expect(await answers(lun)).toEqual(EVERYTHING_DONE);
  });

  it('read-only, mapped blocks are read and written, and nothing else is changed', async () => {
    const pool = makePool();
    const lun = pool.client(1, 64 * BLOCK);
    await lun.write(0, pattern(512, 1), true);
    pool.engine.configure({ ...SETTINGS, readOnly: true });
    expect(await answers(lun)).toEqual({ ...EVERYTHING_DONE, writeUnmapped: 'EROFS', unmapUnmapped: 'EROFS' });
    await expect(pool.engine.mutate(() => pool.metadata.createThin(2), true)).rejects.toMatchObject({ code: 'EROFS' });
    expect([pool.metadata.changed, pool.engine.space.mode]).toEqual([false, 'read-only']);
    pool.engine.configure(SETTINGS);
    expect(await answers(lun)).toEqual(EVERYTHING_DONE);
  });

  it('fail, everything is EIO, and it stays so', async () => {
    let metadata!: FaultyDevice;
    const pool = makePool({
      wrapMetadata: (device) => {
        metadata = new FaultyDevice(device);
        return metadata;
      },
    });
    pool.broken = true;
    const lun = pool.client(1, 64 * BLOCK);
    await lun.write(0, pattern(512, 1), true);
    await lun.write(BLOCK, pattern(512, 2));
    metadata.failNth('any', 1, 'EIO', { times: 1000 });
    await expect(lun.flush()).rejects.toThrow('EIO');
    expect(pool.engine.space.mode).toBe('fail');
    metadata.heal();
    pool.engine.configure(SETTINGS);
    expect(new Set(Object.values(await answers(lun)))).toEqual(new Set(['EIO']));
    await expect(pool.engine.mutate(() => {})).rejects.toMatchObject({ code: 'EIO' });
  });
});

describe('needs_check', () => {
  it('is on the device at once, and lets the pool be read-only until it is cleared', async () => {
    let metadata!: FaultyDevice;
    const pool = makePool({
      wrapMetadata: (device) => {
        metadata = new FaultyDevice(device);
        return metadata;
      },
    });
    const lun = pool.client(1, 64 * BLOCK);
    await lun.write(0, pattern(512, 1), true);
    await lun.write(BLOCK, pattern(512, 2));
    metadata.failNth('write', 1);
    await expect(lun.flush()).rejects.toThrow('EIO');
    const flags = new Uint8Array(512);
    pool.metadataDevice.readSync(0, flags, 0, 512);
    expect(flags[4]).toBe(1);
    pool.engine.configure(SETTINGS);
    expect(pool.engine.space.mode).toBe('read-only');
    await expect(pool.engine.mutate(() => pool.metadata.resizeData(1000), true)).rejects.toThrow('needs a check');
    pool.metadata.clearNeedsCheck();
    pool.engine.configure(SETTINGS);
    // Also from what was acknowledged before that write.
    await expect(lun.flush()).rejects.toThrow('EIO');
    expect(await answers(lun)).toEqual(EVERYTHING_DONE);
  });
});

describe('out of data space', () => {
  it('is told of once with each change of the mode, and left when blocks are freed', async () => {
    const pool = makePool({ dataBlocks: 8 });
    const lun = pool.client(1, 64 * BLOCK);
    await lun.write(0, pattern(8 * BLOCK, 1));
    const waiting = [10, 11, 12].map((block) => lun.write(block * BLOCK, pattern(512, block)));
    await turns();
    expect(modes(pool)).toEqual(['out-of-data-space']);
    await lun.unmap(0, 4 * BLOCK);
    await lun.flush();
    await Promise.all(waiting);
    expect(modes(pool)).toEqual(['out-of-data-space', 'write']);
  });

  it('ends for a write that nobody waits for any more, at once', async () => {
    const pool = makePool({ dataBlocks: 8 });
    const lun = pool.client(1, 64 * BLOCK);
    await lun.write(0, pattern(8 * BLOCK, 1));
    const requests: LunRequest[] = [];
    const begin = (block: number): Promise<unknown> =>
      lun.submit((request) => {
        request.op = LunOp.WRITE;
        request.offset = block * BLOCK;
        request.length = 512;
        request.data.set(pattern(512, block), 0, 512);
        requests.push(request);
      });
    const waiting = [10, 11, 12].map(begin);
    await turns();
    for (const request of [requests[1]!, requests[2]!]) {
      request.givenUp = true;
      lun.backend.giveUp!(request);
    }
    await expect(waiting[1]).rejects.toThrow('ENOSPC');
    await expect(waiting[2]).rejects.toThrow('ENOSPC');
    // Nor does one that is given up before it finds that there is no space.
    const early = begin(13);
    requests[3]!.givenUp = true;
    await expect(early).rejects.toThrow('ENOSPC');
    await lun.unmap(0, 4 * BLOCK);
    await lun.flush();
    await waiting[0];
    expectBytes(await lun.read(11 * BLOCK, 512), new Uint8Array(512));
  });

  it('ends for the writes that wait when the pool grows', async () => {
    const pool = makePool({ dataBlocks: 8 });
    const lun = pool.client(1, 64 * BLOCK);
    await lun.write(0, pattern(8 * BLOCK, 1));
    const waiting = lun.write(20 * BLOCK, pattern(BLOCK, 2));
    await turns();
    pool.data.resize(16 * BLOCK);
    await pool.engine.mutate(() => pool.metadata.resizeData(16), true);
    pool.engine.space.grown(0);
    await waiting;
    expect(pool.engine.space.mode).toBe('write');
  });

  it('fails writes after the timeout and from then on, until there was space again', async () => {
    const pool = makePool({ dataBlocks: 4, noSpaceTimeoutMs: 5000 });
    const lun = pool.client(1, 64 * BLOCK);
    await lun.write(0, pattern(4 * BLOCK, 1));
    const first = expect(lun.write(9 * BLOCK, pattern(512, 1))).rejects.toThrow('ENOSPC');
    await turns();
    pool.clock.advance(4999);
    await turns();
    expect(pool.engine.space.failsWhenFull).toBe(false);
    pool.clock.advance(1);
    await first;
    expect(pool.engine.space.failsWhenFull).toBe(true);
    expect(pool.events.at(-1)).toEqual({ kind: 'no-space-timeout', waiting: 1 });
    await expect(lun.write(9 * BLOCK, pattern(512, 1))).rejects.toThrow('ENOSPC');
    expect(pool.metadata.needsCheck).toBe(false);
    await lun.unmap(0, BLOCK);
    await lun.flush();
    await turns();
    expect([pool.engine.space.mode, pool.engine.space.failsWhenFull]).toEqual(['write', false]);
    await lun.write(9 * BLOCK, pattern(512, 1));
  });

  it('lets writes wait for ever where the timeout is 0', async () => {
    const pool = makePool({ dataBlocks: 4, noSpaceTimeoutMs: 0 });
    const lun = pool.client(1, 64 * BLOCK);
    await lun.write(0, pattern(4 * BLOCK, 1));
    let answered = false;
    const waiting = lun.write(9 * BLOCK, pattern(512, 1)).finally(() => {
      answered = true;
    });
    await turns();
    pool.clock.advance(2 ** 30);
    await turns();
    expect(answered).toBe(false);
    await lun.unmap(0, BLOCK);
    await lun.flush();
    await waiting;
  });

  it('gives whole blocks back though the ends of a discard are shared and cannot be zeroed', async () => {
    const pool = makePool({ dataBlocks: 9 });
    const lun = pool.client(1, 64 * BLOCK);
    await lun.write(0, pattern(4 * BLOCK, 1));
    await pool.engine.mutate(() => pool.metadata.createSnap(2, 1));
    await lun.write(8 * BLOCK, pattern(5 * BLOCK, 2));
    const waiting = lun.write(20 * BLOCK, pattern(512, 3));
    await turns();
    expect(pool.engine.space.mode).toBe('out-of-data-space');
    // Frees nothing, and does not wait for what is not there either.
    await expect(lun.unmap(512, 3 * BLOCK)).rejects.toThrow('ENOSPC');
    expect(await lun.extent(0, 4 * BLOCK)).toEqual({ mapped: true, length: BLOCK });
    expectBytes(await lun.read(0, BLOCK), pattern(4 * BLOCK, 1).subarray(0, BLOCK));
    // Frees two blocks, of which its ends take one.
    await lun.unmap(3 * BLOCK + 512, 7 * BLOCK);
    const rest = pattern(4 * BLOCK, 1).subarray(3 * BLOCK);
    rest.fill(0, 512);
    expectBytes(await lun.read(3 * BLOCK, BLOCK), rest);
    await waiting;
    expect(pool.engine.space.mode).toBe('write');
  });

  it('waits for blocks that were discarded and not committed, also where writes fail at once', async () => {
    const pool = makePool({ dataBlocks: 4, errorIfNoSpace: true });
    const lun = pool.client(1, 64 * BLOCK);
    await lun.write(0, pattern(4 * BLOCK, 1));
    await expect(lun.write(9 * BLOCK, pattern(512, 1))).rejects.toThrow('ENOSPC');
    await lun.unmap(0, BLOCK);
    await lun.write(9 * BLOCK, pattern(512, 1));
  });

  it('is set anew: writes that wait fail when they are to, and wait again when they are to', async () => {
    const pool = makePool({ dataBlocks: 4 });
    const lun = pool.client(1, 64 * BLOCK);
    await lun.write(0, pattern(4 * BLOCK, 1));
    const failing = expect(lun.write(9 * BLOCK, pattern(512, 1))).rejects.toThrow('ENOSPC');
    await turns();
    pool.engine.configure({ ...SETTINGS, errorIfNoSpace: true });
    await failing;
    expect(pool.engine.space.mode).toBe('out-of-data-space');
    pool.engine.configure(SETTINGS);
    const waiting = lun.write(9 * BLOCK, pattern(512, 1));
    await turns();
    await lun.unmap(0, BLOCK);
    await lun.flush();
    await waiting;
  });

  it('leaves no write unanswered when the pool becomes read-only meanwhile', async () => {
    const pool = makePool({ dataBlocks: 4 });
    const lun = pool.client(1, 64 * BLOCK);
    await lun.write(0, pattern(4 * BLOCK, 1));
    const waiting = expect(lun.write(9 * BLOCK, pattern(512, 1))).rejects.toThrow('EROFS');
    await turns();
    pool.engine.configure({ ...SETTINGS, readOnly: true });
    await waiting;
  });
});

describe('out of metadata space', () => {
  it('is left when the metadata grows, and everything goes on', async () => {
    const { pool, lun } = await outOfMetadata();
    pool.metadataDevice.resize(4 * MIB);
    await pool.engine.mutate(() => pool.metadata.resizeMetadata(), true);
    pool.engine.space.grown(0);
    expect(pool.engine.space.mode).toBe('write');
    expect(await answers(lun)).toEqual(EVERYTHING_DONE);
    expect(modes(pool).slice(-2)).toEqual(['out-of-metadata-space', 'write']);
  });

  it('leaves the reserve alone', async () => {
    const { pool } = await outOfMetadata();
    expect(pool.metadata.freeMetadataBlocks).toBe(0);
    expect(pool.metadata.freeMetadataBlocksWithReserve).toBeGreaterThan(0);
  });
});

describe('a read-only pool', () => {
  it('commits what was under way when it became that', async () => {
    const pool = makePool();
    const lun = pool.client(1, 64 * BLOCK);
    const write = lun.write(0, pattern(512, 1));
    await lun.read(0, 512);
    pool.engine.configure({ ...SETTINGS, readOnly: true });
    await write.catch(() => {});
    await lun.flush();
    expect(pool.metadata.changed).toBe(false);
  });
});

describe('the low-water mark', () => {
  const lows = (pool: Fixture): number => pool.events.filter(({ kind }) => kind === 'low-water').length;

  it('is told of once, and again after there was more', async () => {
    const pool = makePool({ dataBlocks: 8, lowWaterBlocks: 4 });
    const lun = pool.client(1, 64 * BLOCK);
    for (let i = 0; i < 6; i++) await lun.write(i * BLOCK, pattern(512, i));
    expect(lows(pool)).toBe(1);
    await lun.unmap(0, 4 * BLOCK);
    await lun.flush();
    await turns();
    await lun.write(0, pattern(3 * BLOCK, 1));
    expect(lows(pool)).toBe(2);
  });

  it('is told of again after options were set and after growth, by the mark of then', async () => {
    const pool = makePool({ dataBlocks: 8, lowWaterBlocks: 4 });
    const lun = pool.client(1, 64 * BLOCK);
    await lun.write(0, pattern(5 * BLOCK, 1));
    pool.engine.configure({ ...SETTINGS, lowWaterBlocks: 2 });
    await lun.write(5 * BLOCK, pattern(BLOCK, 1));
    expect(pool.events.filter(({ kind }) => kind === 'low-water')).toEqual([
      { kind: 'low-water', freeBlocks: 3, lowWaterBlocks: 4 },
      { kind: 'low-water', freeBlocks: 2, lowWaterBlocks: 2 },
    ]);
    pool.engine.space.grown(2);
    await lun.write(6 * BLOCK, pattern(BLOCK, 1));
    expect(lows(pool)).toBe(3);
  });
});

describe('the metadata threshold', () => {
  it('is a quarter of a small device, the reserve included, and is told of once', async () => {
    const { pool } = await outOfMetadata();
    const told = pool.events.filter(({ kind }) => kind === 'metadata-low');
    expect(told).toEqual([{ kind: 'metadata-low', freeBlocks: expect.any(Number), thresholdBlocks: 128 }]);
    const { freeBlocks } = told[0] as { freeBlocks: number };
    expect(freeBlocks).toBeLessThanOrEqual(128);
    expect(freeBlocks).toBeGreaterThan(100);
  });
});
