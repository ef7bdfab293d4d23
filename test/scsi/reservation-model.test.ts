import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { readU16BE, readU32BE } from '../../src/base/bytes.ts';
import type { Nexus } from '../../src/scsi/nexus.ts';
import { Status } from '../../src/scsi/spec.ts';
import { Cluster, PR_OUT, READ_10, WRITE_10 } from './support/cluster.ts';
import type { Result } from './support/initiator.ts';
import { type ModelRequest, ReservationModel, type Verdict } from './support/reservation-model.ts';

const PORTS = ['iqn.x:a,i,0x000000000001', 'iqn.x:b,i,0x000000000001', 'iqn.x:b,i,0x000000000002'];
const NEXUSES = PORTS.flatMap((port) => [`1 ${port}`, `2 ${port}`]);
const RESERVE_6 = [0x16, 0, 0, 0, 0, 0];
const RELEASE_6 = [0x17, 0, 0, 0, 0, 0];

const split = (name: string): { initiatorPort: string; targetPort: number } => ({
  initiatorPort: name.slice(2),
  targetPort: Number(name[0]),
});

function verdictOf({ status, sense }: Result): Verdict {
  if (status === Status.RESERVATION_CONFLICT) return 'conflict';
  return status === Status.GOOD ? 'good' : (sense as Verdict);
}

/** The unit and the model side by side. */
class Pair {
  readonly cluster = new Cluster();
  readonly model = new ReservationModel();
  readonly present = new Map<string, Nexus>();

  constructor() {
    for (const name of NEXUSES) this.login(name);
  }

  login(name: string): void {
    if (this.present.has(name)) return;
    const { initiatorPort, targetPort } = split(name);
    this.present.set(name, this.cluster.login(initiatorPort, targetPort));
  }

  logout(name: string): void {
    const nexus = this.present.get(name);
    if (nexus === undefined) return;
    this.cluster.logout(nexus);
    this.present.delete(name);
    this.model.lost(name);
  }

  restart(): void {
    this.cluster.restart();
    this.present.clear();
    this.model.restart();
    for (const name of NEXUSES.slice(0, 4)) this.login(name);
  }

  out(name: string, request: ModelRequest): void {
    const nexus = this.present.get(name);
    if (nexus === undefined) return;
    const { action, key, newKey, type, aptpl, others, nexuses, unregister } = request;
    const fields = { key, newKey, type, aptpl, allPorts: nexuses.length > 1 };
    const ports = others === null ? undefined : [...new Set(others.map((other) => split(other).initiatorPort))];
    const result =
      action === PR_OUT.REGISTER_AND_MOVE
        ? this.cluster.move(nexus, { ...fields, to: ports![0]!, port: split(others![0]!).targetPort, unregister })
        : this.cluster.out(nexus, action, { ...fields, ...(ports === undefined ? {} : { others: ports }) });
    expect(verdictOf(result)).toBe(this.model.out(name, request));
  }

  legacy(name: string, reserve: boolean): void {
    const nexus = this.present.get(name);
    if (nexus === undefined) return;
    const expected = reserve ? this.model.reserve6(name) : this.model.release6(name);
    expect(verdictOf(this.cluster.send(nexus, reserve ? RESERVE_6 : RELEASE_6))).toBe(expected);
  }

  reset(): void {
    this.cluster.unit.reset(null, () => {});
    this.model.reserver = '';
    for (const nexus of this.present.values()) expect(this.cluster.attentions(nexus)[0]).toBe('29/03');
    // A reset takes back what was waiting.
    for (const name of this.present.keys()) this.model.attentions.delete(name);
  }

  /** Everything that can be seen is what the model says. */
  compare(): void {
    const { cluster, model, present } = this;
    for (const [name, nexus] of present) {
      const expected = [...(model.attentions.get(name) ?? [])].sort();
      expect(cluster.attentions(nexus).sort(), name).toEqual(expected);
      model.attentions.delete(name);
      const { read, write } = model.allows(name);
      expect(verdictOf(cluster.send(nexus, READ_10, new Uint8Array(0), 512)) === 'good', name).toBe(read);
      expect(verdictOf(cluster.send(nexus, WRITE_10, new Uint8Array(512))) === 'good', name).toBe(write);
    }
    if (model.reserver !== '' || present.size === 0) return;
    const nexus = [...present.values()][0]!;
    expect(registrantsOf(cluster.in(nexus, 3), model.generation)).toEqual(
      [...model.keys].map(([name, key]) => ({ name, key, type: model.isHolder(name) ? model.type : 0 })).sort(byName),
    );
    const keys = cluster.in(nexus, 0);
    const found: number[] = [];
    for (let at = 8; at < keys.length; at += 8) found.push(readU32BE(keys, at + 4));
    expect(found.sort()).toEqual([...model.keys.values()].sort());
    const reservation = cluster.in(nexus, 1);
    expect(reservation.length).toBe(model.type === 0 ? 8 : 24);
    if (model.type !== 0) {
      expect([readU32BE(reservation, 12), reservation[21]]).toEqual([model.keys.get(model.holder) ?? 0, model.type]);
    }
    expect(cluster.in(nexus, 2)[3]! & 1).toBe(model.aptpl ? 1 : 0);
  }
}

