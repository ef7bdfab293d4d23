import { afterEach, describe, expect, it } from 'vitest';
import type { PortalLimits } from '../../src/iscsi/limits.ts';
import {
  Initiator,
  loginStatus,
  opcodeOf,
  read10,
  textData,
  USUAL_KEYS,
  u16,
  u32,
  write10,
} from '../support/iscsi-initiator.ts';
import { startPortal, type TestPortal, until } from '../support/iscsi-portal.ts';

let world: TestPortal;
const initiators: Initiator[] = [];

afterEach(() => world.end(initiators));

/** A session with `count` connections, CIDs from 1. */
async function session(count: number, limits: Partial<PortalLimits> = {}): Promise<Initiator[]> {
  world = await startPortal({ limits });
  const first = await Initiator.login(world.port, { keys: { ...USUAL_KEYS, MaxConnections: '8' } });
  initiators.push(first);
  await first.settle();
  const all = [first];
  for (let cid = 2; cid <= count; cid++) all.push(await join(first, cid));
  return all;
}

async function join(first: Initiator, cid: number, keys: Record<string, string> = {}): Promise<Initiator> {
  const joined = await Initiator.join(first, world.port, { cid, keys });
  initiators.push(joined);
  return joined;
}

async function logOut(initiator: Initiator, reason: number, cid = 1): Promise<number> {
  initiator.send({
    opcode: 6,
    immediate: true,
    flags: 0x80 | reason,
    tag: 0x999,
    bytes: { 20: cid >>> 8, 21: cid & 0xff },
    fields: { 24: initiator.cmdSn },
  });
  const response = await initiator.receive();
  expect([opcodeOf(response), u32(response, 16)]).toEqual([0x26, 0x999]);
  return response.header[2]!;
}

const filled = (byte: number): Uint8Array => new Uint8Array(512).fill(byte);

