/** The part of the control socket's messages that is about who may log in: see control-messages.ts. Secrets only ever go towards the pool. */
import * as v from 'valibot';
import { integer, object, type Schema, strictObject } from '../base/schema.ts';

export interface AccessEntryMessage {
  /** An iSCSI name, or the beginning of names with `*` behind it. */
  initiator: string;
  denied: boolean;
  /** null: all. */
  volumes: string[] | null;
  readOnly: boolean;
  /** Of CHAP; null: nobody is asked. */
  user: string | null;
  /** Whom the target says to be; null when it is not asked. */
  mutualUser: string | null;
}

export interface AccessMessage {
  /** Whoever reaches a portal may have every volume; the entries do not count. */
  open: boolean;
  entries: AccessEntryMessage[];
}

export interface SessionMessage {
  initiator: string;
  /** Of CHAP; null for an initiator that was not asked. */
  user: string | null;
  /** `none`, `CHAP SHA-256`, `mutual CHAP MD5`. */
  authentication: string;
  /** Names of the volumes that it sees. */
  volumes: string[];
}

/** Who may log in, in short. */
export interface PoolAccessMessage {
  /** Whoever reaches a portal may. */
  open: boolean;
  /** Entries of the access list. */
  entryCount: number;
  /** Why nobody may before it is put right; null when nothing is wrong. */
  problem: string | null;
}

/** What is left out stays as it is; of a new entry: all volumes, to read and write, no authentication. */
export interface AllowMessage {
  initiator: string;
  volumes?: string[] | undefined;
  readOnly?: boolean | undefined;
  user?: string | undefined;
  secret?: string | undefined;
  /** null: the target authenticates itself no more. */
  mutual?: { user: string; secret: string } | null | undefined;
}

export interface DenyMessage {
  initiator: string;
  /** Only this user. */
  user?: string | undefined;
}

export interface OpenMessage {
  open: boolean;
}

/** Who may log in to a pool's target. What is changed counts at once: sessions that are not let in any more are dropped. */
export interface AccessControl {
  /** The list as it is in the pool's folder; a server takes over what was changed there by hand. EINVAL, EPERM. */
  list(): Promise<AccessMessage>;
  /** Lets initiators in; a pool that was open to all is not any more. EINVAL; ENOENT for a new user without a secret. */
  allow(request: AllowMessage): Promise<AccessMessage>;
  /** Whoever the pattern means is not let in. ENOENT for a user that is not there. */
  deny(request: DenyMessage): Promise<AccessMessage>;
  /** Lets everybody in, or only those of the list. */
  setOpen(request: OpenMessage): Promise<AccessMessage>;
}

const text = v.pipe(v.string(), v.minLength(1), v.maxLength(1024));

export const accessSchema: Schema<AccessMessage> = object({
  open: v.boolean(),
  entries: v.array(
    object({
      initiator: v.string(),
      denied: v.boolean(),
      volumes: v.nullable(v.array(v.string())),
      readOnly: v.boolean(),
      user: v.nullable(v.string()),
      mutualUser: v.nullable(v.string()),
    }),
  ),
});

export const allowSchema: Schema<AllowMessage> = strictObject({
  initiator: text,
  volumes: v.optional(v.pipe(v.array(text), v.minLength(1), v.maxLength(1024))),
  readOnly: v.optional(v.boolean()),
  user: v.optional(text),
  secret: v.optional(v.pipe(v.string(), v.maxLength(4096))),
  mutual: v.optional(v.nullable(strictObject({ user: text, secret: v.pipe(v.string(), v.maxLength(4096)) }))),
});

export const denySchema: Schema<DenyMessage> = strictObject({ initiator: text, user: v.optional(text) });
export const openSchema: Schema<OpenMessage> = strictObject({ open: v.boolean() });

export const sessionSchema: Schema<SessionMessage> = object({
  initiator: v.string(),
  user: v.nullable(v.string()),
  authentication: v.string(),
  volumes: v.array(v.string()),
});

export const poolAccessSchema: Schema<PoolAccessMessage> = object({
  open: v.boolean(),
  entryCount: integer(0),
  problem: v.nullable(v.string()),
});
