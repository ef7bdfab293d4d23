import { constants as osConstants } from 'node:os';
import type { Clock, Timer } from '../base/clock.ts';
import { messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { parseUioName } from './configfs.ts';
import { type TcmuEvent, TcmuEventKind } from './genl.ts';
import type { Neighbours } from './neighbours.ts';

const LOOK_INTERVAL_MS = 1_000;
/** What a living server owes for this long it has given. */
const OWED_LIFE_MS = 600_000;
/** Nothing shows whether a change still waits for its answer: after this long it does not. */
const OWED_CHANGE_LIFE_MS = 10_000;

export interface InPlaceAnswersOptions {
  readonly neighbours: Neighbours;
  /** Answers if a thread of the kernel waits for it; resolves to whether one did. */
  answer(event: TcmuEvent, status: number): Promise<boolean>;
  /** How many other processes listen that answer for their own devices only. */
  countListeners(): number;
  /** Whether the device is still there. */
  isPresent(event: TcmuEvent): boolean;
  readonly logger: Logger;
  readonly clock: Clock;
}

interface Owed {
  readonly event: TcmuEvent;
  readonly token: string;
  readonly sinceMs: number;
}

/**
 * Answers for servers that are not there, so that no thread of the kernel waits for one for ever: for a device that nobody serves, and
 * for a server of another process that has ended with an answer owing. All processes see all events; one of them answers.
 */
export class InPlaceAnswers {
  readonly #options: InPlaceAnswersOptions;
  /** What other servers owe, by device id: the last event of each. */
  readonly #owed: Map<number, Owed> = new Map();
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
    // What was refused in our place before we came is going away: to map it then takes the kernel down.
    if (server.is === 'ours') return !neighbours.wasAnswered(event);
    if (server.is === 'nobody' && !this.#isStrangerHere()) {
      void this.#answer(event, () => neighbours.server(cfgstringOf(event)).is === 'nobody');
      return false;
    }
    if (server.is === 'nobody') {
      const text = 'left to a thinlun that listens and is not known here: servers of one machine share /run/thinlun';
      this.#options.logger.warn({ device: event.uioName }, text);
    }
    this.#owed.set(event.deviceId, {
      event,
      token: server.is === 'theirs' ? server.token : '',
      sinceMs: clock.nowMs(),
    });
    this.#schedule();
    return false;
  }

  stop(): void {
    this.#stopped = true;
    this.#timer?.cancel();
    this.#owed.clear();
  }

  /** A server listens that we do not know, in another container, maybe: it may be about to map a device that seems to be nobody's. */
  #isStrangerHere(): boolean {
    return this.#options.countListeners() > this.#options.neighbours.count();
  }

  async #answer(event: TcmuEvent, needed: () => boolean): Promise<void> {
    const { neighbours, answer, logger } = this.#options;
    const status = event.kind === TcmuEventKind.REMOVED ? 0 : -osConstants.errno.ENODEV;
    const device = event.uioName;
    try {
      let given = false;
      await neighbours.answerInPlace(
        event,
        () => !this.#stopped && needed(),
        async () => {
          given = await answer(event, status);
        },
      );
      if (!given || status === 0) return;
      const reason = `no pool "${cfgstringOf(event).split('/', 1)[0]}" is served on this machine`;
      logger.warn({ device, status, reason }, 'refused what the kernel asked');
    } catch (error) {
      logger.error({ device, reason: messageOf(error) }, 'cannot answer the kernel for a server that is not there');
    }
  }

  #schedule(): void {
    if (this.#timer !== null || this.#stopped || this.#owed.size === 0) return;
    this.#timer = this.#options.clock.setTimer(LOOK_INTERVAL_MS, () => {
      this.#timer = null;
      this.#look();
      this.#schedule();
    });
  }

  #look(): void {
    const { neighbours, isPresent, clock } = this.#options;
    for (const [deviceId, { event, token, sinceMs }] of this.#owed) {
      const server = neighbours.server(cfgstringOf(event));
      const life = event.kind === TcmuEventKind.RECONFIG ? OWED_CHANGE_LIFE_MS : OWED_LIFE_MS;
      const over = clock.nowMs() - sinceMs > life || !isPresent(event);
      if (!over && ((server.is === 'theirs' && server.token === token) || this.#isStrangerHere())) continue;
      this.#owed.delete(deviceId);
      if (!over) void this.#answer(event, () => true);
    }
  }
}

function cfgstringOf(event: TcmuEvent): string {
  return parseUioName(event.uioName)?.cfgstring ?? '';
}
