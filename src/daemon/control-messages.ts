/**
 * The messages of the control socket, as both sides check them, and the shape of every `--json` output.
 * Sizes are bytes, times ISO 8601. Fields are only ever added: a reader ignores what it does not know, so that an older
 * command can talk to a newer server; a server refuses what it does not know, so that no wish is dropped silently.
 */
import * as z from 'zod';
import { type PoolAccessMessage, poolAccessSchema, type SessionMessage, sessionSchema } from './access-messages.ts';
import { type ProcessProtection, protectionSchema } from './protection-message.ts';
import { type PoolTcmuMessage, poolTcmuSchema } from './tcmu-messages.ts';

/** First part of every path. Changes when an existing message changes its meaning. */
export const CONTROL_VERSION = 'v1';
/** A takeover is an upgrade of HTTP: see handover-messages.ts. */
export const TAKEOVER_PROTOCOL = 'thinlun-takeover';
export const TAKEOVER_PATH: string = `/${CONTROL_VERSION}/takeover`;

export const POOL_MODES = ['write', 'read-only', 'out-of-data-space', 'out-of-metadata-space', 'fail'] as const;
export type PoolMode = (typeof POOL_MODES)[number];

/** Where a server's iSCSI portal listens. */
export interface PortalsMessage {
  /** Every address, as `host:port`; empty without a portal. */
  portals: string[];
  /** The same by portal group; each is a target port, and the tag is its relative target port identifier. */
  portalGroups: { tag: number; portals: string[] }[];
}

/** The process that has a pool open and serves it. */
export interface ServerMessage extends PortalsMessage {
  pid: number;
  version: string;
  /** iSCSI name of the pool's target. */
  target: string;
  /** Whether volumes are reachable for LIO. */
  tcmu: boolean;
  /** LIO's devices on the pool's volumes; null when volumes are not reachable for LIO, and of older servers. */
  tcmuDevices: PoolTcmuMessage | null;
  /** Against waiting for itself when memory is short; null when it was not asked for. */
  protection: ProcessProtection | null;
  /** Initiators that are logged in to the pool's target. */
  sessions: SessionMessage[];
}

/** Features of a pool as they are set. */
export interface PoolOptionsMessage {
  skipBlockZeroing: boolean;
  ignoreDiscard: boolean;
  noDiscardPassdown: boolean;
  errorIfNoSpace: boolean;
  readOnly: boolean;
  /** null: a sixteenth of the pool. */
  lowWaterBytes: number | null;
  /** 0: for ever. */
  noSpaceTimeoutMs: number;
  autoExtend: { limitBytes: number; stepBytes: number } | null;
}

export interface PoolMessage {
  name: string;
  uuid: string;
  directory: string;
  mode: PoolMode;
  needsCheck: boolean;
  transactionId: number;
  blockSizeBytes: number;
  dataSizeBytes: number;
  dataUsedBytes: number;
  /** A warning is due when no more than this is free. */
  lowWaterBytes: number;
  /** It has come to that. */
  dataIsLow: boolean;
  metadataSizeBytes: number;
  metadataUsedBytes: number;
  /** So little metadata space is left that it should be grown. */
  metadataIsLow: boolean;
  options: PoolOptionsMessage;
  /** Writes that find no space fail at once: because they are to, or because none came in time. */
  failsWhenFull: boolean;
  /** Discards reach the data device. */
  discardPassdown: boolean;
  volumeCount: number;
  /** Volumes that were deleted and whose blocks are still being freed. */
  deletedVolumeCount: number;
  /** What they still map. */
  deletedBytes: number;
  access: PoolAccessMessage;
  /** null when no server has the pool open. */
  server: ServerMessage | null;
}

export interface VolumeMessage {
  name: string;
  /** dm-thin device id. */
  id: number;
  lun: number;
  sizeBytes: number;
  mappedBytes: number;
  logicalBlockSize: number;
  /** Unit serial number (VPD 80h). */
  serial: string;
  /** NAA designator (VPD 83h), hexadecimal. */
  naa: string;
  /** The volume that it is a snapshot of; where that one was deleted, the one before it. Null for what is no snapshot. */
  origin: string | null;
  /** It stays as it is. */
  readOnly: boolean;
  /** Initiators may eject it. */
  removable: boolean;
  /** What initiators are told to align to. */
  physicalBlockSize: number;
  /** So much has been received of a volume that nobody can use before it is whole; null for all others. */
  receivedBytes: number | null;
  /** What shows where the volume has no blocks of its own, and what is wrong with it; null when the volume has none. */
  externalOrigin: { path: string; problem: string | null } | null;
  /** LIO's names of the backstores that stand on it; none from older servers. */
  backstores: string[];
}

