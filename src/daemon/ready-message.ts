import * as z from 'zod';
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

const size = z.int().min(0);

export const readySchema: z.ZodType<ReadyMessage> = z.object({
  event: z.literal('ready'),
  pid: z.int().min(1),
  version: z.string(),
  ...portalsShape,
  tcmu: z.boolean(),
  pools: z.array(
    z.object({
      name: z.string(),
      uuid: z.string(),
      directory: z.string(),
      target: z.string(),
      mode: z.enum(POOL_MODES),
      access: poolAccessSchema,
      volumes: z.array(volumeSchema),
    }),
  ),
  failed: z.array(z.object({ directory: z.string(), code: z.string(), message: z.string() })),
  takeover: z
    .object({
      pid: z.int().min(1),
      version: z.string(),
      pauseMs: z.number(),
      drainMs: z.number(),
      sessions: size,
      devices: size,
    })
    .nullable(),
});
