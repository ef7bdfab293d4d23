import { resolve } from 'node:path';
import { errnoOf, messageOf } from '../base/errors.ts';
import type { Portal } from '../iscsi/portal.ts';
import type { BoundPortal } from '../iscsi/portal-listener.ts';
import type { Target } from '../scsi/target.ts';
import type { PortalsMessage, ServerMessage } from './control-messages.ts';
import type { PoolService } from './pool-service.ts';
import type { ProcessProtection } from './process-protection.ts';
import type { ReadyMessage, TakeoverMessage } from './ready-message.ts';
import type { TcmuFrontEnd } from './tcmu-front-end.ts';
import { poolTcmuMessage } from './tcmu-messages.ts';
import { VERSION } from './version.ts';

export interface PoolFailure {
  readonly dir: string;
  readonly error: unknown;
}

/** A server, as it can be described. */
export interface DescribedServer {
  readonly pools: ReadonlyMap<string, { readonly service: PoolService; readonly target: Target }>;
  readonly failures: readonly PoolFailure[];
  readonly tcmu: boolean;
  readonly listeners: readonly BoundPortal[];
  /** Tags of the portal groups. */
  readonly tags: readonly number[];
  readonly portal: Portal | null;
  readonly lio: TcmuFrontEnd | null;
  readonly takeover: TakeoverMessage | null;
  readonly protection: ProcessProtection | null;
}

/** What is served, and where. */
export async function describeReady(server: DescribedServer): Promise<ReadyMessage> {
  const { tcmu, takeover, failures } = server;
  const pools = [];
  for (const { service, target } of server.pools.values()) {
    const { name, uuid, directory, mode, access } = await service.status();
    pools.push({ name, uuid, directory, target: target.name, mode, access, volumes: await service.listVolumes() });
  }
  const failed = failures.map(({ dir, error }) => ({
    directory: resolve(dir),
    code: errnoOf(error),
    message: messageOf(error),
  }));
  return { event: 'ready', ...aboutServer(server), tcmu, pools, failed, takeover };
}

/** The server, as one of its targets is concerned. */
export function describeServer(server: DescribedServer, target: string): ServerMessage {
  const sessions = [];
  for (const { target: name, initiator, user, authentication, luns } of server.portal?.sessions() ?? []) {
    if (name !== target) continue;
    const { exports } = server.pools.get(target)!.service;
    sessions.push({ initiator, user, authentication, volumes: luns.flatMap((lun) => exports?.volumeAt(lun) ?? []) });
  }
  const { tcmu, lio, protection } = server;
  const name = server.pools.get(target)?.service.pool.name;
  const tcmuDevices = lio === null || name === undefined ? null : poolTcmuMessage(lio.status(), name);
  return { ...aboutServer(server), target, tcmu, tcmuDevices, protection, sessions };
}

/** One line for who looks at the process. */
export function summarize({ pools, listeners, lio, failures }: DescribedServer): string {
  const names = [...pools.values()].map(({ service }) => service.pool.name);
  const parts = [names.length === 0 ? 'No pool' : `Serving ${names.join(', ')}`];
  if (listeners.length > 0) parts.push(`portal ${listeners.map(({ address }) => address).join(' ')}`);
  if (lio !== null) parts.push(`${lio.status().devices.length} TCMU devices`);
  if (failures.length > 0) parts.push(`${failures.length} pools have failed`);
  return parts.join('; ');
}

function aboutServer({ listeners, tags, portal }: DescribedServer): PortalsMessage & { pid: number; version: string } {
  return {
    pid: process.pid,
    version: VERSION,
    portals: listeners.map(({ address }) => address),
    portalGroups: (portal === null ? [] : tags).map((tag) => ({
      tag,
      portals: listeners.filter((listener) => listener.tag === tag).map(({ address }) => address),
    })),
  };
}
