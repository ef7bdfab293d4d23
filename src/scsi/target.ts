import { assert } from '../base/assert.ts';
import type { LunBackend } from '../block/lun-backend.ts';
import type { Command, LunInventory } from './command.ts';
import { ABSENT_COMMANDS } from './commands.ts';
import { executeTask, LogicalUnit } from './logical-unit.ts';
import { MAX_LUN } from './lun.ts';
import type { Nexus } from './nexus.ts';
import { MAX_REPORTED_LUNS } from './report.ts';
import { LOGICAL_UNIT_NOT_SUPPORTED } from './sense.ts';
import type { ScsiTask } from './task.ts';
import { UnitAttention } from './unit-attention.ts';

/** A LUN without a unit has no medium; its commands never get here. */
const NO_BACKEND: LunBackend = {
  sizeBytes: 512,
  readOnly: true,
  unmapGranularityBytes: 512,
  unmappedReadsZeroes: true,
  copiesFrom: () => false,
  submit(): void {
    assert(false, 'a LUN without a unit has no medium');
  },
};

/** Options of the stand-in for LUNs without a unit; its INQUIRY shows only the default names. */
const ABSENT_OPTIONS = {
  backend: NO_BACKEND,
  serial: '0',
  naa: new Uint8Array(8),
  designation: '',
  logicalBlockSize: 512,
  writeCache: false,
} as const;

/** A SCSI target device with its LUNs. May change while initiators are logged in: they are told by unit attentions. */
export class Target implements LunInventory {
  /** Its SCSI device name, for iSCSI the target's `iqn`. */
  readonly name: string;
  /** Relative target port identifiers of its ports, all in one target port group, always active. */
  readonly targetPorts: readonly number[];
  readonly #units: Map<number, LogicalUnit> = new Map();
  readonly #nexuses: Set<Nexus> = new Set();
  readonly #absent: LogicalUnit = new LogicalUnit(ABSENT_OPTIONS, ABSENT_COMMANDS, LOGICAL_UNIT_NOT_SUPPORTED);
  #luns: readonly number[] = [];

  constructor(name: string, targetPorts: readonly number[] = [1]) {
    this.name = name;
    this.targetPorts = targetPorts;
  }

  /** Ascending. */
  get luns(): readonly number[] {
    return this.#luns;
  }

  unit(lun: number): LogicalUnit | undefined {
    return this.#units.get(lun);
  }

  /** Puts `unit` at `lun`, which is free. */
  setLun(lun: number, unit: LogicalUnit): void {
    assert(Number.isInteger(lun) && lun >= 0 && lun <= MAX_LUN, 'a LUN has 14 bits');
    assert(!this.#units.has(lun), 'the LUN is free');
    assert(this.#units.size < MAX_REPORTED_LUNS, 'a target has a bounded number of LUNs');
    this.#units.set(lun, unit);
    for (const nexus of this.#nexuses) unit.attach(nexus);
    this.#inventoryChanged();
  }

  /** Takes the unit at `lun` away, if there is one. Its tasks in flight end as they would. */
  removeLun(lun: number): void {
    const unit = this.#units.get(lun);
    if (unit === undefined) return;
    this.#units.delete(lun);
    for (const nexus of this.#nexuses) unit.detach(nexus);
    this.#inventoryChanged();
  }

  /** `nexus` can send commands now; every unit answers its first one POWER ON OCCURRED. */
  attach(nexus: Nexus): void {
    this.#nexuses.add(nexus);
    for (const unit of this.#units.values()) unit.attach(nexus);
  }

  /** Forgets what is kept for `nexus`. */
  detach(nexus: Nexus): void {
    this.#nexuses.delete(nexus);
    for (const unit of this.#units.values()) unit.detach(nexus);
  }

  /** Step 1 of a task for `lun` (see `decodeLun`); one without a unit answers what SAM-5 5.11 asks. */
  prepare(task: ScsiTask, lun: number): boolean {
    return (this.#units.get(lun) ?? this.#absent).prepare(task, this);
  }

  /** Step 3 of a task that `prepare` let through. */
  execute(task: ScsiTask): void {
    executeTask(task);
  }

  /** Resets every unit, as TARGET WARM RESET and TARGET COLD RESET do. Aborting the tasks is the front end's part. */
  reset(): void {
    for (const unit of this.#units.values()) unit.reset();
  }

  inventoryReported(command: Command): void {
    for (const unit of this.#units.values()) unit.clearAttention(command.task.nexus, UnitAttention.LUNS_CHANGED);
  }

  #inventoryChanged(): void {
    this.#luns = [...this.#units.keys()].sort((a, b) => a - b);
    for (const unit of this.#units.values()) {
      for (const nexus of this.#nexuses) unit.raiseAttention(nexus, UnitAttention.LUNS_CHANGED);
    }
  }
}
