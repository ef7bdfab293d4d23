import { expect, test } from 'vitest';
import { KIB } from '../../src/base/units.ts';
import { MemoryDevice } from '../../src/block/memory-device.ts';
import { flushDevice, outcome, pattern, readBytes, writeBytes } from './device-io.ts';
import { FaultyDevice } from './faulty-device.ts';

const SIZE = 64 * KIB;
const page = new Uint8Array(4 * KIB);

function writeAt(device: FaultyDevice, offset: number): Promise<unknown> {
  return outcome(device, (completion) => device.write(offset, page, 0, page.length, completion));
}

test('without faults it is the device behind it', async () => {
  const device = new FaultyDevice(new MemoryDevice(SIZE));
  await writeBytes(device, 512, pattern(KIB, 1));
  expect(await readBytes(device, 512, KIB)).toEqual(pattern(KIB, 1));
  expect(device.counts).toEqual({ read: 1, write: 1, flush: 0, discard: 0, writeZeroes: 0 });
  expect(device.failures).toBe(0);
});

test('exactly the n-th operation of its kind fails, later than the queueing call, and does nothing', async () => {
  const device = new FaultyDevice(new MemoryDevice(SIZE));
  device.failNth('write', 2, 'ENOSPC');
  await writeBytes(device, 0, pattern(512, 1));
  await flushDevice(device);
  const ended: unknown[] = [];
  device.write(0, page, 0, 512, { ioDone: (error) => ended.push(error) });
  device.submit();
  expect(ended).toEqual([]);
  await new Promise((resolve) => setImmediate(resolve));
  expect(ended).toEqual(['ENOSPC']);
  expect(await readBytes(device, 0, 512)).toEqual(pattern(512, 1));
  expect(await writeAt(device, 0)).toBe(null);
});

test('synchronous operations count and fail too', () => {
  const device = new FaultyDevice(new MemoryDevice(SIZE));
  device.failNth('flush', 1);
  device.failNth('read', 2, 'EIO', { times: 2 });
  expect(() => device.flushSync()).toThrow(expect.objectContaining({ code: 'EIO' }));
  device.flushSync();
  device.readSync(0, page, 0, 512);
  expect(() => device.readSync(0, page, 0, 512)).toThrow();
  expect(() => device.readSync(0, page, 0, 512)).toThrow();
  device.readSync(0, page, 0, 512);
  expect(device.failures).toBe(3);
});

test('a write may fail half-way', async () => {
  const device = new FaultyDevice(new MemoryDevice(SIZE));
  device.failNth('any', 1, 'EIO', { partialBytes: 512 });
  const memory = pattern(1024, 3);
  expect(await outcome(device, (completion) => device.write(0, memory, 0, 1024, completion))).toBe('EIO');
  expect(await readBytes(device, 0, 512)).toEqual(memory.slice(0, 512));
  expect(await readBytes(device, 512, 512)).toEqual(new Uint8Array(512));
});

test('after a power cut nothing works until it is healed, and what came before is there', async () => {
  const device = new FaultyDevice(new MemoryDevice(SIZE));
  device.cutPowerAtChange(3);
  await writeBytes(device, 0, pattern(512, 1));
  expect(await readBytes(device, 0, 512)).toEqual(pattern(512, 1));
  await flushDevice(device);
  expect(await writeAt(device, 512)).toBe('EIO');
  expect(await outcome(device, (completion) => device.read(0, new Uint8Array(512), 0, 512, completion))).toBe('EIO');
  expect(() => device.readSync(0, page, 0, 512)).toThrow();
  device.heal();
  expect(await readBytes(device, 0, 512)).toEqual(pattern(512, 1));
  expect(await readBytes(device, 512, 512)).toEqual(new Uint8Array(512));
});

test('a lying device acknowledges changes and forgets them', async () => {
  const device = new FaultyDevice(new MemoryDevice(SIZE));
  await writeBytes(device, 0, pattern(512, 1));
  device.dropChanges();
  await writeBytes(device, 0, pattern(512, 2));
  device.writeSync(0, page, 0, 512);
  await flushDevice(device);
  expect(await readBytes(device, 0, 512)).toEqual(pattern(512, 1));
});

test('close waits for the failures that are still to be told', async () => {
  const device = new FaultyDevice(new MemoryDevice(SIZE));
  device.failNth('write', 1);
  const ended: unknown[] = [];
  device.write(0, page, 0, 512, { ioDone: (error) => ended.push(error) });
  await device.close();
  expect(ended).toEqual(['EIO']);
});
