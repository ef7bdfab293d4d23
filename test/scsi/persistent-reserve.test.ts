import fc from 'fast-check';
import { beforeEach, describe, expect, it } from 'vitest';
import { readU32BE, writeU16BE, writeU32BE } from '../../src/base/bytes.ts';
import type { Nexus } from '../../src/scsi/nexus.ts';
import { MAX_REGISTRANTS, sameNexus } from '../../src/scsi/persistent-state.ts';
import { Status } from '../../src/scsi/spec.ts';
import { UnitAttention } from '../../src/scsi/unit-attention.ts';
import { Cluster, outCdb, outList, PR_OUT, TEST_UNIT_READY, transportId, WRITE_10 } from './support/cluster.ts';
import { checkCondition, GOOD, Initiator, type Result } from './support/initiator.ts';

const A = 'iqn.x:a,i,0x000000000001';
const B = 'iqn.x:b,i,0x000000000002';
const C = 'iqn.x:c,i,0x000000000003';
const WERO = 5;
const CONFLICT: Partial<Result> = { status: Status.RESERVATION_CONFLICT, sense: '' };

let cluster: Cluster;
let a: Nexus;
let b: Nexus;

beforeEach(() => {
  cluster = new Cluster();
  a = cluster.login(A);
  b = cluster.login(B);
});

/** What READ KEYS says, as numbers. */
function keysOf(nexus: Nexus): number[] {
  const data = cluster.in(nexus, 0);
  const keys = [];
  for (let at = 8; at < data.length; at += 8) keys.push(readU32BE(data, at + 4));
  return keys;
}

function registerBoth(aptpl = false): void {
  expect(cluster.out(a, PR_OUT.REGISTER, { newKey: 0xa, aptpl })).toMatchObject(GOOD);
  expect(cluster.out(b, PR_OUT.REGISTER, { newKey: 0xb, aptpl })).toMatchObject(GOOD);
}

