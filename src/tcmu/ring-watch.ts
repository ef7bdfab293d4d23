import type { Clock, Timer } from '../base/clock.ts';
import type { CommandRing } from './command-ring.ts';

/**
 * What has waited on the ring for longer is not executed any more. Far below the time after which initiators give up (30 s and more),
 * far above any pause of a process that is not stopped.
 */
const LONGEST_WAIT_MS = 5_000;
/** How long before the kernel's time-out a command is asked to end. */
const MARGIN_MS = 2_000;

/**
 * The ring of one device in time. A command may have been given up by its initiator while it waited on the ring, or in here: after the
 * kernel's cmd_time_out it has been reported as failed, and the initiator may have written something else to the same place, by this path or
 * by another. Executed late, it would destroy that. So what may have waited too long because this process was stopped is answered BUSY, which
 * makes an initiator that still wants it send it again, and what takes too long in here is aborted before the kernel gives it up.
 *
 * The ring does not say when an entry was put on it. But all of it was put there after the last moment at which nothing waited: that is
 * looked for a few times in each period, load or not.
 */
export class RingWatch {
  readonly #ring: CommandRing;
  readonly #clock: Clock;
  /** Commands were answered BUSY, as this process had not looked at the ring for that long. */
  readonly #onLate: (commands: number, waitedMs: number) => void;
  /** Whatever the ring throws when the time comes to look at it. */
  readonly #service: () => void;
  #caughtUpMs: number;
  #timeOutMs = 0;
  #timer: Timer | null = null;

  /** `service` is the host's own way to call `service()` here, which it does from time to time after `start()`. What is on the ring now may have waited for `waitedMs`. */
  constructor(
    ring: CommandRing,
    clock: Clock,
    service: () => void,
    onLate: (commands: number, waitedMs: number) => void,
    waitedMs: number = 0,
  ) {
    this.#ring = ring;
    this.#clock = clock;
    this.#service = service;
    this.#onLate = onLate;
    this.#caughtUpMs = clock.nowMs() - waitedMs;
  }

  /** For how long what is on the ring may have waited. */
  get waitedMs(): number {
    return this.#clock.nowMs() - this.#caughtUpMs;
  }

  /** The kernel's cmd_time_out; 0: none. */
  set timeOutMs(timeOutMs: number) {
    this.#timeOutMs = timeOutMs;
  }

  get #longestWaitMs(): number {
    return this.#timeOutMs === 0 ? LONGEST_WAIT_MS : Math.min(LONGEST_WAIT_MS, this.#timeOutMs / 2);
  }

  start(): void {
    this.#timer = this.#clock.setTimer(this.#longestWaitMs / 5, () => {
      this.#service();
      if (this.#timeOutMs > 0) this.#abortOld();
      if (this.#timer !== null) this.start();
    });
  }

  stop(): void {
    this.#timer?.cancel();
    this.#timer = null;
  }

  /** The end of a batch: the same, but where nothing is new, nothing is taken, and no time is asked for. */
  settle(): void {
    if (this.#ring.awaitNext(0)) this.service();
    else this.#ring.service(false);
  }

  /** `CommandRing.service()`, and throws what that throws. */
  service(): void {
    const ring = this.#ring;
    const nowMs = this.#clock.nowMs();
    const waitedMs = nowMs - this.#caughtUpMs;
    const busyBefore = ring.stats.busy;
    ring.nowMs = nowMs;
    ring.refusing = waitedMs > this.#longestWaitMs;
    ring.service();
    if (ring.caughtUp) this.#caughtUpMs = nowMs;
    if (ring.stats.busy > busyBefore) this.#onLate(ring.stats.busy - busyBefore, waitedMs);
  }

  #abortOld(): void {
    this.#ring.abortTakenBefore(this.#clock.nowMs() - Math.max(this.#timeOutMs / 2, this.#timeOutMs - MARGIN_MS));
  }
}
