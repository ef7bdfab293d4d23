import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import {
  Initiator,
  opcodeOf,
  type PduParts,
  read10,
  textData,
  textPairs,
  USUAL_KEYS,
  u32,
  write10,
} from '../support/iscsi-initiator.ts';
import { startPortal, type TestPortal, until } from '../support/iscsi-portal.ts';

const REJECT = 0x3f;
const [PROTOCOL_ERROR, NOT_SUPPORTED, INVALID_FIELD] = [0x04, 0x05, 0x09];
const NOP_OUT = 0;
const COMMAND = 1;
const TASK_MANAGEMENT = 2;
const TEXT = 4;
const DATA_OUT = 5;
const LOGOUT = 6;
const NO_TAG = 0xffffffff;

const AHS = new Uint8Array(8);
/** Additional header segments: their own length, their type, and bytes. */
const ahs = (length: number, type: number, bytes: number): Uint8Array => {
  const segment = new Uint8Array(bytes);
  segment.set([length >> 8, length & 255, type]);
  return segment;
};

let world: TestPortal;
let initiator: Initiator;

beforeEach(async () => {
  world = await startPortal();
  initiator = await Initiator.login(world.port, { keys: { ...USUAL_KEYS } });
  await initiator.settle();
});

afterEach(async () => {
  world.lun.release();
  await initiator.close();
  await until(() => world.portal.connectionCount === 0, 'all connections end');
  expect(world.portal.memoryUsedBytes).toBe(0);
  await world.close();
});

