import type { Credential, Gate } from './access.ts';
import { CHAP_KEYS, ChapAuthentication, type RandomBytes } from './authentication.ts';
import { fail } from './login-failure.ts';
import { LoginStatus } from './spec.ts';
import { NONE, NOT_UNDERSTOOD, REJECT, type TextPair } from './text.ts';

const CHAP = 'CHAP';

/** Keys of the security stage (RFC 7143 6.3.2) that only a target says. */
const TARGET_KEYS: ReadonlySet<string> = new Set(['TargetAddress', 'TargetAlias', 'TargetPortalGroupTag']);

const OPERATIONAL_KEYS: ReadonlySet<string> = new Set([
  'HeaderDigest',
  'DataDigest',
  'MaxConnections',
  'InitialR2T',
  'ImmediateData',
  'MaxRecvDataSegmentLength',
  'MaxBurstLength',
  'FirstBurstLength',
  'DefaultTime2Wait',
  'DefaultTime2Retain',
  'MaxOutstandingR2T',
  'DataPDUInOrder',
  'DataSequenceInOrder',
  'ErrorRecoveryLevel',
]);

/**
 * The security stage of one login (RFC 7143 6.3.2, 12): the method of authentication, and the authentication. Also of logins that leave it out, which
 * have agreed on no authentication.
 */
export class SecurityStage {
  private readonly gate: Gate;
  private readonly discovery: boolean;
  private readonly randomBytes: RandomBytes;
  private chap: ChapAuthentication | null = null;

  constructor(gate: Gate, discovery: boolean, randomBytes: RandomBytes) {
    this.gate = gate;
    this.discovery = discovery;
    this.randomBytes = randomBytes;
  }

  /** What the initiator has proved to know; null when it was not asked. */
  get credential(): Credential | null {
    return this.chap?.credential ?? null;
  }

  /** How the two have authenticated each other, for people: `none`, `CHAP SHA-256`, `mutual CHAP MD5`. */
  get description(): string {
    const { chap } = this;
    if (chap === null || chap.credential === null) return 'none';
    return `${chap.mutual ? 'mutual CHAP' : CHAP} ${chap.algorithmName}`;
  }

  /** An authentication has begun and not ended: the stage goes on, whatever the initiator asks for. */
  get isPending(): boolean {
    return this.chap !== null && this.chap.credential === null;
  }

  /** Answers a text of the stage. */
  next(pairs: readonly TextPair[], answers: TextPair[]): void {
    const chapKeys = new Map<string, string>();
    let method: string | null = null;
    for (const { key, value } of pairs) {
      if (key === 'AuthMethod') method = value;
      else if (CHAP_KEYS.has(key)) chapKeys.set(key, value);
      else if (TARGET_KEYS.has(key)) answers.push({ key, value: REJECT });
      else if (OPERATIONAL_KEYS.has(key)) fail(LoginStatus.INITIATOR_ERROR, `${key} in the security stage`);
      else if (key !== 'InitiatorAlias') answers.push({ key, value: NOT_UNDERSTOOD });
    }
    if (method !== null) {
      if (chapKeys.size > 0) fail(LoginStatus.INITIATOR_ERROR, 'CHAP keys together with AuthMethod');
      this.choose(method.split(','), answers);
      return;
    }
    if (chapKeys.size === 0) return;
    if (this.chap === null) fail(LoginStatus.INITIATOR_ERROR, 'CHAP keys, and CHAP was not agreed on');
    const failure = this.chap.next(chapKeys, answers);
    if (failure === null) return;
    fail(failure.protocol ? LoginStatus.INITIATOR_ERROR : LoginStatus.AUTHENTICATION_FAILURE, failure.reason);
  }

  /** The initiator goes on to the next stage, or begins there. */
  leave(): void {
    if (this.credential === null && !this.gate.open) {
      fail(LoginStatus.AUTHENTICATION_FAILURE, 'goes on without the authentication that is asked for');
    }
  }

  /** For discovery CHAP is better than nothing: it shows the targets that need it, too. */
  private choose(offered: readonly string[], answers: TextPair[]): void {
    const { open, chap } = this.gate;
    const wanted = chap && (!open || this.discovery || !offered.includes(NONE));
    if (wanted && offered.includes(CHAP)) {
      this.chap = new ChapAuthentication(this.gate.credentials, this.randomBytes);
      answers.push({ key: 'AuthMethod', value: CHAP });
    } else if (open && offered.includes(NONE)) {
      answers.push({ key: 'AuthMethod', value: NONE });
    } else {
      fail(LoginStatus.AUTHENTICATION_FAILURE, 'offers no authentication method that we could take');
    }
  }
}
