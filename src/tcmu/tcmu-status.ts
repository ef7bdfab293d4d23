import { constants as osConstants } from 'node:os';
import type { Clock } from '../base/clock.ts';
import { errnoOf, messageOf } from '../base/errors.ts';
import { parseUioName } from './configfs.ts';
import { type TcmuEvent, TcmuEventKind } from './genl.ts';
import type { TcmuDeviceStatus } from './tcmu-device.ts';
import type { UioEntry } from './uio.ts';

/** A device of ours that cannot be served now. */
export interface UnservedDevice {
  readonly entry: UioEntry;
  readonly reason: string;
}

/** Something that the kernel asked, for somebody who got no more than an errno, and that was refused. */
export interface TcmuRefusal {
  readonly cfgstring: string;
  /** The backstore's name in LIO. */
  readonly device: string;
  readonly action: 'add' | 'change' | 'remove';
  readonly reason: string;
  readonly ageMs: number;
}

export interface TcmuStatus {
  /** The kernel waits for our answers; not so beside another handler. */
  readonly answersAwaited: boolean;
  readonly devices: readonly TcmuDeviceStatus[];
  readonly unserved: readonly UnservedDevice[];
  /** The last ones, oldest first. */
  readonly refusals: readonly TcmuRefusal[];
}

const MAX_REFUSALS = 32;

const ACTIONS: Readonly<Record<TcmuEventKind, TcmuRefusal['action']>> = {
  [TcmuEventKind.ADDED]: 'add',
  [TcmuEventKind.REMOVED]: 'remove',
  [TcmuEventKind.RECONFIG]: 'change',
};

/** The last refusals: targetcli shows its user no reason. */
export class RefusalLog {
  readonly #clock: Clock;
  readonly #entries: (Omit<TcmuRefusal, 'ageMs'> & { readonly atMs: number })[] = [];

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Once for what is asked again and again, as rtslib does. */
  add(event: TcmuEvent, error: unknown): void {
    const { reason: why, hint } = failure(error);
    const reason = hint === undefined ? why : `${why}. ${hint}`;
    const uioName = event.uioName.trimEnd();
    const { device = uioName, cfgstring = '' } = parseUioName(uioName) ?? {};
    const action = ACTIONS[event.kind];
    const last = this.#entries.at(-1);
    if (last?.device === device && last.action === action && last.reason === reason) this.#entries.pop();
    this.#entries.push({ cfgstring, device, action, reason, atMs: this.#clock.nowMs() });
    if (this.#entries.length > MAX_REFUSALS) this.#entries.shift();
  }

  list(): TcmuRefusal[] {
    const nowMs = this.#clock.nowMs();
    return this.#entries.map(({ atMs, ...refusal }) => ({ ...refusal, ageMs: nowMs - atMs }));
  }
}

/** For a log: why something failed and, where it is known, what its reader can do about that. */
export function failure(error: unknown): { reason: string; hint?: string } {
  const { hint } = error as { hint?: unknown };
  return { reason: messageOf(error), ...(typeof hint === 'string' && { hint }) };
}

/** The number for an answer to the kernel. */
export function errnoNumber(error: unknown): number {
  const numbers: Readonly<Record<string, number | undefined>> = osConstants.errno;
  return numbers[errnoOf(error)] ?? osConstants.errno.EIO;
}
