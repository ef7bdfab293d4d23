import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { netlinkWaiters } from '../../src/tcmu/kernel-waiters.ts';
import { portIdOf, readNetlinkCompany } from '../../src/tcmu/netlink-company.ts';
import { KernelFiles } from './kernel-files.ts';

let files: KernelFiles;
beforeEach(() => {
  files = new KernelFiles(mkdtempSync(join(tmpdir(), 'thinlun-proc-')));
});
afterEach(() => rmSync(files.root, { recursive: true }));

const GROUP = 8;
const OWN_INODE = 140;

/** Sockets as /proc/net/netlink shows them. */
function sockets(rows: [protocol: number, port: number, groups: string, drops: number, inode: number][]): void {
  const lines = rows.map(
    ([protocol, port, groups, drops, inode]) =>
      `0000000079d6ee2d ${String(protocol).padEnd(3)} ${String(port).padEnd(10)} ${groups} 0        0        0     2        ${String(drops).padEnd(8)} ${String(inode).padEnd(8)}`,
  );
  const head = 'sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode';
  files.write('proc/net/netlink', `${[head, ...lines].join('\n')}\n`);
}

describe('who else listens for events', () => {
  test('is nobody when only our own socket is in the group', () => {
    sockets([
      [16, 0, '00000000', 0, 4],
      [16, portIdOf(838), '00000080', 12, OWN_INODE],
      [0, 838, '00000080', 0, 141],
      [16, 900, '00000040', 0, 142],
    ]);
    expect(readNetlinkCompany(files.paths.proc, GROUP, OWN_INODE)).toEqual({ friends: 0, strangers: [], drops: 12 });
  });

  test('is another thinlun by its port id, and everybody else by the name of the process', () => {
    files.addThread(901, 'node', 'S');
    files.addThread(882, 'tcmu-runner', 'S');
    files.addThread(883, 'tcmu-runner', 'S');
    const libnl = 281 * 2 ** 22 + 882;
    sockets([
      [16, portIdOf(838), '00000080', 0, OWN_INODE],
      [16, portIdOf(901), '00000084', 0, 150],
      [16, libnl, '00000080', 0, 151],
      [16, portIdOf(883), '00000080', 0, 152],
      [16, 77, '00000080', 0, 153],
    ]);
    expect(readNetlinkCompany(files.paths.proc, GROUP, OWN_INODE)).toEqual({
      friends: 1,
      strangers: [
        { portId: libnl, name: 'tcmu-runner' },
        { portId: portIdOf(883), name: 'tcmu-runner' },
        { portId: 77, name: 'process 77' },
      ],
      drops: 0,
    });
  });

  test('is not known where the kernel does not show it', () => {
    expect(readNetlinkCompany(files.paths.proc, GROUP, OWN_INODE)).toBeNull();
    sockets([[16, 77, 'ffffffff', 0, 153]]);
    expect(readNetlinkCompany(files.paths.proc, 33, OWN_INODE)).toBeNull();
    expect(readNetlinkCompany(files.paths.proc, 32, OWN_INODE)?.strangers).toHaveLength(1);
  });

  test('a port id is 32 bits, whatever the process id', () => {
    for (const pid of [1, 2 ** 22 - 1]) expect(portIdOf(pid)).toBeLessThan(2 ** 31);
    expect(new Set([1, 2, 4_000_000].map(portIdOf)).size).toBe(3);
  });
});

describe('threads that wait for an answer', () => {
  test('are found by where they sleep, in D state only', () => {
    files.addThread(10, 'rmdir', 'D', { wchan: 'tcmu_netlink_event_send' });
    files.addThread(11, 'targetcli', 'D', {
      stack: '[<0>] wait\n[<0>] tcmu_netlink_event_send+0x225/0x2c1 [target_core_user]\n',
    });
    files.addThread(15, 'rmdir', 'D', { wchan: 'schedule', stack: '[<0>] tcmu_netlink_event_send+0x1/0x2\n' });
    files.addThread(12, 'dd', 'D', { wchan: 'io_schedule' });
    files.addThread(13, 'bash', 'S', { wchan: 'tcmu_netlink_event_send' });
    expect(netlinkWaiters(files.paths.proc)).toEqual(new Set(['10:1010', '11:1011', '15:1015']));
  });

  test('are none, or not known where the kernel does not tell', () => {
    expect(netlinkWaiters(files.paths.proc)).toEqual(new Set());
    files.addThread(13, 'bash', 'S');
    expect(netlinkWaiters(files.paths.proc)).toEqual(new Set());
    files.addThread(14, 'dd', 'D');
    expect(netlinkWaiters(files.paths.proc)).toBeNull();
  });
});
