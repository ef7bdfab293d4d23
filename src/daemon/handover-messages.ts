import * as v from 'valibot';
import { base64, finiteNumber, integer, object, record, type Schema } from '../base/schema.ts';
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

const count = integer(0);
const hex = v.pipe(v.string(), v.regex(/^([0-9a-f]{2})*$/));
const portalSchema: Schema<ServedPortal> = object({
  host: v.pipe(v.string(), v.minLength(1)),
  port: integer(0, 65535),
  tag: integer(1, 65535),
});

const settingsShape = {
  portals: v.array(portalSchema),
  tcmu: v.boolean(),
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

const speakerShape = { format: integer(), version: v.string(), pid: integer(1) };

export const helloSchema: Schema<HelloMessage> = object({
  event: v.literal('hello'),
  ...speakerShape,
  directories: v.array(v.string()),
});
export const welcomeSchema: Schema<WelcomeMessage> = object({
  event: v.literal('welcome'),
  ...speakerShape,
  directories: v.array(v.string()),
  ...settingsShape,
});
export const refusedSchema: Schema<RefusedMessage> = object({
  event: v.literal('refused'),
  code: v.string(),
  message: v.string(),
  hint: v.nullable(v.string()),
});
export const beginSchema: Schema<BeginMessage> = object({ event: v.literal('begin') });
export const endingSchema: Schema<EndingMessage> = v.variant('event', [
  v.object({ event: v.literal('taken') }),
  v.object({ event: v.literal('failed'), message: v.string() }),
]);

/** 0: TCMU does not tell. */
const nexusShape = {
  initiatorPort: v.pipe(v.string(), v.minLength(1), v.maxLength(512)),
  targetPort: integer(0, 0xffff),
};
const nexusSchema = object(nexusShape);
const attentionsSchema = v.array(v.picklist(ATTENTION_NAMES));
const key = v.pipe(v.string(), v.regex(/^[0-9a-f]{16}$/));

const copyRecordSchema = object({
  listId: count,
  serviceAction: count,
  segments: count,
  operations: count,
  bytes: count,
  isTerminated: v.boolean(),
  status: count,
  sense: hex,
  token: v.nullable(hex),
  isPartial: v.boolean(),
  statusTold: v.boolean(),
  detailsTold: v.boolean(),
  tokensTold: v.boolean(),
});

const unitSchema: Schema<UnitHandover> = object({
  mediumPresent: v.boolean(),
  modePages: record(v.string(), hex),
  thresholds: v.nullable(object({ availableReached: v.boolean(), usedReached: v.boolean() })),
  statistics: object({ readCommands: count, writeCommands: count, readBlocks: count, writtenBlocks: count }),
  reservations: object({
    state: object({
      registrants: v.pipe(v.array(object({ ...nexusShape, key })), v.maxLength(MAX_REGISTRANTS)),
      type: v.nullable(v.pipe(integer(), v.guard(isReservationType, 'there is no such type'))),
      holder: v.nullable(nexusSchema),
      aptpl: v.boolean(),
    }),
    generation: count,
    reserver: v.nullable(nexusSchema),
    absent: v.array(object({ nexus: nexusSchema, kinds: attentionsSchema })),
  }),
  tokens: object({
    identifier: count,
    list: v.array(
      object({
        bytes: hex,
        ranges: v.pipe(v.array(object({ begin: count, end: count })), v.minLength(1)),
        timeoutMs: v.pipe(finiteNumber, v.minValue(0)),
        idleMs: finiteNumber,
        ended: count,
      }),
    ),
  }),
  nexuses: v.array(
    object({
      nexus: nexusSchema,
      attentions: attentionsSchema,
      preventsRemoval: v.boolean(),
      copies: v.array(copyRecordSchema),
    }),
  ),
});

const serial = integer(0, 0xffffffff);
const parametersSchema: Schema<ParametersHandover> = object({
  headerDigest: v.boolean(),
  dataDigest: v.boolean(),
  initiatorSegmentLength: count,
  targetSegmentLength: count,
  maxConnections: count,
  initialR2T: v.boolean(),
  immediateData: v.boolean(),
  maxBurstLength: count,
  firstBurstLength: count,
  maxOutstandingR2T: count,
  defaultTime2Wait: count,
  defaultTime2Retain: count,
});

const sessionSchema: Schema<SessionHandover> = object({
  initiatorName: v.string(),
  targetName: v.nullable(v.string()),
  user: v.nullable(v.string()),
  authentication: v.string(),
  isid: v.pipe(v.string(), v.regex(/^[0-9a-f]{12}$/)),
  tsih: integer(1, 0xffff),
  portalGroupTag: integer(1, 0xffff),
  expCmdSn: serial,
  windowSize: integer(1, 0x10000),
  cancelled: v.array(object({ lun: v.nullable(count), endCmdSn: serial })),
  parameters: parametersSchema,
  connections: v.array(
    object({
      fd: count,
      listener: count,
      cid: count,
      statSn: serial,
      parameters: parametersSchema,
      nextTransferTag: serial,
      pings: count,
      held: v.array(object({ cmdSn: serial, tag: serial, pdus: v.array(base64) })),
      input: base64,
    }),
  ),
});

const lioSchema: Schema<TcmuFrontEndHandover> = object({
  events: object({ fd: count, strangers: v.nullable(v.string()) }),
  devices: v.array(
    object({ minor: count, uioName: v.string(), shownSizeBytes: count, waitedMs: finiteNumber, fd: count }),
  ),
  registry: object({ pools: v.array(object({ name: v.string(), fd: count })), first: v.nullable(count) }),
});

export const stateSchema: Schema<HandoverState> = object({
  event: v.literal('state'),
  ...speakerShape,
  format: v.literal(HANDOVER_FORMAT),
  ...settingsShape,
  stoppedMs: finiteNumber,
  drainedMs: finiteNumber,
  pools: v.array(object({ directory: v.string(), lock: count, units: record(v.string(), unitSchema) })),
  listeners: v.array(object({ host: v.string(), port: integer(), tag: integer(), fd: count })),
  sessions: v.array(sessionSchema),
  lio: v.nullable(lioSchema),
});
