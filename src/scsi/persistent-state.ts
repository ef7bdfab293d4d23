import {
  INSUFFICIENT_REGISTRATION_RESOURCES,
  INVALID_FIELD_IN_CDB,
  INVALID_FIELD_IN_PARAMETER_LIST,
  INVALID_RELEASE_OF_PERSISTENT_RESERVATION,
  type Sense,
} from './sense.ts';
import { UnitAttention } from './unit-attention.ts';

/** SPC-4 table 62 */
export const ReservationType = {
  WRITE_EXCLUSIVE: 1,
  EXCLUSIVE_ACCESS: 3,
  WRITE_EXCLUSIVE_REGISTRANTS_ONLY: 5,
  EXCLUSIVE_ACCESS_REGISTRANTS_ONLY: 6,
  WRITE_EXCLUSIVE_ALL_REGISTRANTS: 7,
  EXCLUSIVE_ACCESS_ALL_REGISTRANTS: 8,
} as const;
export type ReservationType = (typeof ReservationType)[keyof typeof ReservationType];

const TYPES: ReadonlySet<number> = new Set(Object.values(ReservationType));

export function isReservationType(type: number): type is ReservationType {
  return TYPES.has(type);
}

/** Every registrant holds it. */
export function isAllRegistrants(type: ReservationType): boolean {
  return type >= ReservationType.WRITE_EXCLUSIVE_ALL_REGISTRANTS;
}

/** What the holder may, every registrant may. */
export function isForRegistrants(type: ReservationType): boolean {
  return type >= ReservationType.WRITE_EXCLUSIVE_REGISTRANTS_ONLY;
}

/** Others may read. */
export function isWriteExclusive(type: ReservationType): boolean {
  const { WRITE_EXCLUSIVE, WRITE_EXCLUSIVE_REGISTRANTS_ONLY, WRITE_EXCLUSIVE_ALL_REGISTRANTS } = ReservationType;
  return (
    type === WRITE_EXCLUSIVE || type === WRITE_EXCLUSIVE_REGISTRANTS_ONLY || type === WRITE_EXCLUSIVE_ALL_REGISTRANTS
  );
}

/** Names an I_T nexus, logged in or not. */
export interface NexusName {
  /** As `Nexus.initiatorPort`. */
  readonly initiatorPort: string;
  /** Relative target port identifier. */
  readonly targetPort: number;
}

export interface Registrant extends NexusName {
  /** Reservation key: 16 lower-case hexadecimal digits, never all zero. */
  readonly key: string;
}

export const ZERO_KEY = '0000000000000000';
/** Registrants of one logical unit. */
export const MAX_REGISTRANTS = 256;

/** Registrations and persistent reservation of a logical unit. A value: changes make another one. */
export interface PersistentState {
  /** In the order in which they came. */
  readonly registrants: readonly Registrant[];
  /** Null without a reservation. */
  readonly type: ReservationType | null;
  /** Null without a reservation, and where all registrants hold it. */
  readonly holder: NexusName | null;
  /** Kept across a loss of power: what the last registration said. */
  readonly aptpl: boolean;
}

export const NO_REGISTRATIONS: PersistentState = { registrants: [], type: null, holder: null, aptpl: false };

/** A unit attention that a change leaves for a nexus. */
export interface Notice {
  readonly nexus: NexusName;
  readonly kind: UnitAttention;
}

export interface Change {
  readonly kind: 'change';
  readonly state: PersistentState;
  readonly notices: readonly Notice[];
  /** Whose tasks PREEMPT AND ABORT stops. */
  readonly preempted: readonly NexusName[];
}

export type Outcome =
  | Change
  | { readonly kind: 'conflict' }
  | { readonly kind: 'check'; readonly sense: Sense; readonly byte: number };

const CONFLICT: Outcome = { kind: 'conflict' };

const refuse = (sense: Sense, byte: number): Outcome => ({ kind: 'check', sense, byte });

function change(state: PersistentState, notices: readonly Notice[] = [], preempted: readonly NexusName[] = []): Change {
  return { kind: 'change', state, notices, preempted };
}

export function sameNexus(a: NexusName, b: NexusName): boolean {
  return a.initiatorPort === b.initiatorPort && a.targetPort === b.targetPort;
}

export function findRegistrant(state: PersistentState, nexus: NexusName): Registrant | undefined {
  return state.registrants.find((registrant) => sameNexus(registrant, nexus));
}

export function isHolder(state: PersistentState, nexus: NexusName): boolean {
  if (state.type === null) return false;
  return state.holder === null ? findRegistrant(state, nexus) !== undefined : sameNexus(state.holder, nexus);
}

