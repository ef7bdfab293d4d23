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
