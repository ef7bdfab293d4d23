import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import {
  buildPdu,
  type CommandResult,
  Initiator,
  opcodeOf,
  type Pdu,
  read10,
  USUAL_KEYS,
  u32,
  write10,
} from '../support/iscsi-initiator.ts';
import { startPortal, type TestPortal, until } from '../support/iscsi-portal.ts';

const DATA_IN = 0x25;
const RESPONSE = 0x21;
const R2T = 0x31;
const REJECT = 0x3f;

let world: TestPortal;
const initiators: Initiator[] = [];

beforeEach(async () => {
  world = await startPortal();
});

afterEach(() => world.end(initiators));

async function login(keys: Record<string, string> = {}): Promise<Initiator> {
  const initiator = await Initiator.login(world.port, { keys: { ...USUAL_KEYS, ...keys } });
  initiators.push(initiator);
  await initiator.settle();
  return initiator;
}

/** Bytes that differ from block to block and within a block. */
function pattern(length: number, seed: number = 1): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let i = 0; i < length; i++) bytes[i] = (i * 7 + (i >>> 9) * 13 + seed) & 0xff;
  return bytes;
}

/** ABORTED COMMAND with this code. */
function expectAborted(sense: Uint8Array, code: number): void {
  expect(sense[2]! & 0xf).toBe(0x0b);
  expect(sense[12]! * 256 + sense[13]!).toBe(code);
}

describe.each([
  ['without digests', {}],
  ['with header digests', { HeaderDigest: 'CRC32C' }],
  ['with data digests', { DataDigest: 'CRC32C' }],
  ['with both digests', { HeaderDigest: 'CRC32C', DataDigest: 'CRC32C' }],
])('data %s', (_name, digests) => {
  it.each([
    ['one block', 512],
    ['4 KiB', 4096],
    ['just more than a copied piece', 8192 + 512],
    ['64 KiB', 65536],
    ['1 MiB', 1048576],
  ])('comes back as it was written: %s', async (_size, length) => {
    const initiator = await login(digests);
    const data = pattern(length);
    const written = await initiator.writeBlocks(40, data);
    expect(written).toMatchObject({ status: 0, residual: 0 });
    const read = await initiator.readBlocks(40, length / 512);
    expect(read).toMatchObject({ status: 0, residual: 0 });
    expect(Buffer.compare(read.data, data)).toBe(0);
  });
});