/** One notice for each registrant but `except`. */
function notifyAll(state: PersistentState, except: NexusName | null, kind: UnitAttention): Notice[] {
  return state.registrants
    .filter((registrant) => except === null || !sameNexus(registrant, except))
    .map((nexus) => ({ nexus, kind }));
}

const withoutReservation = (state: PersistentState): PersistentState => ({ ...state, type: null, holder: null });

/** Unregistering (SPC-4 5.13.11.1.3): a reservation goes with its holder, and one of all registrants with the last of them. */
function unregister(state: PersistentState, nexus: NexusName): Change {
  const held = isHolder(state, nexus);
  const rest = { ...state, registrants: state.registrants.filter((registrant) => !sameNexus(registrant, nexus)) };
  const { type } = state;
  if (type === null || !held || (isAllRegistrants(type) && rest.registrants.length > 0)) return change(rest);
  const released = withoutReservation(rest);
  return change(released, isForRegistrants(type) ? notifyAll(released, null, UnitAttention.RESERVATIONS_RELEASED) : []);
}

function setKey(state: PersistentState, { initiatorPort, targetPort }: NexusName, key: string): PersistentState {
  const registrant = { initiatorPort, targetPort, key };
  const at = state.registrants.findIndex((other) => sameNexus(other, registrant));
  if (at < 0) return { ...state, registrants: [...state.registrants, registrant] };
  return state.registrants[at]!.key === key ? state : { ...state, registrants: state.registrants.with(at, registrant) };
}

export interface Registration {
  /** Null: it is not looked at (REGISTER AND IGNORE EXISTING KEY). */
  readonly key: string | null;
  /** Zero takes the registration away. */
  readonly newKey: string;
  readonly aptpl: boolean;
  /** The nexus itself first, then with ALL_TG_PT the same initiator port at the other target ports. */
  readonly nexuses: readonly NexusName[];
  /** SPEC_I_PT: who else is registered, if it is not yet; null without it. */
  readonly others: readonly NexusName[] | null;
}

/** REGISTER and REGISTER AND IGNORE EXISTING KEY (SPC-4 5.13.7, tables 54 and 55). With ALL_TG_PT as if it had come through every port. */
export function register(before: PersistentState, request: Registration): Outcome {
  const { key, newKey, aptpl, nexuses, others } = request;
  let state = before;
  const notices: Notice[] = [];
  for (const nexus of nexuses) {
    const now = findRegistrant(state, nexus);
    if (key !== null && key !== (now?.key ?? ZERO_KEY)) return CONFLICT;
    if (now !== undefined && others !== null) return refuse(INVALID_FIELD_IN_CDB, 1);
    if (newKey !== ZERO_KEY) state = setKey(state, nexus, newKey);
    else if (now !== undefined) {
      const gone = unregister(state, nexus);
      state = gone.state;
      notices.push(...gone.notices);
    }
  }
  if (newKey !== ZERO_KEY && others !== null) {
    for (const nexus of others) if (findRegistrant(state, nexus) === undefined) state = setKey(state, nexus, newKey);
  }
  if (state.registrants.length > MAX_REGISTRANTS) return refuse(INSUFFICIENT_REGISTRATION_RESOURCES, -1);
  const due = notices.filter(({ nexus, kind }) => isStillDue(state, nexus, kind));
  return change(state.aptpl === aptpl ? state : { ...state, aptpl }, due);
}

/** RESERVE (SPC-4 5.13.9). */
export function reserve(state: PersistentState, nexus: NexusName, key: string, type: ReservationType): Outcome {
  if (findRegistrant(state, nexus)?.key !== key) return CONFLICT;
  if (state.type === null) {
    const holder = isAllRegistrants(type) ? null : nameOf(nexus);
    return change({ ...state, type, holder });
  }
  return isHolder(state, nexus) && state.type === type ? change(state) : CONFLICT;
}

/** RELEASE (SPC-4 5.13.11.1.2). */
export function release(state: PersistentState, nexus: NexusName, key: string, type: ReservationType): Outcome {
  if (findRegistrant(state, nexus)?.key !== key) return CONFLICT;
  if (!isHolder(state, nexus)) return change(state);
  if (state.type !== type) return refuse(INVALID_RELEASE_OF_PERSISTENT_RESERVATION, -1);
  const released = withoutReservation(state);
  return change(released, isForRegistrants(type) ? notifyAll(state, nexus, UnitAttention.RESERVATIONS_RELEASED) : []);
}

/** CLEAR (SPC-4 5.13.11.1.6). */
export function clear(state: PersistentState, nexus: NexusName, key: string): Outcome {
  if (findRegistrant(state, nexus)?.key !== key) return CONFLICT;
  return change(
    { ...NO_REGISTRATIONS, aptpl: state.aptpl },
    notifyAll(state, nexus, UnitAttention.RESERVATIONS_PREEMPTED),
  );
}

