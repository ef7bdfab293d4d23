import { request as httpRequest } from 'node:http';
import { connect, type Socket } from 'node:net';
import { errnoOf, messageOf, StorageError } from '../base/errors.ts';
import { describeIssues, type Schema, safeParse } from '../base/schema.ts';
import { type AccessControl, accessSchema } from './access-messages.ts';
import { AdvisedError, advise } from './advised-error.ts';
import {
  CONTROL_VERSION,
  type CreateSnapshotsMessage,
  type CreateVolumeMessage,
  commitSchema,
  type DmMessage,
  deletedSchema,
  errorSchema,
  type GrowPoolMessage,
  type PoolMessage,
  poolSchema,
  type RenameVolumeMessage,
  type ResizeVolumeMessage,
  type RollbackVolumeMessage,
  type SetOptionsMessage,
  type SetVolumeMessage,
  type StatusLinesMessage,
  statusLinesSchema,
  type VolumeMessage,
  volumeListSchema,
  volumeSchema,
} from './control-messages.ts';
import { ControlSocketName } from './control-socket.ts';
import type { PoolControl, VolumeChunks } from './pool-control.ts';
import {
  type ClearReservationsMessage,
  reservationListSchema,
  type VolumeReservationsMessage,
  volumeReservationsSchema,
} from './reservation-messages.ts';
import { askForStream, sendStreamTo, textOf } from './stream-exchange.ts';
import {
  type ResumeTokenMessage,
  resumeTokenSchema,
  type SendVolumeMessage,
  STREAM_HEADER_NAME,
  streamSchema,
  type TrimMessage,
  type TrimmedMessage,
  trimmedSchema,
} from './stream-messages.ts';

const ANSWER_TIMEOUT_MS = 60_000;
const MAX_ANSWER_SIZE = 64 * 1024 * 1024;
/** What connecting says when no process listens: there is no socket, or it is a dead one's. */
const NOBODY = new Set(['ENOENT', 'ECONNREFUSED']);

/** No server listens: nothing was sent. */
export class NoServerError extends StorageError {}

interface Answer {
  status: number;
  body: string;
}

function exchange(socketPath: string, method: string, path: string, message: unknown): Promise<Answer> {
  const body = message === undefined ? '' : JSON.stringify(message);
  return new Promise((resolve, reject) => {
    const headers: Record<string, string> = body === '' ? {} : { 'content-type': 'application/json' };
    headers['content-length'] = String(Buffer.byteLength(body));
    // An agent, even one for this request alone, takes 5 ms of a start to find out that the name of a socket is no IPv6 address.
    const createConnection = (): Socket => connect({ path: socketPath, timeout: ANSWER_TIMEOUT_MS });
    const request = httpRequest(
      { createConnection, method, path: `/${CONTROL_VERSION}${path}`, headers, timeout: ANSWER_TIMEOUT_MS },
      (response) => {
        const chunks: Buffer[] = [];
        let length = 0;
        response.on('data', (chunk: Buffer) => {
          length += chunk.length;
          if (length > MAX_ANSWER_SIZE) response.destroy(new Error('the answer is too long'));
          else chunks.push(chunk);
        });
        response.on('end', () => resolve({ status: response.statusCode ?? 0, body: Buffer.concat(chunks).toString() }));
        response.on('error', reject);
      },
    );
    request.on('timeout', () => request.destroy(new Error(`no answer for ${ANSWER_TIMEOUT_MS / 1000} s`)));
    request.on('error', reject);
    request.end(body);
  });
}

/** A pool that a server has open, reached through its control socket. */
export class ControlClient implements PoolControl {
  /** Calls that have been answered. */
  answered = 0;
  readonly access: AccessControl = {
    list: () => this.#ask('GET', '/access', undefined, accessSchema),
    allow: (request) => this.#ask('POST', '/access/allow', request, accessSchema),
    deny: (request) => this.#ask('POST', '/access/deny', request, accessSchema),
    setOpen: (request) => this.#ask('POST', '/access/open', request, accessSchema),
  };
  readonly #dir: string;
  readonly #name: ControlSocketName;

