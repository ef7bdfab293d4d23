import { describe, expect, it } from 'vitest';
import { stampBlock } from '../../src/persistent-data/block.ts';
import { PoolMetadata } from '../../src/thin/pool-metadata.ts';
import { superblockValidator } from '../../src/thin/superblock.ts';
import { expectClean, expectThinCheck } from '../support/metadata-judges.ts';
import { TestDevice } from '../support/test-device.ts';

const KIB = 1024;
const MIB = 1024 * KIB;

function formatted(sizeBytes: number = 4 * MIB): TestDevice {
  const device = new TestDevice(sizeBytes);
  PoolMetadata.format(device, { dataBlockSizeBytes: 64 * KIB, dataBlockCount: 1000 }).close();
  return device;
}

/** Changes a word of the superblock and makes the checksum right again. */
function patched(index: number, value: number, device: TestDevice = formatted()): TestDevice {
  const bytes = device.memory.subarray(0, 4096);
  const words = new Uint32Array(device.memory.buffer, 0, 1024);
  words[index] = value;
  const blocknr = [words[2]!, words[3]!] as const;
  stampBlock(words, bytes, 0, superblockValidator);
  if (index !== 2) return device;
  // The one field that stamping sets.
  words[2] = blocknr[0];
  words[0] = 0;
  return device;
}

function code(expected: string, message: string): unknown {
  return expect.objectContaining({ code: expected, message: expect.stringContaining(message) });
}

describe('formatting', () => {
  it.each([
    [64 * KIB, 1000, 1 * MIB],
    [64 * KIB, 1, 256 * KIB],
    [1024 * MIB, 2 ** 20, 4 * MIB],
    [192 * KIB, 16320, 2 * MIB],
    [128 * KIB, 16321, 2 * MIB],
    [64 * KIB, 2_000_000, 68 * MIB],
  ])('blocks of %i bytes, %i of them, on %i bytes: clean for us and for thin_check', (size, count, metadataSize) => {
    const device = new TestDevice(metadataSize);
    const pool = PoolMetadata.format(device, { dataBlockSizeBytes: size, dataBlockCount: count });
    expect([pool.dataBlockSizeBytes, pool.dataBlockCount, pool.freeDataBlocks]).toEqual([size, count, count]);
    expect(pool.metadataBlockCount).toBe(metadataSize / 4096);
    expect([pool.changed, pool.needsCheck, pool.readOnly, pool.transactionId, pool.time]).toEqual([
      false,
      false,
      false,
      0,
      0,
    ]);
    expectClean(device);
    expectThinCheck(device);
    const again = PoolMetadata.open(device, { expectedDataBlockSizeBytes: size });
    expect([again.dataBlockCount, again.freeDataBlocks, again.freeMetadataBlocks]).toEqual([
      count,
      count,
      pool.freeMetadataBlocks,
    ]);
  });

  it('gives the figures that the kernel gives for a fresh pool of 8 MiB', () => {
    const device = new TestDevice(8 * MIB);
    const pool = PoolMetadata.format(device, { dataBlockSizeBytes: 64 * KIB, dataBlockCount: 1024 });
    // 213/2048: nine in use and a reserve of 204.
    expect(2048 - pool.freeMetadataBlocks).toBe(213);
    expect(pool.metadataLowThresholdBlocks).toBe(512);
  });

  it.each([0, 32 * KIB, 65 * KIB, 64 * KIB + 512, 1024 * MIB + 64 * KIB])('refuses data blocks of %i bytes', (size) => {
    const device = new TestDevice(1 * MIB);
    expect(() => PoolMetadata.format(device, { dataBlockSizeBytes: size, dataBlockCount: 10 })).toThrow(
      code('EINVAL', `data block size is ${size} bytes, expected a multiple of 64 KiB up to 1 GiB`),
    );
  });

  it.each([0, -1, 1.5, 2 ** 40 + 1, Number.NaN])('refuses %d data blocks', (count) => {
    const device = new TestDevice(1 * MIB);
    expect(() => PoolMetadata.format(device, { dataBlockSizeBytes: 64 * KIB, dataBlockCount: count })).toThrow(
      code('EINVAL', 'data blocks, expected 1 to 1099511627776'),
    );
  });

  it('refuses a device that is too small, and leaves it as it was', () => {
    const device = new TestDevice(16 * KIB);
    expect(() => PoolMetadata.format(device, { dataBlockSizeBytes: 64 * KIB, dataBlockCount: 10 })).toThrow(
      code('ENOSPC', 'it has 4 blocks of 4 KiB and needs at least'),
    );
    const other = formatted(1 * MIB);
    const before = other.memory.slice();
    expect(() => PoolMetadata.format(other, { dataBlockSizeBytes: 64 * KIB, dataBlockCount: 10_000_000 })).toThrow(
      code('ENOSPC', 'needs at least'),
    );
    expect(Buffer.compare(before, other.memory)).toBe(0);
  });

  it('overwrites what was there, which is no pool any more even if it is interrupted', () => {
    const device = formatted();
    let writes = 0;
    device.hook = (event) => (event.kind === 'write' && ++writes === 4 ? 'EIO' : null);
    expect(() => PoolMetadata.format(device, { dataBlockSizeBytes: 64 * KIB, dataBlockCount: 10 })).toThrow();
    device.hook = null;
    expect(() => PoolMetadata.open(device)).toThrow(code('ENODATA', 'it is not formatted'));
    PoolMetadata.format(device, { dataBlockSizeBytes: 64 * KIB, dataBlockCount: 10 });
    expectClean(device);
  });
});

