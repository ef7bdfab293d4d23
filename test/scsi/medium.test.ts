import { describe, expect, it } from 'vitest';
import { LunOp } from '../../src/block/lun-backend.ts';
import { Access } from '../../src/scsi/command.ts';
import { FIXED_COMMANDS } from '../../src/scsi/commands.ts';
import { Nexus } from '../../src/scsi/nexus.ts';
import { cdb10, checkCondition, GOOD, Initiator, NO_DATA, Pending } from './support/initiator.ts';
import { plainCdb } from './support/plain-cdb.ts';

const COMMANDS = FIXED_COMMANDS.alone;
const START = 1;
const LOEJ = 2;
const NO_FLUSH = 4;
const startStop = (flags: number): number[] => [0x1b, 0, 0, 0, flags, 0];
const prevent = (value: number): number[] => [0x1e, 0, 0, 0, value, 0];
const TEST_UNIT_READY = [0, 0, 0, 0, 0, 0];

describe('START STOP UNIT of a fixed disk', () => {
  it('flushes on stop and leaves the unit ready for everybody', () => {
    const initiator = new Initiator();
    expect(initiator.out(startStop(0))).toMatchObject(GOOD);
    expect(initiator.lun.log.map(({ op }) => op)).toEqual([LunOp.FLUSH]);
    expect(initiator.out(startStop(NO_FLUSH))).toMatchObject(GOOD);
    expect(initiator.out(startStop(START))).toMatchObject(GOOD);
    for (let condition = 1; condition < 16; condition++) {
      expect(initiator.out(startStop(condition << 4))).toMatchObject(GOOD);
      expect(initiator.out(startStop((condition << 4) | LOEJ))).toMatchObject(GOOD);
    }
    expect(initiator.out(TEST_UNIT_READY)).toMatchObject(GOOD);
    expect(initiator.lun.log.length).toBe(1);
  });

  it('has nothing to eject and nothing to prevent', () => {
    const initiator = new Initiator();
    expect(initiator.out(startStop(LOEJ))).toMatchObject(checkCondition('5/24/00'));
    expect(initiator.out(startStop(LOEJ | START))).toMatchObject(checkCondition('5/24/00'));
    expect(initiator.out(prevent(1))).toMatchObject(checkCondition('5/20/00'));
  });

  it('reports a cache that cannot be flushed', () => {
    const initiator = new Initiator();
    initiator.lun.failures.set(LunOp.FLUSH, 'EIO');
    expect(initiator.out(startStop(0))).toMatchObject(checkCondition('3/0c/00'));
  });
});

