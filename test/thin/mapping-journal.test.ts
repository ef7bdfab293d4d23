import { mkdtempSync, rmSync, statSync, truncateSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { silentLogger } from '../../src/base/log.ts';
import { MappingJournal } from '../../src/thin/mapping-journal.ts';
import { LunClient, pattern } from '../support/lun-client.ts';
import { BLOCK, makePool } from './pool-fixture.ts';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'thinlun-journal-'));
});
afterEach(() => rmSync(dir, { recursive: true }));

function open(bootId = 'this boot'): MappingJournal {
  return MappingJournal.open(join(dir, 'journal'), bootId, silentLogger);
}

function replayed(journal: MappingJournal, identity: string): string[] {
  const seen: string[] = [];
  journal.replay(identity, {
    insert: (device, virtualBlock, dataBlock) => seen.push(`insert ${device} ${virtualBlock} ${dataBlock}`),
    remove: (device, begin, end) => seen.push(`remove ${device} ${begin} ${end}`),
    share: (...numbers) => seen.push(`share ${numbers.join(' ')}`),
  });
  return seen;
}

describe('a group of the mapping journal', () => {
  it('is done again as a whole, or not at all when the end of it is missing', () => {
    const write = (): number => {
      const journal = open();
      journal.begin('a');
      journal.noteInsert(1, 1, 1);
      journal.beginGroup(3);
      for (let i = 0; i < 3; i++) journal.noteInsert(1, 10 + i, 20 + i);
      journal.noteInsert(1, 2, 2);
      expect(journal.append()).toBe(true);
      return statSync(join(dir, 'journal')).size;
    };
    const size = write();
    const all = ['insert 1 1 1', 'insert 1 10 20', 'insert 1 11 21', 'insert 1 12 22', 'insert 1 2 2'];
    expect(replayed(open(), 'a')).toEqual(all);
    for (let cut = 1; cut <= 6 * 32; cut++) {
      write();
      truncateSync(join(dir, 'journal'), size - cut);
      const left = Math.floor((6 * 32 - cut) / 32);
      expect(replayed(open(), 'a')).toEqual(left < 1 ? [] : left < 5 ? all.slice(0, 1) : all.slice(0, 4));
    }
  });

  it('is written at once, though the buffer is nearly full', () => {
    const journal = open();
    journal.begin('a');
    for (let i = 0; i < 2046; i++) journal.noteInsert(1, i, i);
    journal.beginGroup(3);
    expect(statSync(join(dir, 'journal')).size).toBe(4096 + 2046 * 32);
    for (let i = 0; i < 3; i++) journal.noteInsert(2, i, i);
    expect(journal.append()).toBe(true);
    expect(replayed(open(), 'a').length).toBe(2046 + 3);
  });
});

describe('MappingJournal', () => {
  it('gives back in order what was appended since the last commit', () => {
    const journal = open();
    journal.begin('a');
    journal.noteInsert(1, 2, 3);
    expect(journal.append()).toBe(true);
    journal.begin('b');
    journal.noteInsert(2 ** 24 - 1, 2 ** 40 + 1, 2 ** 39 + 5);
    journal.noteRemove(7, 0, 2 ** 44);
    journal.noteShare(2 ** 24 - 1, 2 ** 40, 8, 2 ** 41, 2 ** 41 + 1);
    journal.noteShare(8, 1, 9, 2, 3);
    expect(journal.append()).toBe(true);
    expect(replayed(open(), 'b')).toEqual([
      `insert ${2 ** 24 - 1} ${2 ** 40 + 1} ${2 ** 39 + 5}`,
      `remove 7 0 ${2 ** 44}`,
      `share ${2 ** 24 - 1} ${2 ** 40} 8 ${2 ** 41} ${2 ** 41 + 1}`,
      'share 8 1 9 2 3',
    ]);
  });

  it('gives nothing back on another superblock, after another boot, or where the boot is not known', () => {
    const journal = open();
    journal.begin('a');
    journal.noteInsert(1, 2, 3);
    journal.append();
    expect(replayed(open(), 'b')).toEqual([]);
    expect(replayed(open('another boot'), 'a')).toEqual([]);
    expect(replayed(open(''), 'a')).toEqual([]);
    expect(replayed(open(), 'a')).toEqual(['insert 1 2 3']);
  });

  it('does not take records of an older epoch that lie behind the new ones', () => {
    const journal = open();
    journal.begin('a');
    for (let i = 0; i < 5000; i++) journal.noteInsert(1, i, i);
    expect(journal.append()).toBe(true);
    journal.begin('b');
    journal.noteRemove(1, 0, 1);
    journal.append();
    expect(replayed(open(), 'b')).toEqual(['remove 1 0 1']);
    const third = open();
    replayed(third, 'c');
    third.begin('c');
    expect(replayed(open(), 'c')).toEqual([]);
  });

  it('stops at the first record that is not whole, wherever it was cut', () => {
    const journal = open();
    journal.begin('a');
    for (let i = 0; i < 4; i++) journal.noteInsert(1, i, i);
    journal.append();
    const full = statSync(join(dir, 'journal')).size;
    for (let size = full; size >= 0; size -= 5) {
      truncateSync(join(dir, 'journal'), size);
      const whole = size < 4096 ? 0 : Math.floor((size - 4096) / 32);
      expect(replayed(open(), 'a')).toHaveLength(whole);
    }
  });

  it('does not share anything from half of a copy, wherever it was cut', () => {
    const journal = open();
    journal.begin('a');
    // The two records of the second copy lie in two parts of what is written at once.
    for (let i = 0; i < 65_536 / 32 - 3; i++) journal.noteInsert(1, i, i);
    journal.noteShare(5, 6, 7, 8, 9);
    journal.noteShare(15, 16, 17, 18, 19);
    journal.append();
    const full = statSync(join(dir, 'journal')).size;
    expect(replayed(open(), 'a').slice(-2)).toEqual(['share 5 6 7 8 9', 'share 15 16 17 18 19']);
    truncateSync(join(dir, 'journal'), full - 32);
    expect(replayed(open(), 'a').at(-1)).toBe('share 5 6 7 8 9');
    truncateSync(join(dir, 'journal'), full - 96);
    expect(replayed(open(), 'a').at(-1)).toMatch('insert');
  });

  it('says when it is full, and a commit empties it', () => {
    const journal = open();
    journal.begin('a');
    let appended = 0;
    do {
      for (let i = 0; i < 1000; i++) journal.noteInsert(1, i, i);
      appended += 1000;
    } while (journal.append());
    expect(journal.filling).toBe(true);
    expect(appended).toBeLessThan(300_000);
    expect(journal.append()).toBe(false);
    journal.begin('b');
    expect(journal.append()).toBe(true);
    expect(journal.filling).toBe(false);
  });
});

describe('a pool whose journal cannot be written', () => {
  it('acknowledges a change of the mapping only when it is committed', async () => {
    const pool = makePool({ journal: MappingJournal.open('/dev/full', 'this boot', silentLogger) });
    const lun = new LunClient(pool.volume(1, 64 * BLOCK));
    await pool.engine.commits.commit();
    await lun.write(0, pattern(512, 1));
    expect(pool.metadata.changed).toBe(false);
    await lun.unmap(0, BLOCK);
    expect(pool.metadata.changed).toBe(false);
    expect(pool.metadata.freeDataBlocks).toBe(256);
  });
});
