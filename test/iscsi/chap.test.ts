import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  CHAP_ALGORITHMS,
  chapResponse,
  chooseAlgorithm,
  decodeBinary,
  encodeBinary,
  equalInConstantTime,
} from '../../src/iscsi/chap.ts';

const bytes = (text: string): Uint8Array => Buffer.from(text, 'latin1');
const hex = (data: Uint8Array): string => Buffer.from(data).toString('hex');
const algorithm = (number: number) => CHAP_ALGORITHMS.find((one) => one.number === number)!;

describe('a CHAP response', () => {
  // Identifier, secret and challenge are hashed one after the other: "a", "b" and "c" make the "abc" of the hashes' own standards.
  it.each([
    [5, 'MD5 (RFC 1321 A.5)', '900150983cd24fb0d6963f7d28e17f72'],
    [6, 'SHA-1 (RFC 3174 7.3)', 'a9993e364706816aba3e25717850c26c9cd0d89d'],
    [7, 'SHA-256 (FIPS 180-4)', 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad'],
    [8, 'SHA3-256 (FIPS 202)', '3a985da74fe225b2045c172d6bd390bd855f086e3e9d525b46bfe24511431532'],
  ])('of algorithm %i is the %s of identifier, secret and challenge', (number, _standard, expected) => {
    expect(hex(chapResponse(algorithm(number), 0x61, bytes('b'), bytes('c')))).toBe(expected);
    expect(algorithm(number).responseSize).toBe(expected.length / 2);
  });

  it('of more bytes is that of RFC 1321 too', () => {
    const response = chapResponse(algorithm(5), 'm'.charCodeAt(0), bytes('essage '), bytes('digest'));
    expect(hex(response)).toBe('f96b697d7cb7938d525a2f31aaf161d0');
  });

  it('takes the identifier as one byte', () => {
    const one = chapResponse(algorithm(7), 0x161, bytes('b'), bytes('c'));
    expect(hex(one)).toBe(hex(chapResponse(algorithm(7), 0x61, bytes('b'), bytes('c'))));
  });
});

describe('CHAP_A', () => {
  it.each([
    ['5', 5],
    ['8,7,6,5', 8],
    ['5,6,7,8', 5],
    ['0x7', 7],
    ['1,2,99,6', 6],
  ])('of %s gets the first algorithm that we have: %i', (offered, expected) => {
    expect(chooseAlgorithm(offered)?.number).toBe(expected);
  });

  it.each(['', '56', '4', '5 ', ' 5', '05x', 'MD5', '-5', '5;6', ',', `${'9,'.repeat(40)}5`])(
    'of "%s" gets none',
    (offered) => {
      expect(chooseAlgorithm(offered)).toBeNull();
    },
  );
});

describe('a binary value', () => {
  it('is the same in hexadecimal and in base64', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 1, maxLength: 64 }), (data) => {
        const expected = hex(data);
        expect(hex(decodeBinary(encodeBinary(data), 1, 64)!)).toBe(expected);
        expect(hex(decodeBinary(`0X${expected.toUpperCase()}`, 1, 64)!)).toBe(expected);
        expect(hex(decodeBinary(`0b${Buffer.from(data).toString('base64')}`, 1, 64)!)).toBe(expected);
      }),
    );
  });

  it.each([
    ['no prefix', '00112233'],
    ['an unknown prefix', '0z00112233'],
    ['nothing', ''],
    ['a prefix alone', '0x'],
    ['an odd number of hexadecimal digits', '0x0011223'],
    ['a character that is no digit', '0x0011223g'],
    ['a space', '0x 0112233'],
    ['base64 that is cut off', '0bAAE'],
    ['base64 of another alphabet', '0b_-8='],
    ['base64 with bits that no byte has', '0bAB=='],
    ['base64 with padding in the middle', '0bAA==AAAA'],
    ['a byte too few', '0x00112233'.slice(0, 8)],
    ['a byte too many', '0x0011223344'],
    ['base64 of a byte too many', `0b${Buffer.alloc(5).toString('base64')}`],
  ])('of 4 bytes is not one with %s', (_what, text) => {
    expect(decodeBinary(text, 4, 4)).toBeNull();
  });

  it('is never longer than it may be, whatever the text', () => {
    const texts = fc.oneof(
      fc.string(),
      fc.string().map((text) => `0x${text}`),
      fc.string().map((text) => `0b${text}`),
      fc.base64String({ maxLength: 4096 }).map((text) => `0b${text}`),
    );
    fc.assert(
      fc.property(texts, (text) => {
        const decoded = decodeBinary(text, 2, 16);
        expect(decoded === null || (decoded.length >= 2 && decoded.length <= 16)).toBe(true);
      }),
    );
  });
});

describe('a comparison', () => {
  it('tells equal from different, of any lengths', () => {
    expect(equalInConstantTime(bytes('abc'), bytes('abc'))).toBe(true);
    expect(equalInConstantTime(bytes('abc'), bytes('abd'))).toBe(false);
    expect(equalInConstantTime(bytes('abc'), bytes('abcd'))).toBe(false);
    expect(equalInConstantTime(bytes(''), bytes(''))).toBe(true);
  });
});
