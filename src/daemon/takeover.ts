import { realpathSync } from 'node:fs';
import { request } from 'node:http';
import { errnoOf, messageOf, StorageError, wrapError } from '../base/errors.ts';
import { type Schema, safeParse } from '../base/schema.ts';
import { AdvisedError } from './advised-error.ts';
import { TAKEOVER_PATH, TAKEOVER_PROTOCOL } from './control-messages.ts';
import { ControlSocketName } from './control-socket.ts';
import { type Predecessor, read } from './handover.ts';
import { HandoverChannel, type HandoverMessage, requireFdPassing } from './handover-channel.ts';
import {
  HANDOVER_FORMAT,
  refusedSchema,
  stateSchema,
  type WelcomeMessage,
  welcomeSchema,
} from './handover-messages.ts';
import { Inheritance } from './inheritance.ts';
import { requirePool } from './pool-access.ts';
import { formatPortal, type ServedPortal } from './portal-address.ts';
import { VERSION } from './version.ts';

/** How a server serves; null: as the running one does. */
export interface TakeoverWishes {
  readonly portals: readonly ServedPortal[] | null;
  readonly tcmu: boolean | null;
}

/** The new server's side: see handover-messages.ts. */
export class Takeover implements Predecessor {
  /** The running server, and how it serves. */
  readonly running: WelcomeMessage;
  readonly canGoOn = true;
  readonly #channel: HandoverChannel;

  private constructor(channel: HandoverChannel, running: WelcomeMessage) {
    this.#channel = channel;
    this.running = running;
  }

  /**
   * Asks the server of the pools in `dirs` whether it can be taken over from; null when none of them has a server. Throws `StorageError`, and nothing has
   * happened, when it cannot, or serves in another way than `wishes` say.
   */
  static async prepare(dirs: readonly string[], wishes: TakeoverWishes): Promise<Takeover | null> {
    requireFdPassing();
    for (const dir of dirs) requirePool(dir);
    const directories = dirs.map((dir) => realpathSync(dir));
    for (const dir of dirs) {
      const channel = await connect(dir);
      if (channel === null) continue;
      try {
        const hello = { event: 'hello', format: HANDOVER_FORMAT, version: VERSION, pid: process.pid, directories };
        await channel.send(hello);
        const running = answerOf(await channel.receive(), welcomeSchema);
        if (running === null) throw new StorageError('ESHUTDOWN', `The server of the pool "${dir}" has just ended`);
        checkWishes(wishes, running);
        await checkOthers(dirs, directories, running);
        return new Takeover(channel, running);
      } catch (error) {
        channel.close();
        throw error;
      }
    }
    return null;
  }

  async begin(): Promise<Inheritance | null> {
    try {
      await this.#channel.send({ event: 'begin' });
      const message = await this.#channel.receive();
      const state = answerOf(message, stateSchema);
      if (state !== null) return new Inheritance(state, message!.fds);
      this.#channel.close();
      return null;
    } catch (error) {
      this.#channel.close();
      throw error;
    }
  }

  async taken(): Promise<void> {
    // Where it has ended already, nobody needs to know.
    await this.#channel.send({ event: 'taken' }).catch(() => {});
  }

  /** Before `begin` nothing has happened; before `taken` the other process goes on; afterwards it ends. */
  close(): void {
    this.#channel.close();
  }

  /** This process cannot, and has closed everything: the other one goes on. */
  async failed(error: unknown): Promise<void> {
    await this.#channel.send({ event: 'failed', message: messageOf(error) }).catch(() => {});
    this.#channel.close();
  }
}

/** A connection to the server of the pool in `dir`; null when there is none. Throws `StorageError`. */
function connect(dir: string): Promise<HandoverChannel | null> {
  const name = new ControlSocketName(dir);
  return new Promise<HandoverChannel | null>((resolve, reject) => {
    const headers = { connection: 'upgrade', upgrade: TAKEOVER_PROTOCOL };
    const asking = request({ socketPath: name.path, method: 'GET', path: TAKEOVER_PATH, agent: false, headers });
    asking.on('upgrade', (_response, socket) => resolve(HandoverChannel.of(socket as never)));
    asking.on('response', (response) => {
      response.destroy();
      reject(
        new AdvisedError(
          'EOPNOTSUPP',
          `Cannot take over from the server of the pool "${dir}": its version does not know how`,
          'Stop it and start the new one.',
        ),
      );
    });
    asking.on('error', (error) => {
      const { code } = error as NodeJS.ErrnoException;
      if (code === 'ENOENT' || code === 'ECONNREFUSED') resolve(null);
      else reject(wrapError(`Cannot reach the server of the pool "${dir}"`, error));
    });
    asking.end();
  }).finally(() => name.close());
}

/** Throws when the running server serves in another way. */
function checkWishes({ portals, tcmu }: TakeoverWishes, running: WelcomeMessage): void {
  const differs = (what: string): AdvisedError =>
    new AdvisedError(
      'EINVAL',
      `Cannot take over from process ${running.pid}: it serves ${what}`,
      'A takeover changes the program and not how it serves. Leave --portal, --no-portal and --tcmu out, or stop the server and start it anew.',
    );
  const textOf = (list: readonly ServedPortal[]): string =>
    list.length === 0 ? 'without a portal' : `on ${list.map((each) => `${formatPortal(each)},${each.tag}`).join(' ')}`;
  if (portals !== null && textOf(portals) !== textOf(running.portals)) throw differs(textOf(running.portals));
  if (tcmu !== null && tcmu !== running.tcmu) throw differs(running.tcmu ? 'with --tcmu' : 'without --tcmu');
}

/** The pools that the running server does not have must have no other one. */
async function checkOthers(
  dirs: readonly string[],
  directories: readonly string[],
  running: WelcomeMessage,
): Promise<void> {
  for (const [index, dir] of dirs.entries()) {
    if (running.directories.includes(directories[index]!)) continue;
    const channel = await connect(dir);
    channel?.close();
    if (channel === null) continue;
    throw new AdvisedError(
      'EINVAL',
      `Cannot take over from process ${running.pid}: the pool "${dir}" is served by another one`,
      'Take over from one server at a time.',
    );
  }
}

/** The answer, or what the other server refuses with; null when it has ended. */
function answerOf<T>(message: HandoverMessage | null, schema: Schema<T>): T | null {
  const refusal = safeParse(refusedSchema, message?.content);
  if (!refusal.success) return read(message, schema);
  const { message: text, hint } = refusal.output;
  const code = errnoOf(refusal.output);
  throw hint === null ? new StorageError(code, text) : new AdvisedError(code, text, hint);
}
