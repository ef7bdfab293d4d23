import type { Clock } from '../base/clock.ts';
import type { Logger } from '../base/log.ts';
import type { TargetDirectory } from './access.ts';
import type { RandomBytes } from './authentication.ts';
import type { DataMemory } from './data-memory.ts';
import type { InputChunks } from './input-chunks.ts';
import type { PortalLimits } from './limits.ts';
import type { PortalListener } from './portal-listener.ts';
import type { SessionTable } from './session-table.ts';
import type { ArenaPool } from './transmitter.ts';

/** What the connections of a portal share. */
export interface ConnectionContext {
  readonly limits: PortalLimits;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly targets: TargetDirectory;
  readonly randomBytes: RandomBytes;
  /** Everywhere that the portal listens. */
  readonly listeners: readonly PortalListener[];
  readonly memory: DataMemory;
  readonly arenas: ArenaPool;
  /** Where connections receive. */
  readonly input: InputChunks;
  readonly sessionTable: SessionTable;
  /** The login phase of a connection is over. */
  loginEnded(): void;
}
