import * as library from '@homebridge/dbus-native';
import { StorageError } from '../base/errors.ts';

/** A message as the library has it. Bodies are arrays, one element an argument; a variant to send is `[signature, value]`. */
export interface DbusMessage {
  type: number;
  serial: number;
  path?: string;
  interface?: string;
  member?: string;
  errorName?: string;
  replySerial?: number;
  destination?: string;
  sender?: string;
  signature?: string;
  flags?: number;
  body?: unknown[];
}

export const MessageType = { CALL: 1, RETURN: 2, ERROR: 3, SIGNAL: 4 } as const;
const NO_REPLY_EXPECTED = 1;

/** What a method call is answered with. */
export interface DbusReply {
  readonly signature: string;
  readonly body: unknown[];
}

/** A failure that the caller sees by this name. */
export class DbusError extends Error {
  override readonly name = 'DbusError';
  readonly errorName: string;

  constructor(errorName: string, message: string) {
    super(message);
    this.errorName = errorName;
  }
}

export interface DbusListener {
  /** Answers a method call; throws or rejects with `DbusError`. */
  call(message: DbusMessage): DbusReply | Promise<DbusReply>;
  signal(message: DbusMessage): void;
  /** The connection has ended, and not by `close()`. Called once. */
  closed(reason: string): void;
}

interface LibraryConnection {
  on(event: 'message', listener: (message: DbusMessage) => void): void;
  on(event: 'connect' | 'end', listener: () => void): void;
  on(event: 'error', listener: (error: Error) => void): void;
  message(message: DbusMessage): void;
  end(): void;
  readonly stream: { destroy(): void };
}

const { createConnection } = library as unknown as {
  createConnection(options: { busAddress: string }): LibraryConnection;
};

const CALL_TIMEOUT_MS = 10_000;
const BUS = 'org.freedesktop.DBus';

/**
 * One connection to a message bus. The library does the handshake and the marshalling; calls are dispatched here, where no
 * message that somebody sends can end the process.
 */
export class DbusConnection {
  readonly #connection: LibraryConnection;
  readonly #listener: DbusListener;
  readonly #replies = new Map<number, (error: Error | null, body: unknown[]) => void>();
  #serial = 1;
  #open = true;

  /** `address` as in DBUS_SYSTEM_BUS_ADDRESS. Nothing may be called before `ready()` has resolved. */
  constructor(address: string, listener: DbusListener) {
    this.#listener = listener;
    this.#connection = createConnection({ busAddress: address });
    this.#connection.on('error', (error) => this.#ended(error.message));
    this.#connection.on('end', () => this.#ended('the bus has closed the connection'));
    this.#connection.on('message', (message) => this.#received(message));
  }

  /** Introduces us to the bus. Resolves to our unique name; rejects with `StorageError`. */
  async ready(): Promise<string> {
    const [name] = await this.callBus('Hello', '', []);
    return String(name);
  }

  /** Calls a method; resolves to the arguments of the reply, rejects with `DbusError` or `StorageError`. */
  call(message: Omit<DbusMessage, 'type' | 'serial'>): Promise<unknown[]> {
    return new Promise((resolve, reject) => {
      if (!this.#open) {
        reject(new StorageError('ESHUTDOWN', `Cannot call ${message.member}: no connection to the bus`));
        return;
      }
      const serial = this.#serial++;
      const timer = setTimeout(() => {
        this.#replies.delete(serial);
        reject(new StorageError('EIO', `Cannot call ${message.member}: no answer after ${CALL_TIMEOUT_MS / 1000} s`));
      }, CALL_TIMEOUT_MS);
      timer.unref();
      this.#replies.set(serial, (error, body) => {
        clearTimeout(timer);
        if (error === null) resolve(body);
        else reject(error);
      });
      this.#send({ ...message, type: MessageType.CALL, serial });
    });
  }

  /** Calls a method of the bus itself. */
  callBus(member: string, signature: string, body: unknown[]): Promise<unknown[]> {
    const to = { path: '/org/freedesktop/DBus', destination: BUS, interface: BUS, member };
    return this.call(signature === '' ? to : { ...to, signature, body });
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    this.#failCalls('closed');
    this.#connection.end();
  }

  #ended(reason: string): void {
    if (!this.#open) return;
    this.#open = false;
    this.#connection.stream.destroy();
    this.#failCalls(reason);
    this.#listener.closed(reason);
  }

  #failCalls(reason: string): void {
    const waiting = [...this.#replies.values()];
    this.#replies.clear();
    for (const reply of waiting) reply(new StorageError('ESHUTDOWN', `Cannot reach the message bus: ${reason}`), []);
  }

  #received(message: DbusMessage): void {
    if (message.type === MessageType.CALL) {
      this.#answer(message).catch(() => {}); // what cannot be sent any more has nobody to hear it
    } else if (message.type === MessageType.SIGNAL) {
      this.#listener.signal(message);
    } else if (message.replySerial !== undefined) {
      const reply = this.#replies.get(message.replySerial);
      this.#replies.delete(message.replySerial);
      const body = message.body ?? [];
      if (message.type === MessageType.RETURN) reply?.(null, body);
      else reply?.(new DbusError(message.errorName ?? 'unknown', String(body[0] ?? message.errorName)), []);
    }
  }

  async #answer(message: DbusMessage): Promise<void> {
    let answer: Partial<DbusMessage>;
    try {
      const { signature, body } = await this.#listener.call(message);
      answer = signature === '' ? { type: MessageType.RETURN } : { type: MessageType.RETURN, signature, body };
    } catch (error) {
      const errorName = error instanceof DbusError ? error.errorName : 'org.freedesktop.DBus.Error.Failed';
      const text = error instanceof Error ? error.message : String(error);
      answer = { type: MessageType.ERROR, errorName, signature: 's', body: [text] };
    }
    if (((message.flags ?? 0) & NO_REPLY_EXPECTED) !== 0 || !this.#open) return;
    const to = message.sender === undefined ? {} : { destination: message.sender };
    this.#send({ ...answer, ...to, replySerial: message.serial, serial: this.#serial++ } as DbusMessage);
  }

  #send(message: DbusMessage): void {
    this.#connection.message(message);
  }
}
