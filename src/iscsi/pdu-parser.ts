import { assert } from '../base/assert.ts';
import { readU24BE, readU32BE, readU32LE } from '../base/bytes.ts';
import { CRC32C_INITIAL, crc32c, crc32cFinish, crc32cUpdate } from '../base/crc32c.ts';
import type { IoVector } from '../block/io-vector.ts';
import type { InputChunk } from './input-chunks.ts';
import { BHS_SIZE, DIGEST_SIZE, Field, OPCODE_MASK, PAD_SIZE } from './spec.ts';

/** Bytes of additional header segments that a PDU may have: an extended CDB (16 + 244 bytes = 260) and a bidirectional length. */
export const MAX_AHS_SIZE: number = 4 + 244 + 8;

/** Why a byte stream cannot be read on: the connection must end. */
export type ParserFailure =
  | 'additional header segments are too long'
  | 'header digest is wrong'
  | 'data segment is longer than MaxRecvDataSegmentLength';

/** What to do after a header. */
export const Verdict = {
  /** Read the data segment to where `intoBytes`, `intoVector` or `discard` said, then call `pduEnd`. */
  ACCEPT: 0,
  /** There is no room now: stop; `header` is called again for the same PDU by the next `feed`. */
  BLOCK: 1,
} as const;
export type Verdict = (typeof Verdict)[keyof typeof Verdict];

export interface PduHandler {
  /**
   * A header has come, its digest is right and its lengths are within the limits. The handler reads it at `parser.header[parser.headerAt...]`, says
   * where the data goes (discarded if it says nothing), and must not keep a reference to the bytes.
   */
  pduHeader(parser: PduParser): Verdict;
  /** The data segment of the last header is where it should be. `intact` is false when its digest is wrong. */
  pduEnd(parser: PduParser, intact: boolean): void;
  /** Nothing more can be read. Called once. */
  pduFailure(parser: PduParser, failure: ParserFailure): void;
}

const Step = { HEADER: 0, JUDGE: 1, DATA: 2, TRAILER: 3, FAILED: 4 } as const;
type Step = (typeof Step)[keyof typeof Step];

const EMPTY = new Uint8Array(0);

/**
 * Cuts a byte stream into PDUs, whatever pieces it comes in.
 *
 * A header that lies whole in a chunk is read where it is; one that is split is put together in a small buffer. A data segment is copied once, from the
 * chunk to its destination. Nothing is allocated by what a PDU says of itself.
 */
export class PduParser {
  /** The header, valid from `pduHeader` to `pduEnd`; in the chunk or in the parser's own buffer, never both for long. */
  header: Uint8Array = EMPTY;
  headerAt = 0;
  /** Bytes of additional header segments behind the 48 of the header. */
  ahsLength = 0;
  dataLength = 0;

  /** Set by the connection when it changes. */
  headerDigest = false;
  dataDigest = false;
  maxDataLength: number;
  /** Set by the handler: `feed` returns before the next PDU. Taken back by whoever set it. */
  paused = false;

  /** What is fed lies in this chunk and may stay there; set by whoever feeds, for the time of the call. */
  lender: InputChunk | null = null;
  /** Where the data segment begins in what is fed, while its header is with the handler. */
  dataAt = 0;
  /** The data segment is not copied: what is fed next has to lie behind what was fed last. */
  isInPlace = false;

  private readonly handler: PduHandler;
  private readonly whole: Uint8Array = new Uint8Array(BHS_SIZE + MAX_AHS_SIZE + DIGEST_SIZE);
  private wholeLength = 0;
  private step: Step = Step.HEADER;

  private bytes: Uint8Array | null = null;
  private vector: IoVector | null = null;
  private destination = 0;
  private room = 0;

  private received = 0;
  private crc = 0;
  private readonly trailer: Uint8Array = new Uint8Array(PAD_SIZE + DIGEST_SIZE);
  private trailerLength = 0;
  private trailerReceived = 0;

  constructor(handler: PduHandler, maxDataLength: number) {
    this.handler = handler;
    this.maxDataLength = maxDataLength;
  }

  get opcode(): number {
    return this.header[this.headerAt]! & OPCODE_MASK;
  }

  /** Of the data segment that is being read: what has come. */
  get dataReceived(): number {
    return this.step === Step.DATA ? this.received : 0;
  }

