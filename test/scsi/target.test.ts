import { beforeEach, describe, expect, it } from 'vitest';
import { LogicalUnit } from '../../src/scsi/logical-unit.ts';
import { NO_LUN } from '../../src/scsi/lun.ts';
import { Nexus } from '../../src/scsi/nexus.ts';
import { Target } from '../../src/scsi/target.ts';
import type { ScsiTask } from '../../src/scsi/task.ts';
import {
  checkCondition,
  GOOD,
  Initiator,
  NO_DATA,
  Pending,
  type Result,
  senseText,
  unitOptions,
} from './support/initiator.ts';
import { RamLun } from './support/ram-lun.ts';

const TEST_UNIT_READY = [0, 0, 0, 0, 0, 0];
const REPORT_LUNS = [0xa0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0];
const unit = (): LogicalUnit => new LogicalUnit(unitOptions(new RamLun(65536)));

describe('a target', () => {
  let target: Target;
  let nexus: Nexus;
  let pending: Pending;

  const send = (lun: number, cdb: number[], expectedIn = 0): Result => {
    pending.start(
      { prepare: (task: ScsiTask) => target.prepare(task, lun), execute: (task: ScsiTask) => target.execute(task) },
      cdb,
      NO_DATA,
      expectedIn,
    );
    return pending.result();
  };

  beforeEach(() => {
    target = new Target('iqn.2026-01.test:target');
    nexus = new Nexus('iqn.2026-01.test:initiator,i,0x1', 'iqn.2026-01.test:target,t,0x0001', 1);
    pending = new Pending(nexus);
    target.attach(nexus);
  });

  it('passes a task to its LUN', () => {
    target.setLun(3, unit());
    expect(send(3, TEST_UNIT_READY)).toMatchObject(checkCondition('6/29/00'));
    expect(send(3, TEST_UNIT_READY)).toMatchObject(checkCondition('6/3f/0e'));
    expect(send(3, TEST_UNIT_READY)).toMatchObject(GOOD);
    expect(send(3, [0x12, 0, 0, 0, 36, 0], 36).data[0]).toBe(0);
  });

  it.each([0, 4, 0x3fff, NO_LUN])('answers for LUN %i, which has no unit', (lun) => {
    target.setLun(3, unit());
    const inquiry = send(lun, [0x12, 0, 0, 0, 255, 0], 255);
    expect(inquiry).toMatchObject(GOOD);
    expect(inquiry.data[0]).toBe(0x7f);
    expect(send(lun, [0x12, 1, 0, 0, 255, 0], 255)).toMatchObject(checkCondition('5/24/00'));
    expect(send(lun, TEST_UNIT_READY)).toMatchObject(checkCondition('5/25/00'));
    expect(send(lun, [0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0], 512)).toMatchObject({
      ...checkCondition('5/25/00'),
      residual: 512,
    });
    expect(senseText(send(lun, [3, 0, 0, 0, 18, 0], 18).data)).toBe('5/25/00');
    expect([...send(lun, REPORT_LUNS, 64).data]).toEqual([0, 0, 0, 8, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0]);
  });

  it('reports its LUNs in order, whichever way they came', () => {
    for (const lun of [300, 2, 0, 255, 256]) target.setLun(lun, unit());
    const { data } = send(0, REPORT_LUNS, 65535);
    const luns: string[] = [];
    for (let at = 8; at < data.length; at += 8) luns.push(Buffer.from(data.slice(at, at + 8)).toString('hex'));
    expect(luns.map((text) => text.slice(0, 4))).toEqual(['0000', '0002', '00ff', '4100', '412c']);
    expect(luns.every((text) => text.endsWith('000000000000'))).toBe(true);
  });

  it('tells every LUN of a nexus that the inventory changed; REPORT LUNS takes it back everywhere', () => {
    for (const lun of [0, 1]) target.setLun(lun, unit());
    for (const lun of [0, 1]) {
      while (send(lun, TEST_UNIT_READY).status !== 0);
    }
    target.setLun(2, unit());
    expect(send(1, TEST_UNIT_READY)).toMatchObject(checkCondition('6/3f/0e'));
    target.removeLun(2);
    expect(send(0, REPORT_LUNS, 255)).toMatchObject(GOOD);
    expect(send(0, TEST_UNIT_READY)).toMatchObject(GOOD);
    expect(send(1, TEST_UNIT_READY)).toMatchObject(GOOD);
    expect(send(2, TEST_UNIT_READY)).toMatchObject(checkCondition('5/25/00'));
  });

  it('keeps nothing of a nexus that was detached or of a LUN that was removed', () => {
    const [a, b] = [unit(), unit()];
    target.setLun(0, a);
    target.setLun(1, b);
    expect([a, b].map(({ state }) => state.nexuses.size)).toEqual([1, 1]);
    target.removeLun(1);
    target.removeLun(1);
    expect(b.state.nexuses.size).toBe(0);
    target.detach(nexus);
    expect(a.state.nexuses.size).toBe(0);
    target.setLun(1, b);
    expect(b.state.nexuses.size).toBe(0);
  });

  it('resets all its units', () => {
    for (const lun of [0, 1]) target.setLun(lun, unit());
    for (const lun of [0, 1]) {
      while (send(lun, TEST_UNIT_READY).status !== 0);
    }
    target.reset(nexus, () => {});
    for (const lun of [0, 1]) expect(send(lun, TEST_UNIT_READY)).toMatchObject(checkCondition('6/29/02'));
  });

  it('has one target port group that is always active, and says so in INQUIRY', () => {
    target.setLun(0, unit());
    while (send(0, TEST_UNIT_READY).status !== 0);
    expect(send(0, [0x12, 0, 0, 0, 36, 0], 36).data[5]).toBe(0x38);
    const groups = (format: number, length: number): number[] => [
      ...send(0, [0xa3, 0x0a | format, 0, 0, 0, 0, 0, 0, 0, length, 0, 0], length).data,
    ];
    expect(groups(0, 64)).toEqual([0, 0, 0, 12, 0, 1, 0x74, 0x68, 0, 0, 0, 1, 0, 0, 0, 1]);
    expect(groups(0x20, 64)).toEqual([0, 0, 0, 16, 0x10, 0, 0, 0, 0, 1, 0x74, 0x68, 0, 0, 0, 1, 0, 0, 0, 1]);
    expect(groups(0, 8)).toEqual([0, 0, 0, 12, 0, 1, 0x74, 0x68]);
    expect(send(0, [0xa3, 0x4a, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0], 64)).toMatchObject(checkCondition('5/24/00'));
    const identification = Buffer.from(send(0, [0x12, 1, 0x83, 0, 255, 0], 255).data).toString('hex');
    expect(identification).toContain('5195000400007468');
    expect(identification).toContain('5194000400000001');
  });

  it('takes the state that its target port group has, and no other', () => {
    target.setLun(0, unit());
    while (send(0, TEST_UNIT_READY).status !== 0);
    const set = (...list: number[]): Result => {
      pending.start(
        { prepare: (task) => target.prepare(task, 0), execute: (task) => target.execute(task) },
        stpg(list.length),
        Uint8Array.from(list),
        0,
      );
      return pending.result();
    };
    const stpg = (length: number): number[] => [0xa4, 0x0a, 0, 0, 0, 0, 0, 0, 0, length, 0, 0];
    expect(set()).toMatchObject(GOOD);
    expect(set(0, 0, 0, 0, 0, 0, 0x74, 0x68)).toMatchObject(GOOD);
    expect(set(0, 0, 0, 0, 0, 0, 0x74, 0x68, 0, 0, 0x74, 0x68)).toMatchObject(GOOD);
    for (const state of [1, 2, 3, 0x0e]) {
      expect(set(0, 0, 0, 0, state, 0, 0x74, 0x68)).toMatchObject(checkCondition('5/26/00'));
    }
    expect(set(0, 0, 0, 0, 0, 0, 0, 2)).toMatchObject(checkCondition('5/26/00'));
    expect(set(0, 0, 0, 0)).toMatchObject(checkCondition('5/1a/00'));
    expect(set(0, 0, 0, 0, 0, 0)).toMatchObject(checkCondition('5/1a/00'));
  });

  it('names its ports in VPD page 88h, and one policy for all mode pages in 87h', () => {
    target.setLun(0, unit());
    while (send(0, TEST_UNIT_READY).status !== 0);
    const ports = Buffer.from(send(0, [0x12, 1, 0x88, 0, 255, 0], 255).data);
    expect(ports.readUInt16BE(2)).toBe(ports.length - 4);
    expect(ports.readUInt16BE(6)).toBe(1);
    expect(ports.readUInt16BE(14)).toBe(ports.length - 16);
    expect(ports.subarray(16, 20).toString('hex')).toMatch(/^539800/);
    expect(ports.subarray(20).toString().replace(/\0+$/, '')).toBe(nexus.targetPort);
    expect([...send(0, [0x12, 1, 0x87, 0, 255, 0], 255).data]).toEqual([0, 0x87, 0, 4, 0x3f, 0xff, 0, 0]);
    expect([...send(0, [0x12, 1, 0, 0, 255, 0], 255).data.slice(4)]).toContain(0x88);
    pending = new Pending(new Initiator().nexus);
    pending.start(unit(), [0x12, 1, 0x88, 0, 255, 0], NO_DATA, 255);
    expect(pending.result()).toMatchObject(checkCondition('5/24/00'));
  });

  it('leaves target ports to LIO where a unit stands alone', () => {
    const alone = unit();
    pending = new Pending(new Initiator().nexus);
    pending.start(alone, [0xa3, 0x0a, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0], NO_DATA, 64);
    expect(pending.result()).toMatchObject(checkCondition('5/24/00'));
    pending.start(alone, [0x12, 0, 0, 0, 36, 0], NO_DATA, 36);
    expect(pending.result().data[5]).toBe(0x08);
  });

  it('uses one task for different LUNs one after the other', () => {
    const small = new LogicalUnit(unitOptions(new RamLun(8192)));
    target.setLun(0, unit());
    target.setLun(1, small);
    for (const lun of [0, 1]) {
      while (send(lun, TEST_UNIT_READY).status !== 0);
    }
    const capacity = [0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    expect([0, 1, 5, 0].map((lun) => send(lun, capacity, 8).data[3])).toEqual([127, 15, undefined, 127]);
  });
});