describe('PERSISTENT RESERVE OUT', () => {
  it('takes a parameter list of 24 bytes and no other, whatever the service action', () => {
    for (const action of [0, 1, 2, 3, 4, 5, 6]) {
      for (let length = 0; length <= 64; length++) {
        const result = cluster.send(a, outCdb(action, length, WERO), new Uint8Array(length));
        if (length === 24) expect(result.sense, `${action}`).not.toBe('5/1a/00');
        else expect(result, `${action}, ${length}`).toMatchObject(checkCondition('5/1a/00'));
      }
    }
    expect(cluster.send(a, outCdb(PR_OUT.REGISTER, 24), new Uint8Array(8))).toMatchObject(checkCondition('5/1a/00'));
    for (const length of [0x10000, 0x7fffffff, 0xffffffff]) {
      expect(cluster.send(a, outCdb(PR_OUT.REGISTER, length), outList({ newKey: 1 }))).toMatchObject(
        checkCondition('5/1a/00'),
      );
    }
    expect(keysOf(a)).toEqual([]);
  });

  it('takes no TransportIDs but those that lie whole in a parameter list of the length that they say', () => {
    const whole = outList({ newKey: 1, others: [C, B] });
    for (let length = 28; length < whole.length; length++) {
      const result = cluster.send(a, outCdb(PR_OUT.REGISTER, length), whole.subarray(0, length));
      expect(result, `${length}`).toMatchObject(checkCondition('5/26/00'));
    }
    for (let said = 0; said < 2 * whole.length; said++) {
      if (said === whole.length - 28) continue;
      const list = whole.slice();
      writeU32BE(list, 24, said);
      expect(cluster.send(a, outCdb(PR_OUT.REGISTER, list.length), list), `${said}`).toMatchObject(
        checkCondition('5/26/00'),
      );
    }
    for (let said = 0; said <= 0xffff; said += said < 300 ? 1 : 977) {
      if (said === 28) continue;
      const list = whole.slice();
      writeU16BE(list, 30, said);
      expect(cluster.send(a, outCdb(PR_OUT.REGISTER, list.length), list), `${said}`).toMatchObject(
        checkCondition('5/26/00'),
      );
    }
    expect(keysOf(a)).toEqual([]);
    expect(cluster.send(a, outCdb(PR_OUT.REGISTER, whole.length), whole)).toMatchObject(GOOD);
    expect(keysOf(a)).toEqual([1, 1, 1]);
  });

  it('takes no TransportIDs of other protocols and shapes', () => {
    const good = transportId(C);
    const bad: Uint8Array[] = [];
    for (const [at, value] of [
      [0, 0x40],
      [0, 0x85],
      [0, 0xc5],
      [4, 0],
      [good.length - 1, 0x41],
      [10, 0xff],
    ] as const) {
      const id = good.slice();
      id[at] = value;
      bad.push(id);
    }
    bad.push(transportId(`iqn.x:${'n'.repeat(250)},i,0x1`));
    // 230 bytes, which are 887 in the form that is compared.
    bad.push(transportId(`iqn.x:${'\u3300'.repeat(73)},i,0x1`));
    bad.push(Uint8Array.from(transportId(C), (byte, i) => (i < 4 || byte !== 0 ? byte : 0x20)));
    const noIsid = transportId('iqn.x:c-without-an-isid');
    noIsid[0] = 0x45;
    bad.push(noIsid);
    for (const id of bad) {
      const list = new Uint8Array(28 + id.length);
      list.set(outList({ newKey: 1 }));
      list[20] = 8;
      writeU32BE(list, 24, id.length);
      list.set(id, 28);
      expect(cluster.send(a, outCdb(PR_OUT.REGISTER, list.length), list)).toMatchObject(checkCondition('5/26/00'));
    }
    expect(keysOf(a)).toEqual([]);
  });

  it('registers up to 256 nexuses and refuses more, all or none', () => {
    const ports = (from: number, count: number): string[] =>
      Array.from({ length: count }, (_, i) => `iqn.x:c,i,0x${(from + i).toString(16).padStart(12, '0')}`);
    expect(cluster.out(a, PR_OUT.REGISTER, { newKey: 1, others: ports(0, MAX_REGISTRANTS) })).toMatchObject(
      checkCondition('5/55/04'),
    );
    expect(keysOf(a)).toEqual([]);
    expect(cluster.out(a, PR_OUT.REGISTER, { newKey: 1, others: ports(0, MAX_REGISTRANTS - 1) })).toMatchObject(GOOD);
    expect(cluster.out(b, PR_OUT.REGISTER, { newKey: 1 })).toMatchObject(checkCondition('5/55/04'));
    expect(keysOf(a)).toHaveLength(MAX_REGISTRANTS);
    expect(cluster.out(b, PR_OUT.REGISTER, { newKey: 1, others: ports(0, 300) })).toMatchObject(
      checkCondition('5/26/00'),
    );
    expect(readU32BE(cluster.in(a, 3, 8), 4)).toBe(MAX_REGISTRANTS * (24 + 4 + 28));
  });

  it('with a TransportID without an ISID registers all ports of that initiator that are known, and refuses one that is not', () => {
    cluster.login('iqn.x:c,i,0x000000000004');
    cluster.login('iqn.x:c,i,0x000000000005');
    cluster.login('iqn.x:cc,i,0x000000000005');
    expect(cluster.out(a, PR_OUT.REGISTER, { newKey: 7, others: ['iqn.x:c'] })).toMatchObject(GOOD);
    expect(keysOf(a)).toEqual([7, 7, 7]);
    expect(cluster.out(b, PR_OUT.REGISTER, { newKey: 7, others: ['iqn.x:unknown'] })).toMatchObject(
      checkCondition('5/26/00'),
    );
    expect(keysOf(a)).toEqual([7, 7, 7]);
  });

  it('knows an initiator port whatever way its TransportID spells it', () => {
    expect(cluster.out(a, PR_OUT.REGISTER, { newKey: 7, others: ['IQN.X:B,i,0x2'] })).toMatchObject(GOOD);
    expect(cluster.out(b, PR_OUT.RESERVE, { key: 7, type: WERO })).toMatchObject(GOOD);
  });

  it('points at what is wrong in the CDB', () => {
    registerBoth();
    for (const fields of [
      { key: 0xa, type: 2 },
      { key: 0xa, type: WERO, scope: 1 },
    ]) {
      const result = cluster.out(a, PR_OUT.RESERVE, fields);
      expect(result).toMatchObject(checkCondition('5/24/00'));
      expect([...result.senseBytes.slice(15, 18)]).toEqual([0xc0, 0, 2]);
    }
  });

  it('keeps the registration of a nexus that logs out and in again', () => {
    registerBoth();
    cluster.out(a, PR_OUT.RESERVE, { key: 0xa, type: WERO });
    cluster.logout(a);
    a = cluster.login(A);
    expect(cluster.send(a, WRITE_10, new Uint8Array(512))).toMatchObject(GOOD);
    expect(cluster.out(a, PR_OUT.RELEASE, { key: 0xa, type: WERO })).toMatchObject(GOOD);
  });

  it('tells a registrant that was logged out what happened, behind POWER ON OCCURRED', () => {
    registerBoth();
    cluster.logout(b);
    expect(cluster.out(a, PR_OUT.PREEMPT, { key: 0xa, newKey: 0xb, type: WERO })).toMatchObject(GOOD);
    b = cluster.login(B);
    expect(cluster.attentions(b)).toEqual(['2a/05']);
    cluster.logout(b);
    b = cluster.login(B);
    expect(cluster.attentions(b)).toEqual([]);
  });

  it('tells a registrant that logs out before it looks after its next login', () => {
    registerBoth();
    cluster.out(a, PR_OUT.CLEAR, { key: 0xa });
    cluster.logout(b);
    b = cluster.login(B);
    expect(cluster.attentions(b)).toEqual(['2a/03']);
  });

  it('keeps what absent registrants have to be told for a bounded number of them', () => {
    for (let round = 0; round < 5; round++) {
      const others = Array.from(
        { length: 200 },
        (_, i) => `iqn.x:r${round},i,0x${(i + 1).toString(16).padStart(12, '0')}`,
      );
      cluster.out(a, PR_OUT.REGISTER, { newKey: 1, others });
      expect(cluster.out(a, PR_OUT.CLEAR, { key: 1 })).toMatchObject(GOOD);
    }
    expect(cluster.attentions(cluster.login('iqn.x:r0,i,0x000000000001'))).toEqual([]);
    expect(cluster.attentions(cluster.login('iqn.x:r4,i,0x0000000000c8'))).toEqual(['2a/03']);
  });
});

