import { StorageError } from '../base/errors.ts';
import type { GiveFd } from '../base/shared-handle.ts';
import type { TcmuDevice } from './tcmu-device.ts';

/*
 * What one process tells the next of TCMU devices when that takes over from it: descriptors, so that no device is without a handler at any
 * moment, and no event of the kernel is lost. Plain values, for JSON; descriptors are numbers that mean something to who passes them on.
 */

/** A device whose ring is clean: nothing is in flight, and what lies between its tail and its head has not been looked at. */
export interface DeviceHandover {
  readonly minor: number;
  /** The whole name, by which it is known to be the same device. */
  readonly uioName: string;
  readonly shownSizeBytes: number;
  /** For how long what is on the ring may have waited when it was handed over. */
  readonly waitedMs: number;
  /** The open uio file. */
  readonly fd: number;
}

/** The netlink socket, with the events in it that nobody has taken. */
export interface EventsHandover {
  readonly fd: number;
  /** Port ids of other handlers that the kernel was told of; null before. */
  readonly strangers: string | null;
}

export interface TcmuHandover {
  readonly events: EventsHandover;
  readonly devices: readonly DeviceHandover[];
}

/** Waits until nothing is in flight on those that serve, and takes nothing new. Rejects with EBUSY when that takes longer than `limitMs`. */
export async function freezeDevices(devices: Iterable<TcmuDevice>, limitMs: number): Promise<void> {
  const serving = [...devices].filter((device) => device.status().state === 'serving');
  const quiet = await Promise.all(serving.map((device) => device.freeze(limitMs)));
  const busy = serving.find((_, index) => !quiet[index]);
  if (busy === undefined) return;
  throw new StorageError('EBUSY', `commands of ${busy.entry.name.device} have not ended within ${limitMs / 1000} s`);
}

/** A device that has failed is left out: the next process finds it as it is. */
export function handOverDevices(devices: Iterable<TcmuDevice>, give: GiveFd): DeviceHandover[] {
  return [...devices].flatMap((device) => (device.status().state === 'serving' ? [device.handOver(give)] : []));
}