describe('a PDU that cannot be what it says', () => {
  const wrong: [string, PduParts, number][] = [
    ['a NOP-Out without F', { opcode: NOP_OUT, flags: 0, tag: 5 }, PROTOCOL_ERROR],
    ['a NOP-Out with additional header segments', { opcode: NOP_OUT, tag: 5, ahs: AHS }, INVALID_FIELD],
    ['a text request without a tag', { opcode: TEXT, tag: NO_TAG, data: textData({ SendTargets: '' }) }, INVALID_FIELD],
    ['a text request with additional header segments', { opcode: TEXT, tag: 5, ahs: AHS }, INVALID_FIELD],
    ['a text request that is final and goes on', { opcode: TEXT, flags: 0xc0, tag: 5 }, PROTOCOL_ERROR],
    ['a text request without "="', { opcode: TEXT, tag: 5, data: Buffer.from('key\0') }, PROTOCOL_ERROR],
    ['a text request without an end', { opcode: TEXT, tag: 5, data: Buffer.from('key=value') }, PROTOCOL_ERROR],
    ['a text request with a key twice', { opcode: TEXT, tag: 5, data: Buffer.from('a=1\0a=1\0') }, PROTOCOL_ERROR],
    ['a text request of no conversation', { opcode: TEXT, tag: 5, fields: { 20: 77 } }, INVALID_FIELD],
    ['task management without F', { opcode: TASK_MANAGEMENT, flags: 2, tag: 5 }, PROTOCOL_ERROR],
    ['task management without a tag', { opcode: TASK_MANAGEMENT, flags: 0x82, tag: NO_TAG }, INVALID_FIELD],
    ['task management with data', { opcode: TASK_MANAGEMENT, flags: 0x82, tag: 5, data: AHS }, INVALID_FIELD],
    [
      'task management with additional header segments',
      { opcode: TASK_MANAGEMENT, flags: 0x82, tag: 5, ahs: AHS },
      INVALID_FIELD,
    ],
    ['a logout without F', { opcode: LOGOUT, flags: 0, tag: 5 }, PROTOCOL_ERROR],
    ['a logout without a tag', { opcode: LOGOUT, tag: NO_TAG }, INVALID_FIELD],
    ['a logout with data', { opcode: LOGOUT, tag: 5, data: AHS }, INVALID_FIELD],
    ['a logout for a reason that does not exist', { opcode: LOGOUT, flags: 0x83, tag: 5 }, INVALID_FIELD],
    ['a command without a tag', { opcode: COMMAND, flags: 0xc0, tag: NO_TAG, cdb: read10(0, 1) }, INVALID_FIELD],
    ['a command that reads and writes', { opcode: COMMAND, flags: 0xe0, tag: 5, cdb: read10(0, 1) }, NOT_SUPPORTED],
    ['a read with data', { opcode: COMMAND, flags: 0xc0, tag: 5, cdb: read10(0, 1), data: AHS }, PROTOCOL_ERROR],
    ['a read without F', { opcode: COMMAND, flags: 0x40, tag: 5, cdb: read10(0, 1) }, PROTOCOL_ERROR],
    ['a command with a bidirectional length', { opcode: COMMAND, tag: 5, ahs: ahs(5, 2, 8) }, INVALID_FIELD],
    ['a command with a segment of no known type', { opcode: COMMAND, tag: 5, ahs: ahs(5, 9, 8) }, INVALID_FIELD],
    ['a command with a segment without length', { opcode: COMMAND, tag: 5, ahs: ahs(0, 1, 4) }, INVALID_FIELD],
    [
      'a command with a segment longer than all of them',
      { opcode: COMMAND, tag: 5, ahs: ahs(200, 1, 8) },
      INVALID_FIELD,
    ],
    ['a command with bytes behind its segment', { opcode: COMMAND, tag: 5, ahs: ahs(5, 1, 12) }, INVALID_FIELD],
    [
      'a command with two segments',
      { opcode: COMMAND, tag: 5, ahs: Buffer.concat([ahs(5, 1, 8), ahs(5, 1, 8)]) },
      INVALID_FIELD,
    ],
  ];

  it.each(wrong)('%s is rejected for its reason and takes its turn', async (_what, parts, reason) => {
    const { fields = {} } = parts;
    for (const immediate of [true, false]) {
      const ownTransferTag = parts.opcode === TEXT || parts.opcode === NOP_OUT ? { 20: NO_TAG } : {};
      const cmdSn = initiator.cmdSn;
      if (!immediate) initiator.cmdSn++;
      initiator.send({ ...parts, immediate, fields: { ...ownTransferTag, 24: cmdSn, ...fields } });
      const reject = await initiator.receive();
      expect([opcodeOf(reject), reject.header[2], u32(reject, 16)]).toEqual([REJECT, reason, NO_TAG]);
      // The header that was rejected comes back whole.
      const length = 48 + (parts.ahs?.length ?? 0);
      expect(reject.data).toHaveLength(length);
      expect([reject.data[0], reject.data[4]]).toEqual([parts.opcode | (immediate ? 0x40 : 0), (length - 48) / 4]);
      expect(u32(reject, 28)).toBe(initiator.cmdSn);
    }
    expect((await initiator.readBlocks(0, 1)).status).toBe(0);
    expect(world.portal.sessions()).toMatchObject([{ commands: 0 }]);
  });

  it('a NOP-Out without a tag cannot have a CmdSN of its own', async () => {
    initiator.sendNop(new Uint8Array(0), { immediate: false, tag: NO_TAG });
    const reject = await initiator.receive();
    expect([opcodeOf(reject), reject.header[2], u32(reject, 28)]).toEqual([REJECT, PROTOCOL_ERROR, initiator.cmdSn]);
    initiator.sendNop(new Uint8Array(0), { tag: NO_TAG });
    expect(await initiator.ping()).toBe(true);
  });

  it('data with additional header segments fails its command', async () => {
    const tag = initiator.sendCommand(write10(0, 2), { write: 1024 });
    const r2t = await initiator.receive();
    const fields = { 20: u32(r2t, 20) };
    initiator.send({ opcode: DATA_OUT, tag, fields, ahs: AHS, data: new Uint8Array(1024) });
    const reject = await initiator.receive();
    expect([opcodeOf(reject), reject.header[2]]).toEqual([REJECT, INVALID_FIELD]);
    const result = await initiator.result(tag);
    expect([result.status, result.sense[2]! & 15]).toEqual([2, 0x0b]);
  });

  it('of a discovery session is one that needs a LUN', async () => {
    const discovery = await Initiator.login(world.port, { target: null, keys: {}, isid: 9 });
    for (const parts of [
      { opcode: COMMAND, tag: 5, cdb: [0] },
      { opcode: TASK_MANAGEMENT, flags: 0x82, tag: 5 },
      { opcode: DATA_OUT, tag: 5 },
    ]) {
      discovery.send({ ...parts, immediate: parts.opcode !== DATA_OUT, fields: { 24: discovery.cmdSn } });
      const reject = await discovery.receive();
      expect([opcodeOf(reject), reject.header[2]]).toEqual([REJECT, PROTOCOL_ERROR]);
    }
    expect(await discovery.ping()).toBe(true);
    await discovery.close();
  });
});

describe('text requests', () => {
  it('of more than 64 KiB are rejected, and the next one begins anew', async () => {
    const part = Buffer.alloc(8192, 'x=1\0');
    let transferTag = NO_TAG;
    let taken = 0;
    for (;;) {
      initiator.sendText(part, 0x40, transferTag, 77);
      const answer = await initiator.receive();
      if (opcodeOf(answer) === REJECT) {
        expect(answer.header[2]).toBe(PROTOCOL_ERROR);
        break;
      }
      transferTag = u32(answer, 20);
      taken += part.length;
    }
    expect(taken).toBe(65536);
    expect(await initiator.text({ SendTargets: '' })).toMatchObject({ TargetName: 'iqn.2026-01.org.thinlun:test' });
  });

  it('may begin anew in the middle of another one', async () => {
    initiator.sendText(Buffer.from('SendTargets=A'), 0x40);
    expect(opcodeOf(await initiator.receive())).toBe(0x24);
    initiator.sendText(textData({ SendTargets: '' }));
    expect(textPairs((await initiator.receive()).data)).toHaveProperty('TargetAddress');
  });
});
