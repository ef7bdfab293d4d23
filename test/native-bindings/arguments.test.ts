/** Every export, with everything that it must refuse. A crash ends the test process, which fails the file. */
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, expect, test } from 'vitest';
import type { NativeBindings } from '../../src/base/native.ts';
import { RingRow } from '../../src/base/native.ts';
import { requireAddon } from '../support/native-addon.ts';

const native = requireAddon();

const home = mkdtempSync(join(tmpdir(), 'thinlun-native-'));
const path = join(home, 'file');
writeFileSync(path, Buffer.alloc(8192, 0x11));
const fd = openSync(path, 'r+');
afterAll(() => {
  closeSync(fd);
  rmSync(home, { recursive: true });
});

const detached = new Uint8Array(64);
structuredClone(detached.buffer, { transfer: [detached.buffer] });

/** What is none of the types that anything here takes, and what looks like them. */
const ALWAYS_WRONG: unknown[] = [
  undefined,
  null,
  Symbol('wrong'),
  {},
  { length: 8, byteLength: 8, buffer: new ArrayBuffer(8) },
  new Date(0),
  new Proxy(new Uint8Array(8), {}),
  new DataView(new ArrayBuffer(8)),
  new Float64Array(8),
  new Uint8ClampedArray(8),
  10n,
  'exclusive\0',
  'an unknown word that is much longer than any that is known here',
];
const WRONG_NUMBERS = [
  -1,
  -0.5,
  0.5,
  Number.NaN,
  Number.POSITIVE_INFINITY,
  Number.NEGATIVE_INFINITY,
  2 ** 53,
  1e300,
  '1',
  true,
];
const WRONG_FDS = [...WRONG_NUMBERS, 2 ** 31, 2 ** 32];
const WRONG_BYTES = [1, 'bytes', true, [1, 2], new ArrayBuffer(8), () => 0];
const WRONG_OFFSETS = [...WRONG_NUMBERS, 65];
const WRONG_FUNCTIONS = [1, 'f', true, new Uint8Array(1), []];

const bytes = new Uint8Array(64);
const callback = (): void => {};

interface Argument {
  good: unknown;
  bad: unknown[];
}
const FD: Argument = { good: fd, bad: WRONG_FDS };
const BYTES: Argument = { good: bytes, bad: WRONG_BYTES };
const OFFSET: Argument = { good: 0, bad: WRONG_OFFSETS };
const LENGTH: Argument = { good: 64, bad: WRONG_OFFSETS };
const POSITION: Argument = { good: 0, bad: WRONG_NUMBERS };
const COUNT: Argument = { good: 4096, bad: [0, ...WRONG_NUMBERS] };
const FDS: Argument = { good: new Uint8Array(8), bad: [...WRONG_BYTES, new Uint8Array(3), new Uint8Array(254 * 4)] };
const FUNCTION: Argument = { good: callback, bad: WRONG_FUNCTIONS };

