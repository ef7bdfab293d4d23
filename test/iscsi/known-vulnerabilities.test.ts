import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import {
  buildPdu,
  INITIATOR_NAME,
  Initiator,
  opcodeOf,
  read10,
  TARGET_NAME,
  textData,
  textList,
  USUAL_KEYS,
  u32,
  write10,
} from '../support/iscsi-initiator.ts';
import { startPortal, type TestPortal, until } from '../support/iscsi-portal.ts';

/** Mistakes that other targets have made in full feature phase, each by its name. */

const REJECT = 0x3f;
const NO_TAG = 0xffffffff;

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

describe('CVE-2021-28361 (SPDK): no data where data is due', () => {
  it('a write that brings nothing is asked for all of it', async () => {
    const initiator = await login();
    const tag = initiator.sendCommand(write10(0, 1), { write: 512 });
    const r2t = await initiator.receive();
    expect([opcodeOf(r2t), u32(r2t, 40), u32(r2t, 44)]).toEqual([0x31, 0, 512]);
    initiator.sendDataOut(tag, u32(r2t, 20), 0, 0, new Uint8Array(0), false);
    initiator.sendDataOut(tag, u32(r2t, 20), 1, 0, new Uint8Array(512), true);
    expect((await initiator.result(tag)).status).toBe(0);
  });

  it('a final Data-Out without data fails its command', async () => {
    const initiator = await login();
    const tag = initiator.sendCommand(write10(0, 1), { write: 512 });
    const r2t = await initiator.receive();
    initiator.sendDataOut(tag, u32(r2t, 20), 0, 0, new Uint8Array(0), true);
    expect(opcodeOf(await initiator.receive())).toBe(REJECT);
    expect((await initiator.result(tag)).status).toBe(2);
  });

  it('an empty parameter list, text or ping is what it is', async () => {
    const initiator = await login();
    // MODE SELECT, UNMAP, PERSISTENT RESERVE OUT with a length of 0 and nothing announced.
    for (const cdb of [
      [0x15, 0x10, 0, 0, 0, 0],
      [0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0],
      [0x5f, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ]) {
      expect([0, 2]).toContain((await initiator.command(cdb, { write: 0 })).status);
    }
    // The same CDBs that say there is data.
    for (const cdb of [
      [0x15, 0x10, 0, 0, 8, 0],
      [0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0],
      [0x5f, 0, 0, 0, 0, 0, 0, 0, 24, 0],
    ]) {
      expect((await initiator.command(cdb, { write: 0 })).status).toBe(2);
    }
    expect(await initiator.text({})).toEqual({});
    initiator.sendNop();
    expect((await initiator.receive()).data).toHaveLength(0);
  });
});

describe('CVE-less, SPDK 9d660f187a: additional header segments', () => {
  it.each([0, 4, 8, 20, 248, 256])('a PDU with %d bytes of them is rejected with all of its header', async (length) => {
    const initiator = await login({ MaxRecvDataSegmentLength: '512' });
    const ahs = new Uint8Array(length).fill(0xee);
    initiator.send({ opcode: 0x1c, immediate: true, tag: 3, ahs });
    const reject = await initiator.receive();
    expect([opcodeOf(reject), reject.data.length, reject.header[4]]).toEqual([REJECT, 48 + length, 0]);
    expect(Buffer.compare(reject.data.subarray(48), ahs)).toBe(0);
    expect(await initiator.ping()).toBe(true);
  });

  it.each([65, 66, 128, 255])('%d words of them end the connection before they come', async (words) => {
    const initiator = await login();
    const other = await login({}, 2);
    initiator.write(buildPdu({ opcode: 1, flags: 0xc0, tag: 3, bytes: { 4: words }, cdb: read10(0, 1) }));
    expect(await initiator.closes()).toBe(true);
    expect(await other.ping()).toBe(true);
  });
});

describe('CVE-less, SPDK 7d1db86f54: keys over several PDUs', () => {
  it('a text is the same wherever it is cut', async () => {
    const initiator = await login();
    const text = Buffer.from(textData({ SendTargets: TARGET_NAME, MaxRecvDataSegmentLength: '8192' }));
    initiator.sendText(text);
    const whole = textList((await initiator.receive()).data);
    expect(whole).toContain(`TargetName=${TARGET_NAME}`);
    for (let cut = 0; cut <= text.length; cut++) {
      initiator.sendText(text.subarray(0, cut), 0x40, NO_TAG, 77);
      const more = await initiator.receive();
      expect([opcodeOf(more), more.data.length]).toEqual([0x24, 0]);
      initiator.sendText(text.subarray(cut), 0x80, u32(more, 20), 77);
      expect(textList((await initiator.receive()).data)).toEqual(whole);
    }
  });

  it('one that never ends is dropped with its session', async () => {
    const initiator = await login();
    initiator.sendText(Buffer.from('SendTargets=A'), 0x40);
    await initiator.receive();
    expect(await initiator.ping()).toBe(true);
  });
});

describe('CVE-less, SPDK 565a44628d: data for an R2T whose task is gone', () => {
  it('is dropped, and what others own stays as it is', async () => {
    const initiator = await login({ MaxOutstandingR2T: '4', MaxBurstLength: '1024' });
    await initiator.writeBlocks(0, new Uint8Array(4096).fill(1), 0);
    const gone = initiator.sendCommand(write10(0, 8), { write: 4096 });
    const r2ts = [
      await initiator.receive(),
      await initiator.receive(),
      await initiator.receive(),
      await initiator.receive(),
    ];
    const kept = initiator.sendCommand(write10(8, 2), { write: 1024 });
    const keptR2t = await initiator.receive();
    initiator.sendTaskManagement(1, { refTag: gone });
    expect((await initiator.receive()).header[2]).toBe(0);
    for (const r2t of r2ts) {
      initiator.sendDataOut(gone, u32(r2t, 20), 0, u32(r2t, 40), new Uint8Array(1024).fill(9), true);
      // By the tag of the task that is still there.
      if (u32(r2t, 20) !== u32(keptR2t, 20)) continue;
      throw new Error('a transfer tag was given twice');
    }
    initiator.sendDataOut(kept, u32(keptR2t, 20), 0, 0, new Uint8Array(1024).fill(2), true);
    expect((await initiator.result(kept)).status).toBe(0);
    expect(new Set((await initiator.readBlocks(0, 8)).data)).toEqual(new Set([1]));
  });
});

describe('CVE-2013-2850 (LIO): long keys that nobody knows', () => {
  it.each([
    ['a key of 64 characters', `${'k'.repeat(64)}=1\0`],
    ['a key of 8000 characters', `${'k'.repeat(8000)}=1\0`],
    ['a value of 60000 characters', `X-a=${'v'.repeat(60_000)}\0`],
    ['a text of null bytes alone but for a piece', `${'\0'.repeat(5000)}x`],
  ])('%s is rejected', async (_what, text) => {
    const initiator = await login();
    initiator.sendText(Buffer.from(text));
    const reject = await initiator.receive();
    expect([opcodeOf(reject), reject.header[2]]).toEqual([REJECT, 0x04]);
    expect(await initiator.ping()).toBe(true);
  });

  it('the answer to many of them goes out in parts of what the initiator takes', async () => {
    const initiator = await login({ MaxRecvDataSegmentLength: '512' });
    const keys = Array.from({ length: 100 }, (_, i) => [`${'k'.repeat(60)}${100 + i}`, 'v'] as const);
    initiator.sendText(textData({ SendTargets: '', ...Object.fromEntries(keys) }));
    const parts: Uint8Array[] = [];
    for (;;) {
      const answer = await initiator.receive();
      expect(answer.data.length).toBeLessThanOrEqual(512);
      parts.push(answer.data);
      if ((answer.header[1]! & 0x80) !== 0) break;
      initiator.sendText(new Uint8Array(0), 0x80, u32(answer, 20));
    }
    const list = textList(Buffer.concat(parts));
    expect(list.filter((pair) => pair.endsWith('=NotUnderstood'))).toHaveLength(100);
  });
});

describe('CVE-less, tgt faa3bcb: sessions that nobody has any more', () => {
  it('do not stay, whatever ended their connections and whatever was under way', async () => {
    for (let round = 0; round < 20; round++) {
      const initiator = await Initiator.login(world.port, {
        isid: round % 3,
        keys: { ...USUAL_KEYS, MaxConnections: '2' },
      });
      initiators.push(initiator);
      if (round % 2 === 0) initiators.push(await Initiator.join(initiator, world.port, { isid: round % 3, cid: 2 }));
      world.lun.holding = round % 4 < 2;
      initiator.sendCommand([0]);
      initiator.sendCommand(write10(0, 8), { write: 4096 });
      initiator.sendCommand(read10(0, 8), { read: 4096 });
      if (round % 5 === 0) initiator.write(Buffer.alloc(20, 1));
      if (round % 3 === 0) initiator.socket.destroy();
      else if (round % 3 === 1) initiator.socket.end();
      await new Promise((resolve) => setTimeout(resolve, 1));
      world.lun.release();
    }
    for (const initiator of initiators.splice(0)) await initiator.close();
    await until(() => world.portal.sessions().length === 0, 'the last session ends');
    expect(world.unit.state.nexuses.size).toBe(0);
  });
});

describe('CVE-2026-23216 (LIO): connections that end while their tasks run', () => {
  it('at any byte of what two connections of a session send leave nothing', { timeout: 60_000 }, async () => {
    const stream = (cmdSn: number): Uint8Array =>
      Buffer.concat([
        buildPdu({ opcode: 1, flags: 0xc0, tag: cmdSn, cdb: read10(0, 4), fields: { 20: 2048, 24: cmdSn } }),
        buildPdu({
          opcode: 1,
          flags: 0x20,
          tag: cmdSn + 1,
          cdb: write10(0, 2),
          fields: { 20: 1024, 24: cmdSn + 1 },
          data: new Uint8Array(256),
        }),
        buildPdu({ opcode: 5, tag: cmdSn + 1, fields: { 20: NO_TAG, 40: 256 }, data: new Uint8Array(256) }),
        buildPdu({ opcode: 2, immediate: true, flags: 0x82, tag: 7, fields: { 24: cmdSn + 2 } }),
        buildPdu({
          opcode: 4,
          immediate: true,
          flags: 0x40,
          tag: 8,
          fields: { 20: NO_TAG, 24: cmdSn + 2 },
          data: Buffer.from('Send'),
        }),
      ]);
    const length = stream(1000).length;
    for (let cut = 0; cut <= length; cut += 3) {
      const first = await Initiator.login(world.port, { keys: { ...USUAL_KEYS, MaxConnections: '2' } });
      const second = await Initiator.join(first, world.port, { cid: 2 });
      initiators.push(first, second);
      world.lun.holding = cut % 2 === 0;
      first.write(stream(first.cmdSn));
      second.write(stream(first.cmdSn + 2).subarray(0, cut));
      if (cut % 4 < 2) await new Promise((resolve) => setImmediate(resolve));
      second.socket.destroy();
      world.lun.release();
      await until(() => first.closed && second.closed, 'both connections end');
    }
    await until(() => world.portal.memoryUsedBytes === 0, 'the memory comes back');
  });
});

describe('CVE-2024-45063 (FreeBSD): memory of others', () => {
  it('is in no answer, whatever is asked for', async () => {
    const secret = await login({}, 1);
    const nosy = await login({ HeaderDigest: 'None' }, 2);
    const marker = new Uint8Array(65536).fill(0xa5);
    for (let i = 0; i < 16; i++) {
      await secret.writeBlocks(1024, marker, i % 2 === 0 ? 65536 : 0);
      secret.sendNop(marker.subarray(0, 60_000));
      await secret.receive();
    }
    // More room than there is data, at block addresses that the marker is not in; commands that fail; odd lengths.
    const commands: [number[], number][] = [
      [[0x12, 0, 0, 1, 0, 0], 65536],
      [[0x12, 1, 0x83, 0xff, 0xff, 0], 65536],
      [[0x12, 1, 0xb0, 0xff, 0xff, 0], 65536],
      [[0x1a, 0, 0x3f, 0, 0xff, 0], 65536],
      [[0x5a, 0, 0x3f, 0, 0, 0, 0, 0xff, 0xff, 0], 65536],
      [[0xa0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0], 65536],
      [[0xa3, 0x0c, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0], 65536],
      [[0x4d, 0, 0x40, 0, 0, 0, 0, 0xff, 0xff, 0], 65536],
      [[0x9e, 0x12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0], 65536],
      [[0x3c, 2, 0, 0, 0, 0, 1, 0, 0, 0], 65536],
      [[0x5e, 3, 0, 0, 0, 0, 0, 0xff, 0xff, 0], 65536],
      [[0x03, 0, 0, 0, 252, 0], 65536],
      [read10(0, 3), 65536],
      [read10(0, 100), 1000],
      [read10(0xffffff, 3), 65536],
    ];
    for (const [cdb, room] of commands) {
      for (const read of [room, 1, 3, 509]) {
        const { pdus } = await nosy.command(cdb, { read });
        for (const { header, data } of pdus) expect(Buffer.concat([header, data]).includes(0xa5), `${cdb}`).toBe(false);
      }
    }
    nosy.sendNop(new Uint8Array(3));
    nosy.sendText(textData({ SendTargets: '' }));
    nosy.send({ opcode: 0x1c, immediate: true, tag: 3 });
    for (let i = 0; i < 3; i++) {
      const { header, data } = await nosy.receive();
      expect(Buffer.concat([header, data]).includes(0xa5)).toBe(false);
    }
  });

  it('is not taken by what an initiator says of lengths: nothing is allocated before it comes', async () => {
    const before = process.memoryUsage().external;
    const all = await Promise.all(Array.from({ length: 40 }, (_, i) => login({}, i + 1)));
    for (const initiator of all) {
      initiator.write(buildPdu({ opcode: 1, flags: 0xa0, tag: 1, cdb: write10(0, 8), dataLength: 262145 }));
      initiator.sendCommand(read10(0, 0xffff), { read: 0xffffffff });
    }
    for (const initiator of all) expect(await initiator.closes()).toBe(true);
    expect(process.memoryUsage().external - before).toBeLessThan(64 * 1024 * 1024);
  });
});

describe('CVE-2026-44943 (open-iscsi): names that others have chosen', () => {
  it.each(['iqn.2026-01.org.example:a\nb', 'iqn.2026-01.org.example:\u0007', 'iqn.2026-01.org.example:../x', '-n', ''])(
    'SendTargets=%j is refused or finds nothing',
    async (name) => {
      const initiator = await Initiator.login(world.port, { target: null, keys: {}, initiator: INITIATOR_NAME });
      initiators.push(initiator);
      initiator.sendText(Buffer.from(`SendTargets=${name}\0`));
      const answer = await initiator.receive();
      if (opcodeOf(answer) === 0x24)
        expect(textList(answer.data).filter((pair) => pair !== 'SendTargets=Reject')).toEqual([]);
      else expect(opcodeOf(answer)).toBe(REJECT);
    },
  );
});
