import { execFileSync } from 'node:child_process';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { PoolMetadata } from '../../src/thin/pool-metadata.ts';
import { RunResult } from '../../src/thin/run-lookup.ts';
import { TestDevice } from '../support/test-device.ts';

const folder = mkdtempSync(join(tmpdir(), 'thinlun-md-'));

function thinCheck(device: TestDevice): string {
  const path = join(folder, 'image');
  writeFileSync(path, device.memory);
  return execFileSync('thin_check', [path], { encoding: 'utf8', stdio: 'pipe' });
}

describe('PoolMetadata', () => {
  it('is accepted by thin_check after a format', () => {
    const device = new TestDevice(8 << 20);
    const pool = PoolMetadata.format(device, { dataBlockSizeBytes: 65536, dataBlockCount: 1024 });
    expect(pool.metadataBlockCount).toBe(2048);
    thinCheck(device);
  });

  it('maps 100,000 blocks', () => {
    const device = new TestDevice(64 << 20);
    const pool = PoolMetadata.format(device, { dataBlockSizeBytes: 65536, dataBlockCount: 200_000, cacheBlocks: 512 });
    pool.createThin(1);
    const thin = pool.openThin(1);
    let x = 1;
    for (let i = 0; i < 100_000; i++) {
      x = (x * 48271) % 2147483647;
      pool.insert(thin, x, pool.allocateDataBlock());
      if (i % 10000 === 0) pool.commitSync();
    }
    pool.commitSync();
    thinCheck(device);
    x = 1;
    const result = new RunResult();
    for (let i = 0; i < 100_000; i++) {
      x = (x * 48271) % 2147483647;
      pool.lookupRun(thin, x, x + 1, result, false);
      expect(result.mapped && result.dataBlock === i).toBe(true);
    }
    let at = 0;
    while (at < 2 ** 31) at = pool.removeRange(thin, at, 2 ** 31, 1000);
    expect(pool.freeDataBlocks).toBe(200_000);
    pool.commitSync();
    thinCheck(device);
  });

  it('commits no count for a block whose data is still on its way, so that a crash leaks none', () => {
    const device = new TestDevice(8 << 20);
    const pool = PoolMetadata.format(device, { dataBlockSizeBytes: 65536, dataBlockCount: 1024 });
    pool.createThin(1);
    const thin = pool.openThin(1);
    const [first, second, third] = [pool.allocateDataBlock(), pool.allocateDataBlock(), pool.allocateDataBlock()];
    expect(pool.freeDataBlocks).toBe(1021);
    pool.insert(thin, 5, first);
    pool.commitSync();
    thinCheck(device); // complains of leaks
    expect(pool.dataBlockReferences(first)).toBe(1);
    expect(pool.dataBlockReferences(second)).toBe(0);
    pool.freeDataBlock(third);
    expect(pool.allocateDataBlock()).not.toBe(second);
    pool.insert(thin, 6, second);
    pool.commitSync();
    expect(pool.dataBlockReferences(second)).toBe(1);
    expect(pool.freeDataBlocks).toBe(1021);
    thinCheck(device);
    pool.abort();
    expect(pool.freeDataBlocks).toBe(1022);
  });
});
