import { type Admission, type Identity, sameIdentity } from './access.ts';
import type { PortalLimits } from './limits.ts';
import { Session, type SessionOrigin } from './session.ts';
import { LoginStatus } from './spec.ts';

/** What identifies a session: initiator port and target port (RFC 7143 4.4.2). */
export interface SessionName {
  readonly initiatorName: string;
  /** Null for discovery. */
  readonly targetName: string | null;
  readonly isid: string;
  readonly portalGroupTag: number;
}

function keyOf({ initiatorName, targetName, isid, portalGroupTag }: SessionName): string {
  return `${initiatorName}\n${isid}\n${targetName ?? ''}\n${portalGroupTag}`;
}

/**
 * The sessions of a portal. A session stays here until the engine has given back its last task, so that a new one of the same nexus does not begin before:
 * an old write can never overtake a new one.
 */
export class SessionTable {
  private readonly sessions: Map<string, Session> = new Map();
  private readonly handles: Map<number, Session> = new Map();
  private readonly waiting: Map<Session, (() => void)[]> = new Map();
  private readonly limits: PortalLimits;
  private lastHandle: number;

  /** Session handles count up from `firstHandle`. */
  constructor(limits: PortalLimits, firstHandle: number) {
    this.limits = limits;
    this.lastHandle = firstHandle;
  }

  get count(): number {
    return this.sessions.size;
  }

  list(): Session[] {
    return [...this.sessions.values()];
  }

  find(name: SessionName): Session | null {
    return this.sessions.get(keyOf(name)) ?? null;
  }

  /** Whether a login may go on (RFC 7143 6.3.1); the same question is asked again when it is complete. */
  admit(name: SessionName, identity: Identity, tsih: number, cid: number): LoginStatus {
    const existing = this.find(name);
    // Who has proved to be somebody else does not end a session, nor get into it, by taking its initiator's name.
    if (existing !== null && existing.target !== null && !sameIdentity(existing.identity, identity)) {
      return LoginStatus.AUTHORIZATION_FAILURE;
    }
    if (tsih === 0) {
      if (existing === null && !this.hasRoom(name.initiatorName)) return LoginStatus.OUT_OF_RESOURCES;
      return LoginStatus.SUCCESS;
    }
    if (existing === null || existing.tsih !== tsih) return LoginStatus.SESSION_DOES_NOT_EXIST;
    // At error recovery level 0 a session does not outlive its connections: there is nothing to continue.
    if (existing.isEnding) return LoginStatus.SESSION_DOES_NOT_EXIST;
    // A connection with the same CID is reinstated.
    if (existing.isFull && existing.connection(cid) === undefined) return LoginStatus.TOO_MANY_CONNECTIONS;
    return LoginStatus.SUCCESS;
  }

  private hasRoom(initiatorName: string): boolean {
    if (this.sessions.size >= this.limits.sessions) return false;
    let count = 0;
    for (const session of this.sessions.values()) if (session.initiatorName === initiatorName) count++;
    return count < this.limits.sessionsPerInitiator;
  }

  /** Makes the session of a complete login; there is none with its name and ISID. `admission` is null for discovery. */
  add(login: SessionOrigin, admission: Admission | null, portalGroupTag: number): Session {
    do this.lastHandle = this.lastHandle === 0xffff ? 1 : this.lastHandle + 1;
    while (this.handles.has(this.lastHandle));
    return this.put(
      new Session(login, this.lastHandle, admission?.target ?? null, portalGroupTag, this.limits),
      admission,
    );
  }

  /** Makes a session anew that another process has had; `commandWindow` is its size there. */
  restore(
    origin: SessionOrigin,
    tsih: number,
    admission: Admission | null,
    portalGroupTag: number,
    commandWindow: number,
  ): Session {
    const limits = { ...this.limits, commandWindow };
    return this.put(new Session(origin, tsih, admission?.target ?? null, portalGroupTag, limits), admission);
  }

  private put(session: Session, admission: Admission | null): Session {
    this.sessions.set(keyOf(session), session);
    this.handles.set(session.tsih, session);
    if (session.nexus !== null && admission !== null) admission.target.attach(session.nexus, admission.access);
    return session;
  }

  /**
   * The session goes when none of its connections has a task, nor will have one. They may still be there, to send their last words: whoever reads that it is logged out
   * has no reservation any more.
   */
  settle(session: Session): void {
    if (this.handles.get(session.tsih) !== session || !session.connections.every(({ isSettled }) => isSettled)) return;
    this.sessions.delete(keyOf(session));
    this.handles.delete(session.tsih);
    if (session.nexus !== null) session.target!.detach(session.nexus);
    const waiting = this.waiting.get(session);
    this.waiting.delete(session);
    if (waiting !== undefined) for (const callback of waiting) callback();
  }

  /** Calls `callback` once when the session has been removed. */
  whenRemoved(session: Session, callback: () => void): void {
    const waiting = this.waiting.get(session);
    if (waiting === undefined) this.waiting.set(session, [callback]);
    else waiting.push(callback);
  }
}
