/** Messages of the control socket about reservations. See control-messages.ts. */
import * as v from 'valibot';
import { integer, object, type Schema, strictObject } from '../base/schema.ts';

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
  initiator: v.string(),
  isid: v.string(),
  targetPort: integer(),
  loggedIn: v.nullable(v.boolean()),
};

export const volumeReservationsSchema: Schema<VolumeReservationsMessage> = object({
  volume: v.string(),
  type: v.nullable(v.picklist(RESERVATION_TYPES)),
  survivesRestart: v.boolean(),
  generation: v.nullable(integer()),
  registrants: v.array(object({ ...nexus, key: v.string(), holdsReservation: v.boolean() })),
  reservedBy: v.nullable(object(nexus)),
});

export const reservationListSchema: Schema<ReservationListMessage> = object({
  volumes: v.array(volumeReservationsSchema),
});

export const clearReservationsSchema: Schema<ClearReservationsMessage> = strictObject({
  initiator: v.optional(v.pipe(v.string(), v.minLength(1), v.maxLength(512))),
  force: v.optional(v.boolean()),
});
