import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { MIB } from '../../src/base/units.ts';
import { pattern } from '../support/lun-client.ts';
import { BLOCK, expectClean, makePool } from './pool-fixture.ts';

const SECTORS = BLOCK / 512;
const VOLUME_BLOCKS = 24;

/** One request; several of a round run at once on byte ranges that do not overlap. */
const operation = fc.record({
  volume: fc.integer({ min: 1, max: 3 }),
  kind: fc.constantFrom('write', 'write', 'write', 'fua', 'read', 'unmap', 'zeroes', 'flush', 'commit'),
  sector: fc.integer({ min: 0, max: VOLUME_BLOCKS * SECTORS - 1 }),
  sectors: fc.oneof(fc.integer({ min: 1, max: 16 }), fc.integer({ min: 1, max: 4 * SECTORS })),
  seed: fc.nat(1_000_000),
});

describe('a pool', () => {
  it('behaves like plain arrays under any mixture of concurrent requests', { timeout: 120_000 }, async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.array(operation, { minLength: 1, maxLength: 8 }), { maxLength: 25 }),
        async (rounds) => {
          const pool = makePool({ dataBlocks: 96, cacheBlocks: 128, metadataSize: 2 * MIB });
          const luns = [1, 2, 3].map((id) => pool.client(id, VOLUME_BLOCKS * BLOCK));
          const models = luns.map(() => new Uint8Array(VOLUME_BLOCKS * BLOCK));
          for (const round of rounds) {
            const taken: { volume: number; begin: number; end: number }[] = [];
            const running: Promise<unknown>[] = [];
            for (const { volume, kind, sector, sectors, seed } of round) {
              const begin = sector * 512;
              const end = Math.min(begin + sectors * 512, VOLUME_BLOCKS * BLOCK);
              if (taken.some((other) => other.volume === volume && other.begin < end && begin < other.end)) continue;
              const lun = luns[volume - 1]!;
              const model = models[volume - 1]!;
              taken.push({ volume, begin, end });
              if (kind === 'flush') running.push(lun.flush());
              else if (kind === 'commit') pool.clock.advance(1000);
              else if (kind === 'read') {
                const expected = model.slice(begin, end);
                running.push(
                  lun.read(begin, end - begin).then((bytes) => expect(Buffer.compare(bytes, expected)).toBe(0)),
                );
              } else if (kind === 'unmap' || kind === 'zeroes') {
                model.fill(0, begin, end);
                running.push(kind === 'unmap' ? lun.unmap(begin, end - begin) : lun.writeZeroes(begin, end - begin));
              } else {
                const bytes = pattern(end - begin, seed);
                model.set(bytes, begin);
                running.push(lun.write(begin, bytes, kind === 'fua'));
              }
            }
            await Promise.all(running);
          }
          for (let i = 0; i < 3; i++) {
            expect(Buffer.compare(await luns[i]!.read(0, VOLUME_BLOCKS * BLOCK), models[i]!)).toBe(0);
          }
          await pool.engine.commits.commit();
          expectClean(pool.metadataDevice);
          await pool.close();
        },
      ),
      { numRuns: 60 },
    );
  });
});
