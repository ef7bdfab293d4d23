/** What every `BlockDevice` must do, run for each of them. */
import fc from 'fast-check';
import { afterEach, describe, expect, test } from 'vitest';
import { AssertionError } from '../../src/base/assert.ts';
import type { Errno } from '../../src/base/errors.ts';
import { KIB, MIB, roundUp } from '../../src/base/units.ts';
import { alignedMemory } from '../../src/block/aligned-memory.ts';
import type { BlockDevice, IoCompletion } from '../../src/block/block-device.ts';
import { discardRange, flushDevice, outcome, pattern, readBytes, writeBytes, zeroRange } from '../support/device-io.ts';

export interface OpenedDevice {
  device: BlockDevice;
  /** Opens the same contents once more, after `device` was closed. Null where they are gone then. */
  reopen: ((readOnly: boolean) => BlockDevice) | null;
  /** Removes it. The devices are closed by then. */
  remove(): void;
}

export interface ContractOptions {
  /** `discard` works here, and what it discarded reads as zeroes. */
  discards: boolean;
  /** `resize` works here; false: it says EOPNOTSUPP; null: not for this suite. */
  resizes: boolean | null;
}

function same(left: Uint8Array, right: Uint8Array): boolean {
  return Buffer.compare(left, right) === 0;
}

class Counter implements IoCompletion {
  readonly errors: (Errno | null)[] = [];
  ioDone(error: Errno | null): void {
    this.errors.push(error);
  }
}

