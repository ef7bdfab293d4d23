import type { PortalLimits } from './limits.ts';
import type { Parameters } from './parameters.ts';
import { IRRELEVANT, NONE, NOT_UNDERSTOOD, parseNumber, REJECT, type TextPair } from './text.ts';

/** Where a key may be used (RFC 7143 13, "Use" and "Scope"). */
export const KeyUse = {
  /** During the operational stage of any login. */
  LOGIN: 0,
  /** During the operational stage of the login that makes the session. */
  LEADING_LOGIN: 1,
  /** In a login's operational stage and in full feature phase. */
  ALWAYS: 2,
  /** Never by an initiator, or not in a negotiation of parameters. */
  NEVER: 3,
} as const;
export type KeyUse = (typeof KeyUse)[keyof typeof KeyUse];

/** The part of a conversation that a text belongs to. */
export interface NegotiationContext {
  readonly limits: PortalLimits;
  readonly parameters: Parameters;
  readonly discovery: boolean;
  readonly fullFeature: boolean;
  /** The login makes the session; false for a login that reinstates a connection. */
  readonly leading: boolean;
}

interface KeyRule {
  readonly use: KeyUse;
  /** Meaningless in a discovery session. */
  readonly normalOnly: boolean;
  /** The answer to an offered value, or null where a declaration gets none. Takes the result over into the parameters. */
  answer(value: string, context: NegotiationContext): string | null;
}

type NumberResult = (parameters: Parameters, result: number) => void;
type BooleanResult = (parameters: Parameters, result: boolean) => void;

const ignored = (): void => {};

/** The initiator lists what it can do, best first; the first that we can do is taken (RFC 7143 6.2.1). */
function list(
  use: KeyUse,
  normalOnly: boolean,
  ours: readonly string[],
  apply: (p: Parameters, result: string) => void,
): KeyRule {
  return {
    use,
    normalOnly,
    answer(value, context) {
      const chosen = value.split(',').find((each) => ours.includes(each));
      if (chosen === undefined) return REJECT;
      apply(context.parameters, chosen);
      return chosen;
    },
  };
}

/** A number in a range; the result is the smaller or the larger of both sides' (RFC 7143 6.2.2). */
function numerical(
  choose: 'minimum' | 'maximum',
  range: readonly [number, number],
  ours: (limits: PortalLimits) => number,
  use: KeyUse,
  normalOnly: boolean,
  apply: NumberResult,
): KeyRule {
  return {
    use,
    normalOnly,
    answer(value, context) {
      const offered = parseNumber(value);
      if (offered < range[0] || offered > range[1]) return REJECT;
      const mine = ours(context.limits);
      const result = choose === 'minimum' ? Math.min(offered, mine) : Math.max(offered, mine);
      apply(context.parameters, result);
      return String(result);
    },
  };
}

/** Yes or No; the result is the AND or the OR of both sides' (RFC 7143 6.2.2). */
function boolean(combine: 'and' | 'or', ours: boolean, normalOnly: boolean, apply: BooleanResult): KeyRule {
  return {
    use: KeyUse.LEADING_LOGIN,
    normalOnly,
    answer(value, context) {
      if (value !== 'Yes' && value !== 'No') return REJECT;
      const offered = value === 'Yes';
      const result = combine === 'and' ? offered && ours : offered || ours;
      apply(context.parameters, result);
      return result ? 'Yes' : 'No';
    },
  };
}

function never(answer: string): KeyRule {
  return { use: KeyUse.NEVER, normalOnly: false, answer: () => answer };
}

/** RFC 7144: the task management functions that it adds. */
const PROTOCOL_LEVEL = 2;

/** Obsolete since RFC 7143 (13.26): `No` is allowed as an answer and is what initiators of RFC 3720 expect. */
const marker: KeyRule = boolean('and', false, false, ignored);
const markerInterval: KeyRule = {
  use: KeyUse.LEADING_LOGIN,
  normalOnly: false,
  answer: () => REJECT,
};

const digests: readonly string[] = ['CRC32C', NONE];

