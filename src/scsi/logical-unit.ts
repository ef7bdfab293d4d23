import { equalBytes } from '../base/bytes.ts';
import type { LunBackend } from '../block/lun-backend.ts';
import { serviceActionOf, VARIABLE_LENGTH } from './cdb.ts';
import { Attention, Command, type CommandRow, type CommandTable } from './command.ts';
import { type CommandFeatures, type CommandSet, commandsOf } from './commands.ts';
import { isRefused } from './conflict.ts';
import type { LunInventory } from './lun-inventory.ts';
import { THRESHOLD_DESCRIPTOR_LENGTH, THRESHOLD_DESCRIPTORS } from './mode-pages.ts';
import type { Nexus } from './nexus.ts';
import {
  INVALID_COMMAND_OPERATION_CODE,
  INVALID_FIELD_IN_CDB,
  INVALID_MESSAGE_ERROR,
  type Sense,
  THIN_PROVISIONING_SOFT_THRESHOLD_REACHED,
} from './sense.ts';
import { Status } from './spec.ts';
import { type ScsiTask, TaskAttribute } from './task.ts';
import type { TaskSet } from './task-set.ts';
import { UnitAttention, type UnitAttentionQueue } from './unit-attention.ts';
import { type NexusHandover, nexusKey } from './unit-handover.ts';
import { type LogicalUnitOptions, NexusState, UnitState } from './unit-state.ts';

function featuresOf(removable: boolean, { unmapGranularityBytes, atomicWriteBytes = 0 }: LunBackend): CommandFeatures {
  return { removable, unmaps: unmapGranularityBytes > 0, atomic: atomicWriteBytes > 0 };
}

/**
 * A logical unit: the command set of a thin-provisioned disk over a `LunBackend`. All front ends of a volume share one, so that its locks and
 * mode parameters hold for all of them. See task.ts for the life of a task.
 */
