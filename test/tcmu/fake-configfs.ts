import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** What a group of LIO says; the defaults are those of a new one. */
export interface GroupFiles {
  /** Null: none was given yet. */
  readonly id: number | null;
  readonly state?: number;
  readonly type?: string;
  readonly status?: string;
  readonly preferred?: number;
  readonly transitionSeconds?: number;
  readonly unsupported?: readonly string[];
  readonly members?: readonly string[];
}

const STATES = [
  'active_nonoptimized',
  'active_optimized',
  'lba_dependent',
  'offline',
  'standby',
  'transitioning',
  'unavailable',
];

/** Writes the folder of a target port group, with the texts of the kernel. */
export function makeGroup(devicePath: string, name: string, files: GroupFiles): void {
  const folder = join(devicePath, 'alua', name);
  mkdirSync(folder, { recursive: true });
  const write = (file: string, text: string | number): void => writeFileSync(join(folder, file), `${text}\n`);
  write('tg_pt_gp_id', files.id ?? '');
  write('alua_access_state', files.state ?? 0);
  write('alua_access_status', files.status ?? 'None');
  write('alua_access_type', files.type ?? 'Implicit and Explicit');
  write('preferred', files.preferred ?? 0);
  write('implicit_trans_secs', files.transitionSeconds ?? 0);
  const unsupported = files.unsupported ?? [];
  for (const state of STATES) {
    write(`alua_support_${state}`, state === 'lba_dependent' || unsupported.includes(state) ? 0 : 1);
  }
  writeFileSync(join(folder, 'members'), (files.members ?? []).map((member) => `${member}\n\0`).join(''));
}

/** Writes the folder of a LUN; `enabled` null: of a fabric that has no such switch. */
export function makeLun(root: string, portal: string, lun: number, portId: number, enabled: boolean | null): void {
  const folder = join(root, portal, 'lun', `lun_${lun}`, 'statistics/scsi_port');
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, 'indx'), `${portId}\n`);
  if (enabled !== null) writeFileSync(join(root, portal, 'enable'), enabled ? '1\n' : '0\n');
}
