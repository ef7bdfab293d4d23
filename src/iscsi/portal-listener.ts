import { createServer, type Server } from 'node:net';
import { StorageError, wrapError } from '../base/errors.ts';

/** An address that the portal listens on. */
export interface PortalListener {
  /** As it is bound: a numeric address without brackets, `0.0.0.0` and `::` for all addresses; IPv6 may have a zone. */
  readonly host: string;
  readonly port: number;
  /** Of the portal group that it belongs to (RFC 7143 4.4.1); also the relative target port identifier. */
  readonly tag: number;
}

/** A numeric address as it is said to others: without the zone, which means something on this machine only, and IPv4 as IPv4. */
export function plainAddress(host: string): string {
  const zone = host.indexOf('%');
  return (zone < 0 ? host : host.slice(0, zone)).replace(/^::ffff:(?=\d+\.)/i, '');
}

/** `host:port` with brackets around an IPv6 address. */
export function formatAddress(host: string, port: number): string {
  return `${host.includes(':') ? `[${host}]` : host}:${port}`;
}

/** Where the portal listens, and the same as text: `host:port`. */
export interface BoundPortal extends PortalListener {
  readonly address: string;
}

export function boundPortal(listener: PortalListener): BoundPortal {
  return { address: formatAddress(listener.host, listener.port), ...listener };
}

/** A server that listens as `options` of `Server.listen` say, and accepts nothing before it has a listener. Throws `StorageError` about `where`. */
export async function listening(where: string, options: object): Promise<Server> {
  const server = createServer({
    pauseOnConnect: true,
    noDelay: true,
    keepAlive: true,
    keepAliveInitialDelay: 60_000,
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error) => {
      const inUse = (error as NodeJS.ErrnoException).code === 'EADDRINUSE';
      const action = `Cannot listen on ${where}`;
      reject(inUse ? new StorageError('EBUSY', `${action}: the address is in use`) : wrapError(action, error));
    });
    server.listen(options, resolve);
  });
  return server;
}

/**
 * The values of TargetAddress for an initiator that came to the address `local` (RFC 7143 13.8): every portal with the tag of its group. In place of "all addresses"
 * stands `local`, of which it is known that it can be reached; addresses that mean something else to another machine (loopback, link-local) are
 * only told to who came by one of the same kind.
 */
export function targetAddresses(listeners: readonly PortalListener[], local: string): string[] {
  const own = plainAddress(local);
  const addresses = new Set<string>();
  for (const { host, port, tag } of listeners) {
    let told = plainAddress(host);
    if (told === '::' || (told === '0.0.0.0' && !own.includes(':'))) told = own;
    if (told === '0.0.0.0') continue;
    if ((isLoopback(told) && !isLoopback(own)) || (isLinkLocal(told) && !isLinkLocal(own))) continue;
    addresses.add(`${formatAddress(told, port)},${tag}`);
  }
  return [...addresses];
}

function isLoopback(address: string): boolean {
  return address === '::1' || address.startsWith('127.');
}

function isLinkLocal(address: string): boolean {
  return /^(?:fe[89ab]|169\.254\.)/i.test(address);
}