describe('reads', () => {
  it('are cut to what the initiator takes in one PDU, in order, with the status in the last', async () => {
    const initiator = await login({ MaxRecvDataSegmentLength: '1536', MaxBurstLength: '4096' });
    await initiator.writeBlocks(0, pattern(10240), 0);
    const { pdus, data, status } = await initiator.readBlocks(0, 20);
    expect(status).toBe(0);
    expect(Buffer.compare(data, pattern(10240))).toBe(0);
    let offset = 0;
    for (const [index, pdu] of pdus.entries()) {
      expect(opcodeOf(pdu)).toBe(DATA_IN);
      expect(pdu.data.length).toBeLessThanOrEqual(1536);
      expect(u32(pdu, 36)).toBe(index);
      expect(u32(pdu, 40)).toBe(offset);
      expect(u32(pdu, 20)).toBe(0xffffffff);
      offset += pdu.data.length;
      // F ends each burst of 4096 and the whole.
      const last = index === pdus.length - 1;
      expect(pdu.header[1]! & 0x80).toBe(offset % 4096 === 0 || last ? 0x80 : 0);
      expect(pdu.header[1]! & 1).toBe(last ? 1 : 0);
    }
  });

  it('say what was too much or too little room', async () => {
    const initiator = await login();
    await initiator.writeBlocks(0, pattern(2048));
    const less = await initiator.command(read10(0, 1), { read: 2048 });
    expect(less).toMatchObject({ status: 0, residual: 1536 });
    expect(Buffer.compare(less.data, pattern(512))).toBe(0);
    const more = await initiator.command(read10(0, 4), { read: 1000 });
    expect(more).toMatchObject({ status: 0, residual: -1048 });
    expect(Buffer.compare(more.data, pattern(2048).subarray(0, 1000))).toBe(0);
    const nothing = await initiator.command(read10(0, 4), { read: 0 });
    expect(nothing).toMatchObject({ status: 0, residual: -2048 });
    const none = await initiator.command(read10(0, 0), { read: 512 });
    expect(none).toMatchObject({ status: 0, residual: 512 });
  });

  it('that fail bring sense data and all of the room as residual', async () => {
    const initiator = await login();
    const result = await initiator.command(read10(0xfffffff0, 8), { read: 4096 });
    expect(result).toMatchObject({ status: 2, residual: 4096 });
    expect(result.sense[2]! & 0xf).toBe(5);
    expect(result.sense[12]).toBe(0x21);
    expect(opcodeOf(result.pdus[0]!)).toBe(RESPONSE);
  });

  it('of a LUN that is not there fail, at every kind of LUN', async () => {
    const initiator = await login();
    const single = await initiator.command(read10(0, 1), { lun: 300, read: 512 });
    expect(single.status).toBe(2);
    expect(single.sense[12]).toBe(0x25);
    const tag = initiator.takeTag();
    initiator.send({
      opcode: 1,
      flags: 0xc0,
      tag,
      bytes: { 8: 0xc1, 9: 1, 10: 7 },
      fields: { 20: 512, 24: initiator.cmdSn++ },
      cdb: read10(0, 1),
    });
    expect((await initiator.result(tag)).sense[12]).toBe(0x25);
  });
});

