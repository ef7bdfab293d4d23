import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { open, rename, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { LogicalUnit } from '../../src/scsi/logical-unit.ts';
import { Nexus } from '../../src/scsi/nexus.ts';
import { ConfigfsDevice, parseUioName } from '../../src/tcmu/configfs.ts';
import { LioFrontEnd, READ_TIMEOUT_MS, SET_TIMEOUT_MS } from '../../src/tcmu/lio-front-end.ts';
import { checkCondition, GOOD, NO_DATA, Pending, type Result, unitOptions } from '../scsi/support/initiator.ts';
import { RamLun } from '../scsi/support/ram-lun.ts';
import { TestClock } from '../support/test-clock.ts';
import { makeGroup, makeLun } from './fake-configfs.ts';

const RTPG = [0xa3, 0x0a, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0];
const RTPG_EXTENDED = [0xa3, 0x2a, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0];
const INQUIRY = [0x12, 0, 0, 0, 96, 0];
const IDENTIFICATION = [0x12, 1, 0x83, 1, 0, 0];
const PORT = 'iSCSI/iqn.x:a/tpgt_1/lun_0';

/** However slow the machine is. */
const eventually = <T>(check: () => T | Promise<T>): Promise<T> => vi.waitFor(check, { timeout: 30_000, interval: 2 });

let root: string;
let clock: TestClock;
let device: ConfigfsDevice;
let frontEnd: LioFrontEnd;
let unit: LogicalUnit;
let nexus: Nexus;
let said: string[];

beforeEach(async () => {
  root = mkdtempSync(join(tmpdir(), 'thinlun-lio-'));
  const paths = { dev: root, uioClass: root, core: join(root, 'core'), module: root, proc: root };
  device = new ConfigfsDevice(paths, parseUioName('tcm-user/0/vol/thin/p/v')!);
  for (const folder of ['attrib', 'alua', 'wwn', 'pr']) mkdirSync(join(device.path, folder), { recursive: true });
  file('attrib/alua_support', '1');
  file('wwn/vpd_unit_serial', 'T10 VPD Unit Serial Number: ');
  file('pr/res_holder', 'No SPC-3 Reservation holder');
  makeLun(root, 'iscsi/iqn.x:a/tpgt_1', 0, 7, true);
  makeGroup(device.path, 'default_tg_pt_gp', { id: 0, members: [PORT] });
  clock = new TestClock();
  said = [];
  const warn = (_fields: object, text: string): void => void said.push(text);
  const logger = { debug: () => {}, info: () => {}, warn, error: warn };
  frontEnd = new LioFrontEnd({ configfs: device, maxTransferBytes: 65536, serial: 'c0ffee00-0001', logger, clock });
  unit = new LogicalUnit(unitOptions(new RamLun(65536)));
  nexus = new Nexus('tcmu,i,vol', '', 0, frontEnd);
  unit.attach(nexus, false);
  await eventually(() => expect(frontEnd.groups).toHaveLength(1));
  await eventually(() => expect(clock.timerCount).toBe(0));
});
afterEach(() => {
  frontEnd.close();
  rmSync(root, { recursive: true });
});

function file(name: string, text: string): void {
  writeFileSync(join(device.path, name), `${text}\n`);
}

function start(cdb: readonly number[], expectedIn: number, dataOut = NO_DATA): Pending {
  const pending = new Pending(nexus);
  pending.start(unit, cdb, dataOut, expectedIn);
  return pending;
}

async function send(cdb: readonly number[], expectedIn: number, dataOut = NO_DATA): Promise<Result> {
  const pending = start(cdb, expectedIn, dataOut);
  await eventually(() => expect(pending.isDone).toBe(true));
  return pending.result();
}

const set = (...changes: [group: number, state: number][]): Promise<Result> => {
  const list = [0, 0, 0, 0, ...changes.flatMap(([group, state]) => [state, 0, group >> 8, group & 255])];
  return send([0xa4, 0x0a, 0, 0, 0, 0, 0, 0, 0, list.length, 0, 0], 0, Uint8Array.from(list));
};

const groupsOf = (result: Result): number[] => {
  expect(result).toMatchObject(GOOD);
  return [...result.data.slice(4)];
};

/** From here on a read of configfs hangs, as it does while the kernel holds the locks of a folder; the returned function ends that. */
function hang(): () => Promise<void> {
  const path = join(device.path, 'attrib/alua_support');
  execFileSync('mkfifo', [`${path}.fifo`]);
  execFileSync('mv', [`${path}.fifo`, path]);
  return async () => {
    const pipe = await open(path, 'r+');
    await pipe.write('1\n');
    await rename(path, `${path}.old`);
    file('attrib/alua_support', '1');
    await pipe.close();
    await rm(`${path}.old`);
  };
}

describe('a TCMU device', () => {
  test('reports the target port groups of LIO, in both formats', async () => {
    makeGroup(device.path, 'spare', { id: 17, state: 2, status: 'Altered by Explicit STPG', transitionSeconds: 9 });
    const own = [0, 0xcf, 0, 0, 0, 0, 0, 1, 0, 0, 0, 7];
    const spare = [2, 0xcf, 0, 17, 0, 1, 0, 0];
    expect(groupsOf(await send(RTPG, 512))).toEqual([...own, ...spare]);
    expect(groupsOf(await send(RTPG_EXTENDED, 512))).toEqual([0x10, 9, 0, 0, ...own, ...spare]);
  });

  test('says so in its standard INQUIRY data', async () => {
    expect((await send(INQUIRY, 96)).data[5]).toBe(0x38);
    makeGroup(device.path, 'default_tg_pt_gp', { id: 0, type: 'Implicit' });
    expect((await send(INQUIRY, 96)).data[5]).toBe(0x18);
    file('attrib/alua_support', '0');
    expect((await send(INQUIRY, 96)).data[5]).toBe(0x08);
    expect(await send(RTPG, 512)).toMatchObject(checkCondition('5/24/00'));
  });

  test('names port and group where there is but one, and never a port that it does not know', async () => {
    const designators = async (): Promise<string> =>
      Buffer.from((await send(IDENTIFICATION, 256)).data.slice(4 + 20 + 4 + 8 + 11)).toString('hex');
    expect(await designators()).toBe('0114000400000007' + '0115000400000000');
    makeLun(root, 'loopback/naa.1/tpgt_1', 0, 0, null);
    makeGroup(device.path, 'default_tg_pt_gp', { id: 0, members: [PORT, 'loopback/naa.1/tpgt_1/lun_0'] });
    expect(await designators()).toBe('0115000400000000');
    makeGroup(device.path, 'default_tg_pt_gp', { id: 0, members: [PORT] });
    makeGroup(device.path, 'spare', { id: 17, members: ['loopback/naa.1/tpgt_1/lun_0'] });
    expect(await designators()).toBe('');
    // Names of ports are the portal's: here nobody knows them.
    expect([...(await send([0x12, 1, 0, 0, 96, 0], 96)).data]).not.toContain(0x88);
  });

  test('tells at once of a state that was changed with targetcli', async () => {
    expect(groupsOf(await send(RTPG, 512))[0]).toBe(0);
    makeGroup(device.path, 'default_tg_pt_gp', { id: 0, state: 2, members: [PORT] });
    expect(groupsOf(await send(RTPG, 512))[0]).toBe(2);
  });

  test('reads once more, and not more often, for all who ask while it reads', async () => {
    const read = vi.spyOn(device, 'readNumber');
    const first = start(RTPG, 512);
    makeGroup(device.path, 'default_tg_pt_gp', { id: 0, state: 1 });
    const others = [1, 2, 3, 4].map(() => start(RTPG, 512));
    await eventually(() => expect([first, ...others].every(({ isDone }) => isDone)).toBe(true));
    for (const one of others) expect(groupsOf(one.result())[0]).toBe(1);
    expect(read).toHaveBeenCalledTimes(2);
    expect(clock.timerCount).toBe(0);
  });
});

describe('while configfs does not answer', () => {
  test('initiators are told what was known before, and later what is so', async () => {
    expect(groupsOf(await send(RTPG, 512))[0]).toBe(0);
    const release = hang();
    makeGroup(device.path, 'default_tg_pt_gp', { id: 0, state: 3 });
    const [one, other] = [start(RTPG, 512), start(INQUIRY, 96)];
    clock.advance(READ_TIMEOUT_MS - 1);
    expect([one.isDone, other.isDone]).toEqual([false, false]);
    clock.advance(1);
    expect(groupsOf(one.result())[0]).toBe(0);
    expect(other.result().data[5]).toBe(0x38);
    // Nothing more waits in the kernel than the one read.
    expect(groupsOf(start(RTPG, 512).result())[0]).toBe(0);
    expect(said).toEqual([expect.stringContaining('configfs does not answer')]);
    await release();
    await eventually(async () => expect(groupsOf(await send(RTPG, 512))[0]).toBe(3));
  });

  test('a device that is removed answers at once, and reads nothing more', async () => {
    const release = hang();
    const pending = start(INQUIRY, 96);
    frontEnd.close();
    expect(pending.result()).toMatchObject(GOOD);
    // What was known at the beginning, before anybody had asked
    expect(groupsOf(start(RTPG, 512).result())).toEqual([0, 0xcf, 0, 0, 0, 0, 0, 1, 0, 0, 0, 7]);
    const read = vi.spyOn(device, 'read');
    await release();
    await frontEnd.lookForReservation();
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(read).not.toHaveBeenCalled();
    expect(said).toEqual([]);
  });

  test('a command that is aborted meanwhile ends aborted', async () => {
    const release = hang();
    const pending = start(RTPG, 512);
    unit.abort(pending.task);
    clock.advance(READ_TIMEOUT_MS);
    expect(pending.result().status).toBe(0x40);
    await release();
  });
});

describe('SET TARGET PORT GROUPS', () => {
  const stateOf = (group: string): string[] =>
    ['alua_access_state', 'alua_access_status'].map((name) =>
      readFileSync(join(device.path, 'alua', group, name), 'utf8').slice(0, 1),
    );

  test('is done by LIO', async () => {
    makeGroup(device.path, 'spare', { id: 300 });
    expect(await set([300, 2], [0, 1])).toMatchObject(GOOD);
    expect([stateOf('spare'), stateOf('default_tg_pt_gp')]).toEqual([
      ['2', '1'],
      ['1', '1'],
    ]);
    expect(await set()).toMatchObject(checkCondition('5/1a/00'));
  });

  test('changes nothing when one group cannot be as it is asked to be', async () => {
    makeGroup(device.path, 'fixed', { id: 5, type: 'Implicit' });
    makeGroup(device.path, 'some', { id: 6, unsupported: ['standby'] });
    for (const wrong of [
      [5, 1],
      [6, 2],
      [6, 4],
      [6, 0x0e],
      [6, 0x0f],
      [99, 0],
    ] as [number, number][]) {
      const result = await set([0, 3], wrong);
      expect(result).toMatchObject(checkCondition('5/26/00'));
      expect(result.senseBytes[17]).toBe(wrong[0] === 6 ? 8 : 10);
    }
    expect(stateOf('default_tg_pt_gp')).toEqual(['0', 'N']);
  });

  test('is not there where no group takes it', async () => {
    makeGroup(device.path, 'default_tg_pt_gp', { id: 0, type: 'Explicit' });
    expect(await set([0, 2])).toMatchObject(checkCondition('5/24/00'));
    expect((await send(INQUIRY, 96)).data[5]).toBe(0x18);
  });

  test('fails when LIO refuses, and when LIO does not answer', async () => {
    vi.spyOn(device, 'write').mockRejectedValueOnce(new Error('no'));
    expect(await set([0, 2])).toMatchObject(checkCondition('4/67/0a'));
    vi.spyOn(device, 'write').mockReturnValueOnce(new Promise(() => {}));
    const pending = start([0xa4, 0x0a, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0], 0, Uint8Array.of(0, 0, 0, 0, 2, 0, 0, 0));
    await eventually(() => expect(device.write).toHaveBeenCalledTimes(2));
    clock.advance(SET_TIMEOUT_MS);
    expect(pending.result()).toMatchObject(checkCondition('4/67/0a'));
  });
});

describe('the log', () => {
  test('says once that LIO has another serial number than the volume', async () => {
    await send(INQUIRY, 96);
    file('wwn/vpd_unit_serial', 'T10 VPD Unit Serial Number: c0ffee00-0001');
    await send(INQUIRY, 96);
    expect(said).toEqual([]);
    file('wwn/vpd_unit_serial', 'T10 VPD Unit Serial Number: another');
    for (let i = 0; i < 3; i++) await send(INQUIRY, 96);
    expect(said).toEqual([expect.stringContaining('another serial number')]);
    const page = Buffer.from((await send([0x12, 1, 0x80, 0, 96, 0], 96)).data.slice(4)).toString();
    expect(page).toBe('c0ffee00-0001');
  });

  test('says once that a reservation of LIO binds nobody else', async () => {
    const look = (): Promise<void> => frontEnd.lookForReservation();
    await look();
    expect(said).toEqual([]);
    file('pr/res_holder', 'SPC-3 Reservation: iSCSI Initiator: iqn.x:host');
    await look();
    await look();
    expect(said).toHaveLength(1);
    file('pr/res_holder', 'No SPC-3 Reservation holder');
    await look();
    file('pr/res_holder', 'SPC-3 Reservation: iSCSI Initiator: iqn.x:host');
    await look();
    expect(said).toHaveLength(2);
  });

  test('says once why the groups cannot be read', async () => {
    rmSync(join(device.path, 'alua'), { recursive: true });
    for (let i = 0; i < 2; i++) expect(await send(INQUIRY, 96)).toMatchObject(GOOD);
    expect(said).toEqual(['cannot read the target port groups']);
  });
});
