import { execFileSync } from 'node:child_process';
import {
  closeSync,
  constants,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { readU16LE, readU32LE, writeU16LE, writeU32LE } from '../../src/base/bytes.ts';
import { FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, POLL_READABLE } from '../../src/base/native.ts';
import { ADDON_PATH, requireAddon } from '../support/native-addon.ts';

const native = requireAddon();

let home: string;
let path: string;
let fd: number;
beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), 'thinlun-native-'));
  path = join(home, 'file');
  writeFileSync(path, Buffer.alloc(16384, 0x22));
  fd = openSync(path, 'r+');
});
afterEach(() => {
  closeSync(fd);
  rmSync(home, { recursive: true });
});

test('a shared map is the file, in both directions, and is gone after unmap', () => {
  const buffer = native.mapShared(fd, 8192);
  expect(buffer.byteLength).toBe(8192);
  const bytes = new Uint8Array(buffer);
  expect(bytes[8191]).toBe(0x22);
  bytes[5] = 0x99;
  expect(readFileSync(path)[5]).toBe(0x99);
  writeSync(fd, Buffer.from([0x77]), 0, 1, 6);
  expect(bytes[6]).toBe(0x77);
  native.unmap(buffer);
  expect(buffer.byteLength).toBe(0);
  expect(bytes.length).toBe(0);
  expect(bytes[5]).toBe(undefined);
  expect(() => native.unmap(buffer)).toThrow(expect.objectContaining({ code: 'EINVAL' }));
  expect(readFileSync('/proc/self/maps', 'utf8')).not.toContain(path);
});

test('only what mapShared made can be unmapped', () => {
  expect(() => native.unmap(native.alignedBuffer(4096, 4096))).toThrow(expect.objectContaining({ code: 'EINVAL' }));
  expect(() => native.unmap(new ArrayBuffer(4096))).toThrow(expect.objectContaining({ code: 'EINVAL' }));
});

test('a map that an operation in flight uses cannot be unmapped', async () => {
  const buffer = native.mapShared(fd, 4096);
  const ended = new Promise<void>((resolve) => {
    const ring = native.createRing(4, () => {
      native.unmap(buffer);
      ring.close();
      resolve();
    });
    ring.queue.set([1, 0, fd, 4096, 512, 0, 0, 0], 0);
    ring.submit(1, [new Uint8Array(buffer, 1024, 1024)], 1);
  });
  expect(() => native.unmap(buffer)).toThrow(expect.objectContaining({ code: 'EBUSY' }));
  expect(buffer.byteLength).toBe(4096);
  await ended;
  expect(buffer.byteLength).toBe(0);
});

test('aligned memory is zeroed and as long as asked for', () => {
  for (const [size, alignment] of [
    [1, 1],
    [4096, 512],
    [100_000, 4096],
    [4096, 65536],
    [10, 2 ** 21],
  ] as const) {
    const bytes = new Uint8Array(native.alignedBuffer(size, alignment));
    expect(bytes.length).toBe(size);
    expect(bytes.every((byte) => byte === 0)).toBe(true);
    bytes.fill(1);
  }
});

test('words of shared memory are loaded and stored whole', () => {
  const bytes = new Uint8Array(64);
  native.atomicStoreRelease32(bytes, 8, 0xfedcba98);
  expect(readU32LE(bytes, 8)).toBe(0xfedcba98);
  expect(native.atomicLoadAcquire32(bytes, 8)).toBe(0xfedcba98);
  expect(bytes[7]).toBe(0);
  expect(bytes[12]).toBe(0);
  expect(() => native.atomicLoadAcquire32(bytes.subarray(1), 4)).toThrow('not aligned');
});

test('a lock keeps others out until it is given back', () => {
  const other = openSync(path, 'r+');
  native.flock(fd, 'exclusive', true);
  expect(() => native.flock(other, 'shared', true)).toThrow(expect.objectContaining({ code: 'EAGAIN' }));
  native.flock(fd, 'unlock', true);
  native.flock(other, 'shared', true);
  native.flock(fd, 'shared', true);
  closeSync(other);
});

