import { assert } from '../../../src/base/assert.ts';
import { writeU16BE, writeU32BE } from '../../../src/base/bytes.ts';
import { LogicalUnit } from '../../../src/scsi/logical-unit.ts';
import { Nexus } from '../../../src/scsi/nexus.ts';
import type { PersistentState } from '../../../src/scsi/persistent-state.ts';
import type { ReservationStore } from '../../../src/scsi/reservations.ts';
import { Target } from '../../../src/scsi/target.ts';
import type { LogicalUnitOptions } from '../../../src/scsi/unit-state.ts';
import { NO_DATA, Pending, type Result, type Server, senseText, unitOptions } from './initiator.ts';
import { RamLun } from './ram-lun.ts';

/** A store in memory, which may be slow or fail. */
export class MemoryStore implements ReservationStore {
  saved: PersistentState | null = null;
  saves = 0;
  failure: Error | null = null;
  /** Saves wait in `held` while it is set. */
  slow = false;
  readonly held: (() => void)[] = [];

  load(): PersistentState | null {
    return this.saved;
  }

  save(state: PersistentState | null, done: (error: Error | null) => void): void {
    this.saves++;
    const finish = (): void => {
      if (this.failure === null) this.saved = state;
      done(this.failure);
    };
    if (this.slow) this.held.push(finish);
    else finish();
  }
}

export const PR_OUT = {
  REGISTER: 0,
  RESERVE: 1,
  RELEASE: 2,
  CLEAR: 3,
  PREEMPT: 4,
  PREEMPT_AND_ABORT: 5,
  REGISTER_AND_IGNORE: 6,
  REGISTER_AND_MOVE: 7,
} as const;

export interface OutFields {
  /** RESERVATION KEY */
  key?: number;
  /** SERVICE ACTION RESERVATION KEY */
  newKey?: number;
  type?: number;
  scope?: number;
  aptpl?: boolean;
  allPorts?: boolean;
  /** SPEC_I_PT: TransportIDs of these initiator ports. */
  others?: readonly string[] | undefined;
}

export function transportId(name: string): Uint8Array {
  const text = Buffer.from(name);
  const length = Math.max(20, Math.ceil((text.length + 1) / 4) * 4);
  const id = new Uint8Array(4 + length);
  id[0] = name.includes(',i,0x') ? 0x45 : 0x05;
  writeU16BE(id, 2, length);
  id.set(text, 4);
  return id;
}

export function outList(fields: OutFields): Uint8Array {
  const { key = 0, newKey = 0, aptpl, allPorts, others } = fields;
  const ids = others === undefined ? null : Buffer.concat(others.map(transportId));
  const list = new Uint8Array(ids === null ? 24 : 28 + ids.length);
  writeU32BE(list, 4, key);
  writeU32BE(list, 12, newKey);
  list[20] = (ids === null ? 0 : 8) | (allPorts ? 4 : 0) | (aptpl ? 1 : 0);
  if (ids !== null) {
    writeU32BE(list, 24, ids.length);
    list.set(ids, 28);
  }
  return list;
}

export function outCdb(action: number, length: number, type = 0, scope = 0): Uint8Array {
  const cdb = new Uint8Array(10);
  cdb[0] = 0x5f;
  cdb[1] = action;
  cdb[2] = (scope << 4) | type;
  writeU32BE(cdb, 5, length);
  return cdb;
}

/** A volume with two target ports, and nodes that log in to it. */
export class Cluster {
  readonly store: MemoryStore = new MemoryStore();
  readonly lun: RamLun = new RamLun(65536);
  unit!: LogicalUnit;
  target!: Target;
  readonly #options: Partial<LogicalUnitOptions>;

  constructor(options: Partial<LogicalUnitOptions> = {}) {
    this.#options = options;
    this.restart();
  }

  /** As after the end of the server: everybody is logged out, what was not stored is gone. */
  restart(): void {
    this.unit = new LogicalUnit({ ...unitOptions(this.lun), reservations: this.store, ...this.#options });
    this.target = new Target('iqn.x:target', [1, 2]);
    this.target.setLun(0, this.unit);
  }

  /** Logs in and takes POWER ON OCCURRED away. */
  login(initiatorPort: string, targetPort = 1): Nexus {
    const nexus = new Nexus(initiatorPort, `iqn.x:target,t,0x000${targetPort}`, targetPort);
    this.target.attach(nexus);
    const first = senseText(this.send(nexus, REQUEST_SENSE, NO_DATA, 18).data);
    assert(first === '6/29/00', 'a login is a power on');
    return nexus;
  }

  logout(nexus: Nexus): void {
    this.target.detach(nexus);
  }

  start(nexus: Nexus, cdb: ArrayLike<number>, data: Uint8Array = NO_DATA, expectedIn = 0): Pending {
    const pending = new Pending(nexus);
    pending.start(this.#server, Uint8Array.from(cdb), data, expectedIn);
    return pending;
  }

  send(nexus: Nexus, cdb: ArrayLike<number>, data: Uint8Array = NO_DATA, expectedIn = 0): Result {
    const pending = this.start(nexus, cdb, data, expectedIn);
    this.lun.drain();
    return pending.result();
  }

  out(nexus: Nexus, action: number, fields: OutFields = {}): Result {
    const list = outList(fields);
    return this.send(nexus, outCdb(action, list.length, fields.type, fields.scope), list);
  }

  move(nexus: Nexus, fields: OutFields & { to: string; port: number; unregister?: boolean }): Result {
    const id = transportId(fields.to);
    const list = new Uint8Array(24 + id.length);
    writeU32BE(list, 4, fields.key ?? 0);
    writeU32BE(list, 12, fields.newKey ?? 0);
    list[17] = (fields.unregister ? 2 : 0) | (fields.aptpl ? 1 : 0);
    writeU16BE(list, 18, fields.port);
    writeU32BE(list, 20, id.length);
    list.set(id, 24);
    return this.send(nexus, outCdb(PR_OUT.REGISTER_AND_MOVE, list.length), list);
  }

  in(nexus: Nexus, action: number, length = 8192): Uint8Array {
    return this.send(nexus, [0x5e, action, 0, 0, 0, 0, 0, length >> 8, length & 255, 0], NO_DATA, length).data;
  }

  /** All unit attentions that wait for a nexus, as `2a/03`; they are taken away. */
  attentions(nexus: Nexus): string[] {
    const found: string[] = [];
    for (;;) {
      const sense = senseText(this.send(nexus, REQUEST_SENSE, NO_DATA, 18).data);
      if (sense === '0/00/00') return found;
      found.push(sense.slice(2));
    }
  }

  get #server(): Server {
    const { target } = this;
    return { prepare: (task) => target.prepare(task, 0), execute: (task) => target.execute(task) };
  }
}

const REQUEST_SENSE: readonly number[] = [3, 0, 0, 0, 18, 0];
export const TEST_UNIT_READY: readonly number[] = [0, 0, 0, 0, 0, 0];
export const READ_10: readonly number[] = [0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0];
export const WRITE_10: readonly number[] = [0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0];
