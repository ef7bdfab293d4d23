import { closeSync } from 'node:fs';
import type { HandoverState } from './handover-messages.ts';

/** Everything that a server has given away, with the descriptors that go with it: for another process, or for the same one when that does not take it. */
export class Inheritance {
  readonly state: HandoverState;
  /** By their numbers in `state`; -1: taken. */
  readonly #fds: number[];

  /** The descriptors are ours from here on. */
  constructor(state: HandoverState, fds: readonly number[]) {
    this.state = state;
    this.#fds = [...fds];
  }

  /** All that nobody has taken, in the order of their numbers; they stay ours. */
  get fds(): readonly number[] {
    return this.#fds;
  }

  /** The descriptor with that number; the caller's from here on. */
  take(index: number): number {
    const fd = this.#fds[index] ?? -1;
    if (fd >= 0) this.#fds[index] = -1;
    return fd;
  }

  /** Closes what nobody has taken. */
  close(): void {
    for (const [index, fd] of this.#fds.entries()) {
      if (fd >= 0) closeSync(fd);
      this.#fds[index] = -1;
    }
  }
}

/** Milliseconds of the clock that all processes of the machine share. */
export function machineMs(): number {
  const [seconds, nanoseconds] = process.hrtime();
  return seconds * 1000 + nanoseconds / 1e6;
}
