import type { CommandRing } from './command-ring.ts';

/** Looks at the ring before going to sleep: some 20 to 50 us in all. */
const TRIES = 16;
/** Times in one turn of the event loop that the next command is waited for: then everybody else has a turn. */
const MAX_ROUNDS = 16;
/** Commands of one round at most: an initiator that has more in flight makes batches, which grow while nobody looks. */
const MAX_COMMANDS = 2;
/** Rounds that are left out after one in vain, at most. */
const MAX_SKIPPED = 1023;

/**
 * Waits for the next command for a moment where that has paid, before the event loop goes to sleep: an initiator that sends one command after the other
 * has its next one on the ring within microseconds, and to fall asleep and be woken costs more than all that is done for it.
 */
export class RingPoll {
  #roundsLeft = 0;
  #commands = 0;
  #skip = 0;
  #skipped = 0;

  /** A turn of the event loop has found something on the ring. */
  begin(): void {
    this.#roundsLeft = MAX_ROUNDS;
  }

  /** Whether there is another command. `ring` has been served. */
  wait(ring: CommandRing): boolean {
    const { commands } = ring.stats;
    const count = commands - this.#commands;
    this.#commands = commands;
    if (count === 0 || count > MAX_COMMANDS || ring.inFlight > 0 || this.#roundsLeft === 0) return false;
    if (this.#skipped < this.#skip) {
      this.#skipped++;
      return false;
    }
    this.#roundsLeft--;
    this.#skipped = 0;
    const found = ring.awaitNext(TRIES);
    this.#skip = found ? 0 : Math.min(2 * this.#skip + 1, MAX_SKIPPED);
    return found;
  }
}
