import { connect } from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readU24BE, readU32BE, writeU32BE } from '../../src/base/bytes.ts';
import { MIB } from '../../src/base/units.ts';
import { MemoryLun } from '../../src/block/memory-lun.ts';
import { Target } from '../../src/scsi/target.ts';
import { buildPdu, INITIATOR_NAME, Initiator, TARGET_NAME, textData, USUAL_KEYS } from '../support/iscsi-initiator.ts';
import { makeUnit, startPortal, type TestPortal, until } from '../support/iscsi-portal.ts';

const { THINLUN_FUZZ_INPUTS: FUZZ_INPUTS, THINLUN_FUZZ_SEED: FUZZ_SEED } = process.env;
/** Inputs (PDUs) of one run, and the seed that makes it again. */
const INPUTS = Number(FUZZ_INPUTS ?? 100_000);
const SEED = Number(FUZZ_SEED ?? 20_260_101);

/** mulberry32: small, seedable, good enough to choose wrong things. */
class Random {
  private state: number;

  constructor(seed: number) {
    this.state = seed >>> 0;
  }

  u32(): number {
    this.state = (this.state + 0x6d2b79f5) >>> 0;
    let t = this.state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (t ^ (t >>> 14)) >>> 0;
  }

  below(n: number): number {
    return Math.floor((this.u32() / 2 ** 32) * n);
  }

  chance(probability: number): boolean {
    return this.u32() < probability * 2 ** 32;
  }

  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)]!;
  }

  bytes(length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    for (let i = 0; i < length; i++) bytes[i] = this.u32();
    return bytes;
  }

  /** Numbers at which things break. */
  edge(): number {
    return this.pick([
      0,
      1,
      2,
      3,
      4,
      47,
      48,
      511,
      512,
      513,
      4096,
      8192,
      8193,
      65535,
      65536,
      262144,
      0xffffff,
      0x7fffffff,
      0x80000000,
      0xffffffff,
      this.u32(),
    ]);
  }
}

let world: TestPortal;
let witness: Initiator;

beforeAll(async () => {
  world = await startPortal({ sizeBytes: 4 * MIB, limits: { loginsInProgress: 200, connections: 200 } });
  // Of another target: resets of a target and its units are the right of whoever has a session there.
  const quiet = 'iqn.2026-01.org.thinlun:quiet';
  const target = new Target(quiet);
  target.setLun(0, makeUnit(new MemoryLun(4 * MIB), 2));
  world.targets.set(quiet, target);
  witness = await Initiator.login(world.port, { target: quiet });
  await witness.settle();
});

afterAll(async () => {
  await witness.close();
  await until(() => world.portal.connectionCount === 0, 'all connections end');
  await world.close();
});

const OPCODES = [0, 1, 2, 3, 4, 5, 6, 0x10, 0x20, 0x21, 0x25, 0x31, 0x3f, 0x1c, 0x0f];
const SCSI = [
  0x00, 0x03, 0x08, 0x0a, 0x12, 0x15, 0x1a, 0x25, 0x28, 0x2a, 0x2f, 0x35, 0x41, 0x42, 0x88, 0x89, 0x8a, 0x93, 0x9e,
  0xa0, 0xa3, 0x7f,
];
const KEYS = [
  ...Object.keys(USUAL_KEYS),
  'SessionType',
  'AuthMethod',
  'InitiatorName',
  'TargetName',
  'SendTargets',
  'X-fuzz',
  'IFMarkInt',
  'MaxConnections',
  'K'.repeat(63),
];
const VALUES = [
  'Yes',
  'No',
  'None',
  'CRC32C',
  'CHAP,None',
  '0',
  '1',
  '512',
  '65536',
  '16777215',
  '0x200',
  '-1',
  '',
  'All',
  'Discovery',
  'Normal',
  'NotUnderstood',
  'Reject',
  '99999999999999999999',
  'v'.repeat(300),
];

