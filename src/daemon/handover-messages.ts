import * as is from '../base/schema.ts';
import type { ParametersHandover, PortalHandover, SessionHandover } from '../iscsi/session-handover.ts';
import { isReservationType, MAX_REGISTRANTS } from '../scsi/persistent-state.ts';
import { ATTENTION_NAMES, type UnitHandover } from '../scsi/unit-handover.ts';
import type { TcmuHandover } from '../tcmu/tcmu-handover.ts';
import type { RegistryHandover } from './host-registry.ts';
import type { ServedPortal } from './portal-address.ts';

/*
 * What is said when a server takes over from another one. Descriptors are places in the list that comes with a message.
 *
 *   new                                      old
 *   hello ---------------------------------->            over the control socket of a pool
 *         <---------------------- welcome | refused
 *   (loads and checks all that it can)
 *   begin ---------------------------------->            stops taking commands, lets what is in flight end, commits, closes the pools
 *         <------------------------ state | refused      refused: goes on as if nothing had been
 *   (opens the pools, takes everything over)
 *   taken | failed ------------------------->            taken: ends. failed, or the end of the connection: opens the pools again and goes on
 *   (serves)
 */

/** Of all that is below. Another one is refused: then the old server has to be stopped and the new one started. */
export const HANDOVER_FORMAT = 1;

const count = is.int().min(0);
const hex = is.string().regex(/^([0-9a-f]{2})*$/);
const portalSchema: is.Schema<ServedPortal> = is.object({
  host: is.string().min(1),
  port: is.int().min(0).max(65535),
  tag: is.int().min(1).max(65535),
});

const settingsShape = {
  portals: is.array(portalSchema),
  tcmu: is.boolean(),
};

export interface ServingSettings {
  /** As they were asked for: port 0 is any. */
  readonly portals: readonly ServedPortal[];
  readonly tcmu: boolean;
}

interface Speaker {
  /** See `HANDOVER_FORMAT`. */
  readonly format: number;
  readonly version: string;
  readonly pid: number;
}

export interface HelloMessage extends Speaker {
  readonly event: 'hello';
  /** Real paths of the pools' folders. */
  readonly directories: readonly string[];
}

export interface WelcomeMessage extends Speaker, ServingSettings {
  readonly event: 'welcome';
  readonly directories: readonly string[];
}

export interface RefusedMessage {
  readonly event: 'refused';
  readonly code: string;
  readonly message: string;
  readonly hint: string | null;
}

export interface BeginMessage {
  readonly event: 'begin';
}

export type EndingMessage = { readonly event: 'taken' } | { readonly event: 'failed'; readonly message: string };

export interface PoolHandover {
  /** Real path. */
  readonly directory: string;
  /** Holds the lock of the folder. */
  readonly lock: number;
  /** By NAA designator. */
  readonly units: Readonly<Record<string, UnitHandover>>;
}

/** LIO's part of it; null without TCMU. */
export interface TcmuFrontEndHandover extends TcmuHandover {
  readonly registry: RegistryHandover;
}

/** Everything. What the new server does not know, it must not serve: it refuses other formats. */
export interface HandoverState extends Speaker, ServingSettings, PortalHandover {
  readonly event: 'state';
  /** When the first command had to wait, and when the last one that did not wait was answered: milliseconds of the machine's monotonic clock. */
  readonly stoppedMs: number;
  readonly drainedMs: number;
  readonly pools: readonly PoolHandover[];
  readonly lio: TcmuFrontEndHandover | null;
}

const speakerShape = { format: is.int(), version: is.string(), pid: is.int().min(1) };

export const helloSchema: is.Schema<HelloMessage> = is.object({
  event: is.literal('hello'),
  ...speakerShape,
  directories: is.array(is.string()),
});
export const welcomeSchema: is.Schema<WelcomeMessage> = is.object({
  event: is.literal('welcome'),
  ...speakerShape,
  directories: is.array(is.string()),
  ...settingsShape,
});
export const refusedSchema: is.Schema<RefusedMessage> = is.object({
  event: is.literal('refused'),
  code: is.string(),
  message: is.string(),
  hint: is.string().nullable(),
});
export const beginSchema: is.Schema<BeginMessage> = is.object({ event: is.literal('begin') });
export const endingSchema: is.Schema<EndingMessage> = is.taggedUnion('event', [
  is.object({ event: is.literal('taken') }),
  is.object({ event: is.literal('failed'), message: is.string() }),
]);

