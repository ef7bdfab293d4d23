import { CHAP_ALGORITHMS, type ChapAlgorithm, chapResponse } from '../../src/iscsi/chap.ts';
import {
  INITIATOR_NAME,
  type Initiator,
  loginStatus,
  type Pdu,
  TARGET_NAME,
  textData,
  textPairs,
  USUAL_KEYS,
} from './iscsi-initiator.ts';

export const hexOf = (bytes: Uint8Array): string => `0x${Buffer.from(bytes).toString('hex')}`;

/** What a target sent to be answered. */
export interface Challenge {
  algorithm: ChapAlgorithm;
  identifier: number;
  bytes: Uint8Array;
}

export function challengeOf(text: Uint8Array): Challenge {
  const { CHAP_A, CHAP_I, CHAP_C } = textPairs(text);
  const algorithm = CHAP_ALGORITHMS.find(({ number }) => number === Number(CHAP_A));
  if (algorithm === undefined || !CHAP_C?.startsWith('0x'))
    throw new Error(`no challenge: ${JSON.stringify(textPairs(text))}`);
  return { algorithm, identifier: Number(CHAP_I), bytes: Buffer.from(CHAP_C.slice(2), 'hex') };
}

/** The response of who knows `secret`. */
export function responseTo({ algorithm, identifier, bytes }: Challenge, secret: string): Uint8Array {
  return chapResponse(algorithm, identifier, Buffer.from(secret), bytes);
}

export interface ChapLogin {
  initiator?: string;
  /** Null: discovery. */
  target?: string | null;
  isid?: number;
  tsih?: number;
  user?: string;
  secret?: string;
  /** Default: `5`. */
  algorithms?: string;
  authMethod?: string;
}

const TO_OPERATIONAL = 0x81;
const TO_FULL_FEATURE = 0x87;
const SECURITY = 0x00;

/** Logs in by way of the security stage, with CHAP when the target asks for it; the last response, whatever it says. */
export async function logInWithChap(initiator: Initiator, options: ChapLogin = {}): Promise<Pdu> {
  const { target = TARGET_NAME, user = '', secret = '', isid = 1, tsih = 0 } = options;
  const names = {
    InitiatorName: options.initiator ?? INITIATOR_NAME,
    ...(target === null ? { SessionType: 'Discovery' } : { TargetName: target, SessionType: 'Normal' }),
  };
  const request = (pairs: Record<string, string>, flags: number): Promise<Pdu> =>
    initiator.loginRequest(textData(pairs), flags, { isid, tsih });
  let response = await request({ ...names, AuthMethod: options.authMethod ?? 'CHAP,None' }, SECURITY);
  if (loginStatus(response) !== 0) return response;
  let answers: Record<string, string> = {};
  if (textPairs(response.data)['AuthMethod'] === 'CHAP') {
    response = await request({ CHAP_A: options.algorithms ?? '5' }, SECURITY);
    if (loginStatus(response) !== 0) return response;
    answers = { CHAP_N: user, CHAP_R: hexOf(responseTo(challengeOf(response.data), secret)) };
  }
  response = await request(answers, TO_OPERATIONAL);
  if (loginStatus(response) !== 0) return response;
  return request(target === null ? {} : USUAL_KEYS, TO_FULL_FEATURE);
}
