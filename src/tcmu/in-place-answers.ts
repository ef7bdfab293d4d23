import type { Clock, Timer } from '../base/clock.ts';
import { messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { ConfigfsDevice, parseUioName, type TcmuPaths } from './configfs.ts';
import { type TcmuEvent, TcmuEventKind } from './genl.ts';
import type { Neighbours } from './neighbours.ts';
import { readUioEntry } from './uio.ts';

const LOOK_INTERVAL_MS = 1_000;
/** Reading a device's folder waits while the device is being removed. */
const READ_TIMEOUT_MS = 1_000;
/** A change that its server has not answered after this long was answered; another one may be under way. */
const RECONFIG_LIFE_MS = 10_000;
const ENODEV = 19;

export interface InPlaceAnswersOptions {
  readonly neighbours: Neighbours;
  readonly paths: TcmuPaths;
  answer(event: TcmuEvent, status: number): void;
  readonly logger: Logger;
  readonly clock: Clock;
}

interface Remembered {
  readonly event: TcmuEvent;
  readonly token: string;
  readonly atMs: number;
}

/**
 * Answers for servers that are not there, so that no thread of the kernel waits for ever for one: for a device that nobody serves, and
 * for a server of another process that has died with an answer owing.
 *
 * Nothing may be answered twice. An answer of the wrong kind makes the kernel lose the event that waits; a refused device that a
 * process has mapped already takes the kernel down. Removals and additions are the last and the first event of a device id, so they are
 * answered at most once by all processes together (`Neighbours`), and an addition only while the device is not enabled.
 */
export class InPlaceAnswers {
  readonly #options: InPlaceAnswersOptions;
  /** What other servers owe, by device id: the last event of each. */
  readonly #owed: Map<number, Remembered> = new Map();
  #timer: Timer | null = null;
  #stopped = false;

  constructor(options: InPlaceAnswersOptions) {
    this.#options = options;
  }

  /** Whether this process has to answer it. If not, the answer is seen to. */
  isOurs(event: TcmuEvent): boolean {
    const { neighbours, clock } = this.#options;
    const server = neighbours.server(cfgstringOf(event));
    this.#owed.delete(event.deviceId);
    if (server.is === 'ours') return !neighbours.wasAnswered(event);
    if (server.is === 'nobody') {
      void this.#answer(event, async () => neighbours.server(cfgstringOf(event)).is !== 'nobody');
    } else {
      this.#owed.set(event.deviceId, { event, token: server.token, atMs: clock.nowMs() });
      this.#schedule();
    }
    return false;
  }

  stop(): void {
    this.#stopped = true;
    this.#timer?.cancel();
    this.#owed.clear();
  }

  async #answer(event: TcmuEvent, unless: () => Promise<boolean>): Promise<void> {
    const status = event.kind === TcmuEventKind.REMOVED ? 0 : -ENODEV;
    const { neighbours, answer, logger } = this.#options;
    try {
      const answered = await neighbours.answerInPlace(
        event,
        async () => (await unless()) || (event.kind === TcmuEventKind.ADDED && (await this.#isEnabled(event))),
        () => answer(event, status),
      );
      if (answered && status !== 0) {
        const reason = `no pool "${cfgstringOf(event).split('/', 1)[0]}" is served on this machine`;
        logger.warn({ device: event.uioName, status, reason }, 'refused what the kernel asked');
      }
    } catch (error) {
      logger.error({ device: event.uioName, reason: messageOf(error) }, 'cannot answer for a device without a server');
    }
  }

  #schedule(): void {
    if (this.#timer !== null || this.#stopped || this.#owed.size === 0) return;
    this.#timer = this.#options.clock.setTimer(LOOK_INTERVAL_MS, () => {
      this.#timer = null;
      void this.#look().finally(() => this.#schedule());
    });
  }

  async #look(): Promise<void> {
    const { neighbours, paths, clock } = this.#options;
    for (const [deviceId, owed] of [...this.#owed]) {
      const { event, token, atMs } = owed;
      const server = neighbours.server(cfgstringOf(event));
      const lives = 'token' in server && server.token === token;
      const over =
        readUioEntry(paths, event.minor)?.uioName !== event.uioName ||
        (event.kind === TcmuEventKind.RECONFIG && clock.nowMs() - atMs > RECONFIG_LIFE_MS) ||
        (event.kind === TcmuEventKind.ADDED && (await this.#isEnabled(event)));
      if (lives && !over) continue;
      if (this.#owed.get(deviceId) === owed) this.#owed.delete(deviceId);
      else continue;
      if (!over && !this.#stopped) await this.#answer(event, async () => false);
    }
  }

  /** Whether the device's creation is over. What cannot be read is being removed. */
  async #isEnabled(event: TcmuEvent): Promise<boolean> {
    const name = parseUioName(event.uioName);
    if (name === null) return false;
    let timer: Timer | null = null;
    const late = new Promise<boolean>((resolve) => {
      timer = this.#options.clock.setTimer(READ_TIMEOUT_MS, () => resolve(true));
    });
    const enabled = new ConfigfsDevice(this.#options.paths, name).isEnabled().catch(() => true);
    const result = await Promise.race([enabled, late]);
    (timer as Timer | null)?.cancel();
    return result;
  }
}

function cfgstringOf(event: TcmuEvent): string {
  return parseUioName(event.uioName)?.cfgstring ?? '';
}
