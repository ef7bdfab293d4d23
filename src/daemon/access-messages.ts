/** The part of the control socket's messages that is about who may log in: see control-messages.ts. Secrets only ever go towards the pool. */
import * as is from '../base/schema.ts';

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

const text = is.string().min(1).max(1024);

export const accessSchema: is.Schema<AccessMessage> = is.object({
  open: is.boolean(),
  entries: is.array(
    is.object({
      initiator: is.string(),
      denied: is.boolean(),
      volumes: is.array(is.string()).nullable(),
      readOnly: is.boolean(),
      user: is.string().nullable(),
      mutualUser: is.string().nullable(),
    }),
  ),
});

export const allowSchema: is.Schema<AllowMessage> = is.strictObject({
  initiator: text,
  volumes: is.array(text).min(1).max(1024).optional(),
  readOnly: is.boolean().optional(),
  user: text.optional(),
  secret: is.string().max(4096).optional(),
  mutual: is
    .strictObject({ user: text, secret: is.string().max(4096) })
    .nullable()
    .optional(),
});

export const denySchema: is.Schema<DenyMessage> = is.strictObject({ initiator: text, user: text.optional() });
export const openSchema: is.Schema<OpenMessage> = is.strictObject({ open: is.boolean() });

export const sessionSchema: is.Schema<SessionMessage> = is.object({
  initiator: is.string(),
  user: is.string().nullable(),
  authentication: is.string(),
  volumes: is.array(is.string()),
});

export const poolAccessSchema: is.Schema<PoolAccessMessage> = is.object({
  open: is.boolean(),
  entryCount: is.int().min(0),
  problem: is.string().nullable(),
});
