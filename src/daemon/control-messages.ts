/**
 * The messages of the control socket, as both sides check them, and the shape of every `--json` output.
 * Sizes are bytes, times ISO 8601. Fields are only ever added: a reader ignores what it does not know, so that an older
 * command can talk to a newer server; a server refuses what it does not know, so that no wish is dropped silently.
 */
import * as is from '../base/schema.ts';
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

const size = is.int().min(0);
const positiveSize = is.int().min(1);

export const portalsShape: { portals: is.Schema<string[]>; portalGroups: is.Schema<PortalsMessage['portalGroups']> } = {
  portals: is.array(is.string()),
  portalGroups: is.array(is.object({ tag: is.int().min(1).max(65535), portals: is.array(is.string()) })),
};

export const serverSchema: is.Schema<ServerMessage> = is.object({
  pid: is.int().min(1),
  version: is.string(),
  target: is.string(),
  ...portalsShape,
  tcmu: is.boolean(),
  tcmuDevices: poolTcmuSchema.nullable().default(null),
  protection: protectionSchema.nullable().default(null),
  sessions: is.array(sessionSchema),
});

const optionsSchema: is.Schema<PoolOptionsMessage> = is.object({
  skipBlockZeroing: is.boolean(),
  ignoreDiscard: is.boolean(),
  noDiscardPassdown: is.boolean(),
  errorIfNoSpace: is.boolean(),
  readOnly: is.boolean(),
  lowWaterBytes: size.nullable(),
  noSpaceTimeoutMs: size,
  autoExtend: is.object({ limitBytes: size, stepBytes: size }).nullable(),
});

export const poolSchema: is.Schema<PoolMessage> = is.object({
  name: is.string(),
  uuid: is.string(),
  directory: is.string(),
  mode: is.oneOf(POOL_MODES),
  needsCheck: is.boolean(),
  transactionId: size,
  blockSizeBytes: positiveSize,
  dataSizeBytes: size,
  dataUsedBytes: size,
  lowWaterBytes: size,
  dataIsLow: is.boolean(),
  metadataSizeBytes: size,
  metadataUsedBytes: size,
  metadataIsLow: is.boolean(),
  options: optionsSchema,
  failsWhenFull: is.boolean(),
  discardPassdown: is.boolean(),
  volumeCount: size,
  deletedVolumeCount: size,
  deletedBytes: size,
  access: poolAccessSchema,
  server: serverSchema.nullable(),
});

export const volumeSchema: is.Schema<VolumeMessage> = is.object({
  name: is.string(),
  id: size,
  lun: size,
  sizeBytes: size,
  mappedBytes: size,
  logicalBlockSize: positiveSize,
  serial: is.string(),
  naa: is.string().regex(/^[0-9a-f]+$/),
  origin: is.string().nullable(),
  readOnly: is.boolean(),
  removable: is.boolean(),
  physicalBlockSize: positiveSize,
  receivedBytes: size.nullable(),
  externalOrigin: is.object({ path: is.string(), problem: is.string().nullable() }).nullable(),
  backstores: is.array(is.string()).default([]),
});

export const volumeListSchema: is.Schema<VolumeListMessage> = is.object({ volumes: is.array(volumeSchema) });
export const commitSchema: is.Schema<CommitMessage> = is.object({ transactionId: size });
export const deletedSchema: is.Schema<DeletedMessage> = is.object({ deleted: is.string() });

const volumeSettings = {
  readOnly: is.boolean().optional(),
  removable: is.boolean().optional(),
  physicalBlockSize: positiveSize.optional(),
};

export const setVolumeSchema: is.Schema<SetVolumeMessage> = is.strictObject(volumeSettings);

export const createVolumeSchema: is.Schema<CreateVolumeMessage> = is
  .strictObject({
    name: is.string().min(1).max(255),
    sizeBytes: positiveSize.optional(),
    logicalBlockSize: is.oneOf([512, 4096]).optional(),
    externalOrigin: is.string().startsWith('/').optional(),
    ...volumeSettings,
  })
  .refine(({ sizeBytes, externalOrigin }) => sizeBytes !== undefined || externalOrigin !== undefined, {
    path: ['sizeBytes'],
    message: 'only what has an external origin can do without',
  });

const volumeName = is.string().min(1).max(255);
const statusLine = is.object({ name: is.string(), line: is.string() });

export const createSnapshotsSchema: is.Schema<CreateSnapshotsMessage> = is.strictObject({
  snapshots: is.array(is.strictObject({ origin: volumeName, name: volumeName })).min(1),
  readOnly: is.boolean().optional(),
});

export const renameVolumeSchema: is.Schema<RenameVolumeMessage> = is.strictObject({ name: volumeName });

export const rollbackVolumeSchema: is.Schema<RollbackVolumeMessage> = is.strictObject({
  snapshot: volumeName,
  force: is.boolean().optional(),
});

export const dmMessageSchema: is.Schema<DmMessage> = is.strictObject({ message: is.string().max(4096) });

export const statusLinesSchema: is.Schema<StatusLinesMessage> = is.object({
  pool: statusLine,
  volumes: is.array(statusLine),
});

export const resizeVolumeSchema: is.Schema<ResizeVolumeMessage> = is.strictObject({
  sizeBytes: positiveSize,
  allowShrink: is.boolean().optional(),
});

export const growPoolSchema: is.Schema<GrowPoolMessage> = is.strictObject({
  dataSizeBytes: positiveSize.optional(),
  metadataSizeBytes: positiveSize.optional(),
});

export const setOptionsSchema: is.Schema<SetOptionsMessage> = is.strictObject({
  skipBlockZeroing: is.boolean().optional(),
  ignoreDiscard: is.boolean().optional(),
  noDiscardPassdown: is.boolean().optional(),
  errorIfNoSpace: is.boolean().optional(),
  readOnly: is.boolean().optional(),
  lowWaterBytes: size.nullable().optional(),
  noSpaceTimeoutMs: size.optional(),
  autoExtend: is.strictObject({ limitBytes: positiveSize, stepBytes: positiveSize.optional() }).nullable().optional(),
});

export const errorSchema: is.Schema<ErrorMessage> = is.object({
  error: is.object({ code: is.string(), message: is.string(), hint: is.string().nullable() }),
});

/** What is wrong with a message, in one line. */
export function describeIssues(error: is.SchemaError): string {
  return error.issues.map((issue) => `${issue.path.join('.') || 'message'}: ${issue.message}`).join('; ');
}
