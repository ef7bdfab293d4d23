import { readFileSync } from 'node:fs';
import { join } from 'node:path';

/*
 * Who listens for TCMU events besides us. The kernel takes the first answer to an event, whoever gives it, and applies a second one to
 * whatever the device waits for by then; so it matters who else may answer. /proc/net/netlink has a line for each socket:
 *
 *   sk  Eth (protocol)  Pid (port id)  Groups (the first 32, hexadecimal)  Rmem  Wmem  Dump  Locks  Drops  Inode
 *
 * A port id is the process's id by default (the kernel's choice), or has it in its lower 22 bits (libnl, and ours).
 */

const NETLINK_GENERIC = '16';
const PID_BITS = 22;
/** The upper bits of the port ids of thinlun processes, by which they know each other. */
const OUR_PORT_TAG = 0x15a;
/** libnl chooses the upper bits at random. */
const NEVER_OURS = 'tcmu-runner';

export interface NetlinkCompany {
  /** Other thinlun processes: each answers for what it serves, and for nothing else. */
  readonly friends: number;
  /** Others, which may answer for anything: tcmu-runner refuses what it does not know. */
  readonly strangers: readonly { readonly portId: number; readonly name: string }[];
  /** Events that our own socket had no room for. */
  readonly drops: number;
}

/** The port id by which other thinlun processes know one. */
export function portIdOf(pid: number): number {
  return OUR_PORT_TAG * 2 ** PID_BITS + (pid % 2 ** PID_BITS);
}

/** Null when the file is not there, or does not show this group. `ownInode` is that of our socket. */
export function readNetlinkCompany(proc: string, groupId: number, ownInode: number): NetlinkCompany | null {
  if (groupId < 1 || groupId > 32) return null;
  let text: string;
  try {
    text = readFileSync(join(proc, 'net', 'netlink'), 'utf8');
  } catch {
    return null;
  }
  let friends = 0;
  let drops = 0;
  const strangers: { portId: number; name: string }[] = [];
  for (const line of text.split('\n')) {
    const [, protocol, port, groups, , , , , dropped, inode] = line.trim().split(/\s+/);
    if (protocol !== NETLINK_GENERIC || inode === undefined) continue;
    if (Number(inode) === ownInode) {
      drops = Number(dropped);
      continue;
    }
    if (Math.floor(Number.parseInt(groups!, 16) / 2 ** (groupId - 1)) % 2 === 0) continue;
    const portId = Number(port);
    const pid = portId % 2 ** PID_BITS;
    const name = commandOf(proc, pid);
    if (portId === portIdOf(pid) && name !== NEVER_OURS) friends++;
    else strangers.push({ portId, name: name ?? `process ${pid}` });
  }
  return { friends, strangers, drops };
}

function commandOf(proc: string, pid: number): string | null {
  try {
    return readFileSync(join(proc, String(pid), 'comm'), 'utf8').trim();
  } catch {
    return null;
  }
}
