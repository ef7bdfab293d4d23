import { assert } from '../base/assert.ts';
import { equalBytes } from '../base/bytes.ts';
import type { LunBackend } from '../block/lun-backend.ts';
import { Access, type Command } from './command.ts';
import { ABSENT_COMMANDS } from './commands.ts';
import { FixedFrontEnd, type FrontEnd } from './front-end.ts';
import { abortTask, executeTask, LogicalUnit, postponeTask, withdrawTask } from './logical-unit.ts';
import { MAX_LUN } from './lun.ts';
import { FULL_ACCESS, type LunAccess } from './lun-access.ts';
import type { LunInventory } from './lun-inventory.ts';
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
  random: (): void => assert(false, 'a LUN without a unit has no tokens'),
} as const;

/** What is there for one nexus. */
interface NexusView {
  readonly access: LunAccess;
  units: Map<number, LogicalUnit>;
  /** Ascending. */
  luns: readonly number[];
}

const NOTHING: NexusView = { access: { of: () => Access.NONE }, units: new Map(), luns: [] };

/**
 * A SCSI target device with its LUNs. May change while initiators are logged in: they are told by unit attentions. A nexus finds the LUNs that its
 * `LunAccess` lets it; to all others it is as if they were not there.
 */
export class Target implements LunInventory {
  /** Its SCSI device name, for iSCSI the target's `iqn`. */
  readonly name: string;
  readonly #frontEnd: FrontEnd;
  readonly #units: Map<number, LogicalUnit> = new Map();
  readonly #views: Map<Nexus, NexusView> = new Map();
  readonly #absent: LogicalUnit = new LogicalUnit(ABSENT_OPTIONS, ABSENT_COMMANDS, LOGICAL_UNIT_NOT_SUPPORTED);
  #allLuns: readonly number[] = [];
  #lastNexus: Nexus | null = null;
  #lastView: NexusView = NOTHING;

  /** `targetPorts` are relative target port identifiers: all in one target port group, always active. */
  constructor(name: string, targetPorts: readonly number[] = [1]) {
    this.name = name;
    this.#frontEnd = new FixedFrontEnd(targetPorts);
  }

  /** Whoever may see them; ascending. */
  get allLuns(): readonly number[] {
    return this.#allLuns;
  }

  /** Whoever may see it. */
  unitAt(lun: number): LogicalUnit | undefined {
    return this.#units.get(lun);
  }

  luns(nexus: Nexus): readonly number[] {
    return this.#view(nexus).luns;
  }

  unit(nexus: Nexus, lun: number): LogicalUnit | undefined {
    return this.#view(nexus).units.get(lun);
  }