/** A full feature PDU that is nearly right; `state` counts CmdSN as a right one would. */
function fullFeaturePdu(random: Random, state: { cmdSn: number; tag: number }): Uint8Array {
  const opcode = random.chance(0.6) ? random.pick([0, 1, 1, 1, 1, 2, 4, 5, 5]) : random.pick(OPCODES);
  const immediate = random.chance(0.3);
  const cmdSn = random.chance(0.9) ? state.cmdSn : (state.cmdSn + random.pick([-1, 1, 2, 5, 127, 128, 1000])) >>> 0;
  if (!immediate && opcode < 7 && opcode !== 5 && cmdSn === state.cmdSn) state.cmdSn = (state.cmdSn + 1) >>> 0;
  const tag = random.chance(0.8) ? ++state.tag : random.pick([state.tag, 1, 0xffffffff]);
  const dataLength = random.chance(0.5) ? 0 : random.pick([1, 3, 4, 16, 48, 512, 1024, 4096]);
  const expected = random.chance(0.8) ? random.pick([0, 512, 1024, 4096, 65536]) : random.edge();
  const cdb = random.chance(0.8)
    ? [
        random.pick(SCSI),
        random.chance(0.7) ? 0 : random.below(256),
        0,
        0,
        0,
        random.below(64),
        0,
        0,
        random.below(9),
        0,
      ]
    : [...random.bytes(16)];
  const pdu = buildPdu({
    opcode,
    immediate,
    flags: random.chance(0.6) ? random.pick([0x80, 0xc0, 0xa0, 0x20]) : random.below(256),
    lun: random.chance(0.9) ? 0 : random.below(400),
    tag: opcode === 5 && random.chance(0.7) ? state.tag : tag,
    cdb,
    fields: {
      20: opcode === 5 ? random.pick([0xffffffff, 0, 1, 2, 3]) : opcode === 1 ? expected : random.edge(),
      24: cmdSn,
      ...(opcode === 5 ? { 36: random.below(3), 40: random.pick([0, 512, 1024, random.u32()]) } : {}),
    },
    ...(dataLength === 0 ? {} : { data: opcode === 4 ? textOf(random) : random.bytes(dataLength) }),
    ...(random.chance(0.03) ? { ahs: random.bytes(random.pick([4, 8, 20, 248, 256])) } : {}),
  });
  if (random.chance(0.15)) mutate(random, pdu);
  return pdu;
}

function textOf(random: Random): Uint8Array {
  const pairs: Record<string, string> = {};
  for (let i = random.below(6); i > 0; i--) pairs[random.pick(KEYS)] = random.pick(VALUES);
  const text = textData(pairs);
  if (random.chance(0.1) && text.length > 0) mutate(random, text);
  return random.chance(0.05) ? text.subarray(0, random.below(text.length + 1)) : text;
}

/** Damages a few bytes; mostly of the header, seldom the lengths, which only make the rest of the stream noise. */
function mutate(random: Random, bytes: Uint8Array): void {
  for (let i = 1 + random.below(3); i > 0; i--) {
    const at = random.below(Math.min(bytes.length, random.chance(0.8) ? 48 : bytes.length));
    if (at >= 4 && at < 8 && random.chance(0.9)) continue;
    bytes[at] = random.chance(0.5) ? bytes[at]! ^ (1 << random.below(8)) : random.below(256);
  }
}

function loginPdu(random: Random, text: Uint8Array, flags: number): Uint8Array {
  const pdu = buildPdu({
    opcode: 3,
    immediate: true,
    flags,
    tag: 1,
    bytes: { 8: 0x80, 12: random.below(3), 13: random.below(8), 21: 1 },
    fields: { 24: 100 },
    data: text,
  });
  return pdu;
}

/** A login that may be anything; returns how many PDUs it has. */
function strangeLogin(random: Random): Uint8Array[] {
  const pdus: Uint8Array[] = [];
  for (let i = 1 + random.below(4); i > 0; i--) {
    const base = random.chance(0.7)
      ? textData({ InitiatorName: INITIATOR_NAME, TargetName: TARGET_NAME })
      : new Uint8Array(0);
    const flags = random.chance(0.6) ? random.pick([0x87, 0x81, 0x04, 0x00, 0x83, 0x40, 0x44]) : random.below(256);
    const pdu = loginPdu(random, Buffer.concat([base, textOf(random)]), flags);
    if (random.chance(0.3)) mutate(random, pdu);
    pdus.push(pdu);
  }
  return pdus;
}

/** Everything that a target may send. */
const ANSWERS = new Set([0x20, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x31, 0x32, 0x3f]);

/** Sends a stream and returns when the connection is closed; checks what came back as far as it is whole. */
function converse(stream: Uint8Array, digests: boolean, abrupt: boolean): Promise<void> {
  return new Promise((resolve, reject) => {
    const parts: Buffer[] = [];
    const socket = connect({ port: world.port, host: '127.0.0.1' }, () => {
      socket.write(stream);
      if (abrupt) setTimeout(() => socket.destroy(), 1);
      else socket.end();
    });
    socket.on('data', (chunk) => parts.push(chunk));
    socket.on('error', () => {});
    socket.on('close', () => {
      try {
        if (!digests) checkAnswers(Buffer.concat(parts));
        resolve();
      } catch (error) {
        reject(error);
      }
    });
  });
}