describe('registrations', () => {
  it('make sense whatever bytes come as parameter lists', () => {
    const mutation = fc.record({ at: fc.nat({ max: 120 }), byte: fc.integer({ min: 0, max: 255 }) });
    const list = fc
      .record({
        key: fc.nat({ max: 2 }),
        newKey: fc.nat({ max: 2 }),
        aptpl: fc.boolean(),
        allPorts: fc.boolean(),
        others: fc.option(fc.uniqueArray(fc.constantFrom(A, B, C, 'iqn.x:b'), { maxLength: 3 }), { nil: undefined }),
      })
      .map(outList);
    const step = fc.record({
      list,
      mutations: fc.array(mutation, { maxLength: 3 }),
      cut: fc.oneof(fc.constant(0), fc.nat({ max: 30 })),
      action: fc.nat({ max: 8 }),
      type: fc.nat({ max: 15 }),
      byA: fc.boolean(),
    });
    fc.assert(
      fc.property(fc.array(step, { minLength: 5, maxLength: 40 }), (steps) => {
        const fuzzed = new Cluster();
        const nexuses = [fuzzed.login(A), fuzzed.login(B, 2)];
        for (const { list: whole, mutations, cut, action, type, byA } of steps) {
          const bytes = whole.slice(0, whole.length - cut);
          for (const { at, byte } of mutations) if (at < bytes.length) bytes[at] = byte;
          fuzzed.send(nexuses[byA ? 0 : 1]!, outCdb(action, bytes.length, type), bytes);
          const { registrants, type: held, holder } = fuzzed.unit.state.reservations.state;
          expect(registrants.length).toBeLessThanOrEqual(MAX_REGISTRANTS);
          for (const { key, initiatorPort, targetPort } of registrants) {
            expect(key).toMatch(/^(?!0{16})[0-9a-f]{16}$/);
            expect(initiatorPort).toMatch(/^.+,i,0x[0-9a-f]{12}$/s);
            expect([1, 2]).toContain(targetPort);
          }
          if (held === null) expect(holder).toBeNull();
          else if (held >= 7) expect([holder, registrants.length > 0]).toEqual([null, true]);
          else expect(registrants.some((one) => sameNexus(one, holder!))).toBe(true);
          for (const nexus of nexuses) fuzzed.attentions(nexus);
        }
      }),
      { numRuns: 200 },
    );
  });
});

