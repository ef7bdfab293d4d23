import { closeSync, fstatSync } from 'node:fs';
import { StorageError, wrapError } from '../base/errors.ts';
import type { NativeBindings, PollHandle } from '../base/native.ts';
import type { TcmuPaths } from './configfs.ts';
import {
  decodeDatagram,
  encodeDone,
  encodeGetFamily,
  encodeSetFeatures,
  FAMILY_NAME,
  GROUP_NAME,
  type TcmuEvent,
} from './genl.ts';
import { type NetlinkCompany, portIdOf, readNetlinkCompany } from './netlink-company.ts';

export interface GenlListener {
  tcmuEvent(event: TcmuEvent): void;
  /** Events were lost, or came in a form that cannot be read: look for yourself. */
  eventsLost(reason: string): void;
}

/** Room for a storm of events: some ten thousand. */
export const DEFAULT_EVENT_BUFFER_SIZE: number = 8 * 1024 * 1024;
/** The largest datagram: an event is a few hundred bytes, the kernel may put several into one. */
const RECEIVE_SIZE = 64 * 1024;
/** Datagrams taken in one turn of the event loop. */
const RECEIVE_BATCH = 256;

/** The socket on which the kernel tells of TCMU devices. Needs CAP_NET_ADMIN. */
export class GenlClient {
  readonly #native: NativeBindings;
  readonly #paths: TcmuPaths;
  readonly #listener: GenlListener;
  readonly #eventBufferSize: number;
  readonly #buffer: Uint8Array = new Uint8Array(RECEIVE_SIZE);
  #fd = -1;
  #inode = 0;
  #familyId = 0;
  #groupId = 0;
  #drops = 0;
  #poll: PollHandle | null = null;

  constructor(native: NativeBindings, paths: TcmuPaths, listener: GenlListener, eventBufferSize: number) {
    this.#native = native;
    this.#paths = paths;
    this.#listener = listener;
    this.#eventBufferSize = eventBufferSize;
  }

  /**
   * Joins the group of events. They come from the next turn on. `inherited` is the socket of another process, with what has come and was not taken; it is
   * ours from here on, and nothing is taken from it before `resume`. Throws `StorageError`.
   */
  open(inherited: number | null = null): void {
    try {
      this.#fd = this.#socket();
      this.#inode = fstatSync(this.#fd).ino;
    } catch (error) {
      throw wrapError('Cannot open a generic netlink socket', error);
    }
    try {
      this.#groupId = this.#resolve();
      if (inherited !== null) {
        closeSync(this.#fd);
        this.#fd = inherited;
        this.#inode = fstatSync(this.#fd).ino;
        this.#drops = this.company()?.drops ?? 0;
        return;
      }
      this.#native.netlinkAddMembership(this.#fd, this.#groupId);
      this.resume();
    } catch (error) {
      this.close();
      throw error instanceof StorageError ? error : wrapError('Cannot listen for TCMU events', error);
    }
  }

  /** Takes nothing more; what comes waits in the kernel, and so does who wants an answer. */
  suspend(): void {
    if (this.#poll !== null) this.#native.pollStop(this.#poll);
    this.#poll = null;
  }

  resume(): void {
    this.#poll = this.#native.pollStart(this.#fd, () => this.receive());
  }

  /** A descriptor of the socket for the next process. */
  share(): number {
    return this.#native.duplicateFd(this.#fd);
  }

  /** Answers an event: 0, or a negative errno number. Throws `StorageError`. */
  answer(event: TcmuEvent, status: number): void {
    if (this.#fd === -1) return;
    try {
      this.#native.netlinkSend(this.#fd, encodeDone(this.#familyId, event.kind, event.deviceId, status));
    } catch (error) {
      throw wrapError(`Cannot answer the kernel about ${event.uioName}`, error);
    }
  }

  /** Whether the kernel is to wait for answers about devices that are made from now on: one switch of the module, which outlives us. */
  promiseAnswers(promised: boolean): void {
    if (this.#fd === -1) return;
    try {
      this.#native.netlinkSend(this.#fd, encodeSetFeatures(this.#familyId, promised));
    } catch {
      // The module is gone, and the promise with it.
    }
  }

  /** Who else listens; null when the kernel does not show it. */
  company(): NetlinkCompany | null {
    return readNetlinkCompany(this.#paths.proc, this.#groupId, this.#inode);
  }

  close(): void {
    if (this.#fd === -1) return;
    this.suspend();
    closeSync(this.#fd);
    this.#fd = -1;
  }

  /** Takes what has come. Called by itself when something comes. */
  receive(): void {
    for (let i = 0; i < RECEIVE_BATCH && this.#fd !== -1; i++) {
      try {
        const length = this.#native.netlinkReceive(this.#fd, this.#buffer);
        if (length === -1) break;
        for (const message of decodeDatagram(this.#buffer.subarray(0, length), this.#familyId)) {
          if (message.is === 'event') this.#listener.tcmuEvent(message.event);
        }
      } catch (error) {
        this.#listener.eventsLost(wrapError('Cannot receive TCMU events', error).message);
        break;
      }
    }
    this.noticeDrops();
  }

  /** Tells the listener when the buffer was too small for what came: the kernel only counts that. */
  noticeDrops(): void {
    if (this.#fd === -1) return;
    const drops = this.company()?.drops ?? this.#drops;
    if (drops === this.#drops) return;
    const lost = drops - this.#drops;
    this.#drops = drops;
    this.#listener.eventsLost(`the receive buffer was full, ${lost} events did not fit`);
  }

  #socket(): number {
    try {
      return this.#native.genlSocket(portIdOf(process.pid), this.#eventBufferSize);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE') throw error;
      return this.#native.genlSocket(0, this.#eventBufferSize); // this process has one already
    }
  }

  /** The kernel answers such a request before send(2) returns. Returns the group's id. */
  #resolve(): number {
    this.#native.netlinkSend(this.#fd, encodeGetFamily());
    for (;;) {
      const length = this.#native.netlinkReceive(this.#fd, this.#buffer);
      if (length === -1) throw new StorageError('ENOENT', 'Cannot listen for TCMU events: the kernel does not answer');
      for (const message of decodeDatagram(this.#buffer.subarray(0, length), 0)) {
        if (message.is === 'error' && message.errno !== 0) {
          throw new StorageError(
            'ENOENT',
            `Cannot listen for TCMU events: the kernel has no ${FAMILY_NAME} family (errno ${message.errno})`,
          );
        }
        if (message.is !== 'family') continue;
        if (message.groupId === null) throw new StorageError('ENOENT', `${FAMILY_NAME} has no group "${GROUP_NAME}"`);
        this.#familyId = message.id;
        return message.groupId;
      }
    }
  }
}