describe('writes', () => {
  it('are asked for in bursts, as many at a time as was agreed', async () => {
    const initiator = await login({
      MaxBurstLength: '4096',
      MaxOutstandingR2T: '3',
      ImmediateData: 'No',
      InitialR2T: 'Yes',
    });
    const data = pattern(18432);
    const tag = initiator.sendCommand(write10(8, 36), { write: data.length });
    const pending: Pdu[] = [];
    for (let i = 0; i < 3; i++) pending.push(await initiator.receive());
    expect(await initiator.isSilent()).toBe(true);
    let asked = 3;
    for (let expected = 0; expected < data.length; expected += 4096) {
      const r2t = pending.shift()!;
      expect(opcodeOf(r2t)).toBe(R2T);
      expect(u32(r2t, 16)).toBe(tag);
      expect(u32(r2t, 36)).toBe(expected / 4096);
      expect(u32(r2t, 40)).toBe(expected);
      expect(u32(r2t, 44)).toBe(Math.min(4096, data.length - expected));
      const burst = data.subarray(expected, expected + u32(r2t, 44));
      for (let at = 0, sn = 0; at < burst.length; at += 1000, sn++) {
        const piece = burst.subarray(at, at + 1000);
        initiator.sendDataOut(tag, u32(r2t, 20), sn, expected + at, piece, at + piece.length === burst.length);
      }
      if (asked++ < 5) pending.push(await initiator.receive());
    }
    const response = await initiator.result(tag);
    expect(response).toMatchObject({ status: 0, residual: 0 });
    expect(u32(response.pdus[0]!, 36)).toBe(5);
    expect(Buffer.compare((await initiator.readBlocks(8, 36)).data, data)).toBe(0);
  });

  it('may bring immediate data, unsolicited data and solicited data', async () => {
    const initiator = await login({ FirstBurstLength: '8192', MaxBurstLength: '8192' });
    const data = pattern(32768);
    const tag = initiator.sendCommand(write10(0, 64), {
      write: data.length,
      data: data.subarray(0, 2048),
      final: false,
    });
    initiator.sendDataOut(tag, 0xffffffff, 0, 2048, data.subarray(2048, 5000), false);
    initiator.sendDataOut(tag, 0xffffffff, 1, 5000, data.subarray(5000, 8192), true);
    expect((await initiator.result(tag, data)).status).toBe(0);
    expect(Buffer.compare((await initiator.readBlocks(0, 64)).data, data)).toBe(0);
  });

  it('may bring less unsolicited data than they may', async () => {
    const initiator = await login();
    const data = pattern(8192);
    const tag = initiator.sendCommand(write10(0, 16), { write: data.length, final: false });
    initiator.sendDataOut(tag, 0xffffffff, 0, 0, data.subarray(0, 512), true);
    const r2t = await initiator.receive();
    expect([u32(r2t, 40), u32(r2t, 44)]).toEqual([512, 7680]);
    initiator.sendDataOut(tag, u32(r2t, 20), 0, 512, data.subarray(512), true);
    expect((await initiator.result(tag)).status).toBe(0);
    expect(Buffer.compare((await initiator.readBlocks(0, 16)).data, data)).toBe(0);
  });

  it('say what was announced and not used, and write no more than the command says', async () => {
    const initiator = await login();
    await initiator.writeBlocks(0, pattern(2048, 9));
    const data = pattern(2048);
    const more = await initiator.command(write10(0, 1), { write: 2048, data });
    expect(more).toMatchObject({ status: 0, residual: 1536 });
    const read = await initiator.readBlocks(0, 4);
    expect(Buffer.compare(read.data, Buffer.concat([data.subarray(0, 512), pattern(2048, 9).subarray(512)]))).toBe(0);
    const less = await initiator.command(write10(0, 4), { write: 1024, data: data.subarray(0, 1024) });
    expect(less.residual).toBe(-1024);
  });

  it('wait for announced data that the command has no use for', async () => {
    const initiator = await login();
    // VERIFY without BYTCHK takes no data, whatever the initiator announces.
    const verify = [0x2f, 0, 0, 0, 0, 0, 0, 0, 4, 0];
    const tag = initiator.sendCommand(verify, { write: 2048, final: false });
    expect(await initiator.isSilent()).toBe(true);
    initiator.sendDataOut(tag, 0xffffffff, 0, 0, pattern(1000), false);
    initiator.sendDataOut(tag, 0xffffffff, 1, 1000, pattern(24), true);
    expect(await initiator.result(tag)).toMatchObject({ status: 0, residual: 2048 });
    expect((await initiator.readBlocks(0, 1)).status).toBe(0);
  });

  it('that fail are answered only when the unsolicited data is in', async () => {
    const initiator = await login();
    const tag = initiator.sendCommand(write10(0xfffffff0, 16), { write: 8192, final: false });
    expect(await initiator.isSilent()).toBe(true);
    initiator.sendDataOut(tag, 0xffffffff, 0, 0, pattern(8192), true);
    const result = await initiator.result(tag);
    expect(result).toMatchObject({ status: 2, residual: 8192 });
    expect(result.sense[12]).toBe(0x21);
  });
});

