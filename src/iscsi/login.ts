import type { Gate, Identity } from './access.ts';
import type { RandomBytes } from './authentication.ts';
import type { PortalLimits } from './limits.ts';
import { fail, LoginFailure } from './login-failure.ts';
import { normalizeName } from './names.ts';
import { negotiate } from './negotiation.ts';
import { Parameters } from './parameters.ts';
import { SecurityStage } from './security-stage.ts';
import type { SessionName } from './session-table.ts';
import { LoginStatus, MAX_NAME_SIZE, Stage, VERSION } from './spec.ts';
import { formatText, parseText, TextCollector, type TextPair } from './text.ts';

/** The fields of a login request that the login looks at (RFC 7143 11.12). */
export interface LoginRequest {
  readonly transit: boolean;
  readonly continues: boolean;
  readonly currentStage: number;
  readonly nextStage: number;
  readonly versionMin: number;
  /** 12 hexadecimal digits. */
  readonly isid: string;
  readonly tsih: number;
  readonly cid: number;
  readonly cmdSn: number;
  /** The data segment; belongs to the login from now on. */
  readonly text: Uint8Array;
}

/** What to send for a request, and what becomes of the login. */
export interface LoginReply {
  readonly status: LoginStatus;
  readonly transit: boolean;
  readonly continues: boolean;
  readonly currentStage: number;
  readonly nextStage: number;
  readonly text: Uint8Array;
  /** The login is complete once the session takes it in: this reply waits for that. */
  readonly complete: boolean;
  /** For the log when `status` says that the login failed. */
  readonly reason: string;
}

/** What a login must know of the world. */
export interface LoginEnvironment {
  readonly limits: PortalLimits;
  readonly portalGroupTag: number;
  readonly randomBytes: RandomBytes;
  /** What is asked of an initiator; the names are normalized, `targetName` is null for discovery. */
  gate(initiatorName: string, targetName: string | null): Gate;
  /**
   * Asked when the initiator has been let in: whether the login may go on into the session that its ISID and TSIH name: SUCCESS for a new session or the reinstatement of one, else the status to
   * refuse it with. `targetName` is null for discovery.
   */
  admit(name: SessionName, identity: Identity, tsih: number, cid: number): LoginStatus;
}

const EMPTY = new Uint8Array(0);
/** Bytes of the answer's text in one login response: the initiator's MaxRecvDataSegmentLength is its default all login long. */
const MAX_REPLY_SIZE = 8192;

/**
 * The login phase of one connection (RFC 7143 6.3, 11.12, 11.13): stages, who wants to talk to whom, parameters. Knows no socket: one request in, one
 * reply out.
 */
export class Login {
  readonly parameters: Parameters = new Parameters();
  /** Normalized; empty until the first text was read. */
  initiatorName = '';
  /** Normalized; null in a discovery session. */
  targetName: string | null = null;
  discovery = false;
  isid = '';
  tsih = 0;
  cid = 0;
  cmdSn = 0;

  private readonly environment: LoginEnvironment;
  private readonly collector: TextCollector;
  private readonly keysSeen: Set<string> = new Set();
  private stage: number = -1;
  /** Null before the first text. */
  private security: SecurityStage | null = null;
  private admitted = false;
  private declared = false;
  private requests = 0;
  /** An answer too long for one response, from where it is to go on. */
  private rest: Uint8Array = EMPTY;

  constructor(environment: LoginEnvironment) {
    this.environment = environment;
    this.collector = new TextCollector(environment.limits.textBytes);
  }

  /** Nothing has come yet. */
  get isFresh(): boolean {
    return this.requests === 0;
  }

  /** Who has logged in, when the login is complete. */
  get identity(): Identity {
    return { initiatorName: this.initiatorName, credential: this.security?.credential ?? null };
  }

  /** How: see `SecurityStage.description`. */
  get authentication(): string {
    return this.security?.description ?? 'none';
  }

  /** The reply to the next request. After one with a status other than SUCCESS, or a complete one, the login is over. */
  next(request: LoginRequest): LoginReply {
    try {
      return this.step(request);
    } catch (error) {
      if (!(error instanceof LoginFailure)) throw error;
      return {
        status: error.status,
        transit: false,
        continues: false,
        currentStage: request.currentStage,
        nextStage: 0,
        text: EMPTY,
        complete: false,
        reason: error.message,
      };
    }
  }

  private step(request: LoginRequest): LoginReply {
    this.checkHeader(request);
    if (!this.collector.add(request.text)) fail(LoginStatus.INITIATOR_ERROR, 'the text is too long');
    if (this.rest.length > 0) {
      // The initiator fetches the rest of our text with empty requests.
      if (!this.collector.isEmpty || request.continues) fail(LoginStatus.INITIATOR_ERROR, 'text while ours goes on');
      return this.reply(request, this.rest);
    }
    if (request.continues) return reply(this.stage, EMPTY);
    const text = parseText(this.collector.take());
    if (typeof text === 'string') fail(LoginStatus.INITIATOR_ERROR, text);
    for (const { key } of text) {
      if (this.keysSeen.has(key)) fail(LoginStatus.INITIATOR_ERROR, `${key} twice`);
      this.keysSeen.add(key);
    }
    const answers: TextPair[] = [];
    const others = this.identify(text, answers);
    const security = this.security!;
    if (this.stage === Stage.SECURITY) {
      security.next(others, answers);
      if (request.transit && !security.isPending) this.admit(security);
    } else {
      this.admit(security);
      this.operate(others, answers);
    }
    return this.reply(request, answers.length === 0 ? EMPTY : formatText(answers));
  }

