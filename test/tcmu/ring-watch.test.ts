import { describe, expect, test } from 'vitest';
import { Nexus } from '../../src/scsi/nexus.ts';
import { CommandRing } from '../../src/tcmu/command-ring.ts';
import * as mb from '../../src/tcmu/mailbox.ts';
import { RingWatch } from '../../src/tcmu/ring-watch.ts';
import { TestClock } from '../support/test-clock.ts';
import { FakeUnit, Kind, makeCdb, pattern } from './fake-unit.ts';
import { KernelRing } from './kernel-ring.ts';

const nexus = new Nexus('tcmu', 'tcmu', 1);

function setUp(maxInFlight = 64) {
  const kernel = new KernelRing(4096 - mb.MAILBOX_SIZE, 32);
  const unit = new FakeUnit();
  const clock = new TestClock();
  const ring = new CommandRing({
    memory: kernel.memory,
    layout: mb.readMailbox(kernel.memory),
    atomics: kernel.atomics,
    unit,
    nexus,
    host: { doorbell: () => kernel.doorbell(), serviceSoon: () => {}, entryRefused: () => {} },
    maxInFlight,
  });
  const late: [number, number][] = [];
  const watch = new RingWatch(
    ring,
    clock,
    () => watch.service(),
    (commands, waitedMs) => late.push([commands, waitedMs]),
  );
  return { kernel, unit, clock, ring, watch, late };
}

const write = (tag: number) => ({
  tag,
  cdb: makeCdb(Kind.WRITE, tag, 4096),
  dataOut: pattern(tag, 4096),
  dataInLength: 0,
});
const read = (tag: number) => ({ tag, cdb: makeCdb(Kind.READ, tag, 4096), dataOut: null, dataInLength: 4096 });

/** The process does not run for so long: neither timers nor events. */
function stopFor(clock: TestClock, watch: RingWatch, ms: number): void {
  watch.stop();
  clock.advance(ms);
  watch.start();
}

describe('the watch over a ring', () => {
  test('what waited while the process was stopped is answered BUSY and not executed, and shows no stale bytes', () => {
    const { kernel, unit, clock, watch, late } = setUp();
    watch.start();
    clock.advance(3_600_000);
    kernel.submit(write(1));
    kernel.submit(read(2));
    stopFor(clock, watch, 5_100);
    watch.service();
    expect(unit.pending).toHaveLength(0);
    expect(kernel.completions.map(({ tag, status }) => [tag, status])).toEqual([
      [1, 8],
      [2, 8],
    ]);
    expect(kernel.completions[1]!.data.every((byte) => byte === 0)).toBe(true);
    expect(late).toHaveLength(1);
    expect(late[0]![0]).toBe(2);

    kernel.submit(write(3));
    watch.service();
    unit.complete(0);
    watch.service();
    expect(kernel.completions.at(-1)).toMatchObject({ tag: 3, status: 0 });
    expect(kernel.broken).toBeNull();
  });

  test('a ring that was empty for an hour does not make its next command late', () => {
    const { kernel, unit, clock, watch, late } = setUp();
    watch.start();
    clock.advance(3_600_000);
    kernel.submit(write(1));
    watch.service();
    expect(unit.pending).toHaveLength(1);
    expect(late).toEqual([]);
  });

  test('a pause of four seconds is none', () => {
    const { kernel, unit, clock, watch } = setUp();
    watch.start();
    clock.advance(10_000);
    kernel.submit(write(1));
    stopFor(clock, watch, 4_000);
    watch.service();
    expect(unit.pending).toHaveLength(1);
  });

  test('what waits behind the limit of commands in flight is answered BUSY after five seconds', () => {
    const { kernel, unit, clock, watch } = setUp(2);
    watch.start();
    for (let tag = 1; tag <= 3; tag++) kernel.submit(write(tag));
    watch.service();
    expect(unit.pending).toHaveLength(2);
    clock.advance(4_900);
    expect(kernel.completions).toEqual([]);
    clock.advance(2_000);
    expect(kernel.completions.map(({ tag, status }) => [tag, status])).toEqual([[3, 8]]);
    expect(unit.pending).toHaveLength(2);
  });

  test("what takes longer than the kernel's time-out allows is aborted before", () => {
    const { kernel, unit, clock, watch } = setUp();
    watch.timeOutMs = 30_000;
    watch.start();
    kernel.submit(write(1));
    watch.service();
    clock.advance(20_000);
    kernel.submit(write(2));
    watch.service();
    clock.advance(7_000);
    expect(unit.pending.map(({ aborted }) => aborted)).toEqual([false, false]);
    clock.advance(3_000 - 1);
    expect(unit.pending.map(({ aborted }) => aborted)).toEqual([true, false]);
  });

  test('a short time-out makes it stricter: nothing is executed that the kernel may have given up', () => {
    const { kernel, unit, clock, watch } = setUp();
    watch.timeOutMs = 3_000;
    watch.start();
    clock.advance(60_000);
    kernel.submit(write(1));
    stopFor(clock, watch, 1_600);
    watch.service();
    expect(unit.pending).toHaveLength(0);
    kernel.submit(write(2));
    watch.service();
    clock.advance(2_000);
    expect(unit.pending.map(({ aborted }) => aborted)).toEqual([true]);
  });
});
