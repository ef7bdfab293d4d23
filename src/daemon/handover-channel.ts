import { closeSync } from 'node:fs';
import type { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { messageOf, StorageError, wrapError } from '../base/errors.ts';
import { type NativeBindings, native, nativeError, type PollHandle } from '../base/native.ts';
import { shareHandle } from '../base/shared-handle.ts';

/*
 * Between two servers, of which one takes over from the other: messages with file descriptors on a Unix stream socket.
 *
 *   0        4        8            8 + groups   8 + groups + length
 *   | length | fds    | one byte a | JSON       |
 *   | LE32   | LE32   | group      |            |
 *
 * A group is up to 250 descriptors, which come with its byte.
 */

const HEADER_SIZE = 8;
const GROUP_SIZE = 250;
/** What the kernel may deliver with one byte. */
const MAX_RECEIVED = 253;
const MAX_LENGTH = 512 * 1024 * 1024;
const MAX_FDS = 16_384;
const RECEIVE_SIZE = 64 * 1024;
/** Between two attempts to send while the other side does not read. */
const RETRY_MS = 1;

export interface HandoverMessage {
  readonly content: unknown;
  /** The receiver's to close. */
  readonly fds: readonly number[];
}

/** The addon, without which there is no takeover. Throws EOPNOTSUPP. */
export function requireFdPassing(): NativeBindings {
  if (native !== null) return native;
  throw new StorageError('EOPNOTSUPP', `Cannot take over from a running server: no native addon: ${nativeError}`);
}

/** One end of the connection between two servers. */
export class HandoverChannel {
  readonly #native: NativeBindings;
  readonly #fd: number;
  readonly #poll: PollHandle;
  readonly #chunk: Uint8Array = new Uint8Array(RECEIVE_SIZE);
  readonly #words: Int32Array = new Int32Array(MAX_RECEIVED);
  readonly #pieces: Buffer[] = [];
  #received = 0;
  readonly #fds: number[] = [];
  /** What the other side has said and nobody has asked for. */
  readonly #messages: HandoverMessage[] = [];
  #waiting: { resolve(message: HandoverMessage | null): void; reject(error: unknown): void } | null = null;
  #failure: unknown = null;
  #ended = false;
  #closed = false;

  private constructor(fd: number) {
    this.#native = requireFdPassing();
    this.#fd = fd;
    this.#poll = this.#native.pollStart(fd, () => this.#readable());
  }

  /** Takes the connection of `socket`, on which neither side says anything at the moment. */
  static of(socket: Socket): HandoverChannel {
    socket.pause();
    const fd = shareHandle(socket);
    socket.on('error', () => {});
    socket.destroy();
    return new HandoverChannel(fd);
  }

  /** Bytes that are no message, before the first one. */
  greet(text: string): void {
    const bytes = Buffer.from(text);
    this.#native.writeFd(this.#fd, bytes, 0, bytes.length);
  }

  /** Sends a message; `fds` stay the caller's. Rejects when the other side is gone. */
  async send(content: object, fds: readonly number[] = []): Promise<void> {
    const json = Buffer.from(JSON.stringify(content));
    const header = Buffer.alloc(HEADER_SIZE);
    header.writeUInt32LE(json.length, 0);
    header.writeUInt32LE(fds.length, 4);
    await this.#sendAll(header, []);
    for (let i = 0; i < fds.length; i += GROUP_SIZE) await this.#sendAll(Buffer.alloc(1), fds.slice(i, i + GROUP_SIZE));
    await this.#sendAll(json, []);
  }

  /** The next message; null when the other side has ended, however it has. */
  receive(): Promise<HandoverMessage | null> {
    const message = this.#messages.shift();
    if (message !== undefined) return Promise.resolve(message);
    if (this.#failure !== null) return Promise.reject(this.#failure);
    if (this.#ended || this.#closed) return Promise.resolve(null);
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject };
    });
  }

  /** Closes it, and every descriptor that came and that nobody has asked for. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#native.pollStop(this.#poll);
    closeSync(this.#fd);
    for (const fd of this.#fds.splice(0)) closeSync(fd);
    for (const { fds } of this.#messages.splice(0)) for (const fd of fds) closeSync(fd);
    this.#answer(null);
  }

  async #sendAll(bytes: Uint8Array, fds: readonly number[]): Promise<void> {
    let at = 0;
    while (at < bytes.length) {
      if (this.#closed)
        throw new StorageError('ESHUTDOWN', 'Cannot talk to the other server: the connection is closed');
      let sent: number;
      try {
        const words = at === 0 ? new Uint8Array(Int32Array.from(fds).buffer) : new Uint8Array(0);
        sent = this.#native.sendWithFds(this.#fd, bytes, at, bytes.length - at, words);
      } catch (error) {
        throw wrapError('Cannot talk to the other server', error);
      }
      if (sent < 0) await sleep(RETRY_MS);
      else at += sent;
    }
  }

  #readable(): void {
    try {
      while (!this.#ended && !this.#closed) {
        const words = new Uint8Array(this.#words.buffer);
        const length = this.#native.receiveWithFds(this.#fd, this.#chunk, 0, RECEIVE_SIZE, words);
        if (length < 0) return;
        for (const fd of this.#words) if (fd >= 0) this.#fds.push(fd);
        if (length === 0) this.#end();
        else {
          this.#pieces.push(Buffer.from(this.#chunk.subarray(0, length)));
          this.#received += length;
          this.#parse();
        }
      }
    } catch (error) {
      this.#failure = error instanceof StorageError ? error : wrapError('Cannot hear the other server', error);
      this.#native.pollStop(this.#poll);
      const waiting = this.#waiting;
      this.#waiting = null;
      waiting?.reject(this.#failure);
    }
  }

  #end(): void {
    this.#ended = true;
    this.#native.pollStop(this.#poll);
    this.#answer(null);
  }

  #parse(): void {
    while (this.#received >= HEADER_SIZE) {
      const header = this.#join(HEADER_SIZE);
      const length = header.readUInt32LE(0);
      const fdCount = header.readUInt32LE(4);
      if (length > MAX_LENGTH || fdCount > MAX_FDS) {
        throw new StorageError('EINVAL', `Cannot understand the other server: a message of ${length} bytes`);
      }
      const begin = HEADER_SIZE + Math.ceil(fdCount / GROUP_SIZE);
      if (this.#received < begin + length) return;
      const all = this.#join(begin + length);
      let content: unknown;
      try {
        content = JSON.parse(all.toString('utf8', begin, begin + length));
      } catch (error) {
        throw new StorageError('EINVAL', `Cannot understand the other server: ${messageOf(error)}`);
      }
      if (this.#fds.length < fdCount) throw new StorageError('EINVAL', 'The other server has sent too few descriptors');
      this.#pieces.splice(0, this.#pieces.length, all.subarray(begin + length));
      this.#received -= begin + length;
      this.#messages.push({ content, fds: this.#fds.splice(0, fdCount) });
    }
    const message = this.#waiting === null ? undefined : this.#messages.shift();
    if (message !== undefined) this.#answer(message);
  }

  /** What has come, with at least `length` bytes in one piece. */
  #join(length: number): Buffer {
    if (this.#pieces[0]!.length < length) this.#pieces.splice(0, this.#pieces.length, Buffer.concat(this.#pieces));
    return this.#pieces[0]!;
  }

  #answer(message: HandoverMessage | null): void {
    const waiting = this.#waiting;
    this.#waiting = null;
    waiting?.resolve(message);
  }
}
