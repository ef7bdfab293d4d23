import { messageOf, StorageError } from '../base/errors.ts';
import { AdvisedError } from './advised-error.ts';
import { formatPortal, type PortalAddress } from './portal-address.ts';

/** Why a portal could not listen, with what can be done about it. */
export function listenFailure(address: PortalAddress, error: unknown): unknown {
  const { code, cause } = error as { code?: string; cause?: { code?: string } };
  const where = formatPortal(address);
  const next = formatPortal({ host: address.host, port: address.port + 1 });
  switch (cause?.code ?? code) {
    case 'EBUSY':
      return new AdvisedError(
        'EBUSY',
        `Cannot listen on ${where}: another program listens there`,
        `Choose another port with --portal ${next}, or find that program with "ss -ltnp".`,
      );
    case 'EACCES':
      return new AdvisedError(
        'EACCES',
        `Cannot listen on ${where}: ports below 1024 are for root`,
        'Choose another port with --portal, as in --portal 127.0.0.1:3260.',
      );
    case 'EADDRNOTAVAIL':
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
      return new AdvisedError(
        'EINVAL',
        `Cannot listen on ${where}: this machine has no such address`,
        'See its addresses with "ip address"; 0.0.0.0 and [::] mean all of them.',
      );
    default:
      return new StorageError('EIO', `Cannot listen on ${where}: ${messageOf(error)}`, { cause: error });
  }
}
