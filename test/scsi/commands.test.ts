import { readFileSync, writeFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { readU16BE, readU32BE } from '../../src/base/bytes.ts';
import { cdbLengthOf } from '../../src/scsi/cdb.ts';
import { FIXED_COMMANDS, REMOVABLE_COMMANDS } from '../../src/scsi/commands.ts';
import { Opcode, ServiceAction } from '../../src/scsi/spec.ts';
import { Target } from '../../src/scsi/target.ts';
import { checkCondition, GOOD, Initiator, Pending } from './support/initiator.ts';
import { supportDocument } from './support/support-document.ts';

const COMMANDS = FIXED_COMMANDS.alone;
const ALL = 0;
const OPCODE = 1;
const ACTION = 2;
const EITHER = 3;

const reportOpcodes = (option: number, opcode = 0, action = 0, length = 8192): number[] => [
  0xa3,
  0x0c,
  option,
  opcode,
  action >> 8,
  action & 255,
  0,
  0,
  length >> 8,
  length & 255,
  0,
  0,
];

describe('the command table', () => {
  it('has a row or none for each of the 256 opcodes, and REPORT SUPPORTED OPERATION CODES says which', () => {
    const initiator = new Initiator();
    for (let opcode = 0; opcode < 256; opcode++) {
      for (let action = -1; action < 32; action++) {
        const hasActions = COMMANDS.hasServiceActions(opcode);
        if (action >= 0 !== hasActions) continue;
        const row = COMMANDS.find(opcode, action);
        const { data, ...result } = initiator.in(
          reportOpcodes(hasActions ? ACTION : OPCODE, opcode, Math.max(action, 0)),
          8192,
        );
        expect(result).toMatchObject(GOOD);
        if (row === null) {
          expect([...data]).toEqual([0, 1, 0, 0]);
        } else {
          expect(row.cdbLength).toBe(cdbLengthOf(opcode));
          expect([...data]).toEqual([0, 3, 0, row.cdbLength, ...row.usage]);
        }
      }
    }
  });

  it('has a row for every opcode and service action that has a name', () => {
    const opcodes = new Set(REMOVABLE_COMMANDS.inTarget.rows.map((row) => row.opcode));
    for (const [name, opcode] of Object.entries(Opcode)) expect(opcodes.has(opcode), name).toBe(true);
    const actions = new Set(FIXED_COMMANDS.inTarget.rows.map((row) => row.serviceAction));
    for (const [name, action] of Object.entries(ServiceAction)) expect(actions.has(action), name).toBe(true);
  });

  it('has no vendor-specific operation codes', () => {
    for (const row of REMOVABLE_COMMANDS.inTarget.rows) expect(row.opcode).toBeLessThan(0xc0);
  });

  it('is what docs/scsi-support.md says', () => {
    const path = new URL('../../docs/scsi-support.md', import.meta.url);
    if (process.env['UPDATE_DOCS'] === '1') writeFileSync(path, supportDocument());
    expect(readFileSync(path, 'utf8')).toBe(supportDocument());
  });
});

describe('REPORT SUPPORTED OPERATION CODES', () => {
  const listed = (data: Uint8Array): number[][] => {
    const found: number[][] = [];
    for (let at = 4; at < data.length; ) {
      found.push([data[at]!, readU16BE(data, at + 2), data[at + 5]!, readU16BE(data, at + 6)]);
      if ((data[at + 5]! & 2) !== 0) {
        expect(readU16BE(data, at + 8)).toBe(10);
        expect(readU32BE(data, at + 16)).toBeGreaterThan(0);
        at += 12;
      }
      at += 8;
    }
    return found;
  };

  it.each([0, 0x80])('lists all commands of the table (RCTD %i)', (rctd) => {
    const { data } = new Initiator().in(reportOpcodes(ALL | rctd), 8192);
    expect(readU32BE(data, 0)).toBe(data.length - 4);
    expect(listed(data)).toEqual(
      COMMANDS.rows.map((row) => [
        row.opcode,
        Math.max(row.serviceAction, 0),
        (rctd === 0 ? 0 : 2) | (row.serviceAction < 0 ? 0 : 1),
        row.cdbLength,
      ]),
    );
  });

  it('lists PREVENT ALLOW MEDIUM REMOVAL for a removable unit only', () => {
    const opcodes = (initiator: Initiator): number[] =>
      listed(initiator.in(reportOpcodes(ALL), 8192).data).map((row) => row[0]!);
    expect(opcodes(new Initiator())).not.toContain(0x1e);
    expect(opcodes(new Initiator({ removable: true }))).toContain(0x1e);
  });

  it('adds a timeout to one command', () => {
    const { data } = new Initiator().in(reportOpcodes(OPCODE | 0x80, 0x28), 64);
    expect([...data.slice(0, 4)]).toEqual([0, 0x83, 0, 10]);
    expect([...data.slice(14)]).toEqual([0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 30]);
  });

  it('refuses to be asked for actions that an opcode has not, or for an opcode without its actions', () => {
    const initiator = new Initiator();
    for (const row of COMMANDS.rows) {
      const wrong = row.serviceAction < 0 ? ACTION : OPCODE;
      const result = initiator.in(reportOpcodes(wrong, row.opcode, Math.max(row.serviceAction, 0)), 64);
      expect(result, row.name).toMatchObject(checkCondition('5/24/00'));
      expect([...result.senseBytes.slice(15, 18)]).toEqual([0xca, 0, 2]);
    }
    expect(initiator.in(reportOpcodes(4), 64)).toMatchObject(checkCondition('5/24/00'));
  });

  it('with option 3 takes both kinds', () => {
    const initiator = new Initiator();
    expect(initiator.in(reportOpcodes(EITHER, 0x28, 0), 64).data[1]).toBe(3);
    expect(initiator.in(reportOpcodes(EITHER, 0x28, 1), 64).data[1]).toBe(1);
    expect(initiator.in(reportOpcodes(EITHER, 0x9e, 0x10), 64).data[1]).toBe(3);
    expect(initiator.in(reportOpcodes(EITHER, 0x9e, 0x11), 64).data[1]).toBe(1);
    expect(initiator.in(reportOpcodes(EITHER, 0x9e, 0x110), 64).data[1]).toBe(1);
    expect(initiator.in(reportOpcodes(EITHER, 0x85, 0), 64).data[1]).toBe(1);
  });

  it('names DPO and FUA in the usage data of what takes them', () => {
    const initiator = new Initiator();
    for (const opcode of [0x28, 0x2a, 0x88, 0x8a, 0xa8, 0xaa, 0x89, 0x8b]) {
      expect(initiator.in(reportOpcodes(OPCODE, opcode), 64).data[5]! & 0x18).toBe(0x18);
    }
    for (const opcode of [0x2e, 0x2f, 0x8e, 0x8f, 0xae, 0xaf]) {
      expect(initiator.in(reportOpcodes(OPCODE, opcode), 64).data[5]! & 0x18).toBe(0x10);
    }
  });

  it.each([0, 3, 4, 11, 100])('cuts its data to %i bytes', (length) => {
    const initiator = new Initiator();
    const full = initiator.in(reportOpcodes(ALL), 8192).data;
    expect(initiator.in(reportOpcodes(ALL, 0, 0, length), length).data).toEqual(full.slice(0, length));
  });
});

describe('REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS', () => {
  const short = [0xa3, 0x0d, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0];
  const extended = [0xa3, 0x0d, 0x80, 0, 0, 0, 0, 0, 0, 64, 0, 0];

  it('names what LIO has behind LIO: ABORT TASK and LOGICAL UNIT RESET', () => {
    const initiator = new Initiator();
    expect([...initiator.in(short, 64).data]).toEqual([0x88, 0, 0, 0]);
    expect([...initiator.in(extended, 64).data]).toEqual([0x88, 0, 0, 12, ...new Array(12).fill(0)]);
  });

  it('names what the portal has in a target: everything but CLEAR ACA and WAKEUP', () => {
    const { unit, nexus } = new Initiator();
    const target = new Target('iqn.2026-01.test:target');
    unit.detach(nexus);
    target.setLun(0, unit);
    target.attach(nexus);
    const pending = new Pending(nexus);
    const send = (cdb: readonly number[]): number[] => {
      pending.start(
        { prepare: (task) => target.prepare(task, 0), execute: (task) => target.execute(task) },
        cdb,
        new Uint8Array(0),
        64,
      );
      return [...pending.result().data];
    };
    send([0, 0, 0, 0, 0, 0]);
    expect(send(short)).toEqual([0xde, 7, 0, 0]);
    // HEADSUP, ORDSUP, SIMPSUP
    expect(send([0x12, 1, 0x86, 0, 64, 0])[5]).toBe(7);
  });
});