/** PREEMPT (SPC-4 5.13.11.1.4): takes the registrations of `victimKey` away, and the reservation when it is held with it. */
export function preempt(
  state: PersistentState,
  nexus: NexusName,
  key: string,
  victimKey: string,
  type: number,
): Outcome {
  if (findRegistrant(state, nexus)?.key !== key) return CONFLICT;
  const allHold = state.type !== null && isAllRegistrants(state.type);
  if (victimKey === ZERO_KEY && !allHold) return refuse(INVALID_FIELD_IN_PARAMETER_LIST, 8);
  const everybody = victimKey === ZERO_KEY;
  const victims = state.registrants.filter((registrant) => everybody || registrant.key === victimKey);
  if (victims.length === 0) return CONFLICT;
  const takesReservation = everybody || (state.holder !== null && victims.some((one) => sameNexus(one, state.holder!)));
  if (!takesReservation) return removeVictims(state, nexus, victims);
  if (!isReservationType(type)) return refuse(INVALID_FIELD_IN_CDB, 2);
  const others = victims.filter((one) => !sameNexus(one, nexus));
  const registrants = state.registrants.filter((one) => !others.includes(one));
  const holder = isAllRegistrants(type) ? null : nameOf(nexus);
  const next: PersistentState = { ...state, registrants, type, holder };
  const notices = others.map((one): Notice => ({ nexus: one, kind: UnitAttention.REGISTRATIONS_PREEMPTED }));
  if (type !== state.type) notices.push(...notifyAll(next, nexus, UnitAttention.RESERVATIONS_RELEASED));
  return change(next, notices, everybody ? others : victims);
}

/** The reservation is not theirs: it stays, unless the last of all registrants goes. */
function removeVictims(state: PersistentState, nexus: NexusName, victims: readonly Registrant[]): Change {
  const rest = { ...state, registrants: state.registrants.filter((one) => !victims.includes(one)) };
  const next = rest.registrants.length === 0 ? withoutReservation(rest) : rest;
  const notices = victims
    .filter((one) => !sameNexus(one, nexus))
    .map((one): Notice => ({ nexus: one, kind: UnitAttention.REGISTRATIONS_PREEMPTED }));
  return change(next, notices, victims);
}

export interface Move {
  readonly key: string;
  readonly newKey: string;
  readonly aptpl: boolean;
  /** UNREG */
  readonly unregister: boolean;
  readonly target: NexusName;
}

/** REGISTER AND MOVE (SPC-4 5.13.8, table 56). */
export function registerAndMove(state: PersistentState, nexus: NexusName, request: Move): Outcome {
  const { key, newKey, target, aptpl } = request;
  if (findRegistrant(state, nexus)?.key !== key) return CONFLICT;
  if (state.type === null) return refuse(INVALID_FIELD_IN_CDB, 1);
  if (isAllRegistrants(state.type) || !isHolder(state, nexus)) return CONFLICT;
  if (newKey === ZERO_KEY) return refuse(INVALID_FIELD_IN_PARAMETER_LIST, 8);
  if (sameNexus(target, nexus)) return refuse(INVALID_FIELD_IN_PARAMETER_LIST, 24);
  let next = setKey({ ...state, aptpl, holder: nameOf(target) }, target, newKey);
  if (request.unregister) {
    next = { ...next, registrants: next.registrants.filter((one) => !sameNexus(one, nexus)) };
  }
  if (next.registrants.length > MAX_REGISTRANTS) return refuse(INSUFFICIENT_REGISTRATION_RESOURCES, -1);
  return change(next);
}

/** What an administrator takes away: the registrations that `chosen` names, and the reservation with its holder. */
export function takeAway(state: PersistentState, chosen: (registrant: Registrant) => boolean): Change {
  let next = state;
  const notices: Notice[] = [];
  for (const registrant of state.registrants) {
    if (!chosen(registrant)) continue;
    const gone = unregister(next, registrant);
    next = gone.state;
    notices.push({ nexus: registrant, kind: UnitAttention.REGISTRATIONS_PREEMPTED }, ...gone.notices);
  }
  return change(
    next,
    notices.filter(({ nexus, kind }) => isStillDue(next, nexus, kind)),
  );
}

/** Who is gone by now needs no telling that the reservation is. */
function isStillDue(state: PersistentState, nexus: NexusName, kind: UnitAttention): boolean {
  return kind !== UnitAttention.RESERVATIONS_RELEASED || findRegistrant(state, nexus) !== undefined;
}

function nameOf({ initiatorPort, targetPort }: NexusName): NexusName {
  return { initiatorPort, targetPort };
}
