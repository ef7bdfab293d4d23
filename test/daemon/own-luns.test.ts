import { mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { OwnLuns, type OwnVolume } from '../../src/daemon/own-luns.ts';
import { TestClock } from '../support/test-clock.ts';

const NAA = '6f00000000000000000000000000abcd';
const volumes: OwnVolume[] = [
  { pool: 'fast', name: 'other', naa: `${NAA.slice(0, -1)}0`, serial: 'serial-0' },
  { pool: 'fast', name: 'vol', naa: NAA, serial: 'serial-1' },
];

/** A machine as its sysfs and its mount table show it. Its root file system is on /dev/sda1, a disk of somebody else. */
class Machine {
  readonly root: string = realpathSync(mkdtempSync(join(tmpdir(), 'thinlun-storage-')));
  #mounts = '1 0 8:1 / / rw - ext4 /dev/sda1 rw\n';

  constructor() {
    this.disk('sda', '8:0', 'ATA', null);
    this.partition('sda', 'sda1', '8:1');
    this.disk('sdb', '8:16', 'THINLUN', NAA);
    this.partition('sdb', 'sdb1', '8:17');
  }

  path(name: string): string {
    return join(this.root, 'files', name);
  }

  #put(file: string, content: string | Buffer): void {
    mkdirSync(dirname(join(this.root, file)), { recursive: true });
    writeFileSync(join(this.root, file), content);
  }

  #device(number: string, folder: string): void {
    mkdirSync(join(this.root, folder), { recursive: true });
    mkdirSync(join(this.root, 'sys/dev/block'), { recursive: true });
    symlinkSync(join(this.root, folder), join(this.root, 'sys/dev/block', number));
  }

  disk(name: string, number: string, vendor: string, naa: string | null): void {
    const folder = `sys/devices/host0/${name}`;
    this.#device(number, folder);
    this.#put(`${folder}/device/vendor`, `${vendor.padEnd(8)}\n`);
    if (naa === null) return;
    const bytes = Buffer.from(naa, 'hex');
    // A T10 designator, a relative target port, and the NAA in between.
    const designators = Buffer.concat([
      Buffer.from([0x02, 0x01, 0, 12]),
      Buffer.from('THINLUN abcd'),
      Buffer.from([0x01, 0x03, 0, bytes.length]),
      bytes,
      Buffer.from([0x01, 0x14, 0, 4, 0, 0, 0, 1]),
    ]);
    this.#put(`${folder}/device/vpd_pg83`, Buffer.concat([Buffer.from([0, 0x83, 0, designators.length]), designators]));
    this.#put(`${folder}/device/vpd_pg80`, Buffer.concat([Buffer.from([0, 0x80, 0, 12]), Buffer.from('serial-other')]));
  }

  partition(disk: string, name: string, number: string): void {
    this.#device(number, `sys/devices/host0/${disk}/${name}`);
    this.#put(`sys/devices/host0/${disk}/${name}/partition`, '1\n');
  }

  /** A device of device-mapper or md on others. */
  stacked(name: string, number: string, slaves: readonly string[], mapperName?: string): void {
    const folder = `sys/devices/virtual/${name}`;
    this.#device(number, folder);
    mkdirSync(join(this.root, folder, 'slaves'), { recursive: true });
    for (const slave of slaves)
      symlinkSync(join(this.root, 'sys/devices', slave), join(this.root, folder, 'slaves', slave.replaceAll('/', '!')));
    if (mapperName !== undefined) this.#put(`${folder}/dm/name`, `${mapperName}\n`);
  }

  loop(name: string, number: string, backing: string): void {
    this.#device(number, `sys/devices/virtual/${name}`);
    this.#put(`sys/devices/virtual/${name}/loop/backing_file`, `${backing}\n`);
  }

  btrfs(uuid: string, devices: Readonly<Record<string, string>>): void {
    for (const [name, number] of Object.entries(devices))
      this.#put(`sys/fs/btrfs/${uuid}/devices/${name}/dev`, `${number}\n`);
  }

  mount(point: string, device: string, type: string, source: string, options = 'rw'): void {
    mkdirSync(this.path(point), { recursive: true });
    const escaped = this.path(point).replaceAll(' ', '\\040');
    this.#mounts += `2 1 ${device} / ${escaped} rw,noatime shared:7 - ${type} ${source} ${options}\n`;
  }

  swap(file: string): void {
    this.#put('swaps', `Filename Type Size Used Priority\n${file} file 1000 0 -2\n`);
  }

  ownLuns(): OwnLuns {
    this.#put('mountinfo', this.#mounts);
    return new OwnLuns(() => volumes, {
      sys: join(this.root, 'sys'),
      mountinfo: join(this.root, 'mountinfo'),
      swaps: join(this.root, 'swaps'),
    });
  }
}

let machine: Machine;
beforeEach(() => {
  machine = new Machine();
});
afterEach(() => rmSync(machine.root, { recursive: true }));

/** What is said of a pool in this folder, from the way down on; null when there is nothing wrong with it. */
function refusal(name: string, files: readonly string[] = []): string | null {
  const dir = machine.path(name);
  mkdirSync(dir, { recursive: true });
  try {
    machine.ownLuns().requireForeign(dir, files);
    return null;
  } catch (error) {
    expect(error).toMatchObject({ code: 'EDEADLK' });
    return (error as Error).message.replaceAll(`${machine.root}/files`, '').split('wait for itself: ')[1]!;
  }
}

const WHOSE = 'which is the volume "vol" of the pool "fast" that this process serves';

