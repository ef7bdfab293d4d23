import { describe, expect, it } from 'vitest';
import { writeU16BE, writeU32BE } from '../../src/base/bytes.ts';
import { Access, type CommandRow } from '../../src/scsi/command.ts';
import { REMOVABLE_COMMANDS } from '../../src/scsi/commands.ts';
import { LogicalUnit } from '../../src/scsi/logical-unit.ts';
import { Nexus } from '../../src/scsi/nexus.ts';
import { MAX_REGISTRANTS } from '../../src/scsi/persistent-state.ts';
import { Status } from '../../src/scsi/spec.ts';
import { Target } from '../../src/scsi/target.ts';
import { ScsiTask } from '../../src/scsi/task.ts';
import { senseIsWellFormed, wrongEnd } from './support/fuzz-oracles.ts';
import { MIB, unitOptions } from './support/initiator.ts';
import { RamLun } from './support/ram-lun.ts';

/** What other targets got wrong with commands and replies. */

const { rows } = REMOVABLE_COMMANDS.inTarget;
const ROOM = 70_000;

/** One initiator of one unit in a target, whose memory holds `poison` wherever nobody has written. */
class Victim {
  readonly lun: RamLun = new RamLun(MIB);
  readonly unit: LogicalUnit;
  readonly target: Target = new Target('iqn.test:t');
  readonly nexus: Nexus = new Nexus('iqn.test:i,i,0x000000000001', 'iqn.test:t,t,0x0001', 1);
  readonly task: ScsiTask;
  readonly memory: Uint8Array = new Uint8Array(2 * ROOM);
  readonly poison: number;
  done = 0;

  constructor(poison: number) {
    this.poison = poison;
    this.unit = new LogicalUnit(
      unitOptions(this.lun, {
        removable: true,
        random: (bytes) => void bytes.fill(3),
        clock: { nowMs: () => 0, setTimer: () => ({ cancel() {} }) },
      }),
    );
    this.target.setLun(0, this.unit);
    this.target.attach(this.nexus);
    this.task = new ScsiTask({ taskDone: () => void this.done++, taskAborted: () => expect.unreachable() }, this.nexus);
  }

  prepare(cdb: Uint8Array, expectedOut: number, expectedIn: number): boolean {
    const { task } = this;
    this.unit.state.nexuses.get(this.nexus)!.attentions.clear(0);
    task.cdb.fill(0);
    task.cdb.set(cdb);
    task.cdbLength = cdb.length;
    task.expectedDataOut = expectedOut;
    task.expectedDataIn = expectedIn;
    return this.target.prepare(task, 0);
  }

  /** The data that comes back. */
  send(cdb: Uint8Array, dataOut: Uint8Array, expectedIn: number): Uint8Array {
    const { task, memory } = this;
    memory.fill(this.poison);
    this.unit.state.reply.fill(this.poison);
    this.done = 0;
    if (!this.prepare(cdb, dataOut.length, expectedIn)) return new Uint8Array(0);
    const outLength = task.dataOutLength;
    memory.set(dataOut.subarray(0, outLength), 0);
    task.dataOut.set(memory, 0, outLength);
    task.dataIn.set(memory, ROOM, task.dataInLength);
    this.target.execute(task);
    this.lun.drain();
    expect(this.done).toBe(1);
    expect(wrongEnd(task, outLength, outLength > 0)).toBeNull();
    return memory.slice(ROOM, ROOM + task.dataInLength);
  }
}

/** The bytes of a CDB that hold its length: parameter list, allocation or transfer length. */
function withLength(row: CommandRow, length: number): Uint8Array {
  const cdb = new Uint8Array(row.cdbLength);
  cdb[0] = row.opcode;
  if (row.serviceAction >= 0) cdb[1] = row.serviceAction;
  switch (row.cdbLength) {
    case 6:
      cdb[4] = Math.min(length, 255);
      break;
    case 10:
      if (row.opcode === 0x5f) writeU32BE(cdb, 5, length);
      else writeU16BE(cdb, 7, Math.min(length, 0xffff));
      break;
    case 12:
      writeU32BE(cdb, 6, length);
      break;
    default:
      writeU32BE(cdb, 10, length);
  }
  return cdb;
}

const named = (row: CommandRow): [string, CommandRow] => [row.name, row];

