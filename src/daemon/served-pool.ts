import type { Target } from '../scsi/target.ts';
import type { ControlServer } from './control-server.ts';
import type { PoolService } from './pool-service.ts';

/** A pool of a server, with its target and its control socket. */
export interface ServedPool {
  readonly dir: string;
  readonly service: PoolService;
  readonly target: Target;
  control: ControlServer | null;
}

/** A pool that could not be opened, or has failed since. */
export interface PoolFailure {
  readonly dir: string;
  readonly error: unknown;
}
