import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { NO_ALUA, parseMembers, readAlua } from '../../src/tcmu/alua.ts';
import { ConfigfsDevice, parseUioName } from '../../src/tcmu/configfs.ts';
import { makeGroup, makeLun } from './fake-configfs.ts';

let root: string;
let device: ConfigfsDevice;

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'thinlun-alua-'));
  const paths = { dev: root, uioClass: root, core: join(root, 'core'), module: root, proc: root };
  device = new ConfigfsDevice(paths, parseUioName('tcm-user/0/vol/thin/p/v')!);
  mkdirSync(join(device.path, 'attrib'), { recursive: true });
  mkdirSync(join(device.path, 'alua'), { recursive: true });
  writeFileSync(join(device.path, 'attrib/alua_support'), '1\n');
});
afterEach(() => rmSync(root, { recursive: true }));

describe('the target port groups of LIO', () => {
  test('are read with their states, types and ports', async () => {
    makeLun(root, 'iscsi/iqn.x:a/tpgt_1', 0, 1, true);
    makeLun(root, 'iscsi/iqn.x:b/tpgt_1', 3, 2, true);
    makeGroup(device.path, 'default_tg_pt_gp', { id: 0, members: ['iSCSI/iqn.x:a/tpgt_1/lun_0'] });
    makeGroup(device.path, 'spare', {
      id: 17,
      state: 2,
      type: 'Implicit',
      status: 'Altered by Implicit ALUA',
      preferred: 1,
      transitionSeconds: 30,
      unsupported: ['offline', 'unavailable'],
      members: ['iSCSI/iqn.x:b/tpgt_1/lun_3'],
    });
    expect(await readAlua(device)).toEqual({
      groups: [
        {
          name: 'default_tg_pt_gp',
          id: 0,
          state: 0,
          supported: 0xcf,
          preferred: false,
          status: 0,
          implicit: true,
          explicit: true,
          transitionSeconds: 0,
          ports: [1],
        },
        {
          name: 'spare',
          id: 17,
          state: 2,
          supported: 0x87,
          preferred: true,
          status: 2,
          implicit: true,
          explicit: false,
          transitionSeconds: 30,
          ports: [2],
        },
      ],
      ownGroup: -1,
      onlyPort: 0,
    });
  });

  test('are none where LIO does not look at them', async () => {
    makeGroup(device.path, 'default_tg_pt_gp', { id: 0 });
    writeFileSync(join(device.path, 'attrib/alua_support'), '0\n');
    expect(await readAlua(device)).toEqual(NO_ALUA);
  });

  test('leave out a group without an identifier, and a port that has just gone', async () => {
    makeGroup(device.path, 'new', { id: null });
    makeGroup(device.path, 'used', { id: 5, members: ['loopback/naa.1/tpgt_1/lun_0'] });
    const { groups, ownGroup } = await readAlua(device);
    expect(groups.map(({ name, ports }) => [name, ports])).toEqual([['used', []]]);
    expect(ownGroup).toBe(5);
  });

  test('name the group that every command comes through, as long as there is but one', async () => {
    makeLun(root, 'iscsi/iqn.x:a/tpgt_1', 0, 1, true);
    makeLun(root, 'iscsi/iqn.x:b/tpgt_1', 0, 2, false);
    makeLun(root, 'loopback/naa.1/tpgt_1', 0, 0, null);
    const a = 'iSCSI/iqn.x:a/tpgt_1/lun_0';
    const disabled = 'iSCSI/iqn.x:b/tpgt_1/lun_0';
    const loop = 'loopback/naa.1/tpgt_1/lun_0';
    const own = async (first: string[], second: string[]): Promise<[number, number]> => {
      makeGroup(device.path, 'default_tg_pt_gp', { id: 0, members: first });
      makeGroup(device.path, 'other', { id: 9, members: second });
      const { ownGroup, onlyPort } = await readAlua(device);
      return [ownGroup, onlyPort];
    };
    expect(await own([], [])).toEqual([-1, 0]);
    expect(await own([], [a])).toEqual([9, 1]);
    expect(await own([], [a, loop])).toEqual([9, 0]);
    expect(await own([disabled], [a])).toEqual([9, 1]);
    expect(await own([a], [loop])).toEqual([-1, 0]);
    // tcm_loop has no relative target port identifier.
    expect(await own([loop], [])).toEqual([0, 0]);
  });

  test.each([
    ['alua_access_state', '16'],
    ['alua_access_state', ''],
    ['tg_pt_gp_id', '65536'],
    ['implicit_trans_secs', '-1'],
  ])('are refused whole when %s is "%s"', async (file, text) => {
    makeGroup(device.path, 'default_tg_pt_gp', { id: 0 });
    writeFileSync(join(device.path, 'alua/default_tg_pt_gp', file), text);
    await expect(readAlua(device)).rejects.toMatchObject({ code: 'EINVAL' });
  });

  test('are cut to what a reply has room for', async () => {
    const members: string[] = [];
    for (let lun = 0; lun < 300; lun++) {
      makeLun(root, 'iscsi/iqn.x:a/tpgt_1', lun, 1 + lun, true);
      members.push(`iSCSI/iqn.x:a/tpgt_1/lun_${lun}`);
    }
    makeGroup(device.path, 'g', { id: 1, members });
    expect((await readAlua(device)).groups[0]!.ports).toHaveLength(255);
    for (let i = 0; i < 70; i++) makeGroup(device.path, `group${i}`, { id: 100 + i });
    expect((await readAlua(device)).groups).toHaveLength(64);
  });
});

describe('the members of a group', () => {
  test('are LUNs in the folders of their fabrics', () => {
    expect(parseMembers('iSCSI/iqn.x:a/tpgt_1/lun_0\n\0qla2xxx/21:00:00/tpgt_2/lun_17\n\0')).toEqual([
      { portal: 'iscsi/iqn.x:a/tpgt_1', lun: 'lun_0' },
      { portal: 'qla2xxx/21:00:00/tpgt_2', lun: 'lun_17' },
    ]);
  });

  test.each([
    '',
    'a/../tpgt_1/lun_0',
    '../a/tpgt_1/lun_0',
    'a/b/c/tpgt_1/lun_0',
    'a/b/tpgt_1/lun_0/x',
    'a/b/tpgt_x/lun_0',
  ])('that are none, as "%s", are left out', (text) => expect(parseMembers(text)).toEqual([]));
});

test('the folder of a fabric lies beside that of the backstores', () => {
  expect(dirname(dirname(dirname(device.path)))).toBe(root);
});
