import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { KIB, MIB } from '../../src/base/units.ts';
import { Pool } from '../../src/thin/pool.ts';
import { createPool } from '../../src/thin/pool-create.ts';
import type { SendOptions } from '../../src/thin/pool-transfers.ts';
import { parseToken } from '../../src/thin/stream-format.ts';
import { expectBytes, LunClient, pattern } from '../support/lun-client.ts';
import { SeededRandom } from '../support/seeded-random.ts';
import { requireTool } from '../support/tools.ts';

const BLOCK = 64 * KIB;
const SIZE = 6 * MIB;
let folder: string;
let source: Pool;
let target: Pool;

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'thinlun-transfer-'));
  await createPool(join(folder, 'source'), { dataSizeBytes: 64 * MIB });
  await createPool(join(folder, 'target'), { dataSizeBytes: 64 * MIB });
  source = await Pool.open(join(folder, 'source'));
  target = await Pool.open(join(folder, 'target'));
});

afterEach(async () => {
  for (const pool of [source, target]) {
    await pool.close();
    execFileSync(requireTool('thin_check'), ['-q', join(pool.dir, 'metadata')]);
  }
  rmSync(folder, { recursive: true });
});

async function streamOf(name: string, options: SendOptions = {}): Promise<Buffer> {
  const stream = await source.sendVolume(name, options);
  const chunks: Uint8Array[] = [];
  try {
    for await (const chunk of stream.chunks) chunks.push(Buffer.from(chunk));
  } finally {
    await stream.close();
  }
  return Buffer.concat(chunks);
}

async function* chunksOf(bytes: Uint8Array, size: number): AsyncIterable<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

function receive(name: string, bytes: Uint8Array, chunkSize = 100_000): Promise<unknown> {
  return target.receiveVolume(name, chunksOf(bytes, chunkSize));
}

async function contentOf(pool: Pool, name: string): Promise<Uint8Array> {
  const device = pool.openVolume(name);
  const bytes = await new LunClient(device).read(0, device.sizeBytes);
  await pool.closeVolume(device);
  return bytes;
}

async function expectSame(sent: string, received: string): Promise<void> {
  expectBytes(await contentOf(target, received), await contentOf(source, sent));
}

function names(pool: Pool): string[] {
  return pool.volumes().map(({ name }) => name);
}

async function work(name: string, change: (client: LunClient) => Promise<void>): Promise<void> {
  const device = source.openVolume(name);
  await change(new LunClient(device));
  await source.closeVolume(device);
}