describe('wrong data', () => {
  it.each([
    ['an offset that is not the next', { offset: 512 }, 0x09, 0x4705],
    ['a transfer tag that was not given', { transferTag: 0x7777 }, 0x09, 0x4705],
    ['more than was asked for', { length: 8704 }, 0x04, 0x0c0d],
    ['less than was asked for', { length: 512 }, 0x04, 0x0c0d],
  ])('%s is rejected, and the command fails', async (_what, wrong, reason, code) => {
    const initiator = await login({ MaxBurstLength: '8192', MaxOutstandingR2T: '1' });
    await initiator.writeBlocks(0, pattern(8192, 5), 0);
    const tag = initiator.sendCommand(write10(0, 16), { write: 8192 });
    const r2t = await initiator.receive();
    const { sn = 0, offset = 0, transferTag = u32(r2t, 20), length = 8192 } = wrong as Record<string, number>;
    initiator.sendDataOut(tag, transferTag, sn, offset, pattern(length), true);
    const reject = await initiator.receive();
    expect(opcodeOf(reject)).toBe(REJECT);
    expect(reject.header[2]).toBe(reason);
    // The rejected header comes back.
    expect(u32({ header: reject.data, data: reject.data }, 16)).toBe(tag);
    const result = await initiator.result(tag);
    expect(result).toMatchObject({ status: 2, residual: 8192 });
    expectAborted(result.sense, code);
    expect(Buffer.compare((await initiator.readBlocks(0, 16)).data, pattern(8192, 5))).toBe(0);
  });

  it.each([27, 0xffffffff, 1])('a DataSN of %i where 0 is the next fails the command, without a reject', async (sn) => {
    const initiator = await login({ MaxBurstLength: '8192', MaxOutstandingR2T: '1' });
    await initiator.writeBlocks(0, pattern(8192, 5), 0);
    const tag = initiator.sendCommand(write10(0, 16), { write: 8192 });
    initiator.sendDataOut(tag, u32(await initiator.receive(), 20), sn, 0, pattern(8192), true);
    const result = await initiator.result(tag);
    expect(result).toMatchObject({ status: 2, residual: 8192 });
    expectAborted(result.sense, 0x4705);
    expect(Buffer.compare((await initiator.readBlocks(0, 16)).data, pattern(8192, 5))).toBe(0);
  });

  it('two Data-Out with the same DataSN fail the command after the last of them', async () => {
    const initiator = await login();
    const tag = initiator.sendCommand(write10(0, 2), { write: 1024 });
    const r2t = await initiator.receive();
    initiator.sendDataOut(tag, u32(r2t, 20), 0, 0, pattern(512), false);
    initiator.sendDataOut(tag, u32(r2t, 20), 0, 512, pattern(512), false);
    expect(await initiator.isSilent()).toBe(true);
    initiator.sendDataOut(tag, u32(r2t, 20), 1, 1024, new Uint8Array(0), true);
    expectAborted((await initiator.result(tag)).sense, 0x4705);
  });

  it('an answer to the second R2T before the first fails the command', async () => {
    const initiator = await login({ MaxBurstLength: '512', MaxOutstandingR2T: '2' });
    const tag = initiator.sendCommand(write10(0, 2), { write: 1024 });
    const first = await initiator.receive();
    const second = await initiator.receive();
    initiator.sendDataOut(tag, u32(second, 20), 0, 512, pattern(512), true);
    expect((await initiator.receive()).header[2]).toBe(0x09);
    initiator.sendDataOut(tag, u32(first, 20), 0, 0, pattern(512), true);
    expectAborted((await initiator.result(tag)).sense, 0x4705);
  });

  it('that nobody asked for is dropped, rejected where its task is there', async () => {
    const initiator = await login();
    initiator.sendDataOut(0x999, 5, 0, 0, pattern(512), true);
    initiator.sendDataOut(0x999, 0xffffffff, 0, 0, pattern(512), true);
    expect(await initiator.ping()).toBe(true);
    const tag = initiator.sendCommand(write10(0, 2), { write: 1024 });
    const r2t = await initiator.receive();
    initiator.sendDataOut(tag, 0xffffffff, 0, 0, pattern(1024), true);
    expect((await initiator.receive()).header[2]).toBe(0x09);
    initiator.sendDataOut(tag, u32(r2t, 20), 0, 0, pattern(1024), true);
    expect((await initiator.result(tag)).status).toBe(0);
  });

  it('immediate data that was not agreed on fails the command', async () => {
    const initiator = await login({ ImmediateData: 'No' });
    expectAborted((await initiator.command(write10(0, 1), { write: 512, data: pattern(512) })).sense, 0x0c0c);
    const late = await login({ InitialR2T: 'Yes' });
    const tag = late.sendCommand(write10(0, 1), { write: 512, final: false });
    expect(await late.isSilent()).toBe(true);
    late.sendDataOut(tag, 0xffffffff, 0, 0, pattern(512), true);
    expectAborted((await late.result(tag)).sense, 0x0c0c);
  });

  it('more immediate data than FirstBurstLength, or than was announced, fails the command', async () => {
    const initiator = await login({ FirstBurstLength: '1024' });
    expectAborted((await initiator.command(write10(0, 4), { write: 2048, data: pattern(1536) })).sense, 0x0c0d);
    expectAborted((await initiator.command(write10(0, 1), { write: 512, data: pattern(1024) })).sense, 0x0c0d);
    const tag = initiator.sendCommand(write10(0, 4), { write: 2048, final: false });
    initiator.sendDataOut(tag, 0xffffffff, 0, 0, pattern(1536), true);
    expect((await initiator.receive()).header[2]).toBe(0x04);
    expectAborted((await initiator.result(tag)).sense, 0x0c0d);
  });

  it('a wrong data digest of immediate data rejects the command, which may be sent again', async () => {
    const initiator = await login({ DataDigest: 'CRC32C' });
    const cmdSn = initiator.cmdSn;
    const tag = initiator.takeTag();
    const parts = {
      opcode: 1,
      flags: 0xa0,
      tag,
      fields: { 20: 512, 24: cmdSn },
      cdb: write10(0, 1),
      data: pattern(512),
    };
    initiator.dataDigest = false;
    initiator.write(Buffer.concat([buildPdu(parts), Buffer.from([1, 2, 3, 4])]));
    initiator.dataDigest = true;
    const reject = await initiator.receive();
    expect([opcodeOf(reject), reject.header[2]]).toEqual([REJECT, 0x02]);
    // A later command waits for the one that is missing.
    const later = initiator.sendCommand(read10(0, 1), { read: 512, cmdSn: cmdSn + 1 });
    expect(await initiator.isSilent()).toBe(true);
    initiator.send(parts);
    expect((await initiator.result(tag)).status).toBe(0);
    const read = await initiator.result(later);
    expect(Buffer.compare(read.data, pattern(512))).toBe(0);
    initiator.cmdSn = cmdSn + 2;
  });

  it('a wrong data digest of a Data-Out fails the command with a CRC error', async () => {
    const initiator = await login({ DataDigest: 'CRC32C' });
    const tag = initiator.sendCommand(write10(0, 1), { write: 512 });
    const r2t = await initiator.receive();
    const parts = { opcode: 5, tag, fields: { 20: u32(r2t, 20) }, data: pattern(512) };
    initiator.write(Buffer.concat([buildPdu(parts), Buffer.from([1, 2, 3, 4])]));
    expect((await initiator.receive()).header[2]).toBe(0x02);
    expectAborted((await initiator.result(tag)).sense, 0x4705);
  });
});

