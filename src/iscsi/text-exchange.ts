import { RESERVED_TAG, RejectReason } from './spec.ts';
import { TextCollector } from './text.ts';

/** The answer to a text request: a reason to reject it, or what to send. */
export interface TextAnswer {
  readonly reject: RejectReason | 0;
  readonly final: boolean;
  readonly continues: boolean;
  readonly transferTag: number;
  readonly text: Uint8Array;
}

const EMPTY = new Uint8Array(0);

function refuse(reason: RejectReason): TextAnswer {
  return { reject: reason, final: false, continues: false, transferTag: RESERVED_TAG, text: EMPTY };
}

/**
 * Text requests and responses in full feature phase (RFC 7143 11.10, 11.11): a request that continues over several PDUs, an answer that does, and
 * negotiations of several rounds. One at a time; a request with the reserved transfer tag begins a new one and drops what was there.
 */
export class TextExchange {
  private readonly maxBytes: number;
  private collector: TextCollector;
  private open = false;
  private transferTag = 0;
  /** Of our answer, what has not been sent. */
  private rest: Uint8Array = EMPTY;

  constructor(maxBytes: number) {
    this.maxBytes = maxBytes;
    this.collector = new TextCollector(maxBytes);
  }

  /**
   * The answer to a request with `text`; `respond` is called when the initiator's text is whole and returns ours, or a reason to reject it. At most
   * `segmentLength` bytes go into one PDU.
   */
  next(
    transferTag: number,
    final: boolean,
    continues: boolean,
    text: Uint8Array,
    segmentLength: number,
    respond: (text: Uint8Array) => Uint8Array | RejectReason,
  ): TextAnswer {
    if (transferTag === RESERVED_TAG) this.reset();
    else if (!this.open || transferTag !== this.transferTag) return this.fail(RejectReason.INVALID_PDU_FIELD);
    if (final && continues) return this.fail(RejectReason.PROTOCOL_ERROR);
    if (!this.collector.add(text)) return this.fail(RejectReason.PROTOCOL_ERROR);
    if (this.rest.length > 0) {
      if (text.length > 0) return this.fail(RejectReason.PROTOCOL_ERROR);
    } else {
      if (continues) return this.answer(false, EMPTY, segmentLength);
      const response = respond(this.collector.take());
      if (typeof response === 'number') return this.fail(response);
      this.rest = response;
    }
    return this.answer(final, this.rest, segmentLength);
  }

  private answer(final: boolean, text: Uint8Array, segmentLength: number): TextAnswer {
    const fits = text.length <= segmentLength;
    this.rest = fits ? EMPTY : text.subarray(segmentLength);
    this.open = !(final && fits);
    if (this.open) this.transferTag = this.transferTag === RESERVED_TAG - 1 ? 0 : this.transferTag + 1;
    return {
      reject: 0,
      final: final && fits,
      continues: !fits,
      transferTag: this.open ? this.transferTag : RESERVED_TAG,
      text: fits ? text : text.subarray(0, segmentLength),
    };
  }

  private fail(reason: RejectReason): TextAnswer {
    this.reset();
    return refuse(reason);
  }

  private reset(): void {
    this.collector = new TextCollector(this.maxBytes);
    this.rest = EMPTY;
    this.open = false;
  }
}