describe('APTPL', () => {
  it('keeps registrations and reservation across a restart, where the last registration asked for it', () => {
    registerBoth(true);
    cluster.out(a, PR_OUT.RESERVE, { key: 0xa, type: WERO });
    cluster.restart();
    [a, b] = [cluster.login(A), cluster.login(B)];
    const stranger = cluster.login(C);
    expect(keysOf(a)).toEqual([0xa, 0xb]);
    expect(cluster.send(stranger, WRITE_10, new Uint8Array(512))).toMatchObject(CONFLICT);
    expect(cluster.send(b, WRITE_10, new Uint8Array(512))).toMatchObject(GOOD);
    cluster.out(b, PR_OUT.REGISTER, { key: 0xb, newKey: 0xc });
    cluster.restart();
    a = cluster.login(A);
    expect(keysOf(a)).toEqual([]);
    expect(cluster.send(a, WRITE_10, new Uint8Array(512))).toMatchObject(GOOD);
  });

  it('is refused where nothing can be kept', () => {
    const volatile = new Cluster({ reservations: undefined as never });
    const nexus = volatile.login(A);
    expect(volatile.out(nexus, PR_OUT.REGISTER, { newKey: 1, aptpl: true })).toMatchObject(checkCondition('5/26/00'));
    expect(volatile.in(nexus, 2)[2]! & 1).toBe(0);
    expect(volatile.out(nexus, PR_OUT.REGISTER, { newKey: 1 })).toMatchObject(GOOD);
    expect(cluster.in(a, 2)[2]! & 1).toBe(1);
  });

  it('answers when it is durable, and changes nothing before', () => {
    const { store } = cluster;
    store.slow = true;
    const list = outList({ newKey: 1, aptpl: true });
    const first = cluster.start(a, outCdb(PR_OUT.REGISTER, 24), list);
    const second = cluster.start(b, outCdb(PR_OUT.REGISTER, 24), list);
    expect([first.isDone, second.isDone, store.held.length]).toEqual([false, false, 1]);
    expect(keysOf(a)).toEqual([]);
    store.held.shift()!();
    expect([first.isDone, second.isDone]).toEqual([true, false]);
    expect(first.result()).toMatchObject(GOOD);
    expect(keysOf(a)).toEqual([1]);
    store.held.shift()!();
    expect(second.result()).toMatchObject(GOOD);
    expect(store.saved?.registrants.map(({ key }) => key)).toEqual(['0000000000000001', '0000000000000001']);
  });

  it('fails the command that could not be kept, and changes nothing', () => {
    registerBoth(true);
    cluster.store.failure = new Error('no space');
    const generation = readU32BE(cluster.in(a, 0), 0);
    expect(cluster.out(a, PR_OUT.PREEMPT, { key: 0xa, newKey: 0xb, type: WERO })).toMatchObject(
      checkCondition('4/44/00'),
    );
    expect(keysOf(b)).toEqual([0xa, 0xb]);
    expect(readU32BE(cluster.in(a, 0), 0)).toBe(generation);
    expect(cluster.attentions(b)).toEqual([]);
    expect(cluster.send(b, TEST_UNIT_READY)).toMatchObject(GOOD);
    cluster.store.failure = null;
    expect(cluster.out(a, PR_OUT.CLEAR, { key: 0xa })).toMatchObject(GOOD);
  });

  it('does not do what was aborted while it waited for its turn', () => {
    cluster.store.slow = true;
    const list = outList({ newKey: 1, aptpl: true });
    const first = cluster.start(a, outCdb(PR_OUT.REGISTER, 24), list);
    const second = cluster.start(b, outCdb(PR_OUT.REGISTER, 24), list);
    let ended = false;
    cluster.unit.abortTaskSet(b, () => {
      ended = true;
    });
    cluster.store.held.shift()!();
    expect(first.result()).toMatchObject(GOOD);
    expect([second.result().status, ended]).toEqual([Status.TASK_ABORTED, true]);
    expect(keysOf(a)).toEqual([1]);
  });

  it('does not write what did not change', () => {
    registerBoth(true);
    cluster.out(a, PR_OUT.RESERVE, { key: 0xa, type: WERO });
    const before = cluster.store.saves;
    expect(cluster.out(a, PR_OUT.RESERVE, { key: 0xa, type: WERO })).toMatchObject(GOOD);
    expect(cluster.out(b, PR_OUT.RESERVE, { key: 0xb, type: WERO })).toMatchObject(CONFLICT);
    expect(cluster.out(a, PR_OUT.REGISTER, { key: 0xa, newKey: 0xa, aptpl: true })).toMatchObject(GOOD);
    expect(cluster.store.saves).toBe(before);
  });
});

