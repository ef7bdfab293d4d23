import { parse } from '../base/schema.ts';
import {
  MAX_TEXT_LENGTH,
  PREFACE_SIZE,
  RECORD_HEADER_SIZE,
  RecordType,
  STREAM_HEADER,
  type StreamHeader,
} from './stream-format.ts';

/** Looks at a stream that goes by, and only so far as is needed to say how it is getting on. Whether it is right its receiver finds out. */
export class StreamScanner {
  /** As soon as it has gone by. */
  header: StreamHeader | null = null;
  /** Why the sender could not go on. */
  failure: string | null = null;
  /** The last record has gone by. */
  ended = false;
  /** Bytes that have gone by. */
  position = 0;
  readonly #record: Buffer = Buffer.alloc(RECORD_HEADER_SIZE);
  #recordLength = 0;
  /** Bytes that are passed over, or kept in `#text`. */
  #skip: number = PREFACE_SIZE;
  #text: Buffer[] | null = null;

  push(chunk: Uint8Array): void {
    this.position += chunk.length;
    for (let at = 0; at < chunk.length; ) {
      if (this.#skip > 0) {
        const length = Math.min(this.#skip, chunk.length - at);
        this.#text?.push(Buffer.from(chunk.subarray(at, at + length)));
        this.#skip -= length;
        at += length;
      } else {
        const length = Math.min(RECORD_HEADER_SIZE - this.#recordLength, chunk.length - at);
        this.#record.set(chunk.subarray(at, at + length), this.#recordLength);
        this.#recordLength += length;
        at += length;
        if (this.#recordLength === RECORD_HEADER_SIZE) this.#beginPayload();
      }
      if (this.#skip === 0 && this.#text !== null) this.#endText();
    }
  }

  #beginPayload(): void {
    this.#recordLength = 0;
    const type = this.#record.readUInt32LE(4);
    if (type === RecordType.unmapped) return;
    this.#skip = Number(this.#record.readBigUInt64LE(24));
    if (type !== RecordType.data && this.#skip <= MAX_TEXT_LENGTH) this.#text = [];
  }

  #endText(): void {
    const text = Buffer.concat(this.#text!).toString();
    this.#text = null;
    const type = this.#record.readUInt32LE(4);
    if (type === RecordType.end) this.ended = true;
    else if (type === RecordType.failed) this.failure = text;
    else {
      try {
        this.header = parse(STREAM_HEADER, JSON.parse(text));
      } catch {
        // The receiver says what is wrong with it.
      }
    }
  }
}
