import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { StorageError } from '../../src/base/errors.ts';
import { BlockPacker } from '../../src/tools/block-packer.ts';
import { BlockUnpacker } from '../../src/tools/block-unpacker.ts';
import {
  holdsMetadata,
  type PackSource,
  packedBlockCount,
  packMetadata,
  unpackMetadata,
} from '../../src/tools/pack.ts';
import { expectClean, goldenImage } from '../support/metadata-judges.ts';
import { TestDevice } from '../support/test-device.ts';

const A11 = 'a11-five-snaps-broke-one-overflow-tree';
/** What thin_metadata_pack 1.1.0 made of that image. */
const SAMPLE = join(import.meta.dirname, 'samples', 'a11-five-snaps-by-1.1.0.pack');

function sourceOf(bytes: Uint8Array): PackSource {
  return { sizeBytes: bytes.length, read: (offset, length) => bytes.subarray(offset, offset + length) };
}

async function packed(device: TestDevice): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  await packMetadata(device, (bytes) => parts.push(bytes.slice()));
  return Buffer.concat(parts);
}

async function unpacked(bytes: Uint8Array): Promise<TestDevice> {
  const source = sourceOf(bytes);
  const device = new TestDevice(packedBlockCount(source) * 4096);
  await unpackMetadata(source, device);
  return device;
}

describe('a pack file', () => {
  it.each([A11, 'a00-fresh-created-and-resized', 'a12-filled-900', 'c00-restored-by-0.9.0-then-grown-by-kernel'])(
    'gives back the image %s, block for block',
    async (name) => {
      const image = goldenImage(name);
      const bytes = await packed(image);
      expect(bytes.length).toBeLessThan(image.memory.length / 100);
      const back = await unpacked(bytes);
      // A kernel leaves nothing on the device that is no block of metadata.
      expect(Buffer.compare(back.memory, image.memory)).toBe(0);
      expectClean(back);
    },
  );

  it('that thin_metadata_pack wrote is understood', async () => {
    const back = await unpacked(readFileSync(SAMPLE));
    expect(Buffer.compare(back.memory, goldenImage(A11).memory)).toBe(0);
  });

  it('is not larger than what thin_metadata_pack makes', async () => {
    expect((await packed(goldenImage(A11))).length).toBeLessThanOrEqual(readFileSync(SAMPLE).length);
  });

  it('leaves out what is no metadata, and takes damaged metadata as it is', async () => {
    const image = goldenImage(A11);
    const expected = image.memory.slice();
    image.memory.fill(0x5a, 1000 * 4096, 1010 * 4096);
    expect(await packed(image)).toEqual(await packed(goldenImage(A11)));
    image.memory[100]! ^= 1;
    const back = await unpacked(await packed(image));
    expect(holdsMetadata(back)).toBe(false);
    expect(Buffer.compare(back.memory.subarray(4096), expected.subarray(4096))).toBe(0);
  });

  it('has more than one chunk when there are many blocks', async () => {
    const image = new TestDevice(3000 * 4096);
    const leaf = goldenImage(A11).memory.subarray(2 * 4096, 3 * 4096);
    for (let i = 0; i < 3000; i++) image.memory.set(leaf, i * 4096);
    const back = await unpacked(await packed(image));
    expect(Buffer.compare(back.memory, image.memory)).toBe(0);
  });

  it('of an empty device is a header alone', async () => {
    const bytes = await packed(new TestDevice(8192 + 100));
    expect(bytes.length).toBe(32);
    expect((await unpacked(bytes)).memory.every((byte) => byte === 0)).toBe(true);
    await expect(packed(new TestDevice(100))).rejects.toMatchObject({ code: 'EINVAL' });
  });

  it('writes the superblock last, after a flush', async () => {
    const bytes = await packed(goldenImage(A11));
    const device = new TestDevice(2048 * 4096);
    const events: string[] = [];
    device.hook = ({ kind, offset }) => {
      events.push(kind === 'write' ? `write ${offset / 4096}` : kind);
      return null;
    };
    await unpackMetadata(sourceOf(bytes), device);
    expect(events.slice(-3)).toEqual(['flush', 'write 0', 'flush']);
    expect(events.filter((event) => event === 'write 0').length).toBe(1);
  });
});

