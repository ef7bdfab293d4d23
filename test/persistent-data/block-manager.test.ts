import { beforeEach, describe, expect, it } from 'vitest';
import { bitmapValidator } from '../../src/persistent-data/bitmap.ts';
import { stampBlock } from '../../src/persistent-data/block.ts';
import { BlockManager } from '../../src/persistent-data/block-manager.ts';
import { indexValidator } from '../../src/persistent-data/index-entry.ts';
import { completed } from '../support/device-io.ts';
import { type DeviceEvent, TestDevice } from '../support/test-device.ts';

const BLOCKS = 1000;
const SLOTS = 128;

let device: TestDevice;
let blocks: BlockManager;
let events: DeviceEvent[];

/** Every block of the device holds its own number. */
beforeEach(() => {
  device = new TestDevice(BLOCKS * 4096);
  const words = new Uint32Array(device.memory.buffer);
  for (let i = 0; i < BLOCKS; i++) {
    words[i * 1024 + 10] = i;
    stampBlock(
      words.subarray(i * 1024, (i + 1) * 1024),
      device.memory.subarray(i * 4096, (i + 1) * 4096),
      i,
      bitmapValidator,
    );
  }
  events = [];
  device.hook = (event) => {
    events.push(event);
    return null;
  };
  blocks = new BlockManager(device, BLOCKS, new Uint8Array(SLOTS * 4096));
});

function content(number: number): number {
  const value = blocks.read(number, bitmapValidator).words[10]!;
  blocks.release(0);
  return value;
}

/** What the device holds now. */
function stored(number: number): number {
  return new Uint32Array(device.memory.buffer)[number * 1024 + 10]!;
}

function change(number: number, value: number): void {
  blocks.create(number, bitmapValidator).words[10] = value;
  blocks.release(0);
}

describe('BlockManager reading', () => {
  it('reads a block once and finds it again', () => {
    expect([content(7), content(7), content(8)]).toEqual([7, 7, 8]);
    expect(events).toHaveLength(2);
    expect(blocks.stats).toMatchObject({ hits: 1, misses: 2, blockingReads: 2, locks: 3 });
  });

  it('never holds more blocks than it has slots, and keeps the ones in use', () => {
    for (let i = 0; i < BLOCKS; i++) {
      content(i);
      content(3);
    }
    expect(events).toHaveLength(BLOCKS);
    expect(blocks.capacityBlocks).toBe(SLOTS);
  });

  it('leaves a pinned block where it is', () => {
    const block = blocks.read(5, bitmapValidator);
    const mark = blocks.mark();
    for (let i = 10; i < BLOCKS; i++) {
      blocks.read(i, bitmapValidator);
      blocks.release(mark);
    }
    expect(block.number).toBe(5);
    expect(block.words[10]).toBe(5);
  });

  it('refuses a block past the end, of another type, or damaged, and can go on', () => {
    expect(() => blocks.read(BLOCKS, bitmapValidator)).toThrow(expect.objectContaining({ code: 'EINVAL' }));
    expect(() => blocks.read(4, indexValidator)).toThrow(expect.objectContaining({ code: 'EILSEQ' }));
    expect(content(4)).toBe(4);
    expect(() => blocks.read(4, indexValidator)).toThrow('it is in use as space map bitmap');
    device.memory[9 * 4096 + 100]! ^= 1;
    expect(() => blocks.read(9, bitmapValidator)).toThrow(expect.objectContaining({ code: 'EILSEQ' }));
    device.hook = () => 'EIO';
    expect(() => blocks.read(11, bitmapValidator)).toThrow('Cannot read space map bitmap at block 11');
    device.hook = null;
    expect(content(11)).toBe(11);
  });
});

