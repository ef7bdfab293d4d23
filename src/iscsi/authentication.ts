import type { Credential } from './access.ts';
import {
  CHALLENGE_SIZE,
  type ChapAlgorithm,
  chapResponse,
  chooseAlgorithm,
  decodeBinary,
  encodeBinary,
  equalInConstantTime,
  MAX_CHALLENGE_SIZE,
} from './chap.ts';
import { parseNumber, type TextPair } from './text.ts';

/** Unpredictable bytes. */
export type RandomBytes = (sizeBytes: number) => Uint8Array;

/** What the initiator sent, and what is the matter with it. `protocol`: it breaks the rules; else it has not proved to be who it says. */
export interface ChapFailure {
  readonly protocol: boolean;
  readonly reason: string;
}

/** Keys of CHAP (RFC 7143 12.1.3). */
export const CHAP_KEYS: ReadonlySet<string> = new Set(['CHAP_A', 'CHAP_I', 'CHAP_C', 'CHAP_N', 'CHAP_R']);

/** Stands in where nobody has the user's name, so that it takes as long. */
const NOBODY_SECRET_SIZE = 16;

/**
 * One initiator's proof of who it is, and of who the target is if it asks for that: CHAP, after AuthMethod has been agreed on. One challenge, drawn for it
 * alone, and one attempt.
 */
export class ChapAuthentication {
  /** What has been proved; null before. */
  credential: Credential | null = null;
  /** The target has proved who it is, too. */
  mutual = false;
  private readonly credentials: readonly Credential[];
  private readonly random: RandomBytes;
  private algorithm: ChapAlgorithm | null = null;
  private identifier = 0;
  private challenge: Uint8Array = new Uint8Array(0);

  /** `credentials` are those that let the initiator in. */
  constructor(credentials: readonly Credential[], random: RandomBytes) {
    this.credentials = credentials;
    this.random = random;
  }

  /** Name of the algorithm; empty before there is one. */
  get algorithmName(): string {
    return this.algorithm?.name ?? '';
  }

  /** Takes the CHAP keys of one text and adds the answers; returns what ends the login, or null. A text without any changes nothing. */
  next(keys: ReadonlyMap<string, string>, answers: TextPair[]): ChapFailure | null {
    if (keys.size === 0) return null;
    if (this.credential !== null) return protocolError('CHAP keys after the end');
    return this.algorithm === null ? this.begin(keys, answers) : this.verify(keys, this.algorithm, answers);
  }

  private begin(keys: ReadonlyMap<string, string>, answers: TextPair[]): ChapFailure | null {
    const offered = keys.get('CHAP_A');
    if (offered === undefined || keys.size > 1) return protocolError('CHAP does not begin with CHAP_A');
    this.algorithm = chooseAlgorithm(offered);
    if (this.algorithm === null) return refused('no CHAP algorithm that we have');
    this.identifier = this.random(1)[0]!;
    this.challenge = this.random(CHALLENGE_SIZE);
    answers.push(
      { key: 'CHAP_A', value: String(this.algorithm.number) },
      { key: 'CHAP_I', value: String(this.identifier) },
      { key: 'CHAP_C', value: encodeBinary(this.challenge) },
    );
    return null;
  }

  private verify(keys: ReadonlyMap<string, string>, algorithm: ChapAlgorithm, answers: TextPair[]): ChapFailure | null {
    const name = keys.get('CHAP_N');
    const responseText = keys.get('CHAP_R');
    const theirIdentifier = keys.get('CHAP_I');
    const theirChallenge = keys.get('CHAP_C');
    if (name === undefined || responseText === undefined) return protocolError('no CHAP_N or no CHAP_R');
    if (keys.has('CHAP_A')) return protocolError('CHAP_A twice');
    const asksBack = theirIdentifier !== undefined;
    if (asksBack !== (theirChallenge !== undefined)) return protocolError('CHAP_I without CHAP_C, or the reverse');

    const { responseSize } = algorithm;
    const response = decodeBinary(responseText, responseSize, responseSize);
    const credential = this.prove(algorithm, name, response ?? new Uint8Array(responseSize));
    if (credential === null || response === null) return refused('no such user, or a wrong secret');
    if (asksBack) {
      const failure = this.answerBack(algorithm, credential, theirIdentifier, theirChallenge!, answers);
      if (failure !== null) return failure;
    }
    this.credential = credential;
    return null;
  }

  /** The credential of `name` whose secret made `response`. Computes as much when nobody has that name. */
  private prove(algorithm: ChapAlgorithm, name: string, response: Uint8Array): Credential | null {
    const named = this.credentials.filter(({ user }) => user === name);
    const nobody: Credential = { user: name, secret: this.random(NOBODY_SECRET_SIZE), mutual: null };
    let proved: Credential | null = null;
    for (const candidate of named.length > 0 ? named : [nobody]) {
      const expected = chapResponse(algorithm, this.identifier, candidate.secret, this.challenge);
      if (equalInConstantTime(expected, response) && candidate !== nobody) proved = candidate;
    }
    return proved;
  }

  /** The target's own response. Never to the challenge that it has sent itself, and never with the initiator's secret (RFC 7143 9.2.1). */
  private answerBack(
    algorithm: ChapAlgorithm,
    { secret, mutual }: Credential,
    identifierText: string,
    challengeText: string,
    answers: TextPair[],
  ): ChapFailure | null {
    const identifier = parseNumber(identifierText);
    if (identifier < 0) return protocolError('CHAP_I is not a number');
    const challenge = decodeBinary(challengeText, 1, MAX_CHALLENGE_SIZE);
    if (challenge === null) return protocolError('CHAP_C is not a binary value of 1 to 1024 bytes');
    if (equalInConstantTime(challenge, this.challenge)) return refused('sends our own challenge back');
    if (mutual === null) return refused('asks the target to authenticate itself, and the user has no secret for that');
    if (equalInConstantTime(mutual.secret, secret)) return refused('both directions have the same secret');
    const response = chapResponse(algorithm, identifier % 256, mutual.secret, challenge);
    answers.push({ key: 'CHAP_N', value: mutual.user }, { key: 'CHAP_R', value: encodeBinary(response) });
    this.mutual = true;
    return null;
  }
}

function protocolError(reason: string): ChapFailure {
  return { protocol: true, reason };
}

function refused(reason: string): ChapFailure {
  return { protocol: false, reason };
}
