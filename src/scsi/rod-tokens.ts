import { timingSafeEqual } from 'node:crypto';
import type { Clock } from '../base/clock.ts';
import { MAX_TOKENS } from './copy-limits.ts';
import { NO_SENSE, type Sense, TOKEN_CANCELLED, TOKEN_DELETED, TOKEN_EXPIRED, TOKEN_REVOKED } from './sense.ts';
import type { UnitHandover } from './unit-handover.ts';

/** Logical blocks `[begin, end)` of the unit. */
export interface BlockRange {
  readonly begin: number;
  readonly end: number;
}

/** What a token stands for. */
export class RodToken {
  readonly bytes: Uint8Array;
  readonly ranges: readonly BlockRange[];
  /** All ranges lie in here: most writes do not, and are seen off with one look. */
  readonly #begin: number;
  readonly #end: number;
  readonly timeoutMs: number;
  lastUsedMs: number;
  /** Copies under way from it; it does not expire meanwhile. */
  users = 0;
  /** Why it cannot be used any more; NO_SENSE while it can. */
  ended: Sense = NO_SENSE;

  constructor(bytes: Uint8Array, ranges: readonly BlockRange[], timeoutMs: number, nowMs: number) {
    this.bytes = bytes;
    this.ranges = ranges;
    this.#begin = Math.min(...ranges.map((range) => range.begin));
    this.#end = Math.max(...ranges.map((range) => range.end));
    this.timeoutMs = timeoutMs;
    this.lastUsedMs = nowMs;
  }

  overlaps(begin: number, end: number): boolean {
    if (end <= this.#begin || begin >= this.#end) return false;
    for (const range of this.ranges) if (range.begin < end && begin < range.end) return true;
    return false;
  }
}

/**
 * The tokens of one logical unit. A token represents its blocks as they were when it was made, and nothing is kept for it: so it ends when one of
 * its blocks is written. Tokens also end some time after their last use, when they are deleted, and when there are too many, longest unused
 * first. What became of them is remembered as long as there is room.
 */
export class RodTokens {
  /** Tokens that a write could end: a write looks here first. */
  live = 0;
  readonly random: (bytes: Uint8Array) => void;
  readonly #clock: Clock;
  /** Oldest first. */
  readonly #tokens: RodToken[] = [];
  #identifier = 0;
  /** How many change the content at the moment, not by commands. */
  #suspended = 0;

  /** `random` fills with bytes that cannot be guessed. */
  constructor(clock: Clock, random: (bytes: Uint8Array) => void) {
    this.#clock = clock;
    this.random = random;
  }

  /** A number for the next token, which no other token of this unit has had. */
  nextIdentifier(): number {
    return ++this.#identifier;
  }

  /** Null when no place can be made, or while tokens are suspended. */
  add(bytes: Uint8Array, ranges: readonly BlockRange[], timeoutMs: number): RodToken | null {
    if (this.#suspended > 0 || !this.#makeRoom()) return null;
    const token = new RodToken(bytes, ranges, timeoutMs, this.#clock.nowMs());
    this.#tokens.push(token);
    this.live++;
    return token;
  }

  /** The token that has these bytes, all of them; null when there is none or it has been forgotten. */
  find(bytes: Uint8Array): RodToken | null {
    this.#expire();
    return this.#tokens.find((token) => timingSafeEqual(token.bytes, bytes)) ?? null;
  }

  /** Those that can be used, oldest first. */
  list(): RodToken[] {
    this.#expire();
    return this.#tokens.filter(({ ended }) => ended === NO_SENSE);
  }

  /** A copy from the token begins; every one is followed by `unused`. */
  used(token: RodToken): void {
    token.users++;
  }

  unused(token: RodToken): void {
    token.users--;
    token.lastUsedMs = this.#clock.nowMs();
  }

  delete(token: RodToken): void {
    this.#endToken(token, TOKEN_DELETED);
  }

  /** The blocks `[begin, end)` are about to change. */
  revoke(begin: number, end: number): void {
    this.#expire();
    for (const token of this.#tokens) if (token.overlaps(begin, end)) this.#endToken(token, TOKEN_REVOKED);
  }

  /** All tokens end, and none is made until `resume`. */
  suspend(): void {
    this.#suspended++;
    this.revoke(0, Number.MAX_SAFE_INTEGER);
  }

  resume(): void {
    this.#suspended--;
  }

  /** All of them, and the number of the last; nobody uses one. */
  handOver(): UnitHandover['tokens'] {
    const nowMs = this.#clock.nowMs();
    const list = this.#tokens.map(({ bytes, ranges, timeoutMs, lastUsedMs, ended }) => {
      return { bytes: Buffer.from(bytes).toString('hex'), ranges, timeoutMs, idleMs: nowMs - lastUsedMs, ended };
    });
    return { identifier: this.#identifier, list };
  }

  takeOver({ identifier, list }: UnitHandover['tokens']): void {
    const nowMs = this.#clock.nowMs();
    this.#identifier = identifier;
    for (const { bytes, ranges, timeoutMs, idleMs, ended } of list.slice(-MAX_TOKENS)) {
      const token = new RodToken(Buffer.from(bytes, 'hex'), ranges, timeoutMs, nowMs - idleMs);
      token.ended = ended;
      this.#tokens.push(token);
      if (ended === NO_SENSE) this.live++;
    }
  }

  #expire(): void {
    const nowMs = this.#clock.nowMs();
    for (const token of this.#tokens) {
      if (token.users === 0 && nowMs - token.lastUsedMs > token.timeoutMs) this.#endToken(token, TOKEN_EXPIRED);
    }
  }

  #endToken(token: RodToken, why: Sense): void {
    if (token.ended !== NO_SENSE) return;
    token.ended = why;
    this.live--;
  }

  #makeRoom(): boolean {
    if (this.#tokens.length < MAX_TOKENS) return true;
    this.#expire();
    let index = this.#tokens.findIndex(({ ended, users }) => ended !== NO_SENSE && users === 0);
    if (index < 0) {
      for (let i = 0; i < this.#tokens.length; i++) {
        const token = this.#tokens[i]!;
        if (token.users > 0) continue;
        if (index < 0 || token.lastUsedMs < this.#tokens[index]!.lastUsedMs) index = i;
      }
      if (index < 0) return false;
      this.#endToken(this.#tokens[index]!, TOKEN_CANCELLED);
    }
    this.#tokens.splice(index, 1);
    return true;
  }
}
