import { connect, type Socket } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { MIB } from '../../src/base/units.ts';
import {
  buildPdu,
  INITIATOR_NAME,
  Initiator,
  loginStatus,
  TARGET_NAME,
  textData,
  USUAL_KEYS,
  write10,
} from '../support/iscsi-initiator.ts';
import { startPortal, type TestPortal, type TestPortalOptions, until } from '../support/iscsi-portal.ts';
import { TestClock } from '../support/test-clock.ts';

let world: TestPortal;
const initiators: Initiator[] = [];
const sockets: Socket[] = [];

async function start(options: TestPortalOptions = {}): Promise<void> {
  world = await startPortal({ host: '0.0.0.0', ...options });
}

afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  await world.end(initiators);
});

/** A connection from one of the addresses of this machine; null when it is turned away. */
async function dial(from: string): Promise<Socket | null> {
  const socket = connect({ port: world.port, host: '127.0.0.1', localAddress: from });
  sockets.push(socket);
  const before = world.portal.connectionCount;
  let closed = false;
  socket.on('error', () => {});
  socket.on('close', () => {
    closed = true;
  });
  await until(() => closed || world.portal.connectionCount > before, 'the portal takes it or turns it away');
  return closed ? null : socket;
}

async function login(options: object): Promise<number> {
  const initiator = await Initiator.connect(world.port);
  initiators.push(initiator);
  return loginStatus(await initiator.logIn(options));
}

describe('what one initiator can take from the others', () => {
  it('connections: as many as one address may have', async () => {
    await start({ limits: { connectionsPerAddress: 3 } });
    for (let i = 0; i < 3; i++) expect(await dial('127.0.0.5')).not.toBeNull();
    expect(await dial('127.0.0.5')).toBeNull();
    expect(await dial('127.0.0.6')).not.toBeNull();
    sockets[0]!.destroy();
    await until(() => world.portal.connectionCount === 3, 'one has ended');
    expect(await dial('127.0.0.5')).not.toBeNull();
  });

  it('half-open logins: as many as one address may have', async () => {
    await start({ limits: { loginsPerAddress: 2 } });
    expect(await dial('127.0.0.5')).not.toBeNull();
    expect(await dial('127.0.0.5')).not.toBeNull();
    expect(await dial('127.0.0.5')).toBeNull();
    expect(await login({ isid: 1 })).toBe(0);
    expect(await login({ isid: 2 })).toBe(0);
    expect(await login({ isid: 3 })).toBe(0);
  });

  it('sessions: as many as one initiator name may have, reinstated ones not counted twice', async () => {
    await start({ limits: { sessionsPerInitiator: 2 } });
    expect(await login({ isid: 1 })).toBe(0);
    expect(await login({ isid: 2 })).toBe(0);
    expect(await login({ isid: 3 })).toBe(0x0302);
    expect(await login({ isid: 2 })).toBe(0);
    expect(await login({ isid: 3, initiator: `${INITIATOR_NAME}.other` })).toBe(0);
    expect(await login({ isid: 9, target: null, keys: {} })).toBe(0x0302);
  });
});

describe('a portal that is attacked by many slow connections', () => {
  it('keeps a bounded amount of memory, serves others, and gets all of it back', { timeout: 150_000 }, async () => {
    const clock = new TestClock();
    await start({ clock, sizeBytes: 8 * MIB });
    const good = await Initiator.login(world.port, { initiator: `${INITIATOR_NAME}.good` });
    initiators.push(good);
    await good.settle();
    const { receive } = good;
    good.receive = () => receive.call(good, 60_000);
    const memory = (): number => {
      const { heapUsed, external } = process.memoryUsage();
      return heapUsed + external;
    };
    const before = memory();
    const slow: Socket[] = [];
    const count = 60;
    const text = textData({ InitiatorName: INITIATOR_NAME, TargetName: TARGET_NAME, ...USUAL_KEYS });
    for (let i = 0; i < count; i++) {
      const socket = connect({ port: world.port, host: '127.0.0.1', localAddress: `127.0.1.${1 + (i % 100)}` });
      socket.on('error', () => {});
      socket.pause();
      sockets.push(socket);
      slow.push(socket);
      const bytes: Uint8Array[] = [];
      const head = { immediate: true, tag: 1, fields: { 24: 100 } };
      bytes.push(
        buildPdu({ ...head, opcode: 3, flags: 0x87, bytes: { 8: 0x80, 12: i >> 8, 13: i & 255, 21: 1 }, data: text }),
      );
      const command = (sn: number, length: number, given: number, final: boolean): Uint8Array =>
        buildPdu({
          opcode: 1,
          flags: final ? 0xa0 : 0x20,
          tag: 10 + sn,
          cdb: write10(0, length / 512),
          fields: { 20: length, 24: 100 + sn },
          data: new Uint8Array(given),
        });
      // A unit attention, then writes of which only a part ever comes, in every way that there is.
      bytes.push(buildPdu({ opcode: 1, tag: 10, fields: { 24: 100 } }));
      for (let sn = 1; sn < 20; sn++) bytes.push(command(sn, 262144, 512, true));
      for (let sn = 20; sn < 30; sn++) bytes.push(command(sn, 65536, 512, false));
      // One number is left out: what follows has to be held.
      for (let sn = 31; sn < 45; sn++) bytes.push(command(sn, 65536, 65536, true));
      // A text without an end, pings whose answers nobody reads, and half a PDU.
      for (let part = 0; part < 8; part++) {
        bytes.push(
          buildPdu({
            opcode: 4,
            immediate: true,
            flags: 0x40,
            tag: 5,
            fields: { 20: 0xffffffff, 24: 130 },
            data: new Uint8Array(60_000),
          }),
        );
      }
      for (let ping = 0; ping < 40; ping++) {
        bytes.push(
          buildPdu({
            opcode: 0,
            immediate: true,
            tag: 900 + ping,
            fields: { 20: 0xffffffff, 24: 130 },
            data: new Uint8Array(65536),
          }),
        );
      }
      bytes.push(buildPdu({ opcode: 5, tag: 11, dataLength: 200_000 }));
      socket.write(Buffer.concat(bytes));
    }
    await until(() => world.portal.sessions().length === count + 1, 'they are there', 60_000);
    await new Promise((resolve) => setTimeout(resolve, 500));
    // What this test itself has not got rid of is not the portal's.
    const own = slow.reduce((sum, socket) => sum + socket.writableLength, 0);
    expect(world.portal.memoryUsedBytes).toBeLessThanOrEqual(64 * MIB);
    const perConnection = (memory() - before - own) / count;
    // Held PDUs, text, output: a MiB each at most, and something for the objects.
    expect(perConnection).toBeLessThan(4 * MIB);
    // All memory is with them: those who owe data and send none have to go after ten seconds, and the next who get theirs, and so on.
    const whileTimePasses = async <T>(answer: Promise<T>): Promise<T> => {
      let settled = false;
      const settle = (): void => {
        settled = true;
      };
      answer.then(settle, settle);
      for (let i = 0; i < 60 && !settled; i++) {
        await new Promise((resolve) => setTimeout(resolve, 50));
        if (!settled) clock.advance(5000);
      }
      return answer;
    };
    for (let i = 0; i < 10; i++) expect((await whileTimePasses(good.readBlocks(i, 8))).status).toBe(0);
    for (let i = 0; i < 200 && world.portal.connectionCount > 1; i++) {
      clock.advance(5000);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    expect(world.portal.connectionCount).toBe(1);
    expect(world.portal.memoryUsedBytes).toBe(0);
    expect((await good.writeBlocks(0, new Uint8Array(65536))).status).toBe(0);
  });
});
