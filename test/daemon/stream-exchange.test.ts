import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { StorageError } from '../../src/base/errors.ts';
import { silentLogger } from '../../src/base/log.ts';
import { MIB } from '../../src/base/units.ts';
import { hintOf } from '../../src/daemon/advised-error.ts';
import { ControlClient } from '../../src/daemon/control-client.ts';
import { ControlServer } from '../../src/daemon/control-server.ts';
import { encodePreface, encodeRecordHeader, RecordType } from '../../src/thin/stream-format.ts';
import { FakePoolControl } from './fake-pool-control.ts';

let dir: string;
let fake: FakePoolControl;
let server: ControlServer;
let client: ControlClient;

beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), 'thinlun-stream-'));
  fake = new FakePoolControl();
  server = await ControlServer.listen(dir, fake, silentLogger);
  client = (await ControlClient.connect(dir))!;
});

afterEach(async () => {
  await client.close();
  await server.close();
  rmSync(dir, { recursive: true });
});

/** Chunks without end; how many were asked for. */
function endless(): { made: () => number; chunks: AsyncIterable<Uint8Array> } {
  let made = 0;
  const chunk = Buffer.alloc(MIB, 1);
  const chunks = (async function* () {
    for (;;) {
      made++;
      yield chunk;
    }
  })();
  return { made: () => made, chunks };
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 10));
}

describe('a stream through the control socket', () => {
  it('arrives as it was sent, and is made no faster than it is read', async () => {
    const { made, chunks } = endless();
    fake.stream = chunks;
    const stream = await client.send('web', { keep: 'x' });
    expect(stream.expectedBytes).toBe(2);
    let length = 0;
    for await (const chunk of stream.chunks) {
      expect(chunk.every((byte) => byte === 1)).toBe(true);
      length += chunk.length;
      if (length > 8 * MIB) break;
    }
    await new Promise((resolve) => setTimeout(resolve, 200));
    expect(made()).toBeLessThan(20);
    await stream.close();
    await until(() => fake.streams === 0);
  });

  it('is refused with its reason before it begins', async () => {
    fake.failure = new StorageError('ENOENT', 'no such volume');
    await expect(client.send('web', {})).rejects.toMatchObject({ code: 'ENOENT', message: 'no such volume' });
    expect(fake.streams).toBe(0);
  });

  it('brings the reason why its sender could not go on', async () => {
    const reason = Buffer.from('the disk is gone');
    fake.stream = (async function* () {
      yield encodePreface();
      yield encodeRecordHeader(RecordType.failed, 0, 0, reason.length, reason);
      yield reason;
      throw new Error('the disk is gone');
    })();
    const stream = await client.send('web', {});
    const reading = (async () => {
      for await (const _ of stream.chunks);
    })();
    await expect(reading).rejects.toMatchObject({ code: 'EIO', message: 'the disk is gone' });
    await until(() => fake.streams === 0);
  });

  it('goes to the server as fast as that reads it', async () => {
    const sent = (async function* () {
      for (let i = 0; i < 40; i++) yield Buffer.alloc(MIB / 2, i);
    })();
    expect(await client.receive('copy', sent)).toMatchObject({ name: 'copy', sizeBytes: 20 * MIB });
  });

  it('ends with the server’s reason when that has had enough, though there is more', async () => {
    fake.receiveLimit = 3 * MIB;
    const { made, chunks } = endless();
    await expect(client.receive('copy', chunks)).rejects.toMatchObject({ code: 'ENOSPC', message: 'that is enough' });
    expect(made()).toBeLessThan(50);
  });

  it('that breaks off on this side says what has become of it', async () => {
    const broken = (async function* () {
      yield Buffer.alloc(MIB);
      throw new StorageError('ESHUTDOWN', 'Stopped by SIGINT');
    })();
    const error = await client.receive('copy', broken).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ code: 'ESHUTDOWN', message: 'Stopped by SIGINT' });
    expect(hintOf(error)).toContain(`thinlun receive ${dir} copy --resume-token`);
  });

  it('that nobody reads does not keep the server from ending', async () => {
    fake.stream = endless().chunks;
    await client.send('web', {});
    await server.close();
    await until(() => fake.streams === 0);
  });

  it('tokens and trimming go the same way', async () => {
    expect(await client.resumeToken('a b')).toEqual({ token: 'a b' });
    expect(await client.trim({ fromBlock: 0 })).toEqual({ trimmedBytes: 65536, nextBlock: 1, blockCount: 2 });
    expect(await client.trim({ fromBlock: 1 })).toMatchObject({ nextBlock: null });
  });
});
