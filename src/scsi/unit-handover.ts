import type { NexusName, PersistentState } from './persistent-state.ts';
import type { BlockRange } from './rod-tokens.ts';
import type { Sense } from './sense.ts';
import { UnitAttention } from './unit-attention.ts';
import type { UnitState } from './unit-state.ts';

/*
 * What one process tells the next of a logical unit when that takes over from it. For initiators nothing has happened then: this is no power loss, so
 * everything is here that a power loss would end or raise. Plain values, for JSON; bytes are hexadecimal. The unit has no task.
 */

/** Name of a `UnitAttention`. */
export type AttentionName = keyof typeof UnitAttention;
export const ATTENTION_NAMES: readonly AttentionName[] = Object.keys(UnitAttention) as AttentionName[];

/** A `CopyRecord` of an operation that has ended. */
export interface CopyRecordHandover {
  readonly listId: number;
  readonly serviceAction: number;
  readonly segments: number;
  readonly operations: number;
  readonly bytes: number;
  readonly isTerminated: boolean;
  readonly status: number;
  readonly sense: string;
  readonly token: string | null;
  readonly isPartial: boolean;
  readonly statusTold: boolean;
  readonly detailsTold: boolean;
  readonly tokensTold: boolean;
}

/** What a unit keeps for a nexus that is there. */
export interface NexusHandover {
  readonly nexus: NexusName;
  readonly attentions: readonly AttentionName[];
  readonly preventsRemoval: boolean;
  readonly copies: readonly CopyRecordHandover[];
}

/** A `RodToken`, and how long ago it was used. */
export interface TokenHandover {
  readonly bytes: string;
  readonly ranges: readonly BlockRange[];
  readonly timeoutMs: number;
  readonly idleMs: number;
  readonly ended: Sense;
}

export interface ReservationsHandover {
  readonly state: PersistentState;
  readonly generation: number;
  /** Who has it with RESERVE. */
  readonly reserver: NexusName | null;
  /** Unit attentions for nexuses that are not there. */
  readonly absent: readonly { readonly nexus: NexusName; readonly kinds: readonly AttentionName[] }[];
}

export interface UnitHandover {
  readonly mediumPresent: boolean;
  /** Current mode pages that have been set, as `UnitMemory.modePages`. */
  readonly modePages: Readonly<Record<string, string>>;
  readonly thresholds: { readonly availableReached: boolean; readonly usedReached: boolean } | null;
  readonly statistics: UnitState['statistics'];
  readonly reservations: ReservationsHandover;
  readonly tokens: { readonly identifier: number; readonly list: readonly TokenHandover[] };
  readonly nexuses: readonly NexusHandover[];
}

/** What the next process has to know of a unit that has no task any more. */
export function handOverUnit(unit: UnitState): UnitHandover {
  return {
    mediumPresent: unit.mediumPresent,
    modePages: unit.modes.handOver(),
    thresholds: unit.thresholds?.handOver() ?? null,
    statistics: { ...unit.statistics },
    reservations: unit.reservations.handOver(),
    tokens: unit.tokens.handOver(),
    nexuses: [...unit.nexuses].map(([{ initiatorPort, relativeTargetPort }, state]) => ({
      nexus: { initiatorPort, targetPort: relativeTargetPort },
      attentions: state.attentions.names(),
      preventsRemoval: state.preventsRemoval,
      copies: state.copies.handOver(),
    })),
  };
}

/** Makes a new unit, which no nexus has seen yet, go on as the one that `handover` is of. Its nexuses get theirs when they attach. */
export function takeOverUnit(unit: UnitState, handover: UnitHandover): void {
  unit.mediumPresent = handover.mediumPresent;
  unit.modes.takeOver(handover.modePages);
  if (handover.thresholds !== null) unit.thresholds?.takeOver(handover.thresholds);
  Object.assign(unit.statistics, handover.statistics);
  unit.reservations.takeOver(handover.reservations);
  unit.tokens.takeOver(handover.tokens);
  for (const nexus of handover.nexuses) unit.expected.set(nexusKey(nexus.nexus), nexus);
}

/** The nexuses that are to come have come: what waited for others waits as for one that has left. */
export function endTakeOver(unit: UnitState): void {
  for (const { nexus, attentions } of unit.expected.values()) {
    unit.reservations.missed(
      nexus,
      attentions.map((name) => UnitAttention[name]),
    );
  }
  unit.expected.clear();
}

export function nexusKey({ initiatorPort, targetPort }: NexusName): string {
  return `${targetPort} ${initiatorPort}`;
}