test('a hole is punched now or on the thread pool', async () => {
  const mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
  native.fallocate(fd, mode, 0, 4096);
  const result = await new Promise((resolve) => native.rangeAsync('punch-hole', fd, 8192, 4096, resolve));
  expect(result).toBe(0);
  const expected = Buffer.alloc(16384, 0x22);
  expected.fill(0, 0, 4096);
  expected.fill(0, 8192, 12288);
  expect(Buffer.compare(readFileSync(path), expected)).toBe(0);
  expect(statSync(path).size).toBe(16384);
  const notADevice = await new Promise((resolve) => native.rangeAsync('blkdiscard', fd, 0, 4096, resolve));
  expect(notADevice).toBe(-25);
});

test('a word is waited for until it is another one, for a while', async () => {
  const word = new Uint8Array(new SharedArrayBuffer(8));
  expect(native.awaitChange32(word, 4, 0, 0)).toBe(false);
  expect(native.awaitChange32(word, 4, 0, 1000)).toBe(false);
  expect(native.awaitChange32(word, 4, 1, 0)).toBe(true);
  const writer = new Worker(
    `const words = new Int32Array(require('node:worker_threads').workerData.buffer);
    Atomics.wait(words, 0, 0);
    Atomics.store(words, 1, 7);`,
    { eval: true, workerData: word },
  );
  const words = new Int32Array(word.buffer);
  Atomics.store(words, 0, 1);
  Atomics.notify(words, 0);
  while (!native.awaitChange32(word, 4, 0, 1000)) await new Promise(setImmediate);
  expect(words[1]).toBe(7);
  await writer.terminate();
});

test('ranges of a file are copied on the thread pool, except what memory holds already', async () => {
  const file = join(home, 'copies');
  const before = Buffer.from(Uint8Array.from({ length: 65536 }, (_, i) => (i * 7) >> 8));
  writeFileSync(file, before);
  const copyFd = openSync(file, 'r+');
  const memory = new Uint8Array(16384).fill(0xee);
  const rows = [
    [0, 32768, 4096, 0, 0, 0],
    [4096, 40960, 8192, 4096, 1000, 50],
    [8192, 49152, 4096, 12288, 0, 4096],
    [70000, 0, 512, 0, 0, 0],
  ];
  const bytes = new Uint8Array(Float64Array.from(rows.flat()).buffer);
  const results: [number, number][] = [];
  await new Promise<void>((resolve) => {
    native.copyAsync(copyFd, bytes, rows.length, memory, (row, result) => {
      results.push([row, result]);
      if (results.length === rows.length) resolve();
    });
  });
  expect(results).toEqual([
    [0, 0],
    [1, 0],
    [2, 0],
    [3, -5],
  ]);
  const expected = Buffer.from(before);
  before.copy(expected, 32768, 0, 4096);
  before.copy(expected, 40960, 4096, 12288);
  expected.fill(0xee, 41960, 42010);
  expected.fill(0xee, 49152, 53248);
  expect(Buffer.compare(readFileSync(file), expected)).toBe(0);
  closeSync(copyFd);
});

test('a copy of what the page cache does not have is left to others', async () => {
  const file = join(home, 'cold');
  writeFileSync(file, Buffer.alloc(4 * 65536, 1));
  execFileSync('sync', [file]);
  const before = readFileSync(file);
  execFileSync('dd', [`if=${file}`, 'iflag=nocache', 'count=0', 'status=none']);
  const coldFd = openSync(file, 'r+');
  const bytes = new Uint8Array(Float64Array.from([0, 131072, 65536, 0, 0, 0]).buffer);
  const result = await new Promise((resolve) =>
    native.copyAsync(coldFd, bytes, 1, new Uint8Array(65536), (_, outcome) => resolve(outcome)),
  );
  expect(result).toBe(-11);
  expect(Buffer.compare(readFileSync(file), before)).toBe(0);
  closeSync(coldFd);
});

test('one end of a copy that throws keeps no other from its end, and no map goes while it is used', async () => {
  const file = join(home, 'map');
  writeFileSync(file, Buffer.alloc(65536, 3));
  const mapFd = openSync(file, 'r+');
  const map = native.mapShared(mapFd, 65536);
  const bytes = new Uint8Array(Float64Array.from([0, 0, 4096, 0, 0, 0, 0, 0, 4096, 4096, 0, 0]).buffer);
  const rows: number[] = [];
  const thrown = new Promise((resolve) => process.once('uncaughtException', resolve));
  native.copyAsync(mapFd, bytes, 2, new Uint8Array(map), (row) => {
    rows.push(row);
    throw new Error(`end ${row}`);
  });
  expect(() => native.unmap(map)).toThrow(expect.objectContaining({ code: 'EBUSY' }));
  expect(await thrown).toMatchObject({ message: 'end 0' });
  expect(rows).toEqual([0, 1]);
  native.unmap(map);
  closeSync(mapFd);
});

