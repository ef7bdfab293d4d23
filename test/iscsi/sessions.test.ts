import { afterEach, describe, expect, it } from 'vitest';
import { StorageError } from '../../src/base/errors.ts';
import { Target } from '../../src/scsi/target.ts';
import {
  buildPdu,
  INITIATOR_NAME,
  Initiator,
  loginStatus,
  opcodeOf,
  read10,
  TARGET_NAME,
  textData,
  textPairs,
  USUAL_KEYS,
  u16,
  u32,
  write10,
} from '../support/iscsi-initiator.ts';
import { startPortal, type TestPortal, type TestPortalOptions, until } from '../support/iscsi-portal.ts';
import { TestClock } from '../support/test-clock.ts';

let world: TestPortal;
const initiators: Initiator[] = [];

async function start(options: TestPortalOptions = {}): Promise<void> {
  world = await startPortal(options);
}

afterEach(() => world.end(initiators));

async function connect(): Promise<Initiator> {
  const initiator = await Initiator.connect(world.port);
  initiators.push(initiator);
  return initiator;
}

/** The portal resets the connection as it comes. */
async function isTurnedAway(): Promise<boolean> {
  try {
    return await (await connect()).closes();
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ECONNRESET';
  }
}

async function login(isid = 1): Promise<Initiator> {
  const initiator = await Initiator.login(world.port, { isid });
  initiators.push(initiator);
  await initiator.settle();
  return initiator;
}

describe('a login over the wire', () => {
  it('gives a session handle, and numbers that go on', async () => {
    await start();
    const initiator = await connect();
    initiator.cmdSn = 77;
    initiator.expStatSn = 4711;
    const response = await initiator.logIn();
    expect(opcodeOf(response)).toBe(0x23);
    expect(response.header[1]).toBe(0x87);
    expect(u16(response, 2)).toBe(0);
    expect([...response.header.subarray(8, 14)]).toEqual([0x80, 0, 0, 0, 0, 1]);
    expect(u16(response, 14)).not.toBe(0);
    expect(u32(response, 16)).toBe(0x10);
    expect(u32(response, 24)).toBe(4711);
    expect(u32(response, 28)).toBe(77);
    expect(u32(response, 32)).toBe(77 + 127);
    expect(textPairs(response.data)).toMatchObject({ TargetPortalGroupTag: '1', MaxRecvDataSegmentLength: '262144' });
    expect(world.portal.sessions()).toMatchObject([{ initiator: INITIATOR_NAME, target: TARGET_NAME, commands: 0 }]);
  });

  it('is the same byte by byte, in three steps', async () => {
    await start();
    const initiator = await connect();
    const dribble = async (text: Record<string, string>, flags: number): Promise<void> => {
      for (const byte of buildPdu(initiator.loginParts(textData(text), flags))) initiator.write(Buffer.from([byte]));
    };
    await dribble({ InitiatorName: INITIATOR_NAME, TargetName: TARGET_NAME, AuthMethod: 'None' }, 0x81);
    const first = await initiator.receive();
    expect([loginStatus(first), first.header[1], u16(first, 14)]).toEqual([0, 0x81, 0]);
    await dribble(USUAL_KEYS, 0x04);
    expect((await initiator.receive()).header[1]).toBe(0x04);
    await dribble({}, 0x87);
    const last = await initiator.receive();
    expect([loginStatus(last), last.header[1]]).toEqual([0, 0x87]);
    expect((await initiator.command([0])).status).toBe(2);
    expect((await initiator.command([0])).status).toBe(0);
  });

  it.each([
    ['to a target that is not there', { target: 'iqn.2026-01.org.thinlun:none' }, 0x0203],
    ['with a name that is none', { initiator: 'me' }, 0x0200],
    ['with the handle of no session', { tsih: 99 }, 0x020a],
  ])('%s is refused and ends', async (_what, options, status) => {
    await start();
    const initiator = await connect();
    expect(loginStatus(await initiator.logIn(options))).toBe(status);
    expect(await initiator.closes()).toBe(true);
  });

  it.each([
    ['a command', { opcode: 1, tag: 6 }],
    ['a NOP-Out', { opcode: 0, immediate: true, tag: 6 }],
    ['a login request that is not immediate', { opcode: 3, tag: 6 }],
    ['a login request with additional header segments', { opcode: 3, immediate: true, tag: 6, ahs: new Uint8Array(8) }],
  ])('that begins with %s is refused and ends', async (_what, parts) => {
    await start();
    const initiator = await connect();
    initiator.send(parts);
    const response = await initiator.receive();
    expect([opcodeOf(response), loginStatus(response), u32(response, 16)]).toEqual([0x23, 0x020b, 6]);
    expect(await initiator.closes()).toBe(true);
  });

  it('with more than 8192 bytes in a request is refused before they come', async () => {
    await start();
    const initiator = await connect();
    initiator.write(buildPdu({ opcode: 3, immediate: true, flags: 0x87, dataLength: 8193 }));
    expect(loginStatus(await initiator.receive())).toBe(0x0200);
    expect(await initiator.closes()).toBe(true);
  });

  it('that takes too long ends', async () => {
    const clock = new TestClock();
    await start({ clock });
    const silent = await connect();
    const slow = await connect();
    slow.send(slow.loginParts(textData({ InitiatorName: INITIATOR_NAME, TargetName: TARGET_NAME }), 0x04));
    await slow.receive();
    const done = await login();
    clock.advance(14_999);
    expect(await done.ping()).toBe(true);
    expect([silent.closed, slow.closed]).toEqual([false, false]);
    clock.advance(1);
    expect(await silent.closes()).toBe(true);
    expect(await slow.closes()).toBe(true);
    expect(await done.ping()).toBe(true);
  });

  it('is not possible while too many others are in theirs', async () => {
    await start({ limits: { loginsInProgress: 2, connections: 4 } });
    const first = await connect();
    const second = await connect();
    await until(() => world.portal.connectionCount === 2, 'both are there');
    expect(await isTurnedAway()).toBe(true);
    expect(loginStatus(await first.logIn())).toBe(0);
    await login(2);
    expect(second.closed).toBe(false);
  });

  it('is not possible when there are too many connections or sessions', async () => {
    await start({ limits: { connections: 3, loginsInProgress: 3, sessions: 2 } });
    await login(1);
    await login(2);
    const third = await connect();
    expect(loginStatus(await third.logIn({ isid: 3 }))).toBe(0x0302);
    expect(await third.closes()).toBe(true);
    await until(() => world.portal.connectionCount === 2, 'the refused connection ends');
    await connect();
    await until(() => world.portal.connectionCount === 3, 'there is room for one more');
    expect(await isTurnedAway()).toBe(true);
  });

  it('to a target that has been removed in between is refused', async () => {
    await start();
    const initiator = await connect();
    initiator.send(initiator.loginParts(textData({ InitiatorName: INITIATOR_NAME, TargetName: TARGET_NAME }), 0x04));
    await initiator.receive();
    world.targets.delete(TARGET_NAME);
    initiator.send(initiator.loginParts(textData({}), 0x87));
    expect(loginStatus(await initiator.receive())).toBe(0x0204);
  });
});