  find(nexus: Nexus, naa: Uint8Array): LogicalUnit | undefined {
    for (const unit of this.#view(nexus).units.values()) if (equalBytes(unit.state.naa, naa)) return unit;
    return undefined;
  }

  /** Whether two nexuses may see one unit both; true where there is none to be seen, as for a target without LUNs. */
  shareLuns(one: Nexus, other: Nexus): boolean {
    const { luns } = this.#view(one);
    const { units } = this.#view(other);
    return this.#units.size === 0 || luns.some((lun) => units.has(lun));
  }

  /** Puts `unit` at `lun`, which is free. */
  setLun(lun: number, unit: LogicalUnit): void {
    assert(Number.isInteger(lun) && lun >= 0 && lun <= MAX_LUN, 'a LUN has 14 bits');
    assert(!this.#units.has(lun), 'the LUN is free');
    assert(this.#units.size < MAX_REPORTED_LUNS, 'a target has a bounded number of LUNs');
    this.#units.set(lun, unit);
    this.#unitsChanged();
  }

  /** Takes the unit at `lun` away, if there is one. Its tasks in flight end as they would. */
  removeLun(lun: number): void {
    if (this.#units.delete(lun)) this.#unitsChanged();
  }

  /** `nexus` can send commands now; every unit that it may see answers its first one POWER ON OCCURRED. */
  attach(nexus: Nexus, access: LunAccess = FULL_ACCESS): void {
    assert(!this.#views.has(nexus), 'a nexus is attached once');
    nexus.frontEnd = this.#frontEnd;
    const view: NexusView = { access, units: new Map(), luns: [] };
    this.#views.set(nexus, view);
    this.#lastNexus = null;
    this.#refresh(nexus, view);
  }

  /** Forgets what is kept for `nexus`. */
  detach(nexus: Nexus): void {
    const view = this.#view(nexus);
    this.#views.delete(nexus);
    this.#lastNexus = null;
    for (const unit of view.units.values()) unit.detach(nexus);
  }

  /** What `attach` was given says something else now: LUNs appear and vanish for `nexus`, which is told by unit attentions. */
  accessChanged(nexus: Nexus): void {
    const view = this.#views.get(nexus);
    if (view === undefined) return;
    if (this.#refresh(nexus, view)) this.#tell(nexus, view);
    for (const [lun, unit] of view.units) unit.setReadOnly(nexus, view.access.of(lun) === Access.READ);
  }

  /** Step 1 of a task for `lun` (see `decodeLun`); one without a unit for its nexus answers what SAM-5 5.11 asks. */
  prepare(task: ScsiTask, lun: number): boolean {
    return (this.#view(task.nexus).units.get(lun) ?? this.#absent).prepare(task, this);
  }

  /** Step 3 of a task that `prepare` let through. */
  execute(task: ScsiTask): void {
    executeTask(task);
  }

  /** See `postponeTask`. */
  postpone(task: ScsiTask): boolean {
    return postponeTask(task);
  }

  /** Instead of step 3: the front end gives the task up. */
  withdraw(task: ScsiTask): void {
    withdrawTask(task);
  }

  /** ABORT TASK: see `abortTask`. */
  abort(task: ScsiTask, ended: (() => void) | null): void {
    abortTask(task, ended);
  }

  /** TARGET WARM RESET, and what TARGET COLD RESET does to units: resets every one that `nexus` may see. `ended` is called once, now or later, when all tasks have ended. */
  reset(nexus: Nexus, ended: () => void): void {
    this.#forEachUnit(nexus, ended, (unit, one) => unit.reset(nexus, one, UnitAttention.TARGET_RESET));
  }

  /** I_T NEXUS RESET: see `LogicalUnit.loseNexus`. */
  loseNexus(nexus: Nexus, ended: () => void): void {
    this.#forEachUnit(nexus, ended, (unit, one) => unit.loseNexus(nexus, one));
  }

  #forEachUnit(nexus: Nexus, ended: () => void, action: (unit: LogicalUnit, ended: () => void) => void): void {
    let pending = 1;
    const oneEnded = (): void => {
      pending--;
      if (pending === 0) ended();
    };
    for (const unit of [...this.#view(nexus).units.values()]) {
      pending++;
      action(unit, oneEnded);
    }
    oneEnded();
  }

  inventoryReported({ task: { nexus } }: Command): void {
    for (const unit of this.#view(nexus).units.values()) unit.clearAttention(nexus, UnitAttention.LUNS_CHANGED);
  }

  #view(nexus: Nexus): NexusView {
    if (nexus !== this.#lastNexus) {
      this.#lastNexus = nexus;
      this.#lastView = this.#views.get(nexus) ?? NOTHING;
    }
    return this.#lastView;
  }

  #unitsChanged(): void {
    this.#allLuns = [...this.#units.keys()].sort((a, b) => a - b);
    for (const [nexus, view] of this.#views) if (this.#refresh(nexus, view)) this.#tell(nexus, view);
  }

  /** Brings a view up to date; true when there are other units in it than before. */
  #refresh(nexus: Nexus, view: NexusView): boolean {
    const before = view.units;
    view.units = new Map();
    view.luns = this.#allLuns.filter((lun) => view.access.of(lun) !== Access.NONE);
    for (const lun of view.luns) view.units.set(lun, this.#units.get(lun)!);
    let changed = false;
    for (const [lun, unit] of before) {
      if (view.units.get(lun) === unit) continue;
      unit.detach(nexus);
      changed = true;
    }
    for (const [lun, unit] of view.units) {
      if (before.get(lun) === unit) continue;
      unit.attach(nexus, true, view.access.of(lun) === Access.READ);
      changed = true;
    }
    return changed;
  }

  #tell(nexus: Nexus, view: NexusView): void {
    for (const unit of view.units.values()) unit.raiseAttention(nexus, UnitAttention.LUNS_CHANGED);
    nexus.lunsChanged?.();
  }
}