describe('a pool on a LUN of its own process', () => {
  test('is told from one on a disk of the machine', () => {
    expect(refusal('srv/pool')).toBeNull();
    expect(machine.ownLuns().liesOnLun(machine.path('srv/pool'))).toBe(false);
  });

  test('is found through a file system on a partition', () => {
    machine.mount('mnt/on lun', '8:17', 'ext4', '/dev/sdb1');
    expect(refusal('mnt/on lun/deep/pool')).toBe(`/mnt/on lun/deep/pool is on /dev/sdb1 is on /dev/sdb, ${WHOSE}`);
    expect(machine.ownLuns().liesOnLun(machine.path('mnt/on lun/deep/pool'))).toBe(true);
  });

  test('is not found where another file system is mounted over it', () => {
    machine.mount('mnt', '8:17', 'ext4', '/dev/sdb1');
    machine.mount('mnt/inner', '8:1', 'ext4', '/dev/sda1');
    expect(refusal('mnt/inner/pool')).toMatch(/inner/); // the way to it leads over the LUN
    machine.mount('mnt', '8:1', 'ext4', '/dev/sda1');
    expect(refusal('mnt/pool')).toBeNull();
  });

  test('is found through LVM on md on the disk', () => {
    machine.stacked('md0', '9:0', ['host0/sda/sda1', 'host0/sdb']);
    machine.stacked('dm-3', '253:3', ['virtual/md0'], 'vg-pool');
    machine.mount('mnt', '253:3', 'xfs', '/dev/mapper/vg-pool');
    expect(refusal('mnt/pool')).toBe(`/mnt/pool is on /dev/mapper/vg-pool is on /dev/md0 is on /dev/sdb, ${WHOSE}`);
  });

  test('is found through a file on its file system that is a loop device', () => {
    machine.mount('mnt', '8:16', 'ext4', '/dev/sdb');
    machine.loop('loop4', '7:4', machine.path('mnt/image'));
    machine.mount('inner', '7:4', 'ext4', '/dev/loop4');
    expect(refusal('inner/pool')).toBe(`/inner/pool is on /dev/loop4 is on /mnt/image is on /dev/sdb, ${WHOSE}`);
  });

  test('is found where only its data is there, by a symbolic link', () => {
    machine.mount('mnt', '8:16', 'ext4', '/dev/sdb');
    mkdirSync(machine.path('srv/pool'), { recursive: true });
    writeFileSync(machine.path('mnt/data'), '');
    symlinkSync('../elsewhere/data', machine.path('srv/pool/data'));
    symlinkSync(machine.path('mnt'), machine.path('srv/elsewhere'));
    expect(refusal('srv/pool')).toBe(`/srv/pool/data is on /dev/sdb, ${WHOSE}`);
  });

  test('is found where an external origin is there', () => {
    machine.mount('mnt', '8:16', 'ext4', '/dev/sdb');
    expect(refusal('srv/pool', [machine.path('mnt/image')])).toBe(`/mnt/image is on /dev/sdb, ${WHOSE}`);
  });

  test('is found on the second device of a btrfs, and on the journal of an xfs', () => {
    machine.btrfs('1234', { sda1: '8:1', sdb: '8:16' });
    machine.mount('mnt/btrfs', '0:44', 'btrfs', '/dev/sda1');
    expect(refusal('mnt/btrfs/pool')).toBe(`/mnt/btrfs/pool is on /dev/sdb, ${WHOSE}`);
    machine.mount('logs', '8:16', 'ext4', '/dev/sdb');
    machine.mount('mnt/xfs', '8:1', 'xfs', '/dev/sda1', `rw,logdev=${machine.path('logs/file')},noquota`);
    expect(refusal('mnt/xfs/pool')).toContain(`is on /dev/sdb, ${WHOSE}`);
  });

  test('is found on the upper folder of an overlay', () => {
    machine.mount('lun', '8:16', 'ext4', '/dev/sdb');
    const options = `rw,lowerdir=/usr:/opt,upperdir=${machine.path('lun/up')},workdir=${machine.path('lun/work')}`;
    machine.mount('merged', '0:50', 'overlay', 'overlay', options);
    expect(refusal('merged/pool')).toContain(`is on /dev/sdb, ${WHOSE}`);
  });

  test('is allowed on a LUN of another process', () => {
    machine.disk('sdc', '8:32', 'THINLUN', '6f0000000000000000000000000fffff');
    machine.mount('mnt', '8:32', 'ext4', '/dev/sdc');
    expect(refusal('mnt/pool')).toBeNull();
    expect(machine.ownLuns().liesOnLun(machine.path('mnt/pool'))).toBe(true);
  });

  test('mounts and links that lead to themselves come to an end', () => {
    machine.loop('loop5', '7:5', machine.path('round/image'));
    machine.mount('round', '7:5', 'ext4', '/dev/loop5');
    symlinkSync('self', machine.path('self'));
    expect(refusal('round/pool')).toBeNull();
    expect(machine.ownLuns().liesOnLun(machine.path('self/pool'))).toBe(false);
  });

  test('swap on a LUN of its own is told', () => {
    expect(machine.ownLuns().swapProblem()).toBeNull();
    machine.mount('mnt', '8:16', 'ext4', '/dev/sdb');
    machine.swap(machine.path('mnt/swapfile'));
    expect(machine.ownLuns().swapProblem()).toContain(`is on /dev/sdb, ${WHOSE}`);
  });

  test('a disk that cannot even be opened answers, in its way', async () => {
    machine.mount('mnt', '8:16', 'ext4', '/dev/sdb');
    await machine.ownLuns().requireAnswers(machine.path('mnt/pool'), new TestClock());
  });
});
