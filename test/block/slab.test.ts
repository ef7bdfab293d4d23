import fc from 'fast-check';
import { expect, test } from 'vitest';
import { KIB, MIB } from '../../src/base/units.ts';
import { SlabPool } from '../../src/block/slab.ts';

const GRANULE = 4 * KIB;

test('an empty pool hands out all of its memory in one piece', () => {
  const pool = new SlabPool(1 * MIB);
  expect(pool.allocate(MIB)).toBe(0);
  expect(pool.usedBytes).toBe(MIB);
  expect(pool.allocate(1)).toBe(-1);
});

test('a size that is no power of two is used to the last granule', () => {
  const pool = new SlabPool(100 * GRANULE);
  const offsets = Array.from({ length: 100 }, () => pool.allocate(GRANULE));
  expect(new Set(offsets).size).toBe(100);
  expect(pool.allocate(1)).toBe(-1);
});

test('a length that is no power of two takes no more than its granules', () => {
  const pool = new SlabPool(8 * GRANULE);
  expect(pool.allocate(5 * GRANULE)).toBe(0);
  expect(pool.usedBytes).toBe(5 * GRANULE);
  expect(pool.allocate(2 * GRANULE)).toBe(6 * GRANULE);
  expect(pool.allocate(GRANULE)).toBe(5 * GRANULE);
  expect(pool.allocate(1)).toBe(-1);
});

test('what is larger than the pool is refused', () => {
  expect(new SlabPool(4 * GRANULE).allocate(5 * GRANULE)).toBe(-1);
});

test('freed pieces grow together again', () => {
  const pool = new SlabPool(64 * GRANULE);
  const offsets = Array.from({ length: 64 }, () => pool.allocate(GRANULE));
  for (const offset of offsets.reverse()) pool.free(offset, GRANULE);
  expect(pool.allocate(64 * GRANULE)).toBe(0);
});

test('single granules grow together again when that is needed, however many were given back', () => {
  const pool = new SlabPool(1024 * GRANULE);
  const offsets = Array.from({ length: 1024 }, () => pool.allocate(GRANULE));
  for (const offset of offsets) pool.free(offset, GRANULE);
  expect(() => pool.free(0, GRANULE)).toThrow('not handed out');
  expect(() => pool.free(1023 * GRANULE, GRANULE)).toThrow('not handed out');
  expect(pool.allocate(1024 * GRANULE)).toBe(0);
  pool.free(0, 1024 * GRANULE);
  expect(pool.usedBytes).toBe(0);
});

test('a single granule comes back first', () => {
  const pool = new SlabPool(64 * GRANULE);
  const [, second] = [pool.allocate(GRANULE), pool.allocate(GRANULE), pool.allocate(GRANULE)];
  pool.free(second, GRANULE);
  expect(pool.allocate(GRANULE)).toBe(second);
});

test('a range may be given back in parts', () => {
  const pool = new SlabPool(16 * GRANULE);
  expect(pool.allocate(16 * GRANULE)).toBe(0);
  pool.free(4 * GRANULE, 3 * GRANULE);
  expect(pool.allocate(2 * GRANULE)).toBe(4 * GRANULE);
  pool.free(0, 4 * GRANULE);
  expect(pool.allocate(4 * GRANULE)).toBe(0);
});

test('freeing twice, or what was never handed out, is an assertion', () => {
  const pool = new SlabPool(16 * GRANULE);
  const at = pool.allocate(2 * GRANULE);
  pool.free(at, 2 * GRANULE);
  expect(() => pool.free(at, 2 * GRANULE)).toThrow('not handed out');
  expect(() => pool.free(100, GRANULE)).toThrow('strange range');
  expect(() => pool.free(15 * GRANULE, 2 * GRANULE)).toThrow('strange range');
});

test('ranges in use never overlap, and everything comes back, whatever is asked in whatever order', () => {
  const command = fc.oneof(
    fc.record({ allocate: fc.oneof(fc.constant(GRANULE), fc.integer({ min: 1, max: 40 * GRANULE })) }),
    fc.record({ free: fc.nat(1000) }),
  );
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 200 }), fc.array(command, { maxLength: 200 }), (granules, commands) => {
      const pool = new SlabPool(granules * GRANULE);
      const used = new Set<number>();
      const live: { offset: number; length: number }[] = [];
      for (const step of commands) {
        if ('allocate' in step) {
          const offset = pool.allocate(step.allocate);
          if (offset === -1) continue;
          expect(offset % GRANULE).toBe(0);
          expect(offset + step.allocate).toBeLessThanOrEqual(pool.sizeBytes);
          for (let at = offset; at < offset + step.allocate; at += GRANULE) {
            expect(used.has(at)).toBe(false);
            used.add(at);
          }
          live.push({ offset, length: step.allocate });
        } else if (live.length > 0) {
          const [{ offset, length }] = live.splice(step.free % live.length, 1) as [{ offset: number; length: number }];
          pool.free(offset, length);
          for (let at = offset; at < offset + length; at += GRANULE) used.delete(at);
        }
        expect(pool.usedBytes).toBe(used.size * GRANULE);
      }
      for (const { offset, length } of live) pool.free(offset, length);
      expect(pool.usedBytes).toBe(0);
      expect(pool.allocate(2 ** Math.floor(Math.log2(granules)) * GRANULE)).toBe(0);
    }),
  );
});
