import type { Clock } from '../base/clock.ts';
import { messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { NativeBindings } from '../base/native.ts';
import type { GiveFd } from '../base/shared-handle.ts';
import { ConfigfsDevice, type ModuleParameters, type TcmuPaths } from './configfs.ts';
import { EventAnswers, type PendingAnswer } from './event-answers.ts';
import { type TcmuEvent, TcmuEventKind } from './genl.ts';
import { DEFAULT_EVENT_BUFFER_SIZE, GenlClient } from './genl-client.ts';
import { InPlaceAnswers } from './in-place-answers.ts';
import { netlinkWaiters } from './kernel-waiters.ts';
import type { Neighbours } from './neighbours.ts';
import type { EventsHandover } from './tcmu-handover.ts';
import { readUioEntry } from './uio.ts';

/** Threads that wait this long, while another process could have answered, wait for nobody. */
const LEFTOVER_AGE_MS = 3_000;
/** While a stranger listens, who may answer everything, its answer gets this long to come. */
const STRANGER_GRACE_MS = 1_000;
const STRANGER_LOOK_MS = 50;
/** What is under way when events were lost gets this long to be answered before everything that waits is released. */
const LOSS_GRACE_MS = 5_000;

export interface KernelEventsOptions {
  readonly native: NativeBindings;
  readonly paths: TcmuPaths;
  readonly module: ModuleParameters;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Bytes of events that may be waiting for us. */
  readonly eventBufferSize?: number | undefined;
  isOurs(uioName: string): boolean;
  /** Whether it is about a device that is open here. */
  isServed(event: TcmuEvent): boolean;
  readonly neighbours: Neighbours;
  /** An event about a device of ours; `answer` has to be settled at last. */
  event(event: TcmuEvent, answer: PendingAnswer): void;
  /** Events were lost: look for yourself. Returns when what is under way is done. */
  eventsLost(): Promise<void>;
  /** Whether the kernel is to wait for our answers from now on. */
  waitingChanged(waits: boolean): void;
}

/**
 * What the kernel asks, and who answers. The kernel believes the first answer, from whatever process; where one listens that answers for
 * devices that it does not know (tcmu-runner refuses them), the kernel is told to wait for nobody, and whatever still waits is left to the other.
 */
export class KernelEvents {
  readonly #options: KernelEventsOptions;
  readonly #netlink: GenlClient;
  readonly #answers: EventAnswers;
  readonly #inPlace: InPlaceAnswers;
  /** Port ids of the strangers of which the kernel was told last; null before. */
  #strangers: string | null = null;
  #releasing = false;

  constructor(options: KernelEventsOptions) {
    this.#options = options;
    this.#answers = new EventAnswers((event, status) => {
      try {
        this.#netlink.answer(event, status);
      } catch (error) {
        this.#options.logger.error({ device: event.uioName, reason: messageOf(error) }, 'cannot answer the kernel');
      }
    });
    this.#inPlace = new InPlaceAnswers({
      ...options,
      answer: (event, status) => this.settle(this.#answers.expect(event), status),
      countListeners: () => this.#netlink.company()?.friends ?? 0,
      isPresent: (event) => isPresent(options.paths, event),
    });
    this.#netlink = new GenlClient(
      options.native,
      options.paths,
      { tcmuEvent: (event) => this.#event(event), eventsLost: (reason) => void this.#lost(reason) },
      options.eventBufferSize ?? DEFAULT_EVENT_BUFFER_SIZE,
    );
  }

  /** The kernel waits for our answers. */
  get waits(): boolean {
    return this.#strangers === '';
  }

  /** Listens, and releases threads of the kernel that wait for a process that is gone. Throws `StorageError`. */
  async open(): Promise<void> {
    await this.#options.neighbours.enter(() => this.#netlink.open());
    try {
      await this.#releaseLeftovers();
    } catch (error) {
      this.#netlink.close();
      throw error;
    }
    this.lookAround();
  }

  /** Instead of `open`, with what another process has had; nothing is taken before `resume`. Throws `StorageError`. */
  async takeOver({ strangers }: EventsHandover, fd: number): Promise<void> {
    this.#strangers = strangers;
    await this.#options.neighbours.enter(() => this.#netlink.open(fd));
  }

  /** Events wait in the kernel until `resume`, or for the next process. */
  suspend(): void {
    this.#netlink.suspend();
  }

  resume(): void {
    this.#netlink.resume();
    this.#netlink.receive();
    this.lookAround();
  }

  /** After `suspend`: for the next process, which answers from now on. */
  handOver(give: GiveFd): EventsHandover {
    const handover = { fd: give(this.#netlink.share()), strangers: this.#strangers };
    this.abandon();
    return handover;
  }

  /** Leaves the kernel to another process. */
  abandon(): void {
    this.#inPlace.stop();
    this.#netlink.close();
  }

  /** Notices who has come and who has gone, and events that were lost. */
  lookAround(): void {
    this.#netlink.noticeDrops();
    const strangers = this.#netlink.company()?.strangers ?? [];
    const known = strangers.map(({ portId }) => portId).join();
    if (known === this.#strangers) return;
    this.#strangers = known;
    const waits = strangers.length === 0;
    this.#netlink.promiseAnswers(waits);
    if (!waits) {
      const names = strangers.map(({ name }) => name);
      this.#options.logger.warn(
        { names },
        'another TCMU handler runs here and may answer for our devices: the kernel waits for no answers',
      );
    }
    this.#options.waitingChanged(waits);
  }

  /** Gives the answer if anybody waits for it and no newer question has come. Resolves to whether it was given. */
  async settle(answer: PendingAnswer, status: number): Promise<boolean> {
    this.#netlink.receive();
    let left = this.#company() ? STRANGER_GRACE_MS / STRANGER_LOOK_MS : 0;
    while (!answer.over) {
      if (!(await this.#isAwaited(answer.event))) {
        answer.drop();
      } else if (left-- > 0) {
        await this.#delay(STRANGER_LOOK_MS);
        this.#netlink.receive();
      } else {
        this.#netlink.receive(); // looking has taken a moment
        if (answer.over) break;
        answer.give(status);
        return true;
      }
    }
    return false;
  }

  /** Nobody listens here any more. The kernel waits for those who do. */
  close(): void {
    this.#inPlace.stop();
    this.#options.neighbours.leave();
    const company = this.#netlink.company();
    // Other thinlun processes have told the kernel what is right for them.
    if (company === null || company.friends === 0) this.#netlink.promiseAnswers((company?.strangers.length ?? 0) > 0);
    this.#netlink.close();
  }

  #event(event: TcmuEvent): void {
    // Not ours: not even a refusal, as the first answer from anybody counts.
    this.#answers.overtake(event);
    if (!this.#options.isOurs(event.uioName)) return;
    this.lookAround();
    if (!this.#options.isServed(event) && !this.#inPlace.isOurs(event)) return;
    this.#options.event(event, this.#answers.expect(event));
  }

  #company(): boolean {
    return (this.#netlink.company()?.strangers.length ?? 0) > 0;
  }

  /**
   * Whether a thread still waits. Devices may have opted out, and another process may have answered; an answer that nobody waits for
   * makes the kernel complain at best.
   */
  async #isAwaited({ kind, minor, uioName }: TcmuEvent): Promise<boolean> {
    // A folder may be locked until RECONFIG is answered, and surely is until REMOVED is.
    if (kind === TcmuEventKind.RECONFIG) return true;
    const entry = readUioEntry(this.#options.paths, minor);
    if (entry === null || entry.uioName !== uioName.trimEnd()) return false;
    if (kind === TcmuEventKind.REMOVED) return true;
    try {
      return !(await new ConfigfsDevice(this.#options.paths, entry.name).isEnabled());
    } catch {
      return true; // a superfluous answer is better than none
    }
  }

  async #releaseLeftovers(): Promise<void> {
    const { module, paths, logger } = this.#options;
    const company = this.#netlink.company();
    if (company !== null && company.friends === 0 && company.strangers.length === 0) {
      await module.releaseWaiters(); // nobody is left who could answer
      return;
    }
    const before = netlinkWaiters(paths.proc);
    if (before === null || before.size === 0) return;
    await this.#delay(LEFTOVER_AGE_MS);
    const stuck = [...(netlinkWaiters(paths.proc) ?? [])].filter((waiter) => before.has(waiter));
    if (stuck.length === 0) return;
    logger.warn({ threads: stuck }, 'releasing threads of the kernel that wait for a TCMU handler that is gone');
    await module.releaseWaiters();
  }

  /** Who waits for an answer to an event that was lost waits for ever: so all that wait are released once what did come is answered. */
  async #lost(reason: string): Promise<void> {
    const { logger, paths, module } = this.#options;
    logger.warn({ reason }, 'TCMU events were lost, looking at sysfs');
    const looked = this.#options.eventsLost();
    if (this.#releasing) return;
    this.#releasing = true;
    try {
      // A step may wait for a folder that is locked by one of those.
      await Promise.race([looked, this.#delay(LOSS_GRACE_MS)]);
      if (netlinkWaiters(paths.proc)?.size === 0) return;
      logger.warn({}, 'releasing threads of the kernel that wait for answers to events that were lost');
      await module.releaseWaiters();
      await this.#options.eventsLost();
    } catch (error) {
      logger.error({ reason: messageOf(error) }, 'cannot release threads of the kernel');
    } finally {
      this.#releasing = false;
    }
  }

  #delay(delayMs: number): Promise<void> {
    return new Promise((resolve) => void this.#options.clock.setTimer(delayMs, resolve));
  }
}

function isPresent(paths: TcmuPaths, { minor, uioName }: Pick<TcmuEvent, 'minor' | 'uioName'>): boolean {
  return readUioEntry(paths, minor)?.uioName === uioName.trimEnd();
}
