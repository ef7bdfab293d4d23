import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { BlockDevice } from '../../src/block/block-device.ts';
import { MemoryDevice } from '../../src/block/memory-device.ts';
import type { EngineOptions } from '../../src/thin/engine-options.ts';
import type { ExternalOrigin } from '../../src/thin/external-origin.ts';
import { ThinDevice } from '../../src/thin/thin-device.ts';
import { expectBytes, LunClient, pattern } from '../support/lun-client.ts';
import { SpyDevice } from '../support/spy-device.ts';
import { BLOCK, expectClean, type Fixture, makePool } from './pool-fixture.ts';

interface OverOrigin {
  pool: Fixture;
  lun: LunClient;
  origin: SpyDevice;
  data: SpyDevice;
  /** What the volume shows at first. */
  image: Uint8Array;
}

/** A volume of `blocks` blocks over an image of `originSize` bytes; the data device is full of what others left there. */
function overOrigin(blocks: number, originSize: number, options: Partial<EngineOptions> = {}): OverOrigin {
  const size = blocks * BLOCK;
  const contents = pattern(originSize, 77);
  const raw = new MemoryDevice(originSize);
  raw.writeSync(0, contents, 0, originSize);
  const origin = new SpyDevice(raw);
  let data!: SpyDevice;
  const wrapData = (device: BlockDevice): BlockDevice => {
    data = new SpyDevice(device);
    return data;
  };
  const pool = makePool({ ...options, wrapData });
  pool.data.writeSync(0, new Uint8Array(128 * BLOCK).fill(0xaa), 0, 128 * BLOCK);
  pool.metadata.createThin(1);
  const shared: ExternalOrigin = { device: origin, sizeBytes: originSize, queued: false };
  const lun = new LunClient(new ThinDevice(pool.engine, pool.metadata.openThin(1), size, shared));
  const image = new Uint8Array(size);
  image.set(contents.subarray(0, Math.min(originSize, size)));
  return { pool, lun, origin, data, image };
}

function used({ metadata }: Fixture): number {
  return metadata.dataBlockCount - metadata.freeDataBlocks;
}

describe.each([
  ['of the size of its origin', 8, 8 * BLOCK],
  ['smaller than its origin', 6, 8 * BLOCK],
  ['bigger than its origin', 12, 8 * BLOCK],
  ['whose origin ends inside a block', 12, 7 * BLOCK + 3 * 4096 + 512],
  ['whose origin ends inside a sector', 12, 7 * BLOCK + 1000],
])('a volume %s', (_what, blocks, originSize) => {
  it('shows it, and zeroes past its end, without a block of its own', async () => {
    const { pool, lun, data, image } = overOrigin(blocks, originSize);
    expectBytes(await lun.read(0, image.length), image);
    expectBytes(await lun.read(BLOCK - 512, 1024), image.subarray(BLOCK - 512, BLOCK + 512));
    for (let at = 5 * BLOCK; at < image.length; at += 3 * 4096 + 512) {
      expectBytes(await lun.read(at, 512), image.subarray(at, at + 512));
    }
    expect([data.log, used(pool)]).toEqual([[], 0]);
  });

  it('keeps what a write leaves of each block', async () => {
    const { pool, lun, image } = overOrigin(blocks, originSize);
    for (let block = 0; block < blocks; block++) {
      const bytes = pattern(1024, block);
      await lun.write(block * BLOCK + 8192, bytes);
      image.set(bytes, block * BLOCK + 8192);
    }
    expectBytes(await lun.read(0, image.length), image);
    expect(used(pool)).toBe(blocks);
  });

  it('leaves the origin as it is', async () => {
    const { lun, origin, image } = overOrigin(blocks, originSize);
    await lun.write(4096, pattern(image.length - 4096, 5));
    await lun.writeZeroes(0, 3 * BLOCK);
    await lun.unmap(0, image.length);
    await lun.flush();
    expect(origin.log.filter((entry) => !entry.startsWith('read'))).toEqual([]);
  });
});

