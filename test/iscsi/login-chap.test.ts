import { beforeEach, describe, expect, it } from 'vitest';
import type { Credential, Gate } from '../../src/iscsi/access.ts';
import { DEFAULT_LIMITS } from '../../src/iscsi/limits.ts';
import { Login, type LoginReply, type LoginRequest } from '../../src/iscsi/login.ts';
import { LoginStatus } from '../../src/iscsi/spec.ts';
import { type Challenge, challengeOf, hexOf, responseTo } from '../support/chap-initiator.ts';
import { INITIATOR_NAME, TARGET_NAME, textData, textPairs } from '../support/iscsi-initiator.ts';

const SECRET = 'a secret of alice';
const TARGET_SECRET = 'a secret of the target';
const ALICE: Credential = {
  user: 'alice',
  secret: Buffer.from(SECRET),
  mutual: { user: 'target', secret: Buffer.from(TARGET_SECRET) },
};
const BOB: Credential = { user: 'bob', secret: Buffer.from('a secret of bob'), mutual: null };
const ASKED: Gate = { open: false, chap: true, credentials: [ALICE, BOB] };

/** Counts up: no two calls give the same. */
class CountingRandom {
  calls: number[] = [];
  #next = 1;

  readonly bytes = (sizeBytes: number): Uint8Array => {
    this.calls.push(sizeBytes);
    return Uint8Array.from({ length: sizeBytes }, () => this.#next++);
  };
}

/** A login with the requests of an initiator that does everything right, unless it is told otherwise. */
class Conversation {
  readonly random: CountingRandom;
  readonly login: Login;
  admissions = 0;
  challenge: Challenge | null = null;

  constructor(gate: Gate = ASKED, random: CountingRandom = new CountingRandom()) {
    this.random = random;
    this.login = new Login({
      limits: DEFAULT_LIMITS,
      portalGroupTag: 1,
      randomBytes: random.bytes,
      gate: () => gate,
      admit: () => {
        this.admissions++;
        return LoginStatus.SUCCESS;
      },
    });
  }

  send(pairs: Record<string, string>, change: Partial<LoginRequest> = {}): LoginReply {
    return this.login.next({
      transit: false,
      continues: false,
      currentStage: 0,
      nextStage: 1,
      versionMin: 0,
      isid: '800000000001',
      tsih: 0,
      cid: 1,
      cmdSn: 5,
      text: textData(pairs),
      ...change,
    });
  }

  begin(authMethod = 'CHAP', more: Record<string, string> = {}): LoginReply {
    return this.send({ InitiatorName: INITIATOR_NAME, TargetName: TARGET_NAME, AuthMethod: authMethod, ...more });
  }

  ask(algorithms = '8,7,6,5'): Challenge {
    const reply = this.send({ CHAP_A: algorithms });
    expect(reply).toMatchObject({ status: 0, transit: false });
    this.challenge = challengeOf(reply.text);
    return this.challenge;
  }

  answer(secret: string = SECRET, keys: Record<string, string> = {}): LoginReply {
    const response = hexOf(responseTo(this.challenge!, secret));
    return this.send({ CHAP_N: 'alice', CHAP_R: response, ...keys }, { transit: true });
  }

  /** CHAP is agreed on. */
  static begun(): Conversation {
    const conversation = new Conversation();
    conversation.begin();
    return conversation;
  }

