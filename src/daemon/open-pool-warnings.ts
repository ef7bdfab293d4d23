import type { Logger } from '../base/log.ts';
import type { BoundPortal } from '../iscsi/portal-listener.ts';
import type { PoolService } from './pool-service.ts';
import { isLoopback } from './portal-address.ts';

/** For who made a portal reachable and has said nothing about who may use it. */
export class OpenPoolWarnings {
  readonly #logger: Logger;
  /** Folders of pools that everybody was warned of. */
  readonly #warnedOf: Set<string> = new Set();

  constructor(logger: Logger) {
    this.#logger = logger;
  }

  /** Warns once of every pool that is open to whoever reaches one of the portals. */
  look(
    listeners: readonly BoundPortal[],
    pools: Iterable<{ readonly dir: string; readonly service: PoolService }>,
  ): void {
    const reachable = listeners.filter(({ host }) => !isLoopback(host)).map(({ address }) => address);
    if (reachable.length === 0) return;
    for (const { dir, service } of pools) {
      if (!service.access.summary().open) this.#warnedOf.delete(dir);
      else if (!this.#warnedOf.has(dir)) this.#warnOf(dir, reachable);
    }
  }

  #warnOf(dir: string, portals: readonly string[]): void {
    this.#warnedOf.add(dir);
    this.#logger.warn(
      { pool: dir, portals },
      'whoever reaches the portal can read and write every volume: see "thinlun access allow --help"',
    );
  }
}
