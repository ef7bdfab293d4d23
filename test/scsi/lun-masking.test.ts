import { beforeEach, describe, expect, it } from 'vitest';
import { Access } from '../../src/scsi/command.ts';
import { LogicalUnit } from '../../src/scsi/logical-unit.ts';
import { Nexus } from '../../src/scsi/nexus.ts';
import { Target } from '../../src/scsi/target.ts';
import type { ScsiTask } from '../../src/scsi/task.ts';
import { checkCondition, GOOD, NO_DATA, Pending, type Result, unitOptions } from './support/initiator.ts';
import { RamLun } from './support/ram-lun.ts';

const TEST_UNIT_READY = [0, 0, 0, 0, 0, 0];
const REPORT_LUNS = [0xa0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0];
const WRITE_10 = [0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0];
const MODE_SENSE_6 = [0x1a, 0, 0x3f, 0, 255, 0];

const naaOf = (lun: number): Uint8Array =>
  Buffer.from(`600140500000000000000000000000${lun.toString(16).padStart(2, '0')}`, 'hex');

describe('LUN masking', () => {
  let target: Target;
  let rights: Map<number, Access>;
  let guest: Nexus;
  let host: Nexus;
  let media: RamLun[];

  const unit = (lun: number): LogicalUnit => {
    const medium = new RamLun(65536);
    media.push(medium);
    return new LogicalUnit({ ...unitOptions(medium), naa: naaOf(lun) });
  };

  const nexusOf = (name: string): Nexus =>
    new Nexus(`iqn.2026-01.test:${name},i,0x1`, 'iqn.2026-01.test:t,t,0x0001', 1);

  const send = (nexus: Nexus, lun: number, cdb: number[], expectedIn = 0, dataOut: Uint8Array = NO_DATA): Result => {
    const pending = new Pending(nexus);
    const server = {
      prepare: (task: ScsiTask) => target.prepare(task, lun),
      execute: (task: ScsiTask) => target.execute(task),
    };
    pending.start(server, cdb, dataOut, expectedIn);
    for (const medium of media) medium.drain();
    return pending.result();
  };
  /** Until nothing is to be told any more. */
  const settle = (nexus: Nexus, lun: number): void => {
    while (send(nexus, lun, TEST_UNIT_READY).status !== 0);
  };

  beforeEach(() => {
    media = [];
    target = new Target('iqn.2026-01.test:t');
    guest = nexusOf('guest');
    host = nexusOf('host');
    rights = new Map([
      [1, Access.WRITE],
      [2, Access.READ],
    ]);
    for (const lun of [0, 1, 2, 3]) target.setLun(lun, unit(lun));
    target.attach(host);
    target.attach(guest, { of: (lun) => rights.get(lun) ?? Access.NONE });
  });

  it('keeps a masked LUN out of REPORT LUNS, whatever LUN is asked', () => {
    for (const lun of [0, 1, 3]) {
      const { data } = send(guest, lun, REPORT_LUNS, 64);
      expect([data[3], data[9], data[17]], `asked LUN ${lun}`).toEqual([16, 1, 2]);
    }
    expect(target.luns(guest)).toEqual([1, 2]);
    expect(target.luns(host)).toEqual([0, 1, 2, 3]);
  });

  it('answers every command for a masked LUN exactly as for one that is not there', () => {
    const look = (lun: number): unknown[] => {
      const answers: unknown[] = [];
      for (let opcode = 0; opcode < 256; opcode++) {
        for (const second of [0, 1, 0x10]) {
          const cdb = [opcode, second, 0, 0, 64, 0, 0, 0, 8, 0, 0, 0, 0, 64, 0, 0];
          const { status, sense, data, residual } = send(guest, lun, cdb, 512);
          answers.push([opcode, status, sense, [...data], residual]);
        }
      }
      return answers;
    };
    expect(look(3)).toEqual(look(77));
  });

  it('finds units by their designators only among those that the nexus may see', () => {
    expect(target.find(guest, naaOf(1))).toBe(target.unitAt(1));
    expect(target.find(guest, naaOf(0))).toBeUndefined();
    expect(target.find(host, naaOf(0))).toBe(target.unitAt(0));
    expect(target.unit(guest, 3)).toBeUndefined();
    expect(target.unit(nexusOf('stranger'), 1)).toBeUndefined();
  });

  it('write-protects a LUN that may only be read, for that nexus alone', () => {
    settle(guest, 2);
    settle(host, 2);
    const block = new Uint8Array(512);
    expect(send(guest, 2, WRITE_10, 0, block)).toMatchObject(checkCondition('7/27/00'));
    expect(send(guest, 2, MODE_SENSE_6, 255).data[2]! & 0x80).toBe(0x80);
    expect(send(host, 2, WRITE_10, 0, block)).toMatchObject(GOOD);
    expect(send(host, 2, MODE_SENSE_6, 255).data[2]! & 0x80).toBe(0);
  });

  it.each([
    ['MODE SELECT', [0x15, 0x10, 0, 0, 24, 0]],
    ['START STOP UNIT', [0x1b, 0, 0, 0, 2, 0]],
    ['RESERVE', [0x16, 0, 0, 0, 0, 0]],
    ['PERSISTENT RESERVE OUT', [0x5f, 0, 0, 0, 0, 0, 0, 0, 24, 0]],
  ])('refuses %s, which would change the unit for others, to who may only read', (_name, cdb) => {
    settle(guest, 2);
    expect(send(guest, 2, cdb, 0, new Uint8Array(24))).toMatchObject(checkCondition('7/27/00'));
    settle(host, 2);
    expect(send(host, 2, cdb, 0, new Uint8Array(24)).sense).not.toBe('7/27/00');
  });

  it('says nothing of LUNs that come and go behind the mask', () => {
    settle(guest, 1);
    settle(host, 1);
    target.setLun(9, unit(9));
    target.removeLun(3);
    expect(send(guest, 1, TEST_UNIT_READY)).toMatchObject(GOOD);
    expect(send(host, 1, TEST_UNIT_READY)).toMatchObject(checkCondition('6/3f/0e'));
  });

  it('shows and hides LUNs of a nexus that is there, and tells it', () => {
    settle(guest, 1);
    settle(guest, 2);
    settle(host, 1);
    rights.set(3, Access.WRITE).delete(2);
    target.accessChanged(guest);
    expect(send(guest, 1, TEST_UNIT_READY)).toMatchObject(checkCondition('6/3f/0e'));
    expect(send(guest, 3, TEST_UNIT_READY)).toMatchObject(checkCondition('6/29/00'));
    expect(send(guest, 2, TEST_UNIT_READY)).toMatchObject(checkCondition('5/25/00'));
    expect(target.luns(guest)).toEqual([1, 3]);
    expect(send(host, 1, TEST_UNIT_READY)).toMatchObject(GOOD);
  });

  it('tells a nexus whose LUN can be written now, or not any more, to look again', () => {
    settle(guest, 2);
    rights.set(2, Access.WRITE);
    target.accessChanged(guest);
    expect(send(guest, 2, TEST_UNIT_READY)).toMatchObject(checkCondition('6/2a/01'));
    expect(send(guest, 2, WRITE_10, 0, new Uint8Array(512))).toMatchObject(GOOD);
    expect(target.luns(guest)).toEqual([1, 2]);
  });

  it('knows which nexuses have a LUN in common', () => {
    const other = nexusOf('other');
    target.attach(other, { of: (lun) => (lun === 3 ? Access.WRITE : Access.NONE) });
    expect(target.shareLuns(guest, host)).toBe(true);
    expect(target.shareLuns(guest, other)).toBe(false);
    expect(target.shareLuns(other, host)).toBe(true);
  });

  it('resets, for a nexus, only what it may see', () => {
    for (const lun of [0, 1]) settle(host, lun);
    target.reset(guest, () => {});
    expect(send(host, 0, TEST_UNIT_READY)).toMatchObject(GOOD);
    expect(send(host, 1, TEST_UNIT_READY)).toMatchObject(checkCondition('6/29/02'));
  });
});