export class LogicalUnit {
  readonly state: UnitState;
  #commands: CommandSet;
  readonly #otherwise: Sense;
  /** REPORT LUNS of a unit without a `Target`, as under LIO. */
  readonly #alone: LunInventory = {
    luns: () => [0],
    unit: (_nexus, lun) => (lun === 0 ? this : undefined),
    find: (_nexus, naa) => (equalBytes(naa, this.state.naa) ? this : undefined),
    inventoryReported: (command) => command.nexusState?.attentions.clear(UnitAttention.LUNS_CHANGED),
  };
  #lastNexus: Nexus | null = null;
  #lastNexusState: NexusState | null = null;

  /** `otherwise` is the answer to what `commands` do not have. */
  constructor(
    options: LogicalUnitOptions,
    commands: CommandSet = commandsOf(featuresOf(options.removable ?? false, options.backend)),
    otherwise: Sense = INVALID_COMMAND_OPERATION_CODE,
  ) {
    this.state = new UnitState(options);
    this.#commands = commands;
    this.#otherwise = otherwise;
  }

  /** The size of the backend may have changed: when it did, every nexus gets CAPACITY DATA HAS CHANGED. */
  capacityChanged(): void {
    const { state } = this;
    if (!state.refreshCapacity()) return;
    // What was cut off is gone, also when the unit grows again.
    state.changing(state.blockCount * state.blockSize, Number.MAX_SAFE_INTEGER);
    state.raiseAttention(UnitAttention.CAPACITY_CHANGED, null);
  }

  /** Whether the medium can be ejected, and how many logical blocks (2^n) make a physical one. Initiators are told of what changes. */
  configure(removable: boolean, physicalBlockExponent: number): void {
    const { state } = this;
    if (removable !== state.removable) {
      state.removable = removable;
      state.mediumPresent = true;
      for (const nexusState of state.nexuses.values()) nexusState.preventsRemoval = false;
      this.#commands = commandsOf(featuresOf(removable, state.backend));
      this.inquiryChanged();
    }
    if (physicalBlockExponent !== state.physicalBlockExponent) {
      state.physicalBlockExponent = physicalBlockExponent;
      state.raiseAttention(UnitAttention.CAPACITY_CHANGED, null);
    }
  }

  /** The backend takes writes now, or does not any more: what MODE SENSE says of that has changed. */
  writeProtectionChanged(): void {
    this.state.raiseAttention(UnitAttention.MODE_PARAMETERS_CHANGED, null);
  }

  /** What the unit says of itself has changed: every nexus gets INQUIRY DATA HAS CHANGED. */
  inquiryChanged(): void {
    this.state.raiseAttention(UnitAttention.INQUIRY_CHANGED, null);
  }

  /** Before the backend comes to hold something else, by other ways than commands: until `contentSettled` there are no tokens. */
  contentChanging(): void {
    this.state.tokens.suspend();
  }

  /** After `contentChanging`, whatever came of it. */
  contentSettled(): void {
    this.state.tokens.resume();
  }

  /** The backend holds something else now: every nexus gets MEDIUM MAY HAVE CHANGED, and what `capacityChanged` has to say. */
  contentChanged(): void {
    this.state.changing(0, Number.MAX_SAFE_INTEGER);
    this.state.raiseAttention(UnitAttention.MEDIUM_CHANGED, null);
    this.capacityChanged();
  }

  /**
   * The first sight of `nexus`. With `powerOn` (the portal) its first command is answered POWER ON OCCURRED. To a `readOnly` nexus the unit is
   * write-protected. One that was there in the process before goes on as it was.
   */
  attach(nexus: Nexus, powerOn: boolean = true, readOnly: boolean = false): void {
    const state = new NexusState(readOnly);
    const before = this.#takeExpected(nexus);
    if (before !== undefined) state.takeOver(before);
    else {
      if (powerOn) state.attentions.raise(UnitAttention.POWER_ON);
      if ((this.state.thresholds?.reached ?? -1) >= 0) state.attentions.raise(UnitAttention.THRESHOLD_REACHED);
    }
    this.state.nexuses.set(nexus, state);
    this.state.reservations.attached(nexus, state);
    this.#lastNexus = null;
  }

  /** Forgets what is kept for `nexus`, but its registrations. Its tasks in flight end as they would. */
  detach(nexus: Nexus): void {
    const { nexuses, reservations } = this.state;
    const state = nexuses.get(nexus);
    if (state === undefined) return;
    nexuses.delete(nexus);
    reservations.detached(nexus, state);
    this.#lastNexus = null;
    this.#lastNexusState = null;
  }

  /** What `attach` said of writing has changed: the nexus gets MODE PARAMETERS CHANGED, as it has to look at WP again. */
  setReadOnly(nexus: Nexus, readOnly: boolean): void {
    const state = this.state.nexuses.get(nexus);
    if (state === undefined || state.readOnly === readOnly) return;
    state.readOnly = readOnly;
    state.attentions.raise(UnitAttention.MODE_PARAMETERS_CHANGED);
  }

  /** ABORT TASK SET (SAM-5 7.3): ends the tasks of `nexus`, which get no status. `ended` is called once, now or later, when they have ended. */
  abortTaskSet(nexus: Nexus, ended: () => void): void {
    this.taskSet.abort((task) => task.nexus === nexus, nexus, ended);
  }

  /** CLEAR TASK SET (SAM-5 7.5): ends the tasks of all nexuses; the others are told by a status (TAS) or a unit attention. `ended` as above. */
  clearTaskSet(by: Nexus, ended: () => void): void {
    const others = this.taskSet.abort(() => true, by, ended);
    if (this.taskSet.reportsAborted) return;
    for (const nexus of others) this.raiseAttention(nexus, UnitAttention.COMMANDS_CLEARED);
  }

  /** An I_T nexus loss (SAM-5 6.3.4): ends the tasks of `nexus` and what else it has here. `ended` as above. */
  loseNexus(nexus: Nexus, ended: () => void): void {
    const state = this.state.nexuses.get(nexus);
    if (state !== undefined) {
      state.preventsRemoval = false;
      state.copies.clear();
      state.attentions.raise(UnitAttention.I_T_NEXUS_LOSS);
    }
    this.state.reservations.release(nexus);
    this.abortTaskSet(nexus, ended);
  }

  /** QUERY TASK SET (SAM-5 7.10). */
  hasTasks(nexus: Nexus): boolean {
    return this.taskSet.some((task) => task.nexus === nexus);
  }

  /** The unit attentions of `nexus` (QUERY ASYNCHRONOUS EVENT), if there is one. */
  pendingAttentions(nexus: Nexus): UnitAttentionQueue | null {
    const attentions = this.state.nexuses.get(nexus)?.attentions;
    return attentions === undefined || attentions.isEmpty ? null : attentions;
  }

  /**
   * LOGICAL UNIT RESET (SAM-5 6.3.3): all tasks end; then the mode parameters go back to their defaults, removal is allowed, every nexus gets the unit attention `kind`.
   * `by` is who asked for it. `ended` as above.
   */
  reset(by: Nexus | null, ended: () => void, kind: UnitAttention = UnitAttention.LOGICAL_UNIT_RESET): void {
    this.taskSet.abort(
      () => true,
      by,
      () => {
        this.state.reset();
        this.state.raiseAttention(kind, null);
        ended();
      },
    );
  }

  /** Raises a unit attention for one nexus; nothing when it is not attached. */
  raiseAttention(nexus: Nexus, kind: UnitAttention): void {
    this.state.nexuses.get(nexus)?.attentions.raise(kind);
  }

  /** Takes a unit attention of one nexus back. */
  clearAttention(nexus: Nexus, kind: UnitAttention): void {
    this.state.nexuses.get(nexus)?.attentions.clear(kind);
  }

  /** Step 1 of a task. `inventory` is the target that it came to. */
  prepare(task: ScsiTask, inventory: LunInventory = this.#alone): boolean {
    task.status = Status.GOOD;
    task.aborted = false;
    task.abortReported = false;
    task.senseLength = 0;
    task.dataOutLength = 0;
    task.dataInLength = 0;
    const { cdb } = task;
    const table = inventory === this.#alone ? this.#commands.alone : this.#commands.inTarget;
    const row = table.find(cdb[0]!, serviceActionOf(cdb));
    const command = this.#commandOf(task, row, table, inventory);
    const { nexusState } = command;
    const { taskSet } = this.state;
    if (taskSet.isFullFor(nexusState, task.attribute)) {
      // Who has no task there would not learn from TASK SET FULL when to try again (SAM-5 5.3.1).
      return command.refuse(nexusState?.taskCount === 0 ? Status.BUSY : Status.TASK_SET_FULL);
    }
    if (!this.#check(command, row)) return false;
    taskSet.enter(command);
    return true;
  }

  /** Step 3 of a task that `prepare` let through. */
  execute(task: ScsiTask): void {
    executeTask(task);
  }

  /** Instead of step 3: the front end gives the task up. */
  withdraw(task: ScsiTask): void {
    withdrawTask(task);
  }

  /** ABORT TASK: see `abortTask`. */
  abort(task: ScsiTask, ended: (() => void) | null = null): void {
    abortTask(task, ended);
  }

  /** The tasks of all nexuses. */
  get taskSet(): TaskSet {
    return this.state.taskSet;
  }

  #takeExpected({ initiatorPort, relativeTargetPort }: Nexus): NexusHandover | undefined {
    const { expected } = this.state;
    if (expected.size === 0) return undefined;
    const key = nexusKey({ initiatorPort, targetPort: relativeTargetPort });
    const found = expected.get(key);
    expected.delete(key);
    return found;
  }

  #commandOf(task: ScsiTask, row: CommandRow | null, table: CommandTable, inventory: LunInventory): Command {
    const { state } = this;
    let command = task.engine as Command | null;
    if (command === null) {
      command = new Command(task, state, row ?? table.rows[0]!, table, inventory);
      task.engine = command;
    }
    command.unit = state;
    command.table = table;
    command.inventory = inventory;
    if (row !== null) command.row = row;
    if (task.nexus !== this.#lastNexus) {
      this.#lastNexus = task.nexus;
      this.#lastNexusState = state.nexuses.get(task.nexus) ?? null;
    }
    command.nexusState = this.#lastNexusState;
    return command;
  }

  /** A threshold tells in INFORMATION which one it is: where its descriptor is in the mode page (SBC-4 4.7.3.7). */
  #checkAttention(command: Command, sense: Sense): false {
    if (sense !== THIN_PROVISIONING_SOFT_THRESHOLD_REACHED) return command.check(sense);
    const reached = Math.max(0, this.state.thresholds?.reached ?? 0);
    return command.check(sense, THRESHOLD_DESCRIPTORS + reached * THRESHOLD_DESCRIPTOR_LENGTH);
  }

  /** Everything that can be wrong before data moves, in the order of SAM-5 5.3.3 and SPC-4 4.2.5. */
  #check(command: Command, row: CommandRow | null): boolean {
    const { task, nexusState, refusals } = command;
    if (task.attribute === TaskAttribute.ACA) return command.check(INVALID_MESSAGE_ERROR);
    const { thresholds } = this.state;
    if (thresholds?.passed()) this.state.raiseAttention(UnitAttention.THRESHOLD_REACHED, null);
    if (nexusState !== null && !nexusState.attentions.isEmpty && row?.attention !== Attention.IGNORE) {
      const conflicts = refusals !== 0 && row !== null && isRefused(refusals, row, task.cdb);
      if (!conflicts || nexusState.attentions.hasReset) {
        return this.#checkAttention(command, nexusState.attentions.take());
      }
    }
    if (row === null) {
      if (!command.table.hasServiceActions(task.cdb[0]!)) return command.check(this.#otherwise);
      return task.cdb[0] === VARIABLE_LENGTH ? command.checkCdb(8) : command.checkCdb(1, 4);
    }
    if (task.cdbLength < row.cdbLength) return command.check(INVALID_FIELD_IN_CDB);
    if (refusals !== 0 && isRefused(refusals, row, task.cdb)) return command.conflict();
    if (row.opcode === VARIABLE_LENGTH && task.cdb[7] !== row.cdbLength - 8) return command.checkCdb(7);
    return checkReserved(command, row) && command.checkAccess() && row.handler.prepare(command);
  }
}

