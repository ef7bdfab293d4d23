import type { Socket } from 'node:net';
import type { FullFeature } from './full-feature.ts';
import type { InputFlow } from './input-flow.ts';
import { Parameters } from './parameters.ts';
import type { PduParser } from './pdu-parser.ts';
import type { PduWriter } from './pdu-writer.ts';
import type { Session } from './session.ts';
import type { ConnectionHandover, ParametersHandover } from './session-handover.ts';
import type { Transmitter } from './transmitter.ts';

/** The parts of a connection that its handing over works on. */
export interface MovableConnection {
  readonly cid: number;
  readonly socket: Socket;
  readonly session: Session | null;
  readonly parser: PduParser;
  readonly input: InputFlow;
  readonly transmitter: Transmitter;
  readonly writer: PduWriter;
  /** Null before the login is complete. */
  readonly fullFeature: FullFeature | null;
}

/** How far a connection is from the moment in which another process can go on with it. */
export const Calm = {
  /** There. */
  QUIET: 0,
  /** Its initiator owes data, or the rest of a PDU, or reads too slowly. */
  PEER: 1,
  /** The engine has its commands. */
  ENGINE: 2,
} as const;
export type Calm = (typeof Calm)[keyof typeof Calm];

/** Bytes that a command may take besides its data, while it is held. */
const HELD_OVERHEAD = 1024;

/** From now on new commands are kept and not delivered. */
export function freezeSession(session: Session): void {
  const { window, held, parameters } = session;
  window.isFrozen = true;
  // All that may come unasked.
  held.maxBytes = Math.max(held.maxBytes, window.size * (parameters.unsolicitedLength + HELD_OVERHEAD));
}

/** Brings a frozen connection nearer to its quiet moment: it is read from only while commands in flight wait for data. To be called again and again. */
export function settle(connection: MovableConnection): Calm {
  const { parser, input, transmitter } = connection;
  const { tasks, taskManager, replay, finishing } = connection.fullFeature!;
  if (finishing) return Calm.PEER;
  if (tasks?.isBlocked || replay.isHalted) return Calm.ENGINE;
  const expectsData = tasks?.expectsData === true;
  if (parser.paused === expectsData) {
    parser.paused = !expectsData;
    if (expectsData) input.resume();
  }
  if (expectsData || parser.isInPdu) return Calm.PEER;
  if ((tasks?.count ?? 0) > 0 || taskManager?.isBusy) return Calm.ENGINE;
  return transmitter.isIdle ? Calm.QUIET : Calm.PEER;
}

/** Goes on after a `freezeSession` that came to nothing. */
export function thaw(connections: Iterable<MovableConnection>): void {
  const sessions = new Set<Session>();
  for (const { session, parser, fullFeature } of connections) {
    if (session === null || fullFeature === null) continue;
    sessions.add(session);
    parser.paused = fullFeature.replay.isHalted;
  }
  for (const session of sessions) {
    session.window.isFrozen = false;
    session.deliver();
  }
  for (const { input } of connections) input.resume();
}

/** What the next process has to know of a quiet connection; nothing is read from it any more. */
export function handOverConnection(connection: MovableConnection, fd: number, listener: number): ConnectionHandover {
  const { cid, parser, input, writer } = connection;
  const { tasks, pings, held, parameters } = connection.fullFeature!;
  return {
    fd,
    listener,
    cid,
    statSn: writer.statSn,
    parameters: handOverParameters(parameters),
    nextTransferTag: tasks?.collector.nextTransferTag ?? 0,
    pings: pings.count,
    held: held.handOver(),
    input: Buffer.concat([parser.takePartialHeader(), input.takeRest()]).toString('base64'),
  };
}

/** Makes a new connection, which is not read from yet, go on as the one that `handover` is of. */
export function takeOverConnection(connection: MovableConnection, handover: ConnectionHandover): void {
  const { tasks, pings, held } = connection.fullFeature!;
  connection.writer.statSn = handover.statSn;
  if (tasks !== null) tasks.collector.nextTransferTag = handover.nextTransferTag;
  pings.count = handover.pings;
  held.takeOver(handover.held);
  connection.input.beginWith(Buffer.from(handover.input, 'base64'));
}

function handOverParameters(parameters: Parameters): ParametersHandover {
  return { ...parameters };
}

export function takeOverParameters(handover: ParametersHandover): Parameters {
  return Object.assign(new Parameters(), handover);
}
