import { afterEach, describe, expect, it } from 'vitest';
import { Initiator, opcodeOf, read10, TARGET_NAME, USUAL_KEYS, u16, u32, write10 } from '../support/iscsi-initiator.ts';
import { makeUnit, startPortal, type TestPortal, type TestPortalOptions, until } from '../support/iscsi-portal.ts';
import { TestClock } from '../support/test-clock.ts';

let world: TestPortal;
let clock: TestClock;
const initiators: Initiator[] = [];

async function start(options: TestPortalOptions = {}): Promise<void> {
  clock = new TestClock();
  world = await startPortal({ clock, ...options });
}

afterEach(() => world.end(initiators));

async function login(isid = 1): Promise<Initiator> {
  const initiator = await Initiator.login(world.port, { isid, keys: { ...USUAL_KEYS, MaxConnections: '4' } });
  initiators.push(initiator);
  await initiator.settle();
  return initiator;
}

/** Time goes by, in steps, and what is sent meanwhile arrives. */
async function pass(ms: number): Promise<void> {
  for (let left = ms; left > 0; left -= 5000) {
    clock.advance(Math.min(left, 5000));
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

describe('an initiator that says nothing', () => {
  it('is asked after 30 seconds, with a NOP-In that takes no StatSN, and stays when it answers', async () => {
    await start();
    const initiator = await login();
    initiator.answersPings = false;
    await pass(25_000);
    expect(await initiator.isSilent(10)).toBe(true);
    await pass(20_000);
    const ping = await initiator.receive();
    expect([opcodeOf(ping), ping.header[1], u32(ping, 16)]).toEqual([0x20, 0x80, 0xffffffff]);
    expect(u32(ping, 20)).not.toBe(0xffffffff);
    expect([u32(ping, 24), u32(ping, 28)]).toEqual([initiator.expStatSn, initiator.cmdSn]);
    initiator.answerPing(ping);
    await pass(25_000);
    expect(await initiator.isSilent(10)).toBe(true);
    initiator.answersPings = true;
    await pass(200_000);
    expect(await initiator.ping()).toBe(true);
  });

  it('is dropped when it does not answer for 30 seconds, with all connections of its session', async () => {
    await start();
    const initiator = await login();
    const second = await Initiator.join(initiator, world.port, { cid: 2 });
    initiators.push(second);
    initiator.answersPings = false;
    await pass(75_000);
    await until(() => initiator.closed && second.closed, 'both are dropped');
    expect(world.portal.sessions()).toEqual([]);
  });

  it('is not asked while it says something, be it the smallest', async () => {
    await start();
    const initiator = await login();
    initiator.answersPings = false;
    for (let i = 0; i < 12; i++) {
      await pass(15_000);
      expect(await initiator.ping()).toBe(true);
    }
  });

  it('is left alone while it is the portal that does not read from it', async () => {
    const limits = {
      slabBytes: 262144,
      slabBytesPerConnection: 131072,
      maxBurstLength: 65536,
      firstBurstLength: 65536,
      inputChunks: 0,
    };
    await start({ limits });
    const initiator = await login();
    initiator.answersPings = false;
    world.lun.holding = true;
    for (let i = 0; i < 6; i++) {
      initiator.sendCommand(write10(0, 128), { write: 65536, data: new Uint8Array(65536), tag: 50 + i });
    }
    await until(() => world.lun.held.length >= 2, 'the memory is full');
    await pass(200_000);
    expect(initiator.closed).toBe(false);
    world.lun.release();
    for (let i = 0; i < 6; i++) expect((await initiator.result(50 + i)).status).toBe(0);
  });

  it('has to answer with the tag of the question', async () => {
    await start();
    const initiator = await login();
    initiator.send({ opcode: 0, immediate: true, tag: 0xffffffff, fields: { 20: 7, 24: initiator.cmdSn } });
    const reject = await initiator.receive();
    expect([opcodeOf(reject), reject.header[2]]).toEqual([0x3f, 0x09]);
  });
});

describe('an initiator that owes data', () => {
  it('has to send more than a trickle', async () => {
    await start();
    const initiator = await login();
    const tag = initiator.sendCommand(write10(0, 2048), { write: 1048576 });
    const r2t = await initiator.receive();
    // 512 bytes every five seconds, and pings all the time.
    for (let sn = 0; sn < 20 && !initiator.closed; sn++) {
      initiator.sendDataOut(tag, u32(r2t, 20), sn, sn * 512, new Uint8Array(512), false);
      initiator.sendNop();
      await pass(5000);
    }
    await until(() => initiator.closed, 'it is dropped');
  });

  it('may be slow', async () => {
    await start();
    const initiator = await login();
    const data = new Uint8Array(262144).fill(7);
    const tag = initiator.sendCommand(write10(0, 512), { write: data.length });
    const r2t = await initiator.receive();
    for (let at = 0; at < data.length; at += 16384) {
      initiator.sendDataOut(
        tag,
        u32(r2t, 20),
        at / 16384,
        at,
        data.subarray(at, at + 16384),
        at + 16384 === data.length,
      );
      await pass(10_000);
    }
    expect((await initiator.result(tag)).status).toBe(0);
  });

  it('may take its time for one PDU as long as it comes', async () => {
    await start();
    const initiator = await login();
    const data = new Uint8Array(262144).fill(9);
    const tag = initiator.sendCommand(write10(0, 512), { write: data.length });
    const r2t = await initiator.receive();
    const pieces: Uint8Array[] = [];
    const { write } = initiator;
    initiator.write = (bytes) => void pieces.push(bytes);
    initiator.sendDataOut(tag, u32(r2t, 20), 0, 0, data, true);
    initiator.write = write;
    const stream = Buffer.concat(pieces);
    for (let at = 0; at < stream.length; at += 20_000) {
      initiator.write(stream.subarray(at, at + 20_000));
      await pass(10_000);
    }
    expect((await initiator.result(tag)).status).toBe(0);
  });
});

describe('the portal tells initiators', () => {
  it('that there are other LUNs, once for all that changes at a time', async () => {
    await start();
    const initiator = await login();
    world.target.setLun(1, makeUnit(world.lun, 2));
    world.target.setLun(2, makeUnit(world.lun, 3));
    world.target.removeLun(1);
    const message = await initiator.receive();
    expect([opcodeOf(message), message.header[1], message.header[36], u32(message, 16)]).toEqual([
      0x32, 0x80, 0, 0xffffffff,
    ]);
    // SenseLength, then fixed format sense data: UNIT ATTENTION, REPORTED LUNS DATA HAS CHANGED.
    expect(u16({ header: message.data, data: message.data }, 0)).toBe(message.data.length - 2);
    expect([message.data[2], message.data[4]! & 15, message.data[14], message.data[15]]).toEqual([0x70, 6, 0x3f, 0x0e]);
    // The unit attention waits all the same, for initiators that do not look at the message.
    const attention = await initiator.command([0]);
    expect([attention.status, attention.sense[12]]).toEqual([2, 0x3f]);
    expect(u32(attention.pdus[0]!, 24)).toBe(u32(message, 24) + 1);
    expect(await initiator.isSilent(20)).toBe(true);
  });

  it('of several connections one only', async () => {
    await start();
    const initiator = await login();
    const second = await Initiator.join(initiator, world.port, { cid: 2 });
    initiators.push(second);
    world.target.setLun(1, makeUnit(world.lun, 2));
    expect(opcodeOf(await initiator.receive())).toBe(0x32);
    expect(await second.isSilent(20)).toBe(true);
  });

  it('nothing when they do not read, however often it changes', async () => {
    await start({ limits: { outputBytes: 65536 } });
    const initiator = await login();
    initiator.socket.pause();
    for (let i = 0; i < 300; i++) initiator.sendNop(new Uint8Array(65536));
    await new Promise((resolve) => setTimeout(resolve, 200));
    for (let i = 0; i < 200; i++) {
      if (i % 2 === 0) world.target.setLun(1, makeUnit(world.lun, 2));
      else world.target.removeLun(1);
      await new Promise((resolve) => setImmediate(resolve));
    }
    initiator.socket.resume();
    let messages = 0;
    for (let i = 0; i < 300; i++) if (opcodeOf(await initiator.receive()) === 0x32) messages++;
    expect(messages).toBe(0);
  });

  it('to log out, for a reason of its own, and then ends those who stay', async () => {
    await start({ limits: { closeTimeMs: 10_000 } });
    const polite = await login(1);
    const busy = await login(2);
    const other = await Initiator.login(world.port, { target: null, keys: {}, isid: 3 });
    initiators.push(other);
    world.lun.holding = true;
    const tag = busy.sendCommand(read10(0, 1), { read: 512 });
    await until(() => world.lun.held.length === 1, 'the command reaches the medium');
    world.portal.dismiss(({ target }) => target === TARGET_NAME, 'the target goes');
    for (const each of [polite, busy]) {
      const message = await each.receive();
      expect([opcodeOf(message), message.header[36], u16(message, 42)]).toEqual([0x32, 1, 5]);
    }
    await polite.logOut();
    expect(await polite.closes()).toBe(true);
    clock.advance(5000);
    expect(await busy.isSilent(20)).toBe(true);
    world.lun.release();
    expect((await busy.result(tag)).status).toBe(0);
    const farewell = await busy.receive();
    expect([opcodeOf(farewell), farewell.header[36]]).toEqual([0x32, 3]);
    expect(await busy.closes()).toBe(true);
    expect(await other.ping()).toBe(true);
  });
});
