import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { writeU32LE, writeU64LE } from '../../src/base/bytes.ts';
import {
  CRC32C_INITIAL,
  crc32c,
  crc32cFinish,
  crc32cRaw,
  crc32cUpdate,
  crc32cUpdateTables,
} from '../../src/base/crc32c.ts';
import { native } from '../../src/base/native.ts';

type Update = (register: number, bytes: Uint8Array, begin: number, end: number) => number;

const IMPLEMENTATIONS: [string, Update][] = [
  ['the tables', crc32cUpdateTables],
  ['whichever is faster', crc32cUpdate],
];
if (native !== null) {
  const { crc32c: update } = native;
  IMPLEMENTATIONS.push(['the addon', (register, bytes, begin, end) => update(register, bytes, begin, end - begin)]);
}

/** One bit at a time, straight from the definition. */
function slowRegister(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0x82f63b78 : 0);
  }
  return crc >>> 0;
}

function metadataBlock(fields: [at: number, size: 1 | 4 | 8, value: number][]): Uint8Array {
  const block = new Uint8Array(4096);
  for (const [at, size, value] of fields) {
    if (size === 1) block[at] = value;
    else if (size === 4) writeU32LE(block, at, value);
    else writeU64LE(block, at, value);
  }
  return block;
}

const SUPERBLOCK = 160774;
const NODE = 121107;
const BITMAP = 240779;
const INDEX = 160478;

/** From blocks that a kernel wrote: (fields, type constant, checksum in the block). */
const KERNEL_BLOCKS: [string, Uint8Array, number, number][] = [
  ['zeroes as a superblock', metadataBlock([]), SUPERBLOCK, 1490015127],
  ['zeroes as a node', metadataBlock([]), NODE, 1489796738],
  ['zeroes as a bitmap', metadataBlock([]), BITMAP, 1489898266],
  ['zeroes as an index', metadataBlock([]), INDEX, 1490015567],
  [
    'an empty leaf',
    metadataBlock([
      [4, 4, 2],
      [8, 8, 6],
      [20, 4, 252],
      [24, 4, 8],
    ]),
    NODE,
    3409828405,
  ],
  [
    'an empty leaf of details',
    metadataBlock([
      [4, 4, 2],
      [8, 8, 7],
      [20, 4, 126],
      [24, 4, 24],
    ]),
    NODE,
    2982679366,
  ],
  ['an empty bitmap', metadataBlock([[8, 8, 3]]), BITMAP, 3660306802],
  [
    'an index',
    metadataBlock([
      [8, 8, 1],
      [16, 8, 3],
      [24, 4, 16312],
      [28, 4, 8],
    ]),
    INDEX,
    417359370,
  ],
  [
    'a bitmap',
    metadataBlock([
      [8, 8, 3],
      [16, 1, 0xaa],
      [17, 1, 0xaa],
    ]),
    BITMAP,
    2711577461,
  ],
  [
    'another bitmap',
    metadataBlock([
      [8, 8, 9],
      [16, 1, 0x22],
      [17, 1, 0xa8],
      [18, 1, 0xaa],
    ]),
    BITMAP,
    3821874887,
  ],
];

describe.each(IMPLEMENTATIONS)('CRC-32C by %s', (_name, update) => {
  test('gives the check value of the standard', () => {
    const text = new TextEncoder().encode('123456789');
    expect(crc32cFinish(update(CRC32C_INITIAL, text, 0, 9))).toBe(0xe3069283);
  });

  test('gives the values of RFC 3720 B.4', () => {
    const run = (bytes: Uint8Array) => crc32cFinish(update(CRC32C_INITIAL, bytes, 0, bytes.length));
    expect(run(new Uint8Array(32))).toBe(0x8a9136aa);
    expect(run(new Uint8Array(32).fill(0xff))).toBe(0x62a8ab43);
    expect(run(new Uint8Array(32).map((_, i) => i))).toBe(0x46dd794e);
    expect(run(new Uint8Array(32).map((_, i) => 31 - i))).toBe(0x113fdb5c);
  });

  test.each(KERNEL_BLOCKS)('stamps %s as the kernel does', (_what, block, constant, expected) => {
    expect((update(CRC32C_INITIAL, block, 4, 4096) ^ constant) >>> 0).toBe(expected);
  });

  test('agrees with the definition on any bytes, at any position, in any number of steps', () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ maxLength: 700 }),
        fc.nat(20),
        fc.array(fc.nat(700), { maxLength: 4 }),
        (data, shift, cuts) => {
          const bytes = new Uint8Array(shift + data.length + 3).fill(0x5a);
          bytes.set(data, shift);
          let register = CRC32C_INITIAL;
          let at = 0;
          for (const cut of [...cuts.filter((cut) => cut < data.length).sort((a, b) => a - b), data.length]) {
            register = update(register, bytes, shift + at, shift + cut);
            at = cut;
          }
          expect(register).toBe(slowRegister(data));
        },
      ),
    );
  });
});

test('the finished and the raw form differ by the inversion only', () => {
  const bytes = new Uint8Array(4096).map((_, i) => i * 31);
  expect(crc32c(bytes, 10, 4000)).toBe(crc32cFinish(crc32cRaw(bytes, 10, 4000)));
});
