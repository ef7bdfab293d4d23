import { type Conflict, Refusals } from './conflict.ts';
import type { Nexus } from './nexus.ts';
import {
  findRegistrant,
  isForRegistrants,
  isHolder,
  isWriteExclusive,
  type NexusName,
  NO_REGISTRATIONS,
  type Notice,
  type Outcome,
  type PersistentState,
} from './persistent-state.ts';
import { UnitAttention, type UnitAttentionQueue } from './unit-attention.ts';
import type { ReservationsHandover } from './unit-handover.ts';

/** Where registrations outlive the process (APTPL). */
export interface ReservationStore {
  /** What was saved last, null when nothing was. */
  load(): PersistentState | null;
  /** Replaces what was saved; null: there is nothing to keep. `done` is called once, now or later, when it is durable, or with the failure. */
  save(state: PersistentState | null, done: (error: Error | null) => void): void;
}

/** What is kept for a nexus that is there. */
export interface NexusReservations {
  readonly attentions: UnitAttentionQueue;
  /** What the nexus is refused: see `Refusals`. */
  refusals: number;
}

/** A change of the registrations that waits for its turn. */
export interface ReservationRequest {
  /** Whether PRGENERATION counts it. */
  readonly counts: boolean;
  /** What becomes of `state`; null when it is not wanted any more. */
  decide(state: PersistentState): Outcome | null;
  /** It is so, and durable where it has to be; null after a `null`; an error when it could not be saved, and nothing has changed. */
  done(outcome: Outcome | null | Error): void;
}

/** Unit attentions for nexuses that are not there at the moment. */
const MAX_ABSENT = 256;

/**
 * The reservations of a logical unit: persistent ones (SPC-4 5.13) and those of RESERVE (SPC-2 5.5). Registrations belong to the names of a nexus and
 * outlive its sessions. What each nexus that is there may not do is worked out when something changes, so that a command only looks at it.
 *
 * Changes take turns: each is decided on the state that the one before left, made durable with APTPL, and only then so.
 */
export class Reservations {
  /** PRGENERATION; starts at zero with the process. */
  generation = 0;
  readonly #nexuses: ReadonlyMap<Nexus, NexusReservations>;
  readonly #store: ReservationStore | null;
  #state: PersistentState = NO_REGISTRATIONS;
  /** Who has it with RESERVE. */
  #reserver: Nexus | null = null;
  /** Who had it in the process before, and has not come yet. */
  #expectedReserver: NexusName | null = null;
  readonly #line: ReservationRequest[] = [];
  #busy = false;
  readonly #absent: Map<string, { readonly nexus: NexusName; readonly kinds: Set<UnitAttention> }> = new Map();

  /** `nexuses` is what the unit has of its own. Without a store nothing can be kept across a restart. */
  constructor(nexuses: ReadonlyMap<Nexus, NexusReservations>, store: ReservationStore | null) {
    this.#nexuses = nexuses;
    this.#store = store;
    if (store !== null) this.#state = store.load() ?? NO_REGISTRATIONS;
  }

  get state(): PersistentState {
    return this.#state;
  }

  /** Who has it with RESERVE; null when nobody has. */
  get reserver(): Nexus | null {
    return this.#reserver;
  }

  /** APTPL is possible. */
  get canPersist(): boolean {
    return this.#store !== null;
  }

  /** What a nexus is refused; for one that is there the same as in its `refusals`. */
  refusalsOf(nexus: Nexus): number {
    if (this.#reserver !== null) return this.#reserver === nexus ? Refusals.BY_OWN_RESERVE : Refusals.BY_RESERVE;
    const state = this.#state;
    if (state.type === null) return Refusals.NONE;
    const name = nameOf(nexus);
    if (isHolder(state, name)) return Refusals.NONE;
    if (isForRegistrants(state.type) && findRegistrant(state, name) !== undefined) return Refusals.NONE;
    return isWriteExclusive(state.type) ? Refusals.BY_WRITE_EXCLUSIVE : Refusals.BY_EXCLUSIVE_ACCESS;
  }

  /** Whether a reservation refuses `nexus` what `conflict` says: READ or WRITE of the medium by another unit's command, for instance. */
  refuses(nexus: Nexus, conflict: Conflict): boolean {
    return ((this.refusalsOf(nexus) >>> conflict) & 1) !== 0;
  }

  /** No change is under way. */
  handOver(): ReservationsHandover {
    const reserver = this.#reserver === null ? this.#expectedReserver : nameOf(this.#reserver);
    const absent = [...this.#absent.values()].map(({ nexus, kinds }) => ({
      nexus,
      kinds: NAMES.filter((name) => kinds.has(UnitAttention[name])),
    }));
    return { state: this.#state, generation: this.generation, reserver, absent };
  }

  /** Goes on with what another process had, kept across restarts or not: a fence must not open meanwhile. */
  takeOver({ state, generation, reserver, absent }: ReservationsHandover): void {
    this.#state = state;
    this.generation = generation;
    this.#expectedReserver = reserver;
    for (const { nexus, kinds } of absent) {
      this.missed(
        nexus,
        kinds.map((name) => UnitAttention[name]),
      );
    }
    this.#publish();
  }

