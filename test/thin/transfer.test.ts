import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { KIB, MIB } from '../../src/base/units.ts';
import { Pool } from '../../src/thin/pool.ts';
import { createPool } from '../../src/thin/pool-create.ts';
import type { SendOptions } from '../../src/thin/pool-sending.ts';
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

  it('that is damaged or cut off changes nothing but what is kept apart', async () => {
    await source.createVolume('web', SIZE);
    await work('web', (web) => web.write(0, pattern(3 * MIB, 1)));
    await source.createSnapshot('web', 'a', { readOnly: true });
    const whole = await streamOf('a');
    await receive('copy', whole);
    await work('web', (web) => web.write(MIB, pattern(3 * MIB, 2)));
    await source.createSnapshot('web', 'b', { readOnly: true });
    const bytes = await streamOf('b', { from: 'a' });
    const before = target.volume('copy');
    for (const at of [2, 40, 600, MIB, 2 * MIB + 70_000, bytes.length - 10]) {
      const bad = Buffer.from(bytes);
      bad[at]! ^= 4;
      await expect(receive('copy', bad), `byte ${at}`).rejects.toThrow('Cannot read the stream');
      expect(target.volume('copy')).toEqual(before);
      await expectSame('a', 'copy');
    }
    expect(names(target)).toEqual(['copy', 'copy.receiving']);
    await expect(receive('other', Buffer.from('nothing of the kind'))).rejects.toThrow('does not begin as a stream');
    expect(names(target)).toEqual(['copy', 'copy.receiving']);
    await receive('copy', bytes);
    await expectSame('b', 'copy');
    expect(names(target)).toEqual(['copy']);
  });

  it('is only received where it belongs', async () => {
    await source.createVolume('web', SIZE);
    await work('web', (web) => web.write(0, pattern(MIB, 1)));
    await source.createSnapshot('web', 'a', { readOnly: true });
    await work('web', (web) => web.write(0, pattern(BLOCK, 2)));
    await source.createSnapshot('web', 'b', { readOnly: true });
    await source.createSnapshot('web', 'c', { readOnly: true });
    const [a, ab, ac, bc] = [
      await streamOf('a'),
      await streamOf('b', { from: 'a' }),
      await streamOf('c', { from: 'a' }),
      await streamOf('c', { from: 'b' }),
    ];
    await expect(receive('copy', ab)).rejects.toThrow('there is no such volume');
    await receive('copy', a);
    await expect(receive('copy', a)).rejects.toThrow('it holds what the stream has already');
    await expect(receive('copy', bc)).rejects.toThrow(
      'the stream differs from something else than what the volume holds',
    );
    await target.createVolume('own', SIZE);
    await expect(receive('own', a)).rejects.toThrow('it is there already');
    await expect(receive('own', ab)).rejects.toThrow('something else than what the volume holds');
    await expect(receive('copy', ab.subarray(0, BLOCK))).rejects.toThrow('cut off');
    await expect(receive('copy', ac)).rejects.toThrow('from another stream');
    const resume = parseToken(target.resumeToken('copy'));
    await expect(streamOf('c', { resume })).rejects.toThrow('the token is for another volume');
    await expect(streamOf('b', { resume, from: 'c' })).rejects.toThrow('the token is not for "c"');
    const late = await streamOf('b', { resume: { ...resume, positionBytes: BLOCK } });
    await expect(receive('copy', late)).rejects.toThrow(
      'the stream begins at byte 65536, what has been received ends at 0',
    );
    await target.deleteVolume('copy.receiving');
    await expect(receive('copy', late)).rejects.toThrow('whose beginning is not here');
    await receive('copy', ab);
    await expectSame('b', 'copy');
    await expect(receive('copy', bc)).resolves.toMatchObject({ name: 'copy', readOnly: true });
  });

  it('that is on its way keeps what it needs, and what is received in part is nobody else to use', async () => {
    await source.createVolume('web', SIZE);
    await source.createSnapshot('web', 'a', { readOnly: true });
    await work('web', (web) => web.write(0, pattern(4 * MIB, 1)));
    const stream = await source.sendVolume('web', { from: 'a' });
    expect(stream.header).toMatchObject({ volume: 'web', sizeBytes: SIZE, expectedBytes: 4 * MIB });
    expect(source.volume('web.sending')).toMatchObject({ readOnly: true, temporary: true });
    await expect(source.deleteVolume('a')).rejects.toThrow('in use');
    await expect(source.deleteVolume('web.sending')).rejects.toThrow('in use');
    await stream.chunks.next();
    await stream.close();
    expect(names(source)).toEqual(['web', 'a']);

    await expect(receive('copy', (await streamOf('web')).subarray(0, MIB))).rejects.toThrow('cut off');
    const refused = 'it has not been received whole';
    await expect(target.createSnapshot('copy', 'x')).rejects.toThrow(refused);
    await expect(target.resizeVolume('copy', MIB)).rejects.toThrow(refused);
    await expect(target.sendVolume('copy')).rejects.toThrow(refused);
    await target.createVolume('own', SIZE);
    await expect(target.rollbackVolume('own', 'copy')).rejects.toThrow(refused);
  });

  it('can be sent from what was received, and to where its base came from elsewhere', async () => {
    await source.createVolume('web', SIZE);
    await work('web', (web) => web.write(0, pattern(MIB, 1)));
    await source.createSnapshot('web', 'a', { readOnly: true });
    await receive('copy', await streamOf('a'));
    const back = await target.sendVolume('copy');
    await source.receiveVolume('back', back.chunks);
    await back.close();
    expect(source.volume('back').contentId).toBe(source.volume('a').contentId);
    await work('web', (web) => web.write(0, pattern(BLOCK, 2)));
    const stream = await source.sendVolume('web', { from: 'back', keep: 'b' });
    await target.receiveVolume('copy', stream.chunks);
    await stream.close();
    await expectSame('b', 'copy');
    await expectSame('web', 'copy');
    expect(names(source)).toEqual(['web', 'a', 'back', 'b']);
  });

  it('has no base that can be written', async () => {
    await source.createVolume('web', SIZE);
    await source.createSnapshot('web', 'a');
    await source.createSnapshot('web', 'b', { readOnly: true });
    await expect(source.sendVolume('web', { from: 'a' })).rejects.toThrow('"a" can be written');
    await expect(source.sendVolume('web', { from: 'nothing' })).rejects.toThrow('There is no volume "nothing"');
    await expect(source.sendVolume('b', { keep: 'c' })).rejects.toThrow('there is no snapshot to keep');
    await expect(source.sendVolume('b', { from: 'b' })).rejects.toThrow('it is the same');
    await expect(source.sendVolume('web', { keep: 'b' })).rejects.toThrow('it is there already');
    expect(names(source)).toEqual(['web', 'a', 'b']);
  });

  it("has a base and a source that stay read-only, and what can be written again is nobody else's base", async () => {
    await source.createVolume('web', SIZE);
    await work('web', (web) => web.write(0, pattern(MIB, 1)));
    await source.setVolume('web', { readOnly: true });
    await receive('copy', await streamOf('web'));
    const stream = await source.sendVolume('web');
    await expect(source.setVolume('web', { readOnly: false })).rejects.toThrow(/writable: it is being sent/);
    await stream.close();
    expect(await source.setVolume('web', { readOnly: false })).not.toHaveProperty('contentId');
    await work('web', (web) => web.write(0, pattern(MIB, 2)));
    await source.setVolume('web', { readOnly: true });
    await source.createSnapshot('web', 'later', { readOnly: true });
    await expect(receive('copy', await streamOf('later', { from: 'web' }))).rejects.toThrow(
      /differs from something else than what the volume holds/,
    );
  });

  it('ends when its pool is closed, on either side, in order', async () => {
    await source.createVolume('web', 4 * SIZE);
    await work('web', (web) => web.write(0, pattern(4 * SIZE, 1)));
    await source.createSnapshot('web', 'a', { readOnly: true });
    let closing = Promise.resolve();
    const closeAfter = async function* (pool: Pool, name: string): AsyncIterable<Uint8Array> {
      let count = 0;
      for await (const chunk of (await source.sendVolume(name)).chunks) {
        yield chunk;
        if (++count === 8) closing = pool.close();
      }
    };
    await expect(target.receiveVolume('copy', closeAfter(source, 'web'))).rejects.toThrow('The stream was cut off');
    await closing;
    source = await Pool.open(source.dir);
    expect(names(source)).toEqual(['web', 'a']);
    await target.deleteVolume('copy');
    await expect(target.receiveVolume('copy', closeAfter(target, 'a'))).rejects.toThrow('The pool is being closed');
    await closing;
    target = await Pool.open(target.dir);
    await source.close();
    source = await Pool.open(source.dir);
    await receive('copy', await streamOf('a', { resume: parseToken(target.resumeToken('copy')) }));
    await expectSame('a', 'copy');
  });

  it('says why when the sender cannot go on', async () => {
    await source.createVolume('web', 4 * SIZE);
    await work('web', (web) => web.write(0, pattern(4 * SIZE, 1)));
    const stream = await source.sendVolume('web');
    const device = source.openVolume('web.sending');
    const receiving = target.receiveVolume(
      'copy',
      (async function* () {
        let count = 0;
        for await (const chunk of stream.chunks) {
          yield chunk;
          if (++count === 6) device.closed = true;
        }
      })(),
    );
    const message = /^The sender has failed: Cannot read bytes \d+ to \d+ of thin device \d+: ESHUTDOWN$/;
    await expect(receiving).rejects.toThrow(message);
    await source.closeVolume(device);
    await stream.close();
    expect(names(source)).toEqual(['web']);
  });

  it('has what an external origin shows', async () => {
    const image = join(folder, 'image');
    writeFileSync(image, pattern(2 * MIB + 5000, 7));
    await source.createVolume('web', SIZE, { externalOrigin: image });
    await work('web', (web) => web.write(MIB, pattern(BLOCK, 1)));
    await source.createSnapshot('web', 'a', { readOnly: true });
    await receive('copy', await streamOf('a'));
    await expectSame('a', 'copy');
    await work('web', async (web) => {
      await web.unmap(MIB, BLOCK);
      await web.write(4 * MIB, pattern(BLOCK, 2));
    });
    await source.createSnapshot('web', 'b', { readOnly: true });
    await receive('copy', await streamOf('b', { from: 'a' }));
    await expectSame('b', 'copy');
    await source.createVolume('plain', SIZE);
    await expect(source.sendVolume('plain', { from: 'a' })).rejects.toThrow('stand on different external origins');
  });

  it('is not received into a pool that does not zero its blocks', async () => {
    await target.setOptions({ skipBlockZeroing: true });
    await source.createVolume('web', SIZE);
    await expect(receive('copy', await streamOf('web'))).rejects.toThrow('the pool does not zero its blocks');
  });
});