describe('a session', () => {
  it('is told apart by initiator name, ISID and target', async () => {
    await start();
    world.targets.set('iqn.2026-01.org.thinlun:other', new Target('iqn.2026-01.org.thinlun:other'));
    const all = [
      await login(1),
      await login(2),
      await Initiator.login(world.port, { initiator: 'iqn.2026-01.org.example:two' }),
      await Initiator.login(world.port, { target: 'iqn.2026-01.org.thinlun:other' }),
      await Initiator.login(world.port, { target: null, keys: {} }),
    ];
    initiators.push(...all);
    expect(world.portal.sessions()).toHaveLength(5);
    expect(new Set(all.map((each) => each.tsih)).size).toBe(5);
    for (const each of all) expect(await each.ping()).toBe(true);
  });

  it('is reinstated: the old one ends, the new one is told of it, nothing is left', async () => {
    await start();
    const old = await login();
    const fresh = await Initiator.login(world.port);
    initiators.push(fresh);
    expect(await old.closes()).toBe(true);
    expect(world.portal.sessions()).toHaveLength(1);
    const attention = await fresh.command([0]);
    expect([attention.status, attention.sense[12]]).toEqual([2, 0x29]);
    expect((await fresh.readBlocks(0, 1)).status).toBe(0);
  });

  it('is reinstated only when the old one has no task in the engine, so that no old write overtakes a new one', async () => {
    await start();
    const old = await login();
    world.lun.holding = true;
    old.sendCommand(write10(0, 1), { write: 512, data: new Uint8Array(512).fill(1) });
    await until(() => world.lun.held.length === 1, 'the old write reaches the medium');
    const fresh = await connect();
    fresh.send(fresh.loginParts(textData({ InitiatorName: INITIATOR_NAME, TargetName: TARGET_NAME }), 0x87));
    // What comes behind the login waits too.
    fresh.sendCommand([0]);
    expect(await fresh.isSilent()).toBe(true);
    expect(old.closed).toBe(true);
    world.lun.release();
    expect(loginStatus(await fresh.receive())).toBe(0);
    expect((await fresh.result(1)).status).toBe(2);
    await fresh.writeBlocks(0, new Uint8Array(512).fill(2));
    expect((await fresh.readBlocks(0, 1)).data[0]).toBe(2);
  });

  it('that two reinstate at once goes to one of them', async () => {
    await start();
    const old = await login();
    world.lun.holding = true;
    old.sendCommand(read10(0, 1), { read: 512 });
    await until(() => world.lun.held.length === 1, 'the old read reaches the medium');
    const rivals = [await connect(), await connect(), await connect()];
    for (const each of rivals) {
      each.send(each.loginParts(textData({ InitiatorName: INITIATOR_NAME, TargetName: TARGET_NAME }), 0x87));
    }
    await new Promise((resolve) => setTimeout(resolve, 30));
    world.lun.release();
    await until(() => rivals.filter((each) => !each.closed).length === 1, 'one is left');
    const winner = rivals.find((each) => !each.closed)!;
    expect(loginStatus(await winner.receive())).toBe(0);
    expect(await winner.ping()).toBe(true);
    expect(world.portal.sessions()).toHaveLength(1);
  });

  it('keeps its handle, numbers and nexus when its connection is reinstated', async () => {
    await start();
    const old = await login();
    await old.readBlocks(0, 1);
    const fresh = await connect();
    fresh.cmdSn = old.cmdSn;
    const response = await fresh.logIn({ tsih: old.tsih, keys: {} });
    expect([loginStatus(response), u16(response, 14), u32(response, 28)]).toEqual([0, old.tsih, old.cmdSn]);
    expect(await old.closes()).toBe(true);
    // No unit attention: it is the same nexus.
    expect((await fresh.command([0])).status).toBe(0);
    expect(world.portal.sessions()).toHaveLength(1);
  });

  it('has one connection unless more were agreed on', async () => {
    await start();
    const initiator = await login();
    const second = await connect();
    expect(loginStatus(await second.logIn({ tsih: initiator.tsih, cid: 2 }))).toBe(0x0206);
    const stranger = await connect();
    expect(loginStatus(await stranger.logIn({ tsih: initiator.tsih, isid: 9 }))).toBe(0x020a);
    expect(await initiator.ping()).toBe(true);
  });
});