describe('opening', () => {
  it('refuses a device that was never formatted', () => {
    const device = new TestDevice(new Uint8Array(1 * MIB));
    expect(() => PoolMetadata.open(device)).toThrow(
      code('ENODATA', 'Cannot open pool metadata "test-device": it is not formatted (its superblock is all zero)'),
    );
    expect(() => PoolMetadata.open(new TestDevice(new Uint8Array(100)))).toThrow(
      code('EINVAL', 'too few for a superblock'),
    );
  });

  it.each<[string, number, number, string, string]>([
    ['magic', 8, 1234, 'EILSEQ', 'magic is 1234, expected 27022010'],
    ['the magic of dm-cache', 8, 6142003, 'EILSEQ', 'it holds the metadata of a dm-cache'],
    ['the magic of dm-era', 8, 2126579579, 'EILSEQ', 'it holds the metadata of dm-era'],
    ['block number', 2, 7, 'ENOTBLK', 'the superblock says that it is block 7, expected 0'],
    ['version', 10, 3, 'EINVAL', 'version is 3, expected at most 2'],
    ['version', 10, 0, 'EINVAL', 'version is 0'],
    ['data block size', 84, 100, 'EINVAL', 'data block size is 51200 bytes'],
    ['metadata block size', 85, 16, 'EINVAL', 'metadata block size is 16 sectors, expected 8'],
    ['incompat flags', 90, 4, 'EINVAL', 'it uses features that are not supported (incompat flags 4)'],
    ['compat_ro flags', 89, 1, 'EINVAL', 'only supported for reading (compat ro flags 1)'],
    ['time', 11, 2 ** 24, 'EINVAL', 'its time is 16777216, expected below 16777216'],
    ['transaction id', 13, 2 ** 21, 'EINVAL', 'the transaction id is not below 2^53'],
    ['size of the metadata', 48, 1025, 'EINVAL', 'it counts 1025 metadata blocks, the device has 1024'],
    ['size of the metadata', 48, 0, 'EINVAL', 'it counts 0 metadata blocks'],
    ['data blocks', 17, 2 ** 9, 'EINVAL', 'expected at most 1099511627776'],
    ['data blocks in use', 18, 1001, 'EINVAL', '1001 of 1000 data blocks are in use'],
  ])('refuses another %s (word %i set to %i)', (_, word, value, errno, message) => {
    expect(() => PoolMetadata.open(patched(word, value))).toThrow(code(errno, message));
  });

  it('refuses a superblock with one bit turned over, wherever it is', () => {
    for (const at of [0, 5, 20, 33, 60, 200, 336, 500, 4095]) {
      const device = formatted();
      device.memory[at]! ^= 4;
      expect(() => PoolMetadata.open(device)).toThrow(/checksum is|magic is|says that it is block/);
    }
  });

  it('accepts what makes no difference: version 1, a stale number of metadata blocks, a uuid, compat flags', () => {
    const device = patched(10, 1, patched(86, 5, patched(4, 77, patched(88, 9))));
    const pool = PoolMetadata.open(device);
    pool.createThin(1);
    pool.commitSync();
    const words = new Uint32Array(device.memory.buffer, 0, 1024);
    expect([words[10], words[86], words[4], words[88]]).toEqual([1, 5, 77, 9]);
    expect(PoolMetadata.open(device).thinIds()).toEqual([1]);
  });

  it('opens with unknown compat_ro features for reading only', () => {
    const pool = PoolMetadata.open(patched(89, 1), { readOnly: true });
    expect(pool.readOnly).toBe(true);
    expect(() => pool.createThin(1)).toThrow(code('EPERM', 'the metadata is open read-only'));
  });

  it('refuses another block size than expected', () => {
    expect(() => PoolMetadata.open(formatted(), { expectedDataBlockSizeBytes: 128 * KIB })).toThrow(
      code('EINVAL', 'data block size is 65536, expected 131072'),
    );
  });

  it('refuses damaged space maps and says which block it is', () => {
    for (const block of [8, 9, 10, 11]) {
      const device = formatted();
      device.memory[block * 4096 + 50]! ^= 1;
      const open = (): unknown => PoolMetadata.open(device).allocateDataBlock();
      expect(open).toThrow(code('EILSEQ', `at block ${block} of "test-device": checksum is`));
    }
  });

  it('writes nothing as long as nothing is changed', () => {
    const device = formatted();
    const writes: string[] = [];
    device.hook = (event) => {
      if (event.kind !== 'read') writes.push(event.kind);
      return null;
    };
    const pool = PoolMetadata.open(device);
    pool.thinIds();
    pool.commitSync();
    pool.close();
    expect(writes).toEqual([]);
  });

  it('does not write to a device that is read-only', () => {
    const device = formatted();
    device.readOnly = true;
    const pool = PoolMetadata.open(device);
    expect(pool.readOnly).toBe(true);
    const refused = code('EPERM', 'the metadata is open read-only');
    expect(() => pool.createThin(1)).toThrow(refused);
    expect(() => pool.allocateDataBlock()).toThrow(refused);
    expect(() => pool.resizeData(2000)).toThrow(refused);
    expect(() => pool.setTransactionId(0, 1)).toThrow(refused);
    expect(() => pool.setNeedsCheck()).toThrow(code('EPERM', 'read-only'));
  });

  it('cannot be used after it was closed', () => {
    const pool = PoolMetadata.open(formatted());
    pool.close();
    expect(() => pool.thinIds()).toThrow(code('EIO', 'it was closed'));
    expect(() => pool.createThin(1)).toThrow(code('EIO', 'it was closed'));
  });
});

