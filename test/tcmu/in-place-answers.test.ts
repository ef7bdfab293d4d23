import { describe, expect, it } from 'vitest';
import { silentLogger } from '../../src/base/log.ts';
import { type TcmuEvent, TcmuEventKind } from '../../src/tcmu/genl.ts';
import { InPlaceAnswers } from '../../src/tcmu/in-place-answers.ts';
import type { Neighbours, Server } from '../../src/tcmu/neighbours.ts';
import { TestClock } from '../support/test-clock.ts';

/** A host with one other server. */
class Host implements Neighbours {
  servers: Record<string, Server> = {};
  /** Of which one is known. */
  listeners = 1;
  readonly before: Set<number> = new Set();
  readonly given: string[] = [];
  readonly gone: Set<number> = new Set();
  readonly clock: TestClock = new TestClock();
  readonly answers: InPlaceAnswers = new InPlaceAnswers({
    neighbours: this,
    answer: async (event, status) => this.given.push(`${event.kind} ${event.deviceId}: ${status}`) > 0,
    countListeners: () => this.listeners,
    isPresent: (event) => !this.gone.has(event.deviceId),
    logger: silentLogger,
    clock: this.clock,
  });

  enter = async (listen: () => void): Promise<void> => listen();
  leave = (): void => {};
  count = (): number => 1;
  server = (cfgstring: string): Server => this.servers[cfgstring.split('/')[0]!] ?? { is: 'nobody' };
  wasAnswered = (event: TcmuEvent): boolean => this.before.has(event.deviceId);
  answerInPlace = async (_: TcmuEvent, needed: () => boolean, answer: () => Promise<void>): Promise<void> => {
    if (needed()) await answer();
  };

  ask(kind: TcmuEvent['kind'], deviceId: number, cfgstring: string): boolean {
    const uioName = `tcm-user/0/dev/thin/${cfgstring}`;
    const event = { kind, uioName, minor: 0, deviceId, devConfig: null, sizeBytes: null, writeCache: null };
    return this.answers.isOurs(event);
  }

  async later(ms: number): Promise<void> {
    this.clock.advance(ms);
    for (let turn = 0; turn < 5; turn++) await Promise.resolve();
  }
}

const { ADDED, REMOVED, RECONFIG } = TcmuEventKind;

describe('an event', () => {
  it('about a device of ours is ours, unless somebody has refused it before we came', () => {
    const host = new Host();
    host.servers = { mine: { is: 'ours' } };
    host.before.add(2);
    expect([host.ask(ADDED, 1, 'mine/v'), host.ask(ADDED, 2, 'mine/v')]).toEqual([true, false]);
    expect(host.clock.timerCount).toBe(0);
  });

  it('about a device that nobody serves is refused; its removal is agreed to', async () => {
    const host = new Host();
    expect(host.ask(ADDED, 1, 'none/v')).toBe(false);
    expect(host.ask(REMOVED, 2, 'none/v')).toBe(false);
    expect(host.ask(RECONFIG, 3, 'no-slash')).toBe(false);
    await host.later(0);
    expect(host.given).toEqual(['1 1: -19', '2 2: 0', '3 3: -19']);
  });

  it('about a device that nobody serves is left to a server that we do not know, while one listens', async () => {
    const host = new Host();
    host.listeners = 2;
    expect(host.ask(ADDED, 1, 'none/v')).toBe(false);
    await host.later(3_000);
    expect(host.given).toEqual([]);
    host.listeners = 1;
    await host.later(1_000);
    expect(host.given).toEqual(['1 1: -19']);
  });

  it('about a device of another server is left to it, as long as it lives', async () => {
    const host = new Host();
    host.servers = { other: { is: 'theirs', token: '7' } };
    host.ask(ADDED, 1, 'other/v');
    host.ask(REMOVED, 2, 'other/w');
    await host.later(5_000);
    expect(host.given).toEqual([]);
    host.servers = {};
    await host.later(1_000);
    expect(host.given).toEqual(['1 1: -19', '2 2: 0']);
    expect(host.clock.timerCount).toBe(0);
  });

  it('that the server before has left is answered though there is a new one, which has not heard it', async () => {
    const host = new Host();
    host.servers = { other: { is: 'theirs', token: '7' } };
    host.ask(REMOVED, 2, 'other/w');
    host.servers = { other: { is: 'theirs', token: '8' } };
    await host.later(1_000);
    expect(host.given).toEqual(['2 2: 0']);
  });

  it('is forgotten with the device, with the next event, and with its time', async () => {
    const host = new Host();
    host.servers = { other: { is: 'theirs', token: '7' } };
    for (const id of [1, 2, 3]) host.ask(id === 3 ? RECONFIG : ADDED, id, 'other/v');
    host.gone.add(1);
    host.ask(REMOVED, 2, 'other/v');
    await host.later(11_000);
    host.servers = {};
    await host.later(2_000);
    expect(host.given).toEqual(['2 2: 0']);
    expect(host.clock.timerCount).toBe(0);
  });

  it('is not answered after the end', async () => {
    const host = new Host();
    host.servers = { other: { is: 'theirs', token: '7' } };
    host.ask(ADDED, 1, 'other/v');
    host.answers.stop();
    host.servers = {};
    host.ask(ADDED, 2, 'none/v');
    await host.later(10_000);
    expect(host.given).toEqual([]);
  });
});
