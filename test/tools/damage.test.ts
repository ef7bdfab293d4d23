import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { StorageError } from '../../src/base/errors.ts';
import { PoolMetadata } from '../../src/thin/pool-metadata.ts';
import { RunResult } from '../../src/thin/run-lookup.ts';
import { type CheckSummary, checkMetadata } from '../../src/tools/check.ts';
import { type Damage, describeDamage } from '../../src/tools/damage.ts';
import { damagedImage, type Spot, spots } from '../support/damage-places.ts';
import {
  BITMAP_FIELDS,
  DETAILS_FIELDS,
  INDEX_ENTRY_FIELDS,
  INDEX_FIELDS,
  NODE_FIELDS,
  SUPERBLOCK_FIELDS,
  uncovered,
  VALUE_FIELDS,
} from '../support/metadata-fields.ts';
import { expectClean } from '../support/metadata-judges.ts';
import type { TestDevice } from '../support/test-device.ts';

/**
 * One bit of every field turned over. What the checker and the pool say is in a table; where the pool says nothing, the table shows what only
 * a check can find. `THINLUN_WRITE_TABLES=1` writes the table anew, to be read before it is committed.
 */
const TABLE = join(import.meta.dirname, 'damage.expected.txt');
const WRITES_TABLE = process.env['THINLUN_WRITE_TABLES'] === '1';

function checked(device: TestDevice): { summary: CheckSummary; damages: Damage[] } {
  const damages: Damage[] = [];
  const summary = checkMetadata(device, (damage) => damages.push(damage));
  return { summary, damages };
}

/** Opens the pool, reads every mapping, and then changes everything that can be changed; what it throws, or null. */
function use(device: TestDevice): { stage: string; error: unknown } | null {
  let stage = 'open';
  try {
    const pool = PoolMetadata.open(device, { cacheBlocks: 512 });
    stage = 'read';
    const ids = pool.thinIds();
    for (const id of ids) readAll(pool, id);
    stage = 'write';
    const { needsCheck } = pool;
    const chosen = [ids[0]!, ids[2] ?? ids[0]!, ids.at(-1)!];
    for (const id of new Set(chosen)) write(pool, id);
    for (const id of new Set(chosen)) {
      pool.createSnap(id + 5000, id);
      write(pool, id);
    }
    pool.deleteThin(ids[0]!);
    if (pool.heldRoot !== 0) pool.releaseSnapshot();
    stage = 'commit';
    pool.commitSync();
    pool.close();
    return needsCheck ? { stage, error: 'it needs a check' } : null;
  } catch (error) {
    return { stage, error };
  }
}

function readAll(pool: PoolMetadata, id: number): void {
  const thin = pool.openThin(id);
  const run = new RunResult();
  const end = pool.highestMapped(thin) + 2;
  let steps = 0;
  for (let at = 0; at < end && steps < 3000; at = run.end, steps++) pool.lookupRun(thin, at, end, run, false);
  pool.closeThin(thin);
}

function write(pool: PoolMetadata, id: number): void {
  const thin = pool.openThin(id);
  const run = new RunResult();
  for (const at of [0, 5, 600, 100_000]) {
    pool.lookupRunForWrite(thin, at, at + 1, run, false);
    if (!run.mapped || run.shared) pool.insert(thin, at, pool.allocateDataBlock());
  }
  pool.removeRange(thin, 1, 4, 10);
  pool.closeThin(thin);
}

function told(outcome: ReturnType<typeof use>): string {
  if (outcome === null) return 'accepted';
  const { stage, error } = outcome;
  if (!(error instanceof StorageError)) return `${stage}: ${String(error)}`;
  return `${stage}: ${error.code} ${error.message}`;
}

function countWrites(device: TestDevice): () => number {
  let writes = 0;
  device.hook = ({ kind }) => {
    if (kind === 'write') writes++;
    return null;
  };
  return () => writes;
}

const ALL: readonly Spot[] = [...spots()];