describe('a session with several connections', () => {
  it('has as many as were agreed on, each with digests and numbers of its own', async () => {
    const [first] = await session(1);
    expect(first!.agreed['MaxConnections']).toBe('4');
    const second = await join(first!, 2, { HeaderDigest: 'CRC32C', DataDigest: 'CRC32C' });
    const third = await join(first!, 3);
    const fourth = await join(first!, 4);
    expect(new Set([first, second, third, fourth].map((each) => each!.tsih)).size).toBe(1);
    const fifth = await Initiator.connect(world.port);
    initiators.push(fifth);
    expect(loginStatus(await fifth.logIn({ tsih: first!.tsih, cid: 5, keys: {} }))).toBe(0x0206);
    // One nexus: no connection has a unit attention, and all see the same window.
    const statSn = second.expStatSn;
    expect((await second.command([0], { cmdSn: first!.cmdSn++ })).status).toBe(0);
    expect((await third.command([0], { cmdSn: first!.cmdSn++ })).status).toBe(0);
    expect(second.expStatSn).toBe(statSn + 1);
    expect(world.portal.sessions()).toMatchObject([{ connections: 4 }]);
    for (const each of [first!, second, third, fourth]) expect(await each.ping()).toBe(true);
  });

  it('answers each command on its own connection, in the order of CmdSN whichever connection is first', async () => {
    const [first, second, third] = (await session(3)) as [Initiator, Initiator, Initiator];
    const { cmdSn } = first;
    // The last write wins: CmdSN says which that is.
    const tags = [
      third.sendCommand(write10(0, 1), { write: 512, data: filled(3), cmdSn: cmdSn + 2, tag: 103 }),
      second.sendCommand(write10(0, 1), { write: 512, data: filled(2), cmdSn: cmdSn + 1, tag: 102 }),
    ];
    expect(await third.isSilent()).toBe(true);
    const early = first.sendCommand(write10(0, 1), { write: 512, data: filled(1), cmdSn, tag: 101 });
    expect((await first.result(early)).status).toBe(0);
    expect((await second.result(tags[1]!)).status).toBe(0);
    expect((await third.result(tags[0]!)).status).toBe(0);
    const read = await second.command(read10(0, 1), { read: 512, cmdSn: cmdSn + 3 });
    expect(read.data[0]).toBe(3);
  });

  it('takes solicited data where the command came', async () => {
    const [first, second] = (await session(2)) as [Initiator, Initiator];
    const data = new Uint8Array(8192).map((_, i) => i);
    const tag = second.sendCommand(write10(8, 16), { write: 8192, cmdSn: first.cmdSn++, tag: 7 });
    expect((await second.result(tag, data)).status).toBe(0);
    const read = await first.command(read10(8, 16), { read: 8192 });
    expect(Buffer.compare(read.data, data)).toBe(0);
  });

  it('has one CmdSN window for all', async () => {
    const [first, second] = (await session(2, { commandWindow: 2 })) as [Initiator, Initiator];
    world.lun.holding = true;
    const { cmdSn } = first;
    const one = first.sendCommand(read10(0, 1), { read: 512, cmdSn, tag: 1 });
    const two = second.sendCommand(read10(0, 1), { read: 512, cmdSn: cmdSn + 1, tag: 2 });
    await until(() => world.lun.held.length === 2, 'both reach the medium');
    second.sendCommand(read10(0, 1), { read: 512, cmdSn: cmdSn + 2, tag: 3 });
    expect(await second.isSilent()).toBe(true);
    world.lun.release();
    const pdus = [await first.result(one), await second.result(two)].map(({ pdus: [pdu] }) => pdu!);
    expect(Math.max(...pdus.map((pdu) => u32(pdu, 32)))).toBe(cmdSn + 3);
    // What was outside of the window was not taken.
    expect(await second.isSilent()).toBe(true);
    expect((await second.command([0], { cmdSn: cmdSn + 2 })).status).toBe(0);
  });

  it('rejects a task tag that another connection is using', async () => {
    const [first, second] = (await session(2)) as [Initiator, Initiator];
    world.lun.holding = true;
    first.sendCommand(read10(0, 1), { read: 512, tag: 5 });
    await until(() => world.lun.held.length === 1, 'it reaches the medium');
    second.sendCommand(read10(0, 1), { read: 512, tag: 5, cmdSn: first.cmdSn++ });
    const reject = await second.receive();
    expect([opcodeOf(reject), reject.header[2]]).toEqual([0x3f, 0x07]);
    world.lun.release();
    expect((await first.result(5)).status).toBe(0);
  });

  it('stops its tasks on all connections with one task management function', async () => {
    const [first, second] = (await session(2)) as [Initiator, Initiator];
    world.lun.holding = true;
    first.sendCommand(read10(0, 1), { read: 512, tag: 5 });
    second.sendCommand(read10(0, 1), { read: 512, tag: 6, cmdSn: first.cmdSn++ });
    await until(() => world.lun.held.length === 2, 'both reach the medium');
    const tag = second.sendTaskManagement(2);
    expect(await second.isSilent()).toBe(true);
    world.lun.release();
    const response = await second.receive();
    expect([opcodeOf(response), u32(response, 16), response.header[2]]).toEqual([0x22, tag, 0]);
    expect(await first.isSilent()).toBe(true);
  });

  it('goes on when one connection is logged out, with the tasks of the others', async () => {
    const [first, second] = (await session(2)) as [Initiator, Initiator];
    world.lun.holding = true;
    const tag = first.sendCommand(read10(0, 1), { read: 512 });
    await until(() => world.lun.held.length === 1, 'it reaches the medium');
    expect(await logOut(second, 1, 2)).toBe(0);
    expect(await second.closes()).toBe(true);
    world.lun.release();
    expect((await first.result(tag)).status).toBe(0);
    expect(world.portal.sessions()).toMatchObject([{ connections: 1 }]);
    await join(first, 2);
  });

  it('lets one connection log out another, after its answers', async () => {
    const [first, second] = (await session(2)) as [Initiator, Initiator];
    world.lun.holding = true;
    const tag = second.sendCommand(read10(0, 1), { read: 512, cmdSn: first.cmdSn++ });
    await until(() => world.lun.held.length === 1, 'it reaches the medium');
    const response = logOut(first, 1, 2);
    expect(await first.isSilent()).toBe(true);
    world.lun.release();
    expect(await response).toBe(0);
    expect((await second.result(tag)).status).toBe(0);
    expect(await second.closes()).toBe(true);
    expect(await logOut(first, 1, 2)).toBe(1);
    expect(await first.ping()).toBe(true);
  });

  it('is logged out as a whole on any connection, when no task is left on the others', async () => {
    const [first, second, third] = (await session(3)) as [Initiator, Initiator, Initiator];
    world.lun.holding = true;
    const tag = second.sendCommand(read10(0, 1), { read: 512, cmdSn: first.cmdSn++ });
    await until(() => world.lun.held.length === 1, 'it reaches the medium');
    const response = logOut(third, 0);
    expect(await first.closes()).toBe(true);
    const stray = await Initiator.connect(world.port);
    initiators.push(stray);
    expect(loginStatus(await stray.logIn({ tsih: first.tsih, cid: 4, keys: {} }))).toBe(0x020a);
    world.lun.release();
    expect((await second.result(tag)).status).toBe(0);
    expect(await response).toBe(0);
    expect([await second.closes(), await third.closes()]).toEqual([true, true]);
  });

  it('ends with all of its connections when one is lost, and cannot be continued', async () => {
    const [first, second, third] = (await session(3)) as [Initiator, Initiator, Initiator];
    world.lun.holding = true;
    second.sendCommand(read10(0, 1), { read: 512, cmdSn: first.cmdSn++ });
    await until(() => world.lun.held.length === 1, 'it reaches the medium');
    await third.close();
    expect([await first.closes(), await second.closes()]).toEqual([true, true]);
    const stray = await Initiator.connect(world.port);
    initiators.push(stray);
    expect(loginStatus(await stray.logIn({ tsih: first.tsih, cid: 2, keys: {} }))).toBe(0x020a);
    // The session stays until the engine has given back its last task.
    expect(world.portal.sessions()).toHaveLength(1);
    world.lun.release();
    await until(() => world.portal.sessions().length === 0, 'the session ends');
  });

  it('keeps the others when one is reinstated', async () => {
    const [first, second] = (await session(2)) as [Initiator, Initiator];
    world.lun.holding = true;
    const tag = first.sendCommand(read10(0, 1), { read: 512, tag: 1 });
    second.sendCommand(read10(0, 1), { read: 512, tag: 2, cmdSn: first.cmdSn++ });
    await until(() => world.lun.held.length === 2, 'both reach the medium');
    const again = await Initiator.connect(world.port);
    initiators.push(again);
    const response = again.logIn({ tsih: first.tsih, cid: 2, keys: {} });
    expect(await second.closes()).toBe(true);
    expect(await again.isSilent()).toBe(true);
    world.lun.release();
    expect([loginStatus(await response), u16(await response, 14)]).toEqual([0, first.tsih]);
    expect((await first.result(tag)).status).toBe(0);
    expect((await again.command([0], { cmdSn: first.cmdSn++ })).status).toBe(0);
    expect(world.portal.sessions()).toMatchObject([{ connections: 2 }]);
  });

  it('that three logins reinstate at once keeps one of them', async () => {
    const [first, second] = (await session(2)) as [Initiator, Initiator];
    world.lun.holding = true;
    second.sendCommand(read10(0, 1), { read: 512, cmdSn: first.cmdSn++ });
    await until(() => world.lun.held.length === 1, 'it reaches the medium');
    const rivals: Initiator[] = [];
    for (let i = 0; i < 3; i++) {
      const rival = await Initiator.connect(world.port);
      rivals.push(rival);
      initiators.push(rival);
      const text = { InitiatorName: 'iqn.2026-01.org.example:initiator', TargetName: 'iqn.2026-01.org.thinlun:test' };
      rival.send(rival.loginParts(textData(text), 0x87, { tsih: first.tsih, cid: 2 }));
    }
    await new Promise((resolve) => setTimeout(resolve, 30));
    world.lun.release();
    await until(() => rivals.filter(({ closed }) => !closed).length === 1, 'one is left');
    await until(() => world.portal.connectionCount === 2, 'the others are gone');
    expect(await first.ping()).toBe(true);
  });

  it('holds no more out of order than one connection may', async () => {
    const [first, second, third] = (await session(3, { heldBytes: 300_000 })) as [Initiator, Initiator, Initiator];
    const big = new Uint8Array(65536);
    for (let i = 1; i <= 4; i++) {
      const owner = i % 2 === 0 ? second : third;
      owner.sendCommand(write10(0, 128), { write: 65536, data: big, cmdSn: first.cmdSn + i, tag: i });
    }
    expect(await first.ping()).toBe(true);
    second.sendCommand(write10(0, 128), { write: 65536, data: big, cmdSn: first.cmdSn + 5, tag: 5 });
    expect(await first.closes()).toBe(true);
  });

  it('delivers on one connection what a stalled one held back, when there is memory', async () => {
    const limits = { slabBytes: 262144, slabBytesPerConnection: 65536, maxBurstLength: 16384, firstBurstLength: 8192 };
    const [first, second] = (await session(2, limits)) as [Initiator, Initiator];
    world.lun.holding = true;
    const { cmdSn } = first;
    // All of the urgent and of its own memory goes into writes of the first connection, so that it stands still.
    const count = 40;
    for (let i = 0; i < count; i++) {
      first.sendCommand(write10(i * 8, 8), {
        write: 4096,
        data: new Uint8Array(4096).fill(i),
        cmdSn: cmdSn + i,
        tag: 100 + i,
      });
    }
    const behind = second.sendCommand(read10(0, 8), { read: 4096, cmdSn: cmdSn + count, tag: 99 });
    expect(await second.isSilent()).toBe(true);
    world.lun.release();
    for (let i = 0; i < count; i++) expect([0, 0x28]).toContain((await first.result(100 + i)).status);
    const read = await second.result(behind);
    expect([read.status, read.data[0]]).toEqual([0, 0]);
  });
});