describe('a damaged pack file', () => {
  const sample = readFileSync(SAMPLE);

  it.each([
    ['with another magic', 0, 'it is not a pack file'],
    ['of another version', 8, 'it is a pack file of version 2, expected 3'],
    ['with other blocks', 17, 'its blocks have 4352 bytes, expected 4096'],
    ['of a device that cannot be', 30, 'it is of a device of'],
  ])('%s is refused before anything is written', (_, at, message) => {
    const bytes = Uint8Array.from(sample);
    bytes[at]! ^= 1;
    expect(() => packedBlockCount(sourceOf(bytes))).toThrow(message);
    expect(() => packedBlockCount(sourceOf(bytes))).toThrow(StorageError);
  });

  it.each([0, 31, 36, 100, 150, 3000])('that ends after %i bytes is found out', async (length) => {
    await expect(unpacked(sample.subarray(0, length))).rejects.toMatchObject({ code: 'EILSEQ' });
  });

  it('never makes an image that is not the one that was packed', async () => {
    const good = goldenImage(A11).memory;
    for (let at = 32; at < sample.length; at += 41) {
      const bytes = Uint8Array.from(sample);
      bytes[at]! ^= 0x10;
      try {
        expect(Buffer.compare((await unpacked(bytes)).memory, good), `byte ${at}`).toBe(0);
      } catch (error) {
        expect(error, `byte ${at}`).toMatchObject({ code: 'EILSEQ' });
      }
    }
  });

  it('whose instructions are nonsense is found out, whatever they are', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 9, maxLength: 600 }), (bytes) => {
        const unpacker = new BlockUnpacker(bytes);
        try {
          while (unpacker.next(new Uint8Array(4096)) !== null);
        } catch (error) {
          expect(error).toMatchObject({ code: 'EILSEQ' });
        }
      }),
      { numRuns: 300 },
    );
  });
});

describe('the instructions of a block', () => {
  const value = fc.oneof(
    fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
    fc.bigInt({ min: 0n, max: 300n }),
    fc.constantFrom(0n, 1n, 2n ** 24n, 2n ** 53n - 1n, 2n ** 53n, 2n ** 64n - 1n),
  );

  it('give back any b-tree node', () => {
    fc.assert(
      fc.property(
        fc.constantFrom(1, 2, 3),
        fc.constantFrom(4, 8, 16, 24, 0, 7),
        fc.oneof(fc.constantFrom(0, 126, 168, 252, 336), fc.integer({ min: 0, max: 0xffffffff })),
        fc.array(fc.tuple(value, fc.integer({ min: 1, max: 200 }), fc.bigInt({ min: -20n, max: 300n })), {
          maxLength: 20,
        }),
        (flags, valueSize, max, runs) => {
          const block = Buffer.alloc(4096, 0);
          block.writeUInt32LE(flags, 4);
          block.writeUInt32LE(max, 20);
          block.writeUInt32LE(valueSize, 24);
          let at = 32;
          for (const [first, count, step] of runs) {
            for (let i = 0; i < count && at + 8 <= 4096; i++, at += 8) {
              block.writeBigUInt64LE(BigInt.asUintN(64, first + BigInt(i) * step), at);
            }
          }
          const packer = new BlockPacker(2);
          packer.add(77, block, true);
          packer.add(78, block, false);
          const unpacker = new BlockUnpacker(packer.bytes.subarray(0, packer.length));
          const back = Buffer.alloc(4096, 1);
          expect(unpacker.next(back)).toBe(77);
          expect(back.equals(block)).toBe(true);
          back.fill(2);
          expect(unpacker.next(back)).toBe(78);
          expect(back.equals(block)).toBe(true);
          expect(unpacker.next(back)).toBeNull();
        },
      ),
      { numRuns: 300 },
    );
  });
});
