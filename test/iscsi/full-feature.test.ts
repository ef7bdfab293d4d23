import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { MemoryLun } from '../../src/block/memory-lun.ts';
import {
  buildPdu,
  Initiator,
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
import { makeUnit, startPortal, type TestPortal, until } from '../support/iscsi-portal.ts';

const NOP_IN = 0x20;
const TASK_MANAGEMENT_RESPONSE = 0x22;
const LOGOUT_RESPONSE = 0x26;
const REJECT = 0x3f;

let world: TestPortal;
const initiators: Initiator[] = [];

beforeEach(async () => {
  world = await startPortal();
});

afterEach(() => world.end(initiators));

async function login(keys: Record<string, string> = {}, isid = 1): Promise<Initiator> {
  const initiator = await Initiator.login(world.port, { keys: { ...USUAL_KEYS, ...keys }, isid });
  initiators.push(initiator);
  await initiator.settle();
  return initiator;
}

describe('command numbering', () => {
  it('opens a window of 128 commands, closes it as they come and opens it as they end', async () => {
    const initiator = await login();
    const tag = initiator.sendCommand([0]);
    const [response] = (await initiator.result(tag)).pdus;
    expect(u32(response!, 28)).toBe(initiator.cmdSn);
    expect(u32(response!, 32)).toBe(initiator.cmdSn + 127);
    world.lun.holding = true;
    const tags = Array.from({ length: 100 }, (_, i) => initiator.sendCommand(read10(i, 1), { read: 512 }));
    const ping = initiator.takeTag();
    initiator.sendNop(undefined, { tag: ping });
    const closed = await initiator.receive();
    expect(u32(closed, 28)).toBe(initiator.cmdSn);
    expect(u32(closed, 32)).toBe(initiator.cmdSn + 27);
    world.lun.release();
    let last = closed;
    for (const each of tags) last = (await initiator.result(each)).pdus.at(-1)!;
    expect(u32(last, 32)).toBe(initiator.cmdSn + 127);
  });

  it('takes a command with the last number of the window and ignores the one behind it', async () => {
    const initiator = await login();
    world.lun.holding = true;
    const first = initiator.cmdSn;
    for (let i = 0; i < 129; i++) initiator.sendCommand(read10(i, 1), { read: 512, tag: 1000 + i });
    await until(() => world.lun.held.length === 128, 'the window is full');
    expect(await initiator.isSilent()).toBe(true);
    world.lun.release();
    for (let i = 0; i < 128; i++) expect((await initiator.result(1000 + i)).status).toBe(0);
    expect(await initiator.isSilent()).toBe(true);
    // The one that was ignored can come again.
    initiator.sendCommand(read10(0, 1), { read: 512, tag: 5000, cmdSn: first + 128 });
    expect((await initiator.result(5000)).status).toBe(0);
  });

  it.each([
    ['before the window', -1],
    ['long before', -1000],
    ['behind the window', 128],
    ['far away', 0x80000000],
  ])('silently ignores a command %s, with its data', async (_what, distance) => {
    const initiator = await login();
    const cmdSn = (initiator.cmdSn + distance) >>> 0;
    initiator.sendCommand(write10(0, 1), { write: 512, data: new Uint8Array(512).fill(7), cmdSn });
    initiator.sendNop(undefined, { immediate: false, cmdSn });
    expect(await initiator.isSilent()).toBe(true);
    expect((await initiator.readBlocks(0, 1)).data.every((byte) => byte === 0)).toBe(true);
  });

  it('wraps around', async () => {
    const initiator = await Initiator.connect(world.port);
    initiators.push(initiator);
    initiator.cmdSn = 0xfffffffe;
    await initiator.logIn();
    for (let i = 0; i < 5; i++) {
      const [response] = (await initiator.command([0])).pdus;
      expect(u32(response!, 28)).toBe((0xfffffffe + i + 1) >>> 0);
    }
  });

  it('delivers in order what comes out of order, each with its data', async () => {
    const initiator = await login({ ImmediateData: 'Yes' });
    const { cmdSn } = initiator;
    const block = (byte: number): Uint8Array => new Uint8Array(512).fill(byte);
    // A read first on the wire and last in order; two writes to the same block, the second with unsolicited data behind it.
    initiator.sendCommand(read10(3, 1), { read: 512, cmdSn: cmdSn + 2, tag: 12 });
    initiator.sendCommand(write10(3, 1), { write: 512, cmdSn: cmdSn + 1, tag: 11, final: false });
    initiator.sendDataOut(11, 0xffffffff, 0, 0, block(2), true);
    expect(await initiator.isSilent()).toBe(true);
    initiator.sendCommand(write10(3, 1), { write: 512, cmdSn, tag: 10, data: block(1) });
    expect((await initiator.result(10)).status).toBe(0);
    expect((await initiator.result(11)).status).toBe(0);
    expect((await initiator.result(12)).data).toEqual(Buffer.from(block(2)));
  });

  it('counts every status once', async () => {
    const initiator = await login();
    let expected = initiator.expStatSn;
    for (const step of [
      () => initiator.command([0]),
      () => initiator.readBlocks(0, 1),
      () => initiator.writeBlocks(0, new Uint8Array(131072)),
      () => initiator.ping(),
      () => initiator.text({ SendTargets: '' }),
    ]) {
      await step();
      expected++;
      expect(initiator.expStatSn).toBe(expected);
    }
  });

  it('does not count immediate commands, and bounds them', async () => {
    const initiator = await login();
    world.lun.holding = true;
    for (let i = 0; i < 17; i++) initiator.sendCommand(read10(0, 1), { read: 512, tag: 100 + i, immediate: true });
    const reject = await initiator.receive();
    expect([opcodeOf(reject), reject.header[2]]).toEqual([REJECT, 0x06]);
    expect(u32({ header: reject.data, data: reject.data }, 16)).toBe(116);
    world.lun.release();
    for (let i = 0; i < 16; i++) {
      const { status, pdus } = await initiator.result(100 + i);
      expect(status).toBe(0);
      expect(u32(pdus[0]!, 28)).toBe(initiator.cmdSn);
    }
  });
});

describe('a ping', () => {
  it('comes back with its data', async () => {
    const initiator = await login();
    for (const length of [0, 1, 3, 4, 1000, 200_000]) {
      const data = Buffer.alloc(length, 'ping');
      initiator.sendNop(data, { tag: 55 });
      const pdu = await initiator.receive();
      expect(opcodeOf(pdu)).toBe(NOP_IN);
      expect(u32(pdu, 16)).toBe(55);
      expect(u32(pdu, 20)).toBe(0xffffffff);
      expect(Buffer.compare(pdu.data, data)).toBe(0);
    }
  });

  it('comes back with as much as the initiator takes in one PDU', async () => {
    const initiator = await login({ MaxRecvDataSegmentLength: '512' });
    initiator.sendNop(Buffer.alloc(1000, 'x'));
    expect((await initiator.receive()).data).toHaveLength(512);
  });

  it('has its turn when it is not immediate, and no answer when it has no tag', async () => {
    const initiator = await login();
    initiator.sendNop(undefined, { immediate: false, tag: 5 });
    expect(u32(await initiator.receive(), 28)).toBe(initiator.cmdSn);
    initiator.sendNop(undefined, { tag: 0xffffffff });
    expect(await initiator.isSilent()).toBe(true);
  });
});

describe('text in full feature phase', () => {
  it('tells a normal session of its own target only', async () => {
    world.targets.set('iqn.2026-01.org.thinlun:other', world.target);
    const initiator = await login();
    const own = { TargetName: TARGET_NAME, TargetAddress: `127.0.0.1:${world.port},1` };
    expect(await initiator.text({ SendTargets: '' })).toEqual(own);
    expect(await initiator.text({ SendTargets: TARGET_NAME })).toEqual(own);
    expect(await initiator.text({ SendTargets: 'All' })).toEqual(own);
    expect(await initiator.text({ SendTargets: 'iqn.2026-01.org.thinlun:other' })).toEqual({});
  });

  it('changes what the initiator takes in one PDU', async () => {
    const initiator = await login();
    expect(await initiator.text({ MaxRecvDataSegmentLength: '512' })).toEqual({});
    const { pdus } = await initiator.readBlocks(0, 4);
    expect(pdus).toHaveLength(4);
  });

  it('is answered key by key when something in it means something', async () => {
    const initiator = await login();
    expect(await initiator.text({ SendTargets: '', MaxBurstLength: '512', 'X-fnord': '1' })).toMatchObject({
      TargetName: TARGET_NAME,
      MaxBurstLength: 'Reject',
      'X-fnord': 'NotUnderstood',
    });
  });

  it.each([
    ['only unknown keys', textData({ SendTargetsPlease: 'All' }), 0x80, 0x05],
    ['a name that is none', textData({ SendTargets: 'Alle' }), 0x80, 0x05],
    ['no null byte', Buffer.from('SendTargets=All'), 0x80, 0x04],
    ['a key twice', Buffer.from('SendTargets=\0SendTargets=\0'), 0x80, 0x04],
    ['F and C', textData({ SendTargets: '' }), 0xc0, 0x04],
    ['more than the bound', new Uint8Array(70_000), 0x80, 0x04],
  ])('with %s is rejected', async (_what, data, flags, reason) => {
    const initiator = await login();
    initiator.sendText(data, flags);
    const reject = await initiator.receive();
    expect([opcodeOf(reject), reject.header[2]]).toEqual([REJECT, reason]);
    expect(await initiator.ping()).toBe(true);
  });

  it('may continue over several requests', async () => {
    const initiator = await login();
    const text = textData({ SendTargets: TARGET_NAME });
    initiator.sendText(text.subarray(0, 7), 0x40);
    const more = await initiator.receive();
    expect(more.data).toHaveLength(0);
    expect(more.header[1]).toBe(0);
    expect(u32(more, 20)).not.toBe(0xffffffff);
    initiator.sendText(text.subarray(7), 0x80, u32(more, 20));
    const answer = await initiator.receive();
    expect(answer.header[1]).toBe(0x80);
    expect(textPairs(answer.data)).toMatchObject({ TargetName: TARGET_NAME });
  });

  it('of unknown continuation is rejected', async () => {
    const initiator = await login();
    initiator.sendText(textData({ SendTargets: '' }), 0x80, 0x1234);
    expect((await initiator.receive()).header[2]).toBe(0x09);
  });
});

describe('task management', () => {
  async function manage(initiator: Initiator, code: number, options = {}): Promise<number> {
    const tag = initiator.sendTaskManagement(code, options);
    const response = await initiator.receive();
    expect(opcodeOf(response)).toBe(TASK_MANAGEMENT_RESPONSE);
    expect(u32(response, 16)).toBe(tag);
    return response.header[2]!;
  }

  it('aborts a task in the engine: no response to it, and one to the function only when it has ended', async () => {
    const initiator = await login();
    world.lun.holding = true;
    const tag = initiator.sendCommand(read10(0, 8), { read: 4096 });
    await until(() => world.lun.held.length === 1, 'the command reaches the medium');
    const function_ = initiator.sendTaskManagement(1, { refTag: tag });
    expect(await initiator.isSilent()).toBe(true);
    world.lun.release();
    const response = await initiator.receive();
    expect([opcodeOf(response), u32(response, 16), response.header[2]]).toEqual([0x22, function_, 0]);
    expect(await initiator.isSilent()).toBe(true);
    expect(u32(response, 32)).toBe(initiator.cmdSn + 127);
  });

  it('aborts a task whose data is coming in; what still comes is dropped', async () => {
    const initiator = await login();
    const tag = initiator.sendCommand(write10(0, 16), { write: 8192 });
    const r2t = await initiator.receive();
    expect(await manage(initiator, 1, { refTag: tag })).toBe(0);
    initiator.sendDataOut(tag, u32(r2t, 20), 0, 0, new Uint8Array(8192).fill(3), true);
    expect((await initiator.readBlocks(0, 16)).data.every((byte) => byte === 0)).toBe(true);
  });

  it('says that a task does not exist', async () => {
    const initiator = await login();
    const { cmdSn } = initiator;
    await initiator.command([0]);
    expect(await manage(initiator, 1, { refTag: 0x999, refCmdSn: cmdSn })).toBe(1);
    world.lun.holding = true;
    const tag = initiator.sendCommand(read10(0, 1), { read: 512 });
    await until(() => world.lun.held.length === 1, 'the command reaches the medium');
    // Of another LUN.
    expect(await manage(initiator, 1, { refTag: tag, lun: 4 })).toBe(1);
    world.lun.release();
    expect((await initiator.result(tag)).status).toBe(0);
  });

  it('takes a command that has not come as received', async () => {
    const initiator = await login();
    const missing = initiator.cmdSn++;
    const later = initiator.sendCommand(read10(0, 1), { read: 512 });
    expect(await initiator.isSilent()).toBe(true);
    const function_ = initiator.sendTaskManagement(1, { refTag: 0x777, refCmdSn: missing });
    const pdus = [await initiator.receive(), await initiator.receive()];
    expect(pdus.find((pdu) => opcodeOf(pdu) === 0x22)!.header[2]).toBe(0);
    expect(pdus.map((pdu) => u32(pdu, 16)).sort()).toEqual([later, function_].sort());
    initiator.sendCommand(write10(0, 1), { write: 512, cmdSn: missing, data: new Uint8Array(512).fill(9), tag: 0x777 });
    expect((await initiator.readBlocks(0, 1)).data.every((byte) => byte === 0)).toBe(true);
  });

  it('aborts a command that is held for its turn', async () => {
    const initiator = await login();
    const { cmdSn } = initiator;
    initiator.sendCommand(write10(0, 1), { write: 512, cmdSn: cmdSn + 1, tag: 41, data: new Uint8Array(512).fill(9) });
    expect(await manage(initiator, 1, { refTag: 41, refCmdSn: cmdSn + 1 })).toBe(0);
    initiator.sendCommand([0], { cmdSn, tag: 40 });
    await initiator.result(40);
    initiator.cmdSn = cmdSn + 2;
    expect((await initiator.readBlocks(0, 1)).data.every((byte) => byte === 0)).toBe(true);
  });

  it.each([
    ['ABORT TASK SET', 2, false],
    ['CLEAR TASK SET', 4, true],
    ['LOGICAL UNIT RESET', 5, true],
    ['TARGET WARM RESET', 6, true],
  ])('%s stops the tasks that it is for', async (name, code, everybody) => {
    world.target.setLun(1, makeUnit(new MemoryLun(2 ** 20), 2));
    const mine = await login();
    const other = await login({}, 2);
    for (const each of [mine, other]) for (const lun of [0, 0, 1]) await each.settle(lun);
    world.lun.holding = true;
    mine.sendCommand(read10(0, 1), { read: 512 });
    mine.sendCommand(write10(0, 8), { write: 4096 });
    await mine.receive();
    const elsewhere = mine.sendCommand(write10(0, 8), { write: 4096, lun: 1 });
    const r2t = await mine.receive();
    const theirs = other.sendCommand(read10(0, 1), { read: 512 });
    await until(() => world.lun.held.length === 2, 'both commands reach the medium');
    const function_ = mine.sendTaskManagement(code);
    expect(await mine.isSilent()).toBe(true);
    world.lun.release();
    const response = await mine.receive();
    expect([opcodeOf(response), u32(response, 16), response.header[2]]).toEqual([0x22, function_, 0]);
    if (everybody) {
      // The other initiator does not wait for what will not happen.
      expect((await other.result(theirs)).status).toBe(0x40);
      const { status, sense } = await other.command([0]);
      if (name === 'CLEAR TASK SET') expect(status).toBe(0);
      else expect([status, sense[2]! & 0xf, sense[12]]).toEqual([2, 6, 0x29]);
    } else expect((await other.result(theirs)).status).toBe(0);
    // Another LUN is touched by a target reset only.
    mine.sendDataOut(elsewhere, u32(r2t, 20), 0, 0, new Uint8Array(4096), true);
    if (code === 6) expect(await mine.isSilent()).toBe(true);
    else expect((await mine.result(elsewhere)).status).toBe(0);
    const { status, sense } = await mine.command([0]);
    if (name.includes('RESET')) expect([status, sense[2]! & 0xf, sense[12]]).toEqual([2, 6, 0x29]);
    else expect(status).toBe(0);
  });

  it('tells an initiator whose window was closed that it may send again', async () => {
    world.unit.taskSet.reportsAborted = false;
    const mine = await login();
    const other = await login({}, 2);
    world.lun.holding = true;
    for (let i = 0; i < 128; i++) other.sendCommand(read10(0, 1), { read: 512 });
    await until(() => world.lun.held.length === 128, 'the window of the other is full');
    mine.sendTaskManagement(5);
    await new Promise((resolve) => setTimeout(resolve, 20));
    world.lun.release();
    const update = await other.receive();
    expect([opcodeOf(update), u32(update, 16), u32(update, 20)]).toEqual([NOP_IN, 0xffffffff, 0xffffffff]);
    expect(u32(update, 32)).toBe(other.cmdSn);
    expect(await other.isSilent()).toBe(true);
    expect((await other.command([0])).status).toBe(2);
    expect(u32((await other.command([0])).pdus[0]!, 32)).toBe(other.cmdSn + 127);
    expect((await mine.receive()).header[2]).toBe(0);
  });

  it('TARGET COLD RESET ends every connection to the target, after its response', async () => {
    const mine = await login();
    const other = await login({}, 2);
    expect(await manage(mine, 7)).toBe(0);
    expect(await mine.closes()).toBe(true);
    await until(() => other.closed, 'the other connection ends');
  });

  it.each([
    ['CLEAR ACA', 3, 5],
    ['TASK REASSIGN', 8, 4],
    ['a function that nobody knows', 99, 5],
  ])('refuses %s', async (_what, code, response) => {
    expect(await manage(await login(), code)).toBe(response);
  });

  it.each([2, 4, 5])('says that a LUN does not exist (function %d)', async (code) => {
    expect(await manage(await login(), code, { lun: 9 })).toBe(2);
  });

  it('bounds the functions in progress', async () => {
    const initiator = await login();
    world.lun.holding = true;
    const tag = initiator.sendCommand(read10(0, 1), { read: 512 });
    await until(() => world.lun.held.length === 1, 'the command reaches the medium');
    for (let i = 0; i < 17; i++) initiator.sendTaskManagement(1, { refTag: tag });
    const reject = await initiator.receive();
    expect([opcodeOf(reject), reject.header[2]]).toEqual([REJECT, 0x06]);
    world.lun.release();
    for (let i = 0; i < 16; i++) expect((await initiator.receive()).header[2]).toBe(0);
  });
});

describe('a PDU that does not belong', () => {
  it.each([
    ['SNACK', 0x10, 0x03],
    ['a vendor opcode', 0x1c, 0x05],
    ['a reserved opcode', 0x0f, 0x05],
    ['an opcode of targets', 0x25, 0x05],
  ])('%s is rejected and harms nothing', async (_what, opcode, reason) => {
    const initiator = await login();
    initiator.send({ opcode, tag: 3, fields: { 24: initiator.cmdSn }, data: Buffer.from('data of it') });
    const reject = await initiator.receive();
    expect([opcodeOf(reject), reject.header[2], u32(reject, 16)]).toEqual([REJECT, reason, 0xffffffff]);
    expect(reject.data[0]).toBe(opcode);
    expect((await initiator.readBlocks(0, 1)).status).toBe(0);
  });

  it('a login request is rejected and ends the connection', async () => {
    const initiator = await login();
    initiator.send(initiator.loginParts(textData({}), 0x87));
    expect((await initiator.receive()).header[2]).toBe(0x04);
    expect(await initiator.closes()).toBe(true);
  });

  it('a data segment above MaxRecvDataSegmentLength ends the connection, and no other', async () => {
    const initiator = await login();
    const other = await login({}, 2);
    initiator.write(buildPdu({ opcode: 0, tag: 1, dataLength: 262145 }));
    expect(await initiator.closes()).toBe(true);
    expect(await other.ping()).toBe(true);
  });

  it('a wrong header digest ends the connection', async () => {
    const initiator = await login({ HeaderDigest: 'CRC32C' });
    const pdu = buildPdu({ opcode: 0, immediate: true, tag: 1 }, { headerDigest: true });
    pdu[20]! ^= 1;
    initiator.write(pdu);
    expect(await initiator.closes()).toBe(true);
  });

  it('too much before its turn ends the connection', async () => {
    const initiator = await login();
    const data = new Uint8Array(65536);
    for (let i = 0; i < 20 && !initiator.closed; i++) {
      initiator.sendCommand(write10(0, 128), { write: 65536, data, cmdSn: initiator.cmdSn + 1 + i });
    }
    expect(await initiator.closes()).toBe(true);
  });
});

describe('a logout', () => {
  async function logOut(initiator: Initiator, reason: number, cid = 1): Promise<number> {
    initiator.send({
      opcode: 6,
      immediate: true,
      flags: 0x80 | reason,
      tag: 9,
      bytes: { 21: cid },
      fields: { 24: initiator.cmdSn },
    });
    const response = await initiator.receive();
    expect([opcodeOf(response), u32(response, 16), u16(response, 40)]).toEqual([LOGOUT_RESPONSE, 9, 0]);
    return response.header[2]!;
  }

  it('ends the session after its response', async () => {
    const initiator = await login();
    expect(await logOut(initiator, 0)).toBe(0);
    expect(await initiator.closes()).toBe(true);
    await until(() => world.portal.sessions().length === 0, 'the session ends');
  });

  it('of the connection does the same', async () => {
    const initiator = await login();
    expect(await logOut(initiator, 1)).toBe(0);
    expect(await initiator.closes()).toBe(true);
  });

  it('of another connection, or for recovery, is refused', async () => {
    const initiator = await login();
    expect(await logOut(initiator, 1, 7)).toBe(1);
    expect(await logOut(initiator, 2)).toBe(2);
    expect(await initiator.ping()).toBe(true);
    initiator.send({ opcode: 6, immediate: true, flags: 0x83, tag: 9, fields: { 24: initiator.cmdSn } });
    expect((await initiator.receive()).header[2]).toBe(0x09);
  });

  it('comes after the answers to what is in the engine, and instead of those to what is not', async () => {
    const initiator = await login();
    world.lun.holding = true;
    const running = initiator.sendCommand(read10(0, 1), { read: 512 });
    initiator.sendCommand(write10(0, 8), { write: 4096 });
    await initiator.receive();
    initiator.send({ opcode: 6, immediate: true, tag: 9, fields: { 24: initiator.cmdSn } });
    expect(await initiator.isSilent()).toBe(true);
    world.lun.release();
    expect((await initiator.result(running)).status).toBe(0);
    expect(opcodeOf(await initiator.receive())).toBe(LOGOUT_RESPONSE);
    expect(await initiator.closes()).toBe(true);
  });
});

describe('a discovery session', () => {
  async function discover(): Promise<Initiator> {
    const initiator = await Initiator.login(world.port, { target: null, keys: {} });
    initiators.push(initiator);
    return initiator;
  }

  it('lists all targets, or one', async () => {
    world.targets.set('iqn.2026-01.org.thinlun:other', world.target);
    const initiator = await discover();
    initiator.sendText(textData({ SendTargets: 'All' }));
    const { data } = await initiator.receive();
    expect(Buffer.from(data).toString()).toBe(
      [...world.targets.keys()].map((name) => `TargetName=${name}\0TargetAddress=127.0.0.1:${world.port},1\0`).join(''),
    );
    expect(await initiator.text({ SendTargets: TARGET_NAME })).toMatchObject({ TargetName: TARGET_NAME });
    expect(await initiator.text({ SendTargets: 'iqn.2026-01.org.thinlun:none' })).toEqual({});
  });

  it('gets a list that is too long for one PDU in parts', async () => {
    for (let i = 0; i < 150; i++) world.targets.set(`iqn.2026-01.org.thinlun:volume-${i}`, world.target);
    const initiator = await discover();
    initiator.sendText(textData({ SendTargets: 'All' }), 0x80, 0xffffffff, 88);
    const parts: Uint8Array[] = [];
    for (;;) {
      const pdu = await initiator.receive();
      parts.push(pdu.data);
      if (pdu.header[1] === 0x80) break;
      expect(pdu.header[1]).toBe(0x40);
      expect(pdu.data).toHaveLength(8192);
      initiator.sendText(new Uint8Array(0), 0x80, u32(pdu, 20), 88);
    }
    expect(
      Buffer.concat(parts)
        .toString()
        .match(/TargetName=/g),
    ).toHaveLength(151);
    expect(parts.length).toBeGreaterThan(1);
  });

  it('has no tasks', async () => {
    const initiator = await discover();
    for (const opcode of [1, 2, 5]) {
      initiator.send({ opcode, immediate: true, tag: 4, fields: { 24: initiator.cmdSn } });
      const reject = await initiator.receive();
      expect([opcodeOf(reject), reject.header[2]]).toEqual([REJECT, 0x04]);
    }
    expect(await initiator.ping()).toBe(true);
  });

  it('logs out', async () => {
    const initiator = await discover();
    expect(opcodeOf(await initiator.logOut())).toBe(LOGOUT_RESPONSE);
    expect(await initiator.closes()).toBe(true);
  });
});

describe('several initiators', () => {
  it('do not disturb each other', async () => {
    const all = await Promise.all([1, 2, 3, 4].map((isid) => login({}, isid)));
    await Promise.all(
      all.map(async (initiator, index) => {
        for (let round = 0; round < 20; round++) {
          const data = new Uint8Array(8192).fill(index * 32 + round);
          expect((await initiator.writeBlocks(index * 16, data)).status).toBe(0);
          expect(Buffer.compare((await initiator.readBlocks(index * 16, 16)).data, data)).toBe(0);
        }
      }),
    );
    expect(world.portal.sessions()).toHaveLength(4);
  });
});
