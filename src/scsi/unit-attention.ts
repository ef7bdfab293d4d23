import {
  BUS_DEVICE_RESET_FUNCTION_OCCURRED,
  CAPACITY_DATA_HAS_CHANGED,
  COMMANDS_CLEARED_BY_ANOTHER_INITIATOR,
  I_T_NEXUS_LOSS_OCCURRED,
  INQUIRY_DATA_HAS_CHANGED,
  MEDIUM_MAY_HAVE_CHANGED,
  MODE_PARAMETERS_CHANGED,
  NO_SENSE,
  POWER_ON_OCCURRED,
  REGISTRATIONS_PREEMPTED,
  REPORTED_LUNS_DATA_HAS_CHANGED,
  RESERVATIONS_PREEMPTED,
  RESERVATIONS_RELEASED,
  SCSI_BUS_RESET_OCCURRED,
  type Sense,
  THIN_PROVISIONING_SOFT_THRESHOLD_REACHED,
} from './sense.ts';

/** Kinds of unit attention, most important first: that is the order in which they are reported. */
export const UnitAttention = {
  POWER_ON: 0,
  TARGET_RESET: 1,
  LOGICAL_UNIT_RESET: 2,
  I_T_NEXUS_LOSS: 3,
  LUNS_CHANGED: 4,
  INQUIRY_CHANGED: 5,
  MEDIUM_CHANGED: 6,
  CAPACITY_CHANGED: 7,
  MODE_PARAMETERS_CHANGED: 8,
  COMMANDS_CLEARED: 9,
  RESERVATIONS_PREEMPTED: 10,
  RESERVATIONS_RELEASED: 11,
  REGISTRATIONS_PREEMPTED: 12,
  THRESHOLD_REACHED: 13,
} as const;
export type UnitAttention = (typeof UnitAttention)[keyof typeof UnitAttention];

const SENSE: Readonly<Record<UnitAttention, Sense>> = [
  POWER_ON_OCCURRED,
  SCSI_BUS_RESET_OCCURRED,
  BUS_DEVICE_RESET_FUNCTION_OCCURRED,
  I_T_NEXUS_LOSS_OCCURRED,
  REPORTED_LUNS_DATA_HAS_CHANGED,
  INQUIRY_DATA_HAS_CHANGED,
  MEDIUM_MAY_HAVE_CHANGED,
  CAPACITY_DATA_HAS_CHANGED,
  MODE_PARAMETERS_CHANGED,
  COMMANDS_CLEARED_BY_ANOTHER_INITIATOR,
  RESERVATIONS_PREEMPTED,
  RESERVATIONS_RELEASED,
  REGISTRATIONS_PREEMPTED,
  THIN_PROVISIONING_SOFT_THRESHOLD_REACHED,
] as const;

const NAMES = Object.keys(UnitAttention) as (keyof typeof UnitAttention)[];

const RESETS =
  (1 << UnitAttention.POWER_ON) | (1 << UnitAttention.TARGET_RESET) | (1 << UnitAttention.LOGICAL_UNIT_RESET);

/**
 * The unit attentions that wait for one nexus at one logical unit (SAM-5 5.14). Each kind waits at most once, so the queue is
 * bounded by the number of kinds. Power on and reset take back what was waiting: the initiator has to look at everything again.
 */
export class UnitAttentionQueue {
  #pending = 0;

  get isEmpty(): boolean {
    return this.#pending === 0;
  }

  /** One of those that have precedence over RESERVATION CONFLICT (SAM-5 5.3.3). */
  get hasReset(): boolean {
    return (this.#pending & RESETS) !== 0;
  }

  isPending(kind: UnitAttention): boolean {
    return (this.#pending & (1 << kind)) !== 0;
  }

  raise(kind: UnitAttention): void {
    const bit = 1 << kind;
    this.#pending = (bit & RESETS) !== 0 ? (this.#pending & RESETS) | bit : this.#pending | bit;
  }

  clear(kind: UnitAttention): void {
    this.#pending &= ~(1 << kind);
  }

  /** Those that wait, by name, most important first. */
  names(): (keyof typeof UnitAttention)[] {
    return NAMES.filter((name) => this.isPending(UnitAttention[name]));
  }

  get count(): number {
    let count = 0;
    for (let rest = this.#pending; rest !== 0; rest &= rest - 1) count++;
    return count;
  }

  /** The most important one, NO_SENSE when there is none. */
  peek(): Sense {
    return this.#pending === 0 ? NO_SENSE : SENSE[this.#first()];
  }

  /** Takes the most important one out, NO_SENSE when there is none. */
  take(): Sense {
    if (this.#pending === 0) return NO_SENSE;
    const kind = this.#first();
    this.clear(kind);
    return SENSE[kind];
  }

  #first(): UnitAttention {
    return (31 - Math.clz32(this.#pending & -this.#pending)) as UnitAttention;
  }
}
