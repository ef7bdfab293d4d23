import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { monotonicClock } from '../../src/base/clock.ts';
import { silentLogger } from '../../src/base/log.ts';
import { MIB } from '../../src/base/units.ts';
import { hintOf } from '../../src/daemon/advised-error.ts';
import { PoolService } from '../../src/daemon/pool-service.ts';
import { Pool } from '../../src/thin/pool.ts';
import { createPool } from '../../src/thin/pool-create.ts';
import { checkPool } from '../../src/tools/check-pool.ts';

type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

let dir: string;
let good: { [key: string]: Json };
let metadata: Buffer;

beforeAll(async () => {
  dir = join(mkdtempSync(join(tmpdir(), 'thinlun-catalogue-')), 'pool');
  await createPool(dir, { dataSizeBytes: 64 * MIB });
  const pool = await Pool.open(dir);
  await pool.createVolume('web', 16 * MIB);
  await pool.createVolume('mail', 16 * MIB);
  await pool.close();
  good = JSON.parse(readFileSync(join(dir, 'pool.json'), 'utf8'));
  metadata = readFileSync(join(dir, 'metadata'));
  // Everything that may be there, is.
  const [first, second] = good['volumes'] as { [key: string]: Json }[];
  Object.assign(second!, { origin: 1, readOnly: true });
  first!['externalOrigin'] = { path: '/srv/image', sizeBytes: MIB, modifiedMs: 5 };
  good['deleting'] = [{ id: 77, transactionId: 1 }];
  Object.assign(good['options'] as object, { autoExtend: { limitBytes: 128 * MIB, stepBytes: MIB } });
  good['pending'] = { transactionId: 9, volumes: good['volumes']!, deleting: good['deleting']! };
});

afterAll(() => rmSync(join(dir, '..'), { recursive: true }));

/** Every value in the document, by its way from the top. */
function* paths(value: Json, path: (string | number)[] = []): Iterable<(string | number)[]> {
  if (path.length > 0) yield path;
  if (typeof value !== 'object' || value === null) return;
  for (const key of Object.keys(value)) {
    const next = Array.isArray(value) ? Number(key) : key;
    yield* paths((value as { [key: string]: Json })[key]!, [...path, next]);
  }
}

function changed(
  path: readonly (string | number)[],
  change: (parent: { [key: string]: Json }, key: string) => void,
): Json {
  const copy = JSON.parse(JSON.stringify(good));
  let parent = copy as { [key: string]: Json };
  for (const key of path.slice(0, -1)) parent = parent[key]! as { [key: string]: Json };
  change(parent, String(path.at(-1)));
  return copy;
}

function set(path: readonly (string | number)[], value: Json): Json {
  return changed(path, (parent, key) => {
    parent[key] = value;
  });
}

/** Opens the pool with that catalogue; what is said, and that nothing was written. */
async function refused(catalogue: Json | string): Promise<{ message: string; hint: string | null } | null> {
  const text = typeof catalogue === 'string' ? catalogue : JSON.stringify(catalogue);
  writeFileSync(join(dir, 'pool.json'), text);
  writeFileSync(join(dir, 'metadata'), metadata);
  const names = readdirSync(dir).sort();
  try {
    const service = await PoolService.open(dir, { logger: silentLogger, clock: monotonicClock });
    await service.close();
    return null;
  } catch (error) {
    expect(error).toMatchObject({ name: 'StorageError', code: 'EINVAL' });
    expect(readFileSync(join(dir, 'pool.json'), 'utf8')).toBe(text);
    expect(Buffer.compare(readFileSync(join(dir, 'metadata')), metadata)).toBe(0);
    expect(readdirSync(dir).sort()).toEqual(names);
    const found = await checkPool(dir);
    expect(found?.damages.map(({ path, severity }) => `${severity} ${path}`)).toEqual(['error pool.json']);
    return { message: (error as Error).message, hint: hintOf(error) };
  }
}

const OPTIONAL =
  /^(?:pending(?:\.deleting)?|deleting|options|options\.\w+|(?:pending\.)?volumes\.\d+\.(?:origin|readOnly|externalOrigin)|(?:pending\.)?(?:volumes|deleting)\.\d+)$/;

describe('a damaged pool.json', () => {
  it('is good before', async () => {
    expect(await refused(good)).toBeNull();
  });

  it('whose field has another type is refused, by name, and nothing is written', async () => {
    for (const path of paths(good)) {
      const name = path.join('.');
      const wrong = changed(path, (parent, key) => {
        parent[key] = typeof parent[key] === 'string' ? 12 : typeof parent[key] === 'object' ? 'text' : { not: 'this' };
      });
      const answer = await refused(wrong);
      expect(answer?.message, name).toMatch(
        new RegExp(`^Cannot read the pool's catalogue ".*/pool\\.json": ${name.replaceAll('.', '\\.')}: `),
      );
      expect(answer?.hint, name).toContain(`"thinlun check ${dir}" says whether the metadata itself is good`);
    }
  });

  it('whose field is missing or out of its range is refused', async () => {
    for (const path of paths(good)) {
      const name = path.join('.');
      if (!OPTIONAL.test(name)) {
        const without = await refused(changed(path, (parent, key) => delete parent[key]));
        expect(without?.message, name).toContain(`: ${name}: `);
      }
      const isCount = /(?:id|transactionId|lun|Bytes|origin)$/.test(name);
      if (!isCount) continue;
      for (const value of [-1, 0.5, 2 ** 53]) {
        const answer = await refused(set(path, value));
        expect(answer?.message, `${name} ${value}`).toContain(`: ${name}: `);
      }
    }
  });

  it.each([
    ['a field that nobody knows', () => ({ ...good, colour: 'red' }), 'colour: Unrecognized key'],
    ['another format', () => ({ ...good, format: 2 }), 'format: '],
    ['another block size', () => ({ ...good, blockSizeBytes: 131_072 }), 'data block size is 65536, expected 131072'],
    [
      'another transaction',
      () => ({ ...good, transactionId: 5 }),
      'its metadata is at transaction 2, its catalogue at 5 or 9',
    ],
    ['two volumes with one id', () => set(['volumes', 1, 'id'], 1), 'two volumes have the same id'],
    ['two volumes with one name', () => set(['volumes', 1, 'name'], 'web'), 'the same name'],
    ['two volumes with one LUN', () => set(['volumes', 1, 'lun'], 0), 'the same lun'],
    ['two volumes with one name to come', () => set(['pending', 'volumes', 1, 'name'], 'web'), 'the same name'],
    ['half of itself', () => JSON.stringify(good).slice(0, 300), 'JSON'],
    ['nothing', () => '', 'JSON'],
    ['zeroes', () => '\0'.repeat(500), 'JSON'],
  ])('that has %s is refused', async (_, make, message) => {
    expect((await refused(make() as Json))?.message).toContain(message);
  });
});

describe('a pool whose data device does not fit', () => {
  it('is refused, and a check says so', async () => {
    writeFileSync(join(dir, 'pool.json'), JSON.stringify(good));
    writeFileSync(join(dir, 'metadata'), metadata);
    const data = readFileSync(join(dir, 'data'));
    writeFileSync(join(dir, 'data'), data.subarray(0, 32 * MIB));
    await expect(Pool.open(dir)).rejects.toThrow('its data device has 32 MiB, its metadata needs 64 MiB');
    const found = await checkPool(dir);
    expect(found?.damages.map(({ path, message }) => `${path}: ${message}`)).toEqual([
      'data: it has 32 MiB, the metadata is for 64 MiB',
    ]);
    writeFileSync(join(dir, 'data'), data);
  });
});