function checkAnswers(bytes: Buffer): void {
  for (let at = 0; at + 48 <= bytes.length; ) {
    const opcode = bytes[at]!;
    if (!ANSWERS.has(opcode)) throw new Error(`answer with opcode ${opcode}`);
    if (bytes[at + 4] !== 0) throw new Error('answer with additional header segments');
    const window = (readU32BE(bytes, at + 32) - readU32BE(bytes, at + 28) + 1) >>> 0;
    if (window > 128) throw new Error(`a window of ${window} commands`);
    at += 48 + Math.ceil(readU24BE(bytes, at + 5) / 4) * 4;
  }
}

describe('the portal under wrong input', () => {
  it(`survives ${INPUTS} random and damaged PDUs (seed ${SEED})`, { timeout: 1_000_000 }, async () => {
    const random = new Random(SEED);
    let inputs = 0;
    let round = 0;
    const conversations = new Set<Promise<void>>();
    while (inputs < INPUTS) {
      const pdus: Uint8Array[] = [];
      let digests = false;
      const kind = random.below(20);
      if (kind === 0) pdus.push(random.bytes(random.below(3000)));
      else if (kind < 6) pdus.push(...strangeLogin(random));
      else {
        digests = random.chance(0.1);
        const keys = { ...USUAL_KEYS, MaxOutstandingR2T: '4', ...(digests ? { HeaderDigest: 'CRC32C' } : {}) };
        const names = { InitiatorName: `${INITIATOR_NAME}${random.below(4)}`, TargetName: TARGET_NAME };
        const discovery = random.chance(0.1) ? { SessionType: 'Discovery' } : {};
        pdus.push(loginPdu(random, textData({ ...names, ...discovery, ...keys }), 0x87));
        const state = { cmdSn: 100, tag: 100 };
        for (let i = 20 + random.below(100); i > 0; i--) pdus.push(fullFeaturePdu(random, state));
      }
      inputs += pdus.length;
      const conversation = converse(Buffer.concat(pdus), digests, random.chance(0.2));
      conversations.add(conversation);
      conversation.then(
        () => conversations.delete(conversation),
        () => {},
      );
      if (conversations.size >= 8) await Promise.race(conversations);
      if (++round % 100 === 0) expect((await witness.readBlocks(0, 8)).status).toBe(0);
    }
    await Promise.all(conversations);
    await until(() => world.portal.connectionCount === 1, 'only the witness is left');
    expect(world.portal.sessions()).toHaveLength(1);
    expect(world.portal.memoryUsedBytes).toBe(0);
    expect(await witness.ping()).toBe(true);
    const data = new Uint8Array(65536).fill(0x5a);
    expect((await witness.writeBlocks(0, data)).status).toBe(0);
    expect(Buffer.compare((await witness.readBlocks(0, 128)).data, data)).toBe(0);
  });

  it('survives every single bit of a login damaged', { timeout: 120_000 }, async () => {
    const random = new Random(1);
    const good = loginPdu(
      random,
      textData({ InitiatorName: INITIATOR_NAME, TargetName: TARGET_NAME, ...USUAL_KEYS }),
      0x87,
    );
    for (let bit = 0; bit < good.length * 8; bit++) {
      const damaged = new Uint8Array(good);
      damaged[bit >> 3]! ^= 1 << (bit & 7);
      await converse(damaged, true, false);
    }
    expect(await witness.ping()).toBe(true);
  });

  it('survives every length that a header can say, at every stage', { timeout: 120_000 }, async () => {
    const random = new Random(2);
    const login = loginPdu(random, textData({ InitiatorName: INITIATOR_NAME, TargetName: TARGET_NAME }), 0x87);
    for (const lengths of [0, 1, 3, 4, 5, 8191, 8192, 8193, 262143, 262144, 262145, 0xffffff]) {
      for (const ahs of [0, 1, 2, 63, 64, 65, 255]) {
        for (const opcode of [0, 1, 3, 4, 5]) {
          const pdu = buildPdu({ opcode, immediate: true, tag: 5, dataLength: lengths, bytes: { 4: ahs } });
          writeU32BE(pdu, 24, 100);
          await converse(pdu, true, false);
          await converse(Buffer.concat([login, pdu, random.bytes(100)]), true, true);
        }
      }
    }
    expect(await witness.ping()).toBe(true);
    await until(() => world.portal.connectionCount === 1, 'only the witness is left');
    expect(world.portal.memoryUsedBytes).toBe(0);
  });
});