/** Every key of RFC 7143 13 that is not part of who talks to whom (see login.ts) or of a request (see discovery.ts). */
const RULES: ReadonlyMap<string, KeyRule> = new Map<string, KeyRule>([
  ['HeaderDigest', list(KeyUse.LOGIN, false, digests, (p, result) => (p.headerDigest = result !== NONE))],
  ['DataDigest', list(KeyUse.LOGIN, false, digests, (p, result) => (p.dataDigest = result !== NONE))],
  [
    'MaxConnections',
    numerical(
      'minimum',
      [1, 65535],
      (limits) => limits.connectionsPerSession,
      KeyUse.LEADING_LOGIN,
      true,
      (p, result) => (p.maxConnections = result),
    ),
  ],
  ['InitialR2T', boolean('or', false, true, (p, result) => (p.initialR2T = result))],
  ['ImmediateData', boolean('and', true, true, (p, result) => (p.immediateData = result))],
  [
    'MaxRecvDataSegmentLength',
    {
      use: KeyUse.ALWAYS,
      normalOnly: false,
      answer(value, context) {
        const declared = parseNumber(value);
        if (declared < 512 || declared > 0xffffff) return REJECT;
        context.parameters.initiatorSegmentLength = declared;
        return null;
      },
    },
  ],
  [
    'MaxBurstLength',
    numerical(
      'minimum',
      [512, 0xffffff],
      (limits) => limits.maxBurstLength,
      KeyUse.LEADING_LOGIN,
      true,
      (p, result) => (p.maxBurstLength = result),
    ),
  ],
  [
    'FirstBurstLength',
    numerical(
      'minimum',
      [512, 0xffffff],
      (limits) => limits.firstBurstLength,
      KeyUse.LEADING_LOGIN,
      true,
      (p, result) => (p.firstBurstLength = result),
    ),
  ],
  [
    'DefaultTime2Wait',
    numerical(
      'maximum',
      [0, 3600],
      () => 0,
      KeyUse.LEADING_LOGIN,
      false,
      (p, result) => (p.defaultTime2Wait = result),
    ),
  ],
  [
    // Nothing of a session is kept once its connection is gone.
    'DefaultTime2Retain',
    numerical(
      'minimum',
      [0, 3600],
      () => 0,
      KeyUse.LEADING_LOGIN,
      false,
      (p, result) => (p.defaultTime2Retain = result),
    ),
  ],
  [
    'MaxOutstandingR2T',
    numerical(
      'minimum',
      [1, 65535],
      (limits) => limits.maxOutstandingR2T,
      KeyUse.LEADING_LOGIN,
      true,
      (p, result) => (p.maxOutstandingR2T = result),
    ),
  ],
  ['DataPDUInOrder', boolean('or', true, true, ignored)],
  ['DataSequenceInOrder', boolean('or', true, true, ignored)],
  ['ErrorRecoveryLevel', numerical('minimum', [0, 2], () => 0, KeyUse.LEADING_LOGIN, false, ignored)],
  ['TaskReporting', list(KeyUse.LEADING_LOGIN, true, ['RFC3720'], ignored)],
  ['iSCSIProtocolLevel', numerical('minimum', [0, 31], () => PROTOCOL_LEVEL, KeyUse.LEADING_LOGIN, true, ignored)],
  ['IFMarker', marker],
  ['OFMarker', marker],
  ['IFMarkInt', markerInterval],
  ['OFMarkInt', markerInterval],
  ['TargetAlias', never(REJECT)],
  ['TargetAddress', never(REJECT)],
  ['TargetPortalGroupTag', never(REJECT)],
  ['SendTargets', never(REJECT)],
  ['AuthMethod', never(REJECT)],
  ['SessionType', never(REJECT)],
  ['InitiatorName', never(REJECT)],
  ['TargetName', never(REJECT)],
]);

/** Says who somebody is to people; kept by nobody. */
const DECLARED_ANYTIME: ReadonlySet<string> = new Set(['InitiatorAlias']);

/**
 * Answers one text of a negotiation, every key by its rule, and takes the results over into `context.parameters`.
 * The pairs carry no key twice.
 */
export function negotiate(pairs: readonly TextPair[], context: NegotiationContext): TextPair[] {
  const answers: TextPair[] = [];
  let firstBurst: TextPair | null = null;
  for (const pair of pairs) {
    // Whether FirstBurstLength means anything, and how much it can be, depends on other keys of the same text.
    if (pair.key === 'FirstBurstLength') firstBurst = pair;
    else answerKey(pair, context, answers);
  }
  if (firstBurst !== null) answerKey(firstBurst, context, answers);
  const { parameters } = context;
  if (parameters.firstBurstLength > parameters.maxBurstLength) parameters.firstBurstLength = parameters.maxBurstLength;
  return answers;
}

function answerKey(pair: TextPair, context: NegotiationContext, answers: TextPair[]): void {
  const { key, value } = pair;
  const rule = RULES.get(key);
  if (rule === undefined) {
    if (!DECLARED_ANYTIME.has(key)) answers.push({ key, value: NOT_UNDERSTOOD });
    return;
  }
  let answer: string | null;
  if (!allowed(rule.use, context)) answer = REJECT;
  else if (rule.normalOnly && context.discovery) answer = IRRELEVANT;
  else if (key === 'FirstBurstLength') answer = answerFirstBurst(rule, value, context);
  else answer = rule.answer(value, context);
  if (answer !== null) answers.push({ key, value: answer });
}

function answerFirstBurst(rule: KeyRule, value: string, context: NegotiationContext): string | null {
  const { parameters } = context;
  if (parameters.initialR2T && !parameters.immediateData) return IRRELEVANT;
  const answer = rule.answer(value, context);
  if (answer === REJECT || parameters.firstBurstLength <= parameters.maxBurstLength) return answer;
  parameters.firstBurstLength = parameters.maxBurstLength;
  return String(parameters.firstBurstLength);
}

function allowed(use: KeyUse, context: NegotiationContext): boolean {
  switch (use) {
    case KeyUse.LOGIN:
      return !context.fullFeature;
    case KeyUse.LEADING_LOGIN:
      return !context.fullFeature && context.leading;
    default:
      return true;
  }
}