test('a descriptor is watched until the watcher is stopped, also from inside its callback', async () => {
  const fifo = join(home, 'fifo');
  execFileSync('mkfifo', [fifo]);
  const reader = openSync(fifo, constants.O_RDONLY | constants.O_NONBLOCK);
  const writer = openSync(fifo, constants.O_WRONLY | constants.O_NONBLOCK);
  const bytes = new Uint8Array(8);
  expect(native.readFd(reader, bytes, 0, 8)).toBe(-1);
  const events: number[] = [];
  const read: number[] = [];
  await new Promise<void>((resolve) => {
    const handle = native.pollStart(reader, (event) => {
      events.push(event);
      read.push(native.readFd(reader, bytes, 2, 4));
      if (read.length === 1) native.writeFd(writer, Buffer.from('more'), 0, 4);
      if (read.length < 2) return;
      native.pollStop(handle);
      native.pollStop(handle);
      native.writeFd(writer, bytes, 0, 1);
      setTimeout(resolve, 5);
    });
    expect(() => native.pollStart(reader, () => {})).toThrow(expect.objectContaining({ code: 'EEXIST' }));
    native.writeFd(writer, Buffer.from('abc'), 0, 3);
  });
  expect(events).toEqual([POLL_READABLE, POLL_READABLE]);
  expect(read).toEqual([3, 4]);
  expect(Buffer.from(bytes).toString()).toBe('\0\0more\0\0');
  closeSync(writer);
  expect(native.readFd(reader, bytes, 0, 8)).toBe(1);
  expect(native.readFd(reader, bytes, 0, 8)).toBe(0);
  closeSync(reader);
});

test('a write to a full pipe says that it must wait', () => {
  const fifo = join(home, 'fifo');
  execFileSync('mkfifo', [fifo]);
  const reader = openSync(fifo, constants.O_RDONLY | constants.O_NONBLOCK);
  const writer = openSync(fifo, constants.O_WRONLY | constants.O_NONBLOCK);
  const bytes = new Uint8Array(65536);
  while (native.writeFd(writer, bytes, 0, bytes.length) > 0);
  expect(native.writeFd(writer, bytes, 0, bytes.length)).toBe(-1);
  closeSync(reader);
  expect(() => native.writeFd(writer, bytes, 0, 1)).toThrow(expect.objectContaining({ code: 'EPIPE' }));
  closeSync(writer);
});

test('microtasks of a callback run before the next callback', async () => {
  const order: string[] = [];
  await new Promise<void>((resolve) => {
    const ring = native.createRing(8, (count) => {
      order.push('callback');
      void Promise.resolve().then(() => order.push('microtask'));
      process.nextTick(() => order.push('tick'));
      if (order.length > 3) {
        ring.close();
        setImmediate(resolve);
      } else {
        expect(count).toBe(1);
        ring.submit(1, [new Uint8Array(512)], 1);
      }
    });
    ring.queue.set([0, 0, fd, 0, 512, 0, 0, 0], 0);
    ring.submit(1, [new Uint8Array(512)], 1);
  });
  expect(order).toEqual(['callback', 'tick', 'microtask', 'callback', 'tick', 'microtask']);
});

test('what a ring writes at once has completed, and waits to be reaped', async () => {
  let calls = 0;
  const ring = native.createRing(8, () => calls++);
  const bytes = new Uint8Array(8).fill(0x5a);
  ring.queue.set([3, 4, fd, 100, 8, 0, 0, 0, 5, 4, 1_000_000, 0, 8, 0, 0, 0], 0);
  expect(ring.submit(2, [bytes], 1)).toBe(0);
  const back = Buffer.alloc(8);
  readSync(fd, back, 0, 8, 100);
  expect(back.equals(bytes)).toBe(true);
  expect(() => ring.close()).toThrow(expect.objectContaining({ code: 'EBUSY' }));
  await new Promise((resolve) => setTimeout(resolve, 10));
  expect(calls).toBe(0);
  expect(ring.reap()).toBe(2);
  expect(Array.from(ring.results.subarray(0, 4))).toEqual([3, 8, 5, -9]);
  expect(ring.reap()).toBe(0);
  ring.close();
});

