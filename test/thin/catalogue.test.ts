import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Catalogue, type VolumeRecord } from '../../src/thin/catalogue.ts';
import { DEFAULT_POOL_OPTIONS } from '../../src/thin/pool-options.ts';

const identity = {
  uuid: '6a3a1f0e-8d0a-4c1b-9b43-0c6de8a3b111',
  name: 'tank',
  blockSizeBytes: 65536,
  options: DEFAULT_POOL_OPTIONS,
};

const none = (): boolean => false;

function volume(id: number): VolumeRecord {
  const naa = `3${id.toString(16).padStart(15, '0')}`;
  return { id, name: `vol${id}`, sizeBytes: 2 ** 30, lun: id, serial: naa, naa, logicalBlockSize: 512 };
}

describe('Catalogue', () => {
  let dir: string;
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'thinlun-catalogue-'));
  });
  afterEach(() => rmSync(dir, { recursive: true }));

  it('rolls a change forward when the metadata was committed before the crash', () => {
    Catalogue.create(dir, identity).begin([volume(1)], 1);
    const reopened = Catalogue.load(dir);
    expect(reopened.volumes).toEqual([]);
    reopened.settle(1, none);
    expect(reopened.volumes).toEqual([volume(1)]);
    expect(Catalogue.load(dir).transactionId).toBe(1);
  });

  it('rolls a change back when the metadata was not committed before the crash', () => {
    const catalogue = Catalogue.create(dir, identity);
    catalogue.begin([volume(1)], 1);
    catalogue.finish();
    catalogue.begin([volume(1), volume(2)], 2);
    const reopened = Catalogue.load(dir);
    reopened.settle(1, none);
    expect(reopened.volumes).toEqual([volume(1)]);
    expect(readFileSync(join(dir, 'pool.json'), 'utf8')).not.toContain('pending');
  });

  it('refuses metadata of another time', () => {
    const catalogue = Catalogue.create(dir, identity);
    catalogue.begin([volume(1)], 1);
    expect(() => catalogue.settle(5, none)).toThrow('at transaction 5, its catalogue at 0 or 1');
    expect(() => Catalogue.load(dir).settle(5, none)).toThrow(expect.objectContaining({ code: 'EINVAL' }));
  });

  it('follows metadata that was replaced, and goes on with no deletion', () => {
    const catalogue = Catalogue.create(dir, identity);
    catalogue.begin([volume(1)], 1, [{ id: 9, transactionId: 0 }]);
    catalogue.finish();
    catalogue.begin([volume(2)], 2);
    catalogue.follow(7);
    expect(Catalogue.load(dir)).toMatchObject({ transactionId: 7, volumes: [volume(1)], deleting: [] });
    catalogue.begin([volume(3)], 8);
    catalogue.follow(8);
    expect(Catalogue.load(dir)).toMatchObject({ transactionId: 8, volumes: [volume(3)] });
    expect(readFileSync(join(dir, 'pool.json'), 'utf8')).not.toContain('pending');
  });

  it('forgets a change that the metadata did not take', () => {
    const catalogue = Catalogue.create(dir, identity);
    catalogue.begin([volume(1)], 1);
    catalogue.settle(0, none);
    expect(catalogue.volumes).toEqual([]);
    expect(Catalogue.load(dir).volumes).toEqual([]);
  });

  it.each([
    ['made', [volume(1)], [volume(1), volume(2)], [1, 2], [1]],
    ['deleted', [volume(1), volume(2)], [volume(1)], [1], [1, 2]],
  ])(
    'tells by a device that was %s without a new transaction id on which side the metadata is',
    (_title, before, after, done, undone) => {
      for (const [ids, volumes] of [
        [done, after],
        [undone, before],
      ] as const) {
        const catalogue = Catalogue.create(dir, identity);
        catalogue.replace(before);
        catalogue.begin(after, 0);
        const has = (id: number): boolean => ids.includes(id);
        const reopened = Catalogue.load(dir);
        expect(reopened.volumesAt(0, has)).toEqual(volumes);
        expect(reopened.volumesAt(1, has)).toBeNull();
        reopened.settle(0, has);
        expect(Catalogue.load(dir).volumes).toEqual(volumes);
      }
    },
  );

  it.each([
    ['not JSON', '{', 'pool.json'],
    [
      'a field of the wrong type',
      JSON.stringify({ format: 1, ...identity, transactionId: 'x', volumes: [] }),
      'transactionId',
    ],
    [
      'a field that nobody knows',
      JSON.stringify({ format: 1, ...identity, transactionId: 0, volumes: [], more: 1 }),
      'more',
    ],
    ['a newer format', JSON.stringify({ format: 2, ...identity, transactionId: 0, volumes: [] }), 'format'],
    [
      'two volumes with one LUN',
      JSON.stringify({ format: 1, ...identity, transactionId: 0, volumes: [volume(1), { ...volume(2), lun: 1 }] }),
      'same lun',
    ],
  ])('refuses %s and says where', (_title, text, where) => {
    writeFileSync(join(dir, 'pool.json'), text);
    expect(() => Catalogue.load(dir)).toThrow(where);
  });
});
