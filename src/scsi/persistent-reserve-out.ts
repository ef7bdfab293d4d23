import { readU16BE, readU32BE } from '../base/bytes.ts';
import type { Command, CommandHandler } from './command.ts';
import {
  clear,
  isReservationType,
  MAX_REGISTRANTS,
  type NexusName,
  type Outcome,
  type PersistentState,
  preempt,
  type Registration,
  register,
  registerAndMove,
  release,
  reserve,
} from './persistent-state.ts';
import { nameOf, type Reservations } from './reservations.ts';
import {
  INTERNAL_TARGET_FAILURE,
  INVALID_FIELD_IN_CDB,
  INVALID_FIELD_IN_PARAMETER_LIST,
  PARAMETER_LIST_LENGTH_ERROR,
  type Sense,
} from './sense.ts';
import { PersistentReserveOut as Action, Status } from './spec.ts';
import { isPortOf, readTransportId } from './transport-id.ts';
import { UnitAttention } from './unit-attention.ts';

/**
 * PERSISTENT RESERVE OUT (SPC-4 6.16).
 *
 *     basic  0 RESERVATION KEY(8)  8 SERVICE ACTION RESERVATION KEY(8)  20 SPEC_I_PT 08h ALL_TG_PT 04h APTPL 01h  24
 *            with SPEC_I_PT  24 TRANSPORTID PARAMETER DATA LENGTH(4)  28 TransportIDs
 *     move   0 and 8 as above  17 UNREG 02h APTPL 01h  18 RELATIVE TARGET PORT IDENTIFIER(2)  20 TRANSPORTID LENGTH(4)  24 TransportID
 */

const BASIC_LENGTH = 24;
const SPEC_I_PT = 0x08;
const ALL_TG_PT = 0x04;
const APTPL = 0x01;
const UNREG = 0x02;
/** More than TransportIDs of all registrants that there may be. */
const MAX_PARAMETER_LIST = 64 * 1024;

/** What the parameter list asks for, or what is wrong with it. */
type Request = (state: PersistentState) => Outcome;
type Problem = Outcome & { kind: 'check' };

const wrong = (sense: Sense, byte: number): Problem => ({ kind: 'check', sense, byte });
const wrongField = (byte: number): Problem => wrong(INVALID_FIELD_IN_PARAMETER_LIST, byte);

function parameterListLength(cdb: Uint8Array): number {
  return readU32BE(cdb, 5);
}

function keyAt(list: Uint8Array, at: number): string {
  return Buffer.from(list.subarray(at, at + 8)).toString('hex');
}

/** `parse` makes a request of a parameter list of at least 24 bytes. `counts`: PRGENERATION counts it. */
function handler(
  counts: boolean,
  isLengthValid: (length: number) => boolean,
  parse: (command: Command, list: Uint8Array) => Request | Problem,
): CommandHandler {
  return {
    prepare(command: Command): boolean {
      const { task } = command;
      const length = parameterListLength(task.cdb);
      if (!isLengthValid(length) || task.expectedDataOut < length) return command.check(PARAMETER_LIST_LENGTH_ERROR);
      return command.transferOut(length);
    },

    execute(command: Command): void {
      const { task, unit } = command;
      const list = new Uint8Array(task.dataOutLength);
      task.dataOut.copyTo(list, 0, 0, list.length);
      const request = parse(command, list);
      if (typeof request !== 'function') {
        finish(command, request);
        return;
      }
      unit.reservations.request({
        counts,
        decide: (state) => (task.aborted ? null : request(state)),
        done: (outcome) => finish(command, outcome),
      });
    },

    step(): void {},
  };
}

function finish(command: Command, outcome: Outcome | null | Error): void {
  const { task } = command;
  if (outcome === null) {
    task.status = Status.TASK_ABORTED;
    command.finish();
  } else if (outcome instanceof Error) command.fail(INTERNAL_TARGET_FAILURE);
  else if (outcome.kind === 'conflict') {
    command.conflict();
    command.finish();
  } else if (outcome.kind === 'change') finishChange(command, outcome);
  else if (outcome.byte < 0) command.fail(outcome.sense);
  else if (outcome.sense === INVALID_FIELD_IN_CDB) {
    command.checkCdb(outcome.byte);
    command.finish();
  } else command.failParameter(outcome.byte);
}

/** PREEMPT AND ABORT has its status when the tasks have ended. */
function finishChange(command: Command, { preempted }: Outcome & { kind: 'change' }): void {
  const { task, unit } = command;
  if ((task.cdb[1]! & 0x1f) !== Action.PREEMPT_AND_ABORT) {
    command.finish();
    return;
  }
  const keys = new Set(preempted.map(({ initiatorPort, targetPort }) => `${targetPort} ${initiatorPort}`));
  const others = unit.taskSet.abort(
    (one) => one !== task && keys.has(`${one.nexus.relativeTargetPort} ${one.nexus.initiatorPort}`),
    task.nexus,
    () => command.finish(),
  );
  if (unit.taskSet.reportsAborted) return;
  for (const nexus of others) unit.nexuses.get(nexus)?.attentions.raise(UnitAttention.COMMANDS_CLEARED);
}

const isBasic = (length: number): boolean => length === BASIC_LENGTH;

