import type { Socket } from 'node:net';
import type { InputChunk, InputChunks } from './input-chunks.ts';
import type { PortalLimits } from './limits.ts';
import type { PduParser } from './pdu-parser.ts';
import type { InputReceiver } from './socket-input.ts';
import type { Transmitter } from './transmitter.ts';

/** Bytes from a socket to its parser; stands still while the parser does, and while the peer does not read what it was sent. */
export class InputFlow implements InputReceiver {
  /** Since the connection was made. */
  receivedBytes = 0;
  private readonly parser: PduParser;
  private readonly limits: PortalLimits;
  private readonly chunks: InputChunks;
  /** Where the socket receives; null when that is the memory that all connections share. */
  private chunk: InputChunk | null = null;
  /** Bytes that came there. */
  private filled = 0;
  private socket: Socket | null = null;
  private transmitter: Transmitter | null = null;
  /** Bytes that were received and not read, because the parser stands still. */
  private rest: Uint8Array | null = null;
  private outputFull = false;
  private stopped = false;

  constructor(parser: PduParser, chunks: InputChunks, limits: PortalLimits) {
    this.parser = parser;
    this.chunks = chunks;
    this.limits = limits;
  }

  /** Before the first byte. */
  begin(socket: Socket, transmitter: Transmitter): void {
    this.socket = socket;
    this.transmitter = transmitter;
  }

  /** The socket is read from. */
  get isOpen(): boolean {
    return this.rest === null && !this.outputFull;
  }

  /** The peer does not read what it was sent. */
  get isOutputFull(): boolean {
    return this.outputFull;
  }

  nextBuffer(): Uint8Array {
    const { chunk } = this;
    // In the middle of data that stays where it is.
    if (chunk !== null && this.parser.isInPlace) return chunk.bytes.subarray(this.filled);
    if (this.stopped || this.filled < this.limits.inputChunkFromBytes) {
      this.leaveChunk();
    } else if (chunk === null || !chunk.isUnlent) {
      this.leaveChunk();
      this.chunk = this.chunks.take();
    }
    this.filled = 0;
    return this.chunk === null ? this.chunks.shared : this.chunk.bytes;
  }

  received(bytes: Uint8Array, length: number): void {
    this.receivedBytes += length;
    const { chunk, filled } = this;
    this.filled += length;
    if (this.stopped) return;
    if (chunk === null) this.read(bytes, 0, length);
    else {
      this.parser.lender = chunk;
      this.read(chunk.bytes, filled, this.filled);
      this.parser.lender = null;
    }
  }

  private leaveChunk(): void {
    this.chunk?.release();
    this.chunk = null;
  }

  private read(bytes: Uint8Array, from: number, end: number): void {
    const at = this.parser.feed(bytes, from, end);
    if (this.stopped) return;
    if (at < end || this.parser.isHalted) {
      this.rest = bytes.slice(at, end);
      this.socket!.pause();
    } else if (this.transmitter!.queuedBytes > this.limits.outputBytes) {
      this.outputFull = true;
      this.socket!.pause();
    }
  }

  /** The parser can go on. */
  resume(): void {
    const { rest } = this;
    if (rest === null || this.stopped) return;
    this.rest = null;
    this.read(rest, 0, rest.length);
    this.resumeSocket();
  }

  /** Reads nothing more from the socket; what was received and not looked at goes to the caller. */
  takeRest(): Uint8Array {
    this.socket!.pause();
    const rest = this.rest ?? new Uint8Array(0);
    this.rest = null;
    return rest;
  }

  /** Before anything else: what `takeRest` has returned. `resume` begins. */
  beginWith(rest: Uint8Array): void {
    this.rest = rest;
  }

  /** Some of what was sent has left. */
  transmitted(): void {
    if (!this.outputFull || this.transmitter!.queuedBytes > this.limits.outputBytes / 2) return;
    this.outputFull = false;
    this.resumeSocket();
  }

  /** Nothing is read any more; what still comes is dropped, so that the peer reads our last words instead of a reset. */
  stop(): void {
    this.stopped = true;
    this.rest = null;
    this.parser.stop();
    this.socket!.resume();
  }

  /** The socket is closed: nothing is received any more. */
  close(): void {
    this.stop();
    this.leaveChunk();
  }

  private resumeSocket(): void {
    if (this.rest === null && !this.outputFull && !this.stopped) this.socket!.resume();
  }
}