  private checkHeader(request: LoginRequest): void {
    if (++this.requests > this.environment.limits.loginRequests) fail(LoginStatus.INITIATOR_ERROR, 'no end of it');
    if (request.versionMin > VERSION) fail(LoginStatus.UNSUPPORTED_VERSION, `version ${request.versionMin} at least`);
    const { currentStage, nextStage } = request;
    if (this.stage === -1) {
      if (currentStage !== Stage.SECURITY && currentStage !== Stage.OPERATIONAL)
        fail(LoginStatus.INITIATOR_ERROR, `begins in stage ${currentStage}`);
      this.stage = currentStage;
      this.isid = request.isid;
      this.tsih = request.tsih;
      this.cid = request.cid;
      this.cmdSn = request.cmdSn;
    } else {
      if (currentStage !== this.stage)
        fail(LoginStatus.INITIATOR_ERROR, `stage ${currentStage} instead of ${this.stage}`);
      if (request.isid !== this.isid || request.tsih !== this.tsih || request.cid !== this.cid)
        fail(LoginStatus.INITIATOR_ERROR, 'ISID, TSIH or CID have changed');
    }
    if (!request.transit) return;
    if (request.continues) fail(LoginStatus.INITIATOR_ERROR, 'T and C together');
    if (nextStage <= currentStage || (nextStage !== Stage.OPERATIONAL && nextStage !== Stage.FULL_FEATURE))
      fail(LoginStatus.INITIATOR_ERROR, `from stage ${currentStage} to ${nextStage}`);
  }

  /** Takes the keys that say who talks to whom out of the text; the first text must have them. */
  private identify(text: readonly TextPair[], answers: TextPair[]): TextPair[] {
    const others: TextPair[] = [];
    const named = new Map<string, string>();
    for (const pair of text) {
      if (pair.key === 'InitiatorName' || pair.key === 'TargetName' || pair.key === 'SessionType')
        named.set(pair.key, pair.value);
      else others.push(pair);
    }
    if (this.security !== null) {
      if (named.size > 0) fail(LoginStatus.INITIATOR_ERROR, 'says later who talks to whom');
      return others;
    }
    const initiator = named.get('InitiatorName');
    if (initiator === undefined) fail(LoginStatus.MISSING_PARAMETER, 'no InitiatorName');
    this.initiatorName = this.name(initiator, 'InitiatorName');
    const sessionType = named.get('SessionType') ?? 'Normal';
    if (sessionType !== 'Normal' && sessionType !== 'Discovery')
      fail(LoginStatus.SESSION_TYPE_NOT_SUPPORTED, 'a SessionType that does not exist');
    this.discovery = sessionType === 'Discovery';
    const target = named.get('TargetName');
    if (!this.discovery) {
      if (target === undefined) fail(LoginStatus.MISSING_PARAMETER, 'no TargetName');
      this.targetName = this.name(target, 'TargetName');
    }
    const gate = this.environment.gate(this.initiatorName, this.targetName);
    if (!gate.open && !gate.chap) fail(LoginStatus.NOT_FOUND, `no target ${this.targetName} for this initiator`);
    this.security = new SecurityStage(gate, this.discovery, this.environment.randomBytes);
    if (this.targetName !== null) {
      // In the first response of the login that names a target (RFC 7143 13.9).
      answers.push({ key: 'TargetPortalGroupTag', value: String(this.environment.portalGroupTag) });
    }
    return others;
  }

  private name(value: string, key: string): string {
    const name = normalizeName(value);
    if (name === null) fail(LoginStatus.INITIATOR_ERROR, `${key} is not an iSCSI name of up to ${MAX_NAME_SIZE} bytes`);
    return name;
  }

  /** Lets the initiator go on behind the security stage, once. */
  private admit(security: SecurityStage): void {
    if (this.admitted) return;
    security.leave();
    const { initiatorName, targetName, isid, tsih, cid, identity } = this;
    const { portalGroupTag } = this.environment;
    const status = this.environment.admit({ initiatorName, targetName, isid, portalGroupTag }, identity, tsih, cid);
    if (status !== LoginStatus.SUCCESS) fail(status, 'not admitted');
    this.admitted = true;
  }

  private operate(pairs: readonly TextPair[], answers: TextPair[]): void {
    const { limits } = this.environment;
    answers.push(
      ...negotiate(pairs, {
        limits,
        parameters: this.parameters,
        discovery: this.discovery,
        fullFeature: false,
        leading: this.tsih === 0,
      }),
    );
    if (!this.declared) {
      this.declared = true;
      this.parameters.targetSegmentLength = limits.maxRecvDataSegmentLength;
      answers.push({ key: 'MaxRecvDataSegmentLength', value: String(limits.maxRecvDataSegmentLength) });
    }
  }

  private reply(request: LoginRequest, text: Uint8Array): LoginReply {
    if (text.length > MAX_REPLY_SIZE) {
      this.rest = text.subarray(MAX_REPLY_SIZE);
      return reply(this.stage, text.subarray(0, MAX_REPLY_SIZE), true);
    }
    this.rest = EMPTY;
    if (!request.transit || !this.admitted) return reply(this.stage, text);
    const from = this.stage;
    this.stage = request.nextStage;
    return {
      ...reply(from, text),
      transit: true,
      nextStage: request.nextStage,
      complete: request.nextStage === Stage.FULL_FEATURE,
    };
  }
}

function reply(stage: number, text: Uint8Array, continues: boolean = false): LoginReply {
  return {
    status: LoginStatus.SUCCESS,
    transit: false,
    continues,
    currentStage: stage,
    nextStage: 0,
    text,
    complete: false,
    reason: '',
  };
}
