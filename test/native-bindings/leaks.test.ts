/** What is opened is closed, and what is allocated is freed: counted in /proc, with the garbage collector called by hand. */
import {
  closeSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PerformanceObserver } from 'node:perf_hooks';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { Worker } from 'node:worker_threads';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { KIB, MIB } from '../../src/base/units.ts';
import { openBlockDevice } from '../../src/block/file-device.ts';
import { readBytes } from '../support/device-io.ts';
import { ADDON_PATH, requireAddon } from '../support/native-addon.ts';

const native = requireAddon();

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

/** Finalizers run after a collection, some from the event loop. */
async function settle(): Promise<void> {
  for (let i = 0; i < 4; i++) {
    collect();
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

function openDescriptors(): string[] {
  return readdirSync('/proc/self/fd').map((name) => {
    try {
      return readlinkSync(`/proc/self/fd/${name}`);
    } catch {
      return 'the listing itself';
    }
  });
}

const descriptorCount = (): number => openDescriptors().length;

/**
 * What is mapped: `named` counts the maps of files and rings, which nobody but the code under test makes here;
 * `writableBytes` is the memory without a name, where V8 maps pages of its own, 16 of them at a time when its young
 * generation grows.
 */
function addressSpace(): { named: number; writableBytes: number } {
  let named = 0;
  let writableBytes = 0;
  for (const line of readFileSync('/proc/self/maps', 'utf8').trim().split('\n')) {
    const [range = '', access = '', , , inode] = line.split(/\s+/);
    const [from = 0, to = 0] = range.split('-').map((address) => Number.parseInt(address, 16));
    if (inode !== '0') named++;
    else if (access.startsWith('rw')) writableBytes += to - from;
  }
  return { named, writableBytes };
}

const residentBytes = (): number => process.memoryUsage.rss();

let home: string;
let fd: number;
beforeAll(() => {
  home = mkdtempSync(join(tmpdir(), 'thinlun-leaks-'));
  const path = join(home, 'file');
  writeFileSync(path, Buffer.alloc(MIB, 3));
  fd = openSync(path, 'r+');
});
afterAll(() => {
  closeSync(fd);
  rmSync(home, { recursive: true });
});

/** Runs it once to warm up, then `rounds` times, and expects no growth. */
async function expectNoGrowth(rounds: number, body: () => void | Promise<void>): Promise<void> {
  for (let i = 0; i < 20; i++) await body();
  await settle();
  const before = { descriptors: descriptorCount(), space: addressSpace(), resident: residentBytes() };
  for (let i = 0; i < rounds; i++) {
    await body();
    if (i % 50 === 49) await settle();
  }
  await settle();
  expect(descriptorCount()).toBeLessThanOrEqual(before.descriptors);
  const space = addressSpace();
  expect(space.named).toBeLessThanOrEqual(before.space.named);
  expect(space.writableBytes - before.space.writableBytes).toBeLessThan(64 * MIB);
  expect(residentBytes() - before.resident).toBeLessThan(24 * MIB);
}

test('aligned memory is freed with its ArrayBuffer', async () => {
  await expectNoGrowth(400, () => {
    new Uint8Array(native.alignedBuffer(MIB, 65536)).fill(1);
  });
});

test('maps that are dropped go away, and so do maps that are unmapped', async () => {
  await expectNoGrowth(400, () => {
    native.mapShared(fd, MIB);
    native.unmap(native.mapShared(fd, MIB));
  });
});

test('rings and watchers leave nothing when they are closed', async () => {
  await expectNoGrowth(100, async () => {
    const ring = native.createRing(128, () => {});
    ring.queue.set([1, 0, fd, 0, 4096, 0, 0, 0], 0);
    ring.submit(1, [new Uint8Array(4096)], 1);
    while (ring.reap() === 0) await new Promise((resolve) => setImmediate(resolve));
    ring.close();
    const socket = native.genlSocket(0, 65536);
    native.pollStop(native.pollStart(socket, () => {}));
    closeSync(socket);
    await new Promise((resolve) => setImmediate(resolve));
  });
});

test('refusals and failures cost nothing that stays', async () => {
  const failing: (() => unknown)[] = [
    () => native.createRing(3, () => {}),
    () => native.mapShared(1_000_000, 4096),
    () => native.mapShared(fd, 2 ** 50),
    () => native.pollStart(fd, () => {}),
    () => native.pollStart(1_000_000, () => {}),
  ];
  await expectNoGrowth(400, () => {
    for (let i = 0; i < 20; i++) {
      let failures = 0;
      for (const call of failing) {
        try {
          call();
        } catch {
          failures++;
        }
      }
      if (failures !== failing.length) throw new Error('something did not fail');
    }
  });
});

test('range calls on the thread pool leave nothing', async () => {
  await expectNoGrowth(200, async () => {
    await new Promise((resolve) => native.rangeAsync('punch-hole', fd, 0, 4096, resolve));
    await new Promise((resolve) => native.rangeAsync('blkdiscard', fd, 0, 4096, resolve));
    const rows = new Uint8Array(Float64Array.of(0, 4096, 4096, 0, 0, 0).buffer);
    await new Promise((resolve) => native.copyAsync(fd, rows, 1, new Uint8Array(4096), resolve));
  });
});

test('devices leave nothing when they are closed', async () => {
  await expectNoGrowth(100, async () => {
    for (const direct of [false, true]) {
      const device = openBlockDevice(join(home, 'file'), { direct });
      await readBytes(device, 0, 4 * KIB);
      await device.close();
    }
    expect(() => openBlockDevice(join(home, 'missing'))).toThrow();
    expect(() => openBlockDevice(home)).toThrow();
  });
});

test('a worker thread that is terminated while it is busy leaves nothing', async () => {
  const code = `
    const { parentPort, workerData: { addon, fd } } = require('node:worker_threads');
    const native = require(addon);
    const arena = new Uint8Array(native.alignedBuffer(1 << 20, 4096)).fill(1);
    native.mapShared(fd, 4096);
    native.pollStart(native.genlSocket(0, 65536), () => {});
    const ring = native.createRing(64, () => submit());
    const submit = () => {
      for (let slot = 0; slot < 32; slot++) ring.queue.set([slot, 0, fd, 0, 4096, 0, slot * 4096, 0], slot * 8);
      ring.submit(32, [arena], 1);
    };
    submit();
    parentPort.postMessage('busy');
  `;
  // The netlink socket is the worker's own to close: io that Node does not know of outlives the thread.
  const sockets = (): number => openDescriptors().filter((name) => name.startsWith('socket:')).length;
  const rings = (): number => openDescriptors().filter((name) => name.includes('io_uring')).length;
  const before = { sockets: sockets(), rings: rings(), named: addressSpace().named };
  for (let i = 0; i < 10; i++) {
    const worker = new Worker(code, { eval: true, workerData: { addon: ADDON_PATH, fd } });
    await new Promise((resolve) => worker.once('message', resolve));
    await worker.terminate();
  }
  await settle();
  expect(rings()).toBe(before.rings);
  expect(sockets()).toBe(before.sockets + 10);
  expect(addressSpace().named).toBe(before.named);
});

test('reading in a steady state allocates next to nothing', async () => {
  const device = openBlockDevice(join(home, 'file'));
  const depth = 32;
  const memory = new Uint8Array(depth * 4096);
  let left = 0;
  let running = 0;
  let finish: () => void = () => {};
  class Job {
    readonly #at: number;
    constructor(at: number) {
      this.#at = at;
    }
    start(): void {
      device.read((left % 256) * 4096, memory, this.#at, 4096, this);
    }
    ioDone(): void {
      left--;
      if (left >= 0) {
        this.start();
        device.submit();
      } else if (--running === 0) {
        finish();
      }
    }
  }
  const jobs = Array.from({ length: depth }, (_, i) => new Job(i * 4096));
  const run = (count: number): Promise<void> => {
    left = count;
    running = depth;
    return new Promise((resolve) => {
      finish = resolve;
      for (const job of jobs) job.start();
      device.submit();
    });
  };
  let collections = 0;
  const observer = new PerformanceObserver((list) => {
    collections += list.getEntries().length;
  });
  observer.observe({ entryTypes: ['gc'] });
  await run(100_000);
  await settle();
  collections = 0;
  const before = process.memoryUsage().heapUsed;
  await run(200_000);
  const grown = process.memoryUsage().heapUsed - before;
  await new Promise((resolve) => setTimeout(resolve, 5));
  observer.disconnect();
  await device.close();
  // One object for each operation would be 24 bytes at least, and several collections.
  expect(grown / 200_000).toBeLessThan(16);
  expect(collections).toBeLessThanOrEqual(2);
});