/** 0: TCMU does not tell. */
const nexusSchema = is.object({ initiatorPort: is.string().min(1).max(512), targetPort: is.int().min(0).max(0xffff) });
const attentionsSchema = is.array(is.oneOf(ATTENTION_NAMES));
const key = is.string().regex(/^[0-9a-f]{16}$/);

const copyRecordSchema = is.object({
  listId: count,
  serviceAction: count,
  segments: count,
  operations: count,
  bytes: count,
  isTerminated: is.boolean(),
  status: count,
  sense: hex,
  token: hex.nullable(),
  isPartial: is.boolean(),
  statusTold: is.boolean(),
  detailsTold: is.boolean(),
  tokensTold: is.boolean(),
});

const unitSchema: is.Schema<UnitHandover> = is.object({
  mediumPresent: is.boolean(),
  modePages: is.record(is.string(), hex),
  thresholds: is.object({ availableReached: is.boolean(), usedReached: is.boolean() }).nullable(),
  statistics: is.object({ readCommands: count, writeCommands: count, readBlocks: count, writtenBlocks: count }),
  reservations: is.object({
    state: is.object({
      registrants: is.array(is.object({ ...nexusSchema.shape, key })).max(MAX_REGISTRANTS),
      type: is.int().refine(isReservationType, 'there is no such type').nullable(),
      holder: nexusSchema.nullable(),
      aptpl: is.boolean(),
    }),
    generation: count,
    reserver: nexusSchema.nullable(),
    absent: is.array(is.object({ nexus: nexusSchema, kinds: attentionsSchema })),
  }),
  tokens: is.object({
    identifier: count,
    list: is.array(
      is.object({
        bytes: hex,
        ranges: is.array(is.object({ begin: count, end: count })).min(1),
        timeoutMs: is.number().min(0),
        idleMs: is.number(),
        ended: count,
      }),
    ),
  }),
  nexuses: is.array(
    is.object({
      nexus: nexusSchema,
      attentions: attentionsSchema,
      preventsRemoval: is.boolean(),
      copies: is.array(copyRecordSchema),
    }),
  ),
});

const serial = is.int().min(0).max(0xffffffff);
const base64 = is.base64();
const parametersSchema: is.Schema<ParametersHandover> = is.object({
  headerDigest: is.boolean(),
  dataDigest: is.boolean(),
  initiatorSegmentLength: count,
  targetSegmentLength: count,
  maxConnections: count,
  initialR2T: is.boolean(),
  immediateData: is.boolean(),
  maxBurstLength: count,
  firstBurstLength: count,
  maxOutstandingR2T: count,
  defaultTime2Wait: count,
  defaultTime2Retain: count,
});

const sessionSchema: is.Schema<SessionHandover> = is.object({
  initiatorName: is.string(),
  targetName: is.string().nullable(),
  user: is.string().nullable(),
  authentication: is.string(),
  isid: is.string().regex(/^[0-9a-f]{12}$/),
  tsih: is.int().min(1).max(0xffff),
  portalGroupTag: is.int().min(1).max(0xffff),
  expCmdSn: serial,
  windowSize: is.int().min(1).max(0x10000),
  cancelled: is.array(is.object({ lun: count.nullable(), endCmdSn: serial })),
  parameters: parametersSchema,
  connections: is.array(
    is.object({
      fd: count,
      listener: count,
      cid: count,
      statSn: serial,
      parameters: parametersSchema,
      nextTransferTag: serial,
      pings: count,
      held: is.array(is.object({ cmdSn: serial, tag: serial, pdus: is.array(base64) })),
      input: base64,
    }),
  ),
});

const lioSchema: is.Schema<TcmuFrontEndHandover> = is.object({
  events: is.object({ fd: count, strangers: is.string().nullable() }),
  devices: is.array(
    is.object({ minor: count, uioName: is.string(), shownSizeBytes: count, waitedMs: is.number(), fd: count }),
  ),
  registry: is.object({ pools: is.array(is.object({ name: is.string(), fd: count })), first: count.nullable() }),
});

export const stateSchema: is.Schema<HandoverState> = is.object({
  event: is.literal('state'),
  ...speakerShape,
  format: is.literal(HANDOVER_FORMAT),
  ...settingsShape,
  stoppedMs: is.number(),
  drainedMs: is.number(),
  pools: is.array(is.object({ directory: is.string(), lock: count, units: is.record(is.string(), unitSchema) })),
  listeners: is.array(is.object({ host: is.string(), port: is.int(), tag: is.int(), fd: count })),
  sessions: is.array(sessionSchema),
  lio: lioSchema.nullable(),
});