describe('a removable medium', () => {
  const make = (): Initiator => new Initiator({ removable: true });

  it('is gone after an eject, for every command that needs it, and back after a load', () => {
    const initiator = make();
    expect(initiator.out(startStop(LOEJ))).toMatchObject(GOOD);
    for (const row of COMMANDS.rows) {
      if (row.access === Access.NONE) continue;
      expect(initiator.in(plainCdb(row), 512), row.name).toMatchObject({ ...checkCondition('2/3a/00'), residual: 512 });
    }
    expect(initiator.in([0x12, 0, 0, 0, 36, 0], 36)).toMatchObject(GOOD);
    expect(initiator.in([3, 0, 0, 0, 18, 0], 18).data[12]).toBe(0x3a);
    expect(initiator.out(startStop(START))).toMatchObject(checkCondition('2/3a/00'));
    expect(initiator.out(startStop(LOEJ))).toMatchObject(GOOD);
    expect(initiator.out(startStop(START | LOEJ))).toMatchObject(GOOD);
    expect(initiator.out(TEST_UNIT_READY)).toMatchObject(GOOD);
  });

  it('that is loaded again is a unit attention for the other nexuses', () => {
    const initiator = make();
    const other = new Nexus('iqn.2026-01.test:other,i,0x2', '', 1);
    initiator.unit.attach(other, false);
    initiator.out(startStop(LOEJ));
    initiator.out(startStop(START | LOEJ));
    initiator.out(startStop(START | LOEJ));
    const pending = new Pending(other);
    pending.start(initiator.unit, TEST_UNIT_READY, NO_DATA, 0);
    expect(pending.result()).toMatchObject(checkCondition('6/28/00'));
    pending.start(initiator.unit, TEST_UNIT_READY, NO_DATA, 0);
    expect(pending.result()).toMatchObject(GOOD);
  });

  it('stays while any nexus prevents its removal', () => {
    const initiator = make();
    const other = new Nexus('iqn.2026-01.test:other,i,0x2', '', 1);
    initiator.unit.attach(other, false);
    expect(initiator.out(prevent(1))).toMatchObject(GOOD);
    const pending = new Pending(other);
    pending.start(initiator.unit, startStop(LOEJ), NO_DATA, 0);
    expect(pending.result()).toMatchObject(checkCondition('5/53/02'));
    expect(initiator.out(startStop(LOEJ))).toMatchObject(checkCondition('5/53/02'));
    expect(initiator.out(TEST_UNIT_READY)).toMatchObject(GOOD);
    expect(initiator.out(prevent(0))).toMatchObject(GOOD);
    expect(initiator.out(startStop(LOEJ))).toMatchObject(GOOD);
  });

  it.each([
    ['the loss of its nexus', (initiator: Initiator) => initiator.unit.detach(initiator.nexus)],
    ['a reset', (initiator: Initiator) => initiator.unit.reset(initiator.nexus, () => {})],
  ])('is released by %s', (_name, release) => {
    const initiator = make();
    initiator.out(prevent(1));
    release(initiator);
    initiator.unit.attach(initiator.nexus, false);
    expect(initiator.out(startStop(LOEJ))).toMatchObject(GOOD);
  });

  it('knows no obsolete ways to prevent', () => {
    const initiator = make();
    expect(initiator.out(prevent(2))).toMatchObject(checkCondition('5/24/00'));
    expect(initiator.out(prevent(3))).toMatchObject(checkCondition('5/24/00'));
  });
});

describe('SYNCHRONIZE CACHE', () => {
  it.each([
    ['10', cdb10(0x35, 0, 0)],
    ['10 with IMMED', cdb10(0x35, 0, 1, 2)],
    ['16', [0x91, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 1, 0, 0]],
  ])('(%s) has flushed when it is GOOD', (_name, cdb) => {
    const initiator = new Initiator();
    expect(initiator.out(cdb)).toMatchObject({ ...GOOD, residual: 0 });
    expect(initiator.lun.log.map(({ op }) => op)).toEqual([LunOp.FLUSH]);
  });

  it('checks the range', () => {
    const initiator = new Initiator();
    expect(initiator.out(cdb10(0x35, 2048, 0))).toMatchObject(checkCondition('5/21/00'));
    expect(initiator.out(cdb10(0x35, 2047, 2))).toMatchObject(checkCondition('5/21/00'));
    expect(initiator.out(cdb10(0x35, 0, 2048))).toMatchObject(GOOD);
  });

  it('fails when the flush does', () => {
    const initiator = new Initiator();
    initiator.lun.failures.set(LunOp.FLUSH, 'ENOSPC');
    expect(initiator.out(cdb10(0x35, 0, 0))).toMatchObject(checkCondition('7/27/07'));
  });
});

describe('PRE-FETCH', () => {
  it('is GOOD inside the medium and out of range behind it', () => {
    const initiator = new Initiator();
    for (const flags of [0, 2]) {
      expect(initiator.out(cdb10(0x34, 0, 256, flags))).toMatchObject(GOOD);
      expect(initiator.out(cdb10(0x34, 2047, 2, flags))).toMatchObject(checkCondition('5/21/00'));
    }
    const grouped = cdb10(0x34, 0, 1);
    grouped[6] = 3;
    expect(initiator.out(grouped)).toMatchObject(GOOD);
    expect(initiator.out(cdb10(0x34, 2049, 0))).toMatchObject(checkCondition('5/21/00'));
  });
});
