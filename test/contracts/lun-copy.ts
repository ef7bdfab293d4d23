/** What COPY of every `LunBackend` that offers it must do, run for each of them. */
import fc from 'fast-check';
import { describe, expect, onTestFinished, test } from 'vitest';
import { KIB } from '../../src/base/units.ts';
import type { LunBackend } from '../../src/block/lun-backend.ts';
import { expectBytes, LunClient, pattern } from '../support/lun-client.ts';

export const COPY_LUN_SIZE = 256 * KIB;

export interface CopyLuns {
  /** Of `COPY_LUN_SIZE`, which copy from each other and from themselves. */
  luns: readonly [LunBackend, LunBackend];
  /** One that they do not copy from. */
  stranger: LunBackend;
  close(): Promise<void>;
}

export interface LunCopyOptions {
  /** What was unmapped has no contents that can be told. */
  unmappedIsUndefined?: boolean;
  /** Sequences of steps to try. */
  runs?: number;
}

interface Step {
  op: 'write' | 'unmap' | 'zero' | 'copy';
  from: number;
  to: number;
  sourceOffset: number;
  offset: number;
  length: number;
  aligned: boolean;
}

const SECTOR = 512;
const sectors = COPY_LUN_SIZE / SECTOR;

const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.record({
    op: fc.constantFrom<Step['op'][]>('write', 'copy', 'copy', 'copy', 'unmap', 'zero'),
    from: fc.nat(1),
    to: fc.nat(1),
    sourceOffset: fc.nat(sectors - 1),
    offset: fc.nat(sectors - 1),
    length: fc.integer({ min: 1, max: sectors }),
    aligned: fc.boolean(),
  }),
  { minLength: 1, maxLength: 20 },
);

/** The bytes of a step, inside the disk; every second one in multiples of `granularity`. */
function bytesOf(step: Step, granularity: number): { sourceOffset: number; offset: number; length: number } {
  const unit = step.aligned ? Math.max(granularity, SECTOR) : SECTOR;
  const whole = (count: number): number => Math.floor((count * SECTOR) / unit) * unit;
  const sourceOffset = whole(step.sourceOffset);
  const offset = whole(step.offset);
  const room = COPY_LUN_SIZE - (step.op === 'copy' ? Math.max(sourceOffset, offset) : offset);
  return { sourceOffset, offset, length: Math.min(Math.max(whole(step.length), unit), room) };
}