describe('BlockManager writing', () => {
  it('writes what is dirty in the order of the device, stamped, then flushes', async () => {
    for (const number of [30, 10, 20]) change(number, number + 1);
    expect(blocks.dirtyBlocks).toBe(3);
    expect(await completed((completion) => blocks.writeDirty(completion))).toBe(null);
    expect(events.map((event) => `${event.kind} ${event.offset / 4096}`)).toEqual([
      'write 10',
      'write 20',
      'write 30',
      'flush 0',
    ]);
    expect(blocks.dirtyBlocks).toBe(0);
    blocks.reset();
    expect([10, 20, 30].map(content)).toEqual([11, 21, 31]);
  });

  it('flushes even when nothing is dirty, and completes later', async () => {
    let done = false;
    const end = completed((completion) =>
      blocks.writeDirty({
        ioDone: (error) => {
          done = true;
          completion.ioDone(error);
        },
      }),
    );
    expect(done).toBe(false);
    expect(await end).toBe(null);
    expect(events.map((event) => event.kind)).toEqual(['flush']);
  });

  it('reports one failed write once, and flushes nothing', async () => {
    for (const number of [10, 20, 30]) change(number, 1);
    device.hook = (event) => {
      events.push(event);
      return event.offset === 20 * 4096 ? 'EIO' : null;
    };
    expect(await completed((completion) => blocks.writeDirty(completion))).toBe('EIO');
    expect(events.filter((event) => event.kind === 'flush')).toEqual([]);
    expect(blocks.dirtyBlocks).toBe(1);
  });

  it('writes dirty blocks to make room, and reads them back as they were', () => {
    for (let i = 0; i < BLOCKS; i++) change(i, i + 7);
    expect(blocks.stats.evictionWrites).toBeGreaterThan(BLOCKS - SLOTS);
    expect(blocks.dirtyBlocks).toBeLessThanOrEqual((SLOTS * 3) / 4);
    for (let i = 0; i < BLOCKS; i++) expect(content(i)).toBe(i + 7);
  });

  it('still reads blocks while a commit writes as many as can be dirty', async () => {
    for (let i = 0; i < 96; i++) change(i, 1);
    const end = completed((completion) => blocks.writeDirty(completion));
    for (let i = 500; i < 700; i++) expect(content(i)).toBe(i);
    expect(content(3)).toBe(1);
    expect(await end).toBe(null);
    expect(stored(95)).toBe(1);
  });

  it('forgets changes to a block that is not needed any more', () => {
    change(40, 1);
    change(41, 1);
    blocks.forget(40);
    blocks.writeDirtySync();
    expect([stored(40), stored(41)]).toEqual([40, 1]);
    expect(content(40)).toBe(40);
  });

  it('forgets everything on reset', () => {
    change(40, 1);
    blocks.reset();
    expect(blocks.dirtyBlocks).toBe(0);
    expect(content(40)).toBe(40);
  });
});

describe('BlockManager reading ahead', () => {
  const miss = (...numbers: number[]): void => {
    for (const number of numbers) expect(blocks.tryRead(number, bitmapValidator)).toBe(null);
  };

  it('reads what lookups have missed, without blocking', async () => {
    miss(5, 6, 5);
    expect(await completed((completion) => expect(blocks.prefetch(completion)).toBe(true))).toBe(null);
    expect(blocks.tryRead(5, bitmapValidator)!.words[10]).toBe(5);
    expect(blocks.tryRead(6, bitmapValidator)!.words[10]).toBe(6);
    expect(blocks.stats).toMatchObject({ prefetchedReads: 2, blockingReads: 0, misses: 3, hits: 2 });
    expect(blocks.prefetch({ ioDone: () => expect.unreachable() })).toBe(false);
  });

  it('completes without an error for a damaged block, which the next read reports', async () => {
    device.memory[5 * 4096 + 100]! ^= 1;
    miss(5, 6);
    expect(await completed((completion) => blocks.prefetch(completion))).toBe(null);
    expect(blocks.tryRead(6, bitmapValidator)).not.toBe(null);
    expect(() => blocks.read(5, bitmapValidator)).toThrow(expect.objectContaining({ code: 'EILSEQ' }));
  });

  it('is overtaken by a read and by a new block of the same number', async () => {
    miss(5, 6);
    const end = completed((completion) => blocks.prefetch(completion));
    expect(content(5)).toBe(5);
    change(6, 99);
    await end;
    expect([content(5), content(6)]).toEqual([5, 99]);
    blocks.writeDirtySync();
    expect(stored(6)).toBe(99);
  });

  it('is without effect after a reset, but completes', async () => {
    miss(5);
    const end = completed((completion) => blocks.prefetch(completion));
    blocks.reset();
    await end;
    expect(blocks.tryRead(5, bitmapValidator)).toBe(null);
    expect(blocks.stats.prefetchedReads).toBe(0);
  });

  it('serves a second caller after the first batch', async () => {
    miss(5);
    const first = completed((completion) => blocks.prefetch(completion));
    miss(5, 6);
    const second = completed((completion) => blocks.prefetch(completion));
    await first;
    await second;
    expect(blocks.tryRead(6, bitmapValidator)!.words[10]).toBe(6);
    expect(events).toHaveLength(2);
  });

  it('keeps serving when more is missed than it remembers', async () => {
    miss(...Array.from({ length: 300 }, (_, i) => i));
    await completed((completion) => blocks.prefetch(completion));
    const there = Array.from({ length: 300 }, (_, i) => i).filter((i) => blocks.tryRead(i, bitmapValidator) !== null);
    expect(there.length).toBe(SLOTS / 8);
    await completed((completion) => expect(blocks.prefetch(completion)).toBe(true));
    expect(blocks.stats.prefetchedReads).toBe(SLOTS / 4);
  });

  it('leaves slots for blocking reads, even while a commit writes', async () => {
    for (let i = 0; i < 96; i++) change(i, 1);
    const commit = completed((completion) => blocks.writeDirty(completion));
    miss(...Array.from({ length: 128 }, (_, i) => 200 + i));
    const prefetch = completed((completion) => blocks.prefetch(completion));
    for (let i = 500; i < 600; i++) expect(content(i)).toBe(i);
    expect([await commit, await prefetch]).toEqual([null, null]);
  });
});