/** Step 3 of a task, whatever unit prepared it. */
export function executeTask(task: ScsiTask): void {
  const command = task.engine as Command;
  command.unit.taskSet.start(command);
}

/** The front end has no room for the data of a task that was prepared. False: it must not wait for room, but give the task up. */
export function postponeTask(task: ScsiTask): boolean {
  const command = task.engine as Command;
  return command.unit.taskSet.postpone(command);
}

/** Takes a task that was prepared and not executed out of its task set. */
export function withdrawTask(task: ScsiTask): void {
  const command = task.engine as Command;
  const { taskSet } = command.unit;
  taskSet.leave(command);
  taskSet.advance();
}

/**
 * Aborts a task that is in a task set; it gets no status. `taskAborted` comes when it was not executed, else `taskDone`; `ended` is called once, now or later, when it
 * has ended.
 */
export function abortTask(task: ScsiTask, ended: (() => void) | null): void {
  const command = task.engine as Command;
  command.unit.taskSet.abortOne(command, ended);
}

/** No bit is set that the row's usage data does not name. */
function checkReserved(command: Command, row: CommandRow): boolean {
  const { cdb } = command.task;
  const { usage, cdbLength } = row;
  for (let i = 1; i < cdbLength; i++) {
    let wrong = cdb[i]! & ~usage[i]!;
    if (wrong === 0) continue;
    if (i === 1) wrong &= ~row.ignoredBits;
    if (wrong !== 0) return command.checkCdb(i, 31 - Math.clz32(wrong));
  }
  return true;
}
