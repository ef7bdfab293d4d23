import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { StorageError } from '../../src/base/errors.ts';
import { silentLogger } from '../../src/base/log.ts';
import { AdvisedError, hintOf } from '../../src/daemon/advised-error.ts';
import { ControlClient, NoServerError } from '../../src/daemon/control-client.ts';
import { ControlServer } from '../../src/daemon/control-server.ts';
import { FAKE_RESERVATIONS, FakePoolControl } from './fake-pool-control.ts';

let root: string;
let dir: string;
let fake: FakePoolControl;
let server: ControlServer | null = null;
const errors: string[] = [];
const logger = { ...silentLogger, error: (_fields: object, text: string): void => void errors.push(text) };

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'thinlun-control-'));
  dir = root;
  fake = new FakePoolControl();
  errors.length = 0;
});

afterEach(async () => {
  await server?.close();
  server = null;
  rmSync(root, { recursive: true, force: true });
});

async function serve(): Promise<ControlClient> {
  server = await ControlServer.listen(dir, fake, logger);
  const client = await ControlClient.connect(dir);
  expect(client).not.toBeNull();
  return client!;
}

/** What a call is rejected with. */
async function failureOf(call: Promise<unknown>): Promise<StorageError> {
  const error = await call.then(
    () => null,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(StorageError);
  return error as StorageError;
}

/** One raw request. */
function ask(method: string, path: string, body = ''): Promise<{ status: number; json: unknown }> {
  return new Promise((resolve, reject) => {
    const asked = request({ socketPath: join(dir, 'control.sock'), method, path, agent: false }, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (part: string) => {
        text += part;
      });
      response.on('end', () => resolve({ status: response.statusCode!, json: JSON.parse(text) }));
    });
    asked.on('error', reject);
    asked.end(body);
  });
}

describe('a control socket', () => {
  it('carries every call and its result to the pool', async () => {
    const client = await serve();
    expect((await client.createVolume({ name: 'a b/ü', sizeBytes: 2 ** 50 })).name).toBe('a b/ü');
    expect((await client.createVolume({ name: 'c', sizeBytes: 4096, logicalBlockSize: 4096 })).logicalBlockSize).toBe(
      4096,
    );
    expect((await client.resizeVolume('a b/ü', { sizeBytes: 1024 })).sizeBytes).toBe(1024);
    const snapshots = [{ origin: 'c', name: 's?' }];
    expect((await client.createSnapshots({ snapshots, readOnly: true }))[0]).toMatchObject({
      origin: 'c',
      readOnly: true,
    });
    expect((await client.renameVolume('s?', { name: 's/' })).name).toBe('s/');
    expect((await client.rollbackVolume('a b/ü', { snapshot: 's/', force: true })).sizeBytes).toBe(4096);
    expect(await client.message({ message: 'create_thin 0' })).toBe(7);
    expect(await client.statusLines()).toEqual(await fake.statusLines());
    expect(await client.listReservations()).toEqual([FAKE_RESERVATIONS]);
    const cleared = { ...FAKE_RESERVATIONS, volume: 'c', registrants: [] };
    expect(await client.clearReservations('c', { initiator: 'iqn.x:one', force: true })).toEqual(cleared);
    await client.deleteVolume('c');
    expect(await client.listVolumes()).toEqual([...fake.volumes.values()]);
    expect(await client.commit()).toBe(7);
    expect(await client.status()).toEqual(await fake.status());
  });

  it('is for its owner only, from the first moment', async () => {
    const umask = process.umask(0);
    try {
      await serve();
      expect(process.umask()).toBe(0);
    } finally {
      process.umask(umask);
    }
    expect(statSync(join(dir, 'control.sock')).mode & 0o777).toBe(0o600);
  });

  it('works in a folder whose path is longer than a socket address', async () => {
    dir = join(root, 'x'.repeat(200), 'y'.repeat(200));
    mkdirSync(dir, { recursive: true });
    const client = await serve();
    expect((await client.status()).name).toBe('pool');
    expect(readdirSync(dir)).toEqual(['control.sock']);
    await client.close();
    await server!.close();
    server = null;
    expect(readdirSync(dir)).toEqual([]);
  });

  it('has a path of its own for every length around the limit', async () => {
    for (let length = 90; length <= 112; length++) {
      dir = join(root, 'z'.repeat(length - root.length - 1 - '/control.sock'.length));
      mkdirSync(dir);
      const client = await serve();
      expect(readdirSync(dir)).toEqual(['control.sock']);
      await client.close();
      await server!.close();
      server = null;
    }
  });

  it('replaces the socket of a process that was killed', async () => {
    const dead = createServer().listen(join(dir, 'control.sock'));
    await new Promise((resolve) => dead.once('listening', resolve));
    // A second name keeps the file when the listener is closed, as kill -9 would.
    const kept = join(dir, 'kept');
    const { linkSync, renameSync } = await import('node:fs');
    linkSync(join(dir, 'control.sock'), kept);
    await new Promise((resolve) => dead.close(resolve));
    renameSync(kept, join(dir, 'control.sock'));
    expect(await ControlClient.connect(dir)).toBeNull();
    const client = await serve();
    expect((await client.status()).name).toBe('pool');
  });

  it('is not there for a client when nothing, or a plain file, is in its place', async () => {
    expect(await ControlClient.connect(dir)).toBeNull();
    writeFileSync(join(dir, 'control.sock'), '');
    expect(await ControlClient.connect(dir)).toBeNull();
  });

  it('says which folder it cannot be made in', async () => {
    const failure = await failureOf(ControlServer.listen(join(dir, 'missing'), fake, logger));
    expect(failure.message).toMatch(/^Cannot make the control socket in ".*missing": /);
  });
});

