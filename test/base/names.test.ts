import { describe, expect, it } from 'vitest';
import { isValidName } from '../../src/base/names.ts';

describe('a name of a pool or volume', () => {
  it('cannot be one that a path, a DBus object or a command line could trip over', () => {
    for (const good of ['a', 'vm-1.disk_0', 'A'.repeat(128)]) expect(isValidName(good)).toBe(true);
    for (const bad of ['', '.', '..', '-x', 'a/b', 'a b', 'a,b', 'ä', 'A'.repeat(129)])
      expect(isValidName(bad)).toBe(false);
  });
});
