import { describe, expect, it } from 'vitest';
import { foldName, isValidName } from '../../src/base/names.ts';

describe('a name of a pool or volume', () => {
  it('cannot be one that a path, a DBus object or a command line could trip over', () => {
    for (const good of ['a', 'vm-1.disk_0', 'A'.repeat(128)]) expect(isValidName(good)).toBe(true);
    for (const bad of ['', '.', '..', '-x', 'a/b', 'a b', 'a,b', 'ä', 'A'.repeat(129)])
      expect(isValidName(bad)).toBe(false);
  });
});

describe('the form in which iSCSI names are compared', () => {
  it('stays as it is when it is folded again, whatever characters it has, alone and with a mark behind them', () => {
    const changing: string[] = [];
    for (let code = 0x21; code < 0x110000; code++) {
      if (code >= 0xd800 && code < 0xe000) continue;
      for (const mark of code < 0x2000 ? ['', '\u030c', '\u0331', '\u0307', '\u0301'] : ['']) {
        const folded = foldName(String.fromCodePoint(code) + mark);
        if (foldName(folded) !== folded) changing.push(code.toString(16));
      }
    }
    expect(changing).toEqual([]);
  });
});