describe('PREEMPT AND ABORT', () => {
  it('ends when the tasks of the preempted nexus have, and only those', () => {
    registerBoth();
    const victim = cluster.start(b, WRITE_10, new Uint8Array(512).fill(0xbb));
    const own = cluster.start(a, WRITE_10, new Uint8Array(512).fill(0xaa));
    const preempt = cluster.start(a, outCdb(PR_OUT.PREEMPT_AND_ABORT, 24, WERO), outList({ key: 0xa, newKey: 0xb }));
    expect([victim.task.aborted, own.task.aborted, preempt.isDone]).toEqual([true, false, false]);
    cluster.lun.drain();
    expect(preempt.result()).toMatchObject(GOOD);
    expect(own.result()).toMatchObject(GOOD);
    expect(victim.result().status).toBe(Status.TASK_ABORTED);
    expect(cluster.attentions(b)).toEqual(['2a/05']);
    expect(cluster.attentions(a)).toEqual([]);
  });

  it('ends at once where there is nothing to abort, as PREEMPT does', () => {
    registerBoth();
    expect(cluster.out(a, PR_OUT.PREEMPT_AND_ABORT, { key: 0xa, newKey: 0xb, type: WERO })).toMatchObject(GOOD);
    expect(cluster.attentions(b)).toEqual(['2a/05']);
    expect(keysOf(a)).toEqual([0xa]);
  });
});

describe('a fenced node', () => {
  it('does not write what it had sent the command for before', () => {
    registerBoth();
    cluster.out(a, PR_OUT.RESERVE, { key: 0xa, type: WERO });
    const { target } = cluster;
    const late = cluster.start(b, WRITE_10, new Uint8Array(512).fill(0xbb));
    cluster.lun.drain();
    expect(late.result()).toMatchObject(GOOD);
    // Prepared before, executed after: its data was on the way.
    const { task } = late;
    task.cdb.set(WRITE_10);
    expect(target.prepare(task, 0)).toBe(true);
    expect(cluster.out(a, PR_OUT.PREEMPT, { key: 0xa, newKey: 0xb, type: WERO })).toMatchObject(GOOD);
    cluster.lun.data.fill(0);
    target.execute(task);
    cluster.lun.drain();
    expect(task.status).toBe(Status.RESERVATION_CONFLICT);
    expect(cluster.lun.data.every((byte) => byte === 0)).toBe(true);
  });
});

