import { describe, expect, it } from 'vitest';
import { countExclusive, highestBlock } from '../../src/tools/ls.ts';
import { DEFAULT_LS_FIELDS, LS_FIELDS, type LsRow, lsLines, roundSize } from '../../src/tools/ls-fields.ts';
import { PoolReader } from '../../src/tools/pool-reader.ts';
import { MetadataImage } from '../support/metadata-image.ts';
import { goldenImage } from '../support/metadata-judges.ts';
import { randomPool } from '../support/random-pool.ts';
import type { TestDevice } from '../support/test-device.ts';

function rowsOf(device: TestDevice, metadataSnapshot = false): LsRow[] {
  const pool = new PoolReader(device, { metadataSnapshot });
  const exclusive = countExclusive(pool, () => {});
  return pool.devices.map((row) => ({
    ...row,
    name: '',
    exclusiveBlocks: exclusive.get(row.id)!,
    highestBlock: highestBlock(pool, row),
  }));
}

describe('ls', () => {
  it('prints what thin_ls 1.1.0 prints of the same metadata', () => {
    const rows = rowsOf(goldenImage('a12-filled-900'));
    expect(lsLines(DEFAULT_LS_FIELDS, rows, { blockSize: 128, headers: true })).toEqual([
      'DEV MAPPED CREATE_TIME SNAP_TIME ',
      '  1 448KiB           0         6 ',
      ' 40  56MiB           1         1 ',
      ' 50 384KiB           2         2 ',
      ' 51 384KiB           3         3 ',
      ' 52 384KiB           4         4 ',
      ' 53 384KiB           5         5 ',
      ' 54 384KiB           6         6 ',
    ]);
    const fields = [...LS_FIELDS.keys()].filter((field) => field !== 'NAME');
    expect(lsLines(fields, rows.slice(0, 2), { blockSize: 128, headers: false })).toEqual([
      ' 1   7    896   458752 448KiB   1    128    65536 64KiB 6 768 393216 384KiB 100  12927  6619135 6463KiB 0 0 6 ',
      '40 900 115200 58982400  56MiB 900 115200 58982400 56MiB 0   0      0     0b 899 115199 58982399   56MiB 6 1 1 ',
    ]);
  });

  it('prints what thin_ls prints of a metadata snapshot', () => {
    const image = goldenImage('a06-reserved-then-more-writes');
    const lines = lsLines(['DEV', 'EXCLUSIVE_BLOCKS'], rowsOf(image, true), { blockSize: 128, headers: true });
    expect(lines).toEqual(['DEV EXCLUSIVE_BLOCKS ', '  1                1 ', '  2                1 ']);
    expect(() => rowsOf(goldenImage('a12-filled-900'), true)).toThrow('there is none');
  });

  it.each([
    [0, '0b'],
    [65535, '64KiB'],
    [1048575, '1024KiB'],
    [1179647, '1151KiB'],
    [8388608, '8192KiB'],
    [8454143, '8MiB'],
    [8912895, '8MiB'],
    [8912896, '9MiB'],
    [8589869056, '8191MiB'],
    [8590524415, '8192MiB'],
    [9126805504, '9GiB'],
    [6553600065535, '6103GiB'],
    [9175040065535, '8Tib'],
    [655360000065535, '596Tib'],
  ])('writes %i bytes as thin_ls does: %s', (bytes, text) => {
    expect(roundSize(bytes)).toBe(text);
  });

  it('says so where a tree leads back into itself', () => {
    const image = new MetadataImage(goldenImage('a12-filled-900'));
    const { root } = new PoolReader(image.device).device(40);
    image.change(root, (words) => {
      for (let i = 0; i < words[4]!; i++) words.fill(root, 8 + 2 * 252 + 2 * i, 8 + 2 * 252 + 2 * i + 1);
    });
    expect(() => highestBlock(new PoolReader(image.device), { root })).toThrow(/leads back into itself$/);
  });

  it('counts as exclusive what no other device has', () => {
    for (let round = 0; round < 5; round++) {
      const { device, model, random } = randomPool(30);
      const owners = new Map<number, Set<number>>();
      for (const [id, { mappings }] of model.contents) {
        for (const { dataBlock } of mappings.values()) {
          owners.set(dataBlock, (owners.get(dataBlock) ?? new Set()).add(id));
        }
      }
      for (const { id, exclusiveBlocks, highestBlock } of rowsOf(device)) {
        const { mappings } = model.contents.get(id)!;
        const alone = [...mappings.values()].filter(({ dataBlock }) => owners.get(dataBlock)!.size === 1).length;
        expect(exclusiveBlocks, `seed ${random.seed}, device ${id}`).toBe(alone);
        expect(highestBlock).toBe(Math.max(0, ...mappings.keys()));
      }
    }
  });
});
