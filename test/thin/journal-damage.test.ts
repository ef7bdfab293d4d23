import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { silentLogger } from '../../src/base/log.ts';
import { MappingJournal } from '../../src/thin/mapping-journal.ts';
import { type Field, uncovered } from '../support/metadata-fields.ts';

const HEADER: readonly Field[] = [
  { name: 'digest', offset: 0, size: 32 },
  { name: 'epoch', offset: 32, size: 8 },
  { name: 'zero', offset: 40, size: 8 },
  { name: 'magic', offset: 48, size: 4 },
  { name: 'crc', offset: 52, size: 4 },
];
const RECORD: readonly Field[] = [
  { name: 'epoch', offset: 0, size: 8 },
  { name: 'kind', offset: 8, size: 1 },
  { name: 'crc', offset: 9, size: 3 },
  { name: 'device', offset: 12, size: 4 },
  { name: 'first', offset: 16, size: 8 },
  { name: 'second', offset: 24, size: 8 },
];
const RECORDS = ['insert 1 2 3', 'remove 4 5 6', 'insert 7 8 9'];

let dir: string;
let good: Buffer;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'thinlun-journal-'));
  const journal = MappingJournal.open(join(dir, 'journal'), 'this boot', silentLogger);
  journal.begin('a');
  journal.noteInsert(1, 2, 3);
  journal.noteRemove(4, 5, 6);
  journal.noteInsert(7, 8, 9);
  journal.append();
  good = readFileSync(join(dir, 'journal'));
});
afterEach(() => rmSync(dir, { recursive: true }));

/** What is done again from a journal with that bit turned over, and how often somebody is warned. */
function replayed(offset: number, mask: number): { seen: string[]; warnings: number } {
  const bytes = Buffer.from(good);
  bytes[offset]! ^= mask;
  writeFileSync(join(dir, 'journal'), bytes);
  let warnings = 0;
  const logger = { ...silentLogger, warn: () => void warnings++ };
  const seen: string[] = [];
  MappingJournal.open(join(dir, 'journal'), 'this boot', logger).replay('a', {
    insert: (device, virtualBlock, dataBlock) => seen.push(`insert ${device} ${virtualBlock} ${dataBlock}`),
    remove: (device, begin, end) => seen.push(`remove ${device} ${begin} ${end}`),
    share: (...numbers) => seen.push(`share ${numbers.join(' ')}`),
  });
  return { seen, warnings };
}

describe('a damaged journal', () => {
  it('is damaged in every byte that it has', () => {
    expect(uncovered(HEADER, 56)).toEqual([]);
    expect(uncovered(RECORD, 32)).toEqual([]);
    expect(good.length).toBe(4096 + 32 * RECORDS.length);
    expect(replayed(0, 0)).toEqual({ seen: RECORDS, warnings: 0 });
  });

  it.each(HEADER)('in the header’s $name is not used', ({ offset, size }) => {
    for (const at of [offset, offset + size - 1]) {
      for (const mask of [1, 0x80]) expect(replayed(at, mask).seen).toEqual([]);
    }
  });

  it.each(RECORD)('in a record’s $name is used up to there, and somebody is told', ({ name, offset, size }) => {
    for (const [record, before] of RECORDS.entries()) {
      for (const at of [offset, offset + size - 1]) {
        for (const mask of [1, 0x80]) {
          const { seen, warnings } = replayed(4096 + 32 * record + at, mask);
          expect(seen, before).toEqual(RECORDS.slice(0, record));
          // A record of another epoch is what lies behind the last.
          expect(warnings).toBe(name === 'epoch' ? 0 : 1);
        }
      }
    }
  });
});