const EXPORTS: Record<keyof NativeBindings, Argument[]> = {
  crc32c: [{ good: 0, bad: [...WRONG_NUMBERS, 2 ** 32] }, BYTES, OFFSET, LENGTH],
  alignedBuffer: [
    { good: 4096, bad: [0, ...WRONG_NUMBERS, 2 ** 41] },
    { good: 4096, bad: [0, 3, 4095, ...WRONG_NUMBERS, 2 ** 31] },
  ],
  flock: [FD, { good: 'unlock', bad: ['', 'UNLOCK', 'unlocked', 1, true] }, { good: true, bad: [1, 0, 'true'] }],
  fallocate: [FD, { good: 1, bad: [...WRONG_NUMBERS, 2 ** 31] }, POSITION, COUNT],
  blkGetSize64: [FD],
  blkSectorSize: [FD],
  blkDiscard: [FD, POSITION, COUNT],
  blkZeroOut: [FD, POSITION, COUNT],
  rangeAsync: [{ good: 'punch-hole', bad: ['', 'punch', 1, true] }, FD, POSITION, COUNT, FUNCTION],
  copyAsync: [
    FD,
    { good: bytes, bad: [...WRONG_BYTES, new Uint8Array(47), detached] },
    { good: 1, bad: [0, 2, 65, ...WRONG_NUMBERS] },
    BYTES,
    FUNCTION,
  ],
  mapShared: [FD, COUNT],
  unmap: [{ good: new ArrayBuffer(8), bad: [1, 'x', bytes, new SharedArrayBuffer(8), new ArrayBuffer(0)] }],
  atomicLoadAcquire32: [BYTES, { good: 0, bad: [...WRONG_OFFSETS, 61, 2, 1] }],
  awaitChange32: [
    BYTES,
    { good: 0, bad: [...WRONG_OFFSETS, 61, 2, 1] },
    { good: 0, bad: [...WRONG_NUMBERS, 2 ** 32] },
    { good: 0, bad: [1001, ...WRONG_NUMBERS] },
  ],
  atomicStoreRelease32: [
    BYTES,
    { good: 0, bad: [...WRONG_OFFSETS, 61, 2, 1] },
    { good: 1, bad: [...WRONG_NUMBERS, 2 ** 32] },
  ],
  pollStart: [FD, FUNCTION],
  pollStop: [{ good: {}, bad: [1, 'x', true, bytes, callback, new Map()] }],
  readFd: [FD, BYTES, OFFSET, LENGTH],
  writeFd: [FD, BYTES, OFFSET, LENGTH],
  genlSocket: [
    { good: 0, bad: [...WRONG_NUMBERS, 2 ** 32] },
    { good: 65536, bad: [0, ...WRONG_NUMBERS, 2 ** 31] },
  ],
  netlinkAddMembership: [FD, { good: 1, bad: [0, ...WRONG_NUMBERS, 2 ** 31] }],
  netlinkSend: [FD, BYTES],
  netlinkReceive: [FD, BYTES],
  duplicateFd: [FD],
  sendWithFds: [FD, BYTES, OFFSET, LENGTH, FDS],
  receiveWithFds: [FD, BYTES, OFFSET, LENGTH, FDS],
  setIoFlusher: [{ good: 1, bad: [0, ...WRONG_NUMBERS, 2 ** 31] }],
  lockMemory: [
    { good: 0, bad: WRONG_NUMBERS },
    { good: 0, bad: WRONG_NUMBERS },
  ],
  sendDatagram: [{ good: bytes, bad: [...WRONG_BYTES, new Uint8Array(0), new Uint8Array(108), detached] }, BYTES],
  createRing: [{ good: 8, bad: [0, 3, 1000, 8192, ...WRONG_NUMBERS] }, FUNCTION],
};

type AnyFunction = (...given: unknown[]) => unknown;

test('every export is in the table', () => {
  expect(Object.keys(EXPORTS).sort()).toEqual(Object.keys(native).sort());
});

test.each(Object.entries(EXPORTS))('%s refuses a wrong number of arguments', (name, list) => {
  const call = native[name as keyof NativeBindings] as AnyFunction;
  const good = list.map((argument) => argument.good);
  const refusal = expect.objectContaining({ name: 'TypeError', code: 'EINVAL', errno: 22, syscall: name });
  for (let count = 0; count < good.length; count++) expect(() => call(...good.slice(0, count))).toThrow(refusal);
  expect(() => call(...good, 1)).toThrow(refusal);
  expect(() => call(...good, ...new Array(20).fill(0))).toThrow(refusal);
});

test.each(Object.entries(EXPORTS))('%s refuses every wrong argument, one at a time', (name, list) => {
  const call = native[name as keyof NativeBindings] as AnyFunction;
  const good = list.map((argument) => argument.good);
  for (const [at, { bad }] of list.entries()) {
    for (const [index, wrong] of [...ALWAYS_WRONG, ...bad].entries()) {
      const given = good.slice();
      given[at] = wrong;
      expect(() => call(...given), `argument ${at + 1} of ${name}, wrong value ${index}`).toThrow(
        expect.objectContaining({ name: 'TypeError', code: 'EINVAL', syscall: name }),
      );
    }
  }
});

