import { isIPv4, isIPv6 } from 'node:net';
import { StorageError } from '../base/errors.ts';

export const ISCSI_PORT = 3260;
/** Where a server listens unless it is told. */
export const DEFAULT_PORTAL = '127.0.0.1:3260';

export interface PortalAddress {
  /** Name or address, without brackets. */
  readonly host: string;
  /** 0 lets the system choose. */
  readonly port: number;
}

/** A portal and the portal group that it belongs to. */
export interface ServedPortal extends PortalAddress {
  /** Portal group tag; also the relative target port identifier of the group's target port. */
  readonly tag: number;
}

/** `PORTAL` or `PORTAL,TAG` with the tag of its portal group, 1 unless it is given. Throws EINVAL. */
export function parseServedPortal(text: string): ServedPortal {
  const comma = text.lastIndexOf(',');
  if (comma < 0) return { ...parsePortal(text), tag: 1 };
  const tag = Number(text.slice(comma + 1));
  if (!/^\d{1,5}$/.test(text.slice(comma + 1)) || tag < 1 || tag > 65535) {
    throw new StorageError(
      'EINVAL',
      `Cannot read portal "${text}": the tag of a portal group is a number from 1 to 65535`,
    );
  }
  return { ...parsePortal(text.slice(0, comma)), tag };
}

/** `HOST`, `HOST:PORT`, `[IPV6]` or `[IPV6]:PORT`; an IPv6 address may have a zone. Throws EINVAL. */
export function parsePortal(text: string): PortalAddress {
  const match = /^(?:\[([0-9a-fA-F:.%a-z]+)\]|([^\s:[\]/,]+))(?::(\d{1,5}))?$/.exec(text);
  const host = match?.[1] ?? match?.[2];
  const port = match?.[3] === undefined ? ISCSI_PORT : Number(match[3]);
  if (host === undefined || (match?.[1] !== undefined && !isIPv6(host))) {
    throw new StorageError(
      'EINVAL',
      `Cannot read portal "${text}": expected HOST:PORT, as in 127.0.0.1:3260 or [::1]:3260`,
    );
  }
  if (port > 65535) throw new StorageError('EINVAL', `Cannot read portal "${text}": a port is at most 65535`);
  return { host, port };
}

/** `host:port`, with brackets around an IPv6 address. */
export function formatPortal({ host, port }: PortalAddress): string {
  return `${isIPv6(host) ? `[${host}]` : host}:${port}`;
}

/** Whether only this machine can reach it. */
export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || (isIPv4(host) && host.startsWith('127.'));
}

/** Where an initiator on this machine connects to: the loopback address in place of "all addresses". */
export function reachableFrom({ host, port }: PortalAddress): PortalAddress {
  if (host === '0.0.0.0') return { host: '127.0.0.1', port };
  if (host === '::') return { host: '::1', port };
  return { host, port };
}
