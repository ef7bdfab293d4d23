import { readU32BE } from '../base/bytes.ts';
import type { TargetDirectory } from './access.ts';
import { taskTag } from './command-pdu.ts';
import { sendTargets } from './discovery.ts';
import type { PortalLimits } from './limits.ts';
import { negotiate } from './negotiation.ts';
import type { Parameters } from './parameters.ts';
import type { PduParser } from './pdu-parser.ts';
import type { PduWriter } from './pdu-writer.ts';
import type { Session } from './session.ts';
import { CONTINUE, FINAL, Field, RejectReason } from './spec.ts';
import { formatText, NOT_UNDERSTOOD, parseText, REJECT, type TextPair } from './text.ts';
import { TextExchange } from './text-exchange.ts';

/** What text requests of a session are about. */
export interface TextScope {
  readonly limits: PortalLimits;
  readonly targets: TargetDirectory;
  /** Of all portals as this initiator can reach them, each `host:port,tag`. */
  targetAddresses(): readonly string[];
}

/** Answers the text requests of one connection in full feature phase: SendTargets, and the few parameters that may still change. */
export class TextRequests {
  private readonly session: Session;
  private readonly parameters: Parameters;
  private readonly scope: TextScope;
  private readonly writer: PduWriter;
  private readonly exchange: TextExchange;

  constructor(session: Session, parameters: Parameters, scope: TextScope, writer: PduWriter) {
    this.session = session;
    this.parameters = parameters;
    this.scope = scope;
    this.writer = writer;
    this.exchange = new TextExchange(scope.limits.textBytes);
  }

  /** Answers the request at `parser`, whose text is `text`; returns the reason to reject it for, else 0. */
  answer(parser: PduParser, text: Uint8Array): RejectReason | 0 {
    const { header, headerAt: at } = parser;
    const flags = header[at + Field.FLAGS]!;
    const answer = this.exchange.next(
      readU32BE(header, at + Field.TRANSFER_TAG),
      (flags & FINAL) !== 0,
      (flags & CONTINUE) !== 0,
      text,
      this.parameters.initiatorSegmentLength,
      (whole) => this.respond(whole),
    );
    if (answer.reject === 0) this.writer.textResponse(taskTag(parser), answer);
    return answer.reject;
  }

  private respond(text: Uint8Array): Uint8Array | RejectReason {
    const pairs = parseText(text);
    if (typeof pairs === 'string') return RejectReason.PROTOCOL_ERROR;
    if (new Set(pairs.map((pair) => pair.key)).size < pairs.length) return RejectReason.PROTOCOL_ERROR;
    const { limits, targets } = this.scope;
    const { targetName, identity } = this.session;
    const answers: TextPair[] = [];
    const others: TextPair[] = [];
    for (const pair of pairs) {
      if (pair.key !== 'SendTargets') others.push(pair);
      else answers.push(...sendTargets(pair.value, targetName, identity, targets, this.scope.targetAddresses()));
    }
    answers.push(
      ...negotiate(others, {
        limits,
        parameters: this.parameters,
        discovery: this.session.target === null,
        fullFeature: true,
        leading: false,
      }),
    );
    // A request of which nothing means anything is rejected as a whole, as LIO does: initiators (libiscsi) that do not know the answer
    // `key=NotUnderstood` to a request take it for a broken connection.
    const refused = answers.every((answer) => answer.value === NOT_UNDERSTOOD || answer.value === REJECT);
    if (answers.length > 0 && refused) return RejectReason.COMMAND_NOT_SUPPORTED;
    return formatText(answers);
  }
}
