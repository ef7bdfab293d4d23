import { resolve } from 'node:path';
import { errnoOf, messageOf } from '../base/errors.ts';
import type { Portal } from '../iscsi/portal.ts';
import type { BoundPortal } from '../iscsi/portal-listener.ts';
import type { PortalsMessage, ServerMessage } from './control-messages.ts';
import { targetNameOf } from './iscsi-name.ts';
import type { PoolService } from './pool-service.ts';
import type { ProcessProtection } from './protection-message.ts';
import type { ReadyMessage, TakeoverMessage } from './ready-message.ts';
import type { PoolFailure, ServedPool } from './served-pool.ts';
import type { TcmuFrontEnd } from './tcmu-front-end.ts';
import { poolTcmuMessage } from './tcmu-messages.ts';
import { VERSION } from './version.ts';

/** What a server consists of, to be told of. */
export interface ServerParts {
  readonly pools: readonly ServedPool[];
  readonly portal: Portal | null;
  readonly listeners: readonly BoundPortal[];
  /** Tags of the portal groups; none without portals. */
  readonly targetPorts: readonly number[];
  readonly lio: TcmuFrontEnd | null;
  readonly tcmu: boolean;
  readonly protection: ProcessProtection | null;
  readonly failures: readonly PoolFailure[];
  readonly takeover: TakeoverMessage | null;
}

/** What is served, and where, for who has started it. */
export async function readyMessage(parts: ServerParts): Promise<ReadyMessage> {
  const pools = [];
  for (const { service, target } of parts.pools) {
    const { name, uuid, directory, mode, access } = await service.status();
    pools.push({ name, uuid, directory, target: target.name, mode, access, volumes: await service.listVolumes() });
  }
  const failed = parts.failures.map(({ dir, error }) => ({
    directory: resolve(dir),
    code: errnoOf(error),
    message: messageOf(error),
  }));
  const { tcmu, takeover } = parts;
  return { event: 'ready', pid: process.pid, version: VERSION, ...portalsOf(parts), tcmu, pools, failed, takeover };
}

/** One line for who looks at the process. */
export function summaryLine({ pools, listeners, lio, failures }: ServerParts): string {
  const names = pools.map(({ service }) => service.pool.name);
  const lines = [names.length === 0 ? 'No pool' : `Serving ${names.join(', ')}`];
  if (listeners.length > 0) lines.push(`portal ${listeners.map(({ address }) => address).join(' ')}`);
  if (lio !== null) lines.push(`${lio.status().devices.length} TCMU devices`);
  if (failures.length > 0) lines.push(`${failures.length} pools have failed`);
  return lines.join('; ');
}

/** The server as one of its pools shows it. */
export function serverMessage(parts: ServerParts, { pool, exports }: PoolService): ServerMessage {
  const target = targetNameOf(pool.name);
  const sessions = [];
  for (const { target: name, initiator, user, authentication, luns } of parts.portal?.sessions() ?? []) {
    if (name !== target) continue;
    sessions.push({ initiator, user, authentication, volumes: luns.flatMap((lun) => exports?.volumeAt(lun) ?? []) });
  }
  const { lio, tcmu, protection } = parts;
  const tcmuDevices = lio === null ? null : poolTcmuMessage(lio.status(), pool.name);
  const about = { pid: process.pid, version: VERSION, target, ...portalsOf(parts) };
  return { ...about, tcmu, tcmuDevices, protection, sessions };
}

function portalsOf({ listeners, targetPorts }: ServerParts): PortalsMessage {
  return {
    portals: listeners.map(({ address }) => address),
    portalGroups: targetPorts.map((tag) => ({
      tag,
      portals: listeners.filter((listener) => listener.tag === tag).map(({ address }) => address),
    })),
  };
}
