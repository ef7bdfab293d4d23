import { readdir, readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { errnoOf, StorageError, wrapError } from '../base/errors.ts';
import { SupportedStates, type TargetPortGroup } from '../scsi/front-end.ts';
import { MAX_GROUP_PORTS, MAX_GROUPS, MAX_PORTS } from '../scsi/target-port-groups.ts';
import type { ConfigfsDevice } from './configfs.ts';

/*
 * What LIO knows of asymmetric access to a backstore, and refuses commands by, but leaves to its handler to report:
 *
 *   core/user_<hba>/<device>/attrib/alua_support     0: LIO lets everything through
 *   core/user_<hba>/<device>/alua/<group>/
 *     tg_pt_gp_id                 empty until somebody has given one
 *     alua_access_state           a number; writable where alua_access_type has Implicit
 *     alua_access_status          None, Altered by Explicit STPG, Altered by Implicit ALUA; writable as a number
 *     alua_access_type            None, Implicit, Explicit, Implicit and Explicit
 *     alua_support_<state>        0 or 1
 *     preferred, implicit_trans_secs
 *     members                     a line for each LUN, with a NUL behind it: <fabric>/<wwn>/tpgt_<tag>/lun_<number>
 *   <fabric>/<wwn>/tpgt_<tag>/
 *     enable                      0: nobody gets in; fabrics without it are always there
 *     lun/lun_<number>/statistics/scsi_port/indx    relative target port identifier; 0 where the fabric has none, as tcm_loop
 *
 * A ring entry does not say through which of the ports its command came.
 */

export interface LioGroup extends TargetPortGroup {
  /** Its folder. */
  readonly name: string;
}

export interface LioAlua {
  /** In the order of their identifiers; none when LIO does not look at them. */
  readonly groups: readonly LioGroup[];
  /** The group that all ports are in that an initiator can come through; -1 when they are in several. */
  readonly ownGroup: number;
  /** Identifier of the only such port; 0 when there are several, or it has none. */
  readonly onlyPort: number;
}

export const NO_ALUA: LioAlua = { groups: [], ownGroup: -1, onlyPort: 0 };

const STATES: readonly (readonly [string, number])[] = [
  ['active_optimized', SupportedStates.ACTIVE_OPTIMIZED],
  ['active_nonoptimized', SupportedStates.ACTIVE_NON_OPTIMIZED],
  ['standby', SupportedStates.STANDBY],
  ['unavailable', SupportedStates.UNAVAILABLE],
  ['lba_dependent', SupportedStates.LBA_DEPENDENT],
  ['offline', SupportedStates.OFFLINE],
  ['transitioning', SupportedStates.TRANSITIONING],
];

/** Reads all of it, file after file, until `isOver`. Throws `StorageError`. */
export async function readAlua(device: ConfigfsDevice, isOver: () => boolean = () => false): Promise<LioAlua> {
  if ((await device.readNumber('alua_support')) === 0) return NO_ALUA;
  const found: FoundGroup[] = [];
  let room = MAX_PORTS;
  for (const name of await groupNames(device)) {
    if (found.length === MAX_GROUPS) break;
    const one = await readGroup(device, name, room, isOver);
    if (one === null) continue;
    room -= one.group.ports.length;
    found.push(one);
  }
  found.sort((a, b) => a.group.id - b.group.id);
  const used = found.filter(({ open }) => open.length > 0);
  const open = used.flatMap((one) => one.open);
  const own = used.length === 0 && found.length === 1 ? found[0] : used.length === 1 ? used[0] : undefined;
  return {
    groups: found.map(({ group }) => group),
    ownGroup: own?.group.id ?? -1,
    onlyPort: open.length === 1 ? open[0]! : 0,
  };
}

interface FoundGroup {
  readonly group: LioGroup;
  /** Identifiers of the ports that an initiator can come through; 0 for one that has none. */
  readonly open: readonly number[];
}

async function groupNames(device: ConfigfsDevice): Promise<string[]> {
  const path = join(device.path, 'alua');
  try {
    return (await readdir(path)).sort();
  } catch (error) {
    throw wrapError(`Cannot read ${path}`, error);
  }
}

/** Null for a group that has no identifier yet, or went away meanwhile. */
async function readGroup(
  device: ConfigfsDevice,
  name: string,
  room: number,
  isOver: () => boolean,
): Promise<FoundGroup | null> {
  const root = dirname(dirname(dirname(device.path)));
  const read = (file: string): Promise<string> => {
    if (isOver()) throw new StorageError('ESHUTDOWN', `Cannot read ${device.path}: not asked any more`);
    return device.read(`alua/${name}/${file}`);
  };
  try {
    const id = await read('tg_pt_gp_id');
    if (id === '') return null;
    const type = await read('alua_access_type');
    let supported = 0;
    for (const [state, bit] of STATES) if ((await read(`alua_support_${state}`)) === '1') supported |= bit;
    const state = numberOf(await read('alua_access_state'), 0x0f);
    const status = await read('alua_access_status');
    const preferred = (await read('preferred')) === '1';
    const transitionSeconds = numberOf(await read('implicit_trans_secs'), 0xff);
    const ports: number[] = [];
    const open: number[] = [];
    for (const member of parseMembers(await read('members'))) {
      const port = await readPort(root, member);
      if (port === null) continue;
      // An identifier of 0 is reserved (SPC-4 7.8.6.7): there is no such port to tell of.
      if (port.id > 0 && ports.length < Math.min(room, MAX_GROUP_PORTS)) ports.push(port.id);
      if (port.open) open.push(port.id);
    }
    const group: LioGroup = {
      name,
      id: numberOf(id, 0xffff),
      state,
      supported,
      preferred,
      status: status.includes('Explicit') ? 1 : status.includes('Implicit') ? 2 : 0,
      // Whatever the type: it is LIO and who configures it that change the state, or nobody.
      implicit: type.includes('Implicit') || type.includes('Explicit'),
      // LIO takes a state by configfs only where there is Implicit, too.
      explicit: type.includes('Implicit') && type.includes('Explicit'),
      transitionSeconds,
      ports,
    };
    return { group, open };
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return null;
    throw error;
  }
}

function numberOf(text: string, limit: number): number {
  const value = Number(text);
  if (text === '' || !Number.isInteger(value) || value < 0 || value > limit) {
    throw new StorageError('EINVAL', `Cannot read a target port group: "${text}" is not 0 to ${limit}`);
  }
  return value;
}

/** A LUN: the folder of its target port group (fabric, wwn, tag) and its own in there. */
export interface Member {
  readonly portal: string;
  readonly lun: string;
}

/** Lines that make no sense, or lead out of LIO's folders, are left out. */
export function parseMembers(text: string): Member[] {
  const members: Member[] = [];
  for (const line of text.split(/[\n\0]+/)) {
    const match = /^([\w-]+)\/([^/]+)\/(tpgt_\d+)\/(lun_\d+)$/.exec(line);
    if (match === null || match[2] === '.' || match[2] === '..') continue;
    const [, fabric, wwn, portal, lun] = match;
    // The one fabric that calls itself otherwise than its folder.
    members.push({ portal: `${fabric === 'iSCSI' ? 'iscsi' : fabric}/${wwn}/${portal}`, lun: lun! });
  }
  return members;
}

/** Null for a LUN that went away meanwhile. */
async function readPort(root: string, { portal, lun }: Member): Promise<{ id: number; open: boolean } | null> {
  const id = await readIfThere(join(root, portal, 'lun', lun, 'statistics/scsi_port/indx'));
  if (id === null) return null;
  const enabled = await readIfThere(join(root, portal, 'enable'));
  return { id: numberOf(id, 0xffff), open: enabled !== '0' };
}

async function readIfThere(path: string): Promise<string | null> {
  try {
    return (await readFile(path, 'utf8')).trim();
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return null;
    throw wrapError(`Cannot read ${path}`, error);
  }
}