  /** No part of a PDU has been read that is not finished. */
  get isBetweenPdus(): boolean {
    return this.step === Step.HEADER && this.wholeLength === 0;
  }

  /** It stopped before the end of what it was fed: the handler blocked or paused. */
  get isHalted(): boolean {
    return this.step === Step.JUDGE || (this.paused && this.step === Step.HEADER);
  }

  /** Takes back the part of a header that has come, to be fed again. Only between PDUs. */
  takePartialHeader(): Uint8Array {
    const { wholeLength } = this;
    this.wholeLength = 0;
    return this.whole.slice(0, wholeLength);
  }

  /** A PDU has begun, and its header is whole. */
  get isInPdu(): boolean {
    return this.step !== Step.HEADER;
  }

  /** A copy of the header with its additional segments, for a reject. */
  copyHeader(): Uint8Array {
    return this.header.slice(this.headerAt, this.headerAt + BHS_SIZE + this.ahsLength);
  }

  /** The data segment goes to `bytes` from `at` on; what is beyond `room` bytes is dropped. */
  intoBytes(bytes: Uint8Array, at: number, room: number): void {
    this.bytes = bytes;
    this.vector = null;
    this.destination = at;
    this.room = room;
  }

  /** The data segment goes to the bytes of `vector` from `at` on; what is beyond `room` bytes is dropped. */
  intoVector(vector: IoVector, at: number, room: number): void {
    this.bytes = null;
    this.vector = vector;
    this.destination = at;
    this.room = room;
  }

  /** The chunk in which the data segment can stay, from `dataAt` on; null when it has to be copied. */
  get place(): InputChunk | null {
    const { lender } = this;
    return lender !== null && this.dataAt + this.dataLength <= lender.bytes.length ? lender : null;
  }

  /** The data segment stays in `place`. */
  leaveInPlace(): void {
    this.room = 0;
    this.isInPlace = true;
  }

  /** The data segment is read and dropped. */
  discard(): void {
    this.room = 0;
  }

  /**
   * Reads `[at, end)` of `chunk` and returns where it stopped: `end`, or earlier when the handler blocked or paused, or after a failure. What follows must then
   * be fed again, from the same bytes.
   */
  feed(chunk: Uint8Array, at: number, end: number): number {
    let position = at;
    for (;;) {
      switch (this.step) {
        case Step.HEADER: {
          if (this.paused) return position;
          const next = this.readHeader(chunk, position, end);
          if (next < 0) return end;
          position = next;
          break;
        }
        case Step.JUDGE: {
          this.dataAt = position;
          if (this.handler.pduHeader(this) === Verdict.BLOCK) {
            this.keepHeader();
            return position;
          }
          this.beginData();
          break;
        }
        case Step.DATA: {
          if (position === end) {
            this.keepHeader();
            return end;
          }
          position = this.readData(chunk, position, end);
          break;
        }
        case Step.TRAILER: {
          if (position === end) {
            this.keepHeader();
            return end;
          }
          position = this.readTrailer(chunk, position, end);
          break;
        }
        case Step.FAILED:
          return position;
      }
    }
  }

  /** Returns the position behind the header, or -1 when it is not whole yet and all of the chunk was taken. */
  private readHeader(chunk: Uint8Array, at: number, end: number): number {
    let position = at;
    if (this.wholeLength === 0 && end - at >= BHS_SIZE) {
      const ahsLength = chunk[at + Field.AHS_LENGTH]! * PAD_SIZE;
      const length = BHS_SIZE + ahsLength + (this.headerDigest ? DIGEST_SIZE : 0);
      if (end - at >= length && ahsLength <= MAX_AHS_SIZE) {
        this.takeHeader(chunk, at, ahsLength);
        return at + length;
      }
    }
    let needed = BHS_SIZE;
    for (;;) {
      if (this.wholeLength >= BHS_SIZE) {
        const ahsLength = this.whole[Field.AHS_LENGTH]! * PAD_SIZE;
        if (ahsLength > MAX_AHS_SIZE) {
          this.header = this.whole;
          this.headerAt = 0;
          this.ahsLength = 0;
          this.fail('additional header segments are too long');
          return position;
        }
        needed = BHS_SIZE + ahsLength + (this.headerDigest ? DIGEST_SIZE : 0);
        if (this.wholeLength === needed) {
          this.wholeLength = 0;
          this.takeHeader(this.whole, 0, ahsLength);
          return position;
        }
      }
      const take = Math.min(needed - this.wholeLength, end - position);
      if (take === 0) return -1;
      for (let i = 0; i < take; i++) this.whole[this.wholeLength + i] = chunk[position + i]!;
      this.wholeLength += take;
      position += take;
    }
  }