/** What is left out stays as it is. */
export interface SetVolumeMessage {
  readOnly?: boolean | undefined;
  removable?: boolean | undefined;
  physicalBlockSize?: number | undefined;
}

export interface CreateVolumeMessage extends SetVolumeMessage {
  name: string;
  /** Left out: the size of the external origin. */
  sizeBytes?: number | undefined;
  logicalBlockSize?: 512 | 4096 | undefined;
  /** Absolute path of an image. */
  externalOrigin?: string | undefined;
}

export interface ResizeVolumeMessage {
  sizeBytes: number;
  /** Without it a smaller size is refused: what lies past the new end is lost. */
  allowShrink?: boolean | undefined;
}

/** All of them at one moment. */
export interface CreateSnapshotsMessage {
  snapshots: { origin: string; name: string }[];
  readOnly?: boolean | undefined;
}

export interface RenameVolumeMessage {
  name: string;
}

export interface RollbackVolumeMessage {
  snapshot: string;
  /** Though initiators use the volume, and though `snapshot` is none of it. */
  force?: boolean | undefined;
}

/** One of dm-thin's, as `dmsetup message` takes it. */
export interface DmMessage {
  message: string;
}

/** What `dmsetup status` says of each, behind its name. */
export interface StatusLinesMessage {
  pool: { name: string; line: string };
  volumes: { name: string; line: string }[];
}

/** Of block devices the new size is what they have now; files are made that large. */
export interface GrowPoolMessage {
  dataSizeBytes?: number | undefined;
  metadataSizeBytes?: number | undefined;
}

/** What is left out stays as it is. */
export interface SetOptionsMessage {
  skipBlockZeroing?: boolean | undefined;
  ignoreDiscard?: boolean | undefined;
  noDiscardPassdown?: boolean | undefined;
  errorIfNoSpace?: boolean | undefined;
  readOnly?: boolean | undefined;
  lowWaterBytes?: number | null | undefined;
  noSpaceTimeoutMs?: number | undefined;
  /** `stepBytes`: a tenth of the limit unless given. */
  autoExtend?: { limitBytes: number; stepBytes?: number | undefined } | null | undefined;
}

export interface VolumeListMessage {
  volumes: VolumeMessage[];
}

export interface CommitMessage {
  transactionId: number;
}

export interface DeletedMessage {
  deleted: string;
}

export interface ErrorMessage {
  error: { code: string; message: string; hint: string | null };
}

const size = z.int().min(0);
const positiveSize = z.int().min(1);

export const portalsShape: { portals: z.ZodType<string[]>; portalGroups: z.ZodType<PortalsMessage['portalGroups']> } = {
  portals: z.array(z.string()),
  portalGroups: z.array(z.object({ tag: z.int().min(1).max(65535), portals: z.array(z.string()) })),
};

export const serverSchema: z.ZodType<ServerMessage> = z.object({
  pid: z.int().min(1),
  version: z.string(),
  target: z.string(),
  ...portalsShape,
  tcmu: z.boolean(),
  tcmuDevices: poolTcmuSchema.nullable().default(null),
  protection: protectionSchema.nullable().default(null),
  sessions: z.array(sessionSchema),
});

const optionsSchema: z.ZodType<PoolOptionsMessage> = z.object({
  skipBlockZeroing: z.boolean(),
  ignoreDiscard: z.boolean(),
  noDiscardPassdown: z.boolean(),
  errorIfNoSpace: z.boolean(),
  readOnly: z.boolean(),
  lowWaterBytes: size.nullable(),
  noSpaceTimeoutMs: size,
  autoExtend: z.object({ limitBytes: size, stepBytes: size }).nullable(),
});

export const poolSchema: z.ZodType<PoolMessage> = z.object({
  name: z.string(),
  uuid: z.string(),
  directory: z.string(),
  mode: z.enum(POOL_MODES),
  needsCheck: z.boolean(),
  transactionId: size,
  blockSizeBytes: positiveSize,
  dataSizeBytes: size,
  dataUsedBytes: size,
  lowWaterBytes: size,
  dataIsLow: z.boolean(),
  metadataSizeBytes: size,
  metadataUsedBytes: size,
  metadataIsLow: z.boolean(),
  options: optionsSchema,
  failsWhenFull: z.boolean(),
  discardPassdown: z.boolean(),
  volumeCount: size,
  deletedVolumeCount: size,
  deletedBytes: size,
  access: poolAccessSchema,
  server: serverSchema.nullable(),
});

