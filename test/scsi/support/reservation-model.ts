import { PR_OUT } from './cluster.ts';

/**
 * Persistent reservations as SPC-4 5.13 tells them, sentence by sentence, on plain maps: to be compared with. Nexuses are texts, keys numbers, the status is
 * `good`, `conflict` or the sense.
 */

export type Verdict = 'good' | 'conflict' | `5/${string}`;

export interface ModelRequest {
  action: number;
  key: number;
  newKey: number;
  type: number;
  aptpl: boolean;
  /** REGISTER AND MOVE: whereto; REGISTER: SPEC_I_PT, together with those of ALL_TG_PT as nexuses. */
  others: string[] | null;
  /** The nexus itself and, with ALL_TG_PT, its like at the other ports. */
  nexuses: string[];
  unregister: boolean;
}

const REGISTRANTS_ONLY = [5, 6];
const ALL_REGISTRANTS = [7, 8];
const WRITE_EXCLUSIVE = [1, 5, 7];
const VALID = [1, 3, 5, 6, 7, 8];

export const PREEMPTED = '2a/03';
export const RELEASED = '2a/04';
export const REGISTRATION_PREEMPTED = '2a/05';

export class ReservationModel {
  keys = new Map<string, number>();
  type = 0;
  /** Of types that are not for all registrants. */
  holder = '';
  aptpl = false;
  generation = 0;
  /** Who has it with RESERVE(6). */
  reserver = '';
  attentions = new Map<string, Set<string>>();

  isHolder(nexus: string): boolean {
    if (this.type === 0) return false;
    return ALL_REGISTRANTS.includes(this.type) ? this.keys.has(nexus) : this.holder === nexus;
  }

  /** May `nexus` read, may it write? */
  allows(nexus: string): { read: boolean; write: boolean } {
    if (this.reserver !== '') return { read: this.reserver === nexus, write: this.reserver === nexus };
    if (this.type === 0 || this.isHolder(nexus)) return { read: true, write: true };
    if ([...REGISTRANTS_ONLY, ...ALL_REGISTRANTS].includes(this.type) && this.keys.has(nexus)) {
      return { read: true, write: true };
    }
    return { read: WRITE_EXCLUSIVE.includes(this.type), write: false };
  }

  reserve6(nexus: string): Verdict {
    if (this.keys.size > 0) return this.excepted(nexus);
    if (this.reserver !== '' && this.reserver !== nexus) return 'conflict';
    this.reserver = nexus;
    return 'good';
  }

  release6(nexus: string): Verdict {
    if (this.keys.size > 0) return this.excepted(nexus);
    if (this.reserver === nexus) this.reserver = '';
    return 'good';
  }

  private excepted(nexus: string): Verdict {
    const forRegistrants = [...REGISTRANTS_ONLY, ...ALL_REGISTRANTS].includes(this.type);
    return this.isHolder(nexus) || (forRegistrants && this.keys.has(nexus)) ? 'good' : 'conflict';
  }

  lost(nexus: string): void {
    if (this.reserver === nexus) this.reserver = '';
  }

  restart(): void {
    if (!this.aptpl) {
      this.keys.clear();
      this.type = 0;
      this.holder = '';
    }
    this.generation = 0;
    this.reserver = '';
    this.attentions.clear();
  }

  out(nexus: string, request: ModelRequest): Verdict {
    if (this.reserver !== '') return 'conflict';
    const verdict = this.act(nexus, request);
    if (verdict === 'good' && request.action !== PR_OUT.RESERVE && request.action !== PR_OUT.RELEASE) this.generation++;
    return verdict;
  }