describe('failures', () => {
  it('come to the client with code, message and hint', async () => {
    const client = await serve();
    fake.failure = new AdvisedError('ENOSPC', 'Cannot do it: full', 'Make room.');
    const failure = await failureOf(client.listVolumes());
    expect([failure.code, failure.message, hintOf(failure)]).toEqual(['ENOSPC', 'Cannot do it: full', 'Make room.']);
    expect((await failureOf(client.deleteVolume('none'))).code).toBe('ENOENT');
  });

  it('of our own come as such, and are in the log', async () => {
    const client = await serve();
    fake.failure = new TypeError('x is not a function');
    const failure = await failureOf(client.listVolumes());
    expect([failure.code, failure.message]).toEqual(['EIO', 'x is not a function']);
    expect(hintOf(failure)).toMatch(/mistake in thinlun/);
    expect(errors).toEqual(['control request failed']);
  });

  it('of the connection in the middle of a change say that its result is not known', async () => {
    const client = await serve();
    const sockets: Socket[] = [];
    await server!.close();
    server = null;
    const silent = createServer((socket) => {
      sockets.push(socket);
      socket.once('data', () => socket.destroy());
    }).listen(join(dir, 'control.sock'));
    await new Promise((resolve) => silent.once('listening', resolve));
    const failure = await failureOf(client.createVolume({ name: 'a', sizeBytes: 512 }));
    expect(failure.message).toMatch(/^Cannot reach the server of pool /);
    expect(hintOf(failure)).toMatch(/not known/);
    await new Promise((resolve) => silent.close(resolve));
  });

  it.each([
    ['no JSON', '{"name":', /JSON/],
    ['a missing field', '{"name":"a"}', /sizeBytes: /],
    ['a field too many', '{"name":"a","sizeBytes":512,"colour":"red"}', /colour/],
    ['a size that is no whole number', '{"name":"a","sizeBytes":1.5}', /sizeBytes: /],
    ['a size beyond what a number holds', '{"name":"a","sizeBytes":9007199254740993}', /sizeBytes: /],
    ['no size at all', '{"name":"a","sizeBytes":0}', /sizeBytes: /],
    ['a block size that does not exist', '{"name":"a","sizeBytes":512,"logicalBlockSize":520}', /logicalBlockSize: /],
    ['another type', '[]', /Expected Object/],
  ])('of a message with %s name it and change nothing', async (_what, body, reason) => {
    await serve();
    const before = fake.calls;
    const { status, json } = await ask('POST', '/v1/volumes', body);
    expect(status).toBe(400);
    expect(json).toMatchObject({ error: { code: 'EINVAL', message: expect.stringMatching(reason) } });
    expect(fake.calls).toBe(before);
  });

  it.each([
    ['a length', { 'content-length': '70000' }],
    ['none', { 'transfer-encoding': 'chunked' }],
  ])('of a message that is too long, announced with %s, come before it is read', async (_what, headers) => {
    await serve();
    const before = fake.calls;
    const status = await new Promise((resolve, reject) => {
      const options = {
        socketPath: join(dir, 'control.sock'),
        method: 'POST',
        path: '/v1/volumes',
        agent: false,
        headers,
      };
      const asked = request(options, (response) => resolve(response.resume().statusCode));
      asked.on('error', reject);
      asked.end('x'.repeat(70_000));
    });
    expect(status).toBe(413);
    expect(fake.calls).toBe(before);
  });

  it.each([
    ['GET', '/v2/pool'],
    ['GET', '/'],
    ['PUT', '/v1/volumes'],
  ])('of a request that this version does not know (%s %s) say so', async (method, path) => {
    await serve();
    const { status, json } = await ask(method, path);
    expect(status).toBe(404);
    expect(json).toMatchObject({ error: { code: 'EOPNOTSUPP', hint: expect.stringMatching(/another version/) } });
  });

  it('of a server that answers something else are no crash of the client', async () => {
    const client = await serve();
    fake.statusOverride = { mode: 'purple' };
    expect((await failureOf(client.status())).code).toBe('EIO');
    fake.statusOverride = { extra: 1 } as never;
    expect(await client.status()).not.toHaveProperty('extra');
  });
});

describe('closing', () => {
  it('answers the request that is under way, takes no other, and removes the socket', async () => {
    const client = await serve();
    let go = (): void => {};
    fake.delay = new Promise((resolve) => {
      go = resolve;
    });
    const under = client.createVolume({ name: 'late', sizeBytes: 512 });
    while (fake.calls < 1) await new Promise(setImmediate);
    const closed = server!.close();
    server = null;
    expect(await ControlClient.connect(dir)).toBeNull();
    expect(await failureOf(client.commit())).toBeInstanceOf(NoServerError);
    go();
    expect((await under).name).toBe('late');
    await closed;
    expect(existsSync(join(dir, 'control.sock'))).toBe(false);
  });

  it('does not wait for connections that ask nothing', async () => {
    await serve();
    const silent = connect(join(dir, 'control.sock'));
    const half = connect(join(dir, 'control.sock'));
    await Promise.all([silent, half].map((socket) => new Promise((resolve) => socket.once('connect', resolve))));
    for (const socket of [silent, half]) socket.on('error', () => {});
    half.write('POST /v1/volumes HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{');
    const begun = performance.now();
    await server!.close();
    server = null;
    expect(performance.now() - begun).toBeLessThan(4_000);
    silent.destroy();
    half.destroy();
  });
});