describe('a stream', () => {
  it('makes the volume anew, mapped where it was mapped and not zero, and read-only', async () => {
    await source.createVolume('web', SIZE, { logicalBlockSize: 4096 });
    await work('web', async (web) => {
      await web.write(0, pattern(3 * BLOCK, 1));
      await web.write(2 * MIB + 4096, pattern(4096, 2));
      await web.write(4 * MIB, new Uint8Array(MIB));
      await web.write(SIZE - 4096, pattern(4096, 3));
    });
    const bytes = await streamOf('web');
    expect(bytes.length).toBeLessThan(5 * BLOCK + 1000);
    await receive('copy', bytes);
    await expectSame('web', 'copy');
    expect(target.volume('copy')).toMatchObject({
      sizeBytes: SIZE,
      logicalBlockSize: 4096,
      readOnly: true,
      mappedBytes: 5 * BLOCK,
    });
    expect(names(source)).toEqual(['web']);
    expect(names(target)).toEqual(['copy']);
  });

  it('of what differs brings a received volume to the next moment, and costs what differs', async () => {
    const random = new SeededRandom();
    await source.createVolume('web', SIZE);
    await work('web', (web) => web.write(0, pattern(4 * MIB, 1)));
    await source.createSnapshot('web', 'day0', { readOnly: true });
    await receive('copy', await streamOf('day0'));
    for (let day = 1; day <= 6; day++) {
      await work('web', async (web) => {
        for (let i = 0; i < 5; i++) {
          const offset = 512 * random.below(web.backend.sizeBytes / 512 - 600);
          const length = 512 * (1 + random.below(600));
          if (random.below(3) === 0) await web.unmap(offset, length);
          else await web.write(offset, pattern(length, day * 10 + i));
        }
      });
      if (day === 3) await source.resizeVolume('web', SIZE + 512);
      if (day === 4) await source.resizeVolume('web', 3 * MIB + 1024);
      if (day === 5) await source.resizeVolume('web', SIZE);
      await source.createSnapshot('web', `day${day}`, { readOnly: true });
      const bytes = await streamOf(`day${day}`, { from: `day${day - 1}` });
      expect(bytes.length, `seed ${random.seed}`).toBeLessThan(5 * (300 * KIB + 2 * BLOCK) + 10_000);
      await receive('copy', bytes, 1 + random.below(200_000));
      await expectSame(`day${day}`, 'copy');
      const { mappedBytes } = source.volume(`day${day}`);
      expect(target.volume('copy').mappedBytes).toBeLessThanOrEqual(mappedBytes);
    }
    expect(names(target)).toEqual(['copy']);
    const { lun, serial } = target.volume('copy');
    expect({ lun, serial }).toEqual({ lun: 0, serial: target.volume('copy').serial });
  });

  it('goes into pools of other block sizes', async () => {
    await target.close();
    await createPool(join(folder, 'wide'), { dataSizeBytes: 64 * MIB, blockSizeBytes: 192 * KIB });
    target = await Pool.open(join(folder, 'wide'));
    await source.createVolume('web', SIZE);
    await work('web', async (web) => {
      for (let at = 0; at < SIZE - 2 * BLOCK; at += 5 * BLOCK) await web.write(at + 1024, pattern(BLOCK, at));
    });
    await source.createSnapshot('web', 'a', { readOnly: true });
    await receive('copy', await streamOf('a'));
    await expectSame('a', 'copy');
    await work('web', async (web) => {
      await web.unmap(0, MIB);
      await web.write(3 * MIB + 512, pattern(512, 9));
    });
    await source.createSnapshot('web', 'b', { readOnly: true });
    await receive('copy', await streamOf('b', { from: 'a' }));
    await expectSame('b', 'copy');
  });

  it('goes on where it was cut off, wherever that was, also after the pool was opened again', async () => {
    await source.createVolume('web', SIZE);
    await work('web', (web) => web.write(0, pattern(SIZE, 1)));
    await source.createSnapshot('web', 'a', { readOnly: true });
    let bytes = await streamOf('a');
    let round = 0;
    for (;;) {
      const cut = bytes.subarray(0, 2.5 * MIB);
      if (cut.length === bytes.length) break;
      await expect(receive('copy', cut)).rejects.toThrow(/The stream was cut off after \d+ bytes/);
      expect(target.volume('copy')).toMatchObject({ receiving: { positionBytes: ++round * 2 * MIB } });
      await target.close();
      target = await Pool.open(target.dir);
      const resume = parseToken(target.resumeToken('copy'));
      bytes = await streamOf('a', { resume });
    }
    expect(round).toBe(2);
    await receive('copy', bytes);
    await expectSame('a', 'copy');
    await work('web', (web) => web.write(MIB, pattern(4 * MIB, 2)));
    await source.createSnapshot('web', 'b', { readOnly: true });
    const increment = await streamOf('b', { from: 'a' });
    await expect(receive('copy', increment.subarray(0, 3 * MIB))).rejects.toThrow('cut off');
    expect(names(target)).toEqual(['copy', 'copy.receiving']);
    await expectSame('a', 'copy');
    await receive('copy', await streamOf('b', { resume: parseToken(target.resumeToken('copy')) }));
    await expectSame('b', 'copy');
    expect(names(target)).toEqual(['copy']);
    expect(() => target.resumeToken('copy')).toThrow('received whole');
  });
});