describe('RESERVE and RELEASE', () => {
  it.each([
    ['(6)', [0x16, 0, 0, 0, 0, 0], [0x17, 0, 0, 0, 0, 0]],
    ['(10)', [0x56, 0, 0, 0, 0, 0, 0, 0, 0, 0], [0x57, 0, 0, 0, 0, 0, 0, 0, 0, 0]],
  ] as const)(
    '%s reserve for one nexus, again and again, and end with its session or a reset',
    (_, reserve, release) => {
      for (let i = 0; i < 2; i++) expect(cluster.send(a, reserve)).toMatchObject(GOOD);
      expect(cluster.send(b, reserve)).toMatchObject(CONFLICT);
      expect(cluster.send(b, release)).toMatchObject(GOOD);
      expect(cluster.send(b, TEST_UNIT_READY)).toMatchObject(CONFLICT);
      expect(cluster.send(a, release)).toMatchObject(GOOD);
      expect(cluster.send(b, reserve)).toMatchObject(GOOD);
      cluster.logout(b);
      expect(cluster.send(a, reserve)).toMatchObject(GOOD);
      b = cluster.login(B);
      cluster.unit.reset(null, () => {});
      expect(cluster.attentions(b)).toEqual(['29/03']);
      expect(cluster.send(b, reserve)).toMatchObject(GOOD);
    },
  );

  it('conflict with registrations, and PERSISTENT RESERVE with them, also of the same nexus', () => {
    cluster.send(a, [0x16, 0, 0, 0, 0, 0]);
    expect(cluster.out(a, PR_OUT.REGISTER, { newKey: 1 })).toMatchObject(CONFLICT);
    expect(cluster.send(a, [0x5e, 0, 0, 0, 0, 0, 0, 0, 8, 0])).toMatchObject(CONFLICT);
    cluster.send(a, [0x17, 0, 0, 0, 0, 0]);
    registerBoth();
    for (const opcode of [0x16, 0x17]) expect(cluster.send(a, [opcode, 0, 0, 0, 0, 0])).toMatchObject(CONFLICT);
  });

  it('conflict while a registration is on its way to the disk', () => {
    cluster.store.slow = true;
    const pending = cluster.start(a, outCdb(PR_OUT.REGISTER, 24), outList({ newKey: 1, aptpl: true }));
    expect(cluster.send(b, [0x16, 0, 0, 0, 0, 0])).toMatchObject(CONFLICT);
    cluster.store.held.shift()!();
    expect(pending.result()).toMatchObject(GOOD);
  });

  it('have neither third parties nor extents', () => {
    for (const cdb of [
      [0x16, 0x01, 0, 0, 0, 0],
      [0x16, 0x10, 0, 0, 0, 0],
      [0x56, 0x02, 0, 0, 0, 0, 0, 0, 8, 0],
    ]) {
      expect(cluster.send(a, cdb)).toMatchObject(checkCondition('5/24/00'));
    }
    // A SCSI-2 initiator puts its LUN there.
    expect(cluster.send(a, [0x16, 0x20, 0, 0, 0, 0])).toMatchObject(GOOD);
  });
});

describe('under LIO', () => {
  it('the commands of reservations are not there: they are the kernel’s', () => {
    const initiator = new Initiator();
    for (const opcode of [0x16, 0x17, 0x56, 0x57, 0x5e, 0x5f]) {
      expect(initiator.in([opcode, 0, 0, 0, 0, 0, 0, 0, 0, 0], 8)).toMatchObject(checkCondition('5/20/00'));
    }
  });

  it('a reservation that was made through the portal holds', () => {
    registerBoth();
    cluster.out(a, PR_OUT.RESERVE, { key: 0xa, type: 3 });
    const kernel = cluster.login('');
    cluster.unit.raiseAttention(kernel, UnitAttention.CAPACITY_CHANGED);
    expect(cluster.send(kernel, WRITE_10, new Uint8Array(512))).toMatchObject(CONFLICT);
  });
});
