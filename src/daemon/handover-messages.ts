import { z } from 'zod';
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

const count = z.int().min(0);
const hex = z.string().regex(/^([0-9a-f]{2})*$/);
const portalSchema: z.ZodType<ServedPortal> = z.object({
  host: z.string().min(1),
  port: z.int().min(0).max(65535),
  tag: z.int().min(1).max(65535),
});

const settingsShape = {
  portals: z.array(portalSchema),
  tcmu: z.boolean(),
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

const speakerShape = { format: z.int(), version: z.string(), pid: z.int().min(1) };

export const helloSchema: z.ZodType<HelloMessage> = z.object({
  event: z.literal('hello'),
  ...speakerShape,
  directories: z.array(z.string()),
});
export const welcomeSchema: z.ZodType<WelcomeMessage> = z.object({
  event: z.literal('welcome'),
  ...speakerShape,
  directories: z.array(z.string()),
  ...settingsShape,
});
export const refusedSchema: z.ZodType<RefusedMessage> = z.object({
  event: z.literal('refused'),
  code: z.string(),
  message: z.string(),
  hint: z.string().nullable(),
});
export const beginSchema: z.ZodType<BeginMessage> = z.object({ event: z.literal('begin') });
export const endingSchema: z.ZodType<EndingMessage> = z.discriminatedUnion('event', [
  z.object({ event: z.literal('taken') }),
  z.object({ event: z.literal('failed'), message: z.string() }),
]);

/** 0: TCMU does not tell. */
const nexusSchema = z.object({ initiatorPort: z.string().min(1).max(512), targetPort: z.int().min(0).max(0xffff) });
const attentionsSchema = z.array(z.enum(ATTENTION_NAMES));
const key = z.string().regex(/^[0-9a-f]{16}$/);

const copyRecordSchema = z.object({
  listId: count,
  serviceAction: count,
  segments: count,
  operations: count,
  bytes: count,
  isTerminated: z.boolean(),
  status: count,
  sense: hex,
  token: hex.nullable(),
  isPartial: z.boolean(),
  statusTold: z.boolean(),
  detailsTold: z.boolean(),
  tokensTold: z.boolean(),
});

const unitSchema: z.ZodType<UnitHandover> = z.object({
  mediumPresent: z.boolean(),
  modePages: z.record(z.string(), hex),
  thresholds: z.object({ availableReached: z.boolean(), usedReached: z.boolean() }).nullable(),
  statistics: z.object({ readCommands: count, writeCommands: count, readBlocks: count, writtenBlocks: count }),
  reservations: z.object({
    state: z.object({
      registrants: z.array(nexusSchema.extend({ key })).max(MAX_REGISTRANTS),
      type: z.int().refine(isReservationType, 'there is no such type').nullable(),
      holder: nexusSchema.nullable(),
      aptpl: z.boolean(),
    }),
    generation: count,
    reserver: nexusSchema.nullable(),
    absent: z.array(z.object({ nexus: nexusSchema, kinds: attentionsSchema })),
  }),
  tokens: z.object({
    identifier: count,
    list: z.array(
      z.object({
        bytes: hex,
        ranges: z.array(z.object({ begin: count, end: count })).min(1),
        timeoutMs: z.number().min(0),
        idleMs: z.number(),
        ended: count,
      }),
    ),
  }),
  nexuses: z.array(
    z.object({
      nexus: nexusSchema,
      attentions: attentionsSchema,
      preventsRemoval: z.boolean(),
      copies: z.array(copyRecordSchema),
    }),
  ),
});

const serial = z.int().min(0).max(0xffffffff);
const base64 = z.base64();
const parametersSchema: z.ZodType<ParametersHandover> = z.object({
  headerDigest: z.boolean(),
  dataDigest: z.boolean(),
  initiatorSegmentLength: count,
  targetSegmentLength: count,
  maxConnections: count,
  initialR2T: z.boolean(),
  immediateData: z.boolean(),
  maxBurstLength: count,
  firstBurstLength: count,
  maxOutstandingR2T: count,
  defaultTime2Wait: count,
  defaultTime2Retain: count,
});

const sessionSchema: z.ZodType<SessionHandover> = z.object({
  initiatorName: z.string(),
  targetName: z.string().nullable(),
  user: z.string().nullable(),
  authentication: z.string(),
  isid: z.string().regex(/^[0-9a-f]{12}$/),
  tsih: z.int().min(1).max(0xffff),
  portalGroupTag: z.int().min(1).max(0xffff),
  expCmdSn: serial,
  windowSize: z.int().min(1).max(0x10000),
  cancelled: z.array(z.object({ lun: count.nullable(), endCmdSn: serial })),
  parameters: parametersSchema,
  connections: z.array(
    z.object({
      fd: count,
      listener: count,
      cid: count,
      statSn: serial,
      parameters: parametersSchema,
      nextTransferTag: serial,
      pings: count,
      held: z.array(z.object({ cmdSn: serial, tag: serial, pdus: z.array(base64) })),
      input: base64,
    }),
  ),
});

const lioSchema: z.ZodType<TcmuFrontEndHandover> = z.object({
  events: z.object({ fd: count, strangers: z.string().nullable() }),
  devices: z.array(
    z.object({ minor: count, uioName: z.string(), shownSizeBytes: count, waitedMs: z.number(), fd: count }),
  ),
  registry: z.object({ pools: z.array(z.object({ name: z.string(), fd: count })), first: count.nullable() }),
});

export const stateSchema: z.ZodType<HandoverState> = z.object({
  event: z.literal('state'),
  ...speakerShape,
  format: z.literal(HANDOVER_FORMAT),
  ...settingsShape,
  stoppedMs: z.number(),
  drainedMs: z.number(),
  pools: z.array(z.object({ directory: z.string(), lock: count, units: z.record(z.string(), unitSchema) })),
  listeners: z.array(z.object({ host: z.string(), port: z.int(), tag: z.int(), fd: count })),
  sessions: z.array(sessionSchema),
  lio: lioSchema.nullable(),
});
