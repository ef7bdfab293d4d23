import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';

const ROOT = join(import.meta.dirname, '../..');

/** The rows of the table: a name, and a file of ours or why there is none. */
const rows = readFileSync(join(ROOT, 'docs/kernel-tests.md'), 'utf8')
  .split('\n')
  .filter((line) => line.startsWith('| `'))
  .map((line) => {
    const [name, suite, ours] = line.split('|').slice(1, -1);
    return { name: name!.trim().replaceAll('`', ''), suite: suite!.trim(), ours: ours!.trim() };
  });

describe('the table of the kernel’s tests', () => {
  it('has them all, each once in its suite', () => {
    expect(rows.length).toBeGreaterThan(200);
    expect(new Set(rows.map(({ name, suite }) => `${suite}: ${name}`)).size).toBe(rows.length);
  });

  it('names a file that has a test of that name, or says why there is none', () => {
    const wrong = rows.filter(({ name, ours }) => {
      const file = /^`(test\/\S+)`$/.exec(ours)?.[1];
      if (file === undefined) return !/^– .{5,}/.test(ours);
      if (!existsSync(join(ROOT, file))) return true;
      // Not as the beginning of a longer name.
      return !new RegExp(`(?<![\\w/-])${name}(?![\\w/-])`).test(readFileSync(join(ROOT, file), 'utf8'));
    });
    expect(wrong).toEqual([]);
  });

  it('knows every test that bears such a name', () => {
    const names = new Set(rows.map(({ name }) => name));
    const unknown: string[] = [];
    for (const file of readdirSync(import.meta.dirname).filter((name) => name.endsWith('.test.ts'))) {
      const text = readFileSync(join(import.meta.dirname, file), 'utf8');
      for (const [, name] of text.matchAll(
        /['`]([a-z0-9]+(?:_[a-zA-Z0-9]+){2,}|(?:btree|space-map|thinp)\/[\w/-]+)[:'`]/g,
      )) {
        if (!names.has(name!)) unknown.push(`${file}: ${name}`);
      }
    }
    expect(unknown).toEqual([]);
  });
});
