import * as v from 'valibot';
import { finiteNumber, integer, object, type Schema } from '../base/schema.ts';
import { type PoolAccessMessage, poolAccessSchema } from './access-messages.ts';
import {
  POOL_MODES,
  type PoolMode,
  type PortalsMessage,
  portalsShape,
  type VolumeMessage,
  volumeSchema,
} from './control-messages.ts';

export interface ReadyPoolMessage {
  name: string;
  uuid: string;
  directory: string;
  target: string;
  mode: PoolMode;
  access: PoolAccessMessage;
  volumes: VolumeMessage[];
}

/** What `thinlun serve --json` prints once, when it is ready. */
export interface ReadyMessage extends PortalsMessage {
  event: 'ready';
  pid: number;
  version: string;
  tcmu: boolean;
  pools: ReadyPoolMessage[];
  /** Pools that could not be opened. */
  failed: { directory: string; code: string; message: string }[];
  /** Null unless it has taken over from another process. */
  takeover: TakeoverMessage | null;
}

/** What a takeover has cost. */
export interface TakeoverMessage {
  /** The process that served before. */
  pid: number;
  version: string;
  /** The longest that a command has waited. */
  pauseMs: number;
  /** Of it: until nothing was in flight any more. */
  drainMs: number;
  /** Sessions and TCMU devices that went on. */
  sessions: number;
  devices: number;
}

const size = integer(0);

export const readySchema: Schema<ReadyMessage> = object({
  event: v.literal('ready'),
  pid: integer(1),
  version: v.string(),
  ...portalsShape,
  tcmu: v.boolean(),
  pools: v.array(
    object({
      name: v.string(),
      uuid: v.string(),
      directory: v.string(),
      target: v.string(),
      mode: v.picklist(POOL_MODES),
      access: poolAccessSchema,
      volumes: v.array(volumeSchema),
    }),
  ),
  failed: v.array(object({ directory: v.string(), code: v.string(), message: v.string() })),
  takeover: v.nullable(
    object({
      pid: integer(1),
      version: v.string(),
      pauseMs: finiteNumber,
      drainMs: finiteNumber,
      sessions: size,
      devices: size,
    }),
  ),
});
