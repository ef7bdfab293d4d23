import { createHash } from 'node:crypto';
import { afterEach, describe, expect, it } from 'vitest';
import type { Credential, Gate, Identity, TargetDirectory } from '../../src/iscsi/access.ts';
import { DEFAULT_LIMITS, type PortalLimits } from '../../src/iscsi/limits.ts';
import { Login, type LoginReply, type LoginRequest } from '../../src/iscsi/login.ts';
import { LoginStatus } from '../../src/iscsi/spec.ts';
import { parseText } from '../../src/iscsi/text.ts';
import { FULL_ACCESS } from '../../src/scsi/lun-access.ts';
import type { Target } from '../../src/scsi/target.ts';
import {
  buildPdu,
  INITIATOR_NAME,
  Initiator,
  TARGET_NAME,
  textData,
  textPairs,
  USUAL_KEYS,
} from '../support/iscsi-initiator.ts';
import { startPortal, type TestPortal, until } from '../support/iscsi-portal.ts';
import { SeededRandom } from '../support/seeded-random.ts';

/** Login requests of one run; `THINLUN_SEED` makes a run again. */
const INPUTS = Number(process.env['THINLUN_FUZZ_INPUTS'] ?? 24_000);
const SECRET = 'a secret of alice';
const ALICE: Credential = {
  user: 'alice',
  secret: Buffer.from(SECRET),
  mutual: { user: 'target', secret: Buffer.from('a secret of the target') },
};
const LIMITS: PortalLimits = { ...DEFAULT_LIMITS, textBytes: 20_000, loginRequests: 12 };
const SHUT: Gate = { open: false, chap: false, credentials: [] };
const ASKED: Gate = { open: false, chap: true, credentials: [ALICE] };
const HASHES: Record<string, string> = { 5: 'md5', 6: 'sha1', 7: 'sha256', 8: 'sha3-256' };

const KEYS = [
  ...Object.keys(USUAL_KEYS),
  'SessionType',
  'AuthMethod',
  'InitiatorName',
  'TargetName',
  'InitiatorAlias',
  'TargetPortalGroupTag',
  'CHAP_A',
  'CHAP_I',
  'CHAP_C',
  'CHAP_N',
  'CHAP_R',
  'CHAP_X',
  'chap_a',
  'SendTargets',
  'X-fuzz',
  'K'.repeat(63),
  'K'.repeat(64),
  '',
];
const VALUES = [
  'Yes',
  'None',
  'CHAP',
  'CHAP,None',
  'None,CHAP',
  '5',
  '8,7,6,5',
  '0x5',
  '256',
  '-1',
  '',
  'alice',
  'bob',
  '0x',
  '0b',
  '0x0',
  `0x${'00'.repeat(16)}`,
  `0x${'00'.repeat(32)}`,
  `0b${'A'.repeat(44)}`,
  `0b${'A'.repeat(8000)}`,
  `0x${'f'.repeat(2050)}`,
  'Discovery',
  'Normal',
  'v'.repeat(300),
  'v'.repeat(9000),
  '=',
  'ä\u2028\ufeff',
  INITIATOR_NAME,
  TARGET_NAME,
  '99999999999999999999',
];

/** A peer that knows how a login goes, and does something else now and then. */
class Peer {
  readonly login: Login;
  /** It knows the secret. */
  readonly member: boolean;
  /** It has sent the right response to the challenge that it got, as alice. */
  proved = false;
  challenges: string[] = [];
  private readonly random: SeededRandom;
  private readonly mischief: number;
  private stage = 0;
  private step = 0;
  private challenge: Record<string, string> = {};

  constructor(random: SeededRandom, gate: Gate) {
    this.random = random;
    this.member = random.oneIn(2);
    // From peers that do nearly everything right to those that do nothing right.
    this.mischief = random.pick([0, 2, 10, 40, 100]);
    this.stage = random.oneIn(8) ? 1 : 0;
    this.login = new Login({
      limits: LIMITS,
      portalGroupTag: 1,
      randomBytes: (size) => {
        const bytes = new Uint8Array(size);
        random.fill(bytes);
        return bytes;
      },
      gate: () => gate,
      admit: () => LoginStatus.SUCCESS,
    });
  }

