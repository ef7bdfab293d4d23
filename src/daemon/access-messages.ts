/** The part of the control socket's messages that is about who may log in: see control-messages.ts. Secrets only ever go towards the pool. */
import * as z from 'zod';

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

const text = z.string().min(1).max(1024);

export const accessSchema: z.ZodType<AccessMessage> = z.object({
  open: z.boolean(),
  entries: z.array(
    z.object({
      initiator: z.string(),
      denied: z.boolean(),
      volumes: z.array(z.string()).nullable(),
      readOnly: z.boolean(),
      user: z.string().nullable(),
      mutualUser: z.string().nullable(),
    }),
  ),
});

export const allowSchema: z.ZodType<AllowMessage> = z.strictObject({
  initiator: text,
  volumes: z.array(text).min(1).max(1024).optional(),
  readOnly: z.boolean().optional(),
  user: text.optional(),
  secret: z.string().max(4096).optional(),
  mutual: z
    .strictObject({ user: text, secret: z.string().max(4096) })
    .nullable()
    .optional(),
});

export const denySchema: z.ZodType<DenyMessage> = z.strictObject({ initiator: text, user: text.optional() });
export const openSchema: z.ZodType<OpenMessage> = z.strictObject({ open: z.boolean() });

export const sessionSchema: z.ZodType<SessionMessage> = z.object({
  initiator: z.string(),
  user: z.string().nullable(),
  authentication: z.string(),
  volumes: z.array(z.string()),
});

export const poolAccessSchema: z.ZodType<PoolAccessMessage> = z.object({
  open: z.boolean(),
  entryCount: z.int().min(0),
  problem: z.string().nullable(),
});