describe('the needs-check flag', () => {
  it('is on the device at once, and forbids changes until it is cleared', () => {
    const device = formatted();
    const pool = PoolMetadata.open(device);
    const kinds: string[] = [];
    device.hook = ({ kind, offset }) => {
      kinds.push(`${kind} ${offset}`);
      return null;
    };
    pool.setNeedsCheck();
    expect(kinds).toEqual(['write 0', 'flush 0']);
    device.hook = null;
    for (const one of [pool, PoolMetadata.open(device)]) {
      expect([one.needsCheck, one.readOnly]).toEqual([true, true]);
      expect(() => one.createThin(1)).toThrow(code('EPERM', 'the metadata needs a check'));
    }
    expectClean(device);
    const again = PoolMetadata.open(device);
    again.clearNeedsCheck();
    again.createThin(1);
    again.commitSync();
    expect(PoolMetadata.open(device).needsCheck).toBe(false);
  });

  it('leaves the pool unusable when it cannot be written', () => {
    const device = formatted();
    const pool = PoolMetadata.open(device);
    device.hook = (event) => (event.kind === 'write' ? 'EIO' : null);
    expect(() => pool.setNeedsCheck()).toThrow(code('EIO', 'Cannot write metadata block 0'));
    expect(() => pool.thinIds()).toThrow(code('EIO', 'abort failed'));
  });
});
