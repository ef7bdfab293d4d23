import { equalBytes } from '../base/bytes.ts';
import type { LunAccess } from '../scsi/lun-access.ts';
import type { Target } from '../scsi/target.ts';

/** What a user knows, and what the target knows if it can prove who it is, too. */
export interface Credential {
  readonly user: string;
  readonly secret: Uint8Array;
  /** Null: the target proves nothing. */
  readonly mutual: { readonly user: string; readonly secret: Uint8Array } | null;
}

/** Who an initiator has been found to be. */
export interface Identity {
  /** Normalized. */
  readonly initiatorName: string;
  /** What it has proved to know; null when it was not asked. */
  readonly credential: Credential | null;
}

/** What is asked of an initiator before it may come in. */
export interface Gate {
  /** It is let in without authentication. */
  readonly open: boolean;
  /**
   * Who is not let in without, is asked for CHAP. The same for all targets and initiators, so that being asked tells nothing; where it is false, who is not let in is told
   * that there is no such target.
   */
  readonly chap: boolean;
  /** What lets the initiator in; may be empty. */
  readonly credentials: readonly Credential[];
}

/** A target, and what one initiator may do at it. */
export interface Admission {
  readonly target: Target;
  readonly access: LunAccess;
}

/** The targets that a portal serves, and who may have them. May change while it runs: see `Portal.accessChanged`. */
export interface TargetDirectory {
  /** Names are normalized; `targetName` is null for a discovery session. */
  gate(initiatorName: string, targetName: string | null): Gate;
  /** Undefined for a target that is not there, and for one that is not there for `identity`. */
  find(name: string, identity: Identity): Admission | undefined;
  /** Names of the targets that `identity` may log in to. */
  list(identity: Identity): string[];
}

/** Whether both are the same knowledge. Not in constant time: for what has been proved already. */
export function sameCredential(a: Credential, b: Credential): boolean {
  return a.user === b.user && equalBytes(a.secret, b.secret);
}

/** Whether both have proved the same. */
export function sameIdentity(a: Identity, b: Identity): boolean {
  if (a.initiatorName !== b.initiatorName) return false;
  if (a.credential === null || b.credential === null) return a.credential === b.credential;
  return sameCredential(a.credential, b.credential);
}