test('a range in detached memory is refused', () => {
  expect(() => native.crc32c(0, detached, 0, 1)).toThrow(expect.objectContaining({ code: 'EINVAL' }));
  expect(() => native.readFd(fd, detached, 0, 1)).toThrow(expect.objectContaining({ code: 'EINVAL' }));
  expect(() => native.atomicLoadAcquire32(detached, 0)).toThrow(expect.objectContaining({ code: 'EINVAL' }));
  expect(native.crc32c(7, detached, 0, 0)).toBe(7);
});

test('a copy takes no row that is wrong in any number, and starts nothing of its batch', () => {
  const good = [0, 8192, 4096, 0, 512, 512];
  const wrong = [
    [-1, 0.5, 2 ** 53 - 4095, Number.NaN],
    [-1, 0.5, 2 ** 53 - 4095, Number.NaN],
    [0, -1, 0.5, 8193, 2 ** 30 + 1, Number.NaN],
    [-1, 0.5, 4097, Number.NaN],
    [-1, 0.5, 3585, Number.NaN],
    [-1, 0.5, 3585, Number.NaN],
  ];
  const memory = new Uint8Array(8192);
  for (const [at, values] of wrong.entries()) {
    for (const value of values) {
      const rows = Float64Array.from([...good, ...good]);
      rows[good.length + at] = value;
      const start = (): void => native.copyAsync(fd, new Uint8Array(rows.buffer), 2, memory, callback);
      expect(start, `number ${at} is ${value}`).toThrow(expect.objectContaining({ code: 'EINVAL' }));
    }
  }
});

test('a failed system call says which and why', () => {
  const closed = 1_000_000;
  const refusal = (syscall: string): unknown =>
    expect.objectContaining({ name: 'Error', code: 'EBADF', errno: 9, syscall });
  expect(() => native.flock(closed, 'shared', true)).toThrow(refusal('flock'));
  expect(() => native.fallocate(closed, 0, 0, 1)).toThrow(refusal('fallocate'));
  expect(() => native.readFd(closed, bytes, 0, 1)).toThrow(refusal('read'));
  expect(() => native.blkDiscard(closed, 0, 512)).toThrow(refusal('BLKDISCARD'));
  expect(() => native.mapShared(closed, 4096)).toThrow(refusal('mmap'));
  expect(() => native.pollStart(closed, callback)).toThrow(expect.objectContaining({ code: 'EBADF' }));
  // A regular file cannot be polled.
  expect(() => native.pollStart(fd, callback)).toThrow(expect.objectContaining({ code: 'EPERM' }));
  expect(() => native.blkGetSize64(fd)).toThrow(expect.objectContaining({ code: 'ENOTTY' }));
});

test('anything at all, in any order, changes nothing outside of the memory it was given', () => {
  const safeNames = [
    'crc32c',
    'fallocate',
    'atomicLoadAcquire32',
    'atomicStoreRelease32',
    'readFd',
    'netlinkReceive',
    'unmap',
    'pollStop',
    'alignedBuffer',
  ] as const;
  const arena = new Uint8Array(4096).fill(0x77);
  const view = arena.subarray(1024, 2048);
  const value = fc.oneof(
    fc.constantFrom<unknown>(view, detached, fd, -1, 1_000_000, 0, 1, 512, 1024, 1025, callback, 'unlock', true),
    fc.double(),
    fc.integer(),
    fc.anything(),
  );
  fc.assert(
    fc.property(fc.constantFrom(...safeNames), fc.array(value, { maxLength: 6 }), (name, given) => {
      try {
        (native[name] as AnyFunction)(...given);
      } catch (error) {
        expect(error).toHaveProperty('code');
      }
      expect(arena[1023]).toBe(0x77);
      expect(arena[2048]).toBe(0x77);
    }),
    { numRuns: 3000 },
  );
});

