import { CHAP_ALGORITHMS, type ChapAlgorithm, chapResponse } from '../../src/iscsi/chap.ts';
import { textPairs } from './iscsi-initiator.ts';

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
