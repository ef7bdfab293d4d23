import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { ConfigfsDevice, ModuleParameters, parseUioName, type TcmuPaths } from '../../src/tcmu/configfs.ts';
import { readUioEntry } from '../../src/tcmu/uio.ts';

describe('the name of a uio device', () => {
  test('has the backstore, the subtype, and the rest with its slashes', () => {
    expect(parseUioName('tcm-user/3/vol/thin/pool/vol/x')).toEqual({
      hba: '3',
      device: 'vol',
      subtype: 'thin',
      cfgstring: 'pool/vol/x',
    });
  });

  test.each(['tcm-user/3/vol', 'tcm-user/3/vol/thin', 'tcm-user/x/vol/thin/a', 'other', '', 'tcm-user//vol/thin/a'])(
    'that is not ours, as "%s", is none',
    (text) => expect(parseUioName(text)).toBeNull(),
  );
});

describe('the files of the kernel', () => {
  let root: string;
  let paths: TcmuPaths;

  beforeEach(() => {
    root = mkdtempSync(join(tmpdir(), 'thinlun-tcmu-'));
    paths = {
      dev: root,
      uioClass: join(root, 'uio'),
      core: join(root, 'core'),
      module: join(root, 'module'),
      proc: root,
    };
  });
  afterEach(() => rmSync(root, { recursive: true }));

  function uio(minor: number, name: string): void {
    mkdirSync(join(paths.uioClass, `uio${minor}`), { recursive: true });
    writeFileSync(join(paths.uioClass, `uio${minor}`, 'name'), `${name}\n`);
  }

  test('name TCMU devices, and nothing else', () => {
    uio(11, 'tcm-user/1/b/thin/p/b');
    uio(3, 'uio_pci_generic');
    mkdirSync(join(paths.uioClass, 'uio9')); // one that is just going away
    expect([1, 3, 9, 11].map((minor) => readUioEntry(paths, minor)?.name.cfgstring)).toEqual([
      undefined,
      undefined,
      undefined,
      'p/b',
    ]);
  });

  test('are read and written by their attributes', async () => {
    const name = parseUioName('tcm-user/0/vol/thin/p/v')!;
    const folder = join(paths.core, 'user_0', 'vol');
    for (const part of ['attrib', 'action', 'wwn']) mkdirSync(join(folder, part), { recursive: true });
    const files = {
      'attrib/dev_size': '1048576\n',
      'attrib/odd': 'x',
      'action/block_dev': '',
      'action/reset_ring': '',
      control: '',
    };
    for (const [file, text] of Object.entries(files)) writeFileSync(join(folder, file), text);
    writeFileSync(join(folder, 'wwn', 'vpd_unit_serial'), 'T10 VPD Unit Serial Number: abc-1\n');
    const device = new ConfigfsDevice(paths, name);
    expect(await device.readNumber('dev_size')).toBe(1048576);
    await expect(device.readNumber('odd')).rejects.toThrow(/"x" is not a number/);
    await expect(device.read('attrib/absent')).rejects.toMatchObject({ code: 'ENOENT' });
    await expect(device.write('attrib/absent', '1')).rejects.toMatchObject({ code: 'ENOENT' });
    expect(await device.readSerial()).toBe('abc-1');
    await device.setBlocked(true);
    await device.resetRing();
    await device.announceSize(4096);
    expect(readFileSync(join(folder, 'action/block_dev'), 'utf8')).toBe('1');
    expect(readFileSync(join(folder, 'action/reset_ring'), 'utf8')).toBe('1');
    expect(readFileSync(join(folder, 'control'), 'utf8')).toBe('dev_size=4096');
  });

  test('stop blocking events even when the release of waiters fails', async () => {
    mkdirSync(join(paths.module, 'parameters'), { recursive: true });
    writeFileSync(join(paths.module, 'parameters', 'block_netlink'), '');
    const module = new ModuleParameters(paths);
    await expect(module.require()).rejects.toMatchObject({
      code: 'ENODEV',
      message: expect.stringContaining('configfs'),
    });
    await expect(module.releaseWaiters()).rejects.toMatchObject({ code: 'ENOENT' });
    expect(readFileSync(join(paths.module, 'parameters', 'block_netlink'), 'utf8')).toBe('0');
  });
});