describe('a peer that stalls', () => {
  it('while it owes data is disconnected', async () => {
    const clock = new TestClock();
    await start({ clock });
    const debtor = await login(1);
    const idle = await login(2);
    debtor.sendCommand(write10(0, 8), { write: 4096 });
    await debtor.receive();
    for (let i = 0; i < 3; i++) {
      clock.advance(30_000);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    clock.advance(30_000);
    expect(await debtor.closes()).toBe(true);
    expect(await idle.ping()).toBe(true);
  });
});

describe('a portal', () => {
  it('says what is wrong with an address', async () => {
    await start();
    const again = world.portal.listen('127.0.0.1', world.port);
    await expect(again).rejects.toThrow(`Cannot listen on 127.0.0.1:${world.port}: the address is in use`);
    await expect(again).rejects.toBeInstanceOf(StorageError);
    await expect(world.portal.listen('192.0.2.1', 0)).rejects.toBeInstanceOf(StorageError);
  });

  it('listens on several addresses, IPv6 among them, and tells each initiator the one that it came to', async () => {
    await start();
    const second = await world.portal.listen('::1', 0);
    expect(second.address).toBe(`[::1]:${second.port}`);
    const initiator = await Initiator.connect(second.port, '::1');
    initiators.push(initiator);
    await initiator.logIn({ target: null, keys: {} });
    expect(await initiator.text({ SendTargets: 'All' })).toEqual({
      TargetName: TARGET_NAME,
      TargetAddress: `[::1]:${second.port},1`,
    });
  });

  it('closes: asks for a logout, answers what is in flight, then ends every connection', async () => {
    await start({ limits: { closeTimeMs: 400 } });
    const busy = await login(1);
    const polite = await login(2);
    const unfinished = await connect();
    world.lun.holding = true;
    const tag = busy.sendCommand(read10(0, 1), { read: 512 });
    await until(() => world.lun.held.length === 1, 'the command reaches the medium');
    const closing = world.portal.close();
    for (const each of [busy, polite]) {
      const message = await each.receive();
      expect([opcodeOf(message), message.header[36], u32(message, 16)]).toEqual([0x32, 1, 0xffffffff]);
    }
    expect(await unfinished.closes()).toBe(true);
    await polite.logOut();
    expect(await polite.closes()).toBe(true);
    setTimeout(() => world.lun.release(), 250);
    expect((await busy.result(tag)).status).toBe(0);
    // All connections of the session are dropped; it may be made again after DefaultTime2Wait.
    const farewell = await busy.receive();
    expect([opcodeOf(farewell), farewell.header[36], u16(farewell, 40), u16(farewell, 42)]).toEqual([0x32, 3, 2, 0]);
    expect(await busy.closes()).toBe(true);
    await closing;
    await expect(Initiator.connect(world.port)).rejects.toThrow();
  });

  it('closes in time even when the engine does not finish', async () => {
    await start({ limits: { closeTimeMs: 200 } });
    const initiator = await login();
    world.lun.holding = true;
    initiator.sendCommand(read10(0, 1), { read: 512 });
    await until(() => world.lun.held.length === 1, 'the command reaches the medium');
    await world.portal.close();
    expect(opcodeOf(await initiator.receive())).toBe(0x32);
    expect(await initiator.closes()).toBe(true);
    expect(world.portal.memoryUsedBytes).toBe(4096);
    world.lun.release();
    await until(() => world.portal.memoryUsedBytes === 0, 'the memory comes back');
  });
});
