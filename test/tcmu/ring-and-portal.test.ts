import { describe, expect, test } from 'vitest';
import type { LunBackend, LunRequest } from '../../src/block/lun-backend.ts';
import { LogicalUnit } from '../../src/scsi/logical-unit.ts';
import { Nexus } from '../../src/scsi/nexus.ts';
import { ScsiTask, TaskAttribute } from '../../src/scsi/task.ts';
import { CommandRing } from '../../src/tcmu/command-ring.ts';
import { MAILBOX_SIZE, readMailbox, TmrType } from '../../src/tcmu/mailbox.ts';
import { cdb10, MIB, unitOptions } from '../scsi/support/initiator.ts';
import { RamLun } from '../scsi/support/ram-lun.ts';
import { KernelRing } from './kernel-ring.ts';

const TASK_ABORTED = 0x40;
const RESERVATION_CONFLICT = 0x18;

/** A logical unit that LIO's initiators reach by a ring, and another nexus directly. */
function setUp() {
  const lun = new RamLun(MIB);
  const unit = new LogicalUnit(unitOptions(lun));
  const lio = new Nexus('tcmu,i,test', '', 0);
  const other = new Nexus('iqn.test:other,i,0x1', 'iqn.test:t,t,0x0001', 1);
  for (const nexus of [lio, other]) unit.attach(nexus, false);
  const kernel = new KernelRing(4096 - MAILBOX_SIZE, 32);
  const ring = new CommandRing({
    memory: kernel.memory,
    layout: readMailbox(kernel.memory),
    atomics: kernel.atomics,
    unit,
    nexus: lio,
    host: { doorbell: () => kernel.doorbell(), serviceSoon: () => {}, entryRefused: () => expect.unreachable() },
    maxInFlight: 64,
  });
  const submit = (tag: number, opcode: number): void => {
    const write = opcode === 0x2a;
    kernel.submit({
      tag,
      cdb: Uint8Array.from(cdb10(opcode, tag, 1)),
      dataOut: write ? new Uint8Array(512).fill(tag) : null,
      dataInLength: write ? 0 : 512,
    });
    ring.service();
  };
  /** An ORDERED command of the other nexus, prepared and not executed. */
  const barrier = (): ScsiTask => {
    const task = new ScsiTask({ taskDone: () => {}, taskAborted: () => {} }, other);
    task.cdb.set(cdb10(0x28, 0, 1));
    task.cdbLength = 10;
    task.attribute = TaskAttribute.ORDERED;
    task.expectedDataIn = 512;
    expect(unit.prepare(task)).toBe(true);
    return task;
  };
  return { lun, unit, lio, other, kernel, ring, submit, barrier };
}

