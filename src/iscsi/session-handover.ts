import type { Identity, TargetDirectory } from './access.ts';
import { Parameters } from './parameters.ts';
import type { Session, SessionOrigin } from './session.ts';

/*
 * What one process tells the next of the sessions of a portal when that takes over from it: initiators keep their connections and notice a pause. Plain
 * values, for JSON; bytes are base64. Descriptors are numbers that mean something to who passes them on.
 */

/** A listening socket, which connections wait in meanwhile. */
export interface ListenerHandover {
  readonly host: string;
  readonly port: number;
  readonly tag: number;
  readonly fd: number;
}

/** Commands that task management has aborted before they came: see `CancelledCommands`. */
export interface CancelledMark {
  readonly lun: number | null;
  readonly endCmdSn: number;
}

export interface HeldCommandHandover {
  readonly cmdSn: number;
  readonly tag: number;
  readonly pdus: readonly string[];
}

/** A connection in full feature phase without a task, between two PDUs. */
export interface ConnectionHandover {
  readonly fd: number;
  /** Place among the listeners of the one that it came in by. */
  readonly listener: number;
  readonly cid: number;
  /** StatSN of the next status. */
  readonly statSn: number;
  readonly parameters: ParametersHandover;
  readonly nextTransferTag: number;
  readonly pings: number;
  readonly held: readonly HeldCommandHandover[];
  /** Received, and not looked at. */
  readonly input: string;
}

export interface SessionHandover {
  readonly initiatorName: string;
  /** Null for discovery. */
  readonly targetName: string | null;
  /** Whose secret the initiator has proved to know. */
  readonly user: string | null;
  readonly authentication: string;
  readonly isid: string;
  readonly tsih: number;
  readonly portalGroupTag: number;
  readonly expCmdSn: number;
  /** MaxCmdSN must not go back. */
  readonly windowSize: number;
  readonly cancelled: readonly CancelledMark[];
  readonly parameters: ParametersHandover;
  readonly connections: readonly ConnectionHandover[];
}

export interface PortalHandover {
  readonly listeners: readonly ListenerHandover[];
  readonly sessions: readonly SessionHandover[];
}

export type ParametersHandover = Omit<Parameters, 'takeSessionWide' | 'unsolicitedLength'>;

/** What the next process has to know of a session without a task. */
export function handOverSession(session: Session, connections: readonly ConnectionHandover[]): SessionHandover {
  return {
    initiatorName: session.initiatorName,
    targetName: session.targetName,
    user: session.identity.credential?.user ?? null,
    authentication: session.authentication,
    isid: session.isid,
    tsih: session.tsih,
    portalGroupTag: session.portalGroupTag,
    expCmdSn: session.window.expCmdSn,
    windowSize: session.window.size,
    cancelled: session.cancelled.handOver(),
    parameters: { ...session.parameters },
    connections,
  };
}

/** What a session goes on with; null when its user is not known any more. Secrets are not handed over: they are where the targets have theirs. */
export function originOf(handover: SessionHandover, targets: TargetDirectory): SessionOrigin | null {
  const { initiatorName, targetName, user, authentication, isid, expCmdSn } = handover;
  const known = user === null ? [] : targets.gate(initiatorName, targetName).credentials;
  const credential = known.find((each) => each.user === user) ?? null;
  if (user !== null && credential === null) return null;
  const identity: Identity = { initiatorName, credential };
  const parameters = Object.assign(new Parameters(), handover.parameters);
  return { initiatorName, identity, authentication, isid, targetName, cmdSn: expCmdSn, parameters };
}