describe('the table of structures', () => {
  it.each([
    ['superblock', SUPERBLOCK_FIELDS, 364],
    ['node header', NODE_FIELDS, 32],
    ['bitmap header', BITMAP_FIELDS, 16],
    ['index header', INDEX_FIELDS, 16],
    ['index entry', INDEX_ENTRY_FIELDS, 16],
    ['device details', DETAILS_FIELDS, 24],
  ] as const)('has every byte of a %s in one field', (_, fields, size) => {
    expect(uncovered(fields, size)).toEqual([]);
    expect(Math.max(...fields.map((field) => field.offset + field.size))).toBe(size);
  });

  it('has every bit of every value in one field', () => {
    for (const { size, fields } of Object.values(VALUE_FIELDS)) expect(uncovered(fields, size)).toEqual([]);
  });

  it('damages images that are good, and that the pool can use', () => {
    for (const name of new Set(ALL.map(({ image }) => image))) {
      const device = damagedImage({ name, image: name, block: 0, offset: 0, mask: 0, isChecksum: true }, true);
      expectClean(device);
      expect(told(use(device))).toBe('accepted');
      expectClean(device);
    }
  });
});

describe('a damaged bit without a new checksum', () => {
  // Of bits that one checksum guards, a few stand for all.
  const some = ALL.filter((_, i) => i % 3 === 0);

  it('is found by the checker and by the first use, and nothing is written', () => {
    for (const spot of some) {
      const device = damagedImage(spot, false);
      const { damages } = checked(device);
      expect(damages.map(describeDamage).join('\n'), spot.name).toMatch(/has checksum|says that it is block|magic is/);
      const writes = countWrites(device);
      const text = told(use(device));
      expect(text, spot.name).toMatch(
        /^(?:open|read|write|commit): (?:EILSEQ|ENOTBLK) .*(?:checksum is|the superblock says that it is block|magic is)/,
      );
      expect(writes(), spot.name).toBe(0);
    }
  });
});

describe('a damaged bit with a right checksum', () => {
  it('is answered as the table says: the checker’s first finding, and the pool’s error, after which nothing is written', () => {
    const lines: string[] = [];
    for (const spot of ALL) {
      if (spot.isChecksum) continue;
      const device = damagedImage(spot, true);
      const { summary, damages } = checked(device);
      const more = damages.length > 1 ? ` (and ${damages.length - 1} more)` : '';
      const first = damages.length > 0 ? `${describeDamage(damages[0]!)}${more}` : 'nothing';
      const writes = countWrites(device);
      const outcome = use(device);
      device.hook = null;
      if (outcome !== null) {
        expect(outcome.error, spot.name).toBeInstanceOf(StorageError);
        expect(writes(), spot.name).toBe(0);
      }
      lines.push(spot.name, `  check: ${first}${summary.needsCheck ? '; needs check' : ''}`, `  use: ${told(outcome)}`);
    }
    const text = `${lines.join('\n')}\n`;
    if (WRITES_TABLE) writeFileSync(TABLE, text);
    expect(text.split('\n')).toEqual(readFileSync(TABLE, 'utf8').split('\n'));
  });

  it('is found by the checker, unless nobody reads the field or the other value may be as well', () => {
    const unread = /uuid|padding|not_used|unused|compat_flags|trans_id|transaction_id|entry past the last/;
    const silent = ALL.filter((spot) => !spot.isChecksum && !unread.test(spot.name)).filter(
      (spot) => checked(damagedImage(spot, true)).damages.length === 0,
    );
    expect(silent.map(({ name }) => name)).toEqual([
      // Needs check, which is no damage; and flags without a meaning.
      'superblock: flags, lowest bit',
      'superblock: flags, highest bit',
      // Later than it is: snapshots have other times then, and the same order.
      'superblock: time, lowest bit',
      // A data device that is a block larger.
      'superblock: data_space_map.nr_blocks, lowest bit',
      'metadata snapshot: flags, lowest bit',
      'metadata snapshot: flags, highest bit',
      'metadata snapshot: time, lowest bit',
      // A parent's first key may be below its child's.
      'top-level internal node, first entry: key, lowest bit',
      // Earlier than it is: believed to be shared.
      'mapping leaf, first entry: time, lowest bit',
      // Another virtual block.
      'mapping leaf, last entry: key, lowest bit',
      'mapping leaf, last entry: time, lowest bit',
      'details internal node, first entry: key, lowest bit',
      'details leaf, first entry: creation_time, lowest bit',
      // A bound, and lower than it could be.
      'metadata index, first entry: none_free_before, lowest bit',
    ]);
  });
});
