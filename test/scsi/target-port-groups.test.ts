import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { readU16BE, readU32BE } from '../../src/base/bytes.ts';
import {
  type AccessStateChange,
  FixedFrontEnd,
  type FrontEnd,
  type FrontEndWaiter,
  type TargetPortGroup,
} from '../../src/scsi/front-end.ts';
import { Nexus } from '../../src/scsi/nexus.ts';
import { MAX_GROUP_PORTS, MAX_GROUPS, MAX_PORTS } from '../../src/scsi/target-port-groups.ts';
import { checkCondition, GOOD, Initiator, NO_DATA, Pending, type Result } from './support/initiator.ts';

/** Says what a test gives it; asks for patience, or not. */
class FakeFrontEnd extends FixedFrontEnd implements FrontEnd {
  override groups: readonly TargetPortGroup[] = [];
  waiting: FrontEndWaiter | null = null;
  patient = false;
  asked: readonly AccessStateChange[] = [];
  makes = true;

  constructor() {
    super([]);
  }

  override refresh(waiter?: FrontEndWaiter): boolean {
    if (this.patient) this.waiting = waiter ?? null;
    return !this.patient;
  }

  override setStates(changes: readonly AccessStateChange[], done: (made: boolean) => void): void {
    this.asked = changes;
    done(this.makes);
  }
}

function setUp(groups: readonly TargetPortGroup[] = []) {
  const { unit } = new Initiator();
  const frontEnd = new FakeFrontEnd();
  frontEnd.groups = groups;
  const nexus = new Nexus('tcmu,i,vol', '', 0, frontEnd);
  unit.attach(nexus, false);
  const start = (cdb: readonly number[], expectedIn: number, dataOut = NO_DATA): Pending => {
    const pending = new Pending(nexus);
    pending.start(unit, cdb, dataOut, expectedIn);
    return pending;
  };
  const report = (extended: boolean, length: number): Result =>
    start([0xa3, extended ? 0x2a : 0x0a, 0, 0, 0, 0, 0, 0, length >> 8, length & 255, 0, 0], length).result();
  return { frontEnd, start, report };
}

const group: fc.Arbitrary<TargetPortGroup> = fc.record({
  id: fc.nat(0xffff),
  state: fc.constantFrom(0, 1, 2, 3, 4, 0x0e, 0x0f),
  supported: fc.nat(255),
  preferred: fc.boolean(),
  status: fc.nat(2),
  implicit: fc.constant(true),
  explicit: fc.boolean(),
  transitionSeconds: fc.nat(255),
  ports: fc.array(fc.integer({ min: 1, max: 0xffff }), { maxLength: 8 }),
});

/** As an initiator reads it (SPC-4 6.37). */
function decode(data: Uint8Array, extended: boolean): Partial<TargetPortGroup>[] {
  expect(readU32BE(data, 0)).toBe(data.length - 4);
  const groups: Partial<TargetPortGroup>[] = [];
  for (let at = extended ? 8 : 4; at < data.length; ) {
    const count = data[at + 7]!;
    groups.push({
      preferred: (data[at]! & 0x80) !== 0,
      state: data[at]! & 0x0f,
      supported: data[at + 1]!,
      id: readU16BE(data, at + 2),
      status: data[at + 5]!,
      ports: Array.from({ length: count }, (_, i) => readU16BE(data, at + 8 + 4 * i + 2)),
    });
    at += 8 + 4 * count;
  }
  return groups;
}

const reported = ({ preferred, state, supported, id, status, ports }: TargetPortGroup): Partial<TargetPortGroup> => ({
  preferred,
  state,
  supported,
  id,
  status,
  ports,
});

describe('REPORT TARGET PORT GROUPS', () => {
  it('says of any groups what the front end says, in both formats and any length', () => {
    fc.assert(
      fc.property(fc.array(group, { minLength: 1, maxLength: 12 }), fc.nat(600), (groups, length) => {
        const { report } = setUp(groups);
        for (const extended of [false, true]) {
          const { data } = report(extended, 8192);
          expect(decode(data, extended)).toEqual(groups.map(reported));
          if (extended) {
            expect(data[4]).toBe(0x10);
            expect(data[5]).toBe(Math.max(...groups.map(({ transitionSeconds }) => transitionSeconds)));
          }
          expect(report(extended, length).data).toEqual(data.slice(0, length));
        }
      }),
    );
  });

  it('has room for as many groups and ports as there may be', () => {
    const ports = (count: number): number[] => Array.from({ length: count }, (_, i) => i + 1);
    const groups: TargetPortGroup[] = [];
    for (let id = 0, left = MAX_PORTS; id < MAX_GROUPS; id++, left -= Math.min(left, MAX_GROUP_PORTS)) {
      const its = ports(Math.min(left, MAX_GROUP_PORTS));
      groups.push({ ...SOME, id, ports: its });
    }
    expect(decode(setUp(groups).report(true, 8192).data, true)).toEqual(groups.map(reported));
  });

  it('is not there without groups', () => {
    const result = setUp().report(false, 64);
    expect(result).toMatchObject(checkCondition('5/24/00'));
    expect([...result.senseBytes.slice(15, 18)]).toEqual([0xcc, 0, 1]);
  });

  it('waits for a front end that has to look', () => {
    const { frontEnd, start } = setUp();
    frontEnd.patient = true;
    const pending = start([0xa3, 0x0a, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0], 64);
    expect(pending.isDone).toBe(false);
    frontEnd.groups = [SOME];
    frontEnd.waiting!.resume();
    expect(pending.result()).toMatchObject(GOOD);
    expect(decode(pending.result().data, false)).toEqual([reported(SOME)]);
  });
});

const SOME: TargetPortGroup = {
  id: 9,
  state: 0,
  supported: 0xcf,
  preferred: false,
  status: 0,
  implicit: true,
  explicit: true,
  transitionSeconds: 0,
  ports: [],
};

describe('SET TARGET PORT GROUPS', () => {
  it('asks the front end for what any list says, or for nothing when one group cannot be so', () => {
    const change = fc.tuple(fc.constantFrom(9, 10, 11), fc.nat(15));
    fc.assert(
      fc.property(fc.array(change, { minLength: 1, maxLength: 5 }), fc.boolean(), (changes, makes) => {
        const { frontEnd, start } = setUp([SOME, { ...SOME, id: 10, explicit: false, supported: 0x03 }]);
        frontEnd.makes = makes;
        const list = Uint8Array.from([0, 0, 0, 0, ...changes.flatMap(([id, state]) => [state, 0, 0, id])]);
        const result = start([0xa4, 0x0a, 0, 0, 0, 0, 0, 0, 0, list.length, 0, 0], 0, list).result();
        const wrong = changes.findIndex(([id, state]) => id !== 9 || state > 3);
        if (wrong >= 0) {
          expect(result).toMatchObject(checkCondition('5/26/00'));
          const [id] = changes[wrong]!;
          expect(readU16BE(result.senseBytes, 16)).toBe(4 + 4 * wrong + (id === 9 ? 0 : 2));
          expect(frontEnd.asked).toEqual([]);
        } else {
          expect(result).toMatchObject(makes ? GOOD : checkCondition('4/67/0a'));
          expect(frontEnd.asked).toEqual(changes.map(([id, state]) => ({ group: id, state })));
        }
      }),
    );
  });
});