describe('a command PDU', () => {
  it('may carry a CDB of up to 260 bytes, whose length is checked', async () => {
    const initiator = await login();
    for (const cdbLength of [20, 32, 260]) {
      const extra = cdbLength - 16;
      const ahs = new Uint8Array(4 + Math.ceil(extra / 4) * 4);
      ahs[0] = (extra + 1) >>> 8;
      ahs[1] = (extra + 1) & 0xff;
      ahs[2] = 1;
      // A variable length CDB with a service action that nobody has.
      const result = await initiator.command([0x7f, 0, 0, 0, 0, 0, 0, extra, 0xff, 0xff], { ahs });
      expect(result.status).toBe(2);
      expect(result.sense[2]! & 0xf).toBe(5);
    }
    const tooLong = new Uint8Array(4 + 248);
    tooLong.set([0, 246, 1]);
    initiator.sendCommand([0x7f], { ahs: tooLong });
    expect((await initiator.receive()).header[2]).toBe(0x09);
  });

  it('with a CDB of 32 bytes writes and reads', async () => {
    const initiator = await login();
    const send = (
      action: number,
      flags: number,
      options: { read?: number; data?: Uint8Array },
    ): Promise<CommandResult> => {
      // LBA 9, and behind the header NUMBER OF LOGICAL BLOCKS 2.
      const cdb = [0x7f, 0, 0, 0, 0, 0, 0, 0x18, 0, action, flags, 0, 0, 0, 0, 0];
      const ahs = Uint8Array.from([0, 17, 1, 0, ...[0, 0, 0, 9], ...new Array(8).fill(0), ...[0, 0, 0, 2]]);
      return initiator.command(cdb, { ahs, ...options, ...(options.data && { write: options.data.length }) });
    };
    const data = pattern(1024);
    expect(await send(0x0b, 0x08, { data })).toMatchObject({ status: 0, residual: 0 });
    const read = await send(0x09, 0, { read: 1024 });
    expect([read.status, Buffer.compare(read.data, data)]).toEqual([0, 0]);
    expect((await send(0x0a, 0x02, { data })).status).toBe(0);
    expect((await send(0x0a, 0x02, { data: new Uint8Array(1024) })).sense[2]! & 0xf).toBe(0xe);
  });

  it.each([
    ['an AHS that is shorter than it says', [0, 20, 1, 0]],
    ['an AHS of length 0', [0, 0, 1, 0]],
    ['an AHS of an unknown type', [0, 1, 9, 0]],
  ])('with %s is rejected', async (_what, ahs) => {
    const initiator = await login();
    initiator.sendCommand([0], { ahs: new Uint8Array(ahs) });
    const reject = await initiator.receive();
    expect([opcodeOf(reject), reject.header[2]]).toEqual([REJECT, 0x09]);
    expect(reject.data).toHaveLength(52);
    expect(await initiator.ping()).toBe(true);
  });

  it.each([
    ['reads and writes', { flags: 0xe0 }, 0x05],
    ['is not final and does not write', { flags: 0x40 }, 0x04],
    ['has data and does not write', { flags: 0xc0, data: new Uint8Array(4) }, 0x04],
    ['has the reserved tag', { flags: 0xc0, tag: 0xffffffff }, 0x09],
  ])('that %s is rejected, and has had its turn', async (_what, wrong, reason) => {
    const initiator = await login();
    initiator.send({ opcode: 1, tag: 77, fields: { 20: 512, 24: initiator.cmdSn++ }, cdb: read10(0, 1), ...wrong });
    const reject = await initiator.receive();
    expect([opcodeOf(reject), reject.header[2]]).toEqual([REJECT, reason]);
    expect((await initiator.readBlocks(0, 1)).status).toBe(0);
  });

  it('with the tag of a task that is not finished is rejected', async () => {
    const initiator = await login();
    world.lun.holding = true;
    const tag = initiator.sendCommand(read10(0, 1), { read: 512 });
    await until(() => world.lun.held.length === 1, 'the first command reaches the medium');
    initiator.sendCommand(read10(0, 1), { read: 512, tag });
    expect((await initiator.receive()).header[2]).toBe(0x07);
    world.lun.release();
    expect((await initiator.result(tag)).status).toBe(0);
  });

  it('for more than a connection can ever hold fails', async () => {
    const small = await startPortal({
      limits: {
        slabBytes: 2 ** 20,
        slabBytesPerConnection: 2 ** 19,
        maxBurstLength: 2 ** 18,
        firstBurstLength: 2 ** 16,
      },
    });
    const initiator = await Initiator.login(small.port);
    await initiator.settle();
    const result = await initiator.command(read10(0, 2048), { read: 2 ** 20 });
    expect(result).toMatchObject({ status: 2, residual: 2 ** 20 });
    expect((await initiator.readBlocks(0, 1024)).status).toBe(0);
    await initiator.close();
    await small.close();
  });
});