  private constructor(dir: string, name: ControlSocketName) {
    this.#dir = dir;
    this.#name = name;
  }

  /**
   * The server of the pool in `dir`, or null when none listens. It is asked for nothing yet: each call has a connection of its own.
   * Throws `StorageError` when the socket may not be used.
   */
  static async connect(dir: string): Promise<ControlClient | null> {
    const client = new ControlClient(dir, new ControlSocketName(dir));
    try {
      await client.#probe();
      return client;
    } catch (error) {
      await client.close();
      if (error instanceof NoServerError) return null;
      throw error;
    }
  }

  status(): Promise<PoolMessage> {
    return this.#ask('GET', '/pool', undefined, poolSchema);
  }

  grow(request: GrowPoolMessage): Promise<PoolMessage> {
    return this.#ask('PATCH', '/pool', request, poolSchema);
  }

  setOptions(request: SetOptionsMessage): Promise<PoolMessage> {
    return this.#ask('PATCH', '/pool/options', request, poolSchema);
  }

  async listVolumes(): Promise<VolumeMessage[]> {
    return (await this.#ask('GET', '/volumes', undefined, volumeListSchema)).volumes;
  }

  createVolume(request: CreateVolumeMessage): Promise<VolumeMessage> {
    return this.#ask('POST', '/volumes', request, volumeSchema);
  }

  resizeVolume(name: string, request: ResizeVolumeMessage): Promise<VolumeMessage> {
    return this.#ask('PATCH', `/volumes/${encodeURIComponent(name)}`, request, volumeSchema);
  }

  setVolume(name: string, request: SetVolumeMessage): Promise<VolumeMessage> {
    return this.#ask('PATCH', `/volumes/${encodeURIComponent(name)}/options`, request, volumeSchema);
  }

  async createSnapshots(request: CreateSnapshotsMessage): Promise<VolumeMessage[]> {
    return (await this.#ask('POST', '/snapshots', request, volumeListSchema)).volumes;
  }

  renameVolume(name: string, request: RenameVolumeMessage): Promise<VolumeMessage> {
    return this.#ask('POST', `/volumes/${encodeURIComponent(name)}/rename`, request, volumeSchema);
  }

  rollbackVolume(name: string, request: RollbackVolumeMessage): Promise<VolumeMessage> {
    return this.#ask('POST', `/volumes/${encodeURIComponent(name)}/rollback`, request, volumeSchema);
  }

  async message(request: DmMessage): Promise<number> {
    return (await this.#ask('POST', '/pool/message', request, commitSchema)).transactionId;
  }

  statusLines(): Promise<StatusLinesMessage> {
    return this.#ask('GET', '/pool/status-lines', undefined, statusLinesSchema);
  }

  async send(name: string, request: SendVolumeMessage): Promise<VolumeChunks> {
    const path = `/${CONTROL_VERSION}/volumes/${encodeURIComponent(name)}/send`;
    const response = await askForStream(this.#name.path, path, request).catch((error: unknown) => {
      throw this.#unreachable('GET', error);
    });
    this.answered++;
    if (response.statusCode !== 200) throw this.#refused(await textOf(response));
    const { expectedBytes } = this.#parse(String(response.headers[STREAM_HEADER_NAME]), streamSchema);
    const close = async (): Promise<void> => void response.destroy();
    return { expectedBytes, chunks: this.#watched(response), close };
  }

  async receive(name: string, input: AsyncIterable<Uint8Array>): Promise<VolumeMessage> {
    const path = `/${CONTROL_VERSION}/volumes/${encodeURIComponent(name)}/receive`;
    const answer = await sendStreamTo(this.#name.path, path, input).catch((error: unknown) => {
      if (!(error instanceof StorageError)) throw this.#unreachable('POST', error);
      const token = `"thinlun receive ${this.#dir} ${name} --resume-token"`;
      throw advise(
        error,
        `What has come is kept apart, as "thinlun volume list ${this.#dir}" shows. Go on with the token that ${token} prints, or delete it.`,
      );
    });
    this.answered++;
    if (answer.status >= 300) throw this.#refused(answer.body);
    return this.#parse(answer.body, volumeSchema);
  }

  resumeToken(name: string): Promise<ResumeTokenMessage> {
    return this.#ask('GET', `/volumes/${encodeURIComponent(name)}/resume-token`, undefined, resumeTokenSchema);
  }

  trim(request: TrimMessage): Promise<TrimmedMessage> {
    return this.#ask('POST', '/pool/trim', request, trimmedSchema);
  }

  async listReservations(): Promise<VolumeReservationsMessage[]> {
    return (await this.#ask('GET', '/reservations', undefined, reservationListSchema)).volumes;
  }

  clearReservations(name: string, request: ClearReservationsMessage): Promise<VolumeReservationsMessage> {
    const path = `/volumes/${encodeURIComponent(name)}/clear-reservations`;
    return this.#ask('POST', path, request, volumeReservationsSchema);
  }

  async deleteVolume(name: string): Promise<void> {
    await this.#ask('DELETE', `/volumes/${encodeURIComponent(name)}`, undefined, deletedSchema);
  }

  async commit(): Promise<number> {
    return (await this.#ask('POST', '/pool/commit', undefined, commitSchema)).transactionId;
  }

  async close(): Promise<void> {
    this.#name.close();
  }

  /** Rejects with `NoServerError` when no process listens. */
  #probe(): Promise<void> {
    return new Promise((resolve, reject) => {
      const socket = connect({ path: this.#name.path });
      socket.on('connect', () => {
        socket.destroy();
        resolve();
      });
      socket.on('error', (error) => reject(this.#unreachable('GET', error)));
    });
  }

  async #ask<T>(method: string, path: string, message: unknown, schema: Schema<T>): Promise<T> {
    let answer: Answer;
    try {
      answer = await exchange(this.#name.path, method, path, message);
    } catch (error) {
      throw this.#unreachable(method, error);
    }
    this.answered++;
    if (answer.status >= 200 && answer.status < 300) return this.#parse(answer.body, schema);
    throw this.#refused(answer.body);
  }

  #refused(body: string): StorageError {
    const { error } = this.#parse(body, errorSchema);
    const code = errnoOf(error);
    return error.hint === null
      ? new StorageError(code, error.message)
      : new AdvisedError(code, error.message, error.hint);
  }

  /** A stream whose end is checked: a connection that breaks says no reason, the stream itself may. */
  async *#watched(response: AsyncIterable<Uint8Array>): AsyncIterable<Uint8Array> {
    const { StreamScanner } = await import('../thin/stream-scanner.ts');
    const scanner = new StreamScanner();
    try {
      for await (const chunk of response) {
        scanner.push(chunk);
        yield chunk;
      }
    } catch (error) {
      if (scanner.failure === null) throw this.#unreachable('GET', error);
    }
    if (scanner.failure !== null) throw new StorageError('EIO', scanner.failure);
  }

  #parse<T>(text: string, schema: Schema<T>): T {
    let body: unknown;
    try {
      body = JSON.parse(text);
    } catch (error) {
      throw this.#strange(messageOf(error));
    }
    const parsed = safeParse(schema, body);
    if (!parsed.success) throw this.#strange(describeIssues(parsed.issues, 'message'));
    return parsed.output;
  }

  #strange(reason: string): StorageError {
    return new AdvisedError(
      'EIO',
      `Cannot understand the server of pool "${this.#dir}": ${reason}`,
      'The server is of another version than this command: restart it with "thinlun serve".',
    );
  }

  #unreachable(method: string, error: unknown): StorageError {
    const options = { cause: error };
    const message = `Cannot reach the server of pool "${this.#dir}": ${messageOf(error)}`;
    const { code, syscall } = error as { code?: string; syscall?: string };
    if (syscall === 'connect' && NOBODY.has(code ?? '')) return new NoServerError('ENODEV', message, options);
    if (errnoOf(error) === 'EACCES' || method === 'GET') return new StorageError(errnoOf(error), message, options);
    const hint = 'Whether the change was made is not known: look with "thinlun volume list" or "thinlun access list".';
    return new AdvisedError(errnoOf(error), message, hint, options);
  }
}
