import { describe, expect, test } from 'vitest';
import type { CommandRing } from '../../src/tcmu/command-ring.ts';
import { RingPoll } from '../../src/tcmu/ring-poll.ts';

/** A ring that takes `commands` in each round, and on which the next one comes in time or not. */
class FakeRing {
  readonly stats = { commands: 0 };
  inFlight = 0;
  comes = true;
  looks = 0;

  awaitNext(): boolean {
    this.looks++;
    return this.comes;
  }
}

function round(poll: RingPoll, ring: FakeRing, commands = 1): boolean {
  ring.stats.commands += commands;
  return poll.wait(ring as unknown as CommandRing);
}

/** Rounds up to the one that ends the turn; `limit` at most. */
function turn(poll: RingPoll, ring: FakeRing, limit = 1000): number {
  poll.begin();
  let rounds = 1;
  while (rounds < limit && round(poll, ring)) rounds++;
  return rounds;
}

describe('waiting for the next command', () => {
  test('goes on while they come one by one, and gives everybody else a turn', () => {
    const [poll, ring] = [new RingPoll(), new FakeRing()];
    for (let i = 0; i < 10; i++) expect(turn(poll, ring)).toBe(17);
    expect(ring.looks).toBe(160);
  });

  test('does not begin while commands are in flight, after a batch, or after nothing', () => {
    const [poll, ring] = [new RingPoll(), new FakeRing()];
    poll.begin();
    ring.inFlight = 1;
    expect(round(poll, ring)).toBe(false);
    ring.inFlight = 0;
    expect(round(poll, ring, 3)).toBe(false);
    expect(round(poll, ring, 0)).toBe(false);
    expect(ring.looks).toBe(0);
    expect(round(poll, ring, 2)).toBe(true);
  });

  test('becomes rare where it is in vain, and is there again as soon as it pays', () => {
    const [poll, ring] = [new RingPoll(), new FakeRing()];
    ring.comes = false;
    for (let i = 0; i < 100_000; i++) turn(poll, ring);
    expect(ring.looks).toBeLessThan(120);
    const before = ring.looks;
    ring.comes = true;
    let turns = 0;
    while (turn(poll, ring) === 1) turns++;
    expect(turns).toBeLessThan(1024);
    expect(turn(poll, ring)).toBe(17);
    expect(ring.looks).toBeGreaterThan(before);
  });
});
