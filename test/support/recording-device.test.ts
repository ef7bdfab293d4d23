import fc from 'fast-check';
import { expect, test } from 'vitest';
import { KIB } from '../../src/base/units.ts';
import { MemoryDevice } from '../../src/block/memory-device.ts';
import { flushDevice, outcome, pattern, readBytes, writeBytes, zeroRange } from './device-io.ts';
import { everythingSurvives, nothingSurvives, RecordingDevice } from './recording-device.ts';

const SIZE = 16 * KIB;
const fresh = (): RecordingDevice => new RecordingDevice(new MemoryDevice(SIZE));

test('what was there before is in every image', async () => {
  const inner = new MemoryDevice(SIZE);
  inner.writeSync(0, pattern(SIZE, 1), 0, SIZE);
  const device = new RecordingDevice(inner);
  expect(device.imageAt(0, nothingSurvives)).toEqual(pattern(SIZE, 1));
});

test('a flushed write survives any crash after the flush, and none before it was asked for', async () => {
  const device = fresh();
  await writeBytes(device, 512, pattern(512, 1));
  await flushDevice(device);
  expect(device.eventCount).toBe(4);
  const written = new Uint8Array(SIZE);
  written.set(pattern(512, 1), 512);
  expect(device.imageAt(4, nothingSurvives)).toEqual(written);
  expect(device.imageAt(3, nothingSurvives)).toEqual(new Uint8Array(SIZE));
  expect(device.imageAt(1, everythingSurvives)).toEqual(written);
  expect(device.imageAt(0, everythingSurvives)).toEqual(new Uint8Array(SIZE));
  expect(device.changesInDoubt(3).length).toBe(1);
  expect(device.changesInDoubt(4).length).toBe(0);
});

test('a flush does not cover a write that ends after it began', async () => {
  const device = fresh();
  const memory = pattern(512, 2);
  await new Promise<void>((resolve) => {
    let left = 2;
    const completion = { ioDone: () => (--left === 0 ? resolve() : undefined) };
    device.flush(completion);
    device.write(0, memory, 0, 512, completion);
    device.submit();
  });
  expect(device.changesInDoubt(device.eventCount).length).toBe(1);
  device.flushSync();
  expect(device.changesInDoubt(device.eventCount).length).toBe(0);
});

test('a change in doubt may be torn between sectors', async () => {
  const device = fresh();
  await writeBytes(device, 0, pattern(1024, 3));
  const image = device.imageAt(device.eventCount, (_change, sector) => sector === 1);
  expect(image.subarray(0, 512)).toEqual(new Uint8Array(512));
  expect(image.subarray(512, 1024)).toEqual(pattern(1024, 3).subarray(512));
});

test('a failed flush makes nothing durable', async () => {
  const inner = new MemoryDevice(SIZE);
  const device = new RecordingDevice(inner);
  await writeBytes(device, 0, pattern(512, 4));
  inner.flush = (completion) => void setImmediate(() => completion.ioDone('EIO'));
  expect(await outcome(device, (completion) => device.flush(completion))).toBe('EIO');
  expect(device.imageAt(device.eventCount, nothingSurvives)).toEqual(new Uint8Array(SIZE));
});

test('an image has the size that the device had', () => {
  const device = fresh();
  device.writeSync(0, pattern(512, 5), 0, 512);
  device.resize(2 * SIZE);
  device.writeSync(SIZE, pattern(512, 6), 0, 512);
  device.flushSync();
  expect(device.imageAt(1, nothingSurvives).length).toBe(SIZE);
  const last = device.imageAt(device.eventCount, nothingSurvives);
  expect(last.length).toBe(2 * SIZE);
  expect(last.subarray(SIZE, SIZE + 512)).toEqual(pattern(512, 6));
});

test('if everything survives, the last image is the device; if nothing does, each sector is from a flushed past', async () => {
  const step = fc.record({
    kind: fc.constantFrom('write', 'write', 'zero', 'flush'),
    first: fc.nat(31),
    count: fc.integer({ min: 1, max: 4 }),
    seed: fc.nat(1000),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 25 }), async (steps) => {
      const device = fresh();
      const flushed: Uint8Array[] = [new Uint8Array(SIZE)];
      for (const { kind, first, count, seed } of steps) {
        const offset = first * 512;
        const length = Math.min(count * 512, SIZE - offset);
        if (kind === 'write') await writeBytes(device, offset, pattern(length, seed));
        else if (kind === 'zero') await zeroRange(device, offset, length);
        else {
          await flushDevice(device);
          flushed.push((await readBytes(device, 0, SIZE)).slice());
        }
      }
      const now = await readBytes(device, 0, SIZE);
      expect(Buffer.compare(device.imageAt(device.eventCount, everythingSurvives), now)).toBe(0);
      expect(Buffer.compare(device.imageAt(device.eventCount, nothingSurvives), flushed.at(-1)!)).toBe(0);
      // Going back in time gives the same as going forward.
      const forward = Array.from({ length: device.eventCount + 1 }, (_, at) => device.imageAt(at, nothingSurvives));
      for (let at = device.eventCount; at >= 0; at--) {
        expect(Buffer.compare(device.imageAt(at, nothingSurvives), forward[at]!)).toBe(0);
      }
    }),
    { numRuns: 50 },
  );
});
