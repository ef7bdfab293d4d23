import { describe, expect, it } from 'vitest';
import { Attention } from '../../src/scsi/command.ts';
import { FIXED_COMMANDS } from '../../src/scsi/commands.ts';
import { UnitAttention } from '../../src/scsi/unit-attention.ts';
import { cdb10, cdb16, checkCondition, GOOD, Initiator, NO_DATA, Pending, pattern } from './support/initiator.ts';
import { plainCdb } from './support/plain-cdb.ts';

const COMMANDS = FIXED_COMMANDS.alone;
const TEST_UNIT_READY = [0, 0, 0, 0, 0, 0];

/** A CDB of `row` without any bit set that need not be. */
describe('a logical unit', () => {
  it('answers every opcode without a row INVALID COMMAND OPERATION CODE', () => {
    const initiator = new Initiator();
    const known = new Set(COMMANDS.rows.map((row) => row.opcode));
    for (let opcode = 0; opcode < 256; opcode++) {
      if (known.has(opcode)) continue;
      const cdb = new Array<number>(16).fill(0);
      cdb[0] = opcode;
      expect(initiator.send(cdb, new Uint8Array(512), 0)).toMatchObject({
        ...checkCondition('5/20/00'),
        residual: 512,
        dataOutLength: 0,
      });
    }
  });

  it('answers an unknown service action with a pointer to it', () => {
    const initiator = new Initiator();
    for (const opcode of [0x9e, 0xa3]) {
      for (let action = 0; action < 32; action++) {
        if (COMMANDS.find(opcode, action)) continue;
        const cdb = new Array<number>(16).fill(0);
        cdb[0] = opcode;
        cdb[1] = action;
        const result = initiator.in(cdb, 64);
        expect(result).toMatchObject(checkCondition('5/24/00'));
        expect([...result.senseBytes.slice(15, 18)]).toEqual([0xcc, 0, 1]);
      }
    }
  });

  it.each(COMMANDS.rows.map((row) => [row.name, row] as const))(
    'refuses each reserved bit of %s, pointing at it',
    (_name, row) => {
      const initiator = new Initiator();
      for (let byte = 1; byte < row.cdbLength; byte++) {
        for (let bit = 0; bit < 8; bit++) {
          if ((row.usage[byte]! & (1 << bit)) !== 0 || (row.opcode === 0x7f && byte >= 7 && byte <= 9)) continue;
          if (byte === 1 && ((row.ignoredBits & (1 << bit)) !== 0 || (row.serviceAction >= 0 && bit < 5))) continue;
          const cdb = plainCdb(row);
          cdb[byte]! |= 1 << bit;
          const result = initiator.in(cdb, 16);
          expect(result).toMatchObject({ ...checkCondition('5/24/00'), residual: 16, data: NO_DATA });
          expect([...result.senseBytes.slice(15, 18)]).toEqual([0xc8 | bit, 0, byte]);
        }
      }
    },
  );

  it('refuses a CDB that is shorter than its opcode says and ignores what is behind it', () => {
    const initiator = new Initiator();
    for (const row of COMMANDS.rows) {
      expect(initiator.in(plainCdb(row).slice(0, -1), 16), row.name).toMatchObject(checkCondition('5/24/00'));
    }
    expect(initiator.out([...TEST_UNIT_READY, 0xff, 0xff, 0xff])).toMatchObject(GOOD);
    expect(initiator.out([])).toMatchObject({ status: 2 });
  });

  it('refuses NACA', () => {
    expect(new Initiator().out([0, 0, 0, 0, 0, 0x04])).toMatchObject(checkCondition('5/24/00'));
  });

  it('reaches the last byte below 2^53 and nothing behind it', () => {
    const initiator = new Initiator({ logicalBlockSize: 4096 });
    const { unit, lun, nexus } = initiator;
    unit.state.blockCount = 2 ** 41;
    const requests: number[][] = [];
    lun.submit = ({ offset, length }) => void requests.push([offset, length]);
    const last = 2 ** 41 - 1;
    for (const [lba, blocks] of [
      [last, 1],
      [last - 7, 8],
    ] as const) {
      new Pending(nexus).start(unit, cdb16(0x88, lba, blocks), NO_DATA, blocks * 4096);
    }
    expect(requests).toEqual([
      [2 ** 53 - 4096, 4096],
      [2 ** 53 - 8 * 4096, 8 * 4096],
    ]);
    expect(initiator.in(cdb16(0x88, last, 2), 4096)).toMatchObject(checkCondition('5/21/00'));
    expect(initiator.in(cdb16(0x88, last + 1, 1), 4096)).toMatchObject(checkCondition('5/21/00'));
  });

  it('checks the range again when the volume has shrunk while the data came', () => {
    const initiator = new Initiator();
    const { unit, lun, nexus } = initiator;
    const pending = new Pending(nexus);
    const server = {
      prepare: unit.prepare.bind(unit),
      execute: (task: Parameters<typeof unit.execute>[0]) => {
        lun.resize(4096);
        unit.capacityChanged();
        unit.execute(task);
      },
    };
    pending.start(server, cdb10(0x2a, 7, 2), pattern(1024), 0);
    lun.drain();
    expect(pending.result()).toMatchObject(checkCondition('5/21/00'));
  });
});

