import { describe, expect, it } from 'vitest';
import { type DeltaOptions, deltaXml } from '../../src/tools/delta.ts';
import { PoolReader } from '../../src/tools/pool-reader.ts';
import { goldenImage } from '../support/metadata-judges.ts';
import { randomPool } from '../support/random-pool.ts';
import { SeededRandom } from '../support/seeded-random.ts';

const IMAGE = 'a11-five-snaps-broke-one-overflow-tree';
const HEAD = '<superblock uuid="" time="6" transaction="6" data_block_size="128" nr_data_blocks="1024">\n';

function delta(pool: PoolReader, left: number, right: number, options: DeltaOptions = {}): string {
  const side = (id: number): { device: number; root: number } => ({ device: id, root: pool.device(id).root });
  return [...deltaXml(pool, side(left), side(right), options)].join('');
}

describe('delta', () => {
  it('is the XML of thin_delta 1.1.0', () => {
    expect(delta(new PoolReader(goldenImage(IMAGE)), 1, 50)).toBe(`${HEAD}  <diff left="1" right="50">
    <same begin="0" length="1"/>
    <left_only begin="1" length="1"/>
    <same begin="2" length="3"/>
    <same begin="7" length="1"/>
    <same begin="100" length="1"/>
  </diff>
</superblock>`);
  });

  it('is its XML with --verbose, too', () => {
    expect(
      delta(new PoolReader(goldenImage(IMAGE)), 1, 50, { verbose: true }),
    ).toBe(`${HEAD}  <diff left="1" right="50">
    <same>
      <range begin="0" data_begin="6" length="1"/>
    </same>
    <left_only>
      <range begin="1" data_begin="9" length="1"/>
    </left_only>
    <same>
      <range begin="2" data_begin="2" length="3"/>
      <range begin="7" data_begin="8" length="1"/>
      <range begin="100" data_begin="5" length="1"/>
    </same>
  </diff>
</superblock>`);
  });

  it('is its XML of a metadata snapshot and of roots', () => {
    const pool = new PoolReader(goldenImage('a06-reserved-then-more-writes'), { metadataSnapshot: true });
    expect(
      delta(pool, 1, 2, { verbose: true }),
    ).toBe(`<superblock uuid="" time="1" transaction="0" data_block_size="128" nr_data_blocks="0">
  <diff left="1" right="2">
    <different>
      <range begin="0" left_data_begin="6" right_data_begin="7" length="1"/>
    </different>
    <same>
      <range begin="1" data_begin="1" length="4"/>
      <range begin="100" data_begin="5" length="1"/>
    </same>
  </diff>
</superblock>`);
    const { root } = pool.device(1);
    const lines = [...deltaXml(pool, { device: null, root }, { device: 2, root: pool.device(2).root }, {})];
    expect(lines[1]).toBe(`  <diff left_root="${root}" right="2">\n`);
    expect(() => delta(pool, 1, 9)).toThrow('Cannot find device 9');
  });

  it('ends a range where the data blocks do not go on, so that every mapping can be read from it', () => {
    const image = goldenImage('a12-filled-900');
    // Virtual blocks 0 and 1 of device 1 are at 6 and 9, those of device 40 at 10 and 11.
    expect(delta(new PoolReader(image), 1, 40, { verbose: true })).toContain(`    <different>
      <range begin="0" left_data_begin="6" right_data_begin="10" length="1"/>
      <range begin="1" left_data_begin="9" right_data_begin="11" length="1"/>
      <range begin="2" left_data_begin="2" right_data_begin="12" length="3"/>
    </different>
    <right_only>
      <range begin="5" data_begin="15" length="2"/>
    </right_only>
`);
  });

  it('tells how far it is, in virtual blocks', () => {
    const { device, model } = randomPool(0, new SeededRandom(2));
    model.write(1, 0, 9000);
    model.snapshot(2, 1);
    model.commit();
    const calls: [number, number][] = [];
    const progress = (done: number, total: number): unknown => calls.push([done, total]);
    delta(new PoolReader(device), 1, 2, { progress });
    expect(calls).toEqual([
      [4095, 9000],
      [8191, 9000],
    ]);
  });

  it('without what is the same reads only what differs', () => {
    const { device, model } = randomPool(0, new SeededRandom(2));
    model.write(1, 0, 3000);
    model.snapshot(2, 1);
    model.write(1, 700, 705);
    model.commit();
    const pool = new PoolReader(device);
    const before = pool.reader.readCount;
    expect(delta(pool, 2, 1, { same: false })).toContain(`<diff left="2" right="1">
    <different begin="700" length="5"/>
  </diff>`);
    expect(pool.reader.readCount - before).toBeLessThan(10);
  });
});
