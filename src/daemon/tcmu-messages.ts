/** The part of the control socket's messages that is about LIO's devices: see control-messages.ts. */
import * as v from 'valibot';
import { integer, object, type Schema } from '../base/schema.ts';
import type { TcmuStatus } from '../tcmu/tcmu-status.ts';

export interface TcmuDeviceMessage {
  /** Its name in LIO: what targetcli shows in /backstores/user:thin. */
  backstore: string;
  /** Its folder in LIO's configfs, below core/. */
  folder: string;
  /** Minor number of its uio device. */
  minor: number;
  volume: string;
  /** `failed`: initiators are answered BUSY. `unserved`: nobody answers, commands wait. */
  state: 'serving' | 'failed' | 'unserved';
  /** What is wrong; null while it serves. */
  problem: string | null;
  /** Commands that have no answer yet. */
  inFlight: number;
  /** Since it is served by this process, as those below. */
  commands: number;
  /** Commands that initiators have aborted. */
  aborts: number;
  /** Entries of the ring that could not be read. */
  refused: number;
}

export interface TcmuRefusalMessage {
  backstore: string;
  volume: string;
  action: 'add' | 'change' | 'remove';
  reason: string;
  secondsAgo: number;
}

/** LIO's devices of a pool. */
export interface PoolTcmuMessage {
  /** LIO waits for thinlun's answers when devices are made, changed and removed; not so beside another handler (tcmu-runner). */
  answersAwaited: boolean;
  devices: TcmuDeviceMessage[];
  /** What LIO asked and was refused: targetcli shows no reason. The last ones, oldest first. */
  refusals: TcmuRefusalMessage[];
}

const count = integer(0);

export const poolTcmuSchema: Schema<PoolTcmuMessage> = object({
  answersAwaited: v.boolean(),
  devices: v.array(
    object({
      backstore: v.string(),
      folder: v.string(),
      minor: count,
      volume: v.string(),
      state: v.picklist(['serving', 'failed', 'unserved']),
      problem: v.nullable(v.string()),
      inFlight: count,
      commands: count,
      aborts: count,
      refused: count,
    }),
  ),
  refusals: v.array(
    object({
      backstore: v.string(),
      volume: v.string(),
      action: v.picklist(['add', 'change', 'remove']),
      reason: v.string(),
      secondsAgo: count,
    }),
  ),
});

/** What of `status` concerns the pool called `pool`. */
export function poolTcmuMessage(status: TcmuStatus, pool: string): PoolTcmuMessage {
  const prefix = `${pool}/`;
  const isOf = ({ cfgstring }: { cfgstring: string }): boolean => cfgstring.startsWith(prefix);
  const volumeOf = (cfgstring: string): string => cfgstring.slice(prefix.length);
  const serving = status.devices.filter(isOf).map(
    ({ hba, device, cfgstring, minor, state, problem, inFlight, commands, aborts, refused }): TcmuDeviceMessage => ({
      backstore: device,
      folder: `user_${hba}/${device}`,
      minor,
      volume: volumeOf(cfgstring),
      state: state === 'serving' ? state : 'failed',
      problem,
      ...{ inFlight, commands, aborts, refused },
    }),
  );
  const unserved = status.unserved
    .filter(({ entry }) => isOf(entry.name))
    .map(
      ({ entry: { name, minor }, reason }): TcmuDeviceMessage => ({
        backstore: name.device,
        folder: `user_${name.hba}/${name.device}`,
        minor,
        volume: volumeOf(name.cfgstring),
        state: 'unserved',
        problem: reason,
        ...{ inFlight: 0, commands: 0, aborts: 0, refused: 0 },
      }),
    );
  const refusals = status.refusals.filter(isOf).map(({ device, cfgstring, action, reason, ageMs }) => ({
    ...{ backstore: device, volume: volumeOf(cfgstring), action, reason },
    secondsAgo: Math.round(ageMs / 1000),
  }));
  const devices = [...serving, ...unserved].sort((a, b) => a.minor - b.minor);
  return { answersAwaited: status.answersAwaited, devices, refusals };
}