  /** Unit attentions for a nexus that is not there: those of reservations wait for it. */
  missed(nexus: NexusName, kinds: readonly UnitAttention[]): void {
    for (const kind of kinds) if (KINDS.includes(kind)) this.#keep({ nexus, kind });
    if (this.#expectedReserver !== null && keyOf(this.#expectedReserver) === keyOf(nexus))
      this.#expectedReserver = null;
  }

  /** The nexus is there: it gets what it missed. */
  attached(nexus: Nexus, its: NexusReservations): void {
    const name = nameOf(nexus);
    if (this.#expectedReserver !== null && keyOf(this.#expectedReserver) === keyOf(name)) {
      this.#expectedReserver = null;
      this.#reserver = nexus;
      this.#publish();
    }
    its.refusals = this.refusalsOf(nexus);
    const missed = this.#absent.get(keyOf(name));
    if (missed === undefined) return;
    this.#absent.delete(keyOf(name));
    for (const kind of missed.kinds) its.attentions.raise(kind);
  }

  /** The nexus is gone, and with it what it had with RESERVE. What it was not told yet waits for it. */
  detached(nexus: Nexus, its: NexusReservations): void {
    for (const kind of KINDS) if (its.attentions.isPending(kind)) this.#keep({ nexus: nameOf(nexus), kind });
    if (this.#reserver !== nexus) return;
    this.#reserver = null;
    this.#publish();
  }

  /** A reset of the unit ends what RESERVE began. */
  reset(): void {
    this.#reserver = null;
    this.#publish();
  }

  /** RESERVE (SPC-2 7.21): false for RESERVATION CONFLICT. With registrations as CRH says (SPC-4 5.13.3). */
  reserve(nexus: Nexus): boolean {
    if (this.#hasRegistrations) return this.#isExcepted(nexus);
    if (this.#reserver !== null && this.#reserver !== nexus) return false;
    this.#reserver = nexus;
    this.#publish();
    return true;
  }

  /** RELEASE (SPC-2 7.16): false for RESERVATION CONFLICT. */
  release(nexus: Nexus): boolean {
    if (this.#hasRegistrations) return this.#isExcepted(nexus);
    if (this.#reserver === nexus) this.reset();
    return true;
  }

  /** An administrator ends what RESERVE began, if `isChosen`; its initiator is told. */
  breakReserve(isChosen: (nexus: NexusName) => boolean): void {
    const reserver = this.#reserver;
    if (reserver === null || !isChosen(nameOf(reserver))) return;
    this.reset();
    this.#tell({ nexus: nameOf(reserver), kind: UnitAttention.RESERVATIONS_PREEMPTED });
  }

  /** Whether the nexus is there now. */
  isPresent({ initiatorPort, targetPort }: NexusName): boolean {
    for (const nexus of this.#nexuses.keys()) {
      if (nexus.initiatorPort === initiatorPort && nexus.relativeTargetPort === targetPort) return true;
    }
    return false;
  }

  /** Puts a change in line. */
  request(request: ReservationRequest): void {
    this.#line.push(request);
    if (!this.#busy) this.#next();
  }

  get #hasRegistrations(): boolean {
    return this.#state.registrants.length > 0 || this.#busy;
  }

  /** RESERVE and RELEASE do nothing and are GOOD for whoever the persistent reservation lets do everything. */
  #isExcepted(nexus: Nexus): boolean {
    return this.#state.type !== null && this.refusalsOf(nexus) === Refusals.NONE;
  }

  #next(): void {
    for (;;) {
      const request = this.#line.shift();
      if (request === undefined) return;
      const outcome = request.decide(this.#state);
      if (outcome === null || outcome.kind !== 'change') {
        request.done(outcome);
        continue;
      }
      const { state } = outcome;
      if (this.#store === null || state === this.#state || !(state.aptpl || this.#state.aptpl)) {
        this.#make(request, outcome);
        continue;
      }
      this.#busy = true;
      this.#store.save(state.aptpl ? state : null, (error) => {
        this.#busy = false;
        if (error === null) this.#make(request, outcome);
        else request.done(error);
        this.#next();
      });
      return;
    }
  }

  #make(request: ReservationRequest, outcome: Outcome & { kind: 'change' }): void {
    if (request.counts) this.generation = (this.generation + 1) >>> 0;
    this.#state = outcome.state;
    this.#publish();
    for (const notice of outcome.notices) this.#tell(notice);
    request.done(outcome);
  }

  #publish(): void {
    for (const [nexus, its] of this.#nexuses) its.refusals = this.refusalsOf(nexus);
  }

  #tell(notice: Notice): void {
    let found = false;
    for (const [{ initiatorPort, relativeTargetPort }, { attentions }] of this.#nexuses) {
      const { nexus, kind } = notice;
      if (initiatorPort !== nexus.initiatorPort || relativeTargetPort !== nexus.targetPort) continue;
      attentions.raise(kind);
      found = true;
    }
    if (!found) this.#keep(notice);
  }

  #keep({ nexus, kind }: Notice): void {
    const key = keyOf(nexus);
    const kept = this.#absent.get(key);
    if (kept !== undefined) {
      kept.kinds.add(kind);
      return;
    }
    if (this.#absent.size >= MAX_ABSENT) this.#absent.delete(this.#absent.keys().next().value!);
    this.#absent.set(key, { nexus, kinds: new Set([kind]) });
  }
}

const NAMES = Object.keys(UnitAttention) as (keyof typeof UnitAttention)[];

const KINDS: readonly UnitAttention[] = [
  UnitAttention.RESERVATIONS_PREEMPTED,
  UnitAttention.RESERVATIONS_RELEASED,
  UnitAttention.REGISTRATIONS_PREEMPTED,
];

export function nameOf({ initiatorPort, relativeTargetPort }: Nexus): NexusName {
  return { initiatorPort, targetPort: relativeTargetPort };
}

function keyOf({ initiatorPort, targetPort }: NexusName): string {
  return `${targetPort} ${initiatorPort}`;
}