const byName = (a: { name: string }, b: { name: string }): number => (a.name < b.name ? -1 : 1);

function registrantsOf(full: Uint8Array, generation: number): { name: string; key: number; type: number }[] {
  expect([readU32BE(full, 0), readU32BE(full, 4)]).toEqual([generation, full.length - 8]);
  const found = [];
  for (let at = 8; at < full.length; ) {
    const length = readU32BE(full, at + 20);
    const text = Buffer.from(full.subarray(at + 28, at + 24 + length)).toString();
    const name = `${readU16BE(full, at + 18)} ${text.replaceAll('\0', '')}`;
    found.push({ name, key: readU32BE(full, at + 4), type: (full[at + 12]! & 1) === 0 ? 0 : full[at + 13]! });
    at += 24 + length;
  }
  return found.sort(byName);
}

const nexus = fc.constantFrom(...NEXUSES);
const key = fc.nat({ max: 3 });
const type = fc.oneof(
  { weight: 9, arbitrary: fc.constantFrom(1, 3, 5, 6, 7, 8) },
  { weight: 1, arbitrary: fc.nat({ max: 15 }) },
);

type Step = (pair: Pair) => void;

const out: fc.Arbitrary<Step> = fc
  .record({
    name: nexus,
    /** By the holder, where there is one. */
    byHolder: fc.boolean(),
    action: fc.constantFrom(0, 0, 6, 6, 6, 1, 1, 1, 2, 3, 4, 4, 5, 7),
    /** Null: the right one. */
    guess: fc.oneof({ weight: 6, arbitrary: fc.constant(null) }, { weight: 1, arbitrary: key }),
    newKey: key,
    /** The new key is the holder's: for PREEMPT. */
    atHolder: fc.boolean(),
    type,
    reuseType: fc.boolean(),
    aptpl: fc.boolean(),
    allPorts: fc.boolean(),
    others: fc.option(fc.uniqueArray(fc.constantFrom(...PORTS), { minLength: 1 }), { freq: 3, nil: null }),
    target: nexus,
    unregister: fc.boolean(),
  })
  .map(
    ({
      name: any,
      byHolder,
      action,
      guess,
      newKey,
      atHolder,
      type: wanted,
      reuseType,
      aptpl,
      allPorts,
      others,
      target,
      unregister,
    }) => {
      return (pair: Pair): void => {
        const name = byHolder && pair.model.holder !== '' ? pair.model.holder : any;
        const registers = action === PR_OUT.REGISTER || action === PR_OUT.REGISTER_AND_IGNORE;
        const { initiatorPort, targetPort } = split(name);
        const ports = registers && allPorts ? [targetPort, 3 - targetPort] : [targetPort];
        const preempts = action === PR_OUT.PREEMPT || action === PR_OUT.PREEMPT_AND_ABORT;
        const specified = action === PR_OUT.REGISTER && others !== null;
        pair.out(name, {
          action,
          key: guess ?? pair.model.keys.get(name) ?? 0,
          newKey: preempts && atHolder ? (pair.model.keys.get(pair.model.holder) ?? 0) : newKey,
          type: reuseType && pair.model.type !== 0 ? pair.model.type : wanted,
          aptpl,
          nexuses: ports.map((port) => `${port} ${initiatorPort}`),
          others:
            action === PR_OUT.REGISTER_AND_MOVE
              ? [target]
              : specified
                ? others.flatMap((other) => ports.map((port) => `${port} ${other}`))
                : null,
          unregister,
        });
      };
    },
  );

const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 30, arbitrary: out },
  {
    weight: 2,
    arbitrary: fc.tuple(nexus, fc.boolean()).map(
      ([name, on]) =>
        (pair: Pair) =>
          pair.legacy(name, on),
    ),
  },
  { weight: 2, arbitrary: nexus.map((name) => (pair: Pair) => pair.logout(name)) },
  { weight: 3, arbitrary: nexus.map((name) => (pair: Pair) => pair.login(name)) },
  { weight: 1, arbitrary: fc.constant((pair: Pair) => pair.reset()) },
  { weight: 1, arbitrary: fc.constant((pair: Pair) => pair.restart()) },
);

describe('reservations', () => {
  it('are what a plain model of SPC-4 5.13 says, whatever three initiators do through two ports', () => {
    fc.assert(
      fc.property(fc.array(step, { minLength: 1, maxLength: 60 }), (steps) => {
        const pair = new Pair();
        for (const one of steps) {
          one(pair);
          pair.compare();
        }
      }),
      { numRuns: 400 },
    );
  });
});
