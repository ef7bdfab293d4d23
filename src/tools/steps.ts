import { setImmediate as turn } from 'node:timers/promises';
import type { Clock } from '../base/clock.ts';

/** Long work that may be left alone between its yields. */
export type Steps<T> = Generator<void, T, void>;

/** Milliseconds after which others get the event loop. */
const MAX_TURN_MS = 4;

export interface StepOptions {
  clock: Clock;
  /** Called between the steps; what it returns is waited for. */
  between?: (() => Promise<void> | null) | undefined;
  /** Called in every turn of the event loop. */
  onTurn?: (() => void) | undefined;
}

/** Does the work while everything else waits. */
export function runToEnd<T>(steps: Steps<T>): T {
  for (;;) {
    const step = steps.next();
    if (step.done) return step.value;
  }
}

/** Does the work in turns of the event loop, none of them much longer than `MAX_TURN_MS`. */
export async function runInTurns<T>(steps: Steps<T>, options: StepOptions): Promise<T> {
  const { clock, between, onTurn } = options;
  let begin = clock.nowMs();
  for (;;) {
    const step = steps.next();
    if (step.done) return step.value;
    const waiting = between?.() ?? null;
    if (waiting === null && clock.nowMs() - begin < MAX_TURN_MS) continue;
    onTurn?.();
    await (waiting ?? turn());
    begin = clock.nowMs();
  }
}