  /** Up to the challenge. */
  static challenged(algorithms?: string): Conversation {
    const conversation = Conversation.begun();
    conversation.ask(algorithms);
    return conversation;
  }
}

function expectFailure(reply: LoginReply, status: LoginStatus = LoginStatus.AUTHENTICATION_FAILURE): void {
  expect(reply).toMatchObject({ status, transit: false, complete: false });
  expect(reply.text).toHaveLength(0);
  expect(reply.reason).not.toContain(SECRET);
  expect(reply.reason).not.toContain(TARGET_SECRET);
}

describe('CHAP', () => {
  it.each([
    ['5', 'CHAP MD5'],
    ['6', 'CHAP SHA1'],
    ['7', 'CHAP SHA-256'],
    ['8', 'CHAP SHA3-256'],
  ])('with CHAP_A=%s lets in who knows the secret', (number, description) => {
    const conversation = new Conversation();
    expect(textPairs(conversation.begin().text)).toEqual({ TargetPortalGroupTag: '1', AuthMethod: 'CHAP' });
    expect(conversation.ask(number).algorithm.number).toBe(Number(number));
    expect(conversation.admissions).toBe(0);
    expect(conversation.answer()).toMatchObject({ status: 0, transit: true, nextStage: 1 });
    expect(conversation.login.identity).toEqual({ initiatorName: INITIATOR_NAME, credential: ALICE });
    expect(conversation.login.authentication).toBe(description);
    expect(conversation.admissions).toBe(1);
    const last = conversation.send({}, { transit: true, currentStage: 1, nextStage: 3 });
    expect(last).toMatchObject({ status: 0, complete: true });
    expect(conversation.admissions).toBe(1);
  });

  it('lets go from the security stage to full feature phase', () => {
    const conversation = Conversation.challenged();
    const response = hexOf(responseTo(conversation.challenge!, SECRET));
    const reply = conversation.send({ CHAP_N: 'alice', CHAP_R: response }, { transit: true, nextStage: 3 });
    expect(reply).toMatchObject({ status: 0, complete: true });
  });

  it('proves the target too, when the initiator asks for it', () => {
    const conversation = Conversation.challenged('7');
    const theirs: Challenge = { ...conversation.challenge!, identifier: 77, bytes: Buffer.alloc(1024, 3) };
    const reply = conversation.answer(SECRET, { CHAP_I: '77', CHAP_C: hexOf(theirs.bytes) });
    expect(reply).toMatchObject({ status: 0, transit: true });
    expect(textPairs(reply.text)).toEqual({ CHAP_N: 'target', CHAP_R: hexOf(responseTo(theirs, TARGET_SECRET)) });
    expect(conversation.login.authentication).toBe('mutual CHAP SHA-256');
  });

  it('takes CHAP_I modulo 256, and in hexadecimal', () => {
    for (const identifier of ['333', '0x14d']) {
      const conversation = Conversation.challenged();
      const theirs: Challenge = { ...conversation.challenge!, identifier: 77, bytes: Buffer.alloc(16, 3) };
      const reply = conversation.answer(SECRET, { CHAP_I: identifier, CHAP_C: hexOf(theirs.bytes) });
      expect(textPairs(reply.text)['CHAP_R']).toBe(hexOf(responseTo(theirs, TARGET_SECRET)));
    }
  });

  it('takes a response and a challenge in base64', () => {
    const conversation = Conversation.challenged();
    const response = Buffer.from(responseTo(conversation.challenge!, SECRET)).toString('base64');
    const reply = conversation.answer('', { CHAP_R: `0b${response}`, CHAP_I: '1', CHAP_C: '0bAAAA' });
    expect(reply).toMatchObject({ status: 0, transit: true });
  });

  it('does not end the stage before its own end, whatever T says', () => {
    const conversation = new Conversation();
    const names = { InitiatorName: INITIATOR_NAME, TargetName: TARGET_NAME, AuthMethod: 'CHAP' };
    expect(conversation.send(names, { transit: true })).toMatchObject({ status: 0, transit: false, complete: false });
    const reply = conversation.send({ CHAP_A: '5' }, { transit: true, nextStage: 3 });
    expect(reply).toMatchObject({ status: 0, transit: false, complete: false });
    conversation.challenge = challengeOf(reply.text);
    expect(conversation.send({}, { transit: true })).toMatchObject({ status: 0, transit: false });
    expect(conversation.admissions).toBe(0);
    expect(conversation.answer()).toMatchObject({ status: 0, transit: true });
  });

  it('takes keys that come in several PDUs', () => {
    const conversation = Conversation.challenged();
    const response = hexOf(responseTo(conversation.challenge!, SECRET));
    const text = textData({ CHAP_N: 'alice', CHAP_R: response });
    for (let at = 0; at < text.length; at += 7) {
      const more = at + 7 < text.length;
      const part = text.slice(at, at + 7);
      const reply = conversation.send({}, { text: part, continues: more, transit: !more });
      expect(reply).toMatchObject({ status: 0, transit: !more });
    }
    expect(conversation.login.identity.credential).toBe(ALICE);
  });
});

describe('a login without the right proof', () => {
  let challenged: Conversation;

  beforeEach(() => {
    challenged = Conversation.challenged('7');
  });

  it('fails with a wrong secret', () => {
    expectFailure(challenged.answer('another secret of alice'));
    expect(challenged.admissions).toBe(0);
  });

  it("fails with another user's secret", () => {
    expectFailure(challenged.answer('a secret of bob'));
  });

  it('fails for a user that nobody is, exactly as for a wrong secret', () => {
    const unknown = Conversation.challenged('7');
    const one = unknown.answer(SECRET, { CHAP_N: 'eve' });
    const other = challenged.answer('another secret of alice');
    expect(one).toEqual(other);
    // The same was drawn and hashed for both.
    expect(unknown.random.calls).toEqual(challenged.random.calls);
  });

  it('fails where no user may come in, exactly as for a wrong secret', () => {
    const nobody = new Conversation({ open: false, chap: true, credentials: [] });
    expect(nobody.begin()).toEqual(new Conversation().begin());
    nobody.ask('7');
    expect(nobody.answer()).toEqual(challenged.answer('another secret of alice'));
    expect(nobody.random.calls).toEqual(challenged.random.calls);
  });

  it('fails when the security stage is skipped', () => {
    const conversation = new Conversation();
    const names = { InitiatorName: INITIATOR_NAME, TargetName: TARGET_NAME };
    expectFailure(conversation.send(names, { currentStage: 1, nextStage: 3, transit: true }));
    expectFailure(new Conversation().send(names, { currentStage: 1 }));
    expect(conversation.admissions).toBe(0);
  });

  it.each([1, 3])('fails when the security stage is left for stage %i without AuthMethod', (nextStage) => {
    const names = { InitiatorName: INITIATOR_NAME, TargetName: TARGET_NAME };
    expectFailure(new Conversation().send(names, { transit: true, nextStage }));
  });

  it.each(['None', 'KRB5,SRP', 'chap', 'CHAP2', ''])('fails when AuthMethod=%s has no CHAP', (offered) => {
    expectFailure(new Conversation().begin(offered));
  });

  it.each(['CHAP,None', 'None,CHAP', 'KRB5,CHAP'])('is asked for CHAP when AuthMethod=%s has it', (offered) => {
    const reply = new Conversation().begin(offered);
    expect(textPairs(reply.text)['AuthMethod']).toBe('CHAP');
  });

  it.each(['', '56', '4', 'MD5'])('fails with CHAP_A=%s, none of which we have', (offered) => {
    const conversation = new Conversation();
    conversation.begin();
    expectFailure(conversation.send({ CHAP_A: offered }));
  });

  it('fails when the target is asked to prove itself and cannot', () => {
    const conversation = Conversation.challenged();
    const response = hexOf(responseTo(conversation.challenge!, 'a secret of bob'));
    expectFailure(conversation.send({ CHAP_N: 'bob', CHAP_R: response, CHAP_I: '1', CHAP_C: '0x0011' }));
  });

  it('has one attempt', () => {
    challenged.answer('another secret of alice');
    // What a connection does not do, as it ends: the proof of a failed login does not count either.
    expect(challenged.login.identity.credential).toBeNull();
  });
});

describe('keys of CHAP in the wrong order', () => {
  it.each<[string, () => LoginReply]>([
    ['CHAP_A together with AuthMethod', () => new Conversation().begin('CHAP', { CHAP_A: '5' })],
    ['CHAP_N and CHAP_R before the challenge', () => Conversation.begun().send({ CHAP_N: 'alice', CHAP_R: '0x00' })],
    [
      'CHAP_A and a response at once',
      () => Conversation.begun().send({ CHAP_A: '5', CHAP_N: 'alice', CHAP_R: '0x00' }),
    ],
    [
      'CHAP_A before AuthMethod',
      () => new Conversation().send({ InitiatorName: INITIATOR_NAME, TargetName: TARGET_NAME, CHAP_A: '5' }),
    ],
    ['CHAP_A twice', () => Conversation.challenged('5').send({ CHAP_A: '5' })],
    ['AuthMethod twice', () => Conversation.begun().send({ AuthMethod: 'CHAP' })],
    ['a name without a response', () => Conversation.challenged().send({ CHAP_N: 'alice' })],
    ['a response without a name', () => Conversation.challenged().send({ CHAP_R: '0x00' })],
    ['CHAP_I without CHAP_C', () => Conversation.challenged().answer(SECRET, { CHAP_I: '1' })],
    ['CHAP_C without CHAP_I', () => Conversation.challenged().answer(SECRET, { CHAP_C: '0x0011' })],
    ['a CHAP_I that is no number', () => Conversation.challenged().answer(SECRET, { CHAP_I: 'x', CHAP_C: '0x0011' })],
    ['an operational key', () => Conversation.challenged().send({ HeaderDigest: 'None' })],
  ])('fail: %s', (_what, talk) => {
    expectFailure(talk(), LoginStatus.INITIATOR_ERROR);
  });

  it('fail after the end, too', () => {
    const conversation = Conversation.challenged();
    const response = hexOf(responseTo(conversation.challenge!, SECRET));
    expect(conversation.send({ CHAP_N: 'alice', CHAP_R: response })).toMatchObject({ status: 0, transit: false });
    expectFailure(conversation.send({ CHAP_I: '1', CHAP_C: '0x0011' }), LoginStatus.INITIATOR_ERROR);
  });
});

describe('what others got wrong', () => {
  it('CVE-2024-45751 (tgt, predictable challenges): each challenge is drawn anew, whole', () => {
    const random = new CountingRandom();
    const seen = new Set<string>();
    for (let i = 0; i < 20; i++) {
      const conversation = new Conversation(ASKED, random);
      conversation.begin();
      const { identifier, bytes } = conversation.ask();
      expect(bytes).toHaveLength(32);
      seen.add(Buffer.from(bytes).toString('hex'));
      expect(identifier).toBeLessThan(256);
    }
    expect(seen.size).toBe(20);
    expect(random.calls.filter((size) => size === 32)).toHaveLength(20);
  });

  it.each(['hex', 'base64'] as const)('reflection: our own challenge, sent back in %s, is not answered', (encoding) => {
    const conversation = Conversation.challenged('7');
    const { bytes } = conversation.challenge!;
    const challenge = encoding === 'hex' ? hexOf(bytes) : `0b${Buffer.from(bytes).toString('base64')}`;
    expectFailure(conversation.answer(SECRET, { CHAP_I: '9', CHAP_C: challenge }));
  });

  it("reflection: the target's response is not made with the initiator's secret", () => {
    const same: Credential = { ...ALICE, mutual: { user: 'target', secret: Buffer.from(SECRET) } };
    const conversation = new Conversation({ ...ASKED, credentials: [same] });
    conversation.begin();
    conversation.ask();
    expectFailure(conversation.answer(SECRET, { CHAP_I: '9', CHAP_C: '0x00112233' }));
  });

  it('reflection: nothing is answered to who has not proved anything', () => {
    const conversation = Conversation.challenged('7');
    expectFailure(conversation.answer('wrong, whatever it is', { CHAP_I: '9', CHAP_C: '0x00112233' }));
  });

  it.each([
    ['none', '0x'],
    ['1025 bytes', `0x${'00'.repeat(1025)}`],
    ['1025 bytes in base64', `0b${Buffer.alloc(1025).toString('base64')}`],
    ['an odd number of digits', '0x001'],
    ['no prefix', '00112233'],
    ['no digits', '0xzz'],
    ['8 KiB of base64', `0b${'A'.repeat(8188)}`],
  ])('CVE-2018-14633 (LIO, stack overflow by CHAP_C): a challenge of %s is refused', (_what, challenge) => {
    const conversation = Conversation.challenged('5');
    expectFailure(conversation.answer(SECRET, { CHAP_I: '1', CHAP_C: challenge }), LoginStatus.INITIATOR_ERROR);
  });

  it.each([
    ['a prefix that decodes', (response: string) => `0bb3ZlcnNpemUK${response}`],
    ['8 KiB', (response: string) => `0b${response}${'A'.repeat(8000)}`],
    [
      'one byte more',
      (response: string) => `0b${Buffer.concat([Buffer.from(response, 'base64'), Buffer.alloc(1)]).toString('base64')}`,
    ],
  ])('LIO, overflow by base64 CHAP_R: a response with %s is refused', (_what, change) => {
    const conversation = Conversation.challenged('5');
    const response = Buffer.from(responseTo(conversation.challenge!, SECRET)).toString('base64');
    expectFailure(conversation.answer('', { CHAP_R: change(response) }));
  });

  it.each(['0x616c696365', '0b', '0bYWxpY2U=', '0x', '0Xzz'])(
    'LIO, names decoded by their prefix: the user %s is itself',
    (user) => {
      const named = { ...ALICE, user };
      const conversation = new Conversation({ ...ASKED, credentials: [named, ALICE] });
      conversation.begin();
      conversation.ask('5');
      expect(conversation.answer(SECRET, { CHAP_N: user })).toMatchObject({ status: 0, transit: true });
      expect(conversation.login.identity.credential).toBe(named);
      // Nor is the name that it would decode to somebody else's.
      const other = Conversation.challenged('5');
      expectFailure(other.answer(SECRET, { CHAP_N: user }));
    },
  );

  it.each([
    ['empty', ''],
    ['a byte short', '0x00112233445566778899aabbccddee'],
    ['of another algorithm', `0x${'00'.repeat(32)}`],
    ['without a prefix', '00112233445566778899aabbccddeeff'],
    ['with an odd number of digits', '0x00112233445566778899aabbccddeef'],
  ])('SCST, memcpy by the length of CHAP_R: a response that is %s is refused', (_what, response) => {
    const conversation = Conversation.challenged('5');
    expectFailure(conversation.answer('', { CHAP_R: response }));
  });

  it.each([
    ['of 64 characters', `${'K'.repeat(64)}=x`],
    ['with a value of more than 8 KiB', `X-long=${'x'.repeat(8193)}`],
  ])('CVE-2013-2850 (LIO, overflow by NotUnderstood): a key %s is refused before anybody is known', (_what, pair) => {
    const conversation = new Conversation();
    conversation.begin();
    expectFailure(conversation.send({}, { text: Buffer.from(`${pair}\0`) }), LoginStatus.INITIATOR_ERROR);
  });

  it('CVE-2013-2850: many long keys are answered in parts that fit, and no more of them than fit a bound', () => {
    const conversation = new Conversation();
    conversation.begin();
    const pairs = (count: number): Record<string, string> =>
      Object.fromEntries(Array.from({ length: count }, (_, i) => [`X-${String(i).padStart(61, 'k')}`, '']));
    const first = conversation.send(pairs(128));
    expect(first).toMatchObject({ status: 0, continues: true });
    expect(first.text).toHaveLength(8192);
    const second = conversation.send({});
    expect(second).toMatchObject({ status: 0, continues: false });
    expect(Object.keys(textPairs(Buffer.concat([first.text, second.text])))).toHaveLength(128);
    const more = new Conversation();
    more.begin();
    expectFailure(more.send(pairs(129)), LoginStatus.INITIATOR_ERROR);
  });

  it('a name of 8 KiB is just unknown; a longer value is no text', () => {
    const long = Conversation.challenged('5');
    expectFailure(long.answer(SECRET, { CHAP_N: 'x'.repeat(8192) }));
    const longer = Conversation.challenged('5');
    expectFailure(longer.answer(SECRET, { CHAP_N: 'x'.repeat(8193) }), LoginStatus.INITIATOR_ERROR);
  });
});

describe('discovery', () => {
  const discover = (gate: Gate, authMethod: string): LoginReply =>
    new Conversation(gate).send({ InitiatorName: INITIATOR_NAME, SessionType: 'Discovery', AuthMethod: authMethod });

  it('is asked for CHAP where there are users and the initiator offers it, though it is let in without', () => {
    const gate = { open: true, chap: true, credentials: [] };
    expect(textPairs(discover(gate, 'CHAP,None').text)).toEqual({ AuthMethod: 'CHAP' });
    expect(textPairs(discover(gate, 'None').text)).toEqual({ AuthMethod: 'None' });
  });

  it('is not asked where there are none', () => {
    const gate = { open: true, chap: false, credentials: [] };
    expect(textPairs(discover(gate, 'CHAP,None').text)).toEqual({ AuthMethod: 'None' });
    expectFailure(discover(gate, 'CHAP'));
  });

  it('is refused to who offers no CHAP where nothing is to be seen without', () => {
    expectFailure(discover({ open: false, chap: true, credentials: [] }, 'None'));
  });
});
