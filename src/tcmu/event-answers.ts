import type { TcmuEvent } from './genl.ts';

/** The answer that the kernel may be waiting for. */
export interface PendingAnswer {
  readonly event: TcmuEvent;
  /** Nobody waits for it any more: it was given, or the kernel has asked something else about the device since. */
  readonly over: boolean;
  /** Gives it, unless it is over: 0, or a negative errno number. */
  give(status: number): void;
  /** There is nobody to be answered. */
  drop(): void;
}

/**
 * Answers to events, at most one for each. A device waits for one answer at a time, and the kernel applies whatever comes to what the device
 * waits for then: an answer to another question leaves the waiting thread in D state for good, where not even reset_netlink finds it. So
 * an answer that was overtaken (its waiter was released by somebody, the id belongs to another device by now) must not be sent.
 */
export class EventAnswers {
  readonly #send: (event: TcmuEvent, status: number) => void;
  /** By device id. */
  readonly #pending = new Map<number, Answer>();

  constructor(send: (event: TcmuEvent, status: number) => void) {
    this.#send = send;
  }

  /** Answers that were neither given nor dropped. */
  get pendingCount(): number {
    return this.#pending.size;
  }

  /** An event has come, whoever it concerns. What was asked about its device id before is over. */
  overtake(event: TcmuEvent): void {
    this.#pending.get(event.deviceId)?.drop();
  }

  /** Expects an answer to `event`, which has come just now. */
  expect(event: TcmuEvent): PendingAnswer {
    this.overtake(event);
    const answer = new Answer(event, (status) => {
      this.#pending.delete(event.deviceId);
      if (status !== null) this.#send(event, status);
    });
    this.#pending.set(event.deviceId, answer);
    return answer;
  }
}

class Answer implements PendingAnswer {
  readonly event: TcmuEvent;
  over = false;
  readonly #settle: (status: number | null) => void;

  constructor(event: TcmuEvent, settle: (status: number | null) => void) {
    this.event = event;
    this.#settle = settle;
  }

  give(status: number): void {
    if (this.over) return;
    this.over = true;
    this.#settle(status);
  }

  drop(): void {
    if (this.over) return;
    this.over = true;
    this.#settle(null);
  }
}