  private act(nexus: string, request: ModelRequest): Verdict {
    const { action, key, newKey, type } = request;
    if (action === PR_OUT.REGISTER || action === PR_OUT.REGISTER_AND_IGNORE) return this.register(request);
    if ((action === PR_OUT.RESERVE || action === PR_OUT.RELEASE) && !VALID.includes(type)) return '5/24/00';
    if (!this.keys.has(nexus) || this.keys.get(nexus) !== key) return 'conflict';
    switch (action) {
      case PR_OUT.RESERVE:
        if (this.type === 0) {
          this.type = type;
          this.holder = ALL_REGISTRANTS.includes(type) ? '' : nexus;
          return 'good';
        }
        return this.isHolder(nexus) && this.type === type ? 'good' : 'conflict';
      case PR_OUT.RELEASE:
        if (!this.isHolder(nexus)) return 'good';
        if (this.type !== type) return '5/26/04';
        if (type >= 5) for (const other of this.keys.keys()) if (other !== nexus) this.raise(other, RELEASED);
        this.type = 0;
        this.holder = '';
        return 'good';
      case PR_OUT.CLEAR:
        for (const other of this.keys.keys()) if (other !== nexus) this.raise(other, PREEMPTED);
        this.keys.clear();
        this.type = 0;
        this.holder = '';
        return 'good';
      case PR_OUT.REGISTER_AND_MOVE:
        return this.move(nexus, request);
      default:
        return this.preempt(nexus, newKey, type);
    }
  }

  private register({ action, key, newKey, aptpl, others, nexuses }: ModelRequest): Verdict {
    const ignore = action === PR_OUT.REGISTER_AND_IGNORE;
    for (const one of nexuses) {
      if (!ignore && key !== (this.keys.get(one) ?? 0)) return 'conflict';
      if (others !== null && this.keys.has(one)) return '5/24/00';
    }
    const leavers: string[] = [];
    for (const one of nexuses) {
      if (newKey !== 0) this.keys.set(one, newKey);
      else if (this.keys.has(one)) leavers.push(one);
    }
    for (const one of leavers) this.leave(one, leavers);
    if (newKey !== 0) for (const one of others ?? []) if (!this.keys.has(one)) this.keys.set(one, newKey);
    this.aptpl = aptpl;
    return 'good';
  }

  private leave(nexus: string, leavers: readonly string[]): void {
    const held = this.isHolder(nexus);
    this.keys.delete(nexus);
    if (!held) return;
    if (ALL_REGISTRANTS.includes(this.type) && this.keys.size > 0) return;
    if (REGISTRANTS_ONLY.includes(this.type)) {
      for (const other of this.keys.keys()) if (!leavers.includes(other)) this.raise(other, RELEASED);
    }
    this.type = 0;
    this.holder = '';
  }

  private preempt(nexus: string, victimKey: number, type: number): Verdict {
    const all = ALL_REGISTRANTS.includes(this.type);
    if (victimKey === 0 && !all) return '5/26/00';
    const victims = [...this.keys].filter(([, key]) => victimKey === 0 || key === victimKey).map(([name]) => name);
    if (victims.length === 0) return 'conflict';
    const replaces = victimKey === 0 || (this.type !== 0 && !all && victims.includes(this.holder));
    if (replaces && !VALID.includes(type)) return '5/24/00';
    for (const one of victims) {
      if (one !== nexus) this.raise(one, REGISTRATION_PREEMPTED);
      if (one !== nexus || !replaces) this.keys.delete(one);
    }
    if (replaces) {
      if (type !== this.type) for (const one of this.keys.keys()) if (one !== nexus) this.raise(one, RELEASED);
      this.type = type;
      this.holder = ALL_REGISTRANTS.includes(type) ? '' : nexus;
    } else if (this.keys.size === 0) {
      this.type = 0;
      this.holder = '';
    }
    return 'good';
  }

  private move(nexus: string, { newKey, others, aptpl, unregister }: ModelRequest): Verdict {
    const target = others![0]!;
    if (this.type === 0) return '5/24/00';
    if (ALL_REGISTRANTS.includes(this.type) || this.holder !== nexus) return 'conflict';
    if (newKey === 0 || target === nexus) return '5/26/00';
    this.keys.set(target, newKey);
    this.holder = target;
    if (unregister) this.keys.delete(nexus);
    this.aptpl = aptpl;
    return 'good';
  }

  private raise(nexus: string, attention: string): void {
    const all = this.attentions.get(nexus);
    if (all === undefined) this.attentions.set(nexus, new Set([attention]));
    else all.add(attention);
  }
}
