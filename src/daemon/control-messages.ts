/**
 * The messages of the control socket, as both sides check them, and the shape of every `--json` output.
 * Sizes are bytes, times ISO 8601. Fields are only ever added: a reader ignores what it does not know, so that an older
 * command can talk to a newer server; a server refuses what it does not know, so that no wish is dropped silently.
 */
import * as v from 'valibot';
import { integer, object, type Schema, strictObject } from '../base/schema.ts';
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
  /** From when the pool is opened next. */
  metadataCacheBytes: number;
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
  metadataCacheBytes?: number | undefined;
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

const size = integer(0);
const positiveSize = integer(1);

export const portalsShape: { portals: Schema<string[]>; portalGroups: Schema<PortalsMessage['portalGroups']> } = {
  portals: v.array(v.string()),
  portalGroups: v.array(object({ tag: integer(1, 65535), portals: v.array(v.string()) })),
};

export const serverSchema: Schema<ServerMessage> = object({
  pid: integer(1),
  version: v.string(),
  target: v.string(),
  ...portalsShape,
  tcmu: v.boolean(),
  tcmuDevices: v.optional(v.nullable(poolTcmuSchema), null),
  protection: v.optional(v.nullable(protectionSchema), null),
  sessions: v.array(sessionSchema),
});

const optionsSchema: Schema<PoolOptionsMessage> = object({
  skipBlockZeroing: v.boolean(),
  ignoreDiscard: v.boolean(),
  noDiscardPassdown: v.boolean(),
  errorIfNoSpace: v.boolean(),
  readOnly: v.boolean(),
  lowWaterBytes: v.nullable(size),
  noSpaceTimeoutMs: size,
  autoExtend: v.nullable(object({ limitBytes: size, stepBytes: size })),
  metadataCacheBytes: size,
});

export const poolSchema: Schema<PoolMessage> = object({
  name: v.string(),
  uuid: v.string(),
  directory: v.string(),
  mode: v.picklist(POOL_MODES),
  needsCheck: v.boolean(),
  transactionId: size,
  blockSizeBytes: positiveSize,
  dataSizeBytes: size,
  dataUsedBytes: size,
  lowWaterBytes: size,
  dataIsLow: v.boolean(),
  metadataSizeBytes: size,
  metadataUsedBytes: size,
  metadataIsLow: v.boolean(),
  options: optionsSchema,
  failsWhenFull: v.boolean(),
  discardPassdown: v.boolean(),
  volumeCount: size,
  deletedVolumeCount: size,
  deletedBytes: size,
  access: poolAccessSchema,
  server: v.nullable(serverSchema),
});

export const volumeSchema: Schema<VolumeMessage> = object({
  name: v.string(),
  id: size,
  lun: size,
  sizeBytes: size,
  mappedBytes: size,
  logicalBlockSize: positiveSize,
  serial: v.string(),
  naa: v.pipe(v.string(), v.regex(/^[0-9a-f]+$/)),
  origin: v.nullable(v.string()),
  readOnly: v.boolean(),
  removable: v.boolean(),
  physicalBlockSize: positiveSize,
  receivedBytes: v.nullable(size),
  externalOrigin: v.nullable(object({ path: v.string(), problem: v.nullable(v.string()) })),
  backstores: v.optional(v.array(v.string()), []),
});

export const volumeListSchema: Schema<VolumeListMessage> = object({ volumes: v.array(volumeSchema) });
export const commitSchema: Schema<CommitMessage> = object({ transactionId: size });
export const deletedSchema: Schema<DeletedMessage> = object({ deleted: v.string() });

const volumeSettings = {
  readOnly: v.optional(v.boolean()),
  removable: v.optional(v.boolean()),
  physicalBlockSize: v.optional(positiveSize),
};

export const setVolumeSchema: Schema<SetVolumeMessage> = strictObject(volumeSettings);

export const createVolumeSchema: Schema<CreateVolumeMessage> = v.pipe(
  strictObject({
    name: v.pipe(v.string(), v.minLength(1), v.maxLength(255)),
    sizeBytes: v.optional(positiveSize),
    logicalBlockSize: v.optional(v.picklist([512, 4096])),
    externalOrigin: v.optional(v.pipe(v.string(), v.startsWith('/'))),
    ...volumeSettings,
  }),
  v.forward(
    v.check(
      ({ sizeBytes, externalOrigin }) => sizeBytes !== undefined || externalOrigin !== undefined,
      'only what has an external origin can do without',
    ),
    ['sizeBytes'],
  ),
);

const volumeName = v.pipe(v.string(), v.minLength(1), v.maxLength(255));
const statusLine = object({ name: v.string(), line: v.string() });

export const createSnapshotsSchema: Schema<CreateSnapshotsMessage> = strictObject({
  snapshots: v.pipe(v.array(strictObject({ origin: volumeName, name: volumeName })), v.minLength(1)),
  readOnly: v.optional(v.boolean()),
});

export const renameVolumeSchema: Schema<RenameVolumeMessage> = strictObject({ name: volumeName });

export const rollbackVolumeSchema: Schema<RollbackVolumeMessage> = strictObject({
  snapshot: volumeName,
  force: v.optional(v.boolean()),
});

export const dmMessageSchema: Schema<DmMessage> = strictObject({ message: v.pipe(v.string(), v.maxLength(4096)) });

export const statusLinesSchema: Schema<StatusLinesMessage> = object({
  pool: statusLine,
  volumes: v.array(statusLine),
});

export const resizeVolumeSchema: Schema<ResizeVolumeMessage> = strictObject({
  sizeBytes: positiveSize,
  allowShrink: v.optional(v.boolean()),
});

export const growPoolSchema: Schema<GrowPoolMessage> = strictObject({
  dataSizeBytes: v.optional(positiveSize),
  metadataSizeBytes: v.optional(positiveSize),
});

export const setOptionsSchema: Schema<SetOptionsMessage> = strictObject({
  skipBlockZeroing: v.optional(v.boolean()),
  ignoreDiscard: v.optional(v.boolean()),
  noDiscardPassdown: v.optional(v.boolean()),
  errorIfNoSpace: v.optional(v.boolean()),
  readOnly: v.optional(v.boolean()),
  lowWaterBytes: v.optional(v.nullable(size)),
  noSpaceTimeoutMs: v.optional(size),
  autoExtend: v.optional(v.nullable(strictObject({ limitBytes: positiveSize, stepBytes: v.optional(positiveSize) }))),
  metadataCacheBytes: v.optional(positiveSize),
});

export const errorSchema: Schema<ErrorMessage> = object({
  error: object({ code: v.string(), message: v.string(), hint: v.nullable(v.string()) }),
});
