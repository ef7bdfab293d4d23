import { connect, type Socket } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { readU24BE, readU32BE, writeU32BE } from '../../src/base/bytes.ts';
import { KIB, MIB } from '../../src/base/units.ts';
import { MemoryLun } from '../../src/block/memory-lun.ts';
import type { PortalLimits } from '../../src/iscsi/limits.ts';
import { Target } from '../../src/scsi/target.ts';
import { buildPdu, INITIATOR_NAME, Initiator, TARGET_NAME, textData, USUAL_KEYS } from '../support/iscsi-initiator.ts';
import { makeUnit, startPortal, type TestPortal, until } from '../support/iscsi-portal.ts';
import { SeededRandom } from '../support/seeded-random.ts';

/** Inputs (PDUs) of one run; `THINLUN_SEED` makes a run again. */
const INPUTS = Number(process.env['THINLUN_FUZZ_INPUTS'] ?? 100_000);

class FuzzRandom extends SeededRandom {
  u32(): number {
    return this.below(2 ** 32);
  }

  chance(probability: number): boolean {
    return this.below(1000) < probability * 1000;
  }

  bytes(length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    this.fill(bytes);
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

const random = new FuzzRandom();
let world: TestPortal;
let witness: Initiator;

async function start(limits: Partial<PortalLimits> = {}): Promise<void> {
  world = await startPortal({ sizeBytes: 4 * MIB, limits: { loginsInProgress: 200, connections: 200, ...limits } });
  // Of another target: resets of a target and its units are the right of whoever has a session there.
  const quiet = 'iqn.2026-01.org.thinlun:quiet';
  const target = new Target(quiet);
  target.setLun(0, makeUnit(new MemoryLun(4 * MIB), 2));
  world.targets.set(quiet, target);
  witness = await Initiator.login(world.port, { target: quiet });
  await witness.settle();
}

afterEach(async () => {
  await witness.close();
  await until(() => world.portal.connectionCount === 0, 'all connections end');
  await world.close();
});

/** So little memory that commands wait for it, stop the input or are refused. */
const LITTLE_MEMORY: Partial<PortalLimits> = {
  slabBytes: 256 * KIB,
  slabBytesPerConnection: 64 * KIB,
  maxBurstLength: 16 * KIB,
  firstBurstLength: 8 * KIB,
};

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

/** What a peer knows of its session: enough to be nearly right. */
interface PeerState {
  cmdSn: number;
  tag: number;
  /** R2Ts that are not answered: tag, transfer tag, offset, length. */
  r2ts: [number, number, number, number][];
}

/** A full feature PDU that is nearly right. */
function fullFeaturePdu(random: FuzzRandom, state: PeerState): Uint8Array {
  if (state.r2ts.length > 0 && random.chance(0.5)) return dataOutPdu(random, state);
  const opcode = random.chance(0.8) ? random.pick([0, 1, 1, 1, 1, 1, 1, 2, 4, 5]) : random.pick(OPCODES);
  const immediate = random.chance(0.2);
  const right = random.chance(0.95);
  const cmdSn = right ? state.cmdSn : (state.cmdSn + random.pick([-1, 1, 2, 5, 127, 128, 1000])) >>> 0;
  if (!immediate && right && [0, 1, 2, 4].includes(opcode)) state.cmdSn = (state.cmdSn + 1) >>> 0;
  const tag = random.chance(0.9) ? ++state.tag : random.pick([state.tag, 1, 0xffffffff]);
  const write = random.chance(0.4);
  const blocks = random.below(20);
  const expected = random.chance(0.7) ? blocks * 512 : random.chance(0.7) ? random.below(70_000) : random.edge();
  const operation = write ? random.pick([0x2a, 0x2a, 0x8a, 0x2f, 0x41, 0x42]) : random.pick(SCSI);
  const cdb = random.chance(0.9)
    ? [operation, random.chance(0.7) ? 0 : random.below(256), 0, 0, 0, random.below(64), 0, 0, blocks, 0]
    : [...random.bytes(16)];
  const dataLength = random.chance(0.3) ? 0 : random.chance(0.7) ? Math.min(expected, 4096) : random.below(9000);
  const withData = opcode !== 1 || write;
  const pdu = buildPdu({
    opcode,
    immediate,
    flags:
      opcode !== 1 ? random.pick([0x80, 0x80, 0x81, 0x82, 0x85, 0x40, 0]) : write ? random.pick([0xa0, 0x20]) : 0xc0,
    lun: random.chance(0.95) ? 0 : random.below(400),
    tag: opcode === 5 && random.chance(0.7) ? state.tag : tag,
    cdb,
    fields: {
      20: opcode === 5 ? 0xffffffff : opcode === 1 ? expected : random.chance(0.6) ? state.tag : random.edge(),
      24: cmdSn,
      ...(opcode === 5 ? { 36: random.below(2), 40: random.pick([0, dataLength, random.u32()]) } : {}),
    },
    ...(withData && dataLength > 0 ? { data: opcode === 4 ? textOf(random) : random.bytes(dataLength) } : {}),
    ...(random.chance(0.03) ? { ahs: random.bytes(random.pick([4, 8, 20, 248, 256])) } : {}),
  });
  if (random.chance(0.1)) mutate(random, pdu);
  return pdu;
}

/** The answer to an R2T, right or nearly so. */
function dataOutPdu(random: FuzzRandom, state: PeerState): Uint8Array {
  const r2t = state.r2ts[0]!;
  const [tag, transferTag, offset, length] = r2t;
  const whole = random.chance(0.6);
  const take = whole ? length : random.below(length + 1);
  if (whole || random.chance(0.3)) state.r2ts.shift();
  const wrong = random.chance(0.1);
  const pdu = buildPdu({
    opcode: 5,
    flags: whole !== random.chance(0.05) ? 0x80 : 0,
    tag,
    fields: { 20: transferTag, 36: wrong ? random.below(4) : 0, 40: wrong ? random.edge() : offset },
    data: random.bytes(Math.min(take, 70_000)),
  });
  if (random.chance(0.05)) mutate(random, pdu);
  return pdu;
}

function textOf(random: FuzzRandom): Uint8Array {
  const pairs: Record<string, string> = {};
  for (let i = random.below(6); i > 0; i--) pairs[random.pick(KEYS)] = random.pick(VALUES);
  const text = textData(pairs);
  if (random.chance(0.1) && text.length > 0) mutate(random, text);
  return random.chance(0.05) ? text.subarray(0, random.below(text.length + 1)) : text;
}

/** Damages a few bytes; mostly of the header, seldom the lengths, which only make the rest of the stream noise. */
function mutate(random: FuzzRandom, bytes: Uint8Array): void {
  for (let i = 1 + random.below(3); i > 0; i--) {
    const at = random.below(Math.min(bytes.length, random.chance(0.8) ? 48 : bytes.length));
    if (at >= 4 && at < 8 && random.chance(0.9)) continue;
    bytes[at] = random.chance(0.5) ? bytes[at]! ^ (1 << random.below(8)) : random.below(256);
  }
}

function loginPdu(random: FuzzRandom, text: Uint8Array, flags: number): Uint8Array {
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
function strangeLogin(random: FuzzRandom): Uint8Array[] {
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
/** The tag of the ping that ends every burst of PDUs. */
const PING = 0x7fffff00;
const seen = new Map<number, number>();

/** One connection; checks what the target sends and keeps what the next PDUs need of it. */
class Peer {
  readonly socket: Socket;
  readonly state: PeerState = { cmdSn: 100, tag: 100, r2ts: [] };
  closed = false;
  failure: Error | null = null;
  private buffered: Buffer = Buffer.alloc(0);
  private wake: (() => void) | null = null;

  constructor(port: number) {
    this.socket = connect({ port, host: '127.0.0.1' });
    this.socket.on('data', (chunk) => this.take(chunk));
    this.socket.on('error', () => {});
    this.socket.on('close', () => {
      this.closed = true;
      this.wake?.();
    });
  }

  private take(chunk: Buffer): void {
    this.buffered = Buffer.concat([this.buffered, chunk]);
    for (;;) {
      const bytes = this.buffered;
      if (bytes.length < 48) return;
      const end = 48 + Math.ceil(readU24BE(bytes, 5) / 4) * 4;
      if (bytes.length < end) return;
      this.check(bytes);
      this.buffered = bytes.subarray(end);
    }
  }

  private check(pdu: Uint8Array): void {
    const opcode = pdu[0]!;
    seen.set(opcode, (seen.get(opcode) ?? 0) + 1);
    const window = (readU32BE(pdu, 32) - readU32BE(pdu, 28) + 1) >>> 0;
    if (!ANSWERS.has(opcode) || pdu[4] !== 0) this.failure = new Error(`answer with opcode ${opcode}`);
    else if (window > 128) this.failure = new Error(`a window of ${window} commands`);
    if (opcode === 0x31) {
      this.state.r2ts.push([readU32BE(pdu, 16), readU32BE(pdu, 20), readU32BE(pdu, 40), readU32BE(pdu, 44)]);
    }
    this.state.cmdSn = readU32BE(pdu, 28);
    if (opcode === 0x23 || (opcode === 0x20 && readU32BE(pdu, 16) === PING)) this.wake?.();
  }

  /** Sends a burst with a ping behind it and waits for its answer; false when none comes: the stream is out of step or ended. */
  async burst(pdus: Uint8Array[], ping: boolean): Promise<boolean> {
    if (this.closed) return false;
    const last = buildPdu({ opcode: 0, immediate: true, tag: PING, fields: { 20: 0xffffffff, 24: this.state.cmdSn } });
    let answered = false;
    const answer = new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, 60);
      this.wake = () => {
        answered = true;
        clearTimeout(timer);
        resolve();
      };
    });
    this.socket.write(Buffer.concat(ping ? [...pdus, last] : pdus));
    await answer;
    this.wake = null;
    if (this.failure !== null) throw this.failure;
    return answered && !this.closed;
  }

  end(abrupt: boolean): Promise<void> {
    if (abrupt) this.socket.destroy();
    else this.socket.end();
    if (this.closed) return Promise.resolve();
    return new Promise((resolve) => this.socket.once('close', () => resolve()));
  }
}

/** Sends bytes and returns when the connection is closed. */
async function converse(stream: Uint8Array, abrupt: boolean): Promise<void> {
  const peer = new Peer(world.port);
  peer.socket.write(stream);
  if (abrupt) await new Promise((resolve) => setTimeout(resolve, 1));
  await peer.end(abrupt);
}

/** A session of some bursts; returns how many PDUs were sent. */
async function session(random: FuzzRandom, round: number): Promise<number> {
  const peer = new Peer(world.port);
  const keys = { ...USUAL_KEYS, MaxOutstandingR2T: '4', MaxBurstLength: random.pick(['1024', '8192', '262144']) };
  const initiator = `${INITIATOR_NAME}${random.chance(0.9) ? round : 0}`;
  const discovery = random.chance(0.05) ? { SessionType: 'Discovery' } : {};
  const text = textData({ InitiatorName: initiator, TargetName: TARGET_NAME, ...discovery, ...keys });
  let inputs = 1;
  let alive = await peer.burst([loginPdu(random, text, 0x87)], false);
  for (let bursts = 1 + random.below(30); bursts > 0 && alive; bursts--) {
    const pdus = Array.from({ length: 1 + random.below(12) }, () => fullFeaturePdu(random, peer.state));
    inputs += pdus.length;
    alive = await peer.burst(pdus, true);
  }
  await peer.end(random.chance(0.3));
  return inputs;
}

describe('the portal under wrong input', () => {
  it.each([
    ['', INPUTS, {}],
    [' with little memory', INPUTS / 4, LITTLE_MEMORY],
  ])(
    `survives random and damaged PDUs%s: %d (seed ${random.seed})`,
    { timeout: 1_000_000 },
    async (_name, wanted, limits) => {
      await start(limits);
      seen.clear();
      let inputs = 0;
      let round = 0;
      const lane = async (): Promise<void> => {
        while (inputs < wanted) {
          const kind = random.below(20);
          if (kind === 0) {
            inputs++;
            await converse(random.bytes(random.below(3000)), random.chance(0.3));
          } else if (kind < 4) {
            const pdus = strangeLogin(random);
            inputs += pdus.length;
            await converse(Buffer.concat(pdus), random.chance(0.1));
          } else {
            const sent = await session(random, round);
            inputs += sent;
          }
          if (++round % 100 === 0) expect(await witness.ping()).toBe(true);
        }
      };
      await Promise.all(Array.from({ length: 6 }, lane));
      // The fuzzer has got to where it should: everything that a target can send has been sent many times.
      for (const opcode of [0x20, 0x21, 0x22, 0x23, 0x24, 0x25, 0x31, 0x3f]) {
        expect(seen.get(opcode), `answers with opcode ${opcode}`).toBeGreaterThan(wanted / 5000);
      }
      expect(world.lun.submitted).toBeGreaterThan(wanted / 50);
      await until(() => world.portal.connectionCount === 1, 'only the witness is left');
      expect(world.portal.sessions()).toHaveLength(1);
      expect(world.portal.memoryUsedBytes).toBe(0);
      expect(await witness.ping()).toBe(true);
      const data = new Uint8Array(4096).fill(0x5a);
      expect((await witness.writeBlocks(0, data)).status).toBe(0);
      expect(Buffer.compare((await witness.readBlocks(0, 8)).data, data)).toBe(0);
    },
  );

  it('survives every single bit of a login damaged', { timeout: 120_000 }, async () => {
    await start();
    const good = loginPdu(
      random,
      textData({ InitiatorName: INITIATOR_NAME, TargetName: TARGET_NAME, ...USUAL_KEYS }),
      0x87,
    );
    for (let bit = 0; bit < good.length * 8; bit++) {
      const damaged = new Uint8Array(good);
      damaged[bit >> 3]! ^= 1 << (bit & 7);
      await converse(damaged, false);
    }
    expect(await witness.ping()).toBe(true);
  });

  it('survives every length that a header can say, at every stage', { timeout: 120_000 }, async () => {
    await start();
    const login = loginPdu(random, textData({ InitiatorName: INITIATOR_NAME, TargetName: TARGET_NAME }), 0x87);
    for (const lengths of [0, 1, 3, 4, 5, 8191, 8192, 8193, 262143, 262144, 262145, 0xffffff]) {
      for (const ahs of [0, 1, 2, 63, 64, 65, 255]) {
        for (const opcode of [0, 1, 3, 4, 5]) {
          const pdu = buildPdu({ opcode, immediate: true, tag: 5, dataLength: lengths, bytes: { 4: ahs } });
          writeU32BE(pdu, 24, 100);
          await converse(pdu, false);
          await converse(Buffer.concat([login, pdu, random.bytes(100)]), true);
        }
      }
    }
    expect(await witness.ping()).toBe(true);
    await until(() => world.portal.connectionCount === 1, 'only the witness is left');
    expect(world.portal.memoryUsedBytes).toBe(0);
  });
});