describe('a ring and a portal at one logical unit', () => {
  test('a reset by the portal ends the commands of the ring, those that have begun and those that wait', () => {
    const { lun, unit, other, kernel, ring, submit, barrier } = setUp();
    submit(1, 0x2a);
    barrier();
    submit(2, 0x2a);
    submit(3, 0x28);
    expect([lun.queue.length, ring.inFlight]).toEqual([1, 3]);
    let ended = 0;
    unit.reset(other, () => ended++);
    ring.service();
    expect([ring.inFlight, ended]).toEqual([1, 0]);
    lun.drain();
    ring.service();
    expect([ring.inFlight, ended, unit.taskSet.count]).toEqual([0, 1, 0]);
    expect(kernel.completions.map(({ tag, status }) => [tag, status])).toEqual([
      [2, TASK_ABORTED],
      [3, TASK_ABORTED],
      [1, TASK_ABORTED],
    ]);
    expect(lun.data[2 * 512]).toBe(0);
    submit(4, 0x28);
    expect(kernel.completions.at(-1)!.status).toBe(2);
    expect([...kernel.completions.at(-1)!.sense.slice(12, 14)]).toEqual([0x29, 3]);
  });

  test('a LUN reset of LIO ends the commands of the portal and resets the unit, which tells the portal’s initiators only', () => {
    const { lun, unit, lio, other, kernel, ring, submit, barrier } = setUp();
    submit(1, 0x2a);
    unit.execute(barrier());
    submit(2, 0x28);
    unit.state.writeCache = false;
    unit.state.nexuses.get(other)!.preventsRemoval = true;
    kernel.abort(TmrType.LUN_RESET, new Set([1, 2]));
    ring.service();
    expect(kernel.completions).toMatchObject([{ tag: 2, aborted: true, status: TASK_ABORTED }]);
    lun.drain();
    ring.service();
    expect(kernel.completions[1]).toMatchObject({ tag: 1, aborted: true, status: TASK_ABORTED });
    expect([unit.taskSet.count, unit.state.writeCache, unit.state.removalPrevented]).toEqual([0, true, false]);
    const attentions = (nexus: Nexus) => unit.pendingAttentions(nexus)?.take();
    expect(attentions(other)).toBe(0x062903);
    expect(attentions(lio)).toBeUndefined();
  });

  test('an abort of LIO ends a write that waits for space in the pool', () => {
    const { lun, kernel, ring, submit } = setUp();
    const full: LunBackend = Object.assign(lun, {
      giveUp(request: LunRequest): void {
        expect(request.givenUp).toBe(true);
        lun.queue.splice(lun.queue.indexOf(request), 1);
        request.owner.requestDone(request, 'ENOSPC');
      },
    });
    submit(1, 0x2a);
    submit(2, 0x2a);
    kernel.abort(TmrType.ABORT_TASK, new Set([1]));
    ring.service();
    expect(kernel.completions).toMatchObject([{ tag: 1, status: TASK_ABORTED }]);
    expect([lun.queue.length, full === lun, lun.data[512]]).toEqual([1, true, 0]);
    lun.drain();
    ring.service();
    expect(kernel.completions[1]).toMatchObject({ tag: 2, status: 0 });
  });

  test('a preempt-and-abort of LIO ends what it names, and resets nothing', () => {
    const { lun, unit, other, kernel, ring, submit } = setUp();
    submit(1, 0x2a);
    submit(2, 0x2a);
    unit.state.writeCache = false;
    kernel.abort(TmrType.LUN_RESET_BY_PREEMPT, new Set([1]));
    ring.service();
    lun.drain();
    ring.service();
    expect(kernel.completions.map(({ tag, status }) => [tag, status])).toEqual([
      [1, TASK_ABORTED],
      [2, 0],
    ]);
    expect([unit.state.writeCache, unit.pendingAttentions(other)]).toEqual([false, null]);
  });

  test('commands of the ring wait for an ordered command of the portal', () => {
    const { lun, unit, kernel, ring, submit, barrier } = setUp();
    const ordered = barrier();
    submit(1, 0x2a);
    expect(lun.queue).toHaveLength(0);
    ordered.dataIn.set(new Uint8Array(512), 0, 512);
    unit.execute(ordered);
    expect(lun.queue).toHaveLength(1);
    lun.completeOne(0);
    expect(lun.queue).toHaveLength(1);
    lun.drain();
    ring.service();
    expect(kernel.completions.map(({ tag, status }) => [tag, status])).toEqual([[1, 0]]);
    expect(lun.data[512]).toBe(1);
  });

  test('what the portal has reserved, the ring may not write', () => {
    const { unit, other, kernel, submit, lun, ring } = setUp();
    const { reservations } = unit.state;
    const registrant = { initiatorPort: other.initiatorPort, targetPort: 1, key: '0000000000000abc' };
    const state = { registrants: [registrant], type: 1, holder: registrant, aptpl: false } as const;
    reservations.request({
      counts: false,
      decide: () => ({ kind: 'change', state, notices: [], preempted: [] }),
      done: () => {},
    });
    submit(1, 0x2a);
    expect(lun.queue).toHaveLength(0);
    submit(2, 0x28);
    lun.drain();
    ring.service();
    expect(kernel.completions.map(({ tag, status }) => [tag, status])).toEqual([
      [1, RESERVATION_CONFLICT],
      [2, 0],
    ]);
  });

  test('what the kernel wants to be stopped ends though its turn has not come', () => {
    const { ring, unit, kernel, submit, barrier } = setUp();
    const ordered = barrier();
    submit(1, 0x2a);
    ring.abortTakenBefore(Number.POSITIVE_INFINITY);
    ring.service();
    expect(kernel.completions.map(({ status }) => status)).toEqual([TASK_ABORTED]);
    unit.withdraw(ordered);
    expect(unit.taskSet.count).toBe(0);
  });
});