export function lunCopyContract(name: string, open: () => Promise<CopyLuns>, options: LunCopyOptions = {}): void {
  describe(`${name} as a LunBackend that copies`, () => {
    async function start(): Promise<CopyLuns> {
      const opened = await open();
      onTestFinished(() => opened.close());
      return opened;
    }

    test('offers it from its like and from itself, and from nothing else', async () => {
      const { luns, stranger } = await start();
      for (const lun of luns) {
        expect(luns.map((source) => lun.copiesFrom(source))).toEqual([true, true]);
        expect(lun.copiesFrom(stranger)).toBe(false);
        await expect(new LunClient(lun).copy(stranger, 0, 0, SECTOR)).rejects.toThrow('EINVAL');
      }
    });

    test('copies what is there, and zeroes over what was there where the source has nothing', async () => {
      const { luns } = await start();
      const [from, to] = luns.map((lun) => new LunClient(lun)) as [LunClient, LunClient];
      const bytes = pattern(64 * KIB, 1);
      await from.write(64 * KIB, bytes);
      await to.write(0, pattern(COPY_LUN_SIZE, 2));
      const { copied } = await to.copy(luns[0], 0, 0, COPY_LUN_SIZE);
      expect(copied).toBe(COPY_LUN_SIZE);
      const expected = new Uint8Array(COPY_LUN_SIZE);
      expected.set(bytes, 64 * KIB);
      expectBytes(await to.read(0, COPY_LUN_SIZE), expected);
      expectBytes(await from.read(0, COPY_LUN_SIZE), expected);
    });

    test('refuses ranges past either end, and ranges that overlap, and copies nothing', async () => {
      const { luns } = await start();
      const [from, to] = luns.map((lun) => new LunClient(lun)) as [LunClient, LunClient];
      await from.write(0, pattern(COPY_LUN_SIZE, 1));
      const before = pattern(COPY_LUN_SIZE, 2);
      await to.write(0, before);
      await expect(to.copy(luns[0], COPY_LUN_SIZE - SECTOR, 0, 2 * SECTOR)).rejects.toThrow('ENXIO');
      await expect(to.copy(luns[0], 0, COPY_LUN_SIZE - SECTOR, 2 * SECTOR)).rejects.toThrow('ENXIO');
      await expect(to.copy(luns[1], 0, SECTOR, 2 * SECTOR)).rejects.toThrow('EINVAL');
      await expect(to.copy(luns[1], SECTOR, 0, 2 * SECTOR)).rejects.toThrow('EINVAL');
      await expect(to.copy(luns[1], 0, 0, COPY_LUN_SIZE)).rejects.toThrow('EINVAL');
      expectBytes(await to.read(0, COPY_LUN_SIZE), before);
    });

    test('writes to a copy and to its source stay apart', async () => {
      const { luns } = await start();
      const [from, to] = luns.map((lun) => new LunClient(lun)) as [LunClient, LunClient];
      const bytes = pattern(COPY_LUN_SIZE, 1);
      await from.write(0, bytes);
      await to.copy(luns[0], 0, 0, COPY_LUN_SIZE);
      await from.write(SECTOR, new Uint8Array(SECTOR).fill(1));
      await to.write(3 * SECTOR, new Uint8Array(SECTOR).fill(2));
      expectBytes(await from.read(0, COPY_LUN_SIZE), bytes.slice().fill(1, SECTOR, 2 * SECTOR));
      expectBytes(await to.read(0, COPY_LUN_SIZE), bytes.slice().fill(2, 3 * SECTOR, 4 * SECTOR));
    });

    test('copies that cross each other all end', async () => {
      const { luns } = await start();
      const clients = luns.map((lun) => new LunClient(lun));
      await clients[0]!.write(0, pattern(COPY_LUN_SIZE, 1));
      await clients[1]!.write(0, pattern(COPY_LUN_SIZE, 2));
      const half = COPY_LUN_SIZE / 2;
      const copies: Promise<unknown>[] = [];
      for (let i = 0; i < 20; i++) {
        const to = i % 2;
        copies.push(clients[to]!.copy(luns[1 - to]!, 0, half, half), clients[to]!.copy(luns[to]!, half, 0, half));
        copies.push(clients[to]!.copy(luns[1 - to]!, SECTOR, 0, half + SECTOR));
      }
      await Promise.all(copies);
    });

    test('two of them read as two plain arrays, whatever is written, zeroed, unmapped and copied', async () => {
      await fc.assert(
        fc.asyncProperty(steps, async (sequence) => {
          const { luns, close } = await open();
          const clients = luns.map((lun) => new LunClient(lun));
          const models = luns.map(() => new Uint8Array(COPY_LUN_SIZE));
          try {
            for (const [i, step] of sequence.entries()) {
              const { sourceOffset, offset, length } = bytesOf(step, luns[0].unmapGranularityBytes);
              const client = clients[step.to]!;
              const model = models[step.to]!;
              if (step.op === 'write') {
                const bytes = pattern(length, i);
                await client.write(offset, bytes);
                model.set(bytes, offset);
              } else if (step.op === 'copy') {
                const overlap = step.from === step.to && Math.abs(sourceOffset - offset) < length;
                const copy = client.copy(luns[step.from]!, sourceOffset, offset, length);
                if (overlap) {
                  await expect(copy).rejects.toThrow('EINVAL');
                } else {
                  expect((await copy).copied).toBe(length);
                  model.set(models[step.from]!.subarray(sourceOffset, sourceOffset + length), offset);
                }
              } else {
                if (step.op === 'zero' || options.unmappedIsUndefined) await client.writeZeroes(offset, length);
                else await client.unmap(offset, length);
                model.fill(0, offset, offset + length);
              }
            }
            for (const [i, client] of clients.entries()) expectBytes(await client.read(0, COPY_LUN_SIZE), models[i]!);
          } finally {
            await close();
          }
        }),
        { numRuns: options.runs ?? 100 },
      );
    });
  });
}
