/** Messages of the control socket about reservations. See control-messages.ts. */
import * as is from '../base/schema.ts';

/** SPC-4's types, as they are named in `sg_persist`'s words. */
export const RESERVATION_TYPES = [
  'write-exclusive',
  'exclusive-access',
  'write-exclusive-registrants-only',
  'exclusive-access-registrants-only',
  'write-exclusive-all-registrants',
  'exclusive-access-all-registrants',
] as const;
export type ReservationTypeName = (typeof RESERVATION_TYPES)[number];

/** An I_T nexus. */
export interface NexusMessage {
  /** iSCSI name. */
  initiator: string;
  /** 12 hexadecimal digits. */
  isid: string;
  /** Relative target port identifier. */
  targetPort: number;
  /** Null where no server has the pool. */
  loggedIn: boolean | null;
}

export interface RegistrantMessage extends NexusMessage {
  /** 0x and 16 hexadecimal digits. */
  key: string;
  holdsReservation: boolean;
}

export interface VolumeReservationsMessage {
  volume: string;
  /** Of the persistent reservation; null without one. */
  type: ReservationTypeName | null;
  /** Registrations and persistent reservation outlive the server (APTPL). */
  survivesRestart: boolean;
  /** PRGENERATION; null where no server has the pool. */
  generation: number | null;
  registrants: RegistrantMessage[];
  /** Who has the volume with RESERVE(6) or RESERVE(10), which are none of the persistent ones. */
  reservedBy: NexusMessage | null;
}

export interface ReservationListMessage {
  volumes: VolumeReservationsMessage[];
}

export interface ClearReservationsMessage {
  /** Only what this initiator has; otherwise what everybody has. */
  initiator?: string | undefined;
  /** Though an initiator that loses something is logged in. */
  force?: boolean | undefined;
}

const nexus = {
  initiator: is.string(),
  isid: is.string(),
  targetPort: is.int(),
  loggedIn: is.boolean().nullable(),
};

export const volumeReservationsSchema: is.Schema<VolumeReservationsMessage> = is.object({
  volume: is.string(),
  type: is.oneOf(RESERVATION_TYPES).nullable(),
  survivesRestart: is.boolean(),
  generation: is.int().nullable(),
  registrants: is.array(is.object({ ...nexus, key: is.string(), holdsReservation: is.boolean() })),
  reservedBy: is.object(nexus).nullable(),
});

export const reservationListSchema: is.Schema<ReservationListMessage> = is.object({
  volumes: is.array(volumeReservationsSchema),
});

export const clearReservationsSchema: is.Schema<ClearReservationsMessage> = is.strictObject({
  initiator: is.string().min(1).max(512).optional(),
  force: is.boolean().optional(),
});