/** Bytes of one netlink message: CTRL_CMD_GETFAMILY for the name. */
function getFamily(name: string): Uint8Array {
  const attribute = 4 + name.length + 1;
  const message = new Uint8Array(20 + Math.ceil(attribute / 4) * 4);
  writeU32LE(message, 0, message.length);
  writeU16LE(message, 4, 16);
  writeU16LE(message, 6, 1);
  writeU32LE(message, 8, 77);
  message[16] = 3;
  message[17] = 1;
  writeU16LE(message, 20, attribute);
  writeU16LE(message, 22, 2);
  message.set(Buffer.from(name), 24);
  return message;
}

test('the kernel answers on a generic netlink socket', async () => {
  const socket = native.genlSocket(0, 65536);
  const reply = new Uint8Array(8192);
  expect(native.netlinkReceive(socket, reply)).toBe(-1);
  native.netlinkSend(socket, getFamily('nlctrl'));
  const length = await new Promise<number>((resolve) => {
    const handle = native.pollStart(socket, () => {
      native.pollStop(handle);
      resolve(native.netlinkReceive(socket, reply));
    });
  });
  expect(length).toBeGreaterThan(20);
  expect(readU32LE(reply, 0)).toBe(length);
  expect(readU32LE(reply, 8)).toBe(77);
  expect(readU16LE(reply, 4)).toBe(16);
  native.netlinkAddMembership(socket, 16);
  native.netlinkSend(socket, getFamily('nlctrl'));
  expect(() => native.netlinkReceive(socket, new Uint8Array(8))).toThrow(expect.objectContaining({ code: 'EMSGSIZE' }));
  closeSync(socket);
});

test('one read and one write move what is there', () => {
  const bytes = new Uint8Array(16);
  expect(native.readFd(fd, bytes, 4, 8)).toBe(8);
  expect(Array.from(bytes.subarray(0, 5))).toEqual([0, 0, 0, 0, 0x22]);
  bytes.fill(9);
  expect(native.writeFd(fd, bytes, 0, 2)).toBe(2);
  const back = Buffer.alloc(2);
  readSync(fd, back, 0, 2, 8);
  expect(Array.from(back)).toEqual([9, 9]);
});

const WORKER = `
  const { parentPort, workerData } = require('node:worker_threads');
  const native = require(workerData.addon);
  const { fd } = workerData;
  const arena = new Uint8Array(native.alignedBuffer(1 << 20, 4096));
  const map = native.mapShared(fd, 4096);
  const socket = native.genlSocket(0, 65536);
  native.pollStart(socket, () => {});
  const ring = native.createRing(64, () => again());
  function again() {
    ring.reap();
    let count = 0;
    for (let slot = 0; slot < 32; slot++, count++) ring.queue.set([slot, 0, fd, 0, 16384, 0, slot * 16384, 0], slot * 8);
    try { ring.submit(count, [arena], 1); } catch {}
  }
  again();
  native.rangeAsync('punch-hole', fd, 0, 4096, () => {});
  native.copyAsync(fd, new Uint8Array(Float64Array.of(0, 8192, 4096, 0, 0, 0).buffer), 1, arena, () => {});
  if (workerData.how === 'exit') process.exit(0);
  if (workerData.how === 'throw') throw new Error('on purpose');
  parentPort.postMessage('busy');
`;

test.each(['terminate', 'exit', 'throw'])('a worker thread that is busy may end by %s at any time', async (how) => {
  for (let i = 0; i < 8; i++) {
    const worker = new Worker(WORKER, { eval: true, workerData: { addon: ADDON_PATH, fd, how } });
    const ended = new Promise((resolve) => worker.once('exit', resolve));
    const failed: unknown[] = [];
    worker.on('error', (error) => failed.push(error));
    if (how === 'terminate') {
      await new Promise((resolve) => worker.once('message', resolve));
      if (i % 2 === 1) await new Promise((resolve) => setTimeout(resolve, 5));
      await worker.terminate();
    }
    await ended;
    expect(failed.length).toBe(how === 'throw' ? 1 : 0);
  }
  // This thread's copy of the addon has not noticed.
  expect(native.crc32c(0, new Uint8Array(8), 0, 8)).toBe(0);
});
