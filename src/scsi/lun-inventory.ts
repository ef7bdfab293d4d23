import type { Command } from './command.ts';
import type { LogicalUnit } from './logical-unit.ts';
import type { Nexus } from './nexus.ts';

/** What a command may tell about the target around its unit: the target's business, or of a unit that stands alone, only itself. */
export interface LunInventory {
  /** The LUNs that are there for `nexus`, ascending. */
  luns(nexus: Nexus): readonly number[];
  /** The unit that `nexus` finds at `lun`; undefined when there is none for it. */
  unit(nexus: Nexus, lun: number): LogicalUnit | undefined;
  /** The unit for `nexus` whose NAA designator (VPD page 83h) is `naa`; undefined when there is none for it. */
  find(nexus: Nexus, naa: Uint8Array): LogicalUnit | undefined;
  /** REPORT LUNS has told this nexus what changed: takes REPORTED LUNS DATA HAS CHANGED back at every unit of the target. */
  inventoryReported(command: Command): void;
}