describe('CVE-2024-45063, CVE-2024-8178, CVE-2024-43110 (FreeBSD ctl, memory that nobody wrote in replies)', () => {
  const replies = rows.filter(({ access }) => access !== Access.WRITE);

  it.each(replies.map(named))('%s returns only what it wrote, whatever length it is given', (_name, row) => {
    const one = new Victim(0xa5);
    const two = new Victim(0x5a);
    const lengths = [...Array.from({ length: 70 }, (_, i) => i), 96, 127, 128, 252, 255, 256, 511, 512, 4096, 65535];
    for (const page of row.opcode === 0x12 || row.opcode === 0x1a || row.opcode === 0x5a || row.opcode === 0x4d
      ? [0, 0x08, 0x0a, 0x0c, 0x1c, 0x3f, 0x80, 0x83, 0x86, 0x8f, 0xb0, 0xb1, 0xb2]
      : [0]) {
      for (const length of lengths) {
        const cdb = withLength(row, length);
        if (page !== 0) cdb[2] = page;
        if (row.opcode === 0x12 && page !== 0) cdb[1] = 1;
        const first = one.send(cdb, new Uint8Array(0), 66_000);
        const second = two.send(cdb, new Uint8Array(0), 66_000);
        expect(first.length).toBeLessThanOrEqual(row.access === Access.READ ? 66_000 : Math.max(length, 0));
        expect(Buffer.compare(first, second), `length ${length}, page ${page}`).toBe(0);
      }
    }
  });
});

describe('CVE-2024-39281, CVE-2024-42416 (FreeBSD ctl, memory by lengths of the initiator)', () => {
  it.each(rows.map(named))('%s asks for a bounded amount of memory, whatever length it is given', (_name, row) => {
    const victim = new Victim(0);
    for (const length of [0x7fffffff, 0xffffffff, 0x1000000, 0x10000, 0xffff]) {
      for (const expected of [0, 1, 0xffffffff]) {
        for (const [out, into] of [
          [expected, 0],
          [0, expected],
        ] as const) {
          victim.prepare(withLength(row, length), out, into);
          const { task, unit } = victim;
          expect(Math.max(task.dataOutLength, task.dataInLength)).toBeLessThanOrEqual(8 * MIB);
          if (task.status === Status.CHECK_CONDITION)
            expect(senseIsWellFormed(task.sense, task.senseLength)).toBe(true);
          if (unit.taskSet.count > 0) victim.target.withdraw(task);
        }
      }
    }
  });
});

describe('CVE-2025-57275 (SPDK, out of bounds when registrants are written), SCST 6138af919 (TransportID overflow)', () => {
  it('takes every length of a parameter list, and every length that it can say itself', () => {
    const victim = new Victim(0);
    const cdb = new Uint8Array(10);
    cdb[0] = 0x5f;
    for (const action of [0, 6, 7]) {
      for (let length = 0; length < 140; length++) {
        for (const said of [0, 1, 4, length - 28, length - 24, 24, 0xff, 0xffff, 0xffffffff]) {
          const list = new Uint8Array(length);
          list[15] = 1;
          list[20] = action === 7 ? 0 : 0x08;
          if (length >= 28) writeU32BE(list, action === 7 ? 20 : 24, said >>> 0);
          const at = action === 7 ? 24 : 28;
          if (length > at + 4) {
            list[at] = length % 2 === 0 ? 0x05 : 0x45;
            writeU16BE(list, at + 2, said & 0xffff);
            Buffer.from('iqn.test:x,i,0x00000000000112').copy(list, at + 4);
          }
          cdb[1] = action;
          writeU32BE(cdb, 5, length);
          victim.send(cdb, list, 0);
          expect(victim.unit.taskSet.count).toBe(0);
        }
      }
    }
  });

  it('keeps no more registrants than it has room for', () => {
    const victim = new Victim(0);
    const cdb = new Uint8Array(10);
    cdb[0] = 0x5f;
    cdb[1] = 6;
    for (let round = 0; round < 6; round++) {
      const ids = Array.from({ length: 80 }, (_, i) => {
        const id = new Uint8Array(40);
        id[0] = 0x45;
        writeU16BE(id, 2, 36);
        Buffer.from(`iqn.t:${round}-${i},i,0x000000000001`).copy(id, 4);
        return id;
      });
      const list = Buffer.concat([new Uint8Array(28), ...ids]);
      list[15] = round + 1;
      list[20] = 8;
      writeU32BE(list, 24, 80 * 40);
      writeU32BE(cdb, 5, list.length);
      victim.send(cdb, list, 0);
      // READ KEYS
      const keys = victim.send(Uint8Array.of(0x5e, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0), new Uint8Array(0), 66_000);
      expect(keys.length).toBeLessThanOrEqual(8 + 8 * MAX_REGISTRANTS);
    }
  });
});