export function blockDeviceContract(
  name: string,
  open: (sizeBytes: number) => OpenedDevice,
  options: ContractOptions,
): void {
  describe(`${name} as a BlockDevice`, () => {
    const opened: OpenedDevice[] = [];
    const devices: BlockDevice[] = [];

    function start(sizeBytes: number = 256 * KIB): { device: BlockDevice; opened: OpenedDevice; unit: number } {
      const one = open(sizeBytes);
      opened.push(one);
      devices.push(one.device);
      return { device: one.device, opened: one, unit: one.device.alignmentBytes };
    }

    afterEach(async () => {
      for (const device of devices.splice(0)) await device.close();
      for (const one of opened.splice(0)) one.remove();
    });

    test('has the size that was asked for, and reads as zeroes', async () => {
      const { device } = start();
      expect(device.sizeBytes).toBe(256 * KIB);
      expect(device.readOnly).toBe(false);
      expect(same(await readBytes(device, 0, 256 * KIB), new Uint8Array(256 * KIB))).toBe(true);
    });

    test('reads what was written, and nothing around it has changed', async () => {
      const { device, unit } = start();
      const bytes = pattern(7 * unit, 1);
      await writeBytes(device, 3 * unit, bytes);
      expect(same(await readBytes(device, 3 * unit, 7 * unit), bytes)).toBe(true);
      expect(same(await readBytes(device, 2 * unit, unit), new Uint8Array(unit))).toBe(true);
      expect(same(await readBytes(device, 10 * unit, unit), new Uint8Array(unit))).toBe(true);
    });

    test('uses exactly the named part of the memory', async () => {
      const { device, unit } = start();
      const memory = alignedMemory(5 * unit);
      memory.set(pattern(5 * unit, 2));
      await outcome(device, (completion) => device.write(0, memory, 2 * unit, unit, completion));
      const target = alignedMemory(3 * unit).fill(0xee);
      await outcome(device, (completion) => device.read(0, target, unit, unit, completion));
      expect(same(target.subarray(unit, 2 * unit), pattern(5 * unit, 2).subarray(2 * unit, 3 * unit))).toBe(true);
      expect(same(target.subarray(0, unit), new Uint8Array(unit).fill(0xee))).toBe(true);
      expect(same(target.subarray(2 * unit), new Uint8Array(unit).fill(0xee))).toBe(true);
    });

    test('completes each operation once, and never inside the queueing call', async () => {
      const { device, unit } = start();
      const counter = new Counter();
      const memory = alignedMemory(unit);
      device.read(0, memory, 0, unit, counter);
      device.write(unit, alignedMemory(unit), 0, unit, counter);
      device.flush(counter);
      device.writeZeroes(2 * unit, unit, counter);
      device.discard(3 * unit, unit, counter);
      expect(counter.errors).toEqual([]);
      device.submit();
      await device.close();
      expect(counter.errors.length).toBe(5);
      await new Promise((resolve) => setTimeout(resolve, 5));
      expect(counter.errors.length).toBe(5);
      if (options.discards) expect(counter.errors).toEqual([null, null, null, null, null]);
    });

    test('copies what is cached, with what the memory holds in the place of the source, or says that it does not', async () => {
      const { device, unit } = start();
      const bytes = pattern(8 * unit, 3);
      await writeBytes(device, 0, bytes);
      const memory = alignedMemory(10 * unit).fill(0x5a);
      const counter = new Counter();
      const copies = Array.from({ length: 40 }, (_, i) =>
        device.copyCached(0, (20 + i * 4) * unit, 4 * unit, memory, 2 * unit, unit, unit, counter),
      );
      expect(counter.errors).toEqual([]);
      device.submit();
      const sample = await readBytes(device, 20 * unit, 160 * unit);
      const expected = Buffer.from(bytes.subarray(0, 4 * unit)).fill(0x5a, unit, 2 * unit);
      if (copies[0]) {
        expect(copies).toEqual(new Array(40).fill(true));
        while (counter.errors.length < 40) await new Promise((resolve) => setTimeout(resolve, 1));
        const after = await readBytes(device, 20 * unit, 160 * unit);
        for (let i = 0; i < 40; i++) {
          if (counter.errors[i] === null)
            expect(same(after.subarray(i * 4 * unit, (i + 1) * 4 * unit), expected)).toBe(true);
          else expect(counter.errors[i]).toBe('EAGAIN');
        }
      } else {
        expect(counter.errors).toEqual([]);
        expect(same(sample, new Uint8Array(160 * unit))).toBe(true);
      }
    });

    test('submit with nothing queued does nothing', async () => {
      const { device } = start();
      device.submit();
      device.submit();
      expect(same(await readBytes(device, 0, 4 * KIB), new Uint8Array(4 * KIB))).toBe(true);
    });

    test('refuses what lies outside the device, the memory or the alignment, and nothing changes', async () => {
      const { device, unit } = start();
      const size = device.sizeBytes;
      const memory = alignedMemory(4 * unit);
      const counter = new Counter();
      const wrong: [number, number, number][] = [
        [-unit, 0, unit],
        [size, 0, unit],
        [size - unit, 0, 2 * unit],
        [0, 0, 0],
        [0, 0, -unit],
        [0, -unit, unit],
        [0, 4 * unit, unit],
        [0, unit, 4 * unit],
        [Number.NaN, 0, unit],
        [0, Number.NaN, unit],
        [0, 0, Number.NaN],
        [0.5, 0, unit],
        [2 ** 53, 0, unit],
        [0, 0, Number.POSITIVE_INFINITY],
        [Number.NEGATIVE_INFINITY, 0, unit],
      ];
      if (unit > 1) wrong.push([1, 0, unit], [0, 0, unit + 1]);
      for (const [offset, at, length] of wrong) {
        expect(() => device.read(offset, memory, at, length, counter)).toThrow(AssertionError);
        expect(() => device.write(offset, memory, at, length, counter)).toThrow(AssertionError);
        expect(() => device.readSync(offset, memory, at, length)).toThrow(AssertionError);
        expect(() => device.writeSync(offset, memory, at, length)).toThrow(AssertionError);
      }
      for (const [offset, length] of [
        [size, unit],
        [-unit, unit],
        [0, size + unit],
        [0, 0],
        [0, Number.NaN],
      ] as const) {
        expect(() => device.discard(offset, length, counter)).toThrow(AssertionError);
        expect(() => device.writeZeroes(offset, length, counter)).toThrow(AssertionError);
      }
      device.submit();
      await flushDevice(device);
      expect(counter.errors).toEqual([]);
      expect(device.refreshSize()).toBe(size);
      expect(same(await readBytes(device, 0, size), new Uint8Array(size))).toBe(true);
    });

    test('the last unit can be written, zeroed and read', async () => {
      const { device, unit } = start();
      const at = device.sizeBytes - unit;
      await writeBytes(device, at, pattern(unit, 3));
      expect(same(await readBytes(device, at, unit), pattern(unit, 3))).toBe(true);
      await zeroRange(device, at, unit);
      expect(same(await readBytes(device, at, unit), new Uint8Array(unit))).toBe(true);
      expect(device.refreshSize()).toBe(device.sizeBytes);
    });

    test('zeroes a range, also a large one that begins and ends anywhere, and keeps the rest and the size', async () => {
      const { device, unit } = start(4 * MIB);
      const step = Math.max(unit, 8);
      const all = pattern(4 * MIB, 4);
      await writeBytes(device, 0, all);
      for (const [begin, end] of [
        [step, 2 * step],
        [5 * step, 3 * MIB + 5 * step],
        [4 * MIB - step, 4 * MIB],
      ] as const) {
        await zeroRange(device, begin, end - begin);
        all.fill(0, begin, end);
      }
      expect(same(await readBytes(device, 0, 4 * MIB), all)).toBe(true);
      expect(device.refreshSize()).toBe(4 * MIB);
    });

    if (options.discards) {
      test('discards whole granules, which then read as zeroes', async () => {
        const { device } = start();
        const granule = device.discardGranularityBytes;
        expect(granule).toBeGreaterThan(0);
        const all = pattern(256 * KIB, 5);
        await writeBytes(device, 0, all);
        await discardRange(device, 2 * granule, 5 * granule);
        all.fill(0, 2 * granule, 7 * granule);
        expect(same(await readBytes(device, 0, 256 * KIB), all)).toBe(true);
        expect(device.refreshSize()).toBe(256 * KIB);
      });
    } else {
      test('says that it cannot discard', async () => {
        const { device, unit } = start();
        expect(device.discardGranularityBytes).toBe(0);
        expect(await outcome(device, (completion) => device.discard(0, unit, completion))).toBe('EOPNOTSUPP');
      });
    }

    test('synchronous and queued I/O see the same contents', async () => {
      const { device, unit } = start();
      const memory = alignedMemory(2 * unit);
      memory.set(pattern(2 * unit, 6));
      device.writeSync(unit, memory, 0, 2 * unit);
      device.flushSync();
      expect(same(await readBytes(device, unit, 2 * unit), pattern(2 * unit, 6))).toBe(true);
      await writeBytes(device, 5 * unit, pattern(unit, 7));
      device.readSync(5 * unit, memory, unit, unit);
      expect(same(memory.subarray(unit), pattern(unit, 7))).toBe(true);
    });

    test('takes far more operations at once than any queue below it has room for', async () => {
      const { device } = start(16 * MIB);
      const count = 4096;
      const memory = alignedMemory(count * 4 * KIB);
      memory.set(pattern(16 * MIB, 8));
      const counter = new Counter();
      for (let i = 0; i < count; i++) device.write(i * 4 * KIB, memory, i * 4 * KIB, 4 * KIB, counter);
      device.submit();
      while (counter.errors.length < count) await new Promise((resolve) => setImmediate(resolve));
      expect(counter.errors.every((error) => error === null)).toBe(true);
      expect(same(await readBytes(device, 0, 16 * MIB), memory)).toBe(true);
    });

    test('completions may queue and submit more, for ever, while the event loop goes on', async () => {
      const { device, unit } = start();
      let rounds = 0;
      let turns = 0;
      const memory = alignedMemory(unit);
      await new Promise<void>((resolve) => {
        const turn = setInterval(() => turns++, 0);
        const again: IoCompletion = {
          ioDone: (error) => {
            expect(error).toBe(null);
            rounds++;
            if (rounds > 100 && turns > 2) {
              clearInterval(turn);
              return resolve();
            }
            device.read((rounds % 100) * unit, memory, 0, unit, again);
            device.submit();
          },
        };
        device.read(0, memory, 0, unit, again);
        device.submit();
      });
    });

    test('whoever awaits one operation after the other leaves the event loop its turns', async () => {
      const { device, unit } = start();
      const memory = alignedMemory(unit);
      let isOver = false;
      setTimeout(() => {
        isOver = true;
      }, 1);
      let operations = 0;
      while (!isOver && operations < 200_000) {
        await outcome(device, (completion) => device.read(0, memory, 0, unit, completion));
        operations++;
      }
      expect(isOver).toBe(true);
    });

    test('close waits for what was queued, and is the end', async () => {
      const { device, unit } = start();
      const counter = new Counter();
      const memory = alignedMemory(unit);
      for (let i = 0; i < 100; i++) device.write(i * unit, memory, 0, unit, counter);
      const closed = device.close();
      expect(() => device.read(0, memory, 0, unit, counter)).toThrow(AssertionError);
      await closed;
      expect(counter.errors.length).toBe(100);
      expect(() => device.flush(counter)).toThrow(AssertionError);
      await device.close();
    });

    test('close may be called by a completion', async () => {
      const { device, unit } = start();
      await new Promise<void>((resolve) => {
        device.read(0, alignedMemory(unit), 0, unit, { ioDone: () => void device.close().then(resolve) });
        device.submit();
      });
      expect(() => device.flush(new Counter())).toThrow(AssertionError);
    });

    if (options.resizes) {
      test('grows with zeroes and shrinks, and I/O past the new end is refused', async () => {
        const { device, unit } = start();
        await writeBytes(device, 0, pattern(256 * KIB, 9));
        device.resize(512 * KIB);
        expect(device.sizeBytes).toBe(512 * KIB);
        expect(device.refreshSize()).toBe(512 * KIB);
        expect(same(await readBytes(device, 256 * KIB, 256 * KIB), new Uint8Array(256 * KIB))).toBe(true);
        device.resize(64 * KIB);
        expect(() => device.read(64 * KIB, alignedMemory(unit), 0, unit, new Counter())).toThrow(AssertionError);
        device.resize(128 * KIB);
        expect(same(await readBytes(device, 64 * KIB, 64 * KIB), new Uint8Array(64 * KIB))).toBe(true);
        expect(same(await readBytes(device, 0, 64 * KIB), pattern(256 * KIB, 9).subarray(0, 64 * KIB))).toBe(true);
      });
    } else if (options.resizes === false) {
      test('says that it cannot be resized', () => {
        const { device } = start();
        expect(() => device.resize(512 * KIB)).toThrow(expect.objectContaining({ code: 'EOPNOTSUPP' }));
        expect(device.sizeBytes).toBe(256 * KIB);
      });
    }

    test('opened read-only it gives what is there and refuses every change', async () => {
      const { device, opened: one, unit } = start();
      if (one.reopen === null) return;
      await writeBytes(device, 0, pattern(unit, 10));
      await device.close();
      const again = one.reopen(true);
      devices.push(again);
      expect(again.readOnly).toBe(true);
      expect(same(await readBytes(again, 0, unit), pattern(unit, 10))).toBe(true);
      const memory = alignedMemory(unit);
      const counter = new Counter();
      expect(() => again.write(0, memory, 0, unit, counter)).toThrow(AssertionError);
      expect(() => again.writeSync(0, memory, 0, unit)).toThrow(AssertionError);
      expect(() => again.discard(0, unit, counter)).toThrow(AssertionError);
      expect(() => again.writeZeroes(0, unit, counter)).toThrow(AssertionError);
      expect(() => again.resize(unit)).toThrow(AssertionError);
      expect(counter.errors).toEqual([]);
      await flushDevice(again);
    });

    test('what was written and flushed is there when it is opened again', async () => {
      const { device, opened: one } = start();
      if (one.reopen === null) return;
      await writeBytes(device, 4 * KIB, pattern(8 * KIB, 11));
      await flushDevice(device);
      await device.close();
      const again = one.reopen(false);
      devices.push(again);
      expect(same(await readBytes(again, 4 * KIB, 8 * KIB), pattern(8 * KIB, 11))).toBe(true);
    });

    test('behaves as an array of bytes, whatever comes in whatever batches', async () => {
      const size = 128 * KIB;
      const { device, unit } = start(size);
      const units = size / Math.max(unit, 64);
      const step = size / units;
      const range = fc.tuple(fc.nat(units - 1), fc.integer({ min: 1, max: units }));
      const kind = fc.constantFrom('read', 'write', 'write', 'zero', 'discard', 'flush');
      const batch = fc.array(fc.tuple(kind, range, fc.nat(250)), { minLength: 1, maxLength: 12 });
      const model = new Uint8Array(size);
      await fc.assert(
        fc.asyncProperty(fc.array(batch, { maxLength: 6 }), async (batches) => {
          for (const operations of batches) {
            // What is in flight together does not overlap: the order of what does is not the device's business.
            const taken = new Uint8Array(units);
            const checks: (() => void)[] = [];
            const counter = new Counter();
            let queued = 0;
            for (const [what, [first, wanted], seed] of operations) {
              const begin = first * step;
              const end = Math.min(first + wanted, units) * step;
              const length = end - begin;
              if (taken.subarray(first, end / step).some((used) => used === 1)) continue;
              taken.fill(1, first, end / step);
              queued++;
              const memory = alignedMemory(length + unit);
              if (what === 'flush') device.flush(counter);
              else if (what === 'zero') {
                device.writeZeroes(begin, length, counter);
                model.fill(0, begin, end);
              } else if (what === 'write') {
                memory.set(pattern(length, seed), unit);
                model.set(pattern(length, seed), begin);
                device.write(begin, memory, unit, length, counter);
              } else if (what === 'discard' && options.discards) {
                const granule = device.discardGranularityBytes;
                const from = roundUp(begin, granule);
                const to = end - (end % granule);
                if (to <= from) {
                  queued--;
                  continue;
                }
                device.discard(from, to - from, counter);
                model.fill(0, from, to);
              } else {
                const expected = model.slice(begin, end);
                device.read(begin, memory, unit, length, counter);
                checks.push(() => expect(same(memory.subarray(unit), expected)).toBe(true));
              }
            }
            device.submit();
            while (counter.errors.length < queued) await new Promise((resolve) => setImmediate(resolve));
            expect(counter.errors.every((error) => error === null)).toBe(true);
            for (const check of checks) check();
          }
          expect(same(await readBytes(device, 0, size), model)).toBe(true);
        }),
        { numRuns: 60 },
      );
    });
  });
}
