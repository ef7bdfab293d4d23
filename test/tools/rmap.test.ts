import { describe, expect, it } from 'vitest';
import { PoolReader } from '../../src/tools/pool-reader.ts';
import { parseRegion, type Region } from '../../src/tools/region.ts';
import { describeRun, reverseMap } from '../../src/tools/rmap.ts';
import { MetadataImage } from '../support/metadata-image.ts';
import { goldenImage } from '../support/metadata-judges.ts';
import { randomPool } from '../support/random-pool.ts';
import type { TestDevice } from '../support/test-device.ts';

function linesOf(device: TestDevice, ...regions: Region[]): string[] {
  return reverseMap(new PoolReader(device), regions, () => {}).map(describeRun);
}

describe('rmap', () => {
  it('prints what thin_rmap 1.1.0 prints, and the devices that it leaves out', () => {
    const image = goldenImage('a11-five-snaps-broke-one-overflow-tree');
    const lines = linesOf(image, { begin: 0, end: 10 }, { begin: 5, end: 100 });
    const ofThinRmap = [
      'data 2..5 -> thin(1) 2..5',
      'data 2..5 -> thin(50) 2..5',
      'data 5..6 -> thin(1) 100..101',
      'data 5..6 -> thin(50) 100..101',
      'data 6..7 -> thin(1) 0..1',
      'data 6..7 -> thin(50) 0..1',
      'data 8..9 -> thin(1) 7..8',
      'data 8..9 -> thin(50) 7..8',
      'data 9..10 -> thin(1) 1..2',
    ];
    expect(lines.filter((line) => !/thin\(5[1-4]\)/.test(line))).toEqual(ofThinRmap);
    expect(lines).toHaveLength(ofThinRmap.length + 4 * 4);
  });

  it('cuts runs at the ends of a region', () => {
    const image = goldenImage('a12-filled-900');
    expect(linesOf(image, { begin: 12, end: 15 }, { begin: 15, end: 20 }, { begin: 900, end: 5000 })).toEqual([
      'data 12..20 -> thin(40) 2..10',
      'data 900..910 -> thin(40) 890..900',
    ]);
  });

  it('says so where a tree leads back into itself', () => {
    const image = new MetadataImage(goldenImage('a12-filled-900'));
    const root = new PoolReader(image.device).device(40).root;
    image.change(root, (words) => words.fill(root, 8 + 2 * 252, 8 + 2 * 252 + 1));
    expect(() => linesOf(image.device, { begin: 0, end: 10 })).toThrow(/block \d+: the tree leads back into itself$/);
  });

  it('tells how far it is, in mappings', () => {
    const calls: [number, number][] = [];
    const pool = new PoolReader(goldenImage('a12-filled-900'));
    reverseMap(pool, [{ begin: 5000, end: 5001 }], (done, total) => calls.push([done, total]));
    const mappings = pool.devices.reduce((sum, { mappedBlocks }) => sum + mappedBlocks, 0);
    expect(calls.length).toBeGreaterThan(4);
    expect(new Set(calls.map(([, total]) => total))).toEqual(new Set([mappings]));
    expect(calls.map(([done]) => done)).toEqual(calls.map(([done]) => done).sort((a, b) => a - b));
    expect(calls.at(-1)![0]).toBeLessThanOrEqual(mappings);
  });

  it('finds every owner of every block', () => {
    for (let round = 0; round < 4; round++) {
      const { device, model, random } = randomPool(25);
      const regions = [0, 1, 2].map(() => {
        const begin = random.below(8000);
        return { begin, end: begin + 1 + random.below(500) };
      });
      const wanted = new Set<string>();
      for (const [id, { mappings }] of model.contents) {
        for (const [key, { dataBlock }] of mappings) {
          if (regions.some(({ begin, end }) => dataBlock >= begin && dataBlock < end))
            wanted.add(`${dataBlock} ${id} ${key}`);
        }
      }
      const got = reverseMap(new PoolReader(device), regions, () => {}).flatMap((run) =>
        Array.from(
          { length: run.dataEnd - run.dataBegin },
          (_, i) => `${run.dataBegin + i} ${run.device} ${run.virtualBegin + i}`,
        ),
      );
      expect(new Set(got).size).toBe(got.length);
      expect([...got].sort(), `seed ${random.seed}`).toEqual([...wanted].sort());
    }
  });

  it.each(['', '5', '5..5', '10..5', 'a..b', '0..1..2', '0..12.5', '-1..5', '0..18446744073709551616'])(
    'refuses the region "%s"',
    (text) => {
      expect(() => parseRegion(text)).toThrow(`Cannot read the region "${text}"`);
    },
  );

  it('reads a region to the end of the largest device', () => {
    expect(parseRegion('0..18446744073709551615')).toEqual({ begin: 0, end: Number.MAX_SAFE_INTEGER });
  });
});