describe('a volume over an external origin', () => {
  it('copies nothing for blocks that a write covers, and one block at each end otherwise', async () => {
    const { lun, origin, data } = overOrigin(8, 8 * BLOCK);
    await lun.write(0, pattern(2 * BLOCK, 1));
    expect(origin.log).toEqual([]);
    expect(data.log).toEqual([`write 0 ${2 * BLOCK}`]);
    await lun.write(3 * BLOCK - 4096, pattern(BLOCK + 8192, 2));
    expect(origin.log).toEqual([`read ${2 * BLOCK} ${BLOCK - 4096}`, `read ${4 * BLOCK + 4096} ${BLOCK - 4096}`]);
  });

  it('zeroes only the tail that the origin does not have, and nothing where blocks are not zeroed', async () => {
    const end = BLOCK + 8192;
    const zeroing = overOrigin(4, end);
    await zeroing.lun.write(BLOCK, pattern(512, 1));
    expect(zeroing.data.log.filter((entry) => entry.startsWith('zeroes'))).toEqual([`zeroes 8192 ${BLOCK - 8192}`]);
    const skipping = overOrigin(4, end, { zeroNewBlocks: false });
    await skipping.lun.write(BLOCK, pattern(512, 1));
    expect(skipping.data.log.filter((entry) => entry.startsWith('zeroes'))).toEqual([]);
    expectBytes(await skipping.lun.read(BLOCK + 512, 8192 - 512), skipping.image.subarray(BLOCK + 512, end));
  });

  it('maps what WRITE ZEROES covers, with the rest of its blocks as it was', async () => {
    const { pool, lun, image } = overOrigin(8, 8 * BLOCK);
    await lun.writeZeroes(BLOCK + 4096, 2 * BLOCK);
    image.fill(0, BLOCK + 4096, 3 * BLOCK + 4096);
    expectBytes(await lun.read(0, image.length), image);
    expect(used(pool)).toBe(3);
  });

  it('shows the origin again where blocks are discarded, and does not promise zeroes', async () => {
    const { pool, lun, image } = overOrigin(8, 8 * BLOCK);
    await lun.write(0, pattern(8 * BLOCK, 3));
    await lun.unmap(BLOCK, 4 * BLOCK);
    const expected = pattern(8 * BLOCK, 3);
    expected.set(image.subarray(BLOCK, 5 * BLOCK), BLOCK);
    expectBytes(await lun.read(0, 8 * BLOCK), expected);
    await lun.flush();
    expect(used(pool)).toBe(4);
    expect(lun.backend.unmappedReadsZeroes).toBe(false);
    expect(pool.client(2, BLOCK).backend.unmappedReadsZeroes).toBe(true);
  });

  it('says that what the origin shows is mapped, so that a copy of what is mapped is a copy of everything', async () => {
    const { lun } = overOrigin(12, 7 * BLOCK + 512);
    expect(await lun.extent(0, 12 * BLOCK)).toEqual({ mapped: true, length: 8 * BLOCK });
    expect(await lun.extent(8 * BLOCK, 4 * BLOCK)).toEqual({ mapped: false, length: 4 * BLOCK });
    await lun.write(9 * BLOCK, pattern(512, 1));
    expect(await lun.extent(8 * BLOCK, 4 * BLOCK)).toEqual({ mapped: false, length: BLOCK });
    await lun.write(8 * BLOCK, pattern(512, 1));
    expect(await lun.extent(512, 11 * BLOCK)).toEqual({ mapped: true, length: 10 * BLOCK - 512 });
  });

  it('answers EIO where the origin cannot be read, loses no block by it, and goes on where it need not be', async () => {
    const { pool, lun, origin } = overOrigin(8, 8 * BLOCK);
    await lun.write(2 * BLOCK, pattern(BLOCK, 1));
    origin.fail.set('read', 'EIO');
    await expect(lun.read(0, 512)).rejects.toThrow('EIO');
    await expect(lun.write(BLOCK + 512, pattern(512, 1))).rejects.toThrow('EIO');
    await lun.write(3 * BLOCK, pattern(BLOCK, 2));
    await lun.write(2 * BLOCK + 512, pattern(512, 3));
    await lun.flush();
    expect([used(pool), pool.engine.space.mode]).toEqual([2, 'write']);
    origin.fail.clear();
    await lun.write(BLOCK + 512, pattern(512, 1));
    expect(used(pool)).toBe(3);
  });

  it('shows it out of data space and read-only, too, and zeroes past its end', async () => {
    const { pool, lun, image } = overOrigin(12, 7 * BLOCK + 512, { errorIfNoSpace: true });
    const filler = pool.client(2, 256 * BLOCK);
    await filler.write(0, pattern(256 * BLOCK, 1));
    await expect(lun.write(0, pattern(512, 1))).rejects.toThrow('ENOSPC');
    expect(pool.engine.space.mode).toBe('out-of-data-space');
    expectBytes(await lun.read(0, image.length), image);
    await pool.engine.commits.commit();
    pool.engine.space.setMode('read-only', 'asked for');
    expectBytes(await lun.read(0, image.length), image);
  });
});

const operation = fc.record({
  kind: fc.constantFrom('write', 'write', 'write', 'zeroes', 'unmap', 'read', 'commit'),
  sector: fc.nat(10 * 128 - 1),
  sectors: fc.oneof(fc.integer({ min: 1, max: 32 }), fc.integer({ min: 1, max: 400 })),
  seed: fc.nat(1_000_000),
});

describe('a volume over an origin of any size', () => {
  it('is the origin with what was written, and the origin again where it was discarded', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 12 * BLOCK }),
        fc.array(operation, { maxLength: 40 }),
        async (originSize, operations) => {
          const { pool, lun, image } = overOrigin(10, originSize);
          const model = image.slice();
          const mapped = new Set<number>();
          for (const { kind, sector, sectors, seed } of operations) {
            const begin = sector * 512;
            const end = Math.min(begin + sectors * 512, model.length);
            const bytes = kind === 'write' ? pattern(end - begin, seed) : new Uint8Array(end - begin);
            if (kind === 'read') expectBytes(await lun.read(begin, end - begin), model.subarray(begin, end));
            else if (kind === 'commit') await lun.flush();
            else if (kind === 'unmap') {
              await lun.unmap(begin, end - begin);
              for (let block = Math.floor(begin / BLOCK); block * BLOCK < end; block++) {
                const from = Math.max(begin, block * BLOCK);
                const to = Math.min(end, (block + 1) * BLOCK);
                if (to - from === BLOCK) {
                  mapped.delete(block);
                  model.set(image.subarray(from, to), from);
                } else if (mapped.has(block)) model.fill(0, from, to);
              }
            } else {
              await (kind === 'write' ? lun.write(begin, bytes) : lun.writeZeroes(begin, end - begin));
              model.set(bytes, begin);
              for (let block = Math.floor(begin / BLOCK); block * BLOCK < end; block++) mapped.add(block);
            }
          }
          expectBytes(await lun.read(0, model.length), model);
          await lun.flush();
          expect(used(pool)).toBe(mapped.size);
          expectClean(pool.metadataDevice);
          await pool.close();
        },
      ),
      { numRuns: 60 },
    );
  });
});