function registration(ignoresKey: boolean): CommandHandler {
  const mayBeLonger = (length: number): boolean => length >= BASIC_LENGTH && length <= MAX_PARAMETER_LIST;
  return handler(true, ignoresKey ? isBasic : mayBeLonger, (command, list) => {
    const { unit, task } = command;
    const flags = list[20]!;
    const aptpl = (flags & APTPL) !== 0;
    if (aptpl && !unit.reservations.canPersist) return wrongField(20);
    const specified = (flags & SPEC_I_PT) !== 0;
    if (specified && ignoresKey) return wrongField(20);
    if (!specified && list.length !== BASIC_LENGTH) return wrong(PARAMETER_LIST_LENGTH_ERROR, -1);
    const name = nameOf(task.nexus);
    const ports = (flags & ALL_TG_PT) === 0 ? [name.targetPort] : portsFrom(name.targetPort, task.nexus.frontEnd.ports);
    let others: NexusName[] | null = null;
    if (specified) {
      const named = readInitiatorPorts(unit.reservations, command, list);
      if (typeof named === 'number') return wrongField(named);
      others = named.flatMap((initiatorPort) => ports.map((targetPort) => ({ initiatorPort, targetPort })));
    }
    const request: Registration = {
      key: ignoresKey ? null : keyAt(list, 0),
      newKey: keyAt(list, 8),
      aptpl,
      nexuses: ports.map((targetPort) => ({ initiatorPort: name.initiatorPort, targetPort })),
      others,
    };
    return (state) => register(state, request);
  });
}

/** `own` first. */
function portsFrom(own: number, all: readonly number[]): number[] {
  return [own, ...all.filter((port) => port !== own)];
}

/** The initiator ports that the TransportIDs of SPEC_I_PT name; the byte of the field that is wrong. */
function readInitiatorPorts(reservations: Reservations, { unit }: Command, list: Uint8Array): string[] | number {
  const lengthAt = BASIC_LENGTH;
  if (list.length < lengthAt + 4) return lengthAt;
  const end = lengthAt + 4 + readU32BE(list, lengthAt);
  if (end !== list.length) return lengthAt;
  const ports = new Set<string>();
  for (let at = lengthAt + 4; at < end; ) {
    const id = readTransportId(list, at, end);
    if (typeof id === 'number') return id;
    if (id.wildcard) {
      const known = [...unit.nexuses.keys(), ...reservations.state.registrants]
        .map(({ initiatorPort }) => initiatorPort)
        .filter((initiatorPort) => isPortOf(initiatorPort, id.name));
      // Nobody would be registered, and the initiator would believe that somebody is.
      if (known.length === 0) return at;
      for (const port of known) ports.add(port);
    } else ports.add(id.name);
    if (ports.size > MAX_REGISTRANTS) return at;
    at = id.end;
  }
  return [...ports];
}

export const registerKey: CommandHandler = registration(false);
export const registerAndIgnore: CommandHandler = registration(true);

function onReservation(
  counts: boolean,
  act: (state: PersistentState, nexus: NexusName, list: Uint8Array, type: number) => Outcome,
): CommandHandler {
  return handler(counts, isBasic, (command, list) => {
    const { nexus, cdb } = command.task;
    if ((list[20]! & SPEC_I_PT) !== 0) return wrongField(20);
    // A scope that does not exist is like a type that does not.
    const type = cdb[2]! >>> 4 === 0 ? cdb[2]! & 0x0f : -1;
    return (state) => act(state, nameOf(nexus), list, type);
  });
}

export const reserveUnit: CommandHandler = onReservation(false, (state, nexus, list, type) =>
  isReservationType(type) ? reserve(state, nexus, keyAt(list, 0), type) : wrong(INVALID_FIELD_IN_CDB, 2),
);
export const releaseUnit: CommandHandler = onReservation(false, (state, nexus, list, type) =>
  isReservationType(type) ? release(state, nexus, keyAt(list, 0), type) : wrong(INVALID_FIELD_IN_CDB, 2),
);
export const clearAll: CommandHandler = onReservation(true, (state, nexus, list) =>
  clear(state, nexus, keyAt(list, 0)),
);
/** PREEMPT, and with the abort that its service action asks for PREEMPT AND ABORT. */
export const preemptKey: CommandHandler = onReservation(true, (state, nexus, list, type) =>
  preempt(state, nexus, keyAt(list, 0), keyAt(list, 8), type),
);

export const moveReservation: CommandHandler = handler(
  true,
  (length) => length >= BASIC_LENGTH + 24 && length <= MAX_PARAMETER_LIST,
  (command, list) => {
    const { unit, task } = command;
    const aptpl = (list[17]! & APTPL) !== 0;
    if (aptpl && !unit.reservations.canPersist) return wrongField(17);
    if (BASIC_LENGTH + readU32BE(list, 20) !== list.length) return wrongField(20);
    const id = readTransportId(list, BASIC_LENGTH, list.length);
    if (typeof id === 'number') return wrongField(id);
    if (id.wildcard || id.end !== list.length) return wrongField(BASIC_LENGTH);
    const targetPort = readU16BE(list, 18);
    if (!task.nexus.frontEnd.ports.includes(targetPort)) return wrongField(18);
    const move = {
      key: keyAt(list, 0),
      newKey: keyAt(list, 8),
      aptpl,
      unregister: (list[17]! & UNREG) !== 0,
      target: { initiatorPort: id.name, targetPort },
    };
    return (state) => registerAndMove(state, nameOf(task.nexus), move);
  },
);