  private odd(percent: number = this.mischief): boolean {
    return this.random.below(100) < percent;
  }

  /** The requests that one text becomes: whole, or cut into several. */
  requests(): LoginRequest[] {
    const { random } = this;
    let text = this.odd() ? this.anyText() : this.rightText();
    if (this.odd(this.mischief / 4)) text = this.damaged(text);
    const transit = this.odd() ? random.oneIn(2) : this.stage === 1 || this.step === 2;
    const parts: Uint8Array[] = [];
    while (random.oneIn(3) && text.length > 1 && parts.length < 4) {
      const at = 1 + random.below(text.length - 1);
      parts.push(text.slice(0, at));
      text = text.slice(at);
    }
    parts.push(text);
    return parts.map((part, index) => {
      const last = index === parts.length - 1;
      return {
        transit: last ? transit : this.odd(1),
        continues: last ? this.odd(1) : true,
        currentStage: this.odd(this.mischief / 4) ? random.below(4) : this.stage,
        nextStage: this.odd(this.mischief / 4) ? random.below(4) : this.stage === 0 && !random.oneIn(6) ? 1 : 3,
        versionMin: this.odd(this.mischief / 20) ? random.below(256) : 0,
        isid: this.odd(this.mischief / 20) ? '800000000002' : '800000000001',
        tsih: this.odd(this.mischief / 20) ? random.below(65536) : 0,
        cid: this.odd(this.mischief / 20) ? random.below(65536) : 1,
        cmdSn: random.below(2 ** 32),
        text: part,
      };
    });
  }

  private rightText(): Uint8Array {
    const { random } = this;
    const names =
      this.step === 0
        ? {
            InitiatorName: INITIATOR_NAME,
            ...(random.oneIn(5) ? { SessionType: this.odd() ? 'Other' : 'Discovery' } : { TargetName: TARGET_NAME }),
          }
        : {};
    if (this.stage === 1) return textData({ ...names, ...USUAL_KEYS });
    if (this.step === 0) return textData({ ...names, AuthMethod: random.pick(['CHAP', 'CHAP,None', 'None']) });
    if (this.step === 1) return textData({ CHAP_A: random.pick(['5', '6', '7', '8', '8,7,6,5', '99']) });
    const response = this.response();
    return textData({
      CHAP_N: random.oneIn(10) ? 'bob' : 'alice',
      CHAP_R: random.oneIn(3) ? `0b${response.toString('base64')}` : `0x${response.toString('hex')}`,
      ...(random.oneIn(3) ? { CHAP_I: String(random.below(600)), CHAP_C: this.theirChallenge() } : {}),
    });
  }

  private theirChallenge(): string {
    const { random } = this;
    if (random.oneIn(10)) return this.challenge['CHAP_C'] ?? '0x00';
    const bytes = Buffer.alloc(random.pick([0, 1, 16, 1024, 1025]));
    random.fill(bytes);
    return random.oneIn(2) ? `0x${bytes.toString('hex')}` : `0b${bytes.toString('base64')}`;
  }

  private response(): Buffer {
    const { CHAP_A = '5', CHAP_I = '0', CHAP_C = '0x00' } = this.challenge;
    const secret = this.member ? SECRET : `${SECRET} or so`;
    return createHash(HASHES[CHAP_A]!)
      .update(Uint8Array.of(Number(CHAP_I)))
      .update(secret)
      .update(Buffer.from(CHAP_C.slice(2), 'hex'))
      .digest();
  }

  private anyText(): Uint8Array {
    const { random } = this;
    const pairs: [string, string][] = [];
    for (let i = random.below(6); i >= 0; i--) pairs.push([random.pick(KEYS), random.pick(VALUES)]);
    return Buffer.from(pairs.map(([key, value]) => `${key}=${value}\0`).join(''));
  }

  private damaged(text: Uint8Array): Uint8Array {
    const { random } = this;
    const copy = Uint8Array.from(text);
    if (copy.length === 0) return new Uint8Array(random.below(9000));
    for (let i = random.below(4); i >= 0; i--) copy[random.below(copy.length)] = random.below(256);
    return random.oneIn(3) ? copy.slice(0, random.below(copy.length)) : copy;
  }

