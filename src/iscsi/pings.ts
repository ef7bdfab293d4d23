import { taskTag } from './command-pdu.ts';
import { headerU32, type PduParser } from './pdu-parser.ts';
import type { PduWriter } from './pdu-writer.ts';
import { Field, RESERVED_TAG, RejectReason } from './spec.ts';

const EMPTY = new Uint8Array(0);

/** NOP-Out and NOP-In of one connection (RFC 7143 11.18, 11.19): pings in both directions. */
export class Pings {
  private readonly writer: PduWriter;
  /** Ours so far; the number of each is its transfer tag. */
  count = 0;

  constructor(writer: PduWriter) {
    this.writer = writer;
  }

  /** Asks the initiator to say something. */
  send(): void {
    this.writer.ping(this.count++);
  }

  /** Takes the data of the NOP-Out whose header is at `parser`, of which up to `maxBytes` go back. */
  data(parser: PduParser, maxBytes: number): Uint8Array {
    if (taskTag(parser) === RESERVED_TAG) return EMPTY;
    const data = new Uint8Array(Math.min(parser.dataLength, maxBytes));
    parser.intoBytes(data, 0, data.length);
    return data;
  }

  /** The NOP-Out with that `data` is in; returns the reason to reject it for, else 0. */
  received(parser: PduParser, data: Uint8Array): RejectReason | 0 {
    const tag = taskTag(parser);
    if (tag !== RESERVED_TAG) {
      this.writer.nopIn(tag, data);
      return 0;
    }
    // The answer to a ping of ours, or a word that asks for nothing: it has done its work by being received.
    const transferTag = headerU32(parser, Field.TRANSFER_TAG);
    return transferTag === RESERVED_TAG || transferTag < this.count ? 0 : RejectReason.INVALID_PDU_FIELD;
  }
}
