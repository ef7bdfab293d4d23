import fc from 'fast-check';
import { expect, test } from 'vitest';
import { assert } from '../../src/base/assert.ts';
import type { Errno } from '../../src/base/errors.ts';
import { GIB, KIB } from '../../src/base/units.ts';
import { LunOp, LunRequest, type LunRequestOwner } from '../../src/block/lun-backend.ts';
import { MemoryLun } from '../../src/block/memory-lun.ts';
import { COPY_LUN_SIZE, lunCopyContract } from '../contracts/lun-copy.ts';
import { RamLun } from '../scsi/support/ram-lun.ts';

for (const [from, to] of [
  [64, 64],
  [64, 4],
] as const) {
  lunCopyContract(`a RAM disk of ${to} KiB chunks beside one of ${from}`, async () => ({
    luns: [
      new MemoryLun(COPY_LUN_SIZE, { unmapGranularityBytes: from * KIB }),
      new MemoryLun(COPY_LUN_SIZE, { unmapGranularityBytes: to * KIB }),
    ],
    stranger: new RamLun(COPY_LUN_SIZE),
    close: async () => {},
  }));
}

test('a copy takes RAM only where its source has some, and gives back what the source has not', async () => {
  const [from, to] = [new MemoryLun(256 * KIB), new MemoryLun(256 * KIB)];
  await write(from, 64 * KIB, new Uint8Array(512).fill(1));
  await write(to, 0, new Uint8Array(192 * KIB).fill(2));
  const waiter = new Waiter();
  waiter.request.source = from;
  expect(await waiter.run(to, LunOp.COPY, 0, 256 * KIB)).toBe(null);
  expect(to.allocatedBytes).toBe(64 * KIB);
  expect(await extent(to, 0, 256 * KIB)).toEqual([64 * KIB, false]);
});

class Waiter implements LunRequestOwner {
  readonly request: LunRequest = new LunRequest(this);
  #settle: ((error: Errno | null) => void) | null = null;

  run(lun: MemoryLun, op: LunOp, offset = 0, length = 0): Promise<Errno | null> {
    Object.assign(this.request, { op, offset, length });
    return new Promise((resolve) => {
      this.#settle = resolve;
      lun.submit(this.request);
    });
  }

  requestDone(request: LunRequest, error: Errno | null): void {
    assert(request === this.request, 'another request came back');
    this.#settle!(error);
  }
}

async function write(lun: MemoryLun, offset: number, bytes: Uint8Array): Promise<Errno | null> {
  const waiter = new Waiter();
  waiter.request.data.set(bytes, 0, bytes.length);
  return waiter.run(lun, LunOp.WRITE, offset, bytes.length);
}

async function read(lun: MemoryLun, offset: number, length: number): Promise<Uint8Array> {
  const waiter = new Waiter();
  const bytes = new Uint8Array(length).fill(0xee);
  waiter.request.data.set(bytes, 0, length);
  expect(await waiter.run(lun, LunOp.READ, offset, length)).toBe(null);
  return bytes;
}

async function extent(lun: MemoryLun, offset: number, length: number): Promise<[number, boolean]> {
  const waiter = new Waiter();
  expect(await waiter.run(lun, LunOp.EXTENT, offset, length)).toBe(null);
  return [waiter.request.extentLength, waiter.request.extentMapped];
}

test('a request past the end is ENXIO, a change of a read-only LUN is EROFS', async () => {
  const lun = new MemoryLun(64 * KIB, { readOnly: true });
  expect(await new Waiter().run(lun, LunOp.READ, 64 * KIB, 512)).toBe('ENXIO');
  expect(await write(lun, 0, new Uint8Array(512))).toBe('EROFS');
  expect(await new Waiter().run(lun, LunOp.UNMAP, 0, 512)).toBe('EROFS');
  expect(await new Waiter().run(lun, LunOp.WRITE_ZEROES, 0, 512)).toBe('EROFS');
  expect(await new Waiter().run(lun, LunOp.FLUSH)).toBe(null);
});

test('a large LUN takes RAM only where it was written', async () => {
  const lun = new MemoryLun(1024 * GIB);
  await write(lun, 1023 * GIB, new Uint8Array(512).fill(1));
  expect(lun.allocatedBytes).toBe(64 * KIB);
  expect(await extent(lun, 0, 1024 * GIB)).toEqual([1023 * GIB, false]);
  expect(await extent(lun, 1023 * GIB, GIB)).toEqual([64 * KIB, true]);
});

test('WRITE_ZEROES maps, UNMAP of whole blocks unmaps', async () => {
  const lun = new MemoryLun(256 * KIB);
  await new Waiter().run(lun, LunOp.WRITE_ZEROES, 0, 128 * KIB);
  expect(await extent(lun, 0, 256 * KIB)).toEqual([128 * KIB, true]);
  await new Waiter().run(lun, LunOp.UNMAP, 512, 128 * KIB);
  expect(await extent(lun, 512, 256 * KIB - 512)).toEqual([64 * KIB - 512, true]);
  expect(await extent(lun, 64 * KIB, 64 * KIB)).toEqual([64 * KIB, false]);
});

test('the contents are those of a plain array, whatever is written, zeroed and unmapped', async () => {
  const size = 40 * KIB;
  const range = fc.tuple(fc.nat(size - 1), fc.integer({ min: 1, max: 20 * KIB }));
  const op = fc.constantFrom(LunOp.WRITE, LunOp.UNMAP, LunOp.WRITE_ZEROES, LunOp.READ);
  await fc.assert(
    fc.asyncProperty(fc.array(fc.tuple(op, range, fc.nat(255)), { maxLength: 30 }), async (steps) => {
      const lun = new MemoryLun(size, { unmapGranularityBytes: 4 * KIB });
      const model = new Uint8Array(size);
      for (const [kind, [offset, wanted], fill] of steps) {
        const length = Math.min(wanted, size - offset);
        if (kind === LunOp.WRITE) {
          expect(await write(lun, offset, new Uint8Array(length).fill(fill))).toBe(null);
          model.fill(fill, offset, offset + length);
        } else if (kind === LunOp.READ) {
          expect(Buffer.compare(await read(lun, offset, length), model.subarray(offset, offset + length))).toBe(0);
        } else {
          expect(await new Waiter().run(lun, kind, offset, length)).toBe(null);
          model.fill(0, offset, offset + length);
        }
      }
      expect(Buffer.compare(await read(lun, 0, size), model)).toBe(0);
    }),
  );
});

test('requests of one turn end in the order of submission, those of their owners in a later turn', async () => {
  const lun = new MemoryLun(64 * KIB);
  const ended: string[] = [];
  await new Promise<void>((resolve) => {
    const second = new LunRequest({
      requestDone: () => {
        ended.push('second');
        resolve();
      },
    });
    second.op = LunOp.FLUSH;
    const owner: LunRequestOwner = {
      requestDone: (request) => {
        ended.push(request === first ? 'first' : 'other');
        if (request === first) {
          lun.submit(second);
          ended.push('submitted');
        }
      },
    };
    const first = new LunRequest(owner);
    const other = new LunRequest(owner);
    first.op = LunOp.FLUSH;
    other.op = LunOp.FLUSH;
    lun.submit(first);
    lun.submit(other);
    ended.push('queued');
  });
  expect(ended).toEqual(['queued', 'first', 'submitted', 'other', 'second']);
});