  /** The chunk goes back to its owner before the PDU is finished. */
  private keepHeader(): void {
    if (this.header === this.whole) return;
    const length = BHS_SIZE + this.ahsLength;
    for (let i = 0; i < length; i++) this.whole[i] = this.header[this.headerAt + i]!;
    this.header = this.whole;
    this.headerAt = 0;
  }

  private takeHeader(bytes: Uint8Array, at: number, ahsLength: number): void {
    this.header = bytes;
    this.headerAt = at;
    this.ahsLength = ahsLength;
    this.dataLength = readU24BE(bytes, at + Field.DATA_LENGTH);
    this.room = 0;
    if (this.headerDigest) {
      const length = BHS_SIZE + ahsLength;
      if (crc32c(bytes, at, at + length) !== readU32LE(bytes, at + length)) {
        this.fail('header digest is wrong');
        return;
      }
    }
    if (this.dataLength > this.maxDataLength) {
      this.fail('data segment is longer than MaxRecvDataSegmentLength');
      return;
    }
    this.step = Step.JUDGE;
  }

  /** Reads nothing more. */
  stop(): void {
    this.step = Step.FAILED;
    this.isInPlace = false;
  }

  private fail(failure: ParserFailure): void {
    this.step = Step.FAILED;
    this.handler.pduFailure(this, failure);
  }

  private beginData(): void {
    if (this.step !== Step.JUDGE) return;
    if (this.dataLength === 0) {
      this.end(true);
      return;
    }
    this.received = 0;
    this.crc = CRC32C_INITIAL;
    const padding = -this.dataLength & (PAD_SIZE - 1);
    this.trailerLength = padding + (this.dataDigest ? DIGEST_SIZE : 0);
    this.trailerReceived = 0;
    this.step = Step.DATA;
  }

  private readData(chunk: Uint8Array, at: number, end: number): number {
    const take = Math.min(this.dataLength - this.received, end - at);
    const keep = Math.min(take, this.room - this.received);
    if (keep > 0) {
      const to = this.destination + this.received;
      if (this.vector !== null) this.vector.copyFrom(chunk, at, to, keep);
      else this.bytes!.set(chunk.subarray(at, at + keep), to);
    }
    if (this.dataDigest) this.crc = crc32cUpdate(this.crc, chunk, at, at + take);
    this.received += take;
    if (this.received === this.dataLength) {
      this.isInPlace = false;
      if (this.trailerLength === 0) this.end(true);
      else this.step = Step.TRAILER;
    }
    return at + take;
  }

  private readTrailer(chunk: Uint8Array, at: number, end: number): number {
    const take = Math.min(this.trailerLength - this.trailerReceived, end - at);
    for (let i = 0; i < take; i++) this.trailer[this.trailerReceived + i] = chunk[at + i]!;
    this.trailerReceived += take;
    if (this.trailerReceived === this.trailerLength) this.end(!this.dataDigest || this.digestMatches());
    return at + take;
  }

  /** The digest covers the padding, whatever bytes it has (RFC 7143 11.2.3). */
  private digestMatches(): boolean {
    const padding = this.trailerLength - DIGEST_SIZE;
    const crc = padding === 0 ? this.crc : crc32cUpdate(this.crc, this.trailer, 0, padding);
    return crc32cFinish(crc) === readU32LE(this.trailer, padding);
  }

  private end(intact: boolean): void {
    assert(this.step === Step.JUDGE || this.step === Step.DATA || this.step === Step.TRAILER, 'a PDU ends once');
    this.step = Step.HEADER;
    this.vector = null;
    this.bytes = null;
    this.handler.pduEnd(this, intact);
  }
}

/** The 32-bit field at `offset` of the header that the parser is at. */
export function headerU32(parser: PduParser, offset: number): number {
  return readU32BE(parser.header, parser.headerAt + offset);
}