describe('unit attentions', () => {
  it('are reported once by the first command and not by INQUIRY or REPORT LUNS', () => {
    const initiator = new Initiator();
    const { unit, nexus } = initiator;
    for (const row of COMMANDS.rows) {
      unit.raiseAttention(nexus, UnitAttention.CAPACITY_CHANGED);
      const cdb = plainCdb(row);
      if (row.opcode === 0x12 || row.opcode === 0xa0) {
        expect(initiator.in(cdb, 0).status).toBe(0);
        expect(initiator.out(TEST_UNIT_READY)).toMatchObject(checkCondition('6/2a/09'));
      } else if (row.attention === Attention.REPORT) {
        expect(initiator.in(cdb, 0), row.name).toMatchObject(checkCondition('6/2a/09'));
      } else {
        expect(row.opcode).toBe(0x03);
        initiator.in(cdb, 18);
      }
      expect(initiator.out(TEST_UNIT_READY), row.name).toMatchObject(GOOD);
    }
    unit.raiseAttention(nexus, UnitAttention.CAPACITY_CHANGED);
    expect(initiator.out([0xff, 0, 0, 0, 0, 0])).toMatchObject(checkCondition('6/2a/09'));
  });

  it('come before what is wrong with the command', () => {
    const initiator = new Initiator();
    initiator.unit.raiseAttention(initiator.nexus, UnitAttention.MODE_PARAMETERS_CHANGED);
    expect(initiator.in(cdb10(0x28, 0xffffffff, 1, 0xff), 512)).toMatchObject(checkCondition('6/2a/01'));
    expect(initiator.in(cdb10(0x28, 0xffffffff, 1), 512)).toMatchObject(checkCondition('5/21/00'));
  });

  it('are kept for each nexus', () => {
    const initiator = new Initiator();
    const other = new Initiator();
    initiator.unit.attach(other.nexus, true);
    const pending = new Pending(other.nexus);
    initiator.lun.resize(2 * 1024 * 1024);
    initiator.unit.capacityChanged();
    expect(initiator.out(TEST_UNIT_READY)).toMatchObject(checkCondition('6/2a/09'));
    for (const sense of ['6/29/00', '6/2a/09', '']) {
      pending.start(initiator.unit, TEST_UNIT_READY, NO_DATA, 0);
      expect(pending.result().sense).toBe(sense);
    }
    expect(initiator.out(TEST_UNIT_READY)).toMatchObject(GOOD);
  });

  it('are not raised when the capacity stayed the same', () => {
    const initiator = new Initiator();
    initiator.lun.resize(initiator.lun.sizeBytes);
    initiator.unit.capacityChanged();
    expect(initiator.out(TEST_UNIT_READY)).toMatchObject(GOOD);
  });

  it('are forgotten with their nexus', () => {
    const initiator = new Initiator();
    initiator.unit.raiseAttention(initiator.nexus, UnitAttention.CAPACITY_CHANGED);
    initiator.unit.detach(initiator.nexus);
    expect(initiator.out(TEST_UNIT_READY)).toMatchObject(GOOD);
    expect(initiator.unit.state.nexuses.size).toBe(0);
    initiator.unit.attach(initiator.nexus);
    expect(initiator.out(TEST_UNIT_READY)).toMatchObject(checkCondition('6/29/00'));
  });

  it('have the sense format that the mode page asks for', () => {
    const initiator = new Initiator();
    initiator.unit.state.descriptorSense = true;
    initiator.unit.raiseAttention(initiator.nexus, UnitAttention.CAPACITY_CHANGED);
    expect([...initiator.out(TEST_UNIT_READY).senseBytes]).toEqual([0x72, 6, 0x2a, 9, 0, 0, 0, 0]);
  });
});

describe('a logical unit reset', () => {
  it('takes mode parameters back and is a unit attention', () => {
    const initiator = new Initiator();
    const { unit } = initiator;
    unit.state.descriptorSense = true;
    unit.state.softwareWriteProtect = true;
    unit.state.writeCache = false;
    unit.reset(null, () => {});
    expect(initiator.out(TEST_UNIT_READY)).toMatchObject(checkCondition('6/29/03'));
    expect(unit.state).toMatchObject({ descriptorSense: false, softwareWriteProtect: false, writeCache: true });
  });
});
