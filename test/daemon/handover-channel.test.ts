import { closeSync, fstatSync, mkdtempSync, openSync, readdirSync, rmSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { HandoverChannel } from '../../src/daemon/handover-channel.ts';
import { PoolLock } from '../../src/thin/pool-lock.ts';
import { requireAddon } from '../support/native-addon.ts';

const native = requireAddon();
const descriptorCount = (): number => readdirSync('/proc/self/fd').length;

let folder: string;
let one: HandoverChannel;
let two: HandoverChannel;

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'thinlun-channel-'));
  const path = join(folder, 'sock');
  const server = createServer({ pauseOnConnect: true });
  const accepted = new Promise<Socket>((resolve) => server.once('connection', resolve));
  await new Promise<void>((resolve) => server.listen(path, resolve));
  const socket = connect(path);
  socket.pause();
  await new Promise((resolve) => socket.once('connect', resolve));
  one = HandoverChannel.of(socket);
  two = HandoverChannel.of(await accepted);
  server.close();
});

afterEach(() => {
  one.close();
  two.close();
  rmSync(folder, { recursive: true });
});

describe('the connection between two servers', () => {
  it('carries messages of any size in both directions, with hundreds of descriptors', async () => {
    const fds = Array.from({ length: 600 }, () => openSync(folder, 'r'));
    const text = 'x'.repeat(3_000_000);
    const sent = Promise.all([one.send({ text }, fds), two.send({ hello: 1 })]);
    const message = (await two.receive())!;
    await sent;
    expect(message.content).toEqual({ text });
    expect(message.fds).toHaveLength(600);
    expect(new Set([...fds, ...message.fds]).size).toBe(1200);
    expect(message.fds.map((fd) => fstatSync(fd).ino)).toEqual(fds.map((fd) => fstatSync(fd).ino));
    for (const fd of [...fds, ...message.fds]) closeSync(fd);
    expect(await one.receive()).toEqual({ content: { hello: 1 }, fds: [] });
    await one.send({ n: 1 });
    await one.send({ n: 2 });
    expect([await two.receive(), await two.receive()]).toMatchObject([{ content: { n: 1 } }, { content: { n: 2 } }]);
  });

  it('ends with what the other side has said, and closes what nobody has asked for', async () => {
    const before = descriptorCount();
    const fd = openSync(folder, 'r');
    await one.send({ last: true }, [fd]);
    closeSync(fd);
    one.close();
    expect((await two.receive())!.content).toEqual({ last: true });
    expect(await two.receive()).toBeNull();
    await expect(one.send({})).rejects.toThrow('the connection is closed');
    await expect(two.send({})).rejects.toThrow(/Cannot talk to the other server/);
    two.close();
    // The two sockets have gone, and the message's descriptor is ours.
    expect(descriptorCount()).toBe(before - 1);
  });

  it('refuses what is no message', async () => {
    const waiting = two.receive();
    one.greet('\u0004\u0000\u0000\u0000\u0000\u0000\u0000\u0000oops');
    await expect(waiting).rejects.toThrow(/Cannot understand the other server/);
    await expect(two.receive()).rejects.toThrow(/Cannot understand/);
  });
});

describe('the lock of a pool that is handed over', () => {
  it('is never free in between, and free when both have let it go', async () => {
    const lock = await PoolLock.take(folder);
    const shared = lock.share();
    lock.release();
    await expect(PoolLock.take(folder)).rejects.toThrow('another process has it open');
    const inherited = PoolLock.inherit(folder, shared);
    await expect(PoolLock.take(folder)).rejects.toThrow('another process has it open');
    inherited.release();
    (await PoolLock.take(folder)).release();
  });

  it('is refused when it is of another folder', () => {
    const before = descriptorCount();
    expect(() => PoolLock.inherit(folder, openSync(tmpdir(), 'r'))).toThrow(/is another's/);
    expect(descriptorCount()).toBe(before);
    expect(() => native.duplicateFd(2 ** 20)).toThrow(/EBADF|bad file/i);
  });
});