export const volumeSchema: z.ZodType<VolumeMessage> = z.object({
  name: z.string(),
  id: size,
  lun: size,
  sizeBytes: size,
  mappedBytes: size,
  logicalBlockSize: positiveSize,
  serial: z.string(),
  naa: z.string().regex(/^[0-9a-f]+$/),
  origin: z.string().nullable(),
  readOnly: z.boolean(),
  removable: z.boolean(),
  physicalBlockSize: positiveSize,
  receivedBytes: size.nullable(),
  externalOrigin: z.object({ path: z.string(), problem: z.string().nullable() }).nullable(),
  backstores: z.array(z.string()).default([]),
});

export const volumeListSchema: z.ZodType<VolumeListMessage> = z.object({ volumes: z.array(volumeSchema) });
export const commitSchema: z.ZodType<CommitMessage> = z.object({ transactionId: size });
export const deletedSchema: z.ZodType<DeletedMessage> = z.object({ deleted: z.string() });

const volumeSettings = {
  readOnly: z.boolean().optional(),
  removable: z.boolean().optional(),
  physicalBlockSize: positiveSize.optional(),
};

export const setVolumeSchema: z.ZodType<SetVolumeMessage> = z.strictObject(volumeSettings);

export const createVolumeSchema: z.ZodType<CreateVolumeMessage> = z
  .strictObject({
    name: z.string().min(1).max(255),
    sizeBytes: positiveSize.optional(),
    logicalBlockSize: z.union([z.literal(512), z.literal(4096)]).optional(),
    externalOrigin: z.string().startsWith('/').optional(),
    ...volumeSettings,
  })
  .refine(({ sizeBytes, externalOrigin }) => sizeBytes !== undefined || externalOrigin !== undefined, {
    path: ['sizeBytes'],
    message: 'only what has an external origin can do without',
  });

const volumeName = z.string().min(1).max(255);
const statusLine = z.object({ name: z.string(), line: z.string() });

export const createSnapshotsSchema: z.ZodType<CreateSnapshotsMessage> = z.strictObject({
  snapshots: z.array(z.strictObject({ origin: volumeName, name: volumeName })).min(1),
  readOnly: z.boolean().optional(),
});

export const renameVolumeSchema: z.ZodType<RenameVolumeMessage> = z.strictObject({ name: volumeName });

export const rollbackVolumeSchema: z.ZodType<RollbackVolumeMessage> = z.strictObject({
  snapshot: volumeName,
  force: z.boolean().optional(),
});

export const dmMessageSchema: z.ZodType<DmMessage> = z.strictObject({ message: z.string().max(4096) });

export const statusLinesSchema: z.ZodType<StatusLinesMessage> = z.object({
  pool: statusLine,
  volumes: z.array(statusLine),
});

export const resizeVolumeSchema: z.ZodType<ResizeVolumeMessage> = z.strictObject({
  sizeBytes: positiveSize,
  allowShrink: z.boolean().optional(),
});

export const growPoolSchema: z.ZodType<GrowPoolMessage> = z.strictObject({
  dataSizeBytes: positiveSize.optional(),
  metadataSizeBytes: positiveSize.optional(),
});

export const setOptionsSchema: z.ZodType<SetOptionsMessage> = z.strictObject({
  skipBlockZeroing: z.boolean().optional(),
  ignoreDiscard: z.boolean().optional(),
  noDiscardPassdown: z.boolean().optional(),
  errorIfNoSpace: z.boolean().optional(),
  readOnly: z.boolean().optional(),
  lowWaterBytes: size.nullable().optional(),
  noSpaceTimeoutMs: size.optional(),
  autoExtend: z.strictObject({ limitBytes: positiveSize, stepBytes: positiveSize.optional() }).nullable().optional(),
});

export const errorSchema: z.ZodType<ErrorMessage> = z.object({
  error: z.object({ code: z.string(), message: z.string(), hint: z.string().nullable() }),
});

/** What is wrong with a message, in one line. */
export function describeIssues(error: z.ZodError): string {
  return error.issues.map((issue) => `${issue.path.join('.') || 'message'}: ${issue.message}`).join('; ');
}