test('a ring takes no row that is wrong in any number, and starts nothing of its batch', () => {
  const ring = native.createRing(8, callback);
  const arena = new Uint8Array(4096).fill(0x77);
  const memory = arena.subarray(1024, 2048);
  const good = [3, 0, fd, 0, 512, 0, 0, 0];
  const wrong: [number, number[]][] = [
    [RingRow.SLOT, [-1, 8, 0.5, Number.NaN, 1e300]],
    [RingRow.OP, [-1, 7, 0.5, Number.NaN]],
    [RingRow.FD, [-1, 0.5, 2 ** 31, Number.NaN]],
    [RingRow.OFFSET, [-1, 0.5, 2 ** 53, Number.NaN, Number.POSITIVE_INFINITY]],
    [RingRow.LENGTH, [0, -1, 1025, 0.5, 2 ** 32, Number.NaN]],
    [RingRow.MEMORY, [-1, 1, 0.5, Number.NaN]],
    [RingRow.MEMORY_OFFSET, [-1, 513, 1025, 0.5, Number.NaN]],
  ];
  for (const op of [0, 1, 4, 6]) {
    for (const [at, values] of wrong) {
      for (const value of values) {
        ring.queue.set([1, op, fd, 0, 512, 0, 0, 0], 0);
        ring.queue.set(good, RingRow.SIZE);
        ring.queue[RingRow.SIZE + at] = value;
        expect(() => ring.submit(2, [memory], 1)).toThrow(expect.objectContaining({ code: 'EINVAL' }));
      }
    }
  }
  ring.queue.set(good, 0);
  ring.queue.set(good, RingRow.SIZE);
  expect(() => ring.submit(2, [memory], 1)).toThrow('a slot is in flight');
  for (const given of [
    [],
    [1],
    [1, [memory]],
    [1, memory, 1],
    [1, [memory], 2],
    [9, [memory], 1],
    [-1, [memory], 1],
    [1, [[]], 1],
    [1, [detached], 1],
    [1, null, 1],
  ]) {
    expect(() => (ring.submit as AnyFunction)(...given)).toThrow(expect.objectContaining({ code: 'EINVAL' }));
  }
  expect(ring.reap()).toBe(0);
  expect(Buffer.compare(readFileSync(path), Buffer.alloc(8192, 0x11))).toBe(0);
  expect(arena.every((byte) => byte === 0x77)).toBe(true);
  ring.close();
});

test('a ring whose array of memories closes it from a getter is not touched again', () => {
  const ring = native.createRing(8, callback);
  ring.queue.set([0, 0, fd, 0, 512, 0, 0, 0], 0);
  const memories: Uint8Array[] = [];
  Object.defineProperty(memories, 0, {
    get: () => {
      ring.close();
      return new Uint8Array(512);
    },
  });
  expect(() => ring.submit(1, memories, 1)).toThrow(expect.objectContaining({ code: 'EBADF' }));
  expect(() => ring.submit(0, [], 0)).toThrow(expect.objectContaining({ code: 'EBADF' }));
  expect(() => ring.reap()).toThrow(expect.objectContaining({ code: 'EBADF' }));
  ring.close();
});

test('rows of noise never reach memory outside of what they name', async () => {
  let inFlight = 0;
  const ring = native.createRing(16, (count) => {
    inFlight -= count;
  });
  const arena = new Uint8Array(3 * 4096).fill(0x77);
  const memory = arena.subarray(4096, 8192);
  const number = fc.oneof(
    { weight: 6, arbitrary: fc.nat(15) },
    { weight: 2, arbitrary: fc.constantFrom(512, 4096, 4095, 2 ** 31, 2 ** 32, 2 ** 53, -1, Number.NaN) },
    { weight: 1, arbitrary: fc.double() },
  );
  const files = fc.constantFrom(fd, 1_000_000);
  const row = fc.tuple(number, fc.constantFrom(0, 2), files, number, number, fc.nat(1), number, number);
  let taken = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(row, { minLength: 1, maxLength: 4 }), async (rows) => {
      for (const [at, numbers] of rows.entries()) ring.queue.set(numbers, at * RingRow.SIZE);
      try {
        ring.submit(rows.length, [memory, memory], 2);
        inFlight += rows.length;
        taken += rows.length;
      } catch (error) {
        expect(error).toHaveProperty('code', 'EINVAL');
      }
      while (inFlight > 0) {
        inFlight -= ring.reap();
        await new Promise((resolve) => setImmediate(resolve));
      }
      expect(arena.subarray(0, 4096).every((byte) => byte === 0x77)).toBe(true);
      expect(arena.subarray(8192).every((byte) => byte === 0x77)).toBe(true);
    }),
    { numRuns: 1000 },
  );
  expect(taken).toBeGreaterThan(100);
  ring.close();
});
