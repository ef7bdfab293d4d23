import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { formatText, parseNumber, parseText, TextCollector } from '../../src/iscsi/text.ts';

const text = (value: string): Uint8Array => Buffer.from(value);

describe('text', () => {
  it('is read back as it was written', () => {
    const key = fc.stringMatching(/^[A-Z][A-Za-z0-9.\-+@_]{0,20}$/);
    const value = fc.stringMatching(/^[ -~\u00a1-\u00ff]{0,40}$/);
    fc.assert(
      fc.property(fc.array(fc.record({ key, value }), { maxLength: 20 }), (pairs) => {
        expect(parseText(formatText(pairs))).toEqual(pairs);
      }),
    );
  });

  it.each([
    ['no null byte behind the last pair', 'HeaderDigest=None', 'null byte'],
    ['a pair without "="', 'HeaderDigest\0', '"="'],
    ['an empty key', '=None\0', 'characters'],
    ['a key of 64 characters', `${'K'.repeat(64)}=1\0`, '63'],
    ['a key with a space', 'Header Digest=None\0', 'characters'],
    ['a value of 256 characters', `X=${'v'.repeat(256)}\0`, 'too long'],
    ['a list of more than 8192 characters', `X=${'v,'.repeat(4097)}\0`, 'too long'],
    ['too many pairs', 'A=1\0'.repeat(129), 'too many'],
  ])('is refused with %s', (_what, bytes, reason) => {
    expect(parseText(text(bytes))).toContain(reason);
  });

  it('is refused when it is not UTF-8', () => {
    expect(parseText(Buffer.from([0x41, 0x3d, 0xc3, 0x28, 0]))).toBe('not UTF-8');
  });

  it('may have null bytes of padding between and behind its pairs, empty values and "=" in values', () => {
    expect(parseText(text('A=1\0\0B=\0C=x=y\0\0\0'))).toEqual([
      { key: 'A', value: '1' },
      { key: 'B', value: '' },
      { key: 'C', value: 'x=y' },
    ]);
    expect(parseText(new Uint8Array(0))).toEqual([]);
  });

  it('may have keys of 63 and values of 255 characters, and long values where they belong', () => {
    for (const pair of [
      `${'K'.repeat(63)}=1`,
      `K=${'v'.repeat(255)}`,
      `CHAP_R=0x${'0'.repeat(2000)}`,
      `L=${'a,'.repeat(400)}`,
    ]) {
      expect(parseText(text(`${pair}\0`)), pair.slice(0, 20)).toHaveLength(1);
    }
  });

  it.each([
    ['0', 0],
    ['8192', 8192],
    ['0x2000', 8192],
    ['0X2000', 8192],
    ['007', 7],
    ['', -1],
    ['-1', -1],
    ['+1', -1],
    ['1.5', -1],
    ['1e3', -1],
    ['0x', -1],
    ['0xg', -1],
    [' 1', -1],
    ['9'.repeat(16), -1],
    [`0x${'f'.repeat(14)}`, -1],
  ])('has the number %j as %d', (value, expected) => {
    expect(parseNumber(value)).toBe(expected);
  });

  it('is collected over several PDUs up to a bound', () => {
    const collector = new TextCollector(10);
    expect(collector.add(text('A=1'))).toBe(true);
    expect(collector.add(text(''))).toBe(true);
    expect(collector.add(text('234567\0'))).toBe(true);
    expect(collector.add(text('x'))).toBe(false);
    expect(parseText(collector.take())).toEqual([{ key: 'A', value: '1234567' }]);
    expect(collector.isEmpty).toBe(true);
  });
});
