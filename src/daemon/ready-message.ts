import * as is from '../base/schema.ts';
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

const size = is.int().min(0);

export const readySchema: is.Schema<ReadyMessage> = is.object({
  event: is.literal('ready'),
  pid: is.int().min(1),
  version: is.string(),
  ...portalsShape,
  tcmu: is.boolean(),
  pools: is.array(
    is.object({
      name: is.string(),
      uuid: is.string(),
      directory: is.string(),
      target: is.string(),
      mode: is.oneOf(POOL_MODES),
      access: poolAccessSchema,
      volumes: is.array(volumeSchema),
    }),
  ),
  failed: is.array(is.object({ directory: is.string(), code: is.string(), message: is.string() })),
  takeover: is
    .object({
      pid: is.int().min(1),
      version: is.string(),
      pauseMs: is.number(),
      drainMs: is.number(),
      sessions: size,
      devices: size,
    })
    .nullable(),
});