  /** Notes what was sent as a whole text would say it. */
  note(text: Uint8Array): void {
    const pairs = textPairs(text);
    const { CHAP_N, CHAP_R } = pairs;
    if (CHAP_N !== 'alice' || CHAP_R === undefined || this.challenges.length === 0) return;
    const sent = CHAP_R.toLowerCase().startsWith('0b')
      ? Buffer.from(CHAP_R.slice(2), 'base64')
      : Buffer.from(CHAP_R.slice(2), 'hex');
    const right = createHash(HASHES[this.challenge['CHAP_A']!]!)
      .update(Uint8Array.of(Number(this.challenge['CHAP_I'])))
      .update(SECRET)
      .update(Buffer.from(this.challenge['CHAP_C']!.slice(2), 'hex'))
      .digest();
    if (right.equals(sent)) this.proved = true;
  }

  /** Goes on by what the target has answered. */
  take(reply: LoginReply): void {
    if (reply.transit) this.stage = reply.nextStage;
    const pairs = textPairs(reply.text);
    if (pairs['CHAP_C'] !== undefined) {
      this.challenges.push(pairs['CHAP_C']);
      this.challenge = pairs;
    }
    this.step = this.stage === 1 ? 3 : pairs['CHAP_C'] !== undefined ? 2 : this.step + (this.step < 1 ? 1 : 0);
  }
}

/** One login; returns how many requests it took. */
function converse(random: SeededRandom, gate: Gate, outcomes: Map<string, number>): number {
  const peer = new Peer(random, gate);
  let count = 0;
  let whole: Uint8Array = new Uint8Array(0);
  for (;;) {
    for (const request of peer.requests()) {
      count++;
      whole = Buffer.concat([whole, request.text]);
      if (!request.continues) peer.note(whole);
      const reply = peer.login.next(request);
      if (!request.continues) whole = new Uint8Array(0);
      judge(peer, gate, reply);
      if (reply.status !== LoginStatus.SUCCESS || reply.complete) {
        const outcome = reply.complete ? 'complete' : reply.status.toString(16);
        outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
        return count;
      }
      peer.take(reply);
    }
  }
}

/** What has to hold after every request. */
function judge(peer: Peer, gate: Gate, reply: LoginReply): void {
  const what = (text: string): string => `${text}: ${JSON.stringify({ ...reply, text: textPairs(reply.text) })}`;
  if (reply.text.length > 8192) throw new Error(what('a reply that is too long'));
  if (reply.status !== LoginStatus.SUCCESS) {
    if (reply.text.length > 0 || reply.transit || reply.complete) throw new Error(what('a refusal that says more'));
    if (reply.reason === '' || reply.reason.includes(SECRET)) throw new Error(what('a reason that cannot be logged'));
    return;
  }
  if (gate.open) return;
  if (!gate.chap && reply.text.length > 0) throw new Error(what('an answer to who must not know that there is one'));
  // The oracle: beyond the security stage is only who has proved to be alice.
  if ((reply.transit || reply.complete) && !peer.proved) throw new Error(what('let in without a proof'));
  if (reply.transit !== reply.nextStage > 0) throw new Error(what('a stage without a transit'));
  const pairs = textPairs(reply.text);
  if (pairs['CHAP_R'] !== undefined && !peer.proved) throw new Error(what('proves itself to who has proved nothing'));
  if (!reply.continues && typeof parseText(reply.text) === 'string') throw new Error(what('a text that is none'));
}

function run(random: SeededRandom, gate: Gate, inputs: number): Map<string, number> {
  const outcomes = new Map<string, number>();
  for (let left = inputs; left > 0; ) left -= converse(random, gate, outcomes);
  return outcomes;
}

/** What a loaded machine may take. */
const LONG = { timeout: 60_000 + INPUTS };

