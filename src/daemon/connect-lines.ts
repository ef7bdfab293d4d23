import type { PortalsMessage } from './control-messages.ts';
import { formatPortal, type PortalAddress, reachableFrom } from './portal-address.ts';

export interface ConnectLine {
  readonly program: string;
  /** To be typed as they are. */
  readonly commands: readonly string[];
}

/** How initiators on this machine reach a volume of the portal. `lun` is null while the target has none. */
export function connectLines(portal: PortalAddress, target: string, lun: number | null): ConnectLine[] {
  const at = formatPortal(reachableFrom(portal));
  const lines: ConnectLine[] = [
    {
      program: 'open-iscsi',
      commands: [
        `sudo iscsiadm -m discovery -t sendtargets -p ${at}`,
        `sudo iscsiadm -m node -T ${target} -p ${at} --login`,
        `sudo iscsiadm -m node -T ${target} -p ${at} --logout`,
      ],
    },
  ];
  if (lun !== null) {
    const url = `iscsi://${at}/${target}/${lun}`;
    lines.push({ program: 'qemu-img', commands: [`qemu-img info ${url}`] });
    lines.push({ program: 'libiscsi', commands: [`iscsi-ls -s iscsi://${at}`, `iscsi-inq ${url}`] });
  } else {
    lines.push({ program: 'libiscsi', commands: [`iscsi-ls -s iscsi://${at}`] });
  }
  return lines;
}

/** The portals of a server for people; with the tags of their groups when there are several. */
export function describePortals({ portals, portalGroups }: PortalsMessage): string[] {
  if (portalGroups.length <= 1) return portals;
  return portalGroups.flatMap((group) => group.portals.map((portal) => `${portal},${group.tag}`));
}