describe('any sequence of login requests', LONG, () => {
  it('lets in who proves to be a user, and nobody else', () => {
    const random = new SeededRandom();
    const outcomes = run(random, ASKED, INPUTS);
    const seen = `seed ${random.seed}: ${JSON.stringify([...outcomes])}`;
    // The fuzzer gets everywhere.
    for (const outcome of ['complete', '200', '201', '205', '207', '209']) {
      expect(outcomes.get(outcome) ?? 0, `${outcome}; ${seen}`).toBeGreaterThan(INPUTS / 100_000);
    }
  });

  it('lets nobody in where nobody may, and says nothing but that there is no target', () => {
    const random = new SeededRandom();
    const outcomes = run(random, SHUT, INPUTS / 6);
    expect(outcomes.get('complete'), `seed ${random.seed}`).toBeUndefined();
    expect(outcomes.get('203'), `seed ${random.seed}`).toBeGreaterThan(0);
  });

  it('ends without an error of ours where everybody may', () => {
    const random = new SeededRandom();
    const outcomes = run(random, { open: true, chap: false, credentials: [] }, INPUTS / 6);
    expect(outcomes.get('complete'), `seed ${random.seed}`).toBeGreaterThan(0);
  });
});

describe('any bytes of logins on connections', LONG, () => {
  let world: TestPortal;
  let witness: Initiator;

  afterEach(async () => {
    witness.socket.destroy();
    await world.close();
  });

  const OTHER = 'iqn.2026-01.org.example:witness';

  const directory = (targets: ReadonlyMap<string, Target>): TargetDirectory => ({
    gate: (initiator) => (initiator === OTHER ? { ...ASKED, open: true } : ASKED),
    find: (name, identity: Identity) => {
      const target = targets.get(name);
      const known = identity.initiatorName === OTHER || identity.credential !== null;
      return known && target !== undefined ? { target, access: FULL_ACCESS } : undefined;
    },
    list: () => [],
  });

  it('leave nothing behind, wherever they end, and disturb nobody', async () => {
    const random = new SeededRandom();
    world = await startPortal({ directory, limits: { ...LIMITS, connections: 64, loginsInProgress: 32 } });
    witness = await Initiator.login(world.port, { initiator: OTHER });
    for (let round = 0; round < Math.max(12, INPUTS / 5000); round++) {
      const peers = await Promise.all(Array.from({ length: 16 }, () => Initiator.connect(world.port)));
      await Promise.all(peers.map((peer) => attack(random, peer)));
      for (const peer of peers) peer.socket.destroy();
    }
    expect(await witness.ping(), `seed ${random.seed}`).toBe(true);
    await until(() => world.portal.connectionCount === 1, `all but the witness are gone; seed ${random.seed}`);
    expect(world.portal.sessions()).toMatchObject([{ initiator: OTHER }]);
    expect(world.portal.memoryUsedBytes).toBe(0);
  });

  /** Requests of a fuzzer's peer that is no member, in pieces; ends anywhere. */
  async function attack(random: SeededRandom, initiator: Initiator): Promise<void> {
    const stranger = new Peer(random, ASKED);
    for (let i = random.below(6); i >= 0 && !initiator.closed; i--) {
      for (const request of stranger.requests()) {
        const { transit, continues, currentStage, nextStage, text } = request;
        const flags = (transit ? 0x80 : 0) | (continues ? 0x40 : 0) | (currentStage << 2) | nextStage;
        const bytes = buildPdu({
          ...initiator.loginParts(text.slice(0, 8192), flags),
          ...(random.oneIn(20) ? { dataLength: random.below(2 ** 24) } : {}),
          ...(random.oneIn(20) ? { opcode: random.below(64) } : {}),
          ...(random.oneIn(40) ? { ahs: new Uint8Array(4 * random.below(63)) } : {}),
        });
        let at = 0;
        while (at < bytes.length && !initiator.closed) {
          const end = random.oneIn(2) ? bytes.length : at + 1 + random.below(bytes.length - at);
          initiator.write(bytes.subarray(at, end));
          at = end;
          if (random.oneIn(4)) await new Promise((resolve) => setImmediate(resolve));
          if (random.oneIn(60)) return;
        }
      }
      await new Promise((resolve) => setImmediate(resolve));
    }
  }
});
